//! How a sandbox comes to be: checked, bounded, and, when a node waits, given to it in the same commit.

use super::change::{Note, apply};
use super::work::Untold;
use crate::approval::yes;
use crate::capacity::Root;
use crate::create::{Idempotency, gets_work, key_of, made_before};
use crate::error::Fail;
use crate::permit::{check_current, is_changed};
use crate::profile::ProfileAsk;
use crate::quota::Book;
use crate::quota::admit;
use crate::root::check_same;
use crate::snapshot::SnapshotRef;
use crate::snapshot::begin::{hold, spec_from};
use crate::wake::{For, Parked};
use crate::{Ctx, Error, Service, locked, random, volume};
use model::access::Action;
use model::id::{NodeId, SandboxId, TenantId};
use model::limits;
use model::node::Scheduling;
use model::profile::Says;
use model::sandbox::SandboxEvent;
use model::sandbox_spec::{AccessToken, SandboxSpec, cut_ttl};
use model::volume::VOLUME_PROFILE;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use store::idempotency::{self, KeyOwner, Remembered};
use store::sandbox::{NewSandbox, SandboxRow};
use store::{Tx, sandbox};

/// A sandbox that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxAsk {
    /// What it is to be.
    pub spec: SandboxSpec,
    /// The snapshot that it is to begin with. What the spec does not say is then as it was there.
    pub from: Option<SnapshotRef>,
    /// Labels to find it by.
    pub metadata: BTreeMap<String, String>,
    /// How long it is to live, counted from when it is ready; cut to the longest.
    pub ttl_ms: u64,
    /// The profile, where it is one of somebody's. What the request does not say is then as it is there.
    pub profile: Option<ProfileAsk>,
    /// What it says itself: for what nobody has said, policies give as much as they allow.
    pub says: Says,
}

/// Everything that the transaction needs; made once, used for every try of it.
#[derive(Clone)]
struct Plan {
    new: NewSandbox,
    key: Option<(KeyOwner, Remembered)>,
    disk_is_full: bool,
    count: bool,
    node: Option<NodeId>,
    note: Note,
    quotas: Book,
}

enum Made {
    /// New; and how many there are, if they were counted.
    New(Box<SandboxRow>, Option<u64>),
    /// Made by an earlier request with the same key.
    There(Box<SandboxRow>),
}

impl Service {
    /// Takes a sandbox in. When a node waits, it has the order in the commit that this waits for.
    ///
    /// With a key, the same request again answers the sandbox that the first one made, as it is now.
    ///
    /// # Errors
    /// [`Error::Invalid`] with all that is wrong, among it `limit_beyond_machine`, `unknown_root`, and
    /// `beyond_profile`; [`Error::Conflict`] `idempotency_mismatch`, `root_changed`, `profile_base_gone`, `policy_changed`; [`Error::TooMuch`]; [`Error::DiskFull`].
    pub async fn sandbox_create(
        &self,
        ctx: &Ctx,
        mut ask: SandboxAsk,
        idempotency: Option<Idempotency>,
    ) -> Result<SandboxRow, Error> {
        ctx.may(Action::SandboxWrite)?;
        Service::root_may(ctx, ask.spec.root.as_deref())?;
        check_asked(&ask.spec)?;
        let there = self.sandbox_made_before(ctx, idempotency.as_ref());
        if let Some(row) = there.await? {
            return Ok(row);
        }
        ask = self.by_profile(ctx, ask).await?;
        if let Some(from) = ask.from.take() {
            let from = self.snapshot_find(ctx, &from).await?;
            ask.spec = spec_from(ask.spec, &from)?;
            // Once more: what is not said is as it is in the snapshot.
            check_asked(&ask.spec)?;
        }
        self.sandbox_make(ctx, ask, idempotency).await
    }

    /// As for jobs: what the first request with this key has made is there, whatever policies say by now.
    async fn sandbox_made_before(
        &self,
        ctx: &Ctx,
        idempotency: Option<&Idempotency>,
    ) -> Result<Option<SandboxRow>, Error> {
        let Some(asked) = idempotency else {
            return Ok(None);
        };
        if matches!(self.effective(ctx, &[]).await, Ok(None)) {
            return Ok(None);
        }
        let key = key_of(ctx, "sandbox.create", asked.clone(), "");
        let tenant = ctx.tenant.clone();
        self.look(move |tx| there(tx, &tenant, Some(&key))).await
    }

    /// The same, when everything is said.
    pub(crate) async fn sandbox_make(
        &self,
        ctx: &Ctx,
        ask: SandboxAsk,
        idempotency: Option<Idempotency>,
    ) -> Result<SandboxRow, Error> {
        let id = self.sandbox_id()?;
        self.sandbox_make_as(ctx, id, ask, idempotency).await
    }

    pub(crate) fn sandbox_id(&self) -> Result<SandboxId, Error> {
        Ok(SandboxId::from_parts(self.now_ms(), random()?))
    }

    /// The same with an id that somebody has written down before.
    pub(crate) async fn sandbox_make_as(
        &self,
        ctx: &Ctx,
        id: SandboxId,
        ask: SandboxAsk,
        idempotency: Option<Idempotency>,
    ) -> Result<SandboxRow, Error> {
        ask.spec.validate(&ask.metadata).map_err(Error::Invalid)?;
        if ask.ttl_ms == 0 {
            return Err(Error::invalid("timeout_ms", "limit_zero", "must not be 0"));
        }
        let mut tries = 1;
        loop {
            // On the heap: whoever asks holds this in a future of its own.
            let permitted = Box::pin(self.permitted_sandbox(ctx, ask.clone())).await?;
            let made = self.sandbox_write(ctx, id.clone(), permitted, idempotency.clone());
            match Box::pin(made).await {
                Err(error) if is_changed(&error, tries) => tries += 1,
                made => return made,
            }
            self.policies_forget();
        }
    }

    /// The same, when it is decided.
    async fn sandbox_write(
        &self,
        ctx: &Ctx,
        id: SandboxId,
        mut ask: SandboxAsk,
        idempotency: Option<Idempotency>,
    ) -> Result<SandboxRow, Error> {
        let spec = &mut ask.spec;
        let identity = self
            .place_on_root(spec.root.as_deref(), &mut spec.node)
            .await?;
        if spec.layers.is_empty() {
            spec.root_identity = identity;
        } else {
            check_same(spec.root_identity.as_deref(), identity.as_deref())?;
        }
        self.pin_volumes(ctx, &mut ask.spec).await?;
        let root = Root::of(ask.spec.allow_root);
        let asked = (&ask.spec.limits, &ask.spec.placement);
        self.check_capacity(asked, root, ask.spec.node.as_ref())
            .await?;
        self.pin_secrets(ctx, &mut ask.spec.secrets).await?;
        let wish = ask.spec.wish();
        let parked = self.wake().take_parked(
            (For::Sandboxes, self.strategy()),
            ask.spec.node.as_ref(),
            wish.as_ref(),
        );
        let mut plan = self.sandbox_plan(ctx, id, ask, parked.as_ref())?;
        let id = plan.new.id.as_str();
        plan.key = idempotency.map(|asked| key_of(ctx, "sandbox.create", asked, id));
        let tenant = ctx.tenant.clone();
        // Whoever asks may go away at any line: what is committed by then is found by the next look of the
        // node's poll, because the row says whose it is.
        let row = match self.unit(move |tx| create(tx, &plan)).await? {
            Made::There(row) => return Ok(*row),
            Made::New(row, counted) => {
                if let Some(live) = counted {
                    let mut room = locked(&self.inner.sandbox_room);
                    // Of these, all are counted at any time.
                    room.counted(&tenant, (live, 0), (limits::SANDBOXES_MAX, 0));
                }
                *row
            }
        };
        match (parked, &row.node) {
            // A poll that was taken and gets nothing is dropped, which lets it look by itself.
            (Some(poll), Some(node)) => poll.hand_sandboxes(Untold::new(self, node, vec![&row])),
            _ => self.announce_sandbox(&row),
        }
        Ok(row)
    }

    fn sandbox_plan(
        &self,
        ctx: &Ctx,
        id: SandboxId,
        mut ask: SandboxAsk,
        parked: Option<&Parked>,
    ) -> Result<Plan, Error> {
        let at_ms = self.now_ms();
        // Of a fork, whose time somebody has said anew.
        if let Some(made_by) = &mut ask.spec.made_by
            && made_by.within(ask.ttl_ms) < ask.ttl_ms
        {
            ask.ttl_ms = made_by.cut(ask.ttl_ms);
        }
        Ok(Plan {
            key: None,
            disk_is_full: self.is_full_with(0),
            count: !locked(&self.inner.sandbox_room).take(&ctx.tenant),
            node: parked.map(|poll| poll.node.clone()),
            note: Note::new(ctx, at_ms),
            quotas: self.inner.quotas.clone(),
            new: NewSandbox {
                id,
                tenant: ctx.tenant.clone(),
                principal: ctx.principal.clone(),
                metadata: ask.metadata,
                access_token: access_token()?,
                ttl_ms: cut_ttl(ask.ttl_ms),
                due_at_ms: at_ms.saturating_add(ask.spec.queue_timeout_ms),
                spec: ask.spec,
                at_ms,
            },
        })
    }
}

/// What serves volumes is for no policy, so nobody may ask for something that is taken for it.
fn check_asked(spec: &SandboxSpec) -> Result<(), Error> {
    if spec.profile == VOLUME_PROFILE || spec.serves_volume {
        let message = "this profile is not for anybody to ask for";
        return Err(Error::invalid("profile", "unknown_profile", message));
    }
    Ok(())
}

/// A secret that cannot be guessed: 256 random bits.
pub(super) fn access_token() -> Result<AccessToken, Error> {
    let bytes: [u8; 32] = random()?;
    let mut text = String::with_capacity(64);
    for byte in bytes {
        write!(text, "{byte:02x}").map_err(|error| Error::internal("write a token", error))?;
    }
    Ok(AccessToken::new(text))
}

/// What an earlier request with the same key has made.
fn there(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    key: Option<&(KeyOwner, Remembered)>,
) -> Result<Option<SandboxRow>, Fail> {
    let Some((owner, asked)) = key else {
        return Ok(None);
    };
    let Some(there) = idempotency::get(tx, owner)? else {
        return Ok(None);
    };
    let row = match made_before::<SandboxId>(asked, &there)? {
        Some(id) => sandbox::get(tx, Some(tenant), &id)?,
        None => None,
    };
    let gone = || Error::mismatch("what the key was used for is gone");
    Ok(Some(row.ok_or_else(gone)?))
}

fn create(tx: &mut Tx<'_>, plan: &Plan) -> Result<Made, Fail> {
    if let Some(row) = there(tx, &plan.new.tenant, plan.key.as_ref())? {
        return Ok(Made::There(Box::new(row)));
    }
    if plan.disk_is_full {
        return Err(Error::DiskFull.into());
    }
    let stamps = if plan.new.spec.serves_volume {
        store::policy::stamps(tx)?
    } else {
        check_current(tx, plan.new.spec.permit.as_deref())?
    };
    let permit = plan.new.spec.permit.as_ref();
    let yes = permit.and_then(|permit| permit.yes.as_ref());
    yes::check(tx, yes, plan.new.at_ms)?;
    check_pin(tx, plan)?;
    hold(tx, &plan.new.tenant, &plan.new.spec)?;
    volume::hold(tx, &plan.new.tenant, &plan.new.spec)?;
    let counted = count(tx, plan)?;
    let by = admit::By {
        book: &plan.quotas,
        stamp: stamps.quotas,
    };
    let who = (&plan.new.tenant, &plan.new.principal);
    admit::sandbox(tx, &by, who, &plan.new.spec.limits)?;
    let node = match &plan.node {
        Some(node) if may_place(tx, node, plan.new.at_ms)? => Some(node),
        _ => None,
    };
    // From here on it is written.
    let mut row = sandbox::insert(tx, &plan.new)?;
    yes::use_up(tx, yes, (&plan.new.principal, plan.new.at_ms))?;
    volume::use_in(tx, &row.spec, &row.id)?;
    if let Some(node) = node {
        row = place(tx, &row, node, plan.note.clone())?.unwrap_or(row);
    }
    if let Some((owner, asked)) = &plan.key {
        idempotency::put(tx, owner, asked, plan.new.at_ms)?;
    }
    Ok(Made::New(Box::new(row), counted))
}

/// Whoever waited longer goes first, and a node has no more than it can tell in a heartbeat.
pub(super) fn may_place(tx: &mut Tx<'_>, node: &NodeId, now_ms: u64) -> Result<bool, Fail> {
    let most = limits::NODE_SANDBOXES_MAX;
    Ok(!sandbox::is_requested(tx, node)?
        && gets_work(tx, node, now_ms)?
        && sandbox::count_held(tx, node, most)? < u64::from(most))
}

/// Gives a requested sandbox to a node.
pub(super) fn place(
    tx: &mut Tx<'_>,
    row: &SandboxRow,
    node: &NodeId,
    note: Note,
) -> Result<Option<SandboxRow>, Fail> {
    let node = Some(node.clone());
    apply(tx, row, &SandboxEvent::Provision, Note { node, ..note })
}

/// A sandbox that only one node may have would wait in vain for one that is not there.
fn check_pin(tx: &mut Tx<'_>, plan: &Plan) -> Result<(), Fail> {
    let Some(pin) = &plan.new.spec.node else {
        return Ok(());
    };
    let node = store::node::get(tx, pin)?;
    if node.is_some_and(|node| node.state.scheduling != Scheduling::Decommissioned) {
        return Ok(());
    }
    Err(Error::invalid("node", "invalid_argument", "there is no such node").into())
}

fn count(tx: &mut Tx<'_>, plan: &Plan) -> Result<Option<u64>, Fail> {
    if !plan.count {
        return Ok(None);
    }
    check_room(tx, &plan.new.tenant).map(Some)
}

/// How many a tenant has, if that is not as many as it may.
pub(super) fn check_room(tx: &mut Tx<'_>, tenant: &TenantId) -> Result<u64, Fail> {
    let live = sandbox::count_live(tx, tenant, limits::SANDBOXES_MAX)?;
    if live >= limits::SANDBOXES_MAX {
        return Err(Fail::Ours(Error::TooMuch {
            code: "too_much",
            message: format!("there are {live} sandboxes already"),
        }));
    }
    Ok(live)
}

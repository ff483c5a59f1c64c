//! Snapshots: saved file systems of sandboxes, and sandboxes that begin with them.
//!
//! A snapshot is made by an order to the node of its sandbox, which is `snapshotting` meanwhile; what its
//! node reports of that order moves both rows in one transaction. One that is to go is an order too, which
//! its node gets when nothing stands on it any more: rows decide, and whatever a node has without a row is
//! taken away as well.
//!
//! Reading order: this file, `change` (decide and write), `begin` (what a sandbox takes over), `fork`.

pub(crate) mod begin;
pub(crate) mod change;
mod fork;
pub(crate) mod work;

pub use begin::SnapshotRef;
pub use fork::Fork;

use crate::create::{Idempotency, key_of, made_before};
use crate::error::Fail;
use crate::job::until;
use crate::sandbox::{can_be_paused, change as sandbox_change, owned};
use crate::{Ctx, Error, Service, page, random};
use change::{apply, note_of};
use model::access::Action;
use model::id::{NodeId, SandboxId, SnapshotId};
use model::limits;
use model::sandbox::{SandboxEvent, SandboxState};
use model::sandbox_spec::{Defaults, SandboxSpec};
use model::snapshot::{SnapshotEvent, SnapshotName, SnapshotState};
use std::collections::BTreeMap;
use std::time::Duration;
use store::idempotency::{self, KeyOwner, Remembered};
use store::sandbox::SandboxRow;
use store::snapshot::{NewSnapshot, Purpose, SnapshotFilter, SnapshotRow};
use store::{Tx, snapshot};
use tokio::time::Instant;

/// A page of snapshots, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotPage {
    /// The snapshots.
    pub snapshots: Vec<SnapshotRow>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<String>,
}

/// Everything that the transaction needs.
#[derive(Clone)]
struct Plan {
    ctx: Ctx,
    id: SnapshotId,
    sandbox: SandboxId,
    purpose: Purpose,
    name: Option<SnapshotName>,
    /// What holds in sandboxes that begin with it, in place of what held in this one.
    settings: Option<Settings>,
    key: Option<(KeyOwner, Remembered)>,
    at_ms: u64,
}

/// What a recipe says of the sandboxes that are made by it, beside their files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Settings {
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) defaults: Defaults,
}

impl Service {
    /// Wants a copy of what was written in a sandbox; its node is told. Afterwards the sandbox is what it
    /// was: what runs in it stands still for as long as the copy takes. Processes are not in the copy.
    ///
    /// With a key, the same request again answers the snapshot that the first one made, as it is now.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] where it cannot be copied now, also `sandbox_gone`, or ever:
    /// `pause_unsupported`, `snapshot_too_deep`; [`Error::TooMuch`]; [`Error::DiskFull`].
    pub async fn snapshot_create(
        &self,
        ctx: &Ctx,
        sandbox: &SandboxId,
        name: Option<SnapshotName>,
        idempotency: Option<Idempotency>,
    ) -> Result<SnapshotRow, Error> {
        ctx.may(Action::SnapshotWrite)?;
        let id = self.snapshot_id()?;
        let key = idempotency.map(|asked| key_of(ctx, "snapshot.create", asked, id.as_str()));
        self.snapshot_begin(ctx, sandbox, (id, Purpose::Kept), (name, None), key)
            .await
    }

    pub(crate) fn snapshot_id(&self) -> Result<SnapshotId, Error> {
        Ok(SnapshotId::from_parts(self.now_ms(), random()?))
    }

    pub(crate) async fn snapshot_begin(
        &self,
        ctx: &Ctx,
        sandbox: &SandboxId,
        (id, purpose): (SnapshotId, Purpose),
        (name, settings): (Option<SnapshotName>, Option<Settings>),
        key: Option<(KeyOwner, Remembered)>,
    ) -> Result<SnapshotRow, Error> {
        let before = self.sandbox_get(ctx, sandbox).await?;
        // The copy may be as large as what the sandbox may write.
        let most = before.spec.limits.disk_bytes.unwrap_or(0);
        let is_full = self.is_full_with(most);
        let plan = Plan {
            ctx: ctx.clone(),
            id,
            sandbox: sandbox.clone(),
            purpose,
            name,
            settings,
            key,
            at_ms: self.now_ms(),
        };
        let (row, copied) = self.unit(move |tx| begin(tx, &plan, is_full)).await?;
        if let Some(copied) = copied {
            self.announce_sandbox(&copied);
        }
        Ok(row)
    }

    /// A snapshot as it is now.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn snapshot_get(&self, ctx: &Ctx, id: &SnapshotId) -> Result<SnapshotRow, Error> {
        ctx.may(Action::SnapshotRead)?;
        let (ctx, id) = (ctx.clone(), id.clone());
        self.look(move |tx| owned_snapshot(tx, &ctx, &id)).await
    }

    /// The snapshot that somebody names; of several with one name, the newest that is ready.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn snapshot_find(
        &self,
        ctx: &Ctx,
        named: &SnapshotRef,
    ) -> Result<SnapshotRow, Error> {
        ctx.may(Action::SnapshotRead)?;
        let (ctx, named) = (ctx.clone(), named.clone());
        self.look(move |tx| begin::find(tx, &ctx, &named)).await
    }

    /// A snapshot when it is ready, or will not be, or as it is when the time is up.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn snapshot_wait(
        &self,
        ctx: &Ctx,
        id: &SnapshotId,
        up_to: Duration,
    ) -> Result<SnapshotRow, Error> {
        ctx.may(Action::SnapshotRead)?;
        let until = until(up_to, limits::JOB_WAIT_MAX_MS);
        // Before the look, so that what happens between the look and the wait is not missed.
        let mut news = self.wake().sandboxes();
        let mut row = self.snapshot_get(ctx, id).await?;
        while row.state == SnapshotState::Saving && Instant::now() < until {
            // The copy and its sandbox change together.
            crate::wake::sandbox_news(&mut news, &row.sandbox, until).await;
            row = self.snapshot_get(ctx, id).await?;
        }
        Ok(row)
    }

    /// Snapshots that somebody keeps, newest first: those that the filter asks for, after the page that
    /// ended with `before`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a `before` that no page ended with.
    pub async fn snapshot_list(
        &self,
        ctx: &Ctx,
        filter: SnapshotFilter,
        before: Option<&str>,
        limit: u32,
    ) -> Result<SnapshotPage, Error> {
        ctx.may(Action::SnapshotRead)?;
        let limit = limit.clamp(1, limits::PAGE_MAX);
        let before = before.map(crate::sandbox::cursor).transpose()?;
        let tenant = ctx.tenant.clone();
        let mut snapshots = self
            .look(move |tx| {
                let before = before.as_ref().map(|(ms, id)| (*ms, id));
                // One more than is shown tells whether there is another page.
                Ok(snapshot::list(tx, &tenant, &filter, before, limit + 1)?)
            })
            .await?;
        let next = page::cut(&mut snapshots, limit, |row| {
            format!("{}.{}", row.created_at_ms, row.id)
        });
        Ok(SnapshotPage { snapshots, next })
    }

    /// Wants a snapshot gone, wherever it is in its life. Nothing begins with it any more from then on; its
    /// bytes go when nothing stands on them. Twice is once.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn snapshot_delete(&self, ctx: &Ctx, id: &SnapshotId) -> Result<SnapshotRow, Error> {
        ctx.may(Action::SnapshotWrite)?;
        let note = note_of(ctx, self.now_ms());
        let (ctx, id) = (ctx.clone(), id.clone());
        let row = self
            .unit(move |tx| {
                let gone = || Fail::Ours(Error::NotFound);
                let row = snapshot::lock(tx, &ctx.tenant, &id)?.ok_or_else(gone)?;
                let next = apply(tx, &row, &SnapshotEvent::Delete, &note)?.unwrap_or(row);
                change::forget_without_node(tx, next, &note)
            })
            .await?;
        self.wake().node(&row.node);
        Ok(row)
    }

    /// A node says that it has nothing of a snapshot any more.
    ///
    /// # Errors
    /// [`Error::NotFound`] for one of another node, or one that nobody knows; [`Error::Conflict`] for one
    /// that is not to go.
    pub async fn snapshot_removed(&self, ctx: &Ctx, id: &SnapshotId) -> Result<(), Error> {
        let node = ctx.only_node()?.clone();
        let (id, note) = (id.clone(), note_of(ctx, self.now_ms()));
        self.unit(move |tx| {
            let row = snapshot::get(tx, None, &id)?.filter(|row| row.node == node);
            let row = row.ok_or(Fail::Ours(Error::NotFound))?;
            apply(tx, &row, &SnapshotEvent::Deleted, &note)?;
            Ok::<_, Fail>(())
        })
        .await
    }
}

/// The snapshot, if it is this tenant's.
pub(crate) fn owned_snapshot(
    tx: &mut Tx<'_>,
    ctx: &Ctx,
    id: &SnapshotId,
) -> Result<SnapshotRow, Fail> {
    snapshot::get(tx, Some(&ctx.tenant), id)?.ok_or(Fail::Ours(Error::NotFound))
}

/// Writes a snapshot that is to be, and the order to its node; gives the sandbox too if it is new.
fn begin(
    tx: &mut Tx<'_>,
    plan: &Plan,
    is_full: bool,
) -> Result<(SnapshotRow, Option<SandboxRow>), Fail> {
    if let Some((owner, asked)) = &plan.key
        && let Some(there) = idempotency::get(tx, owner)?
    {
        let row = match made_before::<SnapshotId>(asked, &there)? {
            Some(id) => snapshot::get(tx, Some(&plan.ctx.tenant), &id)?,
            None => None,
        };
        let gone = || Error::mismatch("what the key was used for is gone");
        return Ok((row.ok_or_else(gone)?, None));
    }
    let row = owned(tx, &plan.ctx, &plan.sandbox)?;
    let node = check_can_be_copied(&row)?.clone();
    if is_full {
        return Err(Error::DiskFull.into());
    }
    check_room(tx, plan, &node)?;
    let note = sandbox_change::Note::new(&plan.ctx, plan.at_ms);
    let copying = SandboxEvent::Snapshot {
        snapshot: plan.id.clone(),
    };
    let copied = sandbox_change::apply(tx, &row, &copying, note)?;
    let new = NewSnapshot {
        id: plan.id.clone(),
        tenant: plan.ctx.tenant.clone(),
        principal: plan.ctx.principal.clone(),
        purpose: plan.purpose,
        sandbox: row.id,
        node,
        name: plan.name.clone(),
        spec: match &plan.settings {
            Some(settings) => SandboxSpec {
                env: settings.env.clone(),
                defaults: settings.defaults.clone(),
                ..row.spec
            },
            None => row.spec,
        },
        at_ms: plan.at_ms,
    };
    let made = snapshot::insert(tx, &new)?;
    if let Some((owner, asked)) = &plan.key {
        idempotency::put(tx, owner, asked, plan.at_ms)?;
    }
    Ok((made, copied))
}

/// Pure.
fn check_can_be_copied(row: &SandboxRow) -> Result<&NodeId, Error> {
    let over = row.state.is_over() || row.state == SandboxState::Destroying;
    let Some(node) = row.node.as_ref().filter(|_| !over) else {
        let message = format!("the sandbox is {}", row.state.name());
        return Err(match over {
            true => Error::conflict_of("sandbox_gone", message),
            false => Error::conflict(message),
        });
    };
    if row.state == SandboxState::Ready && !can_be_paused(row) {
        let message = "its node cannot stop what runs in the sandbox while it is copied";
        return Err(Error::conflict_of("pause_unsupported", message));
    }
    let most = limits::SNAPSHOT_LAYERS_MAX;
    if row.spec.layers.len() >= most {
        let message = format!("{most} snapshots stand on each other below this sandbox already");
        return Err(Error::conflict_of("snapshot_too_deep", message));
    }
    Ok(node)
}

fn check_room(tx: &mut Tx<'_>, plan: &Plan, node: &NodeId) -> Result<(), Fail> {
    let too_many = |what: &str, there: u64| {
        Fail::Ours(Error::TooMuch {
            code: "too_much",
            message: format!("there are {there} snapshots of {what} already"),
        })
    };
    let all = snapshot::count(tx, &plan.ctx.tenant, limits::SNAPSHOTS_MAX)?;
    if all >= limits::SNAPSHOTS_MAX {
        return Err(too_many("yours", all));
    }
    let of_one = snapshot::count_of(tx, &plan.sandbox, limits::SANDBOX_SNAPSHOTS_MAX)?;
    if of_one >= limits::SANDBOX_SNAPSHOTS_MAX {
        return Err(too_many("this sandbox", of_one));
    }
    let most = u64::from(limits::NODE_SNAPSHOTS_MAX);
    let on_node = snapshot::count_on(tx, node, most)?;
    if on_node >= most {
        return Err(too_many("its node", on_node));
    }
    Ok(())
}

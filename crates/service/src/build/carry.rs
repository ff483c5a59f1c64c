//! What whoever carries a build out may ask and say, for as long as it has it.

use super::origin::{Built, Settled};
use super::{apply, owned};
use crate::change::cut;
use crate::ctx::Caller;
use crate::error::Fail;
use crate::sandbox::change::Note;
use crate::sandbox::take_away;
use crate::snapshot::{Settings, SnapshotRef};
use crate::{Ctx, Error, SandboxAsk, Service};
use model::build::{BuildEvent, BuildFailure, BuildState, Verdict, verdict};
use model::id::{SandboxId, SnapshotId};
use model::limits;
use model::network::NetworkRules;
use model::profile::{Recipe, Says};
use model::sandbox_spec::{Defaults, OnExpiry, SandboxSpec, StartCommand};
use model::spec::AskedLimits;
use std::collections::BTreeMap;
use store::build::{self as rows, BuildRow, LogRow};
use store::sandbox::SandboxRow;
use store::snapshot::{Purpose, SnapshotRow};

/// The label of a build's sandbox: lists of sandboxes leave out what has it, unless they ask for it.
pub const BUILD_LABEL: &str = "cofferdam/build";

/// A build, in the hands of whoever carries it out. It has it until the lease ends, and renews that with
/// everything that it says.
#[derive(Debug, Clone)]
pub struct BuildHold {
    row: BuildRow,
    /// When its sandbox was given time last.
    extended_at_ms: u64,
}

/// What was saved of a build, and what holds in sandboxes that begin with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// What holds after the last instruction.
    pub settled: Settled,
    /// What is started with each sandbox.
    pub start: Option<StartCommand>,
}

impl BuildHold {
    fn new(row: BuildRow, now_ms: u64) -> BuildHold {
        BuildHold {
            row,
            extended_at_ms: now_ms,
        }
    }

    /// What is to be done.
    pub fn recipe(&self) -> Option<&Recipe> {
        self.row.recipe.as_ref()
    }

    /// The build as it was read or written last.
    pub fn row(&self) -> &BuildRow {
        &self.row
    }

    /// In whose name it is carried out.
    pub(crate) fn ctx(&self) -> Ctx {
        Ctx {
            tenant: self.row.tenant.clone(),
            principal: self.row.principal.clone(),
            caller: Caller::Internal,
            key: None,
            request_id: self.row.id.to_string(),
            lease_token: None,
            sees_servers: false,
        }
    }

    /// The limits of its sandbox, and of those that begin with what it saves. Files of a build count to its
    /// disk alone, of which it needs more than most.
    pub(crate) fn sandbox_limits(&self) -> AskedLimits {
        AskedLimits {
            disk_bytes: self
                .row
                .limits
                .disk_bytes
                .or(Some(limits::BUILD_DISK_BYTES)),
            ..self.row.limits
        }
    }

    fn lost() -> Error {
        Error::conflict("somebody else has the build now, or it is gone")
    }
}

impl Service {
    /// Takes a build that nobody has, if there is one. What attempts before this one have left is given up: its
    /// sandbox is taken away.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and its like.
    pub async fn build_take(&self) -> Result<Option<BuildHold>, Error> {
        loop {
            let now = self.now_ms();
            let free = self.look(move |tx| Ok(rows::free(tx, now, 1)?));
            let Some(row) = free.await?.pop() else {
                return Ok(None);
            };
            let Some(hold) = self.take_one(row, now).await? else {
                continue;
            };
            if !hold.row.state.is_over() {
                return Ok(Some(hold));
            }
        }
    }

    /// For a server that starts and knows to be the only one on its database: whoever had builds is dead, and
    /// they need not wait for their leases to end.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and its like.
    pub async fn builds_left(&self) -> Result<u64, Error> {
        self.unit(|tx| Ok(rows::end_leases(tx)?)).await
    }

    /// Takes this one, or gives it up; `None` when somebody else was faster.
    async fn take_one(&self, row: BuildRow, now: u64) -> Result<Option<BuildHold>, Error> {
        let begun = row.begun_at_ms.unwrap_or(row.created_at_ms);
        let taken = match verdict(row.attempt, begun, now) {
            Verdict::Take(attempt) => {
                let until = now.saturating_add(limits::BUILD_LEASE_MS);
                let taken = self.unit(move |tx| {
                    let ctx = BuildHold::new(row.clone(), now).ctx();
                    match rows::take(tx, &row, attempt, until) {
                        Err(store::StoreError::Stale { .. }) => Ok(None),
                        taken => Ok::<_, Fail>(Some((taken?, drop_in(tx, &ctx, &row, now)?))),
                    }
                });
                taken.await?.map(|(row, gone)| self.without(row, gone))
            }
            Verdict::GiveUp(why) => {
                let hold = BuildHold::new(row, now);
                Some(self.build_end(&hold, BuildEvent::Fail(why)).await?)
            }
        };
        Ok(taken.map(|row| BuildHold::new(row, now)))
    }

    /// Writes down what has changed, and has the build for another while.
    async fn build_keep(&self, hold: &mut BuildHold) -> Result<(), Error> {
        let mut row = hold.row.clone();
        row.lease_until_ms = self.now_ms().saturating_add(limits::BUILD_LEASE_MS);
        let with = row.clone();
        let kept = self.unit(move |tx| Ok::<_, Fail>(rows::keep(tx, &with)?));
        if !kept.await? {
            return Err(BuildHold::lost());
        }
        hold.row = row;
        Ok(())
    }

    /// Says that whoever has the build is still there, and that its sandbox is needed.
    ///
    /// # Errors
    /// [`Error::Conflict`] when somebody else has it, or when its hour is over.
    pub async fn build_renew(&self, hold: &mut BuildHold) -> Result<(), Error> {
        let begun = hold.row.begun_at_ms.unwrap_or(hold.row.created_at_ms);
        if self.now_ms().saturating_sub(begun) >= limits::BUILD_MS {
            return Err(Error::conflict("the time of the build is over"));
        }
        self.build_keep(hold).await?;
        let now = self.now_ms();
        let due = hold.extended_at_ms + limits::BUILD_SANDBOX_MS / 3 <= now;
        if let Some(id) = hold.row.sandbox.as_ref().filter(|_| due) {
            hold.extended_at_ms = now;
            let (ctx, ttl) = (hold.ctx(), Some(limits::BUILD_SANDBOX_MS));
            let extended = self.sandbox_connect(&ctx, id, (ttl, true), std::time::Duration::ZERO);
            // That it is gone is found out by whoever uses it next.
            if let Err(error) = extended.await {
                tracing::debug!(sandbox.id = %id, error = error.cause(), "failed to extend the sandbox of a build");
            }
        }
        Ok(())
    }

    /// Adds to the log of the build, as much as is kept of one; what is too long is cut.
    ///
    /// # Errors
    /// [`Error::Conflict`] when somebody else has the build.
    pub async fn build_log(
        &self,
        hold: &mut BuildHold,
        mut entries: Vec<LogRow>,
    ) -> Result<(), Error> {
        let room = limits::BUILD_LOGS_MAX.saturating_sub(hold.row.logs);
        entries.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        if entries.is_empty() {
            return Ok(());
        }
        let (row, added) = (hold.row.clone(), entries.len() as u64);
        let logged = self.unit(move |tx| Ok::<_, Fail>(rows::log(tx, &row, &entries)?));
        if !logged.await? {
            return Err(BuildHold::lost());
        }
        hold.row.logs += added;
        Ok(())
    }

    /// Asks for the sandbox of the build.
    ///
    /// # Errors
    /// Those of a create.
    pub async fn build_sandbox(
        &self,
        hold: &mut BuildHold,
        built: &Built,
    ) -> Result<SandboxRow, Error> {
        let ctx = hold.ctx();
        let mut spec = SandboxSpec {
            profile: built.profile.clone(),
            serves_volume: false,
            name: None,
            env: BTreeMap::new(),
            root: built.root.clone(),
            root_identity: None,
            limits: hold.sandbox_limits(),
            network: NetworkRules::all_or_nothing(true),
            allow_root: true,
            on_expiry: OnExpiry::Kill,
            auto_resume: false,
            queue_timeout_ms: limits::SANDBOX_QUEUE_DEFAULT_MS,
            placement: model::place::Placement::default(),
            node: None,
            secrets: Vec::new(),
            scrub_patterns: false,
            layers: Vec::new(),
            volumes: Vec::new(),
            defaults: Defaults::default(),
            made_by: None,
            permit: None,
        };
        if let Some(from) = &built.from {
            let from = SnapshotRef::Id(from.clone());
            let from = self.snapshot_find(&ctx, &from).await?;
            spec = crate::snapshot::begin::spec_from(spec, &from)?;
            // What is started with sandboxes of the base is not started here, and each command is told by itself
            // what holds for it.
            spec.defaults = Defaults::default();
            spec.env = BTreeMap::new();
        }
        let label = (BUILD_LABEL.to_owned(), hold.row.id.to_string());
        let ask = SandboxAsk {
            spec,
            from: None,
            metadata: BTreeMap::from([label]),
            ttl_ms: limits::BUILD_SANDBOX_MS,
            profile: None,
            // Nobody has asked for this network: policies may give less.
            says: Says::default(),
        };
        let id = self.sandbox_id()?;
        // Before there is one: whoever takes the build next takes this sandbox away.
        hold.row.sandbox = Some(id.clone());
        self.build_keep(hold).await?;
        self.sandbox_make_as(&ctx, id, ask, None).await
    }

    /// The sandbox of the build when it stands, or is not there, or as it is when the time is up.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn build_sandbox_wait(
        &self,
        hold: &BuildHold,
        up_to: std::time::Duration,
    ) -> Result<SandboxRow, Error> {
        let id = hold.row.sandbox.clone().ok_or(Error::NotFound)?;
        self.sandbox_wait(&hold.ctx(), &id, up_to).await
    }

    /// Takes the sandbox of the build away. Of one that is gone nothing has to go.
    pub async fn build_sandbox_drop(&self, hold: &BuildHold) {
        if let Some(id) = &hold.row.sandbox {
            self.drop_sandbox(&hold.ctx(), id).await;
        }
    }

    async fn drop_sandbox(&self, ctx: &Ctx, id: &SandboxId) {
        if let Err(error) = self.sandbox_destroy(ctx, id).await {
            // It ends by itself.
            tracing::debug!(sandbox.id = %id, error = error.cause(), "failed to take the sandbox of a build away");
        }
    }

    /// The archive of this name, for the sandbox of the build, and its length.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn build_files(
        &self,
        hold: &BuildHold,
        name: &str,
    ) -> Result<(std::fs::File, u64), Error> {
        self.build_file_open(&hold.ctx(), name).await
    }

    /// Asks for a copy of what was written in the sandbox of the build.
    ///
    /// # Errors
    /// Those of [`Service::snapshot_create`].
    pub async fn build_save(
        &self,
        hold: &mut BuildHold,
        saved: Saved,
    ) -> Result<SnapshotRow, Error> {
        let sandbox = hold.row.sandbox.clone().ok_or(Error::NotFound)?;
        let id = self.snapshot_id()?;
        // Before there is one: a copy that no build names is taken away.
        hold.row.snapshot = Some(id.clone());
        self.build_keep(hold).await?;
        let settings = Settings {
            env: saved.settled.env,
            defaults: Defaults {
                user: saved.settled.user,
                workdir: saved.settled.workdir,
                start: saved.start,
            },
        };
        let what = (id, Purpose::Build);
        let ctx = hold.ctx();
        self.snapshot_begin(&ctx, &sandbox, what, (None, Some(settings)), None)
            .await
    }

    /// The copy when it is ready, or will not be, or as it is when the time is up.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn build_save_wait(
        &self,
        hold: &BuildHold,
        up_to: std::time::Duration,
    ) -> Result<SnapshotRow, Error> {
        let id = hold.row.snapshot.clone().ok_or(Error::NotFound)?;
        self.snapshot_wait(&hold.ctx(), &id, up_to).await
    }

    /// Says that the build is done: from then on its tags mean it, and sandboxes begin with what it has saved, or
    /// with the copy of an earlier one that is named.
    ///
    /// # Errors
    /// [`Error::Conflict`] when somebody else has it; [`Error::NotFound`] when what it saved is gone.
    pub async fn build_done(
        &self,
        hold: &mut BuildHold,
        key: &str,
        of_other: Option<SnapshotId>,
    ) -> Result<(), Error> {
        hold.row.done_key = Some(key.to_owned());
        if of_other.is_some() {
            hold.row.snapshot = of_other;
        }
        self.build_keep(hold).await?;
        hold.row = self.build_end(hold, BuildEvent::Done).await?;
        Ok(())
    }

    /// Says that the build comes to nothing.
    ///
    /// # Errors
    /// [`Error::Conflict`] when somebody else has it.
    pub async fn build_fail(&self, hold: &mut BuildHold, why: BuildFailure) -> Result<(), Error> {
        let why = BuildFailure {
            message: cut(&why.message),
            ..why
        };
        hold.row = self.build_end(hold, BuildEvent::Fail(why)).await?;
        Ok(())
    }

    /// Ends a build that is this attempt's; twice is once.
    async fn build_end(&self, hold: &BuildHold, event: BuildEvent) -> Result<BuildRow, Error> {
        let (ctx, held, at_ms) = (hold.ctx(), hold.row.clone(), self.now_ms());
        let ending = self.unit(move |tx| {
            let row = owned(tx, &ctx, &held.id)?;
            if row.attempt != held.attempt {
                return Err(BuildHold::lost().into());
            }
            let next = apply(tx, &row, &event, (&ctx.principal, at_ms))?;
            if next.state == BuildState::Ready && next.version != row.version {
                settle(tx, &ctx, &next, at_ms)?;
            }
            let over = next.state.is_over();
            let gone = if over {
                drop_in(tx, &ctx, &held, at_ms)?
            } else {
                None
            };
            Ok((next, gone))
        });
        let (row, gone) = ending.await?;
        Ok(self.without(row, gone))
    }

    /// Tells whoever waits that the sandbox of the build goes.
    fn without(&self, row: BuildRow, gone: Option<SandboxRow>) -> BuildRow {
        if let Some(gone) = gone {
            self.announce_sandbox(&gone);
        }
        row
    }
}

/// Wants the sandbox gone that an attempt has, with what ends the attempt: whoever dies then leaves none.
fn drop_in(
    tx: &mut store::Tx<'_>,
    ctx: &Ctx,
    held: &BuildRow,
    at_ms: u64,
) -> Result<Option<SandboxRow>, Fail> {
    let Some(id) = &held.sandbox else {
        return Ok(None);
    };
    let row = store::sandbox::get(tx, Some(&ctx.tenant), id)?;
    row.map(|row| take_away(tx, row, Note::new(ctx, at_ms)))
        .transpose()
}

/// Lets the tags of a build mean it, if what it has saved is there and stays.
fn settle(tx: &mut store::Tx<'_>, ctx: &Ctx, row: &BuildRow, at_ms: u64) -> Result<(), Fail> {
    let gone = || Fail::Ours(Error::NotFound);
    let id = row.snapshot.as_ref().ok_or_else(gone)?;
    // Whoever wants it gone waits for this, and finds the build then.
    let copy = store::snapshot::lock(tx, &ctx.tenant, id)?.ok_or_else(gone)?;
    if copy.state != model::snapshot::SnapshotState::Ready {
        return Err(gone());
    }
    let profile = store::profile::get(tx, &ctx.tenant, &row.profile)?.ok_or_else(gone)?;
    crate::profile::tag::put(tx, &profile.id, (&row.tags, &row.id), at_ms)?;
    let data = serde_json::json!({"build": row.id.as_str(), "tags": row.tags}).to_string();
    let happened = store::profile::Happened {
        kind: "profile.built",
        data: &data,
        principal: &ctx.principal,
        at_ms,
    };
    store::profile::touch(tx, &profile, profile.is_public, happened)?;
    Ok(())
}

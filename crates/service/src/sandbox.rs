//! Sandboxes that live on, as those see them who asked for them.
//!
//! What somebody wants is a state of the row (`pausing`, `destroying`, ...), and with each such state goes
//! an order to the node, with an epoch of its own. Nodes learn orders from polls and heartbeats until
//! they have reported what they are for, so an order that is lost on the way costs time and nothing else.
//!
//! Reading order: `change` (decide and write), `create`, this file, `work` (what nodes are told),
//! `report` (what they say), and `loops::due`.

pub(crate) mod change;
mod create;
pub(crate) mod network;
pub(crate) mod recent;
mod recreate;
pub(crate) mod report;
mod usage;
pub(crate) mod work;

pub use create::SandboxAsk;
pub use network::{NetworkChange, NetworkRefused, NetworkSaid};
pub use report::SandboxSaid;
pub use usage::Seen as SandboxSeen;
pub use work::{SandboxLife, SandboxRef, SandboxWork, life_ms as sandbox_life_ms};

use crate::error::Fail;
use crate::job::until;
use crate::{Ctx, Error, Service, Who, page};
use change::{Note, apply, extend};
use model::access::Action;
use model::enforcement::Held;
use model::event::Event;
use model::id::{PrincipalId, SandboxId};
use model::limits;
use model::principal::Role;
use model::sandbox::{SandboxEvent, SandboxState};
use model::sandbox_spec::cut_ttl;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;
use store::sandbox::{SandboxFilter, SandboxRow};
use store::{Tx, event, sandbox};
use tokio::time::Instant;

/// A page of sandboxes, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxPage {
    /// The sandboxes.
    pub sandboxes: Vec<SandboxRow>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<String>,
}

/// The sandbox, if it is this tenant's.
pub(crate) fn owned(tx: &mut Tx<'_>, ctx: &Ctx, id: &SandboxId) -> Result<SandboxRow, Fail> {
    let row = sandbox::get(tx, Some(&ctx.tenant), id)?;
    let row = row.filter(|row| is_seen(row, ctx));
    row.ok_or(Fail::Ours(Error::NotFound))
}

/// Those that serve volumes are for no policy. Whoever has learned the id of one, of whichever role, must not run
/// anything in it, copy it, or open its network.
fn is_seen(row: &SandboxRow, ctx: &Ctx) -> bool {
    ctx.sees_servers || !row.spec.serves_volume
}

impl Service {
    /// A sandbox as it is now.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn sandbox_get(&self, ctx: &Ctx, id: &SandboxId) -> Result<SandboxRow, Error> {
        ctx.may(Action::SandboxRead)?;
        let (ctx, id) = (ctx.clone(), id.clone());
        self.look(move |tx| owned(tx, &ctx, &id)).await
    }

    /// The same, without the database where nothing was committed since it was read last. Only this process
    /// may write to the database, as it does where `State::lock_server` is held.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn sandbox_get_recent(&self, ctx: &Ctx, id: &SandboxId) -> Result<SandboxRow, Error> {
        ctx.may(Action::SandboxWrite)?;
        // Before the row is read: a commit meanwhile makes it old.
        let commits = self.inner.store.commits();
        let known = commits.and_then(|commits| self.recent().get(commits, &ctx.tenant, id));
        if let Some(row) = known.filter(|row| is_seen(row, ctx)) {
            return Ok(row);
        }
        let row = self.sandbox_get(ctx, id).await?;
        if let Some(commits) = commits {
            self.recent().put(commits, &row);
        }
        Ok(row)
    }

    /// Whoever comes to a sandbox by its name, of whatever tenant it is: what they must show there is asked at the
    /// door, and they may use this sandbox alone. The record names them as visitors of it: who they are is not known, and
    /// the token outlives the key of whoever was given it.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn sandbox_visitor(&self, id: &SandboxId, request_id: &str) -> Result<Ctx, Error> {
        // Before the row is read: a commit meanwhile makes it old.
        let commits = self.inner.store.commits();
        let known = commits.and_then(|commits| self.recent().of_any(commits, id));
        let row = match known {
            Some(row) => row,
            None => {
                let id = id.clone();
                let row = self
                    .look(move |tx| Ok(sandbox::get(tx, None, &id)?))
                    .await?;
                let row = row.ok_or(Error::NotFound)?;
                if let Some(commits) = commits {
                    self.recent().put(commits, &row);
                }
                row
            }
        };
        if row.spec.serves_volume {
            return Err(Error::NotFound);
        }
        let (role, action) = (Role::Member, Action::SandboxWrite);
        let visitor = format!("visitor:{id}").parse::<PrincipalId>();
        let visitor = visitor.map_err(|error| Error::internal("name a visitor", error))?;
        let who = Who::only(row.tenant, visitor, role, action);
        Ok(Ctx::of(who, request_id))
    }

    /// Somebody who may look at the sandboxes of each tenant that has some, to find the one whose token was shown.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and its like.
    pub async fn sandbox_searchers(&self, request_id: &str) -> Result<Vec<Ctx>, Error> {
        let most = u32::try_from(limits::TENANTS_MAX).unwrap_or(u32::MAX);
        let tenants = self.look(move |tx| Ok(sandbox::tenants(tx, None, most)?));
        let searcher = |tenant| {
            let principal = Ctx::internal("door").principal;
            let (role, action) = (Role::Member, Action::SandboxRead);
            let who = Who::only(tenant, principal, role, action);
            Ctx::of(who, request_id)
        };
        Ok(tenants.await?.into_iter().map(searcher).collect())
    }

    fn recent(&self) -> MutexGuard<'_, recent::Recent> {
        let recent = self.inner.recent.lock();
        recent.unwrap_or_else(PoisonError::into_inner)
    }

    /// Sandboxes, newest first: those that the filter asks for, after the page that ended with `before`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a `before` that no page ended with, or for too long a filter.
    pub async fn sandbox_list(
        &self,
        ctx: &Ctx,
        filter: SandboxFilter,
        before: Option<&str>,
        limit: u32,
    ) -> Result<SandboxPage, Error> {
        ctx.may(Action::SandboxRead)?;
        check_filter(&filter)?;
        let limit = limit.clamp(1, limits::PAGE_MAX);
        let before = before.map(cursor).transpose()?;
        let tenant = ctx.tenant.clone();
        let mut sandboxes = self
            .look(move |tx| {
                let before = before.as_ref().map(|(ms, id)| (*ms, id));
                // One more than is shown tells whether there is another page.
                Ok(sandbox::list(tx, &tenant, &filter, before, limit + 1)?)
            })
            .await?;
        let next = page::cut(&mut sandboxes, limit, |row| {
            format!("{}.{}", row.created_at_ms, row.id)
        });
        Ok(SandboxPage { sandboxes, next })
    }

    /// Gives a sandbox a new time to live, counted from now, or from when it is ready. One that is too long
    /// is cut to the longest.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] `sandbox_paused`, `sandbox_gone`.
    pub async fn sandbox_set_timeout(
        &self,
        ctx: &Ctx,
        id: &SandboxId,
        ttl_ms: u64,
    ) -> Result<SandboxRow, Error> {
        ctx.may(Action::SandboxWrite)?;
        let ttl_ms = cut_ttl(ttl_ms);
        self.change(ctx, id, move |tx, row, note| {
            check_has_time(&row)?;
            extend(tx, &row, within_profile(&row, ttl_ms), note)
        })
        .await
    }

    /// Wants a sandbox paused; its node is told. Without `memory` everything that runs in it ends, and it
    /// keeps its files. Twice is once; what was kept can be let go later.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] where it cannot be paused now, also `sandbox_gone`, or
    /// ever with its memory: `pause_unsupported`.
    pub async fn sandbox_pause(
        &self,
        ctx: &Ctx,
        id: &SandboxId,
        memory: bool,
    ) -> Result<SandboxRow, Error> {
        ctx.may(Action::SandboxWrite)?;
        self.change(ctx, id, move |tx, row, note| {
            if memory && row.state == SandboxState::Ready && !can_be_paused(&row) {
                let message = "its node cannot stop what runs in the sandbox";
                return Err(Error::conflict_of("pause_unsupported", message).into());
            }
            let paused = apply(tx, &row, &SandboxEvent::Pause { memory }, note)?;
            Ok(paused.unwrap_or(row))
        })
        .await
    }

    /// Wants a paused sandbox back; its node is told. Without `memory` it begins with its files alone, also
    /// if the pause has kept more. Twice is once.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] where it cannot be resumed now, also `sandbox_gone`.
    pub async fn sandbox_resume(
        &self,
        ctx: &Ctx,
        id: &SandboxId,
        memory: bool,
    ) -> Result<SandboxRow, Error> {
        ctx.may(Action::SandboxWrite)?;
        self.change(ctx, id, move |tx, row, note| {
            let resumed = apply(tx, &row, &SandboxEvent::Resume { memory }, note)?;
            Ok(resumed.unwrap_or(row))
        })
        .await
    }

    /// Wants a sandbox gone, wherever it is in its life. One that no node has is gone at once; otherwise
    /// its node is told. Twice is once.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn sandbox_destroy(&self, ctx: &Ctx, id: &SandboxId) -> Result<SandboxRow, Error> {
        ctx.may(Action::SandboxWrite)?;
        self.change(ctx, id, take_away).await
    }

    /// Comes to use a sandbox: one that is paused is resumed, with `memory` as [`Self::sandbox_resume`] does
    /// it, and it lives for at least `ttl_ms` from then on. Waits until it can be used, at most so long; answers it as it is then.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] `sandbox_gone`, or `sandbox_paused` for one that is still
    /// being paused when the time is up.
    pub async fn sandbox_connect(
        &self,
        ctx: &Ctx,
        id: &SandboxId,
        (ttl_ms, memory): (Option<u64>, bool),
        up_to: Duration,
    ) -> Result<SandboxRow, Error> {
        ctx.may(Action::SandboxWrite)?;
        let until = until(up_to, limits::JOB_WAIT_MAX_MS);
        let ttl_ms = ttl_ms.map(cut_ttl);
        loop {
            let come = move |tx: &mut Tx<'_>, row, note| come_to(tx, row, (ttl_ms, memory), note);
            let row = self.change(ctx, id, come).await?;
            let left = until.saturating_duration_since(Instant::now());
            let comes_back = matches!(
                row.state,
                SandboxState::Snapshotting { .. } | SandboxState::Recreating
            );
            let pauses = matches!(row.state, SandboxState::Pausing { .. });
            if !pauses && !comes_back {
                return self.sandbox_wait(ctx, id, left).await;
            }
            if left.is_zero() && comes_back {
                return Ok(row);
            }
            if left.is_zero() {
                return Err(Error::conflict_of(
                    "sandbox_paused",
                    "the sandbox is pausing",
                ));
            }
            self.sandbox_wait(ctx, id, left).await?;
        }
    }

    /// A sandbox when nothing is under way with it, or as it is when the time is up.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn sandbox_wait(
        &self,
        ctx: &Ctx,
        id: &SandboxId,
        up_to: Duration,
    ) -> Result<SandboxRow, Error> {
        ctx.may(Action::SandboxRead)?;
        let until = until(up_to, limits::JOB_WAIT_MAX_MS);
        // Before the look, so that what happens between the look and the wait is not missed.
        let mut news = self.wake().sandboxes();
        let mut row = self.sandbox_get(ctx, id).await?;
        while !row.state.is_settled() && Instant::now() < until {
            row = match crate::wake::sandbox_news(&mut news, id, until).await {
                // The look before has shown that this caller may see it. News may be of an older
                // moment than the look, and then they are none.
                Some(told) if told.version >= row.version => SandboxRow::clone(&told),
                Some(_) => row,
                None => self.sandbox_get(ctx, id).await?,
            };
        }
        Ok(row)
    }

    /// What happened to a sandbox, after the event of version `after`.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn sandbox_events(
        &self,
        ctx: &Ctx,
        id: &SandboxId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Event>, Error> {
        ctx.may(Action::SandboxRead)?;
        let limit = limit.clamp(1, limits::PAGE_MAX);
        let sees_nodes = ctx.may(Action::NodeRead).is_ok();
        let (ctx, id) = (ctx.clone(), id.clone());
        let events = self.look(move |tx| {
            owned(tx, &ctx, &id)?;
            Ok(event::list(tx, "sandbox", id.as_str(), after, limit)?)
        });
        let events = events.await?;
        Ok(match sees_nodes {
            true => events,
            false => events.into_iter().map(change::without_host).collect(),
        })
    }

    /// Reads a sandbox of this tenant and changes it, in one transaction, and tells whoever waits.
    async fn change<F>(&self, ctx: &Ctx, id: &SandboxId, change: F) -> Result<SandboxRow, Error>
    where
        F: Fn(&mut Tx<'_>, SandboxRow, Note) -> Result<SandboxRow, Fail> + Clone + Send + 'static,
    {
        ctx.may(Action::SandboxWrite)?;
        let note = Note::new(ctx, self.now_ms());
        let (ctx, id) = (ctx.clone(), id.clone());
        let (row, is_new) = self
            .unit(move |tx| {
                let row = owned(tx, &ctx, &id)?;
                let version = row.version;
                let next = change(tx, row, note.clone())?;
                let is_new = next.version != version;
                Ok((next, is_new))
            })
            .await?;
        if is_new {
            self.announce_sandbox(&row);
        }
        Ok(row)
    }
}

/// Wants a sandbox gone; one that no node has is gone at once.
pub(crate) fn take_away(tx: &mut Tx<'_>, row: SandboxRow, note: Note) -> Result<SandboxRow, Fail> {
    let Some(next) = apply(tx, &row, &SandboxEvent::Destroy, note.clone())? else {
        return Ok(row);
    };
    // Of one that failed, its node has nothing: it said so, or is told when it comes back.
    if row.node.is_some() && !row.state.is_over() {
        return Ok(next);
    }
    let gone = apply(tx, &next, &SandboxEvent::Destroyed, note)?;
    Ok(gone.unwrap_or(next))
}

/// What it means for a sandbox that somebody comes to use it. Pure but for the writing.
fn come_to(
    tx: &mut Tx<'_>,
    row: SandboxRow,
    (ttl_ms, memory): (Option<u64>, bool),
    note: Note,
) -> Result<SandboxRow, Fail> {
    use SandboxState as S;
    let ttl_ms = ttl_ms.map(|ttl_ms| within_profile(&row, ttl_ms));
    match row.state {
        S::Paused { .. } => {
            let note = Note { ttl_ms, ..note };
            let resumed = apply(tx, &row, &SandboxEvent::Resume { memory }, note)?;
            Ok(resumed.unwrap_or(row))
        }
        S::Ready | S::Requested | S::Provisioning | S::Resuming { .. } => match ttl_ms {
            Some(ttl_ms) if is_longer(&row, ttl_ms, note.at_ms) => extend(tx, &row, ttl_ms, note),
            _ => Ok(row),
        },
        S::Pausing { .. } | S::Snapshotting { .. } | S::Recreating => Ok(row),
        S::Destroying | S::Destroyed | S::Failed { .. } => Err(gone(&row).into()),
    }
}

/// A time to live that its profile allows, and the policies that it was made by.
fn within_profile(row: &SandboxRow, ttl_ms: u64) -> u64 {
    let made_by = row.spec.made_by.as_ref();
    let ttl_ms = made_by.map_or(ttl_ms, |made_by| made_by.within(ttl_ms));
    let frozen = row.spec.permit.as_ref();
    frozen.map_or(ttl_ms, |frozen| frozen.permit.within(ttl_ms))
}

/// Whether its node can stop it in its tracks: the node has said so when it was ready. Of one that has not
/// said anything, the order decides.
pub(crate) fn can_be_paused(row: &SandboxRow) -> bool {
    let mut clauses = row.enforcement.iter();
    !clauses.any(|clause| clause.clause == "pause" && clause.state == Held::NotHeld)
}

/// Whether a sandbox would end later with this time to live.
fn is_longer(row: &SandboxRow, ttl_ms: u64, now_ms: u64) -> bool {
    match row.expires_at_ms {
        Some(expires) => now_ms.saturating_add(ttl_ms) > expires,
        None => ttl_ms > row.ttl_ms,
    }
}

fn check_has_time(row: &SandboxRow) -> Result<(), Error> {
    use SandboxState as S;
    match row.state {
        S::Requested
        | S::Provisioning
        | S::Ready
        | S::Resuming { .. }
        | S::Recreating
        | S::Snapshotting { paused: false, .. } => Ok(()),
        S::Pausing { .. } | S::Paused { .. } | S::Snapshotting { paused: true, .. } => {
            let message = "the sandbox is paused, and its time does not run";
            Err(Error::conflict_of("sandbox_paused", message))
        }
        S::Destroying | S::Destroyed | S::Failed { .. } => Err(gone(row)),
    }
}

pub(crate) fn gone(row: &SandboxRow) -> Error {
    Error::conflict_of(
        "sandbox_gone",
        format!("the sandbox is {}", row.state.name()),
    )
}

/// A filter that the store would cut is refused.
fn check_filter(filter: &SandboxFilter) -> Result<(), Error> {
    let most = limits::METADATA_FILTERS_MAX;
    if filter.metadata.len() <= most {
        return Ok(());
    }
    let message = format!("at most {most} entries can be asked for");
    Err(Error::invalid("metadata", "too_many", message))
}

/// Where a page begins, from the text that the page before ended with.
pub(crate) fn cursor<Id: std::str::FromStr>(text: &str) -> Result<(u64, Id), Error> {
    let wrong = || Error::invalid("before", "invalid_argument", "no page ended with this");
    let (ms, id) = text.split_once('.').ok_or_else(wrong)?;
    let ms = ms.parse().map_err(|_| wrong())?;
    Ok((ms, id.parse().map_err(|_| wrong())?))
}

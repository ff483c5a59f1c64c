//! Sandboxes whose time is over, and orders that were not carried out in theirs.

use super::BATCH;
use crate::error::Fail;
use crate::sandbox::can_be_paused;
use crate::sandbox::change::{Note, apply};
use crate::snapshot::change::{abandoned, settle};
use crate::{Ctx, Error, Service, locked, snapshot};
use model::id::SandboxId;
use model::limits;
use model::sandbox::{SandboxEvent, SandboxState};
use model::sandbox_spec::OnExpiry;
use store::sandbox::{self, SandboxRow};

/// What a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Due {
    /// Sandboxes whose time was over.
    pub expired: u32,
    /// Sandboxes that no node took or that their node did not bring where they should be.
    pub given_up: u32,
}

/// Ends or pauses sandboxes whose time is over, and gives up what takes too long. Each is a transaction of
/// its own: what a pass that ends in between has not come to, the next one finds again.
///
/// # Errors
/// [`Error::Unavailable`] and its like.
pub async fn due_pass(service: &Service) -> Result<Due, Error> {
    let now = service.now_ms();
    let since = locked(&service.inner.watch).since_ms();
    let found = service.look(move |tx| Ok(sandbox::due(tx, now, BATCH)?));
    let mut due = Due::default();
    for row in found.await? {
        match due_one(service, row.id, now, since).await? {
            Some(row) if matches!(row.state, SandboxState::Failed { .. }) => due.given_up += 1,
            Some(_) => due.expired += 1,
            None => {}
        }
    }
    Ok(due)
}

async fn due_one(
    service: &Service,
    id: SandboxId,
    now: u64,
    since: u64,
) -> Result<Option<SandboxRow>, Error> {
    let note = Note::new(&Ctx::internal("due"), now);
    let moved = service
        .unit(move |tx| {
            // Looked at again, in the transaction of the change: it may have been extended since.
            let row = sandbox::get(tx, None, &id)?;
            let row = row.filter(|row| row.due_at_ms.is_some_and(|due| due <= now));
            match row.and_then(|row| Some((verdict(&row, now, since)?, row))) {
                Some(((event, why), row)) => {
                    let next = apply(tx, &row, &event, note.clone().because(why))?;
                    if let (
                        SandboxState::Snapshotting { snapshot, .. },
                        SandboxEvent::SnapshotDone,
                    ) = (&row.state, &event)
                    {
                        // What its node has of it, or will have, is nobody's then and is taken away.
                        let note = snapshot::change::note_of(&Ctx::internal("due"), now);
                        settle(tx, snapshot, &abandoned(why), &note)?;
                    }
                    Ok(next)
                }
                None => Ok::<_, Fail>(None),
            }
        })
        .await?;
    if let Some(row) = &moved {
        service.announce_sandbox(row);
    }
    Ok(moved)
}

/// What becomes of a sandbox that has to be looked at. `None`: its node gets more time, because it could
/// not be heard before `since`. Pure.
fn verdict(row: &SandboxRow, now: u64, since: u64) -> Option<(SandboxEvent, &'static str)> {
    let fail = |why: &'static str| {
        let event = SandboxEvent::Fail {
            why: why.to_owned(),
        };
        Some((event, why))
    };
    let watched = now.saturating_sub(since) >= limits::SANDBOX_ORDER_MS;
    match row.state {
        SandboxState::Requested => fail("no node took it in time"),
        SandboxState::Ready => {
            let then = match row.spec.on_expiry {
                OnExpiry::Pause if can_be_paused(row) => OnExpiry::Pause,
                OnExpiry::Pause | OnExpiry::Kill => OnExpiry::Kill,
                OnExpiry::PauseWithoutMemory => OnExpiry::PauseWithoutMemory,
            };
            Some((SandboxEvent::Expire { then }, "its time is over"))
        }
        SandboxState::Paused { .. } => {
            let then = OnExpiry::Kill;
            let event = SandboxEvent::Expire { then };
            Some((event, "it was paused for too long"))
        }
        SandboxState::Provisioning if watched => fail("its node did not make it in time"),
        SandboxState::Pausing { .. } if watched => fail("its node did not pause it in time"),
        SandboxState::Resuming { .. } if watched => fail("its node did not resume it in time"),
        // The sandbox itself is as good as it was.
        SandboxState::Snapshotting { .. } if watched => {
            let event = SandboxEvent::SnapshotDone;
            Some((event, "its node did not copy it in time"))
        }
        SandboxState::Provisioning
        | SandboxState::Pausing { .. }
        | SandboxState::Resuming { .. }
        | SandboxState::Snapshotting { .. }
        | SandboxState::Recreating
        | SandboxState::Destroying
        | SandboxState::Destroyed
        | SandboxState::Failed { .. } => None,
    }
}

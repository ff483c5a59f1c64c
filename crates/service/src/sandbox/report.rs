//! What nodes say about sandboxes. The same again is a duplicate, and what is about an older order than the
//! last one does not count.

use super::change::{Note, apply};
use super::create::{may_place, place};
use crate::change::cut;
use crate::error::Fail;
use crate::permit::is_stale;
use crate::report::{Report, check_clauses};
use crate::snapshot::change::{abandoned, settle};
use crate::{Ctx, Error, Service, snapshot};
use model::enforcement::Enforced;
use model::id::{NodeId, SandboxId};
use model::node::HostChange;
use model::sandbox::{SandboxEvent, SandboxState};
use model::snapshot::SnapshotEvent;
use store::sandbox::SandboxRow;
use store::{Tx, sandbox};

/// What a node says about a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SandboxSaid {
    /// The order is known and is being carried out.
    Provisioning,
    /// It stands, or stands again.
    Ready {
        /// What isolates it.
        driver: String,
        /// What is in force.
        enforcement: Vec<Enforced>,
    },
    /// It is kept, and nothing in it runs.
    Paused,
    /// It was copied, and is what it was before.
    Saved {
        /// Of the copy.
        bytes: u64,
    },
    /// It could not be copied, and is what it was before.
    NotSaved {
        /// Why.
        why: String,
    },
    /// Nothing is left of it, as was ordered.
    Destroyed,
    /// It could not be made, or has ended by itself.
    Failed {
        /// How.
        why: String,
    },
}

const DUPLICATE: Report = Report {
    duplicate: true,
    cancel: false,
};

impl Service {
    /// A node says what has become of a sandbox, and what its host was before and after, where it says that.
    ///
    /// # Errors
    /// [`Error::NotFound`] for one of another node; [`Error::Stale`] for another order than the last one,
    /// or a sandbox that is over; [`Error::Conflict`] for what was not ordered; [`Error::Invalid`].
    pub async fn sandbox_report(
        &self,
        ctx: &Ctx,
        id: &SandboxId,
        epoch: u64,
        said: SandboxSaid,
        host: Option<HostChange>,
    ) -> Result<Report, Error> {
        let node = ctx.only_node()?.clone();
        self.check_lease(ctx, id.as_str(), Some(epoch)).await?;
        let note = Note::new(ctx, self.now_ms());
        let copy = copy_of(&said, &note);
        let (event, note) = read(said, Note { host, ..note })?;
        let id = id.clone();
        let moved = self
            .unit(move |tx| {
                let row = in_force(tx, &node, &id, epoch)?;
                let Some(event) = &event else {
                    check_in_life(&row)?;
                    return Ok(Told::Heard);
                };
                if is_repeated(&row.state, event) {
                    check_same(&row, &note)?;
                    return Ok(Told::Before);
                }
                check_in_life(&row)?;
                // Before it waits itself, and would be one that waited longer.
                let has_room =
                    row.state == SandboxState::Recreating && may_place(tx, &node, note.at_ms)?;
                let Some(mut next) = apply(tx, &row, event, note.clone())? else {
                    return Ok(Told::Before);
                };
                if has_room && next.state == SandboxState::Requested && is_current(tx, &next)? {
                    next = place(tx, &next, &node, note.clone())?.unwrap_or(next);
                }
                if next.state == SandboxState::Ready && !next.spec.volumes.is_empty() {
                    store::volume::made(tx, &next.id, note.at_ms)?;
                }
                // After the sandbox, as for everybody who changes both: two that begin at different ends
                // would wait for each other.
                if let (SandboxState::Snapshotting { snapshot, .. }, Some((event, note))) =
                    (&row.state, &copy)
                {
                    settle(tx, snapshot, event, note)?;
                }
                Ok(Told::Moved(Box::new(next)))
            })
            .await?;
        match moved {
            Told::Before => Ok(DUPLICATE),
            Told::Heard => Ok(Report::default()),
            Told::Moved(row) => {
                self.announce_sandbox(&row);
                Ok(Report::default())
            }
        }
    }
}

/// Whether a sandbox that waits was decided by the policies of now. One that is made anew after they changed is narrowed
/// by whoever places what waits, before a node gets it.
fn is_current(tx: &mut Tx<'_>, row: &SandboxRow) -> Result<bool, Fail> {
    Ok(!is_stale(&row.spec, store::policy::stamp(tx)?))
}

/// What a report means for the copy, if it is about one.
fn copy_of(said: &SandboxSaid, note: &Note) -> Option<(SnapshotEvent, snapshot::change::Note)> {
    let (event, bytes) = match said {
        SandboxSaid::Saved { bytes } => (SnapshotEvent::Saved, Some(*bytes)),
        SandboxSaid::NotSaved { why } => (abandoned(why), None),
        SandboxSaid::Provisioning
        | SandboxSaid::Ready { .. }
        | SandboxSaid::Paused
        | SandboxSaid::Destroyed
        | SandboxSaid::Failed { .. } => return None,
    };
    let note = snapshot::change::Note {
        principal: note.principal.clone(),
        at_ms: note.at_ms,
        bytes,
    };
    Some((event, note))
}

/// What became of a report.
enum Told {
    /// The same was told before.
    Before,
    /// Nothing is to be written.
    Heard,
    Moved(Box<SandboxRow>),
}

/// What a report means; without an event, that nothing has become of the sandbox yet.
fn read(said: SandboxSaid, note: Note) -> Result<(Option<SandboxEvent>, Note), Error> {
    Ok(match said {
        SandboxSaid::Provisioning => (None, note),
        SandboxSaid::Ready {
            driver,
            enforcement,
        } => {
            check_clauses(&enforcement)?;
            let note = Note {
                driver: Some(cut(&driver)),
                enforcement: Some(enforcement),
                ..note
            };
            (Some(SandboxEvent::Ready), note)
        }
        SandboxSaid::Paused => (Some(SandboxEvent::Paused), note),
        SandboxSaid::Saved { .. } | SandboxSaid::NotSaved { .. } => {
            (Some(SandboxEvent::SnapshotDone), note)
        }
        SandboxSaid::Destroyed => (Some(SandboxEvent::Destroyed), note),
        SandboxSaid::Failed { why } => {
            let why = cut(&why);
            (
                Some(SandboxEvent::Fail { why: why.clone() }),
                note.because(&why),
            )
        }
    })
}

/// The sandbox, if it is this node's and this is about the last order.
pub(crate) fn in_force(
    tx: &mut Tx<'_>,
    node: &NodeId,
    id: &SandboxId,
    epoch: u64,
) -> Result<SandboxRow, Fail> {
    let row = sandbox::get(tx, None, id)?.ok_or(Fail::Ours(Error::NotFound))?;
    if row.node.as_ref() != Some(node) {
        return Err(Error::NotYourLease.into());
    }
    if row.epoch != epoch {
        return Err(Error::Stale.into());
    }
    Ok(row)
}

/// A sandbox that is over was judged without its node, which learns by this that its word came too late.
fn check_in_life(row: &SandboxRow) -> Result<(), Error> {
    if row.state.is_over() {
        Err(Error::Stale)
    } else {
        Ok(())
    }
}

/// Whether the sandbox is already what is said of it.
fn is_repeated(state: &SandboxState, event: &SandboxEvent) -> bool {
    matches!(
        (state, event),
        (SandboxState::Ready, SandboxEvent::Ready)
            | (SandboxState::Paused { .. }, SandboxEvent::Paused)
            | (
                SandboxState::Ready | SandboxState::Paused { .. },
                SandboxEvent::SnapshotDone
            )
            | (SandboxState::Destroyed, SandboxEvent::Destroyed)
            | (SandboxState::Failed { .. }, SandboxEvent::Fail { .. })
    )
}

fn check_same(row: &SandboxRow, note: &Note) -> Result<(), Error> {
    if note.driver.is_none() || note.driver == row.driver {
        Ok(())
    } else {
        Err(Error::conflict("another sandbox was reported as ready"))
    }
}

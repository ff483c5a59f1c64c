//! What becomes of a job when its node is lost to it.

use crate::change::{Note, apply};
use crate::error::Fail;
use crate::place::count_failure;
use model::job::{JobEvent, JobState};
use model::limits;
use store::Tx;
use store::job::JobRow;

/// Who says that a lease is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Says {
    /// The node, which is there and can take the job again.
    Node,
    /// We do, of a node that is gone or silent.
    Us,
}

/// The event for a lost lease of this job. It is tried again if it says that it may be started so often,
/// or if it was not started, but not without end; and not if nobody but the lost node may take it.
pub(crate) fn lost(row: &JobRow, says: Says, why: &str) -> JobEvent {
    let why = why.to_owned();
    let nobody_else = row.spec.node.is_some() && says == Says::Us;
    let leased = matches!(row.state, JobState::Leased { .. });
    if nobody_else || (leased && row.attempt >= limits::ATTEMPTS_MAX) {
        return JobEvent::GiveUp { why };
    }
    JobEvent::LeaseLost {
        epoch: row.epoch,
        retry: row.attempt < row.spec.retry.max_attempts,
        why,
    }
}

/// Judges a job of a node that is gone or silent: one that it has, or one that waits for it alone.
pub(crate) fn lose(
    tx: &mut Tx<'_>,
    row: &JobRow,
    why: &str,
    note: Note,
) -> Result<Option<JobRow>, Fail> {
    if let Some((node, _)) = row.state.lease() {
        count_failure(tx, node, note.at_ms)?;
    }
    apply(tx, row, &lost(row, Says::Us, why), note.because(why))
}

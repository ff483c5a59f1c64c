//! Decide about a snapshot with `model`, write with `store`.

use crate::change::cut;
use crate::error::Fail;
use crate::{Ctx, Error};
use model::id::{PrincipalId, SnapshotId};
use model::snapshot::{SnapshotEvent, SnapshotState, SnapshotStep};
use serde_json::json;
use store::snapshot::{self, SnapshotChange, SnapshotRow};
use store::{Tx, node};

/// Who does it, and when.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    pub(crate) principal: PrincipalId,
    pub(crate) at_ms: u64,
    /// The bytes of a copy that is ready.
    pub(crate) bytes: Option<u64>,
}

pub(crate) fn note_of(ctx: &Ctx, at_ms: u64) -> Note {
    Note {
        principal: ctx.principal.clone(),
        at_ms,
        bytes: None,
    }
}

/// Decides and writes in one go; `None` when it was so already.
pub(crate) fn apply(
    tx: &mut Tx<'_>,
    row: &SnapshotRow,
    event: &SnapshotEvent,
    note: &Note,
) -> Result<Option<SnapshotRow>, Fail> {
    let step = row.state.step(event);
    let step = step.map_err(|denied| Error::conflict(denied.to_string()))?;
    let SnapshotStep::Moved(state) = step else {
        return Ok(None);
    };
    let data = match &state {
        SnapshotState::Failed { why } => json!({"why": why}),
        SnapshotState::Ready => json!({"bytes": note.bytes}),
        SnapshotState::Saving | SnapshotState::Deleting | SnapshotState::Deleted => json!({}),
    };
    let change = SnapshotChange {
        kind: kind(&state),
        state,
        data: data.to_string(),
        principal: note.principal.clone(),
        at_ms: note.at_ms,
        bytes: note.bytes,
    };
    Ok(Some(snapshot::move_to(tx, row, &change)?))
}

fn kind(next: &SnapshotState) -> &'static str {
    match next {
        SnapshotState::Saving => "snapshot.saving",
        SnapshotState::Ready => "snapshot.ready",
        SnapshotState::Deleting => "snapshot.deleting",
        SnapshotState::Deleted => "snapshot.deleted",
        SnapshotState::Failed { .. } => "snapshot.failed",
    }
}

/// What a report, or the lack of one, makes of the snapshot that a sandbox is copied to.
pub(crate) fn settle(
    tx: &mut Tx<'_>,
    id: &SnapshotId,
    event: &SnapshotEvent,
    note: &Note,
) -> Result<(), Fail> {
    if let Some(row) = snapshot::get(tx, None, id)? {
        apply(tx, &row, event, note)?;
    }
    Ok(())
}

/// The sandbox has left its copying without a copy.
pub(crate) fn abandoned(why: &str) -> SnapshotEvent {
    SnapshotEvent::Fail { why: cut(why) }
}

/// Of one whose node is not known any more, nobody will ever say that it is gone.
pub(crate) fn forget_without_node(
    tx: &mut Tx<'_>,
    row: SnapshotRow,
    note: &Note,
) -> Result<SnapshotRow, Fail> {
    if row.state != SnapshotState::Deleting || node::get(tx, &row.node)?.is_some() {
        return Ok(row);
    }
    let gone = apply(tx, &row, &SnapshotEvent::Deleted, note)?;
    Ok(gone.unwrap_or(row))
}

//! What nodes are told about snapshots that are to go.

use crate::error::Fail;
use crate::wake::NodeWake;
use crate::{Ctx, Error, Service, locked};
use model::id::{NodeId, SnapshotId};
use model::limits;
use std::collections::HashSet;
use store::{Tx, snapshot};

/// Snapshots of which a node hears at a time: removing takes longer than asking again.
const REMOVE_MAX: u32 = 64;

/// What a node is to remove, by the rows.
pub(crate) fn removable(tx: &mut Tx<'_>, node: &NodeId) -> Result<Vec<SnapshotId>, Fail> {
    Ok(snapshot::removable(tx, node, REMOVE_MAX)?)
}

/// Of these, those that no poll has told it yet.
pub(crate) fn untold(wake: &NodeWake, removable: Vec<SnapshotId>) -> Vec<SnapshotId> {
    let all: HashSet<SnapshotId> = removable.iter().cloned().collect();
    let mut told = locked(&wake.told_snapshots);
    let is_new = |id: &SnapshotId| !told.contains(id);
    let news = removable.into_iter().filter(is_new).collect();
    *told = all;
    news
}

impl Service {
    /// Compares the snapshots that a node has bytes of with those that it should have. Gives what it is to
    /// remove: what is to go, told before or not, and what nobody knows, which is what an attempt has left
    /// that was given up.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it says more than it can have.
    pub async fn snapshot_beat(
        &self,
        ctx: &Ctx,
        has: Vec<SnapshotId>,
    ) -> Result<Vec<SnapshotId>, Error> {
        let node = ctx.only_node()?.clone();
        let most = limits::NODE_SNAPSHOTS_MAX;
        if has.len() > most as usize {
            let message = format!("a node names at most {most} snapshots");
            return Err(Error::invalid("snapshots", "too_many", message));
        }
        self.look(move |tx| {
            let mut remove = removable(tx, &node)?;
            if has.is_empty() {
                return Ok(remove);
            }
            // Twice as many as there can be, because two requests may both see the last place.
            let ours = snapshot::on_node(tx, &node, 2 * most)?;
            let ours: HashSet<SnapshotId> = ours.into_iter().collect();
            let strays = has.iter().filter(|id| !ours.contains(id));
            remove.extend(strays.take(REMOVE_MAX as usize).cloned());
            Ok(remove)
        })
        .await
    }
}

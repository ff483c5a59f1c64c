//! The end of a drain that has taken too long: what the node still has is ended, or goes to another node.

use crate::change::{Note, apply};
use crate::error::Fail;
use crate::node::HELD_MAX;
use crate::sandbox::{change, take_away, work};
use crate::{Ctx, Error, Service};
use model::access::Action;
use model::id::NodeId;
use model::job::{JobEvent, JobState};
use model::node::Scheduling;
use store::Tx;
use store::job::{self, JobRow};
use store::sandbox::SandboxRow;

use super::{NodeSeen, seen};

impl Service {
    /// Ends what a draining node has. Jobs whose commands were not let go yet wait for another node; others get
    /// SIGTERM and then SIGKILL, as when somebody cancels them, and end `canceled`. Sandboxes are taken away. Of one
    /// that is being copied the copy comes first: it is ended when this is asked for again.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] for a node that is not draining: others would be given more.
    pub async fn node_evict(&self, ctx: &Ctx, id: &NodeId) -> Result<NodeSeen, Error> {
        ctx.may(Action::NodeWrite)?;
        let now = self.now_ms();
        let note = Note::new(ctx, now).because("its node was to be empty by now");
        let sandbox_note = change::Note::new(ctx, now);
        let node = id.clone();
        let ended = self.unit(move |tx| {
            if seen(tx, &node)?.state().scheduling != Scheduling::Draining {
                return Err(Error::conflict("drain the node first").into());
            }
            let jobs = end_jobs(tx, &node, &note)?;
            let sandboxes = end_sandboxes(tx, &node, &sandbox_note)?;
            Ok((jobs, sandboxes))
        });
        let (jobs, sandboxes) = ended.await?;
        jobs.iter().for_each(|row| self.announce(row));
        sandboxes.iter().for_each(|row| self.announce_sandbox(row));
        self.wake().node(id);
        self.node_get(ctx, id).await
    }
}

fn end_jobs(tx: &mut Tx<'_>, node: &NodeId, note: &Note) -> Result<Vec<JobRow>, Fail> {
    let mut changed = Vec::new();
    for row in job::held_by(tx, node, HELD_MAX)? {
        let is_leased = matches!(row.state, JobState::Leased { .. });
        let event = if is_leased {
            JobEvent::Release { epoch: row.epoch }
        } else {
            JobEvent::Cancel
        };
        changed.extend(apply(tx, &row, &event, note.clone())?);
    }
    Ok(changed)
}

fn end_sandboxes(
    tx: &mut Tx<'_>,
    node: &NodeId,
    note: &change::Note,
) -> Result<Vec<SandboxRow>, Fail> {
    let mut changed = Vec::new();
    for row in work::held_by(tx, node)? {
        let version = row.version;
        match take_away(tx, row, note.clone()) {
            Ok(next) if next.version != version => changed.push(next),
            // Decided before anything was written: its state does not allow it now.
            Ok(_) | Err(Fail::Ours(Error::Conflict { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(changed)
}

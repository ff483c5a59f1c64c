//! Hints that something has changed. They carry nothing: whoever is woken looks for itself.

use model::id::{JobId, NodeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Who waits for what.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    /// Something waits for a node.
    pub(crate) queue: Notify,
    jobs: Mutex<HashMap<JobId, (usize, Arc<Notify>)>>,
    nodes: Mutex<HashMap<NodeId, Arc<Notify>>>,
}

/// Somebody waits for a job; forgotten when dropped, so that the map holds only what is waited for.
#[derive(Debug)]
pub(crate) struct Waiting<'w> {
    wake: &'w Wake,
    id: JobId,
    notify: Arc<Notify>,
}

impl Wake {
    fn jobs(&self) -> MutexGuard<'_, HashMap<JobId, (usize, Arc<Notify>)>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to wait for a job.
    pub(crate) fn wait_for(&self, id: &JobId) -> Waiting<'_> {
        let mut jobs = self.jobs();
        let (count, notify) = jobs.entry(id.clone()).or_default();
        *count += 1;
        Waiting {
            wake: self,
            id: id.clone(),
            notify: notify.clone(),
        }
    }

    /// A job has changed.
    pub(crate) fn job(&self, id: &JobId) {
        if let Some((_, notify)) = self.jobs().get(id) {
            notify.notify_waiters();
        }
    }

    /// The hint for a node that one of its jobs is to end.
    pub(crate) fn node(&self, id: &NodeId) -> Arc<Notify> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.entry(id.clone()).or_default().clone()
    }

    /// Forgets a node.
    pub(crate) fn forget_node(&self, id: &NodeId) {
        self.nodes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
    }
}

impl Waiting<'_> {
    /// The hint. Taken before looking, so that a change between the look and the wait is not missed.
    pub(crate) fn hint(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut jobs = self.wake.jobs();
        if let Some((count, _)) = jobs.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                jobs.remove(&self.id);
            }
        }
    }
}

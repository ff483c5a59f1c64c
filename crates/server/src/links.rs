//! The open links to nodes, over which the server reaches a running sandbox.
//!
//! A node opens its link (nodes dial out); the server only ever picks one up. Today that is a
//! channel inside the process; a link over the network becomes one more task at the other end of
//! the same channel.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::attach::LinkOpen;
use model::id::NodeId;
use tokio::sync::mpsc;

/// Which nodes can be reached. Clones share the map.
#[derive(Debug, Clone, Default)]
pub struct Links {
    by_node: Arc<Mutex<HashMap<NodeId, mpsc::Sender<LinkOpen>>>>,
}

/// The node has no link, or is not taking anything from it.
#[derive(Debug, thiserror::Error)]
#[error("reach {0}")]
pub struct NoLink(NodeId);

impl Links {
    /// Takes the link of a node; a new one replaces the old, whose node has evidently restarted.
    pub fn insert(&self, node: NodeId, link: mpsc::Sender<LinkOpen>) {
        self.lock().insert(node, link);
    }

    /// Forgets the link of a node.
    pub fn remove(&self, node: &NodeId) {
        self.lock().remove(node);
    }

    /// Hands a stream to the node of a job or a sandbox.
    ///
    /// # Errors
    /// [`NoLink`] when there is none, or its queue is full: a node that does not even take streams
    /// must not make the server hold them.
    pub fn open(&self, node: &NodeId, open: LinkOpen) -> Result<(), NoLink> {
        let link = self.lock().get(node).cloned();
        let gone = || NoLink(node.clone());
        link.ok_or_else(gone)?.try_send(open).map_err(|_| gone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<NodeId, mpsc::Sender<LinkOpen>>> {
        self.by_node.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! The open links to nodes, over which the server reaches a running sandbox.
//!
//! A node opens its links (nodes dial out); the server only ever picks one up. Of a node in this process that
//! is a channel; of one elsewhere, [`carry`] is at the other end of the same channel, with the connection that
//! the node has dialled. Of one whose link another server holds, it is a channel again, to what [`Peers`] have
//! borrowed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use api::attach::LinkOpen;
use api::link::{LinkClass, LinkEnd, open_streams};
use model::id::NodeId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::peers::Peers;

/// Streams that wait to be opened on one link.
pub(crate) const WAITING_MAX: usize = 256;

/// The links that there are: of each node one for each class.
type ByNode = HashMap<(NodeId, LinkClass), mpsc::Sender<LinkOpen>>;

/// Which nodes can be reached. Clones share the map.
#[derive(Debug, Clone, Default)]
pub struct Links {
    by_node: Arc<Mutex<ByNode>>,
    peers: Arc<OnceLock<Peers>>,
}

/// The node has no link, or is not taking anything from it.
#[derive(Debug, thiserror::Error)]
#[error("reach {0}")]
pub struct NoLink(pub(crate) NodeId);

impl Links {
    /// Takes the link of a node, for streams of both classes; a new one replaces the old, whose node has
    /// evidently restarted.
    pub fn insert(&self, node: NodeId, link: mpsc::Sender<LinkOpen>) {
        for class in LinkClass::ALL {
            self.lock().insert((node.clone(), class), link.clone());
        }
    }

    /// Forgets the links of a node.
    pub fn remove(&self, node: &NodeId) {
        self.lock().retain(|(of, _), _| of != node);
    }

    /// Hands a stream to the node of a job or a sandbox.
    ///
    /// # Errors
    /// [`NoLink`] when there is none, or its queue is full: a node that does not even take streams
    /// must not make the server hold them.
    pub async fn open(&self, node: &NodeId, open: LinkOpen) -> Result<(), NoLink> {
        let class = LinkClass::of(&open.target);
        let gone = || NoLink(node.clone());
        let open = match self.here(node, class) {
            None => open,
            Some(link) => match link.try_send(open) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(_)) => return Err(gone()),
                // It has ended in this moment; maybe the node has dialled another server.
                Err(TrySendError::Closed(open)) => open,
            },
        };
        match self.peers.get() {
            Some(peers) => peers.open((node, class), open).await,
            None => Err(gone()),
        }
    }

    /// Asks other servers for the links that are not here, from now on.
    pub fn ask(&self, peers: Peers) {
        // A second one is a mistake of whoever puts the rooms together, and changes nothing.
        drop(self.peers.set(peers));
    }

    /// The servers that are asked.
    pub(crate) fn peers(&self) -> Option<&Peers> {
        self.peers.get()
    }

    /// The link of a node, if this server holds it.
    pub(crate) fn here(&self, node: &NodeId, class: LinkClass) -> Option<mpsc::Sender<LinkOpen>> {
        self.lock().get(&(node.clone(), class)).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ByNode> {
        self.by_node.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries streams over a connection that a node has dialled, until it breaks. Then they have ended, and whoever
/// wants one waits for the node's next link.
pub(crate) async fn carry(
    links: &Links,
    node: NodeId,
    class: LinkClass,
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> LinkEnd {
    tracing::info!(%node, ?class, "a node has opened a link");
    let (link, opens) = mpsc::channel(WAITING_MAX);
    let kept = Kept {
        links: links.clone(),
        of: (node, class),
        link: link.downgrade(),
    };
    // The map alone holds it. So when a new one takes its place, the old one ends: a node that opens them one after
    // the other has one.
    kept.links.lock().insert(kept.of.clone(), link);
    open_streams(io, opens).await
}

/// Takes its link out of the map on any way out, but not the one that came after it.
struct Kept {
    links: Links,
    of: (NodeId, LinkClass),
    link: mpsc::WeakSender<LinkOpen>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        let Some(own) = self.link.upgrade() else {
            return;
        };
        let mut map = self.links.lock();
        if map
            .get(&self.of)
            .is_some_and(|link| link.same_channel(&own))
        {
            map.remove(&self.of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::attach::LinkTarget;

    fn open() -> LinkOpen {
        let id = "sbx_1".to_owned();
        LinkOpen {
            target: LinkTarget::Sandbox { id },
            io: tokio::io::duplex(1).0,
        }
    }

    #[tokio::test]
    async fn a_link_that_ends_takes_itself_away_and_not_the_one_after_it() {
        let (links, node) = (Links::default(), NodeId::from_parts(1, [1; 10]));
        let begin = || {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let (links, node) = (links.clone(), node.clone());
            let carrying = async move { carry(&links, node, LinkClass::Interactive, ours).await };
            (tokio::spawn(carrying), theirs)
        };
        assert!(links.open(&node, open()).await.is_err());
        let (first, _io) = begin();
        while links.open(&node, open()).await.is_err() {
            tokio::task::yield_now().await;
        }
        let before = links
            .lock()
            .get(&(node.clone(), LinkClass::Interactive))
            .cloned();
        let (second, theirs) = begin();
        let is_new = || {
            let now = links
                .lock()
                .get(&(node.clone(), LinkClass::Interactive))
                .cloned();
            !now.unwrap().same_channel(before.as_ref().unwrap())
        };
        while !is_new() {
            tokio::task::yield_now().await;
        }
        drop(before);
        // The one before it ends by itself, though its node goes on with it.
        assert!(matches!(first.await.unwrap(), LinkEnd::Unwanted));
        assert!(links.open(&node, open()).await.is_ok());
        drop(theirs);
        drop(second.await.unwrap());
        assert!(links.open(&node, open()).await.is_err());
    }
}

//! Connections that are kept for the next request.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::client::conn::http1::SendRequest;
use tokio::time::Instant;

use super::Inner;
use super::body::RequestBody;

/// More than this at a time are requests that wait or stream; the rest share a few connections.
const IDLE_MAX: usize = 16;
/// Shorter than the server's own limit for a silent connection (30 s), so that we rarely pick one
/// that it is just closing.
const IDLE_FOR: Duration = Duration::from_secs(20);

/// Connections without a request.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<RequestBody>,
    since: Instant,
}

impl Pool {
    /// The connection that was used last, because it is the least likely to have been closed.
    pub(crate) fn take(&self) -> Option<SendRequest<RequestBody>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(last) = idle.pop() {
            if last.since.elapsed() < IDLE_FOR && !last.sender.is_closed() {
                return Some(last.sender);
            }
        }
        None
    }

    fn put(&self, sender: SendRequest<RequestBody>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() >= IDLE_MAX {
            idle.remove(0);
        }
        idle.push(Idle {
            sender,
            since: Instant::now(),
        });
    }
}

/// A connection with a request on it. Dropped, it closes; only one whose answer was read to its end
/// may be given back, or the next request would read the rest of this answer.
#[derive(Debug)]
pub(crate) struct Borrowed {
    pub(crate) sender: SendRequest<RequestBody>,
    pub(crate) client: Arc<Inner>,
}

impl Borrowed {
    pub(crate) fn give_back(self) {
        if !self.sender.is_closed() {
            self.client.pool.put(self.sender);
        }
    }
}

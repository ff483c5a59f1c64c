//! Connections to guests that have carried an answer and wait for the next request.
//!
//! A new one crosses the server, the node and the guest, each of which makes something for it; for a short
//! command that is a quarter of the time. One that waits keeps its place (see [`super::places`]), and gives it
//! up when somebody else needs it. It belongs to one version of its sandbox: after an order to the node, a
//! connection may lead to a guest that is not there any more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::guest::line::Line;
use model::id::SandboxId;
use tokio::time::Instant;

use super::places::{Place, Places};
use super::proxy::Reachable;

/// How long one waits: longer than the pauses of a program, and a small part of the time after which a guest
/// ends a connection that asks nothing.
const KEPT: Duration = Duration::from_secs(10);
/// Those of one sandbox. Most clients have one stream at a time.
const OF_ONE_MAX: usize = 4;
/// Sandboxes that have some. Those that have waited for too long go when there are more.
const SANDBOXES_MAX: usize = 256;

/// Connections that wait. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Idle {
    by_sandbox: Arc<Mutex<HashMap<SandboxId, Vec<Waiting>>>>,
}

#[derive(Debug)]
struct Waiting {
    line: Line,
    place: Place,
    /// Of the sandbox when it was made.
    version: u64,
    since: Instant,
}

impl Idle {
    /// One that leads to this sandbox as it is, and can be used now.
    pub(crate) fn take(&self, sandbox: &Reachable) -> Option<(Line, Place)> {
        let mut all = self.lock();
        let waiting = all.get_mut(&sandbox.id)?;
        waiting.retain(|one| one.is_good() && one.version == sandbox.version);
        let at = waiting.iter().rposition(|one| one.line.is_ready());
        let taken = at.map(|at| waiting.remove(at));
        if waiting.is_empty() {
            all.remove(&sandbox.id);
        }
        taken.map(|one| (one.line, one.place))
    }

    /// Keeps one whose answer was read to its end.
    pub(crate) fn put(&self, sandbox: &SandboxId, version: u64, (line, place): (Line, Place)) {
        let mut all = self.lock();
        if !all.contains_key(sandbox) && all.len() >= SANDBOXES_MAX {
            all.retain(|_, waiting| {
                waiting.retain(Waiting::is_good);
                !waiting.is_empty()
            });
            if all.len() >= SANDBOXES_MAX {
                return;
            }
        }
        let waiting = all.entry(sandbox.clone()).or_default();
        if waiting.len() < OF_ONE_MAX {
            waiting.push(Waiting {
                line,
                place,
                version,
                since: Instant::now(),
            });
        }
    }

    /// A place for a new connection. Those that wait give theirs up for it.
    pub(crate) fn place(&self, places: &Places, sandbox: &SandboxId) -> Option<Place> {
        places.take(sandbox).or_else(|| {
            let waiting = std::mem::take(&mut *self.lock());
            drop(waiting);
            places.take(sandbox)
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SandboxId, Vec<Waiting>>> {
        self.by_sandbox
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn is_good(&self) -> bool {
        self.since.elapsed() < KEPT && !self.line.is_closed()
    }
}

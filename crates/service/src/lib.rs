//! What can be asked, who may ask it, and the loops that make it so.
//!
//! A door brings a context (who asks) and plain values; a method checks the right to ask in its first
//! line, lets `model` decide, and writes the intent with its event in one transaction. Whatever has to
//! follow is done by nodes, which lease work, and by loops, which read rows and write rows and can die
//! in any line. What waits for a change is woken by a hint that carries nothing, and looks for itself
//! once a second in any case, because another process may have made the change.
//!
//! This room must never know HTTP or JSON of the wire, never contain SQL, never hold state that the
//! database does not have (hints excepted), and never decide about a state without `model`'s `step`.

mod artifact;
mod blob;
mod clock;
mod ctx;
mod error;
mod job;
pub mod loops;
mod node;
mod output;
mod poll;
mod report;
mod wake;

pub use crate::clock::Clock;
pub use crate::ctx::{Ctx, Kind};
pub use crate::error::Error;
pub use crate::job::Idempotency;
pub use crate::node::{Hello, JobRef, Registered, Renewed};
pub use crate::poll::Polled;
pub use crate::report::{Finished, Reported, Started};
pub use store::artifact::ArtifactRow;
pub use store::blob::{BlobWriter, Written};
pub use store::job::JobRow;
pub use store::output::Segment;

use crate::poll::Parking;
use crate::wake::Wake;
use std::fmt;
use std::sync::Arc;
use store::Store;
use store::blob::Blobs;

/// Bytes that are free where the database and the blobs are.
pub type FreeDisk = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The control plane's logic. Clones are the same.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    blobs: Blobs,
    clock: Clock,
    free_disk: FreeDisk,
    wake: Wake,
    parking: Parking,
    /// When this process began: nobody is judged silent before a whole lease has gone by since.
    started_at_ms: u64,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Service")
    }
}

impl Service {
    /// The logic over this database and these blobs.
    pub fn new(store: Store, blobs: Blobs, clock: Clock, free_disk: FreeDisk) -> Service {
        let started_at_ms = clock.now_ms();
        let (wake, parking) = (Wake::default(), Parking::default());
        let inner = Inner {
            store,
            blobs,
            clock,
            free_disk,
            wake,
            parking,
            started_at_ms,
        };
        Service {
            inner: Arc::new(inner),
        }
    }

    /// Whether requests can be served.
    ///
    /// # Errors
    /// What the database says.
    pub async fn ready(&self) -> Result<(), Error> {
        Ok(self
            .inner
            .store
            .read(|tx| store::node::list(tx, 1).map(drop))
            .await?)
    }

    fn now_ms(&self) -> u64 {
        self.inner.clock.now_ms()
    }
}

/// Random bytes for an id.
fn random() -> Result<[u8; 10], Error> {
    let mut bytes = [0; 10];
    getrandom::fill(&mut bytes).map_err(|error| Error::Internal(error.to_string()))?;
    Ok(bytes)
}

//! What time it is. Passed in, so that tests can hold it still.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A clock. Clones show the same time.
#[derive(Debug, Clone)]
pub struct Clock(Kind);

#[derive(Debug, Clone)]
enum Kind {
    System,
    Fake(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's.
    pub fn system() -> Clock {
        Clock(Kind::System)
    }

    /// One that stands still at `now_ms` until it is moved.
    pub fn fake(now_ms: u64) -> Clock {
        Clock(Kind::Fake(Arc::new(AtomicU64::new(now_ms))))
    }

    /// Milliseconds since 1970.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that everybody else is passed"
    )]
    pub fn now_ms(&self) -> u64 {
        match &self.0 {
            Kind::Fake(now) => now.load(Ordering::SeqCst),
            Kind::System => {
                let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                // A clock before 1970 is a broken one; 0 makes every lease look fresh, which is safe.
                since.map_or(0, |since| {
                    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
                })
            }
        }
    }

    /// Moves a fake clock on; the machine's goes by itself.
    pub fn advance(&self, ms: u64) {
        if let Kind::Fake(now) = &self.0 {
            now.fetch_add(ms, Ordering::SeqCst);
        }
    }
}

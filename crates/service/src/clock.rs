//! The time, passed in, so that tests can hold it still.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the time in milliseconds since 1970.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    held: Option<Arc<AtomicU64>>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Clock {
        Clock { held: None }
    }

    /// A clock that stands still until it is moved.
    pub fn held_at(now_ms: u64) -> Clock {
        Clock {
            held: Some(Arc::new(AtomicU64::new(now_ms))),
        }
    }

    /// Moves a clock that stands still; the machine's is not ours to move.
    pub fn advance(&self, by_ms: u64) {
        if let Some(held) = &self.held {
            held.fetch_add(by_ms, Ordering::SeqCst);
        }
    }

    /// Now.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that is passed in"
    )]
    pub fn now_ms(&self) -> u64 {
        if let Some(held) = &self.held {
            return held.load(Ordering::SeqCst);
        }
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

//! How often a sandbox may ask.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// So many in a minute: what was not used in the last minute may be used at once, and no more.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    used: Mutex<Option<(Instant, f64)>>,
}

impl Pace {
    /// Takes one, if there is one.
    pub(crate) fn take(&self, per_minute: u32) -> bool {
        self.take_at(per_minute, Instant::now())
    }

    fn take_at(&self, per_minute: u32, now: Instant) -> bool {
        let most = f64::from(per_minute);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let before = used.map_or(0.0, |(at, count)| {
            let passed = now.saturating_duration_since(at).as_secs_f64();
            (count - passed * most / 60.0).max(0.0)
        });
        if before + 1.0 > most {
            *used = Some((now, before));
            return false;
        }
        *used = Some((now, before + 1.0));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn so_many_in_a_minute_and_no_more() {
        let (pace, start) = (Pace::default(), Instant::now());
        let taken = |at| (0..100).filter(|_| pace.take_at(60, at)).count();
        assert_eq!(taken(start), 60);
        assert_eq!(taken(start), 0);
        assert_eq!(taken(start + Duration::from_secs(10)), 10);
        assert_eq!(taken(start + Duration::from_secs(600)), 60);
    }
}

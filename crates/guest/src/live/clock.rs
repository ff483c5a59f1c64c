//! The time that commands have.
//!
//! The kernel's clocks go on while a sandbox is paused, and so does this process, which is not frozen with it:
//! after an hour's pause the time of every command would be over. So the node says when time stands, before it
//! freezes the sandbox, and when it goes on, after it has thawed it; whoever dies in between is ordered to do
//! the same again.

use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Whether time stands, for those whose time it is.
#[derive(Debug)]
pub(super) struct Clock {
    stands: watch::Sender<bool>,
}

impl Default for Clock {
    fn default() -> Clock {
        let (stands, _) = watch::channel(false);
        Clock { stands }
    }
}

impl Clock {
    /// Lets time stand, or go on. Twice is once.
    pub(super) fn stand(&self, stands: bool) {
        self.stands.send_replace(stands);
    }

    /// Ends when so much time has gone on, counted from the call.
    pub(super) fn run(&self, time: Duration) -> impl Future<Output = ()> + use<> {
        let mut stands = self.stands.subscribe();
        let (mut left, mut since) = (time, Instant::now());
        async move {
            // Whoever can stop time lives as long as this process serves.
            loop {
                if *stands.borrow_and_update() {
                    drop(stands.wait_for(|stands| !*stands).await);
                    since = Instant::now();
                }
                tokio::select! {
                    () = sleep_until(since + left) => return,
                    _ = stands.wait_for(|stands| *stands) => {
                        left = left.saturating_sub(since.elapsed());
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    #[tokio::test]
    async fn what_stands_does_not_count() {
        let clock = Clock::default();
        let mut time = Box::pin(clock.run(Duration::from_millis(20)));
        clock.stand(true);
        tokio::select! {
            biased;
            () = &mut time => panic!("it went on"),
            () = sleep(Duration::from_millis(60)) => {}
        }
        clock.stand(true);
        clock.stand(false);
        let since = Instant::now();
        time.await;
        assert!(since.elapsed() >= Duration::from_millis(19));
    }
}

//! What is started with a sandbox before anybody gets it, as its recipe says: a server, a database.
//!
//! It goes on when nobody listens. Whoever waits for the sandbox waits until it is ready, and for no longer
//! than a bound: a program that never comes up is the end of the sandbox, and not a sandbox without it.

use super::usage;
use crate::Node;
use crate::job::chain;
use api::guest::{Event, Events, Guest, GuestError, Start};
use api::node::StartWork;
use driver::driver::Handle;
use model::limits;
use model::sandbox_spec::only_waits;
use std::collections::BTreeMap;
use std::time::Duration;

/// Pauses between two looks whether it is ready: short at first, for what starts in no time.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// See [`PAUSE_FIRST`].
const PAUSE_MOST: Duration = Duration::from_millis(500);
/// Pauses between two looks whether what was started does anything.
const LOOK: Duration = Duration::from_millis(100);
/// So many in a row without anything are enough: programs wait for a disk or each other meanwhile.
const LOOKS: u32 = 3;
/// Processor time between two looks, in microseconds, that is nothing: a program that comes up uses all that it
/// gets, and to be looked at costs a tenth of this.
const STILL_US: u64 = 5_000;
/// The name by which it can be found among the processes of the sandbox.
const TAG: &str = "start";

/// Starts it and waits until it is ready.
///
/// # Errors
/// A text for a person: why there is no such sandbox.
pub(super) async fn start(node: &Node, handle: &Handle, work: &StartWork) -> Result<(), String> {
    let mut running = match &work.command {
        Some(command) => Some(run(node, handle, command, Some(TAG)).await?),
        None => None,
    };
    let Some(ready) = &work.ready else {
        return Ok(());
    };
    let bound = Duration::from_millis(limits::READY_MS);
    let asked = async {
        match only_waits(ready) {
            Some(most) => {
                // That it is over is all that it ever says.
                drop(tokio::time::timeout(most.min(bound), is_still(node, handle)).await);
                Ok(())
            }
            None => is_ready(node, handle, ready).await,
        }
    };
    let waiting = tokio::time::timeout(bound + LOOK, asked);
    tokio::select! {
        waited = waiting => waited.map_err(|_| {
            format!("its ready command did not succeed within {} s", bound.as_secs())
        })?,
        why = fell(&mut running) => Err(why),
    }
}

/// Waits until what was started has nothing to do: it has come up, or waits for something itself. A command that
/// only waits was waited for at the build, where its time was a guess at this; each sandbox need not pay for it.
async fn is_still(node: &Node, handle: &Handle) {
    let mut before = None;
    let mut looks = 0;
    while looks < LOOKS {
        tokio::time::sleep(LOOK).await;
        let now = usage::sample(node, handle).await.map(|seen| seen.cpu_us);
        looks = if stood_still(before, now) {
            looks + 1
        } else {
            0
        };
        before = now;
    }
}

/// Whether so little processor time was used between two looks that nobody is on the way to anything.
fn stood_still(before_us: Option<u64>, now_us: Option<u64>) -> bool {
    let used = now_us
        .zip(before_us)
        .map(|(now, before)| now.saturating_sub(before));
    used.is_some_and(|used| used < STILL_US)
}

async fn run(
    node: &Node,
    handle: &Handle,
    command: &str,
    tag: Option<&str>,
) -> Result<Events, String> {
    let refused = |error: GuestError| format!("its start command cannot be run: {}", chain(&error));
    let stream = node.inner.driver.connect(handle).await;
    let stream = stream.map_err(|error| chain(&error))?;
    let start = Start {
        program: "/bin/bash".to_owned(),
        arguments: ["-l", "-c", command].map(str::to_owned).to_vec(),
        env: BTreeMap::new(),
        tag: tag.map(str::to_owned),
        ..Start::default()
    };
    let guest = Guest::over(stream).await.map_err(refused)?;
    guest.start(&start).await.map_err(refused)
}

async fn is_ready(node: &Node, handle: &Handle, ready: &str) -> Result<(), String> {
    let mut pause = PAUSE_FIRST;
    loop {
        let mut events = run(node, handle, ready, None).await?;
        if matches!(exit(&mut events).await, Ok(Some(0))) {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MOST);
    }
}

/// Waits for the end of what was started, and says so where it is one. One that ends well has done its work.
async fn fell(running: &mut Option<Events>) -> String {
    if let Some(events) = running {
        match exit(events).await {
            Ok(Some(0)) => {}
            Ok(Some(code)) => return format!("its start command ended with exit status {code}"),
            Ok(None) => return "its start command ended without a word".to_owned(),
            Err(error) => return format!("its start command was lost: {}", chain(&error)),
        }
    }
    std::future::pending().await
}

/// Reads to the end; what is written on the way is nobody's.
async fn exit(events: &mut Events) -> Result<Option<i32>, GuestError> {
    while let Some(event) = events.next().await? {
        if let Event::Ended(end) = event {
            return Ok(Some(end.exit_code));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_uses_next_to_nothing_between_two_looks_stands_still() {
        assert!(stood_still(Some(1_000_000), Some(1_000_900)));
        assert!(!stood_still(Some(1_000_000), Some(1_090_000)));
        // Of what is not known nothing is said.
        assert!(!stood_still(None, Some(0)) && !stood_still(Some(0), None));
    }
}

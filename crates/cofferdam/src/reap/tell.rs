//! What is left behind on a machine, told with the heartbeats of the node that runs there: else only somebody who looks
//! on the machine itself would see it.

use super::count;
use crate::state::State;
use driver::host::Host;
use node::Node;
use std::time::Duration;

/// A start has better things to do.
const FIRST: Duration = Duration::from_secs(20);
/// A look goes through the descriptors of all processes, and what is left stays for days.
const BETWEEN: Duration = Duration::from_secs(600);

/// Begins to tell it, beside everything else, until the process ends.
pub(crate) fn tell(node: &Node, state: &State, host: Host) {
    drop(tokio::spawn(look_on(node.clone(), state.clone(), host)));
}

/// Looks again and again. Of a look that fails nothing is told, and what the last one saw says when that was.
async fn look_on(node: Node, state: State, host: Host) {
    let mut pause = FIRST;
    loop {
        tokio::time::sleep(pause).await;
        pause = BETWEEN;
        let (state, host) = (state.clone(), host.clone());
        let now_ms = service::Clock::system().now_ms();
        let counting = tokio::task::spawn_blocking(move || count(&state, &host, now_ms));
        match counting.await {
            Ok(Ok(found)) => node.left_behind(found),
            Ok(Err(failure)) => {
                tracing::warn!(%failure, "failed to look for what is left behind");
            }
            // It is not begun any more, because the process ends.
            Err(_) => return,
        }
    }
}

//! What a state directory needs that no server looks after: once everything else is done, a command keeps
//! it from growing and from getting slow to open.

use crate::state::State;
use service::{Service, loops};
use std::time::Duration;
use store::Store;

/// How often finished jobs are forgotten, at most: it reads all of the database's indexes.
const FORGET_EVERY: Duration = Duration::from_secs(60 * 60);

/// Writes back a long log, and forgets what has been kept long enough. Failures are only told: the next
/// command tries again, and this one has done what it was asked for.
pub(crate) async fn upkeep(service: &Service, state: &State) {
    if is_due(state) {
        if let Err(error) = loops::prune_pass(service).await {
            tracing::warn!(error = %error.code(), "failed to forget old jobs");
        }
        if let Err(error) = std::fs::write(state.forgotten(), "") {
            tracing::warn!(%error, "failed to note when old jobs were forgotten");
        }
    }
    if let Err(error) = Store::settle_sqlite(&state.database()) {
        tracing::warn!(%error, "failed to write the log back");
    }
}

/// Whether nobody has done it for long. A clock that was set back makes it due.
fn is_due(state: &State) -> bool {
    let done = std::fs::metadata(state.forgotten()).and_then(|meta| meta.modified());
    let age = done.map(|at| at.elapsed());
    !matches!(age, Ok(Ok(age)) if age < FORGET_EVERY)
}

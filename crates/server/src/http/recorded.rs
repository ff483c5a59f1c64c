//! Waiting for the record of what has just ended.
//!
//! A command ends before its record is in the database, because nobody who runs one waits for that. Whoever
//! looks at the record waits instead: until all is there that the guest says it has told, and never longer
//! than a record takes.

use std::time::Duration;

use model::id::SandboxId;
use serde::Deserialize;
use service::Ctx;

use crate::App;
use crate::e2b::measure;

/// A fact that is as old as this was told, or its node is in trouble: some times the time for which a node
/// gathers facts.
const RECENT: Duration = Duration::from_secs(2);
/// How long a guest may take to say how many facts there are.
const ASKED: Duration = Duration::from_secs(1);

/// What a guest says: the number of its last fact, and how old that is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    last: u64,
    age_ms: u64,
}

/// Waits until what was run in a sandbox until now is on record, at most three seconds.
pub(crate) async fn wait(app: &App, ctx: &Ctx, id: &SandboxId) {
    // Whether the caller may see it is said by the list.
    let Ok(row) = app.service.sandbox_get(ctx, id).await else {
        return;
    };
    let asking = measure::get::<Said>(app, &row, "/cofferdam/recorded");
    let Ok(Some(said)) = tokio::time::timeout(ASKED, asking).await else {
        return;
    };
    let Some(left) = RECENT.checked_sub(Duration::from_millis(said.age_ms)) else {
        return;
    };
    let last = row.exec_base.saturating_add(said.last);
    let told = app.service.exec_told(id, last, left);
    app.stopping.run_until_cancelled(told).await;
}

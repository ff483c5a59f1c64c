use super::*;
use crate::migrate;

/// How SQLite reads a table for a statement: the lines of its plan that say so.
pub(crate) fn reads(sql: &str, table: &str) -> Vec<String> {
    let database = rusqlite::Connection::open_in_memory().unwrap();
    migrate::sqlite(&database).unwrap();
    let mut plan = database
        .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
        .unwrap();
    let mut lines = plan.raw_query();
    let mut details = Vec::new();
    while let Some(line) = lines.next().unwrap() {
        let detail = line.get::<_, String>("detail").unwrap();
        // Whether an index has all that is asked for is another matter.
        details.push(detail.replace("COVERING ", ""));
    }
    let at = [format!("SEARCH {table} "), format!("SCAN {table} ")];
    details.retain(|detail| at.iter().any(|at| detail.starts_with(at)));
    details
}

#[test]
fn a_poll_finds_what_is_for_its_node_and_what_is_for_any_in_indexes_of_their_own() {
    let plain = [
        "SCAN queue USING INDEX queue_plain",
        "SEARCH queue USING INDEX queue_pinned (pinned_node=?)",
    ];
    let first = [
        "SEARCH queue USING INDEX queue_by_wish (wish>?)",
        "SEARCH queue USING INDEX queue_pinned_by_wish (pinned_node=? AND wish>?)",
    ];
    let wished = [
        "SEARCH queue USING INDEX queue_by_wish (wish=? AND queued_at_ms<?)",
        "SEARCH queue USING INDEX queue_pinned_by_wish (pinned_node=? AND wish=? AND queued_at_ms<?)",
    ];
    // From the oldest on that is there.
    let later = "SEARCH queue USING INDEX queue_plain (queued_at_ms>?)";
    assert_eq!(reads(PLAIN, "queue"), [later, plain[1]]);
    assert_eq!(reads(ONE_PLAIN, "queue"), plain);
    assert_eq!(reads(ONE_PLAIN_FROM, "queue").len(), 1);
    let stopping = ["SEARCH job USING INDEX job_stopping (<expr>=?)"];
    assert_eq!(reads(job::STOPPING, "job"), stopping);
    let held = ["SEARCH job USING INDEX job_by_node (<expr>=? AND leased_at_ms>?)"];
    assert_eq!(reads(job::HELD, "job"), held);
    let counted = ["SEARCH queue USING INDEX queue_by_age (tenant=? AND queued_at_ms>?)"];
    assert_eq!(reads(job::COUNT, "queue"), counted);
    let expired = ["SEARCH queue USING INDEX queue_expires (expires_at_ms<?)"];
    assert_eq!(reads(EXPIRED, "queue"), expired);
    assert_eq!(reads(FIRST_WISH, "queue"), first);
    assert_eq!(reads(ALL_WISHES, "queue"), [first, first].concat());
    assert_eq!(reads(WISHED, "queue"), wished);
    assert_eq!(reads(ONE_WISHED, "queue").len(), wished.len());
}

//! Reports that come when their job has been judged lost already. The outcome stays, because somebody may
//! have acted on it; what the node knows is kept beside it.

use crate::change::{Note, cut};
use crate::error::Fail;
use crate::report::Finished;
use model::job::{JobState, Outcome};
use serde_json::{Map, Value, json};
use store::Tx;
use store::job::{JobRow, LateReport};

/// Whether a job was judged lost without a word of its node.
pub(crate) fn is_awaited(row: &JobRow) -> bool {
    let lost = matches!(
        row.state,
        JobState::Finished {
            outcome: Outcome::Lost { .. }
        }
    );
    lost && row.report_hash.is_none()
}

/// What a report says, for the event. Its output is not kept: whoever has read to the end was told that
/// nothing follows.
pub(crate) fn data(report: &Finished) -> String {
    let mut data = Map::new();
    let mut put = |name: &str, value: Value| data.insert(name.to_owned(), value);
    put("epoch", report.epoch.into());
    put("attempt", report.attempt.into());
    put("outcome", report.outcome.name().into());
    put("exit_code", report.outcome.exit_code().into());
    if let Outcome::Lost { why } | Outcome::Refused { why } = &report.outcome {
        put("why", cut(why).into());
    }
    if let Some(detail) = &report.detail {
        put("detail", cut(detail).into());
    }
    if let Some(usage) = &report.usage {
        put("usage", json!(usage));
    }
    put("stdout", json!(report.stdout));
    put("stderr", json!(report.stderr));
    Value::Object(data).to_string()
}

/// Keeps a late report. Its hash is on the job from then on, so that the same again is a duplicate and
/// another is a conflict.
pub(crate) fn keep(
    tx: &mut Tx<'_>,
    row: &JobRow,
    hash: &str,
    data: &str,
    note: &Note,
) -> Result<(), Fail> {
    let late = LateReport {
        kind: "job.reported_late",
        data: data.to_owned(),
        principal: note.principal.clone(),
        at_ms: note.at_ms,
    };
    store::job::keep_late(tx, row, hash, &late)?;
    Ok(())
}

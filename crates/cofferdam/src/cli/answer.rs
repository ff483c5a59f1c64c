//! The one object that `run --json` prints.

use crate::cli::failure::Failure;
use api::client::Client;
use api::job::JobView;
use api::log::StreamName;
use serde_json::{Value, json};

/// The most bytes of one stream that are put into the answer. More is never kept of a stream; this is
/// for a server that believes otherwise.
const TEXT_MAX: usize = 1 << 20;

/// Everything about a job that has ended: its record, what it wrote, and what went wrong on our side
/// afterwards.
pub(crate) async fn answer(
    client: &Client,
    view: &JobView,
    failure: Option<&Failure>,
) -> Result<Value, Failure> {
    let mut answer =
        serde_json::to_value(view).map_err(|error| Failure::ours("write JSON", &error))?;
    for stream in [StreamName::Stdout, StreamName::Stderr] {
        let kept = kept(client, &view.id, stream).await?;
        add_text(&mut answer, stream.as_str(), &kept);
    }
    if let (Some(body), Some(object)) = (failure.and_then(Failure::body), answer.as_object_mut()) {
        object.insert("error".to_owned(), json!(body));
    }
    Ok(answer)
}

/// What is kept of a stream. A job that never ran has none.
async fn kept(client: &Client, id: &str, stream: StreamName) -> Result<Vec<u8>, Failure> {
    let mut download = client.job_logs_raw(id, stream).await?;
    let mut kept = Vec::new();
    while let Some(bytes) = download.chunk().await? {
        let room = TEXT_MAX.saturating_sub(kept.len());
        kept.extend(bytes.iter().take(room));
        if room < bytes.len() {
            break;
        }
    }
    Ok(kept)
}

/// Puts the text beside the numbers of its stream.
fn add_text(answer: &mut Value, stream: &str, kept: &[u8]) {
    let Some(object) = answer.as_object_mut() else {
        return;
    };
    let report = object.entry(stream).or_insert_with(|| json!({}));
    if let Some(report) = report.as_object_mut() {
        let text = String::from_utf8_lossy(kept).into_owned();
        report.insert("text".to_owned(), text.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stands_beside_the_numbers_of_its_stream() {
        let mut answer = json!({"id": "job_1", "stdout": {"total_bytes": 3, "truncated": false}});
        add_text(&mut answer, "stdout", b"a\xff\n");
        add_text(&mut answer, "stderr", b"");
        let stdout = json!({"total_bytes": 3, "truncated": false, "text": "a\u{fffd}\n"});
        assert_eq!(answer["stdout"], stdout);
        assert_eq!(answer["stderr"], json!({"text": ""}));
    }
}

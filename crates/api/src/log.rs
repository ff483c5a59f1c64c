//! What a job wrote, on the wire.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::encoding::{self, BadData, Encoding};
use crate::job::{JobView, StreamReport};

/// The name of the server-sent event that carries a [`LogSegment`].
pub const SSE_OUTPUT: &str = "output";
/// The name of the server-sent event that carries the finished [`JobView`]; the last of a stream.
pub const SSE_END: &str = "end";

/// The two output streams of a job.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum StreamName {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl StreamName {
    /// The name as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The form of the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// A page of segments.
    #[default]
    Json,
    /// The kept bytes of one stream of the last attempt, and nothing else.
    Raw,
}

/// What `GET /v1/jobs/{id}/logs` takes in the query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogQuery {
    /// Only what came after this place: the `next` of the page before.
    #[serde(default)]
    pub after: Option<u64>,
    /// At most so many segments, 1 to 500; 50 when absent.
    #[serde(default)]
    pub limit: Option<u32>,
    /// Only this stream. `format=raw` needs it.
    #[serde(default)]
    #[param(inline)]
    pub stream: Option<StreamName>,
    /// The form of the answer.
    #[serde(default)]
    #[param(inline)]
    pub format: Option<LogFormat>,
}

/// A piece of what a job wrote, in the order in which it arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogSegment {
    /// Its place in the log of the job.
    pub seq: u64,
    /// The try that wrote it.
    pub attempt: u32,
    /// The stream it was written to.
    pub stream: StreamName,
    /// Where it starts in that stream. A gap to the end of the segment before is what was dropped.
    pub offset_bytes: u64,
    /// When it was stored, in milliseconds since 1970.
    pub at_ms: u64,
    /// How `data` is written.
    pub encoding: Encoding,
    /// The bytes.
    pub data: String,
}

impl LogSegment {
    /// The bytes themselves.
    ///
    /// # Errors
    /// [`BadData`] when `data` does not decode.
    pub fn into_bytes(self) -> Result<Bytes, BadData> {
        encoding::decode(self.encoding, self.data)
    }
}

/// A page of a job's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogPage {
    /// The segments, oldest first.
    pub segments: Vec<LogSegment>,
    /// Give this as `after` to read on.
    pub next: u64,
    /// The job has ended and there is nothing after this page.
    pub complete: bool,
    /// What became of standard output; absent until the job ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<StreamReport>,
    /// What became of standard error; absent until the job ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<StreamReport>,
}

/// One step of a log that is being followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEvent {
    /// The job wrote something.
    Output(LogSegment),
    /// The job ended, and everything it wrote has been delivered.
    End(Box<JobView>),
}

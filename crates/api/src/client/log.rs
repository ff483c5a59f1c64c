//! What jobs wrote.

use http::Method;
use http::header::{ACCEPT, HeaderValue};

use super::body::Download;
use super::sse::SseParser;
use super::{Client, ClientError};
use crate::job::JobView;
use crate::log::{LogEvent, LogPage, LogQuery, LogSegment, SSE_END, SSE_OUTPUT, StreamName};
use crate::routes;

impl Client {
    /// A page of a job's log.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn job_logs(&self, id: &str, query: &LogQuery) -> Result<LogPage, ClientError> {
        let query = routes::query(&[
            ("after", query.after.map(|after| after.to_string())),
            ("limit", query.limit.map(|limit| limit.to_string())),
            (
                "stream",
                query.stream.map(|stream| stream.as_str().to_owned()),
            ),
        ]);
        self.get(routes::fill(routes::JOB_LOGS, &[id]) + &query)
            .await
    }

    /// The kept bytes of one stream of the last attempt.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn job_logs_raw(
        &self,
        id: &str,
        stream: StreamName,
    ) -> Result<Download, ClientError> {
        let query = routes::query(&[
            ("stream", Some(stream.as_str().to_owned())),
            ("format", Some("raw".to_owned())),
        ]);
        let path = routes::fill(routes::JOB_LOGS, &[id]) + &query;
        self.download(self.call(Method::GET, path)).await
    }

    /// Follows a job's log until the job has ended and everything was delivered.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn job_logs_follow(
        &self,
        id: &str,
        after: Option<u64>,
    ) -> Result<LogFollow, ClientError> {
        let query = routes::query(&[("after", after.map(|after| after.to_string()))]);
        let path = routes::fill(routes::JOB_LOGS, &[id]) + &query;
        let mut call = self.call(Method::GET, path);
        call.headers = vec![(ACCEPT, HeaderValue::from_static("text/event-stream"))];
        let download = self.download(call).await?;
        Ok(LogFollow {
            client: self.clone(),
            download,
            parser: SseParser::default(),
            last_seq: after,
            ended: false,
        })
    }
}

/// A log that is being followed.
#[derive(Debug)]
pub struct LogFollow {
    client: Client,
    download: Download,
    parser: SseParser,
    last_seq: Option<u64>,
    ended: bool,
}

impl LogFollow {
    /// Where to follow on (as `after`) when the connection broke.
    #[must_use]
    pub fn last_seq(&self) -> Option<u64> {
        self.last_seq
    }

    /// What happens next; `None` when the stream is over. Over without [`LogEvent::End`] means that
    /// the server went away: follow again from [`Self::last_seq`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn next(&mut self) -> Result<Option<LogEvent>, ClientError> {
        while !self.ended {
            if let Some(event) = self.parser.next_event() {
                if let Some(event) = self.read(&event.name, &event.data)? {
                    return Ok(Some(event));
                }
                continue;
            }
            let Some(bytes) = self.download.chunk().await? else {
                break;
            };
            if !self.parser.push(&bytes) {
                return Err(self.client.protocol("an event of unreasonable size"));
            }
        }
        Ok(None)
    }

    fn read(&mut self, name: &str, data: &str) -> Result<Option<LogEvent>, ClientError> {
        let bad = |error: serde_json::Error| self.client.protocol(format!("an event that {error}"));
        match name {
            SSE_OUTPUT => {
                let segment: LogSegment = serde_json::from_str(data).map_err(bad)?;
                self.last_seq = Some(segment.seq);
                Ok(Some(LogEvent::Output(segment)))
            }
            SSE_END => {
                let job: JobView = serde_json::from_str(data).map_err(bad)?;
                self.ended = true;
                Ok(Some(LogEvent::End(Box::new(job))))
            }
            // An event of a newer server.
            _ => Ok(None),
        }
    }
}

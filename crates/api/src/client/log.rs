//! What jobs wrote.

use http::Method;

use super::body::Download;
use super::follow::{Follow, Told};
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
        self.follow(path, after, read).await
    }
}

/// A log that is being followed.
pub type LogFollow = Follow<LogEvent>;

fn read(name: &str, data: &str) -> serde_json::Result<Option<Told<LogEvent>>> {
    Ok(match name {
        SSE_OUTPUT => {
            let segment: LogSegment = serde_json::from_str(data)?;
            let seq = segment.seq;
            Some(Told::One(LogEvent::Output(segment), seq))
        }
        SSE_END => {
            let job: JobView = serde_json::from_str(data)?;
            Some(Told::End(LogEvent::End(Box::new(job))))
        }
        // An event of a newer server.
        _ => None,
    })
}

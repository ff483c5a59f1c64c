//! Connections of sandboxes and jobs to the outside.

use http::Method;
use http::header::{ACCEPT, HeaderValue};

use super::body::Download;
use super::sse::SseParser;
use super::{Client, ClientError};
use crate::egress::{
    EgressConnectionList, EgressConnectionQuery, EgressEnd, EgressEvent, EgressList, EgressQuery,
    EgressTest, EgressTested, EgressView, NodeEgress, SSE_RECORD,
};
use crate::log::SSE_END;
use crate::node::ReportAnswer;
use crate::routes;

impl Client {
    /// A page of what a sandbox has asked of the outside, the oldest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sandbox_egress(
        &self,
        id: &str,
        query: &EgressQuery,
    ) -> Result<EgressList, ClientError> {
        let path = routes::fill(routes::SANDBOX_EGRESS, &[id]) + &query_of(query);
        self.get(path).await
    }

    /// The same of a job.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn job_egress(
        &self,
        id: &str,
        query: &EgressQuery,
    ) -> Result<EgressList, ClientError> {
        let path = routes::fill(routes::JOB_EGRESS, &[id]) + &query_of(query);
        self.get(path).await
    }

    /// Follows what a sandbox (`sbx_...`) or a job (`job_...`) asks of the outside, until it has ended.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn egress_follow(
        &self,
        of: &str,
        query: &EgressQuery,
    ) -> Result<EgressFollow, ClientError> {
        let route = if of.starts_with("job_") {
            routes::JOB_EGRESS
        } else {
            routes::SANDBOX_EGRESS
        };
        let path = routes::fill(route, &[of]) + &query_of(query);
        let mut call = self.call(Method::GET, path);
        call.headers = vec![(ACCEPT, HeaderValue::from_static("text/event-stream"))];
        let download = self.download(call).await?;
        Ok(EgressFollow {
            client: self.clone(),
            download,
            parser: SseParser::default(),
            last_seq: query.after,
            ended: false,
        })
    }

    /// What is under way to the outside now, of a sandbox or a job, or of all.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn egress_connections(
        &self,
        of: Option<&str>,
        query: &EgressConnectionQuery,
    ) -> Result<EgressConnectionList, ClientError> {
        let path = match of {
            Some(id) if id.starts_with("job_") => routes::fill(routes::JOB_CONNECTIONS, &[id]),
            Some(id) => routes::fill(routes::SANDBOX_CONNECTIONS, &[id]),
            None => routes::CONNECTIONS.to_owned(),
        };
        let limit = query.limit.map(|limit| limit.to_string());
        self.get(path + &routes::query(&[("limit", limit)])).await
    }

    /// What would become of a URL.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sandbox_egress_test(
        &self,
        id: &str,
        asked: &EgressTest,
    ) -> Result<EgressTested, ClientError> {
        let path = routes::fill(routes::SANDBOX_EGRESS_TEST, &[id]);
        self.post(path, asked).await
    }

    /// Says what sandboxes and jobs have asked of the outside.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn node_egress(&self, report: &NodeEgress) -> Result<ReportAnswer, ClientError> {
        self.say_of_many(routes::NODE_EGRESS, report).await
    }
}

/// Records that are being followed.
#[derive(Debug)]
pub struct EgressFollow {
    client: Client,
    download: Download,
    parser: SseParser,
    last_seq: Option<u64>,
    ended: bool,
}

impl EgressFollow {
    /// Where to follow on (as `after`) when the connection broke.
    #[must_use]
    pub fn last_seq(&self) -> Option<u64> {
        self.last_seq
    }

    /// What happens next; `None` when the stream is over. Over without [`EgressEvent::End`] means that the server went
    /// away: follow again from [`Self::last_seq`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn next(&mut self) -> Result<Option<EgressEvent>, ClientError> {
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

    fn read(&mut self, name: &str, data: &str) -> Result<Option<EgressEvent>, ClientError> {
        let bad = |error: serde_json::Error| self.client.protocol(format!("an event that {error}"));
        match name {
            SSE_RECORD => {
                let record: EgressView = serde_json::from_str(data).map_err(bad)?;
                self.last_seq = Some(record.seq);
                Ok(Some(EgressEvent::Record(Box::new(record))))
            }
            SSE_END => {
                let end: EgressEnd = serde_json::from_str(data).map_err(bad)?;
                self.ended = true;
                Ok(Some(EgressEvent::End(end)))
            }
            // An event of a newer server.
            _ => Ok(None),
        }
    }
}

fn query_of(query: &EgressQuery) -> String {
    routes::query(&[
        ("after", query.after.map(|after| after.to_string())),
        (
            "decision",
            query.decision.map(|one| one.as_str().to_owned()),
        ),
        ("host", query.host.clone()),
        ("code", query.code.clone()),
        ("from", query.from.map(|from| from.to_string())),
        ("to", query.to.map(|to| to.to_string())),
        ("limit", query.limit.map(|limit| limit.to_string())),
    ])
}

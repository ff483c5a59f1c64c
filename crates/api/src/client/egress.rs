//! Connections of sandboxes and jobs to the outside.

use super::follow::{Follow, Told};
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
        self.follow(path, query.after, read).await
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
pub type EgressFollow = Follow<EgressEvent>;

fn read(name: &str, data: &str) -> serde_json::Result<Option<Told<EgressEvent>>> {
    Ok(match name {
        SSE_RECORD => {
            let record: EgressView = serde_json::from_str(data)?;
            let seq = record.seq;
            Some(Told::One(EgressEvent::Record(Box::new(record)), seq))
        }
        SSE_END => {
            let end: EgressEnd = serde_json::from_str(data)?;
            Some(Told::End(EgressEvent::End(end)))
        }
        // An event of a newer server.
        _ => None,
    })
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

//! What a node says and asks.

use std::time::Duration;

use http::Method;
use tokio::io::AsyncRead;

use super::body::RequestBody;
use super::{Client, ClientError, Download, UPLOAD_DEADLINE, WAIT_GRACE};
use crate::artifact::ArtifactView;
use crate::exec::NodeExecs;
use crate::network::NetworkReport;
use crate::node::SandboxReport;
use crate::node::{
    ArtifactPutQuery, JobFinished, JobOutput, JobRelease, JobStarted, NodeHeartbeat,
    NodeHeartbeatAnswer, NodePoll, NodePollAnswer, NodeRegister, NodeRegistered, NodeUsage,
    ReportAnswer,
};
use crate::routes;

impl Client {
    /// Says that this node is there, and learns what it is believed to hold.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn node_register(&self, hello: &NodeRegister) -> Result<NodeRegistered, ClientError> {
        self.post(routes::NODE_REGISTER.to_owned(), hello).await
    }

    /// Renews all leases of this node.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn node_heartbeat(
        &self,
        beat: &NodeHeartbeat,
    ) -> Result<NodeHeartbeatAnswer, ClientError> {
        self.post(routes::NODE_HEARTBEAT.to_owned(), beat).await
    }

    /// Says what this node's sandboxes used.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn node_usage(&self, usage: &NodeUsage) -> Result<ReportAnswer, ClientError> {
        self.say_of_many(routes::NODE_USAGE, usage).await
    }

    /// Asks for work and waits for it as long as the poll says.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn node_poll(&self, poll: &NodePoll) -> Result<NodePollAnswer, ClientError> {
        let call = self.call(Method::POST, routes::NODE_POLL.to_owned());
        let mut call = self.with_json(call, poll)?;
        call.deadline = Duration::from_millis(poll.wait_ms) + WAIT_GRACE;
        self.json(call).await
    }

    /// Says that a sandbox is ready. The command may be let go when this answers, unless `cancel`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn node_job_started(
        &self,
        job_id: &str,
        report: &JobStarted,
    ) -> Result<ReportAnswer, ClientError> {
        self.say((routes::NODE_JOB_STARTED, job_id), report).await
    }

    /// Delivers what a job wrote.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn node_job_output(
        &self,
        job_id: &str,
        report: &JobOutput,
    ) -> Result<ReportAnswer, ClientError> {
        self.say((routes::NODE_JOB_OUTPUT, job_id), report).await
    }

    /// Says that nothing of a snapshot is left here.
    ///
    /// # Errors
    /// [`ClientError`]; `not_found` for one that nobody knows.
    pub async fn node_snapshot_removed(&self, id: &str) -> Result<ReportAnswer, ClientError> {
        let path = routes::fill(routes::NODE_SNAPSHOT_REMOVED, &[id]);
        self.json(self.call(Method::POST, path)).await
    }

    /// Says how a job ended.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn node_job_finished(
        &self,
        job_id: &str,
        report: &JobFinished,
    ) -> Result<ReportAnswer, ClientError> {
        self.say((routes::NODE_JOB_FINISHED, job_id), report).await
    }

    /// Gives a job back that was not started.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn node_job_release(
        &self,
        job_id: &str,
        report: &JobRelease,
    ) -> Result<ReportAnswer, ClientError> {
        self.say((routes::NODE_JOB_RELEASE, job_id), report).await
    }

    /// Says what has become of a sandbox.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn node_sandbox_report(
        &self,
        sandbox_id: &str,
        report: &SandboxReport,
    ) -> Result<ReportAnswer, ClientError> {
        self.say((routes::NODE_SANDBOX_REPORT, sandbox_id), report)
            .await
    }

    /// Says that rules of a network are in force.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn node_sandbox_network(
        &self,
        sandbox_id: &str,
        report: &NetworkReport,
    ) -> Result<ReportAnswer, ClientError> {
        self.say((routes::NODE_SANDBOX_NETWORK, sandbox_id), report)
            .await
    }

    /// Says what was run in a sandbox.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn node_sandbox_execs(
        &self,
        sandbox_id: &str,
        report: &NodeExecs,
    ) -> Result<ReportAnswer, ClientError> {
        self.say((routes::NODE_SANDBOX_EXECS, sandbox_id), report)
            .await
    }

    /// Delivers one file that is to be kept. With a size, the reader must yield exactly so many
    /// bytes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn node_artifact_put(
        &self,
        job_id: &str,
        file: &ArtifactPutQuery,
        from: impl AsyncRead + Send + 'static,
        size_bytes: Option<u64>,
    ) -> Result<ArtifactView, ClientError> {
        let query = routes::query(&[
            ("epoch", Some(file.epoch.to_string())),
            ("attempt", Some(file.attempt.to_string())),
            ("path", Some(file.path.clone())),
            ("mode", Some(file.mode.to_string())),
        ]);
        let path = routes::fill(routes::NODE_JOB_ARTIFACTS, &[job_id]) + &query;
        let mut call = self.call(Method::PUT, path);
        call.body = RequestBody::reader(from, size_bytes);
        call.deadline = UPLOAD_DEADLINE;
        self.json(self.shown(call, job_id)).await
    }

    /// The bytes of an input file.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn node_blob_get(&self, digest: &str) -> Result<Download, ClientError> {
        let path = routes::fill(routes::NODE_BLOB, &[digest]);
        self.download(self.call(Method::GET, path)).await
    }
}

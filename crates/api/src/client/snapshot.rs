//! Snapshots, and sandboxes made from them.

use std::time::Duration;

use http::Method;

use super::job::wait_query;
use super::{Client, ClientError, WAIT_GRACE};
use crate::job::WAIT_MAX;
use crate::routes;
use crate::snapshot::{
    ForkList, SandboxFork, SnapshotCreate, SnapshotList, SnapshotListQuery, SnapshotView,
};

impl Client {
    /// Copies what was written in a sandbox. With `wait` it answers when that is done.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn snapshot_create(
        &self,
        sandbox_id: &str,
        asked: &SnapshotCreate,
        wait: Option<Duration>,
    ) -> Result<SnapshotView, ClientError> {
        let wait = wait.map(|wait| wait.min(WAIT_MAX));
        let path = routes::fill(routes::SANDBOX_SNAPSHOTS, &[sandbox_id]) + &wait_query(wait);
        let mut call = self.with_json(self.call(Method::POST, path), asked)?;
        call.deadline = wait.map_or(call.deadline, |wait| wait + WAIT_GRACE);
        self.json(call).await
    }

    /// One snapshot as it is now.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn snapshot_get(&self, id: &str) -> Result<SnapshotView, ClientError> {
        self.get(routes::fill(routes::SNAPSHOT, &[id])).await
    }

    /// A page of snapshots, newest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn snapshot_list(
        &self,
        query: &SnapshotListQuery,
    ) -> Result<SnapshotList, ClientError> {
        let query = routes::query(&[
            ("sandbox", query.sandbox.clone()),
            ("name", query.name.clone()),
            ("limit", query.limit.map(|limit| limit.to_string())),
            ("before", query.before.clone()),
        ]);
        self.get(format!("{}{query}", routes::SNAPSHOTS)).await
    }

    /// Gives a snapshot up; once more is the same as once.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn snapshot_delete(&self, id: &str) -> Result<SnapshotView, ClientError> {
        let path = routes::fill(routes::SNAPSHOT, &[id]);
        self.json(self.call(Method::DELETE, path)).await
    }

    /// Makes sandboxes that begin as this one is. Answers when they are asked for, not when they stand.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sandbox_fork(
        &self,
        id: &str,
        asked: &SandboxFork,
    ) -> Result<ForkList, ClientError> {
        let path = routes::fill(routes::SANDBOX_FORK, &[id]);
        let mut call = self.with_json(self.call(Method::POST, path), asked)?;
        call.deadline = WAIT_MAX + WAIT_GRACE;
        self.json(call).await
    }
}

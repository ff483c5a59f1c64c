//! Jobs.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use super::{Client, ClientError, WAIT_GRACE};
use crate::event::{EventList, EventListQuery};
use crate::job::{JobCreate, JobList, JobListQuery, JobView, WAIT_MAX, wait_to_text};
use crate::routes;

/// How a job is created, beside what it is.
#[derive(Debug, Clone, Default)]
pub struct JobCreateOptions {
    /// Answer when it has ended, or after this time. At most [`WAIT_MAX`].
    pub wait: Option<Duration>,
    /// Makes the create safe to repeat: 8 to 255 of `A-Z a-z 0-9 _ -`.
    pub idempotency_key: Option<String>,
}

impl Client {
    /// Creates a job.
    ///
    /// # Errors
    /// [`ClientError`]; after a timeout, repeat it with the same key to learn what became of it.
    pub async fn job_create(
        &self,
        job: &JobCreate,
        options: &JobCreateOptions,
    ) -> Result<JobView, ClientError> {
        let wait = options.wait.map(|wait| wait.min(WAIT_MAX));
        let path = format!("{}{}", routes::JOBS, wait_query(wait));
        let mut call = self.with_json(self.call(Method::POST, path), job)?;
        if let Some(key) = &options.idempotency_key {
            let value = HeaderValue::from_str(key)
                .map_err(|_| self.protocol("use an Idempotency-Key that fits in a header"))?;
            call.headers
                .push((HeaderName::from_static(routes::IDEMPOTENCY_KEY), value));
        }
        call.deadline = wait.map_or(call.deadline, |wait| wait + WAIT_GRACE);
        self.json(call).await
    }

    /// One job as it is now.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn job_get(&self, id: &str) -> Result<JobView, ClientError> {
        self.get(routes::fill(routes::JOB, &[id])).await
    }

    /// One job when it has ended, or as it is after `wait` (at most [`WAIT_MAX`]).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn job_wait(&self, id: &str, wait: Duration) -> Result<JobView, ClientError> {
        let wait = wait.min(WAIT_MAX);
        let path = routes::fill(routes::JOB, &[id]) + &wait_query(Some(wait));
        let mut call = self.call(Method::GET, path);
        call.deadline = wait + WAIT_GRACE;
        self.json(call).await
    }

    /// A page of jobs, newest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn job_list(&self, query: &JobListQuery) -> Result<JobList, ClientError> {
        let query = routes::query(&[
            ("state", query.state.map(|state| state.as_str().to_owned())),
            ("kind", query.kind.map(|kind| kind.as_str().to_owned())),
            ("sandbox", query.sandbox.clone()),
            ("limit", query.limit.map(|limit| limit.to_string())),
            ("before", query.before.clone()),
        ]);
        self.get(format!("{}{query}", routes::JOBS)).await
    }

    /// Asks a job to stop; once more is the same as once.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn job_cancel(&self, id: &str) -> Result<JobView, ClientError> {
        self.json(self.call(Method::POST, routes::fill(routes::JOB_CANCEL, &[id])))
            .await
    }

    /// What happened to a job, oldest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn job_events(
        &self,
        id: &str,
        query: &EventListQuery,
    ) -> Result<EventList, ClientError> {
        let query = routes::query(&[
            ("after", query.after.map(|after| after.to_string())),
            ("limit", query.limit.map(|limit| limit.to_string())),
        ]);
        self.get(routes::fill(routes::JOB_EVENTS, &[id]) + &query)
            .await
    }
}

/// `?wait=`, if anybody waits.
pub(super) fn wait_query(wait: Option<Duration>) -> String {
    routes::query(&[("wait", wait.map(wait_to_text))])
}

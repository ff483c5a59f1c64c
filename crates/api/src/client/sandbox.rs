//! Sandboxes that live on.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use super::job::wait_query;
use super::{Client, ClientError, JobCreateOptions, WAIT_GRACE};
use crate::event::{EventList, EventListQuery};
use crate::exec::{ExecList, ExecListQuery};
use crate::job::WAIT_MAX;
use crate::network::Network;
use crate::routes;
use crate::sandbox::{
    ReachabilityView, SandboxConnect, SandboxCreate, SandboxList, SandboxListQuery, SandboxPause,
    SandboxResume, SandboxTimeout, SandboxView, UsageQuery, UsageView,
};

impl Client {
    /// Creates a sandbox; with `wait` it answers when that is ready, or after the time.
    ///
    /// # Errors
    /// [`ClientError`]; after a timeout, repeat it with the same key to learn what became of it.
    pub async fn sandbox_create(
        &self,
        sandbox: &SandboxCreate,
        options: &JobCreateOptions,
    ) -> Result<SandboxView, ClientError> {
        let wait = options.wait.map(|wait| wait.min(WAIT_MAX));
        let path = routes::SANDBOXES.to_owned() + &wait_query(wait);
        let mut call = self.with_json(self.call(Method::POST, path), sandbox)?;
        if let Some(key) = &options.idempotency_key {
            let value = HeaderValue::from_str(key)
                .map_err(|_| self.protocol("use an Idempotency-Key that fits in a header"))?;
            call.headers
                .push((HeaderName::from_static(routes::IDEMPOTENCY_KEY), value));
        }
        call.deadline = wait.map_or(call.deadline, |wait| wait + WAIT_GRACE);
        self.json(call).await
    }

    /// One sandbox as it is now.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sandbox_get(&self, id: &str) -> Result<SandboxView, ClientError> {
        self.get(routes::fill(routes::SANDBOX, &[id])).await
    }

    /// One sandbox when nothing is under way with it, or as it is after `wait` (at most [`WAIT_MAX`]).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sandbox_wait(&self, id: &str, wait: Duration) -> Result<SandboxView, ClientError> {
        self.order(Method::GET, routes::SANDBOX, id, Some(wait))
            .await
    }

    /// A page of sandboxes, newest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sandbox_list(&self, query: &SandboxListQuery) -> Result<SandboxList, ClientError> {
        let states: Vec<&str> = query.states.iter().map(|state| state.as_str()).collect();
        let states = Some(states.join(",")).filter(|states| !states.is_empty());
        let keys: Vec<String> = query
            .metadata
            .keys()
            .map(|k| format!("metadata.{k}"))
            .collect();
        let mut pairs = vec![
            ("state", states),
            ("limit", query.limit.map(|limit| limit.to_string())),
            ("before", query.before.clone()),
        ];
        let entries = keys.iter().map(String::as_str);
        pairs.extend(entries.zip(query.metadata.values().cloned().map(Some)));
        let query = routes::query(&pairs);
        self.get(format!("{}{query}", routes::SANDBOXES)).await
    }

    /// Takes a sandbox away; once more is the same as once. With `wait` it answers when that is done.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sandbox_destroy(
        &self,
        id: &str,
        wait: Option<Duration>,
    ) -> Result<SandboxView, ClientError> {
        self.order(Method::DELETE, routes::SANDBOX, id, wait).await
    }

    /// Pauses a sandbox. With `wait` it answers when that is done.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sandbox_pause(
        &self,
        id: &str,
        asked: &SandboxPause,
        wait: Option<Duration>,
    ) -> Result<SandboxView, ClientError> {
        self.ask(routes::SANDBOX_PAUSE, id, asked, wait).await
    }

    /// Brings a paused sandbox back. With `wait` it answers when that is done.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sandbox_resume(
        &self,
        id: &str,
        asked: &SandboxResume,
        wait: Option<Duration>,
    ) -> Result<SandboxView, ClientError> {
        self.ask(routes::SANDBOX_RESUME, id, asked, wait).await
    }

    /// Comes to use a sandbox: resumes it if it is paused, and lets it live longer. With `wait` it
    /// answers when that can be used.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sandbox_connect(
        &self,
        id: &str,
        asked: &SandboxConnect,
        wait: Option<Duration>,
    ) -> Result<SandboxView, ClientError> {
        self.ask(routes::SANDBOX_CONNECT, id, asked, wait).await
    }

    async fn ask(
        &self,
        route: &str,
        id: &str,
        asked: &impl serde::Serialize,
        wait: Option<Duration>,
    ) -> Result<SandboxView, ClientError> {
        let wait = wait.map(|wait| wait.min(WAIT_MAX));
        let path = routes::fill(route, &[id]) + &wait_query(wait);
        let mut call = self.with_json(self.call(Method::POST, path), asked)?;
        call.deadline = wait.map_or(call.deadline, |wait| wait + WAIT_GRACE);
        self.json(call).await
    }

    /// Gives a sandbox a new time to live, from now on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sandbox_timeout(
        &self,
        id: &str,
        asked: &SandboxTimeout,
    ) -> Result<SandboxView, ClientError> {
        self.post(routes::fill(routes::SANDBOX_TIMEOUT, &[id]), asked)
            .await
    }

    /// Puts other rules of the network in the place of those that there are. With `wait` it answers when they are
    /// in force.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sandbox_network(
        &self,
        id: &str,
        asked: &Network,
        wait: Option<Duration>,
    ) -> Result<SandboxView, ClientError> {
        let wait = wait.map(|wait| wait.min(WAIT_MAX));
        let path = routes::fill(routes::SANDBOX_NETWORK, &[id]) + &wait_query(wait);
        let mut call = self.with_json(self.call(Method::PUT, path), asked)?;
        call.deadline = wait.map_or(call.deadline, |wait| wait + WAIT_GRACE);
        self.json(call).await
    }

    /// Makes a sandbox anew, under its id: what runs in it ends, and what was written in it is gone.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sandbox_recreate(
        &self,
        id: &str,
        wait: Option<Duration>,
    ) -> Result<SandboxView, ClientError> {
        self.order(Method::POST, routes::SANDBOX_RECREATE, id, wait)
            .await
    }

    /// What happened to a sandbox, oldest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sandbox_events(
        &self,
        id: &str,
        query: &EventListQuery,
    ) -> Result<EventList, ClientError> {
        let query = routes::query(&[
            ("after", query.after.map(|after| after.to_string())),
            ("limit", query.limit.map(|limit| limit.to_string())),
        ]);
        self.get(routes::fill(routes::SANDBOX_EVENTS, &[id]) + &query)
            .await
    }

    /// Whether and how a sandbox can be reached.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sandbox_reachability(&self, id: &str) -> Result<ReachabilityView, ClientError> {
        self.get(routes::fill(routes::SANDBOX_REACHABILITY, &[id]))
            .await
    }

    /// What a sandbox uses and used.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sandbox_usage(
        &self,
        id: &str,
        query: &UsageQuery,
    ) -> Result<UsageView, ClientError> {
        let query = routes::query(&[
            ("from", query.from.map(|from| from.to_string())),
            ("to", query.to.map(|to| to.to_string())),
        ]);
        self.get(routes::fill(routes::SANDBOX_USAGE, &[id]) + &query)
            .await
    }

    /// A page of what was run in a sandbox, newest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sandbox_jobs(
        &self,
        id: &str,
        query: &ExecListQuery,
    ) -> Result<ExecList, ClientError> {
        let query = routes::query(&[
            ("limit", query.limit.map(|limit| limit.to_string())),
            ("before", query.before.map(|before| before.to_string())),
        ]);
        self.get(routes::fill(routes::SANDBOX_JOBS, &[id]) + &query)
            .await
    }

    async fn order(
        &self,
        method: Method,
        route: &str,
        id: &str,
        wait: Option<Duration>,
    ) -> Result<SandboxView, ClientError> {
        let wait = wait.map(|wait| wait.min(WAIT_MAX));
        let mut call = self.call(method, routes::fill(route, &[id]) + &wait_query(wait));
        call.deadline = wait.map_or(call.deadline, |wait| wait + WAIT_GRACE);
        self.json(call).await
    }
}

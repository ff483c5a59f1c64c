//! Secrets.

use http::{HeaderName, HeaderValue, Method};

use super::{Client, ClientError};
use crate::event::{EventList, EventListQuery};
use crate::routes;
use crate::secret::{
    SecretCreate, SecretList, SecretListQuery, SecretRotate, SecretView, SecretsAsk, SecretsGiven,
};

impl Client {
    /// Makes a secret. With a key it is safe to repeat.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn secret_create(
        &self,
        secret: &SecretCreate,
        key: Option<&str>,
    ) -> Result<SecretView, ClientError> {
        let call = self.call(Method::POST, routes::SECRETS.to_owned());
        let mut call = self.with_json(call, secret)?;
        if let Some(key) = key {
            let value = HeaderValue::from_str(key)
                .map_err(|_| self.protocol("use an Idempotency-Key that fits in a header"))?;
            call.headers
                .push((HeaderName::from_static(routes::IDEMPOTENCY_KEY), value));
        }
        self.json(call).await
    }

    /// Gives a secret a new value, as its next version.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn secret_rotate(
        &self,
        name: &str,
        value: &SecretRotate,
    ) -> Result<SecretView, ClientError> {
        self.post(routes::fill(routes::SECRET_VERSIONS, &[name]), value)
            .await
    }

    /// What is known of a secret.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn secret_get(&self, name: &str) -> Result<SecretView, ClientError> {
        self.get(routes::fill(routes::SECRET, &[name])).await
    }

    /// A page of secrets, by name.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn secret_list(&self, query: &SecretListQuery) -> Result<SecretList, ClientError> {
        let query = routes::query(&[
            ("limit", query.limit.map(|limit| limit.to_string())),
            ("after", query.after.clone()),
        ]);
        self.get(format!("{}{query}", routes::SECRETS)).await
    }

    /// Deletes a secret with all versions of its value.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn secret_delete(&self, name: &str) -> Result<SecretView, ClientError> {
        let path = routes::fill(routes::SECRET, &[name]);
        self.json(self.call(Method::DELETE, path)).await
    }

    /// What happened to a secret, and who used it, oldest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn secret_events(
        &self,
        name: &str,
        query: &EventListQuery,
    ) -> Result<EventList, ClientError> {
        let query = routes::query(&[
            ("after", query.after.map(|after| after.to_string())),
            ("limit", query.limit.map(|limit| limit.to_string())),
        ]);
        let path = routes::fill(routes::SECRET_EVENTS, &[name]) + &query;
        self.get(path).await
    }

    /// The secrets of a job of this node.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn node_job_secrets(
        &self,
        job_id: &str,
        ask: SecretsAsk,
    ) -> Result<SecretsGiven, ClientError> {
        self.say((routes::NODE_JOB_SECRETS, job_id), &ask).await
    }

    /// The secrets of a sandbox of this node.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn node_sandbox_secrets(
        &self,
        sandbox_id: &str,
        ask: SecretsAsk,
    ) -> Result<SecretsGiven, ClientError> {
        self.say((routes::NODE_SANDBOX_SECRETS, sandbox_id), &ask)
            .await
    }
}

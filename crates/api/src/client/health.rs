//! Whether the server is there and can work.

use http::{Method, StatusCode};

use super::{Client, ClientError};
use crate::health::{Health, Ready};
use crate::routes;

impl Client {
    /// Whether the process answers.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn health_get(&self) -> Result<Health, ClientError> {
        self.get(routes::HEALTHZ.to_owned()).await
    }

    /// Whether the process can do work; 503 is an answer too.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ready_get(&self) -> Result<Ready, ClientError> {
        let call = self.call(Method::GET, routes::READYZ.to_owned());
        self.json_or(call, StatusCode::SERVICE_UNAVAILABLE).await
    }
}

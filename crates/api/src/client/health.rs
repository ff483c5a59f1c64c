//! Whether the server is there.

use super::{Client, ClientError};
use crate::health::Health;
use crate::routes;

impl Client {
    /// Whether the process answers.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn health_get(&self) -> Result<Health, ClientError> {
        self.get(routes::HEALTHZ.to_owned()).await
    }
}

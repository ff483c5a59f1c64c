//! The way to the guest of a sandbox through the server.

use super::{Client, ClientError, Endpoint};
use crate::guest::{Guest, GuestError};
use crate::routes;

impl Client {
    /// A connection to the guest of a sandbox, for one request. A sandbox that sleeps and may be woken is
    /// woken by the request.
    ///
    /// # Errors
    /// [`ClientError`] when the server cannot be reached. What it says of the sandbox comes with the
    /// answer to the request.
    pub async fn sandbox_guest(&self, id: &str) -> Result<Guest, ClientError> {
        let io = self.dial().await?.into_inner();
        let prefix = routes::fill(routes::SANDBOX_GUEST, &[id]);
        let endpoint = self.endpoint();
        let token = match endpoint {
            Endpoint::Tcp { token, .. } => Some(token.text()),
            Endpoint::Unix(_) | Endpoint::Memory(_) => None,
        };
        let guest = Guest::by_door(io, prefix, endpoint.host(), token).await;
        guest.map_err(|error: GuestError| self.unreachable(error))
    }
}

//! The way to the guest of a sandbox, and to its ports, through the server.

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Method, StatusCode};
use hyper_util::rt::TokioIo;

use super::{AttachIo, Client, ClientError, Token};
use crate::guest::code::{self, Contexts};
use crate::guest::{self, Guest, GuestError};
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
        let token = endpoint.token().map(Token::text);
        let guest = Guest::by_door(io, prefix, endpoint.host(), token).await;
        guest.map_err(|error: GuestError| self.unreachable(error))
    }

    /// A connection to the contexts of a sandbox, for one request. A sandbox that sleeps and may be woken
    /// is woken.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sandbox_contexts(&self, id: &str) -> Result<Contexts, ClientError> {
        let io = self.sandbox_port(id, code::PORT).await?;
        let contexts = Contexts::over(io).await;
        contexts.map_err(|error| self.unreachable(error))
    }

    /// Bytes both ways to whoever listens at a port in a sandbox. A sandbox that sleeps and may be woken
    /// is woken.
    ///
    /// # Errors
    /// [`ClientError`]; `port_closed` when nobody listens there.
    pub async fn sandbox_port(&self, id: &str, port: u16) -> Result<AttachIo, ClientError> {
        let path = routes::fill(routes::SANDBOX_PORT, &[id, &port.to_string()]);
        self.upgrade(path, guest::TUNNEL).await
    }

    /// Asks for a connection that goes on with another protocol.
    pub(crate) async fn upgrade(
        &self,
        path: String,
        protocol: &'static str,
    ) -> Result<AttachIo, ClientError> {
        let mut call = self.call(Method::GET, path);
        call.headers
            .push((CONNECTION, HeaderValue::from_static("upgrade")));
        call.headers
            .push((UPGRADE, HeaderValue::from_static(protocol)));
        let deadline = call.deadline;
        let work = Box::pin(async {
            let answer = self.exchange(call).await?;
            if answer.response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return Err(self.protocol(format!("an answer that does not switch to {protocol}")));
            }
            let upgraded = hyper::upgrade::on(answer.response).await;
            upgraded.map_err(|error| self.unreachable(error))
        });
        Ok(TokioIo::new(self.within(deadline, work).await?))
    }
}

//! The protocol on two streams: a line is a message.

use rmcp::RoleServer;
use rmcp::model::{ClientRequest, GetMeta as _, JsonRpcMessage, ProtocolVersion};
use rmcp::service::{RxJsonRpcMessage, ServerInitializeError, TxJsonRpcMessage, serve_server};
use rmcp::transport::Transport;
use rmcp::transport::async_rw::AsyncRwTransport;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::tools::Tools;

/// The longest message: one with a file of 1 MiB in base64, and room. What is longer is passed over, and
/// never held.
pub const FRAME_MAX_BYTES: usize = 4 << 20;

/// Serves until the client closes its end, or `stop` is ready. Then what still runs is ended.
///
/// # Errors
/// When the client is gone before it has begun, which is no failure, nothing; when its streams break, what
/// the system says.
pub async fn stdio<R, W>(
    tools: Tools,
    read: R,
    write: W,
    stop: impl Future<Output = ()>,
) -> io::Result<()>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let streams = AsyncRwTransport::<RoleServer, R, W>::new_server(read, write);
    let client = Patient {
        inner: streams.with_max_line_length(FRAME_MAX_BYTES),
        has_begun: false,
    };
    let serving = async {
        match serve_server(tools.clone(), client).await {
            Ok(running) => running.waiting().await.map(drop).map_err(io::Error::other),
            Err(ServerInitializeError::ConnectionClosed(_)) => Ok(()),
            Err(error) => Err(io::Error::other(error)),
        }
    };
    let done = tokio::select! {
        done = Box::pin(serving) => done,
        () = stop => Ok(()),
    };
    tools.close().await;
    done
}

/// A client that may say anything before it has begun. The SDK ends at a notification in that place.
struct Patient<T> {
    inner: T,
    has_begun: bool,
}

impl<T: Transport<RoleServer>> Transport<RoleServer> for Patient<T> {
    type Error = T::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        self.inner.send(item)
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            let message = self.inner.receive().await?;
            if self.has_begun {
                return Some(message);
            }
            if let JsonRpcMessage::Request(request) = &message {
                self.has_begun = begins(&request.request);
                return Some(message);
            }
            tracing::debug!("passed over a message of a client that has not begun");
        }
    }

    fn close(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send {
        self.inner.close()
    }
}

/// Whether the SDK takes whatever follows this request.
fn begins(request: &ClientRequest) -> bool {
    if matches!(request, ClientRequest::InitializeRequest(_)) {
        return true;
    }
    let is_probe = matches!(
        request,
        ClientRequest::DiscoverRequest(_) | ClientRequest::PingRequest(_)
    );
    let meta = request.get_meta();
    let missing = meta.missing_required_keys(&ProtocolVersion::V_2026_07_28);
    let version = meta.protocol_version();
    let is_known =
        version.is_some_and(|version| ProtocolVersion::KNOWN_VERSIONS.contains(&version));
    !is_probe && missing.is_empty() && is_known
}

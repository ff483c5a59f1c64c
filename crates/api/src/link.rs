//! The link of a node: one connection that the node has dialled, on which the server opens streams.
//!
//! It begins as a request of the node with an upgrade. From then on it is HTTP/2 (RFC 9113) the other way
//! round: the server is the client, each stream to a guest is a request to the node, and its two bodies are
//! the bytes. So many streams share one connection, each with a window of its own, and nobody dials a node.
//!
//! A node has one link for each [`LinkClass`]. When a link breaks, both ends of all its streams end; what ran
//! at the node goes on, and whoever had a stream asks for it anew.

mod carry;

use std::time::Duration;

use bytes::Bytes;
use h2::{Ping, PingPong, client, server};
use http::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::attach::{BUFFER_BYTES, LinkOpen, LinkTarget};
use crate::routes;

/// The value of the `Upgrade` header.
pub const UPGRADE: &str = "cofferdam-link";
/// Streams on one link. More are refused by the node; each may cost a buffer at both ends.
pub const STREAMS_MAX: u32 = 256;
/// What one stream may send before its reader has taken it.
pub const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// What all streams may together: the sum of theirs, so that one whose reader sleeps holds up no other.
pub const LINK_WINDOW_BYTES: u32 = STREAMS_MAX * STREAM_WINDOW_BYTES;
/// What the head of a stream may take: ours have some hundred bytes, and what the library allows is 16 MiB.
const HEAD_BYTES_MAX: u32 = 16 * 1024;
/// How often each end asks whether the other is there.
pub const PING_EVERY: Duration = Duration::from_secs(15);
/// How long the answer may take. After that the link is dead, whatever TCP believes.
pub const PING_DEAD: Duration = Duration::from_secs(10);
/// How long the two ends may take to agree on HTTP/2, and a node to take a stream.
const OPEN_MAX: Duration = Duration::from_secs(10);
/// The path of a stream, and of none of our routes.
const TO_JOB: &str = "/stream/jobs/{id}/{attempt}";
const TO_SANDBOX: &str = "/stream/sandboxes/{id}";
const TO_CONNECTIONS: &str = "/stream/connections";
const TO_CONNECTIONS_OF: &str = "/stream/connections/{id}";

/// What a link is for: a stream of much data must not share a connection with one at which somebody types,
/// because what TCP has lost holds up all that came after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkClass {
    /// Sandboxes that live on.
    Interactive,
    /// Streams of jobs.
    Bulk,
}

impl LinkClass {
    /// Both.
    pub const ALL: [LinkClass; 2] = [LinkClass::Interactive, LinkClass::Bulk];

    /// As it is written in a query.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Bulk => "bulk",
        }
    }

    /// Reads what [`LinkClass::as_str`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text)
    }

    /// On which link a stream goes.
    #[must_use]
    pub const fn of(target: &LinkTarget) -> Self {
        match target {
            LinkTarget::Job { .. } => Self::Bulk,
            LinkTarget::Sandbox { .. } | LinkTarget::Connections { .. } => Self::Interactive,
        }
    }
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkEnd {
    /// Whoever opens or takes streams is gone: this end wanted it.
    #[error("it is not wanted any more")]
    Unwanted,
    /// The other end closed it.
    #[error("the other end closed it")]
    Closed,
    /// The other end did not answer in time.
    #[error("the other end did not answer within {PING_DEAD:?}")]
    Silent,
    /// The connection broke, or does not speak HTTP/2.
    #[error("it broke")]
    Broken(#[from] h2::Error),
}

/// The server's end: opens what comes from `opens`, until the connection breaks.
///
/// # Errors
/// Always one, for there is no other end: why it ended. All its streams have ended then.
pub async fn open_streams(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    opens: mpsc::Receiver<LinkOpen>,
) -> LinkEnd {
    open_streams_while_used(io, opens, None).await
}

/// The same, until nobody has had a stream on it for so long, if a time is given. Whoever wants one then finds that
/// nobody takes it.
///
/// # Errors
/// As of [`open_streams`].
pub async fn open_streams_while_used(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    mut opens: mpsc::Receiver<LinkOpen>,
    unused: Option<Duration>,
) -> LinkEnd {
    let mut builder = client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(LINK_WINDOW_BYTES)
        .initial_max_send_streams(STREAMS_MAX as usize)
        .max_send_buffer_size(BUFFER_BYTES)
        .max_header_list_size(HEAD_BYTES_MAX)
        .enable_push(false);
    let shaken = tokio::time::timeout(OPEN_MAX, builder.handshake::<_, Bytes>(io));
    let (sender, mut connection) = match shaken.await {
        Ok(Ok(shaken)) => shaken,
        Ok(Err(error)) => return error.into(),
        Err(_) => return LinkEnd::Silent,
    };
    let Some(pings) = connection.ping_pong() else {
        return LinkEnd::Closed;
    };
    let mut pinging = std::pin::pin!(ping(pings));
    let mut connection = std::pin::pin!(connection);
    // Dropped with this, and then their streams are reset.
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            ended = connection.as_mut() => return ended.err().map_or(LinkEnd::Closed, LinkEnd::from),
            end = pinging.as_mut() => return end,
            Some(_) = streams.join_next() => {}
            // What comes at this moment is still taken, and nothing after it.
            () = passed(unused), if streams.is_empty() && !opens.is_closed() => opens.close(),
            open = opens.recv(), if !(opens.is_closed() && opens.is_empty() && !streams.is_empty()) => match open {
                None => return LinkEnd::Unwanted,
                // How many the other end takes is its own choice. One more is dropped, which closes it.
                Some(_) if streams.len() >= STREAMS_MAX as usize => {}
                Some(open) => {
                    drop(streams.spawn(open_stream(sender.clone(), open)));
                }
            },
        }
    }
}

/// Opens one stream and carries it to its end. One that the node does not take is dropped, which closes it.
async fn open_stream(sender: client::SendRequest<Bytes>, open: LinkOpen) {
    let opening = async {
        let mut sender = sender.ready().await.ok()?;
        let (response, to_node) = sender.send_request(request_to(&open.target), false).ok()?;
        let response = response.await.ok()?;
        let taken = response.status() == StatusCode::OK;
        taken.then(|| (to_node, response.into_body()))
    };
    if let Ok(Some((to_node, from_node))) = tokio::time::timeout(OPEN_MAX, opening).await {
        carry::carry(open.io, to_node, from_node).await;
    }
}

/// The node's end: hands what the server opens to `takes`, until the connection breaks.
///
/// # Errors
/// Always one: why it ended.
pub async fn take_streams(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    takes: &mpsc::Sender<LinkOpen>,
) -> LinkEnd {
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(LINK_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX)
        .max_send_buffer_size(BUFFER_BYTES);
    let shaken = tokio::time::timeout(OPEN_MAX, builder.handshake::<_, Bytes>(io));
    let mut connection = match shaken.await {
        Ok(Ok(shaken)) => shaken,
        Ok(Err(error)) => return error.into(),
        Err(_) => return LinkEnd::Silent,
    };
    let Some(pings) = connection.ping_pong() else {
        return LinkEnd::Closed;
    };
    let mut pinging = std::pin::pin!(ping(pings));
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            end = pinging.as_mut() => return end,
            Some(_) = streams.join_next() => {}
            accepted = connection.accept() => match accepted {
                None => return LinkEnd::Closed,
                Some(Err(error)) => return error.into(),
                Some(Ok((request, answer))) => {
                    if takes.is_closed() {
                        return LinkEnd::Unwanted;
                    }
                    if let Some((ours, sender)) = take_stream(&request, answer, takes) {
                        drop(streams.spawn(carry::carry(ours, sender, request.into_body())));
                    }
                }
            },
        }
    }
}

/// When this time has passed; never without one.
async fn passed(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// Hands a stream over; `None` when it is refused.
fn take_stream<B>(
    request: &Request<B>,
    mut answer: server::SendResponse<Bytes>,
    takes: &mpsc::Sender<LinkOpen>,
) -> Option<(tokio::io::DuplexStream, h2::SendStream<Bytes>)> {
    let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
    let target = target_of(request.method(), request.uri().path());
    // A node whose queue is full does not even take streams; the other end hears of it at once.
    let taken = target.is_some_and(|target| {
        let open = LinkOpen { target, io: theirs };
        takes.try_send(open).is_ok()
    });
    let mut head = Response::new(());
    if !taken {
        *head.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let sender = answer.send_response(head, !taken).ok()?;
    taken.then_some((ours, sender))
}

/// Returns when the other end is silent for too long.
async fn ping(mut pings: PingPong) -> LinkEnd {
    loop {
        tokio::time::sleep(PING_EVERY).await;
        match tokio::time::timeout(PING_DEAD, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return error.into(),
            Err(_) => return LinkEnd::Silent,
        }
    }
}

fn request_to(target: &LinkTarget) -> Request<()> {
    let path = match target {
        LinkTarget::Job { id, attempt } => routes::fill(TO_JOB, &[id, &attempt.to_string()]),
        LinkTarget::Sandbox { id } => routes::fill(TO_SANDBOX, &[id]),
        LinkTarget::Connections { of: Some(id) } => routes::fill(TO_CONNECTIONS_OF, &[id]),
        LinkTarget::Connections { of: None } => TO_CONNECTIONS.to_owned(),
    };
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    // HTTP/2 wants a scheme and an authority beside the path; they mean nothing here.
    let uri = format!("http://node{path}").parse();
    *request.uri_mut() = uri.unwrap_or_default();
    request
}

/// Ids have only letters, digits and `_`, so there is nothing to decode.
fn target_of(method: &Method, path: &str) -> Option<LinkTarget> {
    if *method != Method::POST {
        return None;
    }
    let segments: Vec<&str> = path.strip_prefix("/stream/")?.split('/').collect();
    match segments.as_slice() {
        ["jobs", id, attempt] => Some(LinkTarget::Job {
            id: (*id).to_owned(),
            attempt: attempt.parse().ok()?,
        }),
        ["sandboxes", id] => Some(LinkTarget::Sandbox {
            id: (*id).to_owned(),
        }),
        ["connections"] => Some(LinkTarget::Connections { of: None }),
        ["connections", id] => Some(LinkTarget::Connections {
            of: Some((*id).to_owned()),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

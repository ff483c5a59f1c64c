//! One connection to a guest: HTTP/1.1 over a stream that its node carries.
//!
//! The guest is hostile. It may say nothing, or one byte a minute, or headers without end, or a length
//! that is not so, and it may close wherever it likes. So its heads are bounded, a line on which nothing
//! moves is cut, and nothing is held but what is just being passed on. What a guest gets wrong is the
//! end of its own connection and of nothing else.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::task::AbortOnDropHandle;

/// The buffer for what a guest sends; its head must fit. An envd's head is below 1 KiB, and a program
/// that sets cookies stays within what browsers take.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Headers of one answer.
const HEADERS_MAX: usize = 128;
/// How long a guest may take to connect to a port of its own sandbox.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// What a request to a guest carries.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A body without a byte.
#[must_use]
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// How patient a line is.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How long nothing may move, either way. Streams of envd send a sign of life every 50 to 90 s.
    pub silence: Duration,
    /// How long the head of an answer may take, whatever moves meanwhile: a file is answered when it is
    /// written, and a guest could send "go on" for ever.
    pub head: Duration,
}

impl Patience {
    /// As E2B's own proxy, ten minutes; and an hour, in which a GiB comes in at 300 KB/s.
    pub const USUAL: Self = Self {
        silence: Duration::from_secs(600),
        head: Duration::from_secs(3600),
    };
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The guest says that nobody listens at the port.
    #[error("connect to a port in the sandbox: {0}")]
    Closed(StatusCode),
    /// It said what is not HTTP, or too much, or nothing more.
    #[error("speak HTTP with the guest")]
    Http(#[from] hyper::Error),
    /// It took too long.
    #[error("wait for the guest")]
    Late,
}

/// A port in a sandbox, and who wants to speak to it.
#[derive(Debug, Clone, Default)]
pub struct ToPort {
    /// The port.
    pub port: u16,
    /// What a door says of whoever asks, to the guest alone: nobody at the port hears it.
    pub said: HeaderMap,
}

/// A connection to a guest, or through it to a port. It is cut when this is dropped.
#[derive(Debug)]
pub struct Line {
    sender: http1::SendRequest<Body>,
    _task: AbortOnDropHandle<()>,
    moved: Moved,
    patience: Patience,
}

impl Line {
    /// Speaks to the guest itself.
    ///
    /// # Errors
    /// [`Broken::Http`] when the connection cannot be used.
    pub async fn to_guest<S>(stream: S, patience: Patience) -> Result<Self, Broken>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let moved = Moved::default();
        let stream = Watched {
            stream,
            moved: moved.clone(),
        };
        Self::over(stream, moved, patience).await
    }

    /// Speaks to whoever listens at a port in the sandbox.
    ///
    /// # Errors
    /// [`Broken`]; `Closed` when nobody listens there.
    pub async fn to_port<S>(stream: S, to: ToPort, patience: Patience) -> Result<Self, Broken>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let tunnel = Self::tunnel(stream, to, patience).await?;
        Self::over(tunnel.io, tunnel.moved, patience).await
    }

    /// Bytes both ways to whoever listens at a port in the sandbox.
    ///
    /// # Errors
    /// [`Broken`]; `Closed` when nobody listens there.
    pub async fn tunnel<S>(stream: S, to: ToPort, patience: Patience) -> Result<Tunnel, Broken>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let guest = Self::to_guest(stream, patience).await?;
        let moved = guest.moved.clone();
        let connecting = tokio::time::timeout(CONNECT_DEADLINE, guest.connect(to));
        let through = connecting.await.map_err(|_| Broken::Late)??;
        Ok(Tunnel {
            io: TokioIo::new(through),
            moved,
            patience,
        })
    }

    async fn over<S>(stream: S, moved: Moved, patience: Patience) -> Result<Self, Broken>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .handshake(TokioIo::new(stream))
            .await?;
        let watch = moved.clone();
        let driving = async move {
            tokio::select! {
                // Its error is also that of the request.
                _ = connection.with_upgrades() => {}
                () = watch.silence(patience.silence) => {}
            }
        };
        Ok(Self {
            sender,
            _task: AbortOnDropHandle::new(tokio::spawn(driving)),
            moved,
            patience,
        })
    }

    async fn connect(mut self, to: ToPort) -> Result<hyper::upgrade::Upgraded, Broken> {
        let place = format!("127.0.0.1:{}", to.port);
        let mut request = Request::new(empty());
        *request.headers_mut() = to.said;
        *request.method_mut() = Method::CONNECT;
        // A number makes an authority, and a header.
        if let (Ok(uri), Ok(host)) = (place.parse(), HeaderValue::from_str(&place)) {
            *request.uri_mut() = uri;
            request.headers_mut().insert(HOST, host);
        }
        let response = self.sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(Broken::Closed(response.status()));
        }
        Ok(hyper::upgrade::on(response).await?)
    }

    /// Sends a request and waits for the head of its answer, whose body holds the line. `held` is let
    /// go with it.
    ///
    /// # Errors
    /// [`Broken`] when there is no head in time, or none that is HTTP.
    pub async fn send<H: Send + Unpin + 'static>(
        self,
        request: Request<Body>,
        held: H,
    ) -> Result<Answer<H>, Broken> {
        let sending = self.send_or_return(request, held).await;
        sending.map_err(|failed| failed.why)
    }

    /// The same on a line that has carried an answer before, and may have ended a moment ago.
    ///
    /// # Errors
    /// [`Failed`], with the request if nothing of it was sent.
    pub async fn send_or_return<H: Send + Unpin + 'static>(
        mut self,
        request: Request<Body>,
        held: H,
    ) -> Result<Answer<H>, Failed<H>> {
        let sending = self.sender.try_send_request(request);
        match tokio::time::timeout(self.patience.head, sending).await {
            Ok(Ok(response)) => Ok(Answer {
                response,
                line: self,
                held,
            }),
            Ok(Err(mut error)) => Err(Failed {
                unsent: error
                    .take_message()
                    .map(|request| Box::new((request, held))),
                why: error.into_error().into(),
            }),
            Err(_) => Err(Failed {
                unsent: None,
                why: Broken::Late,
            }),
        }
    }

    /// Whether it can carry a request now. While the body of an earlier one is still being sent it cannot, and
    /// another would wait behind it.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Whether the other end has closed it, as far as is known.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// A request that has no answer.
#[derive(Debug)]
pub struct Failed<H> {
    /// Why.
    pub why: Broken,
    /// The request and what was held with it, if nothing of it was sent.
    pub unsent: Option<Box<(Request<Body>, H)>>,
}

/// A connection to a port in a sandbox.
#[derive(Debug)]
pub struct Tunnel {
    io: TokioIo<hyper::upgrade::Upgraded>,
    moved: Moved,
    patience: Patience,
}

impl Tunnel {
    /// Speaks HTTP with whoever listens there, over what `wrap` makes of the connection, such as TLS.
    ///
    /// # Errors
    /// [`Broken`]; `Late` where `wrap` makes nothing of it.
    pub async fn wrapped<S, W>(
        self,
        wrap: impl FnOnce(TokioIo<hyper::upgrade::Upgraded>) -> W,
    ) -> Result<Line, Broken>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        W: Future<Output = Option<S>>,
    {
        let wrapping = tokio::time::timeout(CONNECT_DEADLINE, wrap(self.io));
        let stream = wrapping.await.ok().flatten().ok_or(Broken::Late)?;
        Line::over(stream, self.moved, self.patience).await
    }

    /// Carries bytes both ways, until both ends have closed, one has broken, or nothing moves any more.
    pub async fn carry(mut self, client: hyper::upgrade::OnUpgrade) {
        let carrying = async {
            let Ok(client) = client.await else { return };
            let mut client = TokioIo::new(client);
            // How it ended is known to both ends.
            drop(tokio::io::copy_bidirectional(&mut client, &mut self.io).await);
        };
        tokio::select! {
            () = carrying => {}
            () = self.moved.silence(self.patience.silence) => {}
        }
    }
}

/// An answer, and what must live as long as it does.
#[derive(Debug)]
pub struct Answer<H> {
    /// Its head, and its body while nobody reads it.
    pub response: Response<Incoming>,
    line: Line,
    held: H,
}

impl<H: Send + Unpin + 'static> Answer<H> {
    /// The answer for the client.
    #[must_use]
    pub fn into_response(self) -> Response<Rest<H>> {
        self.respond(None)
    }

    /// The same; `keep` gets the line, and what was held, when all of the answer has been read. It may not
    /// be ready for another request yet. An answer that is let go before cuts the line.
    #[must_use]
    pub fn into_response_and(
        self,
        keep: impl FnOnce(Line, H) + Send + 'static,
    ) -> Response<Rest<H>> {
        self.respond(Some(Keep(Box::new(keep))))
    }

    fn respond(self, keep: Option<Keep<H>>) -> Response<Rest<H>> {
        let line = Some((self.line, self.held));
        self.response.map(|body| Rest {
            body,
            is_over: false,
            line,
            keep,
        })
    }

    /// Carries bytes both ways after an upgrade, until either end closes or nothing moves any more.
    pub async fn carry(self, client: hyper::upgrade::OnUpgrade) {
        let patience = self.line.patience;
        let moved = self.line.moved.clone();
        let carrying = async {
            let Ok(guest) = hyper::upgrade::on(self.response).await else {
                return;
            };
            let Ok(client) = client.await else { return };
            let (mut client, mut guest) = (TokioIo::new(client), TokioIo::new(guest));
            // How it ended is known to both ends.
            drop(tokio::io::copy_bidirectional(&mut client, &mut guest).await);
        };
        tokio::select! {
            () = carrying => {}
            () = moved.silence(patience.silence) => {}
        }
        drop((self.line, self.held));
    }
}

/// What becomes of a line after its answer.
struct Keep<H>(Box<dyn FnOnce(Line, H) + Send>);

impl<H> std::fmt::Debug for Keep<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keep")
    }
}

/// The body of an answer, and what must live as long as it does.
#[derive(Debug)]
pub struct Rest<H> {
    body: Incoming,
    /// Its end was read.
    is_over: bool,
    line: Option<(Line, H)>,
    keep: Option<Keep<H>>,
}

impl<H> Drop for Rest<H> {
    fn drop(&mut self) {
        let is_over = self.is_over || self.body.is_end_stream();
        if let (true, Some((line, held)), Some(keep)) =
            (is_over, self.line.take(), self.keep.take())
        {
            keep.0(line, held);
        }
    }
}

impl<H: Unpin> hyper::body::Body for Rest<H> {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.is_over |= matches!(frame, Poll::Ready(None));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Counts what has moved on a line.
#[derive(Debug, Clone, Default)]
struct Moved(Arc<AtomicU64>);

impl Moved {
    fn more(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns when nothing has moved for so long, or for up to twice as long.
    async fn silence(&self, most: Duration) {
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            tokio::time::sleep(most).await;
            let now = self.0.load(Ordering::Relaxed);
            if now == seen {
                return;
            }
            seen = now;
        }
    }
}

/// A stream that says when something moves on it.
#[derive(Debug)]
struct Watched<S> {
    stream: S,
    moved: Moved,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.moved.more();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if matches!(written, Poll::Ready(Ok(count)) if count > 0) {
            self.moved.more();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;

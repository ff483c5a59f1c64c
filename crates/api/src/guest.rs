//! A client for the guest of a sandbox that lives on: processes, their streams, and files, in the words
//! of E2B's envd (Connect with JSON, and plain HTTP for contents) over any stream that leads there.
//!
//! The guest is hostile. Nothing that it sends is held beyond a named bound, every wait has an end, and
//! whatever is wrong is one [`GuestError`]; the texts that it says are cut and have no control
//! characters, because they end on terminals and in logs. A caller who keeps what a guest sends has to
//! bound that by itself.
//!
//! One [`Guest`] is one connection for one request, so that nothing which is wrong with one answer can
//! become part of the next. A connection costs a local socket, which is less than what it asks for.

pub mod code;
mod connect;
mod error;
mod files;
#[cfg(test)]
mod fuzz;
pub mod line;
mod process;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

pub use error::GuestError;
pub use files::{Contents, Entry, EntryKind};
pub use process::{
    Event, Events, INPUT_MAX_BYTES, ProcessEnd, ProcessInfo, Selector, Size, Start, StdinKind,
};

use line::{Body, Line, Patience, Rest};

/// Names, at our own door, the user of the sandbox as whom something is done; the door has taken the
/// header that names it to a guest for its own credential.
pub const USER: &str = "cofferdam-user";

/// Says to a guest who asks, for the record. A door sets it and lets nobody else.
pub const PRINCIPAL: &str = "cofferdam-principal";
/// Says to a guest which request it is, for the record. A door sets it and lets nobody else.
pub const REQUEST: &str = "cofferdam-request";
/// What the headers that only a door may set begin with.
pub const OF_THE_DOOR: &str = "cofferdam-";
/// The value of the `Upgrade` header for a tunnel to a port.
pub const TUNNEL: &str = "cofferdam-tunnel";

/// The largest whole answer that is read: a listing of 10,000 files with long names.
pub const ANSWER_MAX_BYTES: usize = 16 << 20;
/// The largest body of a refusal that is read; ours have a sentence.
const REFUSAL_MAX_BYTES: usize = 64 * 1024;
/// How long an answer may take as a whole, and the head of one that is a stream: a guest answers in
/// milliseconds, and a sandbox that is asleep may have to wake up first.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// One connection to a guest, for one request.
#[derive(Debug)]
pub struct Guest {
    line: Line,
    way: Way,
    user: Option<String>,
    more: HeaderMap,
}

/// How a request finds the guest.
#[derive(Debug, Clone)]
enum Way {
    /// The stream ends at the guest.
    Straight,
    /// The stream ends at our server, which passes on what is below this path.
    Door {
        prefix: String,
        host: String,
        token: Option<String>,
    },
}

impl Guest {
    /// Speaks to the guest at the other end of a stream.
    ///
    /// # Errors
    /// [`GuestError`] when the stream cannot be used.
    pub async fn over<S>(stream: S) -> Result<Self, GuestError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::by(stream, Way::Straight).await
    }

    /// Speaks to a guest through the server at the other end of a stream, which keeps it below `prefix`.
    pub(crate) async fn by_door<S>(
        stream: S,
        prefix: String,
        host: &str,
        token: Option<&str>,
    ) -> Result<Self, GuestError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (host, token) = (host.to_owned(), token.map(str::to_owned));
        Self::by(
            stream,
            Way::Door {
                prefix,
                host,
                token,
            },
        )
        .await
    }

    async fn by<S>(stream: S, way: Way) -> Result<Self, GuestError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Ok(Self {
            line: Line::to_guest(stream, Patience::USUAL).await?,
            way,
            user: None,
            more: HeaderMap::new(),
        })
    }

    /// Acts as this user of the sandbox, `user` or `root`; the sandbox's own default else.
    #[must_use]
    pub fn as_user(mut self, user: Option<&str>) -> Self {
        self.user = user.map(str::to_owned);
        self
    }

    /// One more header of the request.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.more.insert(name, value);
        self
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        kind: &'static str,
        body: Body,
    ) -> Result<Request<Body>, GuestError> {
        let (prefix, host) = match &self.way {
            Way::Straight => ("", "localhost"),
            Way::Door { prefix, host, .. } => (prefix.as_str(), host.as_str()),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{prefix}{path}"))
            .header(HOST, host)
            .header(CONTENT_TYPE, kind);
        match (&self.way, &self.user) {
            (Way::Straight, Some(user)) => {
                let named = BASE64_STANDARD.encode(format!("{user}:"));
                request = request.header(AUTHORIZATION, format!("Basic {named}"));
            }
            (Way::Door { .. }, Some(user)) => request = request.header(USER, user),
            (_, None) => {}
        }
        if let Way::Door {
            token: Some(token), ..
        } = &self.way
        {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(body);
        let mut request = request.map_err(|error| GuestError::Unsendable(error.to_string()))?;
        request.headers_mut().extend(self.more.clone());
        Ok(request)
    }

    /// Sends, and leaves the body of a good answer to be read.
    async fn send(self, request: Request<Body>) -> Result<http::Response<Rest<()>>, GuestError> {
        let by_door = matches!(self.way, Way::Door { .. });
        let answer = self.line.send(request, ()).await?.into_response();
        if answer.status() == StatusCode::OK {
            return Ok(answer);
        }
        let status = answer.status();
        let body = whole(answer.into_body(), REFUSAL_MAX_BYTES).await?;
        Err(GuestError::refused(status, &body, by_door))
    }

    /// Sends and reads the whole of a JSON answer, all of it within `deadline`.
    async fn json<T: DeserializeOwned>(
        self,
        request: Request<Body>,
        deadline: Duration,
    ) -> Result<T, GuestError> {
        let work = async {
            let answer = self.send(request).await?;
            let body = whole(answer.into_body(), ANSWER_MAX_BYTES).await?;
            serde_json::from_slice(&body)
                .map_err(|error| GuestError::Protocol(format!("a body that {error}")))
        };
        let done = tokio::time::timeout(deadline, Box::pin(work)).await;
        done.map_err(|_| GuestError::Late(deadline))?
    }

    /// Calls a method with one message each way.
    async fn call<T: DeserializeOwned>(
        self,
        method: &str,
        message: &Value,
        deadline: Duration,
    ) -> Result<T, GuestError> {
        let body = full(message.to_string());
        let request = self.request(Method::POST, method, "application/json", body)?;
        self.json(request, deadline).await
    }
}

/// A body of bytes that are there.
fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body of at most so many bytes. Who calls this keeps the time.
async fn whole(body: Rest<()>, most: usize) -> Result<Bytes, GuestError> {
    match Limited::new(body, most).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(GuestError::Protocol(format!(
            "a body of more than {most} bytes"
        ))),
        Err(_) => Err(GuestError::Closed),
    }
}

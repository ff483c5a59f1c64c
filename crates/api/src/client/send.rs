//! One request and its answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::body::{Download, RequestBody};
use super::endpoint::Stream;
use super::pool::Borrowed;
use super::tape::Begun;
use super::{ANSWER_MAX_BYTES, ApiFailure, CONNECT_DEADLINE, Client, ClientError};
use crate::error::ErrorBody;

const AGENT: &str = concat!("cofferdam/", env!("CARGO_PKG_VERSION"));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A request before it has a connection.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: RequestBody,
    pub(crate) deadline: Duration,
}

/// The head of an answer, its unread body, and the connection they came on.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    pub(crate) connection: Borrowed,
}

impl Client {
    pub(crate) fn call(&self, method: Method, path: String) -> Call {
        Call {
            method,
            path,
            headers: vec![(ACCEPT, JSON)],
            body: RequestBody::Empty,
            deadline: self.deadline,
        }
    }

    pub(crate) fn target(&self) -> String {
        self.inner.endpoint.to_string()
    }

    /// Sends, and reads the JSON answer.
    pub(crate) async fn json<T: DeserializeOwned>(&self, call: Call) -> Result<T, ClientError> {
        let (deadline, begun) = (call.deadline, self.begin(&call));
        let work = Box::pin(async {
            let answer = self.exchange(call).await?;
            self.read_json(answer).await
        });
        let read = self.within(deadline, work).await;
        self.end(begun, read.as_ref().map(|(_, bytes)| Some(*bytes)));
        read.map(|(value, _)| value)
    }

    fn begin(&self, call: &Call) -> Option<Begun> {
        self.tape.as_ref().map(|tape| tape.begin(call))
    }

    fn end(&self, begun: Option<Begun>, how: Result<Option<u64>, &ClientError>) {
        if let (Some(tape), Some(begun)) = (&self.tape, begun) {
            tape.end(begun, how);
        }
    }

    /// Sends, and leaves the body of a good answer to be read as a stream.
    pub(crate) async fn download(&self, call: Call) -> Result<Download, ClientError> {
        let (deadline, begun) = (call.deadline, self.begin(&call));
        let work = Box::pin(self.exchange(call));
        let answer = self.within(deadline, work).await;
        self.end(begun, answer.as_ref().map(|_| None));
        let answer = answer?;
        Ok(Download::new(
            answer.response.into_body(),
            answer.connection,
            self.target(),
        ))
    }

    /// Sends, and hands back the answer if its status says that all is well.
    pub(crate) async fn exchange(&self, call: Call) -> Result<Answer, ClientError> {
        let answer = self.send(call).await?;
        self.checked(answer).await
    }

    /// Turns an answer whose status says otherwise into the error it carries.
    async fn checked(&self, answer: Answer) -> Result<Answer, ClientError> {
        let status = answer.response.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(answer);
        }
        let after = answer.response.headers().get(http::header::RETRY_AFTER);
        let after = after.and_then(|text| text.to_str().ok()?.trim().parse::<u64>().ok());
        let (body, _): (ErrorBody, u64) = self.read_json(answer).await?;
        Err(ClientError::Api(Box::new(ApiFailure {
            http_status: status.as_u16(),
            body,
            retry_after_ms: after.map(|seconds| seconds.saturating_mul(1000)),
        })))
    }

    pub(crate) async fn within<T>(
        &self,
        deadline: Duration,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        match tokio::time::timeout(deadline, work).await {
            Ok(done) => done,
            Err(_) => Err(ClientError::Timeout {
                target: self.target(),
                within: deadline,
            }),
        }
    }

    /// Sends on an idle connection if there is one. When that had been closed by the server before
    /// the request left us, hyper gives the request back, and a new connection is tried.
    async fn send(&self, call: Call) -> Result<Answer, ClientError> {
        let mut request = self.request(call)?;
        while let Some(mut sender) = self.inner.pool.take() {
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(self.answer(response, sender)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(self.unreachable(error.into_error())),
                },
            }
        }
        let mut sender = self.connect().await?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| self.unreachable(e))?;
        Ok(self.answer(response, sender))
    }

    fn answer(&self, response: Response<Incoming>, sender: SendRequest<RequestBody>) -> Answer {
        let connection = Borrowed {
            sender,
            client: Arc::clone(&self.inner),
        };
        Answer {
            response,
            connection,
        }
    }

    async fn connect(&self) -> Result<SendRequest<RequestBody>, ClientError> {
        let io = self.dial().await?;
        let (sender, connection) = http1::handshake(io)
            .await
            .map_err(|error| self.unreachable(error))?;
        // The task ends with the connection, and the connection with its sender.
        // Whoever waits for an answer learns of an error; there is nobody else to tell.
        drop(tokio::spawn(async move {
            drop(connection.with_upgrades().await);
        }));
        Ok(sender)
    }

    /// A connection of its own, on which nothing was said yet.
    pub(crate) async fn dial(&self) -> Result<TokioIo<Box<dyn Stream>>, ClientError> {
        let dial = self.inner.endpoint.dial();
        match tokio::time::timeout(CONNECT_DEADLINE, dial).await {
            Ok(io) => io.map_err(|e| self.unreachable(e)),
            Err(_) => Err(ClientError::Timeout {
                target: self.target(),
                within: CONNECT_DEADLINE,
            }),
        }
    }

    fn request(&self, call: Call) -> Result<Request<RequestBody>, ClientError> {
        let mut request = Request::builder()
            .method(call.method)
            .uri(call.path)
            .header(HOST, self.inner.endpoint.host())
            .header(USER_AGENT, AGENT);
        if let Some(token) = self.inner.endpoint.token() {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.text()));
        }
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        request
            .body(call.body)
            .map_err(|error| self.protocol(format!("build a request: {error}")))
    }

    /// What was answered, and how many bytes that was.
    async fn read_json<T: DeserializeOwned>(
        &self,
        answer: Answer,
    ) -> Result<(T, u64), ClientError> {
        let status = answer.response.status();
        let bytes = self.read_all(answer).await?;
        serde_json::from_slice(&bytes)
            .map(|value| (value, bytes.len() as u64))
            .map_err(|error| self.protocol(format!("status {status} with a body that {error}")))
    }

    async fn read_all(&self, answer: Answer) -> Result<Bytes, ClientError> {
        let Answer {
            response,
            connection,
        } = answer;
        match Limited::new(response.into_body(), ANSWER_MAX_BYTES)
            .collect()
            .await
        {
            Ok(body) => {
                connection.give_back();
                Ok(body.to_bytes())
            }
            Err(error) if error.is::<LengthLimitError>() => {
                Err(self.protocol(format!("a body of more than {ANSWER_MAX_BYTES} bytes")))
            }
            Err(source) => Err(ClientError::Unreachable {
                target: self.target(),
                source,
            }),
        }
    }

    pub(crate) fn unreachable(
        &self,
        error: impl std::error::Error + Send + Sync + 'static,
    ) -> ClientError {
        ClientError::Unreachable {
            target: self.target(),
            source: Box::new(error),
        }
    }

    pub(crate) fn protocol(&self, why: impl Into<String>) -> ClientError {
        ClientError::Protocol {
            target: self.target(),
            why: why.into(),
        }
    }

    /// Adds a JSON body.
    pub(crate) fn with_json(
        &self,
        mut call: Call,
        body: &impl Serialize,
    ) -> Result<Call, ClientError> {
        let bytes = serde_json::to_vec(body)
            .map_err(|error| self.protocol(format!("write the request as JSON: {error}")))?;
        call.headers.push((CONTENT_TYPE, JSON));
        call.body = RequestBody::Full(Bytes::from(bytes));
        Ok(call)
    }

    /// Sends a JSON body and reads a JSON answer: the shape of most calls.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: String,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let call = self.with_json(self.call(Method::POST, path), body)?;
        self.json(call).await
    }

    /// Reads a JSON answer.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: String) -> Result<T, ClientError> {
        self.json(self.call(Method::GET, path)).await
    }
}

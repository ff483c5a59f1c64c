//! Why E2B's door says no, in the shape that its clients read.
//!
//! They retry 429, 502, 503 and 504 by themselves unless they are told not to, so every refusal says
//! whether the same request may succeed later. The texts of some are matched by the clients.

use api::Code;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

use super::aim::Target;
use crate::error::Error;
use crate::rates::Metered;
use crate::request::Denied;

/// Tells the client whether to send the request again by itself.
pub(crate) const SHOULD_RETRY: HeaderName = HeaderName::from_static("should-retry");

/// An answer that is an error.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    status: StatusCode,
    message: String,
    /// What else the body says.
    more: Vec<(&'static str, Value)>,
    /// For the log, never for the answer.
    internal: Option<String>,
    metered: Option<Metered>,
    /// Of the other doors, for the record.
    code: Option<Code>,
}

/// What the outermost layer writes to the log about an answer.
#[derive(Debug, Clone)]
pub(crate) struct Cause(pub(crate) String);

impl Refusal {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            more: Vec::new(),
            internal: None,
            metered: None,
            code: None,
        }
    }

    /// The request cannot be understood, or asks for what there is not.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// E2B has it and this server has not: said, rather than pretended.
    pub(crate) fn not_here(what: &str) -> Self {
        let message = format!("Cofferdam does not have this part of E2B: {what}");
        Self::new(StatusCode::NOT_IMPLEMENTED, message)
    }

    pub(crate) fn no_sandbox(id: &str) -> Self {
        let message = format!("sandbox \"{id}\" was not found");
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// The sandbox is not running. The clients look for "was not found".
    pub(crate) fn not_running(id: &str) -> Self {
        let message = "The sandbox was not found";
        Self::new(StatusCode::BAD_GATEWAY, message).with("sandboxId", id)
    }

    /// It runs, and its guest does not answer as one does.
    pub(crate) fn no_answer(id: &str) -> Self {
        let message = "The sandbox is running but does not answer";
        Self::new(StatusCode::BAD_GATEWAY, message).with("sandboxId", id)
    }

    /// Nobody listens there. The clients look for "port is not open".
    pub(crate) fn closed_port(target: &Target) -> Self {
        let message = "The sandbox is running but port is not open";
        Self::new(StatusCode::BAD_GATEWAY, message)
            .with("sandboxId", target.id.as_str())
            .with("port", target.port)
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// One more member of the body.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.more.push((name, value.into()));
        self
    }

    pub(crate) fn body(&self) -> Value {
        let mut body = Map::new();
        body.insert("code".to_owned(), json!(self.status.as_u16()));
        body.insert("message".to_owned(), json!(self.message));
        for (name, value) in &self.more {
            body.insert((*name).to_owned(), value.clone());
        }
        Value::Object(body)
    }

    /// Only where nothing was done, and where waiting helps.
    fn should_retry(&self) -> bool {
        matches!(
            self.status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        )
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status.as_u16(), self.message)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let status = StatusCode::from_u16(error.code().row().http_status);
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self {
            internal: error.internal_cause().map(str::to_owned),
            metered: error.taken(),
            code: Some(error.code()),
            ..Self::new(status, error.message_alone())
        }
    }
}

impl From<service::Error> for Refusal {
    fn from(error: service::Error) -> Self {
        Error::from(error).into()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = self.body().to_string();
        let mut response = Response::new(body.into());
        *response.status_mut() = self.status;
        let json = HeaderValue::from_static("application/json");
        let retry = if self.should_retry() { "true" } else { "false" };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, json);
        headers.insert(SHOULD_RETRY, HeaderValue::from_static(retry));
        if let Some(cause) = self.internal {
            response.extensions_mut().insert(Cause(cause));
        }
        if let Some(metered) = self.metered {
            response.extensions_mut().insert(metered);
        }
        let denied = self.code.and_then(|code| Denied::of(code, &self.message));
        if let Some(denied) = denied {
            response.extensions_mut().insert(denied);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(refusal: Refusal, body: &str, retry: &str) {
        assert_eq!(refusal.body().to_string(), body);
        assert_eq!(refusal.into_response().headers()[SHOULD_RETRY], retry);
    }

    #[test]
    fn bodies_are_those_that_the_clients_match() {
        let target = Target {
            id: "abc1".to_owned(),
            port: 8080,
        };
        check(
            Refusal::not_running("abc1"),
            r#"{"code":502,"message":"The sandbox was not found","sandboxId":"abc1"}"#,
            "false",
        );
        check(
            Refusal::closed_port(&target),
            r#"{"code":502,"message":"The sandbox is running but port is not open","port":8080,"sandboxId":"abc1"}"#,
            "false",
        );
        check(
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, "later"),
            r#"{"code":429,"message":"later"}"#,
            "true",
        );
    }
}

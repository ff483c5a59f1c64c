//! The one place where an error becomes an answer.
//!
//! Handlers return [`Error`]; the outermost layer ([`crate::request`]) adds the request's id and
//! writes the body, so that no error leaves without one. Internal context is logged there and never
//! answered.

use api::error::ErrorDetail;
use api::{Code, ErrorBody};
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use model::spec::Invalid;
use service::KeyError;

use crate::rates::Metered;

/// Why a request is not answered with what it asked for.
#[derive(Debug, Clone)]
pub(crate) struct Error {
    code: Code,
    message: String,
    details: Vec<ErrorDetail>,
    /// For the log, never for the answer.
    internal: Option<String>,
    /// What it has taken of a rate that it went beyond.
    metered: Option<Metered>,
}

impl Error {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: Vec::new(),
            internal: None,
            metered: None,
        }
    }

    /// The same, for a request for which there was nothing left.
    pub(crate) fn metered(self, metered: Metered) -> Self {
        Self {
            metered: Some(metered),
            ..self
        }
    }

    pub(crate) fn taken(&self) -> Option<Metered> {
        self.metered
    }

    /// One field that is wrong.
    pub(crate) fn field(code: Code, field: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let detail = ErrorDetail {
            field: field.to_owned(),
            code: code.as_str().to_owned(),
            message: message.clone(),
        };
        Self {
            details: vec![detail],
            ..Self::new(code, message)
        }
    }

    pub(crate) fn not_found() -> Self {
        Self::new(Code::NotFound, "there is no such thing")
    }

    /// A bug of ours: the cause goes to the log, the caller learns the request's id.
    pub(crate) fn internal(cause: impl std::fmt::Display) -> Self {
        let message = "the server met something that it believed impossible";
        Self {
            internal: Some(cause.to_string()),
            ..Self::new(Code::Internal, message)
        }
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// What the caller may know.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The same for who is not told the details: of several things that are wrong the first ones.
    pub(crate) fn message_alone(&self) -> String {
        const SAID: usize = 3;
        if self.details.len() < 2 || self.code == Code::ApprovalNeeded {
            return self.message.clone();
        }
        let details = self.details.iter().take(SAID);
        let said: Vec<String> = details
            .map(|one| format!("{}: {}", one.field, one.message))
            .collect();
        let more = match self.details.len().saturating_sub(SAID) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        format!("{}{more}", said.join("; "))
    }

    /// What only the log may know.
    pub(crate) fn internal_cause(&self) -> Option<&str> {
        self.internal.as_deref()
    }

    /// The body of the answer.
    pub(crate) fn into_body(self, request_id: &str) -> ErrorBody {
        let mut body = self.code.body(self.message, request_id);
        body.details = self.details;
        body
    }
}

impl From<service::Error> for Error {
    fn from(error: service::Error) -> Self {
        use service::Error as E;
        let code = match error {
            E::Invalid(invalid) => return Self::invalid(invalid),
            E::Internal { .. } => return Self::internal(error.cause()),
            E::NotFound => Code::NotFound,
            E::Forbidden(_) => Code::Forbidden,
            E::NotYourLease => Code::NotYourLease,
            E::LeaseToken => Code::LeaseTokenWrong,
            E::Conflict { code, .. } => Code::parse(code).unwrap_or(Code::Conflict),
            E::TooMuch { code, .. } => Code::parse(code).unwrap_or(Code::TooMuch),
            E::Stale => Code::StaleEpoch,
            E::TokenInvalid(_) => Code::TokenInvalid,
            E::IssuerAway => Code::Unavailable,
            E::DiskFull => Code::DiskFull,
            E::SecretKey(KeyError::Unusable(_)) => Code::SecretKeyUnusable,
            E::SecretKey(KeyError::Wrong { .. }) => Code::SecretKeyWrong,
            E::Unavailable(_) => Code::Unavailable,
        };
        let internal = (code == Code::Unavailable).then(|| error.cause());
        Self {
            internal,
            ..Self::new(code, error.to_string())
        }
    }
}

impl Error {
    /// All fields that are wrong. Where they are all wrong in one way that has a code of its own,
    /// that is the code of the answer.
    fn invalid(invalid: Vec<Invalid>) -> Self {
        let details: Vec<ErrorDetail> = invalid.into_iter().map(detail).collect();
        let mut codes = details.iter().map(|detail| detail.code.as_str());
        let first = codes.next().and_then(Code::parse);
        let shared = first.filter(|first| codes.all(|code| code == first.as_str()));
        let message = match details.as_slice() {
            [waits, why, ..] if shared == Some(Code::ApprovalNeeded) => {
                format!("a person has to say yes: {} ({})", waits.message, why.field)
            }
            [one] => format!("{}: {}", one.field, one.message),
            many => format!("{} fields are wrong", many.len()),
        };
        let code = shared.unwrap_or(Code::InvalidArgument);
        Self {
            details,
            ..Self::new(code, message)
        }
    }
}

fn detail(invalid: Invalid) -> ErrorDetail {
    ErrorDetail {
        field: invalid.field,
        code: invalid.code.to_owned(),
        message: invalid.message,
    }
}

impl IntoResponse for Error {
    /// Carries the error outwards; [`finish`] writes the body.
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.row().http_status);
        let mut response = status
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            .into_response();
        if let Some(metered) = self.metered {
            response.extensions_mut().insert(metered);
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// When a node is to come again that speaks another protocol, in seconds: somebody has to install something first.
const INCOMPATIBLE_AFTER_S: &str = "300";

/// Writes the body of an error answer, and logs what the answer must not say.
pub(crate) fn finish(mut response: Response, request_id: &str) -> Response {
    let Some(error) = response.extensions_mut().remove::<Error>() else {
        return response;
    };
    if let Some(cause) = &error.internal {
        tracing::error!(
            request.id = request_id,
            error = cause,
            "a request failed for a reason that is not the caller's"
        );
    }
    let code = error.code;
    let body = serde_json::to_vec(&error.into_body(request_id)).unwrap_or_default();
    let mut answer = Response::new(body.into());
    *answer.status_mut() = response.status();
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if code == Code::NodeIncompatible {
        headers.insert(RETRY_AFTER, HeaderValue::from_static(INCOMPATIBLE_AFTER_S));
    }
    if let Some(allow) = response.headers_mut().remove(ALLOW) {
        headers.insert(ALLOW, allow);
    }
    let challenge = match code == Code::TokenInvalid {
        // RFC 6750, section 3.1.
        true => "Bearer error=\"invalid_token\"",
        false => "Bearer",
    };
    if code == Code::Unauthenticated || code == Code::TokenInvalid {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    answer
}

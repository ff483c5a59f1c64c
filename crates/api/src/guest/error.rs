//! Why a guest did not do what it was asked for.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use super::line::Broken;
use crate::client::ApiFailure;
use crate::error::{Code, ErrorBody};

/// The longest text of a guest that is kept, in bytes: two long paths and a sentence.
const TEXT_MAX_BYTES: usize = 10 * 1024;

/// Why a guest did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The connection ended before the answer did: the sandbox fell, or nobody is there.
    #[error("hear the guest to the end: the connection closed")]
    Closed,
    /// It took longer than anything there takes.
    #[error("get an answer from the guest within {} s", .0.as_secs())]
    Late(Duration),
    /// What it said is not its protocol, or longer than anything that it has to say.
    #[error("understand the guest: {0}")]
    Protocol(String),
    /// The request has what cannot stand in one.
    #[error("put the request into words: {0}")]
    Unsendable(String),
    /// What was to be sent could not be read.
    #[error("read what was to be sent")]
    Source(#[source] std::io::Error),
    /// The guest says no, as to a file that is not there.
    #[error("{message}")]
    Refused {
        /// Connect's name of the reason, such as `not_found`.
        code: String,
        /// What it says, without control characters.
        message: String,
    },
    /// The server on the way says no.
    #[error("{}", .0.body.message)]
    Door(Box<ApiFailure>),
}

impl GuestError {
    /// Whether the guest says no for this reason, in Connect's words.
    #[must_use]
    pub fn is(&self, reason: &str) -> bool {
        matches!(self, Self::Refused { code, .. } if code == reason)
    }

    /// The same as an error body, for those who print one.
    #[must_use]
    pub fn body(&self) -> ErrorBody {
        match self {
            Self::Door(failure) => failure.body.clone(),
            Self::Refused { message, .. } => Code::GuestRefused.body(message, ""),
            Self::Unsendable(_) => Code::InvalidArgument.body(self.sentence(), ""),
            Self::Source(_) => Code::FileMissing.body(self.sentence(), ""),
            Self::Closed | Self::Late(_) | Self::Protocol(_) => {
                Code::GuestUnavailable.body(self.sentence(), "")
            }
        }
    }

    fn sentence(&self) -> String {
        let source = std::error::Error::source(self);
        let source = source.map_or_else(String::new, |source| format!(": {source}"));
        format!("failed to {self}{source}")
    }

    /// Reads the answer of one who says no: Connect's, plain HTTP's, or our own door's.
    pub(super) fn refused(status: StatusCode, body: &[u8], by_door: bool) -> Self {
        if by_door && let Ok(body) = serde_json::from_slice::<ErrorBody>(body) {
            let http_status = status.as_u16();
            return Self::Door(Box::new(ApiFailure {
                http_status,
                body,
                retry_after_ms: None,
            }));
        }
        Self::said(serde_json::from_slice(body).unwrap_or_default(), status)
    }

    /// A refusal in the guest's words, with a status where it has no word.
    pub(super) fn said(refusal: Refusal, status: StatusCode) -> Self {
        let code = match refusal.code {
            Some(serde_json::Value::String(code)) => plain(&code),
            _ => by_status(status).to_owned(),
        };
        let message = match refusal.message {
            Some(message) if !message.is_empty() => plain(&message),
            _ => format!("the guest refuses with status {}", status.as_u16()),
        };
        Self::Refused { code, message }
    }
}

impl From<Broken> for GuestError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Late => Self::Late(super::line::Patience::USUAL.head),
            Broken::Closed(_) => Self::Closed,
            Broken::Http(error) if error.is_parse() => {
                Self::Protocol("an answer that is not HTTP".to_owned())
            }
            Broken::Http(error) => match body_error(&error) {
                Some(source) => Self::Source(source),
                None => Self::Closed,
            },
        }
    }
}

/// What our own side of a request ran into, if that is why it broke.
fn body_error(error: &hyper::Error) -> Option<std::io::Error> {
    if !error.is_user() {
        return None;
    }
    let mut source = std::error::Error::source(error);
    while let Some(found) = source {
        if let Some(io) = found.downcast_ref::<std::io::Error>() {
            return Some(std::io::Error::new(io.kind(), io.to_string()));
        }
        source = found.source();
    }
    None
}

/// What Connect and plain HTTP say of an error; a code is a word for the one, a number for the other.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Refusal {
    code: Option<serde_json::Value>,
    message: Option<String>,
}

impl Refusal {
    /// That of one who says it in plain text.
    pub(super) fn of_text(text: &str) -> Self {
        let message = Some(text.to_owned());
        Self {
            code: None,
            message,
        }
    }
}

/// Connect's name for what plain HTTP says by its status.
fn by_status(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "invalid_argument",
        StatusCode::UNAUTHORIZED => "unauthenticated",
        StatusCode::FORBIDDEN => "permission_denied",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::CONFLICT => "already_exists",
        StatusCode::TOO_MANY_REQUESTS | StatusCode::INSUFFICIENT_STORAGE => "resource_exhausted",
        StatusCode::NOT_IMPLEMENTED => "unimplemented",
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        StatusCode::GATEWAY_TIMEOUT => "deadline_exceeded",
        _ => "unknown",
    }
}

/// A text of a guest as it may stand on a terminal: short, and without what moves the cursor.
pub(super) fn plain(text: &str) -> String {
    let mut room = TEXT_MAX_BYTES;
    let fits = |c: &char| {
        let left = room.checked_sub(c.len_utf8());
        room = left.unwrap_or(0);
        left.is_some()
    };
    let shown = |c: char| if c.is_control() { '?' } else { c };
    text.chars().take_while(fits).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, body: &str, by_door: bool, code: &str, message: &str) {
        let status = StatusCode::from_u16(status).unwrap();
        let found = GuestError::refused(status, body.as_bytes(), by_door);
        let door = format!("door {}", found.body().code);
        let of = if let GuestError::Refused { code, .. } = &found {
            code
        } else {
            &door
        };
        assert_eq!((of.as_str(), found.to_string().as_str()), (code, message));
    }

    #[test]
    fn a_refusal_is_read_in_the_words_of_whoever_says_it() {
        let connect = r#"{"code":"not_found","message":"no such process"}"#;
        check(404, connect, false, "not_found", "no such process");
        let plain = r#"{"code":507,"message":"no space"}"#;
        check(507, plain, false, "resource_exhausted", "no space");
        let nothing = "the guest refuses with status 418";
        check(418, "<html>", true, "unknown", nothing);
        let ours = serde_json::to_string(&Code::SandboxGone.body("it is over", "req_1")).unwrap();
        check(410, &ours, true, "door sandbox_gone", "it is over");
        // A guest that speaks like our door is still only a guest.
        check(410, &ours, false, "sandbox_gone", "it is over");
    }

    #[test]
    fn what_a_guest_says_cannot_paint_a_terminal_or_fill_a_log() {
        let body = serde_json::json!({"code": "x", "message": "\u{1b}[31mred\n"}).to_string();
        check(400, &body, false, "x", "?[31mred?");
        assert_eq!(plain(&"é".repeat(TEXT_MAX_BYTES)).len(), TEXT_MAX_BYTES);
    }
}

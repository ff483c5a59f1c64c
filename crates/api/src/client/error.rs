//! Why a request has no answer that can be used.

use std::time::Duration;

use crate::error::{Code, ErrorBody};

/// Why a request has no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at the address, or the connection broke before the answer.
    #[error("reach {target}")]
    Unreachable {
        /// The address.
        target: String,
        /// What the system said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server did not answer in time. What was asked may have been carried out.
    #[error("get an answer from {target} within {} ms", within.as_millis())]
    Timeout {
        /// The address.
        target: String,
        /// The deadline.
        within: Duration,
    },
    /// The answer makes no sense, or is larger than any answer of ours.
    #[error("understand the answer of {target}: {why}")]
    Protocol {
        /// The address.
        target: String,
        /// What is wrong with it.
        why: String,
    },
    /// The server answered that it will not.
    #[error("{}", .0.body.message)]
    Api(Box<ApiFailure>),
}

/// An error answer of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiFailure {
    /// The HTTP status.
    pub http_status: u16,
    /// What it said.
    pub body: ErrorBody,
    /// When to come again, as it said in `Retry-After` (RFC 9110 section 10.2.3), where that was in seconds.
    pub retry_after_ms: Option<u64>,
}

impl ClientError {
    /// The stable code, as text, because a newer server may have codes that we do not know.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Unreachable { .. } => Code::ServerUnreachable.as_str(),
            Self::Timeout { .. } => Code::ServerTimeout.as_str(),
            Self::Protocol { .. } => Code::ProtocolMismatch.as_str(),
            Self::Api(failure) => &failure.body.code,
        }
    }

    /// The same as an error body, for those who print one.
    #[must_use]
    pub fn body(&self) -> ErrorBody {
        match self {
            Self::Api(failure) => failure.body.clone(),
            Self::Unreachable { .. } => Code::ServerUnreachable.body(self.sentence(), ""),
            Self::Timeout { .. } => Code::ServerTimeout.body(self.sentence(), ""),
            Self::Protocol { .. } => Code::ProtocolMismatch.body(self.sentence(), ""),
        }
    }

    /// Whether the server answered with this code.
    #[must_use]
    pub fn is(&self, code: Code) -> bool {
        self.code() == code.as_str()
    }

    /// Why nobody was reached, down to what the system or TLS said; of the others, what they say themselves.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            let said = error.to_string();
            // The number of the system's error says nothing more.
            let number = said.find(" (os error ").filter(|_| said.ends_with(')'));
            let said = said.get(..number.unwrap_or(said.len())).unwrap_or_default();
            // Some errors say the one below them too.
            if !text.ends_with(said) {
                text.push_str(": ");
                text.push_str(said);
            }
            next = error.source();
        }
        text
    }

    fn sentence(&self) -> String {
        format!("failed to {}", self.chain())
    }
}

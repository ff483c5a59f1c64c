//! What a person, or a program, is told when something could not be done.

use crate::cli::table;
use api::client::ClientError;
use api::{Code, ErrorBody};
use std::process::ExitCode;

/// The exit code of our own failures.
const OURS: u8 = 125;

/// A failure with a stable code, a message, and what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    body: Box<ErrorBody>,
}

impl Failure {
    /// One of the table.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure {
            body: Box::new(code.body(message.into(), "")),
        }
    }

    /// One that no table foresees.
    pub(crate) fn ours(error: &dyn std::error::Error) -> Failure {
        let sources = std::iter::successors(error.source(), |error| error.source());
        let sources = sources.map(|error| format!(": {error}"));
        let text: String = std::iter::once(error.to_string()).chain(sources).collect();
        Failure::new(Code::Internal, text)
    }

    /// Tells it, and gives the exit code.
    pub(crate) fn report(self, json: bool) -> ExitCode {
        let body = &self.body;
        if json {
            let text = serde_json::json!({ "error": body });
            table::print(&format!("{text}\n"));
        } else {
            table::complain(&format!("{} ({})", body.message, body.code));
            for detail in &body.details {
                table::note(&format!("{}: {}", detail.field, detail.message));
            }
            if !body.hint.is_empty() {
                table::hint(&body.hint);
            }
        }
        ExitCode::from(OURS)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        Failure {
            body: Box::new(error.body()),
        }
    }
}

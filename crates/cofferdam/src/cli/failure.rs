//! What a person, or a program, is told when something could not be done.

use crate::cli::{table, words};
use crate::signals::Signal;
use api::client::ClientError;
use api::{Code, ErrorBody};
use std::process::ExitCode;

/// The exit code of our own failures.
pub(crate) const OURS: u8 = 125;
/// What a shell says of a program that wrote to a pipe that nobody reads: 128 and SIGPIPE.
const NOBODY_READS: u8 = 141;

/// Why a command line was not carried out.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A stable code, a message, and what to do.
    Told(Box<ErrorBody>),
    /// Whoever read our output has gone away. There is nobody to tell, and nothing went wrong.
    NobodyReads,
    /// Somebody wants us to end now. He knows why.
    Signaled(Signal),
}

impl Failure {
    /// One of the table.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure::Told(Box::new(code.body(message.into(), "")))
    }

    /// The same with another hint than the table's, which must do for every place that has the code.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Failure {
        match self {
            Failure::Told(body) => Failure::Told(Box::new(ErrorBody {
                hint: hint.into(),
                ..*body
            })),
            other @ (Failure::NobodyReads | Failure::Signaled(_)) => other,
        }
    }

    /// One that no table foresees.
    pub(crate) fn ours(what: &str, error: &dyn std::error::Error) -> Failure {
        Failure::new(
            Code::Internal,
            format!("failed to {what}: {}", chain(error)),
        )
    }

    /// The state directory, or something in it, cannot be used.
    pub(crate) fn state(what: &str, error: &dyn std::error::Error) -> Failure {
        Failure::new(
            Code::StateUnusable,
            format!("failed to {what}: {}", chain(error)),
        )
    }

    /// Whether it has this code.
    pub(crate) fn is(&self, code: Code) -> bool {
        matches!(self, Failure::Told(body) if body.code == code.as_str())
    }

    /// Our own output could not be written.
    pub(crate) fn unwritten(error: &std::io::Error) -> Failure {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Failure::NobodyReads;
        }
        let message = format!("failed to write the output: {}", reason(error));
        let hint = "look at where it goes: its disk may be full";
        Failure::new(Code::FileUnwritable, message).hint(hint)
    }

    /// The body of what is told, if something is.
    pub(crate) fn body(&self) -> Option<&ErrorBody> {
        match self {
            Failure::Told(body) => Some(body),
            Failure::NobodyReads | Failure::Signaled(_) => None,
        }
    }

    /// The exit code.
    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Told(body) => {
                Code::parse(&body.code).map_or(OURS, |code| code.row().exit_code)
            }
            Failure::NobodyReads => NOBODY_READS,
            Failure::Signaled(signal) => signal.exit_code(),
        })
    }

    /// Tells it, and gives the exit code.
    pub(crate) fn report(self, json: bool) -> ExitCode {
        self.report_of(json, &[])
    }

    /// The same to whoever typed a command that has these options.
    pub(crate) fn report_of(self, json: bool, options: &[String]) -> ExitCode {
        let Failure::Told(body) = &self else {
            return self.code();
        };
        let object = serde_json::json!({ "error": body });
        // A program that cannot be told is told as a person is: it may have a log that is.
        if json && table::print(&format!("{object}\n")).is_ok() {
            return self.code();
        }
        let body = words::of_command_line(body, options);
        table::complain(&format!("{} ({})", body.message, body.code));
        for detail in &body.details {
            table::note(&format!("{} {}", detail.field, detail.message));
        }
        if !body.hint.is_empty() {
            table::hint(&body.hint);
        }
        self.code()
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Told(body) => write!(f, "{} ({}); {}", body.message, body.code, body.hint),
            Failure::NobodyReads => f.write_str("nobody reads the output"),
            Failure::Signaled(signal) => write!(f, "{signal:?}"),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        Failure::Told(Box::new(error.body()))
    }
}

/// What is told of an error: where the server does not know what was named, that, and what lists what there is.
pub(crate) fn missing(noun: &str, name: &str, hint: &str) -> impl Fn(ClientError) -> Failure {
    let (message, hint) = (format!("there is no {noun} `{name}`"), hint.to_owned());
    move |error| {
        if !error.is(Code::NotFound) {
            return error.into();
        }
        Failure::new(Code::NotFound, message.clone()).hint(hint.clone())
    }
}

/// An error with everything below it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    let sources = sources.map(|error| format!(": {}", reason(error)));
    std::iter::once(reason(error)).chain(sources).collect()
}

/// An error without the number that the system knows it by.
pub(crate) fn reason(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    let number = text.find(" (os error ").filter(|_| text.ends_with(')'));
    text.get(..number.unwrap_or(text.len()))
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn a_reader_that_has_gone_away_is_no_error_and_a_full_disk_is() {
        let gone = Failure::unwritten(&io::ErrorKind::BrokenPipe.into());
        assert!(matches!(gone, Failure::NobodyReads));
        let full = Failure::unwritten(&io::Error::from_raw_os_error(28));
        let text = full.to_string();
        assert!(
            text.contains("No space left on device (file_unwritable)"),
            "{text}"
        );
    }

    #[test]
    fn a_hint_of_the_place_replaces_that_of_the_table() {
        let failure = Failure::new(Code::FileMissing, "x").hint("look there");
        assert_eq!(
            failure.body().map(|body| body.hint.as_str()),
            Some("look there")
        );
    }
}

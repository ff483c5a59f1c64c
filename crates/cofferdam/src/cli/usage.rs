//! What is answered to a command line that cannot be read.

use crate::cli::failure::{Failure, OURS};
use crate::cli::table;
use api::Code;
use clap::error::ErrorKind;
use std::ffi::OsString;
use std::process::ExitCode;

/// The exit code of a wrong command line, as most programs have it.
const USAGE: u8 = 2;

/// Options that have a value in the next word, and may stand before the command.
const WITH_VALUE: [&str; 3] = ["--state", "--url", "--token"];

/// Prints what was asked for (help, version) or what is wrong, and gives the exit code. That of `run` is
/// always ours, because 2 may be the program's.
pub(crate) fn refuse(error: &clap::Error, words: &[OsString]) -> ExitCode {
    if !error.use_stderr() {
        return match error.print() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => Failure::unwritten(&error).report(false),
        };
    }
    let is_run = command_of(words) == Some("run");
    let before_dashes = words.iter().take_while(|word| *word != "--");
    if before_dashes.clone().any(|word| word == "--json") {
        let _ = in_json(error).report(true);
    } else {
        // There is no other place to say it.
        drop(error.print());
        let no_dashes = before_dashes.count() == words.len();
        let is_exec = words.iter().any(|word| word == "exec");
        if no_dashes && error.kind() == ErrorKind::UnknownArgument {
            if is_run {
                table::hint(
                    "the program and its arguments go after `--`, as in: cofferdam run -- ls -l",
                );
            } else if command_of(words) == Some("sandbox") && is_exec {
                table::hint(
                    "the program and its arguments go after `--`, as in: cofferdam sandbox exec ID -- ls -l",
                );
            }
        }
    }
    ExitCode::from(if is_run { OURS } else { USAGE })
}

fn in_json(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let message = first.strip_prefix("error: ").unwrap_or(first);
    let message: Vec<&str> = message.split_whitespace().collect();
    let failure = Failure::new(Code::InvalidArgument, message.join(" "));
    failure.hint("`--help` after the command says what each option takes")
}

/// The command that is named on a command line that could not be read.
fn command_of(words: &[OsString]) -> Option<&str> {
    let mut words = words
        .iter()
        .skip(1)
        .map(|word| word.to_str().unwrap_or_default());
    while let Some(word) = words.next() {
        if WITH_VALUE.contains(&word) {
            words.next();
        } else if !word.starts_with('-') {
            return Some(word);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_found_on_a_line_that_is_wrong() {
        let found = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            command_of(&words).map(str::to_owned)
        };
        assert_eq!(found("cofferdam run --nope").as_deref(), Some("run"));
        assert_eq!(
            found("cofferdam --state run job ls").as_deref(),
            Some("job")
        );
        assert_eq!(
            found("cofferdam --state=x --bad run").as_deref(),
            Some("run")
        );
        assert_eq!(found("cofferdam --bad"), None);
    }
}

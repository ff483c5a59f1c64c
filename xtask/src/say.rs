//! What a person sees. The one place of this crate that writes to the terminal.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "xtask is a tool for a person at a terminal; every print of it is here"
)]

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _, stdout};

/// A line of plain text.
pub(crate) fn line(text: impl Display) {
    println!("{text}");
}

/// A heading; bold where there is a terminal.
pub(crate) fn heading(text: &str) {
    if stdout().is_terminal() {
        println!("\n\x1b[1m{text}\x1b[0m");
    } else {
        println!("\n== {text}");
    }
    flush();
}

/// The command that comes next, in a form that can be copied.
pub(crate) fn command(text: &str) {
    println!("$ {text}");
    flush();
}

/// Text of several lines, set off from ours.
pub(crate) fn quote(text: &str) {
    for line in text.lines() {
        println!("   {line}");
    }
}

/// Why it went wrong.
pub(crate) fn error(text: &str) {
    eprintln!("error: {text}");
}

/// Children write to the same terminal: what we said first must be there first. A closed pipe
/// (`cargo xtask demo | head`) is not ours to report.
fn flush() {
    drop(stdout().flush());
}

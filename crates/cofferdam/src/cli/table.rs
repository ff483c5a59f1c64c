//! The one place that writes to the terminal: data to standard output, the rest to standard error,
//! colours and tables only where there is a terminal.

use crate::cli::failure::Failure;
use std::io::{IsTerminal as _, Write as _};

/// Writes data.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| Failure::unwritten(&error))
}

/// JSON for a person and a program.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Result<String, Failure> {
    json(serde_json::to_string_pretty(value))
}

/// JSON on one line.
pub(crate) fn to_line<T: serde::Serialize>(value: &T) -> Result<String, Failure> {
    json(serde_json::to_string(value))
}

fn json(text: serde_json::Result<String>) -> Result<String, Failure> {
    text.map(|text| text + "\n")
        .map_err(|error| Failure::ours("write JSON", &error))
}

/// Whether standard output is read by a person.
pub(crate) fn has_reader() -> bool {
    std::io::stdout().is_terminal()
}

fn say(style: anstyle::Style, word: &str, text: &str) {
    let text: String = text.chars().flat_map(harmless).collect();
    let mut err = anstream::stderr().lock();
    // There is no other place to say it.
    drop(writeln!(err, "{style}{word}{style:#} {text}"));
}

/// Says what went wrong.
pub(crate) fn complain(text: &str) {
    let red = anstyle::AnsiColor::Red.on_default().bold();
    say(red, "error:", text);
}

/// Says something beside the matter.
pub(crate) fn note(text: &str) {
    say(anstyle::Style::new().dimmed(), "note:", text);
}

/// Says what to do.
pub(crate) fn hint(text: &str) {
    say(anstyle::AnsiColor::Cyan.on_default(), "hint:", text);
}

/// Lays out rows: for a person in columns under their titles, for a program one row in a line, with
/// tabs between the fields.
pub(crate) fn layout(titles: &[&str], rows: Vec<Vec<String>>) -> String {
    if has_reader() {
        columns(titles, rows)
    } else {
        tabs(&rows)
    }
}

fn columns(titles: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    if titles.iter().any(|title| !title.is_empty()) {
        table.set_header(titles.iter().copied());
    }
    table.add_rows(rows);
    // Each column begins with a space, the first one too.
    let line = |line: &str| line.strip_prefix(' ').unwrap_or(line).trim_end().to_owned() + "\n";
    table.lines().map(|text| line(&text)).collect()
}

fn tabs(rows: &[Vec<String>]) -> String {
    rows.iter().map(|row| row.join("\t") + "\n").collect()
}

/// What could move the cursor of a terminal, or begin a new field, is shown and not sent.
pub(crate) fn printable(c: char) -> Vec<char> {
    if c.is_control() {
        c.escape_default().collect()
    } else {
        vec![c]
    }
}

/// The same for messages, which may have several lines.
fn harmless(c: char) -> Vec<char> {
    if c == '\n' { vec![c] } else { printable(c) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_gets_columns_and_a_program_gets_tabs() {
        let rows = || {
            vec![
                vec!["a".to_owned(), "long one".to_owned()],
                vec!["bcd".to_owned()],
            ]
        };
        assert_eq!(columns(&["X", "Y"], rows()), "X    Y\na    long one\nbcd\n");
        assert_eq!(columns(&["", ""], rows()), "a    long one\nbcd\n");
        assert_eq!(tabs(&rows()), "a\tlong one\nbcd\n");
    }

    #[test]
    fn nothing_that_is_said_moves_the_cursor() {
        let text: String = "a\u{1b}[2Jb\tc\nd".chars().flat_map(harmless).collect();
        assert_eq!(text, "a\\u{1b}[2Jb\\tc\nd");
    }
}

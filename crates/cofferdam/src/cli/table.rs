//! The one place that writes to the terminal: data to standard output, the rest to standard error,
//! colours only where there is a terminal.

use std::io::Write as _;

/// Writes data. A reader that has gone away has what it wanted.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

fn say(style: anstyle::Style, word: &str, text: &str) {
    let mut err = anstream::stderr().lock();
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

/// Lays out rows under their titles.
pub(crate) fn layout(titles: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(titles.iter().copied());
    table.add_rows(rows);
    let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
    lines.collect()
}

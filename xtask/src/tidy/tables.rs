//! Tables in documents are tables: without the line below its first row, a page shows bars and no columns. A blank line
//! in the middle of one does that to everything below it.

use super::{File, Finding, Tree};

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.with_ending(".md").flat_map(headless).collect()
}

/// First rows that no line of dashes follows; code is skipped.
fn headless(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut in_code, mut in_table) = (false, false);
    let mut lines = file.text.lines().enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        let is_row = !in_code && line.starts_with('|');
        let is_first = is_row && !in_table;
        in_table = is_row;
        let next = lines.peek().map_or("", |(_, next)| *next);
        if is_first && !next.starts_with("|---") {
            let what = "a table begins with a row and `|---`; is there a blank line in one?";
            findings.push(Finding::at(file, index + 1, what));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::testing::expect_clean;
    use super::*;

    fn lines_of(text: &str) -> Vec<String> {
        let file = File {
            path: "docs/page.md".to_owned(),
            text: text.to_owned(),
        };
        let places = headless(&file).into_iter().map(|finding| finding.place);
        places.collect()
    }

    #[test]
    fn tables_of_this_workspace_are_whole() {
        expect_clean(check);
    }

    #[test]
    fn a_table_that_a_blank_line_cuts_is_found() {
        let text = "| a | b |\n|---|---|\n| 1 | 2 |\n\n| 3 | 4 |\n";
        assert_eq!(lines_of(text), ["docs/page.md:5"]);
        assert_eq!(lines_of("| a |\n| b |"), ["docs/page.md:1"]);
    }

    #[test]
    fn whole_tables_and_code_are_left_alone() {
        let text = "| | |\n|---|---|\n| 1 | 2 |\n\n```\n| a |\n```\n\n| a |\n|---|\n";
        assert_eq!(lines_of(text), [""; 0]);
    }
}

//! Every promise names a test that is there. One that was renamed or removed takes its promise with it.

use super::{File, Finding, Tree};

const PAGE: &str = "docs/guarantees.md";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let Some(page) = tree.file(PAGE) else {
        return vec![Finding::new(PAGE, "is missing")];
    };
    let missing = promised(page).filter(|(_, test)| !is_there(tree, test));
    let what = |test| format!("there is no test `{test}`");
    missing
        .map(|(line, test)| Finding::at(page, line, what(test)))
        .collect()
}

/// The test in each row of the table, with its line: what is last in backquotes.
fn promised(page: &File) -> impl Iterator<Item = (usize, &str)> {
    let lines = page.text.lines().enumerate();
    let rows = lines.filter(|(_, line)| line.starts_with("| ") && !line.starts_with("| |"));
    rows.map(|(number, row)| {
        let test = row.rsplit('`').nth(1).unwrap_or_default();
        (number + 1, test)
    })
}

fn is_there(tree: &Tree, test: &str) -> bool {
    let head = format!("fn {test}(");
    let mut files = tree.with_ending(".rs");
    !test.is_empty() && files.any(|file| file.text.contains(&head))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::testing;

    #[test]
    fn a_promise_without_a_test_is_found() {
        let page = "| | promise | test |\n|---|---|---|\n| 1 | A. | `one` |\n| 2 | B `b`. | `two` |\n\
                    | 3 | C. | |\n";
        let files = [(PAGE, page), ("a.rs", "fn one() {}\nfn two_more() {}\n")];
        let places: Vec<String> = check(&testing::files(&files))
            .iter()
            .map(|finding| finding.place.clone())
            .collect();
        assert_eq!(places, ["docs/guarantees.md:4", "docs/guarantees.md:5"]);
    }

    #[test]
    fn every_promise_of_this_workspace_has_its_test() {
        testing::expect_clean(check);
    }
}

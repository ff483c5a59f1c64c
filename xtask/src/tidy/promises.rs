//! Every promise names tests that are there. One that was renamed or removed takes its promise with it.

use super::{File, Finding, Tree};

const PAGE: &str = "docs/guarantees.md";
/// The first row of the table of promises; other tables of the page promise nothing.
const HEAD: &str = "| | promise | test |";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let Some(page) = tree.file(PAGE) else {
        return vec![Finding::new(PAGE, "is missing")];
    };
    if promised(page).next().is_none() {
        return vec![Finding::new(
            PAGE,
            format!("has no promises below `{HEAD}`"),
        )];
    }
    let missing = promised(page).filter(|(_, test)| !is_there(tree, test));
    let what = |test| format!("there is no test `{test}`");
    missing
        .map(|(line, test)| Finding::at(page, line, what(test)))
        .collect()
}

/// The tests in each row of the table, with their line: what is in backquotes in the last column; nothing where there
/// is none.
fn promised(page: &File) -> impl Iterator<Item = (usize, &str)> {
    let lines = page.text.lines().enumerate();
    let table = lines.skip_while(|(_, line)| *line != HEAD);
    let table = table.take_while(|(_, line)| line.starts_with('|'));
    let rows = table.filter(|(_, line)| line.starts_with("| ") && *line != HEAD);
    rows.flat_map(|(number, row)| {
        let last = row.rsplit('|').nth(1).unwrap_or_default();
        let mut tests: Vec<&str> = last.split('`').skip(1).step_by(2).collect();
        if tests.is_empty() {
            tests.push("");
        }
        tests.into_iter().map(move |test| (number + 1, test))
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
                    | 3 | C. | |\n| 4 | D. | `gone`, `one` |\n\n| x | y |\n|---|---|\n| a | `b` |\n";
        let files = [(PAGE, page), ("a.rs", "fn one() {}\nfn two_more() {}\n")];
        let places: Vec<String> = check(&testing::files(&files))
            .iter()
            .map(|finding| finding.place.clone())
            .collect();
        assert_eq!(
            places,
            [
                "docs/guarantees.md:4",
                "docs/guarantees.md:5",
                "docs/guarantees.md:6"
            ]
        );
    }

    #[test]
    fn a_page_whose_table_is_not_found_promises_nothing() {
        let page = "| promise | test |\n|---|---|\n| A. | `one` |\n";
        assert_eq!(check(&testing::files(&[(PAGE, page)])).len(), 1);
    }

    #[test]
    fn every_promise_of_this_workspace_has_its_test() {
        testing::expect_clean(check);
    }
}

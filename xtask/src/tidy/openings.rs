//! Every room opens by saying what it is for and what it must never do.

use std::path::Path;

use super::{File, Finding, Tree};

/// Fewer lines than this cannot say what enters, what leaves and what is forbidden.
const LINES: usize = 8;

/// The sentence that a reviewer holds a change against.
const PROMISE: &str = "must never";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (package, dir) in tree.ours() {
        match root_file(tree, dir) {
            Some(file) => findings.extend(opening(file)),
            None => findings.push(Finding::new(
                &package.name,
                "has neither lib.rs nor main.rs",
            )),
        }
    }
    findings
}

/// The library where there is one: it is what other rooms see.
fn root_file<'a>(tree: &'a Tree, dir: &Path) -> Option<&'a File> {
    ["lib.rs", "main.rs"]
        .iter()
        .find_map(|name| tree.file(&format!("{}/src/{name}", dir.display())))
}

fn opening(file: &File) -> Option<Finding> {
    let lines: Vec<&str> = file
        .text
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .collect();
    if lines.len() < LINES {
        let what = format!(
            "opens with {} lines of `//!`; {LINES} are the least",
            lines.len()
        );
        return Some(Finding::at(file, 1, what));
    }
    // The sentence may be broken over two lines.
    let words: Vec<&str> = lines
        .iter()
        .flat_map(|line| line.split_whitespace())
        .collect();
    if !words.join(" ").to_lowercase().contains(PROMISE) {
        let what = format!("does not say what this room \"{PROMISE}\" does");
        return Some(Finding::at(file, 1, what));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::testing::{expect_clean, files, ours};
    use super::*;

    fn tree(name: &str, text: &str) -> Tree {
        Tree {
            packages: vec![ours("model", &[])],
            ..files(&[(name, text)])
        }
    }

    #[test]
    fn every_room_of_this_workspace_opens_with_its_promise() {
        expect_clean(check);
    }

    #[test]
    fn a_short_or_empty_opening_is_found() {
        let long = format!(
            "{}//! It must\n//! never block.\n",
            "//! Words.\n".repeat(6)
        );
        assert_eq!(check(&tree("crates/model/src/lib.rs", &long)), []);
        let short = "//! It must never block.\n";
        assert_eq!(check(&tree("crates/model/src/lib.rs", short)).len(), 1);
        let silent = "//! Words.\n".repeat(9);
        assert_eq!(check(&tree("crates/model/src/lib.rs", &silent)).len(), 1);
    }

    #[test]
    fn a_binary_opens_in_main_and_a_room_without_a_root_is_found() {
        let long = format!("{}//! It must never block.\n", "//! Words.\n".repeat(7));
        assert_eq!(check(&tree("crates/model/src/main.rs", &long)), []);
        assert_eq!(check(&tree("crates/model/src/other.rs", &long)).len(), 1);
    }
}

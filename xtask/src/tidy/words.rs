//! Words that mean "not done": unfinished code, ignored tests, silenced lints.

use super::{Finding, Tree};

/// Written in two halves, or this file would find itself.
const WORDS: &[(&str, &str)] = &[
    (concat!("TO", "DO"), "do it, or open an issue and link it"),
    (concat!("FIX", "ME"), "fix it, or open an issue and link it"),
    (concat!("XX", "X"), "say what is wrong, in a sentence"),
    (
        concat!("todo", "!"),
        "write it, or return an error that says so",
    ),
    (
        concat!("unimplemented", "!"),
        "write it, or return an error that says so",
    ),
    (
        concat!("#[", "ignore"),
        "a test that cannot run here prints `skipped: why` and returns",
    ),
    (
        concat!("#[", "allow("),
        "use `#[expect(..., reason = \"...\")]`, which complains when it is no longer needed",
    ),
    (
        concat!("#![", "allow("),
        "use `#![expect(..., reason = \"...\")]`, which complains when it is no longer needed",
    ),
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.with_ending(".rs") {
        for (index, line) in file.text.lines().enumerate() {
            for (word, instead) in WORDS {
                if has_word(line, word) {
                    let what = format!("`{word}`: {instead}");
                    findings.push(Finding::at(file, index + 1, what));
                }
            }
        }
    }
    findings
}

/// `word` at a place where it is not part of a longer one: `mkstemp` needs six of a letter.
fn has_word(line: &str, word: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        let starts = word.starts_with(char::is_alphabetic);
        let ends = word.ends_with(char::is_alphabetic);
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        !(starts && part(before.chars().next_back()) || ends && part(after.chars().next()))
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{expect_clean, files};
    use super::*;

    #[test]
    fn nothing_in_this_workspace_is_unfinished_ignored_or_silenced() {
        expect_clean(check);
    }

    #[test]
    fn each_word_is_found() {
        for (word, _) in WORDS {
            let text = format!("fn f() {{}}\n    {word} // here\n");
            let findings = check(&files(&[("a.rs", &text)]));
            assert_eq!(findings.len(), 1, "{word}");
            assert_eq!(findings[0].place, "a.rs:2");
        }
    }

    #[test]
    fn longer_words_and_documents_are_left_alone() {
        let template = concat!("let name = \"tmp.XX", "XXXX\"; let m_todo = 1;");
        assert_eq!(check(&files(&[("a.rs", template)])), []);
        assert_eq!(check(&files(&[("a.md", concat!("TO", "DO"))])), []);
    }

    #[test]
    fn an_ignored_test_with_a_reason_is_found_too() {
        let text = concat!("#[", "ignore = \"slow\"]");
        assert_eq!(check(&files(&[("a.rs", text)])).len(), 1);
    }
}

//! The second list of `docs/attacks.md`: every test whose comment begins with `Attack:` and says in one sentence what is
//! tried. The list is compared with the sources, in both directions.

use std::path::{Path, PathBuf};

/// Where tests are.
const ROOTS: [&str; 2] = ["crates", "e2e"];

/// The heading of the list.
const HEADING: &str = "## On the walls, the doors and the rules";

/// All sources below a directory, in order.
fn sources(dir: &Path, all: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(dir).expect("a directory").flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|end| end == "rs") {
            all.push(path);
        }
    }
}

/// The attacks of a source: the sentence, and the name of the test below it.
fn attacks(source: &str) -> Vec<(String, String)> {
    let mark = ["///", "Attack: "].join(" ");
    let mut all = Vec::new();
    let mut lines = source.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let Some(first) = line.strip_prefix(&mark) else {
            continue;
        };
        let mut sentence = first.to_owned();
        let mut is_whole = false;
        for line in lines.by_ref() {
            let name = line.trim_start_matches("pub(crate) ");
            let name = name.trim_start_matches("async ").strip_prefix("fn ");
            if let Some(name) = name {
                let name = name.split('(').next().unwrap_or_default();
                all.push((sentence, name.to_owned()));
                break;
            }
            match line.strip_prefix("/// ") {
                Some(more) if !is_whole => sentence = format!("{sentence} {more}"),
                _ => is_whole = true,
            }
        }
    }
    all
}

#[test]
fn the_second_list_of_attacks_is_the_tests_that_say_they_are_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the repository");
    let mut files = Vec::new();
    for dir in ROOTS {
        sources(&root.join(dir), &mut files);
    }
    let mut expected = Vec::new();
    for path in &files {
        let source = std::fs::read_to_string(path).expect("a source");
        let place = path
            .strip_prefix(root)
            .expect("below the repository")
            .display();
        for (sentence, name) in attacks(&source) {
            let number = expected.len() + 1;
            expected.push(format!(
                "| {number} | {sentence} | [`{name}`](../{place}) |"
            ));
        }
    }
    let page = std::fs::read_to_string(root.join("docs/attacks.md")).expect("the list");
    let (_, list) = page.split_once(HEADING).expect("the heading");
    let listed: Vec<&str> = list.lines().filter(|line| line.contains("](../")).collect();
    let listed: Vec<&str> = listed
        .into_iter()
        .filter(|line| line.starts_with("| "))
        .collect();
    assert!(expected.len() >= 60, "{} attacks", expected.len());
    let count = format!("{} attacks", expected.len());
    assert!(list.contains(&count), "there are {count}");
    assert_eq!(
        listed, expected,
        "docs/attacks.md is not the list of the tests that say `Attack:`"
    );
}

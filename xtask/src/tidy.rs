//! The rules of the house that the compiler does not know.
//!
//! Each check is a pure function from a [`Tree`] to its [`Finding`]s. It runs three ways: by
//! `cargo xtask tidy`, as a test over this workspace, and as tests over bad input that prove that
//! it can fail.

mod edges;
mod homes;
mod licences;
mod links;
mod names;
mod openings;
mod points;
mod promises;
mod sizes;
mod tables;
mod words;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::workspace::{self, Package, Workspace};
use crate::{say, suite};

/// One breach of a rule, in words that say what to do instead.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    place: String,
    what: String,
}

impl Finding {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            what: what.into(),
        }
    }

    fn at(file: &File, line: usize, what: impl Into<String>) -> Self {
        Self::new(format!("{}:{line}", file.path), what)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// A source file or a document.
#[derive(Debug, Clone, Default)]
struct File {
    /// From the root, with `/`.
    path: String,
    text: String,
}

/// Everything that the checks look at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    root: PathBuf,
    /// Rust and Markdown, sorted by path.
    files: Vec<File>,
    /// `Cargo.lock`, which names the crates of every platform.
    lock: String,
    /// The names of the crates that are compiled on this machine.
    built: Vec<String>,
    packages: Vec<Package>,
}

impl Tree {
    fn read(root: &Path) -> Result<Self> {
        Ok(Self {
            root: root.to_owned(),
            files: sources(root)?,
            lock: fs::read_to_string(root.join("Cargo.lock")).context("cannot read Cargo.lock")?,
            built: workspace::built(root)?,
            packages: workspace::packages(root)?,
        })
    }

    fn with_ending(&self, ending: &str) -> impl Iterator<Item = &File> {
        self.files
            .iter()
            .filter(move |file| file.path.ends_with(ending))
    }

    fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The packages of this workspace, with their directories.
    fn ours(&self) -> impl Iterator<Item = (&Package, &Path)> {
        self.packages
            .iter()
            .filter_map(|package| Some((package, package.dir.as_deref()?)))
    }
}

fn sources(root: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    collect(root, root, &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Whether a documentation comment has an example that rustdoc would run.
pub(crate) fn has_doc_tests(root: &Path) -> Result<bool> {
    let files = sources(root)?;
    Ok(files
        .iter()
        .any(|file| file.path.ends_with(".rs") && has_example(&file.text)))
}

fn has_example(text: &str) -> bool {
    let mut inside = false;
    text.lines()
        .map(str::trim_start)
        .filter_map(|line| {
            line.strip_prefix("///")
                .or_else(|| line.strip_prefix("//!"))
        })
        .filter_map(|line| line.trim_start().strip_prefix("```"))
        .any(|language| {
            inside = !inside;
            inside && matches!(language.trim(), "" | "rust" | "no_run" | "should_panic")
        })
}

/// Directories whose name starts with a dot, and what cargo builds, are not ours to judge.
fn collect(root: &Path, dir: &Path, files: &mut Vec<File>) -> Result<()> {
    let entries = fs::read_dir(dir)
        .with_context(|| format!("cannot read the directory {}", dir.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let kind = entry.file_type()?;
        let path = entry.path();
        if kind.is_dir() {
            if !name.as_encoded_bytes().starts_with(b".") && name != "target" {
                collect(root, &path, files)?;
            }
        } else if kind.is_file() && path.extension().is_some_and(|e| e == "rs" || e == "md") {
            files.push(File {
                path: path.strip_prefix(root)?.to_string_lossy().into_owned(),
                text: fs::read_to_string(&path)
                    .with_context(|| format!("cannot read {}", path.display()))?,
            });
        }
    }
    Ok(())
}

/// One rule.
struct Check {
    name: &'static str,
    run: fn(&Tree) -> Vec<Finding>,
}

const CHECKS: &[Check] = &[
    Check {
        name: "rooms import only what the table allows",
        run: edges::check,
    },
    Check {
        name: "outside crates stay in their homes",
        run: homes::check,
    },
    Check {
        name: "files and functions are short",
        run: sizes::check,
    },
    Check {
        name: "every room opens by saying what it must never do",
        run: openings::check,
    },
    Check {
        name: "nothing is unfinished, ignored or silenced",
        run: words::check,
    },
    Check {
        name: "links in documents lead somewhere",
        run: links::check,
    },
    Check {
        name: "tables in documents are whole",
        run: tables::check,
    },
    Check {
        name: "every promise has its test",
        run: promises::check,
    },
    Check {
        name: "every point of a crash is one at which a test kills",
        run: points::check,
    },
    Check {
        name: "licences allow a closed copy, and one TLS is enough",
        run: licences::check,
    },
    Check {
        name: "no crate or type is a drawer for everything",
        run: names::check,
    },
];

/// Runs every check and fails if one has findings.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let tree = Tree::read(&workspace.root)?;
    let mut count = 0;
    for check in CHECKS {
        let start = Instant::now();
        let findings = (check.run)(&tree);
        let verdict = if findings.is_empty() { "ok" } else { "FAILED" };
        let took = suite::seconds(start.elapsed());
        say::line(format_args!("{verdict:<6} {} ({took})", check.name));
        for finding in &findings {
            say::line(format_args!("       {finding}"));
        }
        count += findings.len();
    }
    if count > 0 {
        bail!("{count} findings");
    }
    Ok(())
}

#[cfg(test)]
mod testing {
    use super::*;
    use crate::workspace::Need;

    /// Fails with the findings of a check over this workspace.
    pub(super) fn expect_clean(check: fn(&Tree) -> Vec<Finding>) {
        let root = Workspace::find().unwrap().root;
        let findings = check(&Tree::read(&root).unwrap());
        assert!(findings.is_empty(), "{}", listed(&findings));
    }

    pub(super) fn listed(findings: &[Finding]) -> String {
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    /// A tree of files alone.
    pub(super) fn files(files: &[(&str, &str)]) -> Tree {
        Tree {
            files: files
                .iter()
                .map(|(path, text)| File {
                    path: (*path).to_owned(),
                    text: (*text).to_owned(),
                })
                .collect(),
            ..Tree::default()
        }
    }

    /// A package of ours that needs others.
    pub(super) fn ours(name: &str, needs: &[Need]) -> Package {
        Package {
            name: name.to_owned(),
            dir: Some(PathBuf::from("crates").join(name)),
            licence: Some("Apache-2.0".to_owned()),
            needs: needs.to_vec(),
        }
    }

    pub(super) fn need(name: &str, ours: bool) -> Need {
        Need {
            name: name.to_owned(),
            dev: false,
            ours,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_has_sources_and_documents_but_nothing_that_was_built() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/b.rs", "c.md", "target/d.rs", ".git/e.md", "f.txt"] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        let files = sources(dir.path()).unwrap();
        let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["a/b.rs", "c.md"]);
    }

    #[test]
    fn an_example_is_told_from_a_picture() {
        assert!(has_example("/// ```\n/// f();\n/// ```\nfn f() {}"));
        assert!(has_example("//! ```rust\n//! f();\n//! ```"));
        assert!(!has_example("//! ```text\n//! a -> b\n//! ```"));
        assert!(!has_example("let fence = \"```\";"));
    }
}

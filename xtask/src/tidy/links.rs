//! Links in documents lead somewhere. A broken one is a document that nobody has read since.

use std::path::{Component, Path, PathBuf};

use super::{File, Finding, Tree};

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.with_ending(".md")
        .flat_map(|file| broken(file, &|path| tree.root.join(path).exists()))
        .collect()
}

fn broken(file: &File, exists: &dyn Fn(&Path) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, target) in targets(&file.text) {
        if !is_relative(target) {
            continue;
        }
        let path = target.split(['#', '?']).next().unwrap_or_default();
        match resolve(&file.path, path) {
            None => {
                let what = format!("`{target}` leaves the repository");
                findings.push(Finding::at(file, line, what));
            }
            Some(resolved) if !exists(&resolved) => {
                let what = format!("`{target}` leads nowhere");
                findings.push(Finding::at(file, line, what));
            }
            Some(_) => {}
        }
    }
    findings
}

fn is_relative(target: &str) -> bool {
    let scheme = target.split_once(':').map_or("", |(scheme, _)| scheme);
    !target.starts_with('#') && (scheme.is_empty() || scheme.contains(['/', '.', '#']))
}

/// The path of a link from the root, or nothing when it climbs out.
fn resolve(from: &str, target: &str) -> Option<PathBuf> {
    let dir = Path::new(from).parent()?;
    let mut path = PathBuf::new();
    for part in dir.join(target).components() {
        match part {
            Component::ParentDir => {
                if !path.pop() {
                    return None;
                }
            }
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

/// The targets of `[text](target)` and `[name]: target`, with their lines; code is skipped.
fn targets(text: &str) -> Vec<(usize, &str)> {
    let mut targets = Vec::new();
    let mut in_code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            let on_this_line = inline(line).into_iter().chain(defined(line));
            targets.extend(on_this_line.map(|target| (index + 1, target)));
        }
    }
    targets
}

fn inline(line: &str) -> Vec<&str> {
    // Every second piece between backticks is code.
    let text = line.split('`').step_by(2);
    text.flat_map(|piece| piece.split("](").skip(1))
        .filter_map(|rest| rest.split([')', ' ']).next())
        .filter(|target| !target.is_empty())
        .collect()
}

fn defined(line: &str) -> Option<&str> {
    let (name, target) = line.strip_prefix('[')?.split_once("]:")?;
    let target = target.split_whitespace().next()?;
    (!name.contains('[')).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::super::testing::expect_clean;
    use super::*;

    fn broken_in(text: &str) -> Vec<String> {
        let file = File {
            path: "docs/page.md".to_owned(),
            text: text.to_owned(),
        };
        let there =
            |path: &Path| path == Path::new("docs/there.md") || path == Path::new("README.md");
        broken(&file, &there)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn links_of_this_workspace_lead_somewhere() {
        expect_clean(check);
    }

    #[test]
    fn a_link_to_nothing_is_found() {
        let text = "See [there](there.md) and\n[gone](gone.md#part) or [up](../README.md).";
        assert_eq!(
            broken_in(text),
            ["docs/page.md:2: `gone.md#part` leads nowhere"]
        );
        assert_eq!(broken_in("[name]: gone.md").len(), 1);
    }

    #[test]
    fn a_link_out_of_the_repository_is_found() {
        assert_eq!(broken_in("[out](../../secret.md)").len(), 1);
        assert_eq!(broken_in("[out](/etc/passwd)").len(), 1);
    }

    #[test]
    fn addresses_anchors_and_code_are_left_alone() {
        let text = "[a](https://example.com/x) [b](#part) [c](mailto:a@b.c) `[d](gone.md)`\n```\n[e](gone.md)\n```\n";
        assert_eq!(broken_in(text), [""; 0]);
    }
}

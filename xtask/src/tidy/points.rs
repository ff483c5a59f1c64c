//! Every point at which a process can be killed is one at which a test kills it. A point that no sweep names proves
//! nothing, and whoever reads the line in the source believes that it does.

use super::{File, Finding, Tree};
use std::collections::BTreeSet;

/// How a point is passed in the source.
const CALL: &str = ".at(";
/// What names the point at which a process is to die: a test that has it kills there.
const DIES: &str = "COFFERDAM_DIE_AT";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let rust = || tree.with_ending(".rs");
    let sweeps = rust().filter(|file| is_test(&file.path) && file.text.contains(DIES));
    let killed: BTreeSet<&str> = sweeps.flat_map(named).collect();
    let passed = rust().filter(|file| is_source(&file.path)).flat_map(points);
    let unkilled = passed.filter(|(_, _, point)| !killed.contains(point));
    let what = |point| {
        format!(
            "no test kills a process at `{point}`: add it to the points of a sweep in e2e/tests"
        )
    };
    unkilled
        .map(|(file, line, point)| Finding::at(file, line, what(point)))
        .collect()
}

fn is_source(path: &str) -> bool {
    let mut parts = path.split('/');
    parts.next() == Some("crates") && parts.nth(1) == Some("src")
}

fn is_test(path: &str) -> bool {
    path.starts_with("e2e/tests/")
}

/// The points of a source file, with their lines. A name is a literal, whether rustfmt has broken the line before it or
/// not; `.at(` of something else has none.
fn points(file: &File) -> impl Iterator<Item = (&File, usize, &str)> {
    let calls = file.text.match_indices(CALL);
    calls.filter_map(move |(at, call)| {
        let rest = file.text[at + call.len()..].trim_start();
        let (point, _) = rest.strip_prefix('"')?.split_once('"')?;
        let line = file.text[..at].matches('\n').count() + 1;
        Some((file, line, point))
    })
}

/// The literals of a test, each without the number of an occurrence. What is in a comment kills nobody.
fn named(file: &File) -> impl Iterator<Item = &str> {
    let lines = file.text.lines();
    let code = lines.filter(|line| !line.trim_start().starts_with("//"));
    let literals = code.flat_map(|line| line.split('"').skip(1).step_by(2));
    literals.filter_map(|literal| literal.split('#').next())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{expect_clean, files};
    use super::*;

    const SOURCE: &str = "fn f() {\n    self.at(\"a.done\");\n    node.at(\n        \"a.told\",\n    );\n    x.at(y);\n}\n";

    fn places(sweep: (&str, &str)) -> Vec<String> {
        let tree = files(&[("crates/a/src/b/c.rs", SOURCE), sweep]);
        check(&tree)
            .into_iter()
            .map(|finding| finding.place)
            .collect()
    }

    #[test]
    fn every_point_of_this_workspace_is_one_at_which_a_test_kills() {
        expect_clean(check);
    }

    #[test]
    fn a_point_that_no_sweep_names_is_found_also_on_a_line_of_its_own() {
        let dies = format!("env(\"{DIES}\", point);\n");
        let all = format!("{dies}let points = [\"a.done\", \"a.told#1\"];\n");
        assert_eq!(places(("e2e/tests/a.rs", &all)), [""; 0]);
        let one = format!("{dies}let points = [\"a.done#2\"];\n// \"a.told\"\n");
        assert_eq!(places(("e2e/tests/a.rs", &one)), ["crates/a/src/b/c.rs:3"]);
        let both = ["crates/a/src/b/c.rs:2", "crates/a/src/b/c.rs:3"];
        // What kills nobody may name what it likes, and so may what is no test of whole processes.
        assert_eq!(places(("e2e/tests/a.rs", "[\"a.done\", \"a.told\"]")), both);
        assert_eq!(places(("crates/a/tests/a.rs", &all)), both);
    }

    #[test]
    fn a_point_of_a_test_is_nobodys() {
        let tree = files(&[("crates/a/tests/b.rs", SOURCE), ("e2e/src/lib.rs", SOURCE)]);
        assert_eq!(check(&tree), []);
    }
}

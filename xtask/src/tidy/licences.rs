//! What we build on: its licences, and the crates that must not come in by a back door.

use super::{Finding, Tree};

/// Crates that are not to be in `Cargo.lock`, not even behind another one.
const REFUSED: &[(&str, &str)] = &[
    ("openssl", "the binary is to be self-contained; use rustls"),
    (
        "openssl-sys",
        "the binary is to be self-contained; use rustls",
    ),
    (
        "native-tls",
        "the binary is to be self-contained; use rustls",
    ),
];

/// Crates that are not to be built. Cargo writes those into `Cargo.lock`, too, of which a feature says
/// what is to be turned on in them if somebody else asks for them (`ring?/alloc` of rustls-webpki).
const UNBUILT: &[(&str, &str)] = &[(
    "ring",
    "one implementation of cryptography is enough to watch; use aws-lc-rs",
)];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, instead) in REFUSED {
        if tree
            .lock
            .lines()
            .any(|line| line == format!("name = \"{name}\""))
        {
            findings.push(Finding::new(
                "Cargo.lock",
                format!("has `{name}`: {instead}"),
            ));
        }
    }
    for (name, instead) in UNBUILT {
        if tree.built.iter().any(|built| built == name) {
            let what = format!("is built: {instead}");
            findings.push(Finding::new(*name, what));
        }
    }
    for package in &tree.packages {
        match &package.licence {
            None => findings.push(Finding::new(
                &package.name,
                "says nothing about its licence",
            )),
            Some(text) if !acceptable(text) => {
                let what = format!("its licence is `{text}`, which would become ours");
                findings.push(Finding::new(&package.name, what));
            }
            Some(_) => {}
        }
    }
    findings
}

/// Whether a licence expression (SPDX, or the old form with `/`) leaves a way without the GPL
/// family: of alternatives one must be free of it, of conjunctions all.
fn acceptable(expression: &str) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let (verdict, rest) = any_of(&words);
    // What cannot be read to its end is not accepted.
    verdict && rest.is_empty()
}

fn any_of<'a, 'b>(words: &'b [&'a str]) -> (bool, &'b [&'a str]) {
    let (mut verdict, mut rest) = all_of(words);
    while let Some((&"OR", after)) = rest.split_first() {
        let (next, left) = all_of(after);
        verdict |= next;
        rest = left;
    }
    (verdict, rest)
}

fn all_of<'a, 'b>(words: &'b [&'a str]) -> (bool, &'b [&'a str]) {
    let (mut verdict, mut rest) = one(words);
    while let Some((&"AND", after)) = rest.split_first() {
        let (next, left) = one(after);
        verdict &= next;
        rest = left;
    }
    (verdict, rest)
}

fn one<'a, 'b>(words: &'b [&'a str]) -> (bool, &'b [&'a str]) {
    match words.split_first() {
        Some((&"(", inner)) => {
            let (verdict, rest) = any_of(inner);
            match rest.split_first() {
                Some((&")", after)) => (verdict, after),
                _ => (false, &[]),
            }
        }
        Some((name, rest)) => match rest {
            // An exception widens a licence; it does not change its family.
            ["WITH", _, after @ ..] => (!name.contains("GPL"), after),
            _ => (!name.contains("GPL"), rest),
        },
        None => (false, words),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::expect_clean;
    use super::*;
    use crate::workspace::Package;

    fn findings_for(licence: Option<&str>) -> usize {
        let package = Package {
            name: "x".to_owned(),
            licence: licence.map(str::to_owned),
            ..Package::default()
        };
        check(&Tree {
            packages: vec![package],
            ..Tree::default()
        })
        .len()
    }

    #[test]
    fn everything_that_this_workspace_builds_on_is_free_to_use() {
        expect_clean(check);
    }

    #[test]
    fn copyleft_is_refused_unless_there_is_another_choice() {
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
            "MIT OR Apache-2.0 OR LGPL-2.1-or-later",
            "(MIT OR GPL-3.0) AND Unicode-3.0",
        ] {
            assert_eq!(findings_for(Some(good)), 0, "{good}");
        }
        for bad in [
            "GPL-3.0",
            "AGPL-3.0-only",
            "LGPL-2.1",
            "MIT AND LGPL-3.0",
            "GPL-2.0 WITH Classpath-exception-2.0",
            "(MIT OR Apache-2.0",
            "",
        ] {
            assert_eq!(findings_for(Some(bad)), 1, "{bad}");
        }
        assert_eq!(findings_for(None), 1);
    }

    #[test]
    fn a_refused_crate_is_found_in_the_lock_file() {
        for (name, _) in REFUSED {
            let tree = Tree {
                lock: format!("[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\n"),
                ..Tree::default()
            };
            assert_eq!(check(&tree).len(), 1, "{name}");
        }
        let tree = Tree {
            lock: "name = \"ring-buffer\"".to_owned(),
            ..Tree::default()
        };
        assert_eq!(check(&tree), []);
    }

    #[test]
    fn a_crate_that_is_only_in_the_lock_file_is_found_when_it_is_built() {
        for (name, _) in UNBUILT {
            let mut tree = Tree {
                lock: format!("name = \"{name}\"\n"),
                ..Tree::default()
            };
            assert_eq!(check(&tree), []);
            tree.built.push((*name).to_owned());
            assert_eq!(check(&tree).len(), 1, "{name}");
        }
    }
}

//! Which room may import which: the picture in `ARCHITECTURE.md` as a table.

use proc_macro2::{TokenStream, TokenTree};

use super::{File, Finding, Tree};

/// For each package, the packages of this workspace that it may need. An edge that is not here is
/// a decision about architecture: write it down first, then change the table.
const EDGES: &[(&str, &[&str])] = &[
    // Everybody may read these two; they read nobody.
    ("model", &[]),
    ("api", &[]),
    // What takes secrets out of streams runs on both sides of the wall, and must be the same there.
    ("scrub", &[]),
    // What carries bytes of the way out does too.
    ("relay", &[]),
    // An interpreter of somebody's modules, which runs as a process of its own and needs nothing of ours.
    ("rego", &[]),
    // The privileged launcher is read in an hour and links nothing of ours.
    ("jail", &[]),
    ("guest", &["scrub", "relay"]),
    ("store", &["model"]),
    // Not `api`: three doors must not leak into the logic.
    ("service", &["model", "store", "rego"]),
    // Not `store`: a door that reads the database forgets to ask who is there.
    ("server", &["service", "model", "api", "mcp"]),
    // A client like any other, so that a tool can do nothing that its caller could not do by REST.
    ("mcp", &["api"]),
    ("driver", &["model", "jail", "guest"]),
    // Not `driver`: it gets streams, and must not know what a sandbox is made of. What it adds to requests, it takes out
    // of answers.
    ("egress", &["model", "relay", "scrub"]),
    // Not `store`, not `service`: a node is another trust zone and knows only the protocol.
    ("node", &["driver", "egress", "scrub", "model", "api"]),
    // `main` puts the rooms together; its command line sees `api` alone, checked below.
    (
        "cofferdam",
        &[
            "server", "node", "api", "service", "store", "driver", "model", "mcp", "rego",
        ],
    ),
    // These drive the real binary, as a person does.
    ("xtask", &[]),
    ("e2e", &[]),
    ("bench", ANY),
];

/// For the package that measures the rooms one by one.
const ANY: &[&str] = &["*"];

/// The package that nobody may need, not even for tests: who wants it, starts it.
const MAIN: &str = "cofferdam";

/// The half of `main` that must work against a server on another machine.
const CLI: &str = "crates/cofferdam/src/cli";

/// The rooms that half must not know.
const NOT_IN_CLI: &[&str] = &["store", "service", "server", "node", "driver", "egress"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (package, _) in tree.ours() {
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == package.name) else {
            let what = "is not in the table of xtask/src/tidy/edges.rs";
            findings.push(Finding::new(&package.name, what));
            continue;
        };
        for need in package.needs.iter().filter(|need| need.ours) {
            if need.name == MAIN {
                let what = format!("needs `{MAIN}`; nobody may, start the binary instead");
                findings.push(Finding::new(&package.name, what));
            } else if !need.dev && *allowed != ANY && !allowed.contains(&need.name.as_str()) {
                let what = format!("may not need `{}`; it may need {allowed:?}", need.name);
                findings.push(Finding::new(&package.name, what));
            }
        }
    }
    for (name, _) in EDGES {
        if !tree.ours().any(|(package, _)| package.name == *name) {
            findings.push(Finding::new(*name, "is in the table and not in the tree"));
        }
    }
    findings.extend(cli_findings(tree));
    findings
}

fn cli_findings(tree: &Tree) -> Vec<Finding> {
    let in_cli = |file: &&File| {
        file.path
            .strip_prefix(CLI)
            .is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
    };
    let mut findings = Vec::new();
    for file in tree.with_ending(".rs").filter(in_cli) {
        match file.text.parse::<TokenStream>() {
            Ok(tokens) => paths_in(tokens, file, &mut findings),
            Err(error) => {
                findings.push(Finding::new(&file.path, format!("cannot be read: {error}")))
            }
        }
    }
    findings
}

/// Looks for paths that start at a forbidden room. Tokens rather than syntax, because the path
/// may be inside a macro; tokens rather than text, because a comment may say what it likes.
fn paths_in(tokens: TokenStream, file: &File, findings: &mut Vec<Finding>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let colon = |index: usize| matches!(tokens.get(index), Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
    for (index, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => paths_in(group.stream(), file, findings),
            TokenTree::Ident(ident) => {
                let name = ident.to_string();
                // `crate::cli::node` is a module of ours; `::node` and `node` are the room.
                let inner = index >= 3
                    && colon(index - 1)
                    && colon(index - 2)
                    && matches!(tokens.get(index - 3), Some(TokenTree::Ident(before)) if before != "use");
                let path = colon(index + 1) && colon(index + 2);
                if path && !inner && NOT_IN_CLI.contains(&name.as_str()) {
                    let what = format!("names the room `{name}`; the command line uses only `api`");
                    findings.push(Finding::at(file, ident.span().start().line, what));
                }
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{expect_clean, files, listed, need, ours};
    use super::*;
    use crate::workspace::{Need, Package};

    /// The whole table, with one package changed.
    fn tree_with(changed: Package) -> Tree {
        let mut packages: Vec<Package> = EDGES
            .iter()
            .filter(|(name, _)| *name != changed.name)
            .map(|(name, _)| ours(name, &[]))
            .collect();
        packages.push(changed);
        Tree {
            packages,
            ..Tree::default()
        }
    }

    #[test]
    fn this_workspace_has_only_the_edges_of_the_table() {
        expect_clean(check);
    }

    #[test]
    fn an_edge_that_is_not_in_the_table_is_found() {
        let tree = tree_with(ours("service", &[need("store", true), need("api", true)]));
        let findings = check(&tree);
        assert_eq!(findings.len(), 1, "{}", listed(&findings));
        assert!(findings[0].what.contains("may not need `api`"));
    }

    #[test]
    fn a_dependency_for_tests_is_no_edge_unless_it_is_main() {
        let dev = |name: &str| Need {
            dev: true,
            ..need(name, true)
        };
        assert!(check(&tree_with(ours("server", &[dev("store")]))).is_empty());
        assert_eq!(check(&tree_with(ours("e2e", &[dev("cofferdam")]))).len(), 1);
    }

    #[test]
    fn bench_may_need_every_room_but_main() {
        let both = [need("driver", true), need("cofferdam", true)];
        let findings = check(&tree_with(ours("bench", &both)));
        assert_eq!(findings.len(), 1, "{}", listed(&findings));
    }

    #[test]
    fn a_package_outside_the_table_is_found_and_so_is_a_row_without_package() {
        let mut tree = tree_with(ours("telemetry", &[]));
        assert_eq!(check(&tree).len(), 1);
        tree.packages.clear();
        assert_eq!(check(&tree).len(), EDGES.len());
    }

    #[test]
    fn the_command_line_may_not_name_a_room_behind_the_api() {
        for bad in [
            "use store::Store;",
            "use ::node::Agent;",
            "fn f() { driver::plan(); }",
            "fn f() { println!(\"{}\", service::NAME); }",
        ] {
            let tree = files(&[("crates/cofferdam/src/cli/job.rs", bad)]);
            assert_eq!(cli_findings(&tree).len(), 1, "{bad}");
        }
    }

    #[test]
    fn the_command_line_may_have_modules_of_those_names_and_talk_about_rooms() {
        for good in [
            "//! Asks store:: nothing.\nuse crate::cli::node::list;",
            "fn f() { api::node::hello(); let store = 1; }",
            "const TEXT: &str = \"store::\";",
        ] {
            let tree = files(&[("crates/cofferdam/src/cli/job.rs", good)]);
            assert_eq!(cli_findings(&tree), [], "{good}");
        }
        let elsewhere = files(&[("crates/cofferdam/src/up.rs", "use store::Store;")]);
        assert_eq!(cli_findings(&elsewhere), []);
    }
}

//! Where outside crates live. A crate with one home can be replaced in one place, and the rooms
//! that guard something stay small enough to be read.

use super::{Finding, Tree};

/// Outside crates and the only rooms that may need them.
const HOMES: &[(&str, &[&str])] = &[
    ("aho-corasick", &["scrub"]),
    ("anyhow", &["cofferdam", "xtask", "e2e", "bench"]),
    ("aws-lc-rs", &["service"]),
    ("axum", &["server"]),
    ("cargo_metadata", &["xtask"]),
    ("clap", &["cofferdam", "xtask", "bench"]),
    ("clap_complete", &["cofferdam"]),
    ("comfy-table", &["cofferdam"]),
    ("getrandom", &["service", "cofferdam", "mcp", "egress"]),
    (
        "hyper",
        &["api", "server", "driver", "guest", "egress", "cofferdam"],
    ),
    ("h2", &["api"]),
    (
        "hyper-util",
        &["api", "server", "driver", "guest", "egress", "cofferdam"],
    ),
    ("flate2", &["guest"]),
    ("indicatif", &["cofferdam"]),
    ("jiff", &["cofferdam", "server"]),
    ("landlock", &["guest", "driver"]),
    (
        "libc",
        &["jail", "guest", "driver", "cofferdam", "e2e", "bench"],
    ),
    ("postcard", &["jail", "guest"]),
    ("postgres", &["store"]),
    ("proc-macro2", &["xtask"]),
    ("prometheus-client", &["server"]),
    ("rcgen", &["cofferdam", "egress"]),
    ("regorus", &["rego"]),
    ("rmcp", &["mcp"]),
    ("rusqlite", &["store"]),
    ("rustls", &["server", "store", "cofferdam", "egress"]),
    ("schemars", &["mcp"]),
    ("smoltcp", &["egress", "guest"]),
    ("subtle", &["server"]),
    ("syn", &["xtask"]),
    ("syscalls", &["driver"]),
    ("tokio-postgres", &["store"]),
    // The rooms that must work without a runtime are not here. The guest has it without any feature
    // that starts a thread.
    (
        "tokio",
        &[
            "api",
            "store",
            "service",
            "server",
            "driver",
            "egress",
            "guest",
            "relay",
            "rego",
            "node",
            "mcp",
            "cofferdam",
            "bench",
        ],
    ),
    ("tokio-rustls", &["server", "store", "cofferdam", "egress"]),
    ("toml_edit", &["cofferdam"]),
    ("tracing-subscriber", &["cofferdam"]),
    ("utoipa", &["api", "server"]),
    ("utoipa-axum", &["server"]),
    ("uuid", &["model"]),
    (
        "zeroize",
        &["api", "service", "node", "egress", "scrub", "cofferdam"],
    ),
];

/// Rooms that may need these outside crates and no others.
const CLOSED: &[(&str, &[&str])] = &[
    // Pure: no I/O, no clock, no randomness to be had.
    ("model", &["serde", "thiserror", "uuid"]),
    // Privileged, and beside hostile code: every line of every dependency is ours to answer for.
    (
        "jail",
        &["libc", "postcard", "rustix", "serde", "thiserror"],
    ),
    // Both ends of what it carries may be hostile.
    ("relay", &["rustix", "tokio"]),
    (
        "guest",
        &[
            "base64",
            "bytes",
            "flate2",
            "http-body",
            "http-body-util",
            "hyper",
            "hyper-util",
            "landlock",
            "libc",
            "postcard",
            "rustix",
            "serde",
            "serde_json",
            "smoltcp",
            "tokio",
        ],
    ),
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (package, _) in tree.ours() {
        let closed = CLOSED.iter().find(|(name, _)| *name == package.name);
        for need in package.needs.iter().filter(|need| !need.ours && !need.dev) {
            let home = HOMES.iter().find(|(name, _)| *name == need.name);
            if let Some((_, rooms)) = home
                && !rooms.contains(&package.name.as_str())
            {
                let what = format!("needs `{}`, which lives only in {rooms:?}", need.name);
                findings.push(Finding::new(&package.name, what));
            }
            if let Some((_, list)) = closed
                && !list.contains(&need.name.as_str())
            {
                let what = format!(
                    "needs `{}`; this room's list is closed: {list:?}",
                    need.name
                );
                findings.push(Finding::new(&package.name, what));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::testing::{expect_clean, listed, need, ours};
    use super::*;
    use crate::workspace::Need;

    fn findings_for(room: &str, outside: Need) -> Vec<Finding> {
        check(&Tree {
            packages: vec![ours(room, &[outside])],
            ..Tree::default()
        })
    }

    #[test]
    fn outside_crates_of_this_workspace_are_in_their_homes() {
        expect_clean(check);
    }

    #[test]
    fn a_crate_outside_its_home_is_found() {
        assert_eq!(findings_for("server", need("axum", false)), []);
        let findings = findings_for("service", need("axum", false));
        assert_eq!(findings.len(), 1, "{}", listed(&findings));
        assert_eq!(findings_for("node", need("rusqlite", false)).len(), 1);
    }

    #[test]
    fn a_closed_room_takes_nothing_new() {
        assert_eq!(findings_for("model", need("serde", false)), []);
        assert_eq!(findings_for("model", need("rand", false)).len(), 1);
        assert_eq!(findings_for("jail", need("tracing", false)).len(), 1);
    }

    #[test]
    fn tests_may_use_what_they_like() {
        let for_tests = Need {
            dev: true,
            ..need("tokio", false)
        };
        assert_eq!(findings_for("model", for_tests), []);
    }
}

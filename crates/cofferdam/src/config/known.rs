//! Which keys a configuration may have, and what somebody may have meant who wrote another.

use toml_edit::{Table, TableLike};

/// The keys of each rate.
const RATE: &[&str] = &["per_second", "burst"];

/// The keys of each part.
pub(super) const KNOWN: &[(&str, &[&str])] = &[
    ("", &["mode", "rates", "server", "node", "issuers", "dev"]),
    ("dev", &["principal"]),
    (
        "rates",
        &[
            "off",
            "reads",
            "writes",
            "creates",
            "nodes",
            "strangers",
            "failures",
        ],
    ),
    ("rates.reads", RATE),
    ("rates.writes", RATE),
    ("rates.creates", RATE),
    ("rates.nodes", RATE),
    ("rates.strangers", RATE),
    ("rates.failures", RATE),
    (
        "server",
        &[
            "state",
            "database",
            "blobs",
            "name",
            "lease_seconds",
            "listen",
            "tls",
            "domain",
            "placement",
            "approvals",
            "nodes",
        ],
    ),
    (
        "server.approvals",
        &["webhook", "webhook_secret_file", "webhook_ca"],
    ),
    ("server.nodes", &["listen", "names", "address", "token"]),
    (
        "node",
        &[
            "state",
            "server",
            "token",
            "name",
            "kind",
            "labels",
            "tags",
            "slots",
            "sandboxes",
            "spares",
            "roots",
            "egress_allow",
            "egress_trust",
            "pip_index",
            "npm_registry",
            "driver",
        ],
    ),
    (
        "issuers",
        &[
            "name",
            "issuer",
            "audience",
            "algorithms",
            "jwks_url",
            "jwks_file",
            "secret_file",
            "ca",
            "tenant",
            "tenant_claim",
            "tenants",
            "principal_claim",
            "kind",
            "role",
            "roles_claim",
            "role_max",
            "scopes_claim",
            "scopes_required",
            "leeway_seconds",
            "life_max_seconds",
            "create",
            "roles",
            "login",
        ],
    ),
    ("issuers.login", &["client_id", "scopes", "token"]),
];

/// Refuses the first key that is not known, with its line and the nearest one that is.
pub(super) fn check(text: &str, table: &Table) -> Result<(), String> {
    in_part(text, "", table)
}

fn in_part(text: &str, part: &str, table: &dyn TableLike) -> Result<(), String> {
    let known = KNOWN.iter().find(|(name, _)| *name == part);
    let Some((_, keys)) = known else {
        return Ok(());
    };
    for (key, item) in table.iter() {
        if !keys.contains(&key) {
            let span = table.key(key).and_then(toml_edit::Key::span);
            return Err(unknown(text, part, key, keys, span.map(|span| span.start)));
        }
        let below = if part.is_empty() {
            key.to_owned()
        } else {
            format!("{part}.{key}")
        };
        if let Some(table) = item.as_table_like() {
            in_part(text, &below, table)?;
        }
        for table in item.as_array_of_tables().into_iter().flatten() {
            in_part(text, &below, table)?;
        }
    }
    Ok(())
}

fn unknown(text: &str, part: &str, key: &str, keys: &[&str], at: Option<usize>) -> String {
    let line = at.and_then(|at| line_of(text, at));
    let line = line
        .map(|line| format!("line {line}: "))
        .unwrap_or_default();
    let place = if part.is_empty() {
        "at the top".to_owned()
    } else {
        format!("in [{part}]")
    };
    let nearest = keys.iter().min_by_key(|known| distance(key, known));
    let meant = nearest
        .filter(|known| distance(key, known) <= known.len().div_ceil(2))
        .map(|known| format!("; did you mean `{known}`?"))
        .unwrap_or_else(|| format!("; known are {}", keys.join(", ")));
    format!("{line}there is no key `{key}` {place}{meant}")
}

/// What is wrong with the value of a key, or with what is missing in a part, with its line.
pub(super) fn at(text: &str, table: &Table, key: &str, why: &str) -> String {
    let mut part: &dyn TableLike = table;
    let mut found = None;
    for name in key.split('.') {
        found = part.key(name).and_then(toml_edit::Key::span).or(found);
        match part.get(name).and_then(toml_edit::Item::as_table_like) {
            Some(below) => part = below,
            None => break,
        }
    }
    let line = found.and_then(|span| line_of(text, span.start));
    let line = line
        .map(|line| format!("line {line}: "))
        .unwrap_or_default();
    format!("{line}`{key}`: {}", why.trim_end())
}

fn line_of(text: &str, at: usize) -> Option<usize> {
    let before = text.get(..at)?;
    Some(before.matches('\n').count() + 1)
}

/// How many letters have to be changed, put in or taken out (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (number, letter) in one.chars().enumerate() {
        let mut before = number;
        let mut left = number + 1;
        for (cell, theirs) in row.iter_mut().skip(1).zip(&other) {
            let changed = before + usize::from(letter != *theirs);
            before = *cell;
            left = changed.min(before + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = number + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nearest_takes_the_fewest_changes() {
        for (one, other, expect) in [
            ("", "", 0),
            ("abc", "", 3),
            ("", "abc", 3),
            ("lisen", "listen", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(one, other), expect, "{one} {other}");
        }
    }
}

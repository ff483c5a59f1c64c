//! What programs of a sandbox have to trust, put where they look for it.
//!
//! The guest writes all of it, by paths as the sandbox has them. The host opens nothing: an image may have a link
//! there, and where it leads is inside.

use crate::Node;
use crate::inspect::Looks;
use crate::job::Broken;
use api::guest::{EntryKind, Guest, GuestError};
use api::job::{Enforced, EnforcedState};
use driver::driver::Handle;
use std::io::Cursor;

/// The clause that says where it is.
const CLAUSE: &str = "trust";

/// Where programs of Debian's kind look that ask no variable, Alpine's and Arch's too; and programs in Go anywhere.
const FIRST: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Where those of other systems do: Fedora's kind, Alpine's and the BSDs', SUSE's. Only what is there is replaced: a
/// program may take the mere presence of one for the system that it is on.
const OTHERS: [&str; 3] = [
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

/// As whom it is written.
const ROOT: Option<&str> = Some("root");

/// What is said of a guest that gives no answer; its own words go no further than our log.
const NO_ANSWER: &str = "the guest did not take it; what was there may be cut";

/// Puts inside what programs have to trust: before anybody can start one, or before rules are in force that they
/// need it for. Where nobody may write the system's store, the variables lead to it alone; the clause says so.
///
/// # Errors
/// Not even the files that the variables name can be put inside.
pub(super) async fn put(
    node: &Node,
    handle: &Handle,
    looks: &Looks,
) -> Result<Option<Enforced>, Broken> {
    for (path, text) in &looks.files {
        let guest = guest(node, handle).await?;
        let written = write(guest, path, text).await;
        written.map_err(|error| {
            tracing::debug!(sandbox.id = %handle.id, path, %error, "a file cannot be put inside");
            Broken::Silent
        })?;
    }
    // The last has all that is to be trusted.
    match looks.files.last() {
        Some((_, all)) => Ok(Some(store(node, handle, all).await)),
        None => Ok(None),
    }
}

/// Puts it into the system's store, for programs that ask no variable, and says what became of that.
async fn store(node: &Node, handle: &Handle, all: &str) -> Enforced {
    let mut written = Vec::new();
    let mut failed = None;
    for path in [FIRST].into_iter().chain(OTHERS) {
        if path != FIRST && !is_there(node, handle, path).await {
            continue;
        }
        match replace(node, handle, path, all).await {
            Ok(()) => written.push(path),
            Err(why) => failed = failed.or(Some((path, why))),
        }
    }
    clause(&written, failed)
}

/// Whether there is a file; a link is what it leads to. What cannot be looked at is not there.
async fn is_there(node: &Node, handle: &Handle, path: &str) -> bool {
    let Ok(guest) = guest(node, handle).await else {
        return false;
    };
    let entry = guest.as_user(ROOT).stat(path).await;
    entry.is_ok_and(|entry| entry.kind == EntryKind::File)
}

async fn replace(node: &Node, handle: &Handle, path: &str, all: &str) -> Result<(), &'static str> {
    let guest = guest(node, handle).await.map_err(|_| NO_ANSWER)?;
    let written = write(guest.as_user(ROOT), path, all).await;
    written.map_err(|error| {
        tracing::debug!(sandbox.id = %handle.id, path, %error, "the system's store is left");
        why(&error)
    })
}

async fn guest(node: &Node, handle: &Handle) -> Result<Guest, Broken> {
    let stream = node.inner.driver.connect(handle).await?;
    Guest::over(stream).await.map_err(|_| Broken::Silent)
}

async fn write(guest: Guest, path: &str, text: &str) -> Result<(), GuestError> {
    let (bytes, size) = (text.as_bytes().to_vec(), text.len() as u64);
    guest.write(path, Cursor::new(bytes), Some(size)).await
}

/// Why a store was not written, in words of ours: what a guest says can be anything.
fn why(error: &GuestError) -> &'static str {
    let GuestError::Refused { code, .. } = error else {
        return NO_ANSWER;
    };
    match code.as_str() {
        "permission_denied" => "nobody inside may write it; `root`, `users`, `privileges` say why",
        "not_found" => "what is there leads nowhere",
        "invalid_argument" => "what is there is no file",
        "resource_exhausted" => "there is no room for it; what was there may be cut",
        _ => NO_ANSWER,
    }
}

/// Which stores have it, and why the first that has not was left.
fn clause(written: &[&str], failed: Option<(&str, &str)>) -> Enforced {
    let (how, state) = match failed {
        None => (
            "variables, the system's store".to_owned(),
            EnforcedState::Held,
        ),
        Some((path, why)) => (
            format!("variables; not in {path}: {why}"),
            EnforcedState::NotHeld,
        ),
    };
    Enforced {
        clause: CLAUSE.to_owned(),
        how,
        value: (!written.is_empty()).then(|| written.join(", ")),
        asked: false,
        state,
    }
}

/// Says it in the clauses of a sandbox, in the place of what was said before.
pub(super) fn say(enforcement: &mut Vec<Enforced>, clause: Enforced) {
    enforcement.retain(|one| one.clause != CLAUSE);
    enforcement.push(clause);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str) -> GuestError {
        GuestError::Refused {
            code: code.to_owned(),
            message: "canary".repeat(1000),
        }
    }

    #[test]
    fn a_store_that_was_not_written_is_named_with_a_reason_in_our_own_words() {
        for (code, expect) in [
            ("permission_denied", "nobody inside may write it"),
            ("not_found", "what is there leads nowhere"),
            ("invalid_argument", "what is there is no file"),
            (
                "resource_exhausted",
                "there is no room for it; what was there may be cut",
            ),
            ("canary", NO_ANSWER),
        ] {
            let said = clause(&[], Some((FIRST, why(&refused(code)))));
            assert_eq!(said.state, EnforcedState::NotHeld, "{code}");
            assert!(said.how.contains(FIRST), "{}", said.how);
            assert!(said.how.contains(expect), "{}", said.how);
            assert!(!said.how.contains("canary"), "{}", said.how);
            assert_eq!(said.value, None);
        }
        assert_eq!(why(&GuestError::Closed), NO_ANSWER);
    }

    #[test]
    fn one_store_that_was_left_is_said_also_where_another_was_written() {
        let written = clause(&[FIRST, OTHERS[1]], None);
        assert_eq!(written.state, EnforcedState::Held);
        let both = "/etc/ssl/certs/ca-certificates.crt, /etc/ssl/cert.pem";
        assert_eq!(written.value.as_deref(), Some(both));
        let left = clause(&[FIRST], Some((OTHERS[0], "there is no room for it")));
        assert_eq!(left.state, EnforcedState::NotHeld);
        assert_eq!(left.value.as_deref(), Some(FIRST));
        assert!(left.how.contains(OTHERS[0]), "{}", left.how);
    }

    #[test]
    fn the_clause_is_there_once_however_often_it_is_said() {
        let other = Enforced {
            clause: "network".to_owned(),
            ..clause(&[], None)
        };
        let mut all = vec![other.clone()];
        say(
            &mut all,
            clause(&[], Some((FIRST, "there is no room for it"))),
        );
        say(&mut all, clause(&[FIRST], None));
        assert_eq!(all, [other, clause(&[FIRST], None)]);
    }
}

//! The root file systems that the operator gives to the node: those of `--root NAME=DIR`, and those in the
//! directory `roots` of the state, each under its name.

use crate::cli::failure::Failure;
use crate::private::failed;
use crate::state::State;
use api::Code;
use driver::host::{Host, Root};
use driver::root::Unusable;
use model::limits::ROOTS_MAX;
use model::root::RootName;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// All of them, for a server. One that cannot be used is an error, and not left out.
pub(crate) fn all(state: &State, asked: &[String], host: &Host) -> Result<Vec<Root>, Failure> {
    let mut places: BTreeMap<RootName, PathBuf> = BTreeMap::new();
    for text in asked {
        let (name, dir) = text.split_once('=').ok_or_else(|| no_pair(text))?;
        let name = name.parse().map_err(|error| bad_name(name, &error))?;
        if places.contains_key(&name) {
            let message = format!("--root: there are two roots called `{name}`");
            return Err(Failure::new(Code::InvalidArgument, message));
        }
        places.insert(name, dir.into());
    }
    for (name, dir) in of_state(state)? {
        // What was said now counts.
        places.entry(name).or_insert(dir);
    }
    if places.len() > ROOTS_MAX {
        let message = format!(
            "{} root file systems are more than {ROOTS_MAX}",
            places.len()
        );
        return Err(Failure::new(Code::InvalidArgument, message));
    }
    let mut looked: BTreeMap<PathBuf, Root> = BTreeMap::new();
    let roots = places.into_iter().map(|(name, dir)| {
        // A directory that has several names is gone through once.
        let root = match looked.get(&dir) {
            Some(root) => under(root, name),
            None => look(name, &dir, host)?,
        };
        looked.entry(dir).or_insert_with(|| root.clone());
        Ok(root)
    });
    roots.collect()
}

/// The one that a command without a server names, if it is in the state.
pub(crate) fn one(state: &State, asked: Option<&str>, host: &Host) -> Result<Vec<Root>, Failure> {
    let Some(name) = asked.and_then(|text| text.parse::<RootName>().ok()) else {
        return Ok(Vec::new());
    };
    let found = of_state(state)?
        .into_iter()
        .find(|(there, _)| *there == name);
    let roots = found.into_iter().map(|(name, dir)| look(name, &dir, host));
    roots.collect()
}

fn under(root: &Root, name: RootName) -> Root {
    let mut root = root.clone();
    if let Some(given) = &mut root.given {
        given.name = name;
    }
    root
}

fn look(name: RootName, dir: &Path, host: &Host) -> Result<Root, Failure> {
    let called = name.clone();
    driver::root::given(name, dir, host.uid, &host.ids).map_err(|error| unusable(&called, &error))
}

/// Names of directories, and of links to some, in the state. Others may lie beside them under names that begin
/// with a dot.
fn of_state(state: &State) -> Result<Vec<(RootName, PathBuf)>, Failure> {
    let dir = state.roots();
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("read", &dir, &error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| failed("read", &dir, &error))?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with('.') {
            continue;
        }
        found.push((name.parse().map_err(|error| bad_name(&name, &error))?, path));
    }
    Ok(found)
}

fn no_pair(text: &str) -> Failure {
    let message = format!("--root takes NAME=DIR, not `{text}`");
    Failure::new(Code::InvalidArgument, message).hint("such as debian:bookworm=/srv/roots/bookworm")
}

fn bad_name(name: &str, error: &model::root::NotARootName) -> Failure {
    let message = format!("`{name}` cannot be the name of a root file system: {error}");
    Failure::new(Code::InvalidArgument, message).hint("such as `debian:bookworm` or `python-3.11`")
}

fn unusable(name: &RootName, error: &Unusable) -> Failure {
    let message = format!("the root file system `{name}` cannot be used: {error}");
    let hint = match error {
        Unusable::Owner { .. } | Unusable::Writable(_) => {
            "it and all directories above it must belong to root, or to you, and be closed to writers: \
             `chown root:root DIR; chmod go-w DIR`"
        }
        Unusable::Mounted(_) => "unmount it, or copy all into one file system",
        Unusable::Unread { .. } | Unusable::NotADirectory(_) => {
            "name a directory with an unpacked root file system that you can read"
        }
        Unusable::Host
        | Unusable::NoPrograms(_)
        | Unusable::Shape { .. }
        | Unusable::TooMuch(_) => Code::RootUnusable.row().hint,
    };
    Failure::new(Code::RootUnusable, message).hint(hint)
}

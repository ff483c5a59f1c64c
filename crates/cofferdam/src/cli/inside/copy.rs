//! `cofferdam sandbox cp`: files into a sandbox and out of it.

use super::Place;
use crate::cli::args::SandboxCp;
use crate::cli::failure::{Failure, reason};
use crate::cli::fetch::{Part, begin, umask};
use crate::cli::table;
use api::Code;
use api::client::Client;
use api::guest::{Entry, EntryKind};
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::io::AsyncWriteExt as _;

/// Files and directories of one copy. A guest that lists directories without end is not followed.
const ENTRIES_MAX: usize = 100_000;
/// How deep directories may lie in one another.
const DEPTH_MAX: usize = 64;

/// One end of a copy.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Here(PathBuf),
    Inside { id: String, path: String },
}

/// An id is followed by a colon; `./sbx_1:a` is a file here.
fn end(text: &str) -> End {
    match text.split_once(':') {
        Some((id, path)) if id.starts_with("sbx_") && !id.contains('/') => End::Inside {
            id: id.to_owned(),
            path: path.to_owned(),
        },
        _ => End::Here(PathBuf::from(text)),
    }
}

/// Copies what was asked.
pub(crate) async fn copy(client: &Client, args: SandboxCp) -> Result<ExitCode, Failure> {
    let mut left = ENTRIES_MAX;
    match (end(&args.from), end(&args.to)) {
        (End::Here(from), End::Inside { id, path }) => {
            let place = Place::new(client, &id, args.user)?;
            let to = into(&place, &from, path).await?;
            put(&place, &from, &to, args.recursive, &mut left).await?;
        }
        (End::Inside { id, path }, End::Here(to)) => {
            let place = Place::new(client, &id, args.user)?;
            let entry = place.guest().await?.stat(&path).await;
            let entry = entry.map_err(|error| place.failure(error))?;
            let to = if to.is_dir() {
                to.join(name(&entry.name)?)
            } else {
                to
            };
            get(&place, (&path, &entry), &to, args.recursive, &mut left).await?;
        }
        (End::Here(_), End::Here(_)) | (End::Inside { .. }, End::Inside { .. }) => {
            let message = "one side is a path here, and the other ID:PATH in a sandbox";
            let failure = Failure::new(Code::InvalidArgument, message);
            return Err(failure.hint("an id begins with `sbx_`: cp data.csv sbx_1:data.csv"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Where it goes in the sandbox: under its own name into a directory.
async fn into(place: &Place, from: &Path, to: String) -> Result<String, Failure> {
    let own = from.file_name().and_then(|name| name.to_str());
    let below = |own: Option<&str>| {
        let own = own.ok_or_else(|| unnamed(from))?;
        Ok(if to.is_empty() {
            own.to_owned()
        } else {
            format!("{}/{own}", to.trim_end_matches('/'))
        })
    };
    if to.is_empty() || to.ends_with('/') {
        return below(own);
    }
    match place.guest().await?.stat(&to).await {
        Ok(entry) if entry.kind == EntryKind::Directory => below(own),
        Ok(_) => Ok(to),
        Err(error) if error.is("not_found") => Ok(to),
        Err(error) => Err(place.failure(error)),
    }
}

fn unnamed(path: &Path) -> Failure {
    let message = format!("`{}` has no name that could be one inside", path.display());
    Failure::new(Code::InvalidArgument, message)
}

/// One more entry.
fn count(left: &mut usize, depth: usize) -> Result<(), Failure> {
    *left = left.saturating_sub(1);
    if *left == 0 || depth > DEPTH_MAX {
        let message =
            format!("more than {ENTRIES_MAX} entries, or {DEPTH_MAX} levels, in one copy");
        return Err(Failure::new(Code::TooMuch, message));
    }
    Ok(())
}

fn is_directory(path: impl std::fmt::Display) -> Failure {
    let failure = Failure::new(Code::InvalidArgument, format!("`{path}` is a directory"));
    failure.hint("-r copies a directory with all that is in it")
}

/// Puts a file, or a directory level by level.
async fn put(
    place: &Place,
    from: &Path,
    to: &str,
    recursive: bool,
    left: &mut usize,
) -> Result<(), Failure> {
    let unread = |path: &Path, error: io::Error| {
        let message = format!("failed to read `{}`: {}", path.display(), reason(&error));
        Failure::new(Code::FileMissing, message)
    };
    let mut waiting = vec![(from.to_owned(), to.to_owned(), 0)];
    while let Some((from, to, depth)) = waiting.pop() {
        count(left, depth)?;
        let metadata = std::fs::metadata(&from).map_err(|error| unread(&from, error))?;
        if metadata.is_file() {
            let file = File::open(&from).map_err(|error| unread(&from, error))?;
            let file = tokio::fs::File::from_std(file);
            let written = place
                .guest()
                .await?
                .write(&to, file, Some(metadata.len()))
                .await;
            written.map_err(|error| place.failure(error))?;
            continue;
        }
        if !metadata.is_dir() {
            let message = format!("`{}` is no regular file", from.display());
            return Err(Failure::new(Code::FileMissing, message));
        }
        if !recursive {
            return Err(is_directory(from.display()));
        }
        match place.guest().await?.make_directory(&to).await {
            Err(error) if !error.is("already_exists") => return Err(place.failure(error)),
            _ => {}
        }
        for entry in std::fs::read_dir(&from).map_err(|error| unread(&from, error))? {
            let entry = entry.map_err(|error| unread(&from, error))?;
            let kind = entry.file_type().map_err(|error| unread(&from, error))?;
            let path = entry.path();
            if !kind.is_file() && !kind.is_dir() {
                table::note(&format!("left out: `{}`", path.display()));
                continue;
            }
            let own = entry
                .file_name()
                .into_string()
                .map_err(|_| unnamed(&path))?;
            waiting.push((path, format!("{to}/{own}"), depth + 1));
        }
    }
    Ok(())
}

/// A name that a guest gives to something is a name below the place where it goes, and nothing else.
fn name(text: &str) -> Result<&str, Failure> {
    if text.is_empty() || text == "." || text == ".." || text.contains('/') {
        let message =
            format!("the sandbox has something named `{text}`, which no file here can be");
        return Err(Failure::new(Code::PathEscapes, message));
    }
    Ok(text)
}

/// Gets a file, or a directory level by level.
async fn get(
    place: &Place,
    (from, entry): (&str, &Entry),
    to: &Path,
    recursive: bool,
    left: &mut usize,
) -> Result<(), Failure> {
    let mut waiting = vec![(from.to_owned(), entry.clone(), to.to_owned(), 0)];
    while let Some((from, entry, to, depth)) = waiting.pop() {
        count(left, depth)?;
        match entry.kind {
            EntryKind::File => {
                get_file(place, &from, &to, entry.mode).await?;
                continue;
            }
            EntryKind::Directory if recursive => {}
            EntryKind::Directory => return Err(is_directory(&from)),
            EntryKind::Other => {
                let message = format!("`{from}` is no regular file");
                return Err(Failure::new(Code::FileMissing, message));
            }
        }
        std::fs::create_dir_all(&to).map_err(|error| unwritten(&to, &error))?;
        let listed = place.guest().await?.list_directory(&from, 1).await;
        for entry in listed.map_err(|error| place.failure(error))? {
            let path = format!("{}/{}", from.trim_end_matches('/'), name(&entry.name)?);
            if entry.is_link || entry.kind == EntryKind::Other {
                table::note(&format!("left out: `{path}`"));
                continue;
            }
            let to = to.join(&entry.name);
            waiting.push((path, entry, to, depth + 1));
        }
    }
    Ok(())
}

fn unwritten(target: &Path, error: &io::Error) -> Failure {
    let message = format!("failed to write `{}`: {}", target.display(), reason(error));
    Failure::new(Code::FileUnwritable, message)
}

/// Writes a file beside its place and renames it: what is there is replaced whole or not at all.
async fn get_file(place: &Place, from: &str, target: &Path, mode: u32) -> Result<(), Failure> {
    let failed = |error: io::Error| unwritten(target, &error);
    if target.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    let contents = place.guest().await?.read(from).await;
    let mut contents = contents.map_err(|error| place.failure(error))?;
    let (file, mut part): (File, Part) = begin(target).map_err(failed)?;
    let mut file = tokio::fs::File::from_std(file);
    while let Some(bytes) = contents
        .chunk()
        .await
        .map_err(|error| place.failure(error))?
    {
        file.write_all(&bytes).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    let mode = mode & 0o777 & !umask();
    let settled = file.set_permissions(Permissions::from_mode(mode)).await;
    settled.map_err(failed)?;
    part.settle(target).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_before_a_colon_means_a_sandbox() {
        let inside = |id: &str, path: &str| End::Inside {
            id: id.to_owned(),
            path: path.to_owned(),
        };
        assert_eq!(end("sbx_1:a:b"), inside("sbx_1", "a:b"));
        assert_eq!(end("sbx_1:"), inside("sbx_1", ""));
        for here in ["a", "a:b", "./sbx_1:a", "sbx_1", "/x/sbx_1:a"] {
            assert_eq!(end(here), End::Here(here.into()));
        }
    }

    #[test]
    fn a_name_from_a_guest_stays_in_its_directory() {
        assert_eq!(name("a b").unwrap(), "a b");
        for wrong in ["", ".", "..", "../x", "/etc/passwd", "a/b"] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
    }
}

//! The service `filesystem.Filesystem`, as far as it is answered at once.

use super::Live;
use super::connect;
use super::entry;
use super::failure::{Code, Failure};
use super::path;
use super::protojson;
use super::tree::{self, DEPTH_MAX};
use super::user::User;
use hyper::HeaderMap;
use hyper::body::Incoming;
use rustix::fs::{self, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use serde::Deserialize;
use serde_json::{Value, json};
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// Entries of one listing, which keeps the answer about as large as a message may be.
const ENTRIES_MAX: usize = 10_000;

/// Bytes of a file that are copied before others have their turn.
const COPY_CHUNK: usize = 1 << 20;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OfPath {
    path: String,
    #[serde(deserialize_with = "protojson::number")]
    depth: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Move {
    source: String,
    destination: String,
}

/// A method that is answered with one message.
pub(super) async fn unary(
    live: &Rc<Live>,
    method: &str,
    headers: &HeaderMap,
    body: &mut Incoming,
) -> Result<Value, Failure> {
    if method.contains("Watcher") {
        return super::watch::unary(live, method, headers, body).await;
    }
    let user = User::of(headers, &live.serve)?;
    if method == "Move" {
        let asked: Move = connect::part(body).await?;
        let from = path::resolve(&asked.source, user.home)?;
        let to = path::resolve(&asked.destination, user.home)?;
        return rename(user, &from, &to).await;
    }
    if !["Stat", "MakeDir", "ListDir", "Remove"].contains(&method) {
        return Err(super::rpc::unknown(method));
    }
    let asked: OfPath = connect::part(body).await?;
    let path = path::resolve(&asked.path, user.home)?;
    match method {
        "Stat" => user
            .act(|| entry::at(&path))
            .map(|entry| json!({"entry": entry})),
        "MakeDir" => user.act(|| make(&path)),
        "ListDir" => user.act(|| list(&path, asked.depth.max(1))),
        _ => tree::remove(user, &path).map(|()| json!({})),
    }
}

fn make(path: &str) -> Result<Value, Failure> {
    if let Ok(file) = tree::open(path, OFlags::PATH, Mode::empty()) {
        let stat = fs::fstat(&file).map_err(|errno| Failure::errno(path, errno))?;
        return Err(if tree::kind(&stat) == FileType::Directory {
            let why = format!("directory already exists: {path}");
            Failure::new(Code::AlreadyExists, why)
        } else {
            Failure::invalid(format!(
                "path already exists but it is not a directory: {path}"
            ))
        });
    }
    tree::make_directories(path)?;
    Ok(json!({"entry": entry::at(path)?}))
}

async fn rename(user: User, from: &str, to: &str) -> Result<Value, Failure> {
    let renamed = user.act(|| {
        let (source, name) = tree::parent(from)?;
        tree::look(&source, name).map_err(|errno| Failure::errno(from, errno))?;
        tree::make_parents(to)?;
        let (target, new) = tree::parent(to)?;
        match fs::renameat_with(&source, name, &target, new, RenameFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::XDEV) => Ok(false),
            Err(errno) => Err(Failure::errno(to, errno)),
        }
    })?;
    if !renamed {
        // The writable places are mounts of one file system, which the kernel keeps apart.
        copy(user, from, to).await?;
        tree::remove(user, from)?;
    }
    let entry = user.act(|| entry::at(to))?;
    Ok(json!({"entry": entry}))
}

async fn copy(user: User, from: &str, to: &str) -> Result<(), Failure> {
    let opened = user.act(|| {
        let (source, stat) = tree::open_to_read(from)?;
        Ok::<_, Failure>((source, stat, tree::open_to_write(to)?))
    });
    let (source, stat, target) = opened?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o777);
    user.act(|| fs::fchmod(&target, mode))
        .map_err(|errno| Failure::errno(to, errno))?;
    append(&source, &target)
        .await
        .map_err(|errno| Failure::errno(to, errno))
}

/// Copies what is left of one file to the end of another.
pub(super) async fn append(source: &OwnedFd, target: &OwnedFd) -> Result<(), Errno> {
    while fs::sendfile(target, source, None, COPY_CHUNK)? > 0 {
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Tells about everything in a directory, and `depth` levels deep of what is below it.
fn list(path: &str, depth: u32) -> Result<Value, Failure> {
    let opened = tree::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
    let directory = opened.map_err(|errno| match errno {
        Errno::NOTDIR => Failure::invalid(format!("path is not a directory: {path}")),
        _ => Failure::errno(path, errno),
    })?;
    let depth = usize::try_from(depth).unwrap_or(usize::MAX).min(DEPTH_MAX);
    let mut entries = Vec::new();
    list_in(&directory, path, depth, &mut entries)?;
    Ok(json!({"entries": entries}))
}

fn list_in(
    directory: &OwnedFd,
    path: &str,
    depth: usize,
    entries: &mut Vec<Value>,
) -> Result<(), Failure> {
    for name in names(directory, entries.len())
        .map_err(|errno| Failure::errno(path, errno))?
        .ok_or_else(|| too_many(path))?
    {
        // What went meanwhile is not told; what is no text has no name on this wire.
        let Some((text, stat)) = name
            .to_str()
            .ok()
            .and_then(|text| Some((text, tree::look(directory, text).ok()?)))
        else {
            continue;
        };
        let below = format!("{}/{text}", path.trim_end_matches('/'));
        entries.push(entry::of(directory, text, &below, &stat));
        if depth > 1
            && tree::kind(&stat) == FileType::Directory
            && let Ok(inner) = tree::open_below(directory, &name)
        {
            list_in(&inner, &below, depth - 1, entries)?;
        }
    }
    Ok(())
}

/// The names in a directory in order, or none if they are too many with those that were told before.
pub(super) fn names(
    directory: &OwnedFd,
    before: usize,
) -> Result<Option<Vec<std::ffi::CString>>, Errno> {
    let mut names = Vec::new();
    let mut entries = fs::Dir::read_from(directory)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        if before + names.len() >= ENTRIES_MAX {
            return Ok(None);
        }
        names.push(entry.file_name().to_owned());
    }
    names.sort();
    Ok(Some(names))
}

pub(super) fn too_many(path: &str) -> Failure {
    let why = format!("{path}: there are more than {ENTRIES_MAX} entries; list it with a command");
    Failure::new(Code::ResourceExhausted, why)
}

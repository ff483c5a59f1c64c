//! What there is to say about a file, as envd says it.

use super::path;
use super::tree;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use serde_json::{Map, Value, json};
use std::os::fd::{AsFd, AsRawFd};

/// The prefix of attributes that hold a file's metadata.
pub(super) const ATTRIBUTE: &str = "user.e2b.";

/// Names of attributes of one file that are looked at, in bytes. Twice of what may be set.
const ATTRIBUTES_MAX: usize = 16 * 1024;
/// The longest value of one, what may be set in all.
pub(super) const METADATA_MAX: usize = 4096;

/// Tells about the file of this name in a directory. `path` is how the client knows it.
pub(super) fn of(directory: impl AsFd, name: &str, path: &str, stat: &Stat) -> Value {
    let kind = tree::kind(stat);
    let target = (kind == FileType::Symlink).then(|| follow(&directory, name, path));
    let (kind, mode) = match &target {
        Some((_, Some(at_end))) => (tree::kind(at_end), at_end.st_mode),
        Some((_, None)) => (FileType::Unknown, 0),
        None => (kind, stat.st_mode),
    };
    let mut entry = json!({
        "name": path::name(path),
        "type": kind_name(kind),
        "path": path,
        "size": stat.st_size.to_string(),
        "mode": mode & 0o777,
        "permissions": permissions(stat.st_mode),
        "owner": user_name(stat.st_uid),
        "group": group_name(stat.st_gid),
        "modifiedTime": time(stat.st_mtime, stat.st_mtime_nsec),
    });
    if let Some(entry) = entry.as_object_mut() {
        if let Some((target, _)) = target {
            entry.insert("symlinkTarget".to_owned(), target.into());
            entry.insert("isSymlink".to_owned(), true.into());
        }
        let metadata = if kind == FileType::RegularFile {
            metadata_of(&directory, name)
        } else {
            Map::new()
        };
        if !metadata.is_empty() {
            entry.insert("metadata".to_owned(), metadata.into());
        }
    }
    entry
}

/// Where a link leads in the end, and what is there; the link's own path where it leads nowhere.
fn follow(directory: impl AsFd, name: &str, path: &str) -> (String, Option<Stat>) {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let links = fs::ResolveFlags::NO_MAGICLINKS;
    let nowhere = || (path.to_owned(), None);
    let Ok(end) = fs::openat2(directory, name, flags, Mode::empty(), links) else {
        return nowhere();
    };
    let at = fs::readlinkat(
        fs::CWD,
        format!("/proc/self/fd/{}", end.as_raw_fd()),
        Vec::new(),
    );
    match (at, fs::fstat(&end)) {
        (Ok(at), Ok(stat)) => (at.to_string_lossy().into_owned(), Some(stat)),
        _ => nowhere(),
    }
}

/// Metadata that was given when the file was put there.
fn metadata_of(directory: impl AsFd, name: &str) -> Map<String, Value> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => metadata(file),
        // Who may not read a file learns nothing about it.
        Err(_) => Map::new(),
    }
}

/// The metadata of an open file.
pub(super) fn metadata(file: impl AsFd) -> Map<String, Value> {
    let mut found = Map::new();
    for name in attributes(&file) {
        let mut value = vec![0; METADATA_MAX];
        let Ok(n) = fs::fgetxattr(&file, &*name, value.as_mut_slice()) else {
            continue;
        };
        value.truncate(n);
        if let (Some(key), Ok(value)) = (name.strip_prefix(ATTRIBUTE), String::from_utf8(value)) {
            found.insert(key.to_owned(), value.into());
        }
    }
    found
}

/// The names of the attributes that hold metadata.
pub(super) fn attributes(file: impl AsFd) -> Vec<String> {
    let mut names = vec![0; ATTRIBUTES_MAX];
    let n = fs::flistxattr(file, names.as_mut_slice()).unwrap_or(0);
    names.truncate(n);
    let names = names
        .split(|byte| *byte == 0)
        .filter_map(|name| std::str::from_utf8(name).ok());
    names
        .filter(|name| name.starts_with(ATTRIBUTE))
        .map(str::to_owned)
        .collect()
}

fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "FILE_TYPE_FILE",
        FileType::Directory => "FILE_TYPE_DIRECTORY",
        FileType::Symlink => "FILE_TYPE_SYMLINK",
        FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => "FILE_TYPE_UNSPECIFIED",
    }
}

/// The mode as Go writes it, in which envd is written.
fn permissions(mode: u32) -> String {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => "d",
        FileType::Symlink => "L",
        FileType::Fifo => "p",
        FileType::Socket => "S",
        FileType::CharacterDevice => "Dc",
        FileType::BlockDevice => "D",
        FileType::RegularFile | FileType::Unknown => "",
    };
    let special = [(0o4000, 'u'), (0o2000, 'g'), (0o1000, 't')];
    let special = special
        .iter()
        .filter(|(bit, _)| mode & bit != 0)
        .map(|(_, name)| *name);
    let mut text: String = kind.chars().chain(special).collect();
    if text.is_empty() {
        text.push('-');
    }
    for (at, name) in (0..9).rev().zip("rwxrwxrwx".chars()) {
        text.push(if mode & (1 << at) == 0 { '-' } else { name });
    }
    text
}

/// Who there is inside is written by the node, so it need not be read from a file of the workload's.
fn user_name(id: u32) -> String {
    match id {
        0 => "root".to_owned(),
        1000 => "user".to_owned(),
        65534 => "nobody".to_owned(),
        _ => id.to_string(),
    }
}

fn group_name(id: u32) -> String {
    if id == 65534 {
        "nogroup".to_owned()
    } else {
        user_name(id)
    }
}

/// A time as RFC 3339 has it, from seconds since 1970.
pub(super) fn time(seconds: i64, nanos: u64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // The civil date of a day, counted in eras of 400 years that begin on a first of March.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// Looks at what is at a clean path, and tells about it.
pub(super) fn at(path: &str) -> Result<Value, super::failure::Failure> {
    if path == "/" {
        let root =
            tree::open_directory("/").map_err(|e| super::failure::Failure::errno(path, e))?;
        let stat = fs::statat(&root, "", AtFlags::EMPTY_PATH)
            .map_err(|errno| super::failure::Failure::errno(path, errno))?;
        return Ok(of(&root, ".", path, &stat));
    }
    let (directory, name) = tree::parent(path)?;
    let stat = tree::look(&directory, name);
    let stat = stat.map_err(|errno| super::failure::Failure::errno(path, errno))?;
    Ok(of(&directory, name, path, &stat))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_dates() {
        assert_eq!(time(0, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(time(1_709_210_096, 5), "2024-02-29T12:34:56.000000005Z");
        assert_eq!(time(-1, 0), "1969-12-31T23:59:59.000000000Z");
        assert_eq!(time(4_102_444_800, 0), "2100-01-01T00:00:00.000000000Z");
    }

    #[test]
    fn modes_are_written_as_go_does() {
        assert_eq!(permissions(0o100_644), "-rw-r--r--");
        assert_eq!(permissions(0o040_755), "drwxr-xr-x");
        assert_eq!(permissions(0o120_777), "Lrwxrwxrwx");
        assert_eq!(permissions(0o041_777), "dtrwxrwxrwx");
    }
}

//! A root file system that an operator has given a name. It is looked at once, at the start of its node, and
//! whatever is in it may be a trap: it is often somebody else's image.

use crate::host::{Ids, Root, mounted_below};
use model::root::RootName;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

mod identity;
mod users;

/// What is known of a root beside what [`Root`] says of any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// What the operator calls it.
    pub name: RootName,
    /// 32 hexadecimal digits. Two roots with the same have the same names, kinds, modes, owners, sizes and
    /// times of files; what is in them was not read.
    pub identity: String,
    /// Its own users, and `user`: as in `passwd(5)`.
    pub passwd: String,
    /// Its own groups, and that of `user`: as in `group(5)`.
    pub group: String,
    /// As in `shadow(5)`.
    pub shadow: String,
    /// It says by itself where names are looked up.
    pub has_nsswitch: bool,
    /// It has a directory for programs that come before those of its packages.
    pub has_local_bin: bool,
    /// It has a home for its root.
    pub has_root_home: bool,
    /// Why it cannot be below a root that is written, where it is tried and cannot.
    pub no_overlay: Option<String>,
}

/// Why a directory cannot be a root.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It cannot be read.
    #[error("`{}` cannot be read: {source}", path.display())]
    Unread {
        /// Which part.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error("`{}` is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// It is the machine's own root.
    #[error("`/` is the machine's own, and not a root file system for others")]
    Host,
    /// Somebody else could change what sandboxes run.
    #[error("`{}` belongs to the user {uid}, who could change it", path.display())]
    Owner {
        /// It, or a directory above it.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// Others could change what sandboxes run.
    #[error("`{}` can be written by others", .0.display())]
    Writable(PathBuf),
    /// Nothing could be started in it.
    #[error("there is neither `bin/sh` nor `usr/bin` in `{}`", .0.display())]
    NoPrograms(PathBuf),
    /// Something leads elsewhere, or is not what its name says.
    #[error("`{what}` in it is {is}; it must be {must}")]
    Shape {
        /// A path in the root.
        what: &'static str,
        /// What it is.
        is: &'static str,
        /// What it must be.
        must: &'static str,
    },
    /// A sandbox would not see what is mounted there.
    #[error("a file system is mounted below `{}`", .0.display())]
    Mounted(PathBuf),
    /// A bound.
    #[error("{0}")]
    TooMuch(String),
}

/// What must be a directory where it is there: files of ours are put into it, or it holds what names mean.
const DIRECTORIES: [&str; 5] = ["etc", "usr", "usr/bin", "var", "var/lib"];

/// The most bytes of each file that says who there is; a distribution has two thousand. All of them go to the
/// launcher in one message (`jail::message::MESSAGE_MAX`).
const USERS_BYTES_MAX: u64 = 12 * 1024;

/// Looks at a directory that is to be the root `name`.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn given(name: RootName, path: &Path, uid: u32, ids: &Ids) -> Result<Root, Unusable> {
    let path = std::fs::canonicalize(path).map_err(unread(path))?;
    check_place(&path, uid)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = rustix::fs::open(&path, flags, Mode::empty());
    let top = top.map_err(|errno| unread(&path)(errno.into()))?;
    check_shape(&path, &top)?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if mounted_below(&mounts, std::slice::from_ref(&path)) {
        return Err(Unusable::Mounted(path));
    }
    let users = users::read(&top)?;
    let is_directory = |at: &str| matches!(kind_of(&top, at), Some(FileType::Directory));
    let given = Given {
        name,
        identity: identity::of(&path, &top)?,
        passwd: users.passwd,
        group: users.group,
        shadow: users.shadow,
        has_nsswitch: kind_of(&top, "etc/nsswitch.conf").is_some(),
        has_local_bin: is_directory("usr/local/bin"),
        has_root_home: is_directory("root"),
        no_overlay: match ids {
            Ids::Root => crate::linux::no_overlay_over(&path),
            Ids::Subordinate { .. } | Ids::Single => None,
        },
    };
    let root = Root::read(&path).map_err(unread(&path))?;
    Ok(Root {
        given: Some(given),
        ..root
    })
}

fn unread(path: &Path) -> impl FnOnce(io::Error) -> Unusable {
    let path = path.to_owned();
    move |source| Unusable::Unread { path, source }
}

/// Nobody but root, or whoever runs the node, can put something else there, or change it.
fn check_place(path: &Path, uid: u32) -> Result<(), Unusable> {
    if path == Path::new("/") {
        return Err(Unusable::Host);
    }
    for (up, each) in path.ancestors().enumerate() {
        let meta = std::fs::symlink_metadata(each).map_err(unread(each))?;
        if !meta.is_dir() {
            return Err(Unusable::NotADirectory(each.to_owned()));
        }
        if meta.uid() != 0 && meta.uid() != uid {
            let (path, uid) = (each.to_owned(), meta.uid());
            return Err(Unusable::Owner { path, uid });
        }
        // In a directory like `/tmp` others can neither rename nor remove what is not theirs.
        let sticky = up > 0 && meta.mode() & 0o1000 != 0;
        if meta.mode() & 0o022 != 0 && !sticky {
            return Err(Unusable::Writable(each.to_owned()));
        }
    }
    Ok(())
}

fn check_shape(path: &Path, top: &OwnedFd) -> Result<(), Unusable> {
    for what in DIRECTORIES {
        match kind_of(top, what) {
            None | Some(FileType::Directory) => {}
            Some(FileType::Symlink) => return Err(shape(what, "a link", "a directory")),
            Some(_) => return Err(shape(what, "something else", "a directory")),
        }
    }
    let has_shell = stat_inside(top, "bin/sh")
        .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
    if has_shell || kind_of(top, "usr/bin").is_some() {
        return Ok(());
    }
    Err(Unusable::NoPrograms(path.to_owned()))
}

fn shape(what: &'static str, is: &'static str, must: &'static str) -> Unusable {
    Unusable::Shape { what, is, must }
}

/// What is at a path of the root. A link on the way is as if nothing were there; at its end it is a link.
fn kind_of(top: &OwnedFd, path: &str) -> Option<FileType> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let fd = rustix::fs::openat2(top, path, flags, Mode::empty(), resolve);
    let stat = rustix::fs::fstat(fd.ok()?).ok()?;
    Some(FileType::from_raw_mode(stat.st_mode))
}

/// What a program with this root finds there, links followed as it would.
fn stat_inside(top: &OwnedFd, path: &str) -> Option<Stat> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let fd = rustix::fs::openat2(top, path, flags, Mode::empty(), resolve);
    rustix::fs::fstat(fd.ok()?).ok()
}

/// A file of a root, without following links and without waiting for the other end of a pipe. `None` where
/// there is none, and for what is no file, no text, or longer than `most` bytes.
pub(crate) fn read_plain(root: &Path, file: &str, most: u64) -> Option<String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::open(root, flags, Mode::empty()).ok()?;
    read_file(&top, file, most).ok()?
}

/// The same, and `Ok(None)` only where there is nothing at all.
fn read_file(top: &OwnedFd, file: &str, most: u64) -> Result<Option<String>, NoText> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let fd = match rustix::fs::openat2(top.as_fd(), file, flags, Mode::empty(), resolve) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(_) => return Err(NoText::Unread),
    };
    let stat = rustix::fs::fstat(&fd).map_err(|_| NoText::Unread)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(NoText::Unread);
    }
    let mut text = String::new();
    let read = std::fs::File::from(fd)
        .take(most + 1)
        .read_to_string(&mut text);
    read.map_err(|_| NoText::Other)?;
    if text.len() as u64 > most {
        return Err(NoText::Other);
    }
    Ok(Some(text))
}

/// Why a file gives no text.
#[derive(Debug)]
enum NoText {
    /// It is no file, or nobody may read it.
    Unread,
    /// It is longer, or no text.
    Other,
}

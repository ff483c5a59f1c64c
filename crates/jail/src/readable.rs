//! What everybody may read on the host, and nothing else, for trees in which a sandbox has an id that owns
//! it: its root may read there whatever its owner may, so what is not everybody's must not be there.

use crate::files::{self, group, kind, open_in, owner};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Directories in one another that are gone through. What is deeper is left out.
const DEPTH_MAX: u32 = 128;

/// Names that are whited out in one lower layer; a distribution has a handful. A root that hides more is no
/// root for strangers.
const MASKED_MAX: u32 = 4096;

/// Whether everybody may read it; and only files, directories and links are anything to read.
fn is_everybodys(stat: &Stat) -> bool {
    match kind(stat) {
        FileType::Symlink => true,
        FileType::Directory => stat.st_mode & 0o005 == 0o005,
        FileType::RegularFile => stat.st_mode & 0o004 != 0,
        FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => false,
    }
}

fn look(directory: impl AsFd, name: impl rustix::path::Arg) -> Result<Stat, Errno> {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// Copies `source` of the host to `target`, relative to the working directory.
pub(crate) fn copy(source: &Path, target: &str) -> Result<(), Errno> {
    let (Some(above), Some(name)) = (source.parent(), source.file_name()) else {
        return Err(Errno::INVAL);
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let above = rustix::fs::open(above, flags, Mode::empty())?;
    let name = std::ffi::CString::new(name.as_encoded_bytes()).map_err(|_| Errno::INVAL)?;
    let target = std::ffi::CString::new(target).map_err(|_| Errno::INVAL)?;
    copy_one(above.as_fd(), &name, CWD, &target, 0)
}

fn copy_one(
    from: BorrowedFd<'_>,
    name: &CStr,
    to: BorrowedFd<'_>,
    new: &CStr,
    depth: u32,
) -> Result<(), Errno> {
    let stat = match look(from, name) {
        Err(Errno::NOENT) => return Ok(()), // Removed a moment ago.
        other => other?,
    };
    if !is_everybodys(&stat) || depth > DEPTH_MAX {
        return Ok(());
    }
    if kind(&stat) == FileType::Symlink {
        let says = rustix::fs::readlinkat(from, name, Vec::new())?;
        return rustix::fs::symlinkat(&*says, to, new);
    }
    match kind(&stat) == FileType::Directory {
        true => {
            let inner = open_in(from, name, OFlags::RDONLY | OFlags::DIRECTORY)?;
            rustix::fs::mkdirat(to, new, Mode::from_raw_mode(0o700))?;
            let made = open_in(to, new, OFlags::RDONLY | OFlags::DIRECTORY)?;
            files::each_name(&inner, |name| {
                copy_one(inner.as_fd(), name, made.as_fd(), name, depth + 1)
            })?;
        }
        false => {
            let file = open_in(from, name, OFlags::RDONLY)?;
            // Looked at again, now that nobody can put another in its place.
            if !is_everybodys(&rustix::fs::fstat(&file)?) {
                return Ok(());
            }
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let made = rustix::fs::openat(to, new, flags, Mode::from_raw_mode(0o600))?;
            files::copy_content(&file, &made)?;
        }
    }
    give(to, new, &stat)
}

/// The owner and the mode that it has on the host.
fn give(to: impl AsFd, name: impl rustix::path::Arg + Copy, stat: &Stat) -> Result<(), Errno> {
    let none = AtFlags::empty();
    rustix::fs::chownat(&to, name, owner(stat.st_uid), group(stat.st_gid), none)?;
    rustix::fs::chmodat(&to, name, Mode::from_raw_mode(stat.st_mode & 0o1777), none)
}

/// Makes whiteouts in `mask`, a directory relative to the working directory, for all in `lower` that not
/// everybody may read.
pub(crate) fn mask(lower: &OwnedFd, mask: &str) -> Result<(), Errno> {
    let top = open_in(lower, c".", OFlags::RDONLY | OFlags::DIRECTORY)?;
    give(CWD, mask, &rustix::fs::fstat(&top)?)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut masking = Masking {
        mask: rustix::fs::open(mask, flags, Mode::empty())?,
        made: 0,
        trail: Vec::new(),
    };
    masking.directory(&top)
}

/// One walk through a lower layer.
struct Masking {
    mask: OwnedFd,
    made: u32,
    /// The directories that lead to where the walk is, with what they are.
    trail: Vec<(std::ffi::CString, Stat)>,
}

impl Masking {
    fn directory(&mut self, directory: &OwnedFd) -> Result<(), Errno> {
        files::each_name(directory, |name| {
            let stat = match look(directory, name) {
                Err(Errno::NOENT) => return Ok(()),
                other => other?,
            };
            let deep = self.trail.len() >= DEPTH_MAX as usize;
            let is_directory = kind(&stat) == FileType::Directory;
            if !is_everybodys(&stat) || (is_directory && deep) {
                return self.white_out(name);
            }
            if !is_directory {
                return Ok(());
            }
            // What another file system covers would come to light here; the node has looked that there is
            // none, and one that was mounted since is whited out.
            let inner = match open_in(directory, name, OFlags::RDONLY | OFlags::DIRECTORY) {
                Err(Errno::XDEV) => return self.white_out(name),
                other => other?,
            };
            self.trail.push((name.to_owned(), stat));
            let walked = self.directory(&inner);
            self.trail.pop();
            walked
        })
    }

    /// A character device 0/0 hides the name in all layers below, see `overlayfs.rst` of the kernel.
    fn white_out(&mut self, name: &CStr) -> Result<(), Errno> {
        self.made += 1;
        if self.made > MASKED_MAX {
            return Err(Errno::TOOBIG);
        }
        let mut at = rustix::io::fcntl_dupfd_cloexec(&self.mask, 3)?;
        for (name, stat) in &self.trail {
            match rustix::fs::mkdirat(&at, &**name, Mode::from_raw_mode(0o700)) {
                Ok(()) => give(&at, &**name, stat)?,
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            at = open_in(&at, &**name, OFlags::RDONLY | OFlags::DIRECTORY)?;
        }
        let none = Mode::empty();
        rustix::fs::mknodat(&at, name, FileType::CharacterDevice, none, 0)
    }
}

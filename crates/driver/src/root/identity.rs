//! Which root it is: a digest over what `lstat(2)` says of everything in it. Reading all of it would take as
//! long as its disk takes, at each start; this takes some microseconds for each file.

use super::{Unusable, unread};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

/// Files and directories of one root. A distribution with everything that a person installs has half of it.
const ENTRIES_MAX: u64 = 1 << 20;
/// Directories in one another.
const DEPTH_MAX: u32 = 128;

/// What a sandbox covers at the top, so that it is not the root's.
const COVERED: [&[u8]; 4] = [b"dev", b"proc", b"run", b"sys"];

pub(super) fn of(path: &Path, top: &OwnedFd) -> Result<String, Unusable> {
    let mut walk = Walk {
        hash: Sha256::new(),
        entries: 0,
    };
    match walk.directory(top, 0) {
        Ok(()) => {}
        Err(Errno::TOOBIG) => {
            let why = format!(
                "there are more than {ENTRIES_MAX} files in `{}`, or more than {DEPTH_MAX} directories in one \
                 another",
                path.display()
            );
            return Err(Unusable::TooMuch(why));
        }
        Err(errno) => return Err(unread(path)(errno.into())),
    }
    let mut text = String::new();
    for byte in walk.hash.finalize().iter().take(16) {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

struct Walk {
    hash: Sha256,
    entries: u64,
}

impl Walk {
    fn directory(&mut self, directory: &OwnedFd, depth: u32) -> Result<(), Errno> {
        // In one order, whatever that of the disk is.
        let mut names = BTreeMap::<CString, Stat>::new();
        let mut entries = Dir::read_from(directory)?;
        while let Some(entry) = entries.read() {
            let name = entry?.file_name().to_owned();
            let covered = depth == 0 && COVERED.contains(&name.to_bytes());
            if covered || matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            self.entries += 1;
            if self.entries > ENTRIES_MAX || depth > DEPTH_MAX {
                return Err(Errno::TOOBIG);
            }
            let stat = rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            names.insert(name, stat);
        }
        for (name, stat) in &names {
            self.one(directory, name, stat, depth)?;
        }
        self.hash.update([0]); // No name is empty, so that this is the end of a directory and nothing else.
        Ok(())
    }

    fn one(&mut self, at: &OwnedFd, name: &CString, stat: &Stat, depth: u32) -> Result<(), Errno> {
        self.hash.update(name.as_bytes_with_nul());
        for number in [stat.st_mode, stat.st_uid, stat.st_gid] {
            self.hash.update(number.to_le_bytes());
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                let inner = rustix::fs::openat2(at.as_fd(), name, flags, Mode::empty(), resolve);
                match inner {
                    Ok(inner) => self.directory(&inner, depth + 1),
                    // An ordinary user's node: its sandboxes see nothing of it either.
                    Err(Errno::ACCESS) => Ok(()),
                    Err(errno) => Err(errno),
                }
            }
            FileType::Symlink => {
                let says = rustix::fs::readlinkat(at, name, Vec::new())?;
                self.hash.update(says.as_bytes_with_nul());
                Ok(())
            }
            // Of a directory neither is the same after a copy.
            FileType::RegularFile
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => {
                self.hash.update(stat.st_size.to_le_bytes());
                self.hash.update(stat.st_mtime.to_le_bytes());
                self.hash.update(stat.st_mtime_nsec.to_le_bytes());
                self.hash.update(stat.st_rdev.to_le_bytes());
                Ok(())
            }
        }
    }
}

//! Files put into and got out of the sandbox, with the workload's own rights.
//!
//! After the workload ran, every name in here may be a trap: a link out of the way, a pipe that never
//! opens, a device, a file that grows while it is read. So a file is opened as the workload's user,
//! without blocking, never through `/proc`'s magic links, and only a regular file is read.

use guest::message::Put;
use rustix::fs::{self, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::os::fd::OwnedFd;
use std::path::Path;

/// What failed, for [`guest::message::FromGuest::FileFailed`].
pub(crate) type Failed = (&'static str, Errno);

/// The directory that relative names start from.
pub(crate) const HOME: &str = "/home/user";

/// A file that is being written.
#[derive(Debug)]
pub(crate) struct Upload {
    file: OwnedFd,
    left: u64,
}

/// A file that is being sent.
#[derive(Debug)]
pub(crate) struct Download {
    file: OwnedFd,
    left: u64,
    /// The size that was promised.
    pub(crate) size_bytes: u64,
    /// Its permission bits.
    pub(crate) mode: u32,
}

/// Runs `action` with the file-system identity of the workload.
pub(crate) fn as_user<T>(uid: u32, gid: u32, action: impl FnOnce() -> T) -> T {
    crate::process::set_fs_ids(uid, gid);
    let result = action();
    crate::process::set_fs_ids(crate::process::own_uid(), crate::process::own_gid());
    crate::launcher::ask_again();
    result
}

/// The rights over files that the sandbox's root has.
const OF_ROOT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER);

/// The same with the rights of the sandbox's root: what is made belongs to the user all the same. For a user
/// who has `sudo` alone, because whatever lies in the way is followed with these rights.
pub(crate) fn as_user_with_sudo<T>(uid: u32, gid: u32, action: impl FnOnce() -> T) -> T {
    as_user(uid, gid, || {
        // The change of identity has put them away; the next one does so again, or gives root its own back
        // (`capabilities(7)`). Without them, the user's own rights are left.
        if let Ok(sets) = rustix::thread::capabilities(None) {
            let effective = sets.effective | (sets.permitted & OF_ROOT);
            let with = CapabilitySets { effective, ..sets };
            let _ = rustix::thread::set_capabilities(None, with);
        }
        action()
    })
}

fn open(path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let home = fs::open(
        HOME,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    fs::openat2(home, path, flags, mode, ResolveFlags::NO_MAGICLINKS)
}

impl Upload {
    /// Makes the file and its directories; an existing file is an error, so that two inputs of one
    /// name are not silently one.
    pub(crate) fn open(put: &Put, uid: u32, gid: u32) -> Result<Upload, Failed> {
        as_user(uid, gid, || {
            make_parents(&put.path).map_err(|errno| ("mkdir", errno))?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            let mode = Mode::from_raw_mode(put.mode & 0o777);
            let file = open(&put.path, flags, mode).map_err(|errno| ("open", errno))?;
            // Room is taken now, so that a full disk is told before the bytes are sent.
            if put.size_bytes > 0 {
                match fs::fallocate(&file, fs::FallocateFlags::empty(), 0, put.size_bytes) {
                    Ok(()) | Err(Errno::OPNOTSUPP) => {}
                    Err(errno) => return Err(("allocate", errno)),
                }
            }
            Ok(Upload {
                file,
                left: put.size_bytes,
            })
        })
    }

    /// Writes the next bytes.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), Failed> {
        if bytes.len() as u64 > self.left {
            return Err(("write", Errno::FBIG));
        }
        self.left -= bytes.len() as u64;
        while !bytes.is_empty() {
            let n = rustix::io::write(&self.file, bytes).map_err(|errno| ("write", errno))?;
            bytes = bytes.get(n..).unwrap_or_default();
        }
        Ok(())
    }

    /// All bytes that were announced have arrived.
    pub(crate) fn complete(&self) -> bool {
        self.left == 0
    }
}

fn make_parents(path: &str) -> Result<(), Errno> {
    let Some(parent) = Path::new(path).parent() else {
        return Ok(());
    };
    let mut so_far = std::path::PathBuf::from(HOME);
    for part in parent.components() {
        so_far.push(part);
        match fs::mkdir(&so_far, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST | Errno::ROFS | Errno::ACCESS) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

impl Download {
    /// Opens a regular file of at most `max_bytes`.
    pub(crate) fn open(path: &str, max_bytes: u64, uid: u32, gid: u32) -> Result<Download, Failed> {
        let file = as_user(uid, gid, || open(path, OFlags::RDONLY, Mode::empty()));
        let file = file.map_err(|errno| ("open", errno))?;
        let stat = fs::fstat(&file).map_err(|errno| ("stat", errno))?;
        let kind = fs::FileType::from_raw_mode(stat.st_mode);
        if kind != fs::FileType::RegularFile {
            let directory = kind == fs::FileType::Directory;
            return Err((
                "open",
                if directory {
                    Errno::ISDIR
                } else {
                    Errno::INVAL
                },
            ));
        }
        let size_bytes = u64::try_from(stat.st_size).unwrap_or(0);
        if size_bytes > max_bytes {
            return Err(("size", Errno::FBIG));
        }
        Ok(Download {
            file,
            left: size_bytes,
            size_bytes,
            mode: stat.st_mode & 0o777,
        })
    }

    /// The next bytes; empty at the end. A file that shrank while it was read is an error.
    pub(crate) fn read(&mut self, most: usize) -> Result<Vec<u8>, Failed> {
        let want = usize::try_from(self.left).unwrap_or(most).min(most);
        let mut bytes = vec![0; want];
        let n = rustix::io::read(&self.file, &mut bytes).map_err(|errno| ("read", errno))?;
        bytes.truncate(n);
        self.left -= n as u64;
        if n == 0 && self.left > 0 {
            Err(("read", Errno::IO))
        } else {
            Ok(bytes)
        }
    }
}

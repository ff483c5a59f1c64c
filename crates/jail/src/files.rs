//! Looking at files and copying what is in them, by descriptors only.

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, SeekFrom, Stat};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

/// Bytes that are asked to be copied at once.
const PIECE: u64 = 16 << 20;

pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

pub(crate) fn owner(id: u32) -> Option<rustix::fs::Uid> {
    Some(rustix::fs::Uid::from_raw(id))
}

pub(crate) fn group(id: u32) -> Option<rustix::fs::Gid> {
    Some(rustix::fs::Gid::from_raw(id))
}

/// Opens a name in a directory: never through a link, never on another file system, and never waiting for
/// the other end of a pipe.
pub(crate) fn open_in(
    directory: impl AsFd,
    name: impl rustix::path::Arg,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let beneath = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(directory, name, flags, Mode::empty(), beneath)
}

/// The names in a directory, one after the other.
pub(crate) fn each_name(
    directory: &OwnedFd,
    mut act: impl FnMut(&std::ffi::CStr) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut entries = Dir::read_from(directory)?;
    while let Some(entry) = entries.read() {
        let name: CString = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            act(&name)?;
        }
    }
    Ok(())
}

/// Copies what is in a file and leaves holes where there are holes. The bytes that were copied.
pub(crate) fn copy_content(from: &OwnedFd, to: &OwnedFd) -> Result<u64, Errno> {
    let size = rustix::fs::fstat(from)?.st_size.unsigned_abs();
    let (mut at, mut copied) = (0, 0);
    while at < size {
        let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break, // Nothing but a hole from here on.
            Err(errno) => return Err(errno),
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(start))?.min(size);
        rustix::fs::seek(to, SeekFrom::Start(start))?;
        let mut offset = start;
        while offset < end {
            let piece = usize::try_from((end - offset).min(PIECE)).unwrap_or(1);
            if rustix::fs::sendfile(to, from, Some(&mut offset), piece)? == 0 {
                return Err(Errno::IO); // It became shorter, so nobody holds it still.
            }
        }
        copied += end - start;
        at = end;
    }
    rustix::fs::ftruncate(to, size)?;
    Ok(copied)
}

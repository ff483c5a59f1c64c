//! Storage on the disk: a file system of a sandbox's own in a file that has no name, so that it is bounded in
//! bytes and in files, is no part of the memory, and is gone with the sandbox whoever dies at whatever line.
//!
//! As with a [volume](super::volume), the device is seen by nobody else, and the kernel frees it by itself with
//! the last mount.

use super::volume;
use model::limits::FREE_DISK_MIN_BYTES;
use rustix::fd::{AsRawFd as _, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// No journal: nothing of it is read again after a crash, and what it would write costs twice. Its top is the
/// sandbox's root's, and none of the workload's processes reaches it but through what is shown of it.
const OPTIONS: &str = "root_owner=0:0";
const WITHOUT: [&str; 2] = ["-O", "^has_journal,^resize_inode"];

/// An empty file system of `bytes`, mounted nowhere. It takes of the disk what is written in it, so all of them
/// together may promise more than there is; when the disk is full, writes fail. One alone cannot fill it.
pub(super) fn make(dir: &Path, bytes: u64) -> io::Result<OwnedFd> {
    let free = rustix::fs::statvfs(dir)?;
    let free = free.f_bavail.saturating_mul(free.f_frsize);
    if free < FREE_DISK_MIN_BYTES.saturating_add(bytes) {
        return Err(Errno::NOSPC.into());
    }
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(dir, flags, Mode::from_raw_mode(0o600))?;
    let file = File::from(file);
    file.set_len(bytes)?;
    volume::format(&by_descriptor(&file), OPTIONS, &WITHOUT)?;
    let device = volume::attach(&file)?;
    // Tables that nobody uses are not written out in the background; what is deleted goes back to the disk.
    volume::mount(&device, &["noinit_itable", "discard"], false)
}

/// For a program that opens it while this process is there.
fn by_descriptor(file: &File) -> PathBuf {
    PathBuf::from(format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        file.as_raw_fd()
    ))
}

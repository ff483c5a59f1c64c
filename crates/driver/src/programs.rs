//! The launcher, the guest and sudo, as they are carried inside this binary.

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;

/// The launcher, a static program.
pub const JAIL: &[u8] = include_bytes!(env!("JAIL_PROGRAM"));

/// The guest, a static program.
pub const GUEST: &[u8] = include_bytes!(env!("GUEST_PROGRAM"));

/// What `sudo` is inside, a static program.
pub const SUDO: &[u8] = include_bytes!(env!("SUDO_PROGRAM"));

/// A file in memory that holds `program` and that nobody can change any more, ready to be run.
///
/// No file on disk means nothing to install, to find, or to swap between the check and the use.
///
/// # Errors
/// Those of `memfd_create(2)` and of writing it.
pub fn sealed(name: &str, program: &[u8]) -> Result<OwnedFd, Errno> {
    let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut left = program;
    while !left.is_empty() {
        let n = rustix::io::write(&file, left)?;
        left = left.get(n..).unwrap_or_default();
    }
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file)
}

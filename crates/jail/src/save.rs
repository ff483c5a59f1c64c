//! Copying what a sandbox wrote, in a process of its own, so that the launcher goes on.
//!
//! The files are a hostile workload's, and this runs with the rights to read and give away any file. So it
//! holds descriptors, opens each name beneath the directory that it is in, follows no link, enters no
//! other file system, and looks at what it has opened before it reads. The workload is frozen meanwhile;
//! were it not, the copy would be wrong and nothing else.

use crate::files::{self, group, kind, open_in, owner};
use crate::mount::failed;
use crate::sys;
use jail::message::{self, Failure};
use jail::plan::{IdMap, Sandbox, UPPER};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timestamps, XattrFlags};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd, RawFd};

/// Directories in one another; each takes two descriptors. Programs make some tens.
const DEPTH_MAX: u32 = 512;

/// The most bytes of all names of one file's attributes, and of one value (`xattr(7)`).
const ATTRIBUTES_MAX: usize = 64 * 1024;

/// Where second names of files are looked up while the copy is made: a directory of the copy, with a name
/// that no overlay has.
const LINKS: &str = ".links";

/// What is copied, from where.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The directories of overlays in the storage.
    overlays: Vec<String>,
    uids: Vec<IdMap>,
    gids: Vec<IdMap>,
}

impl Wanted {
    /// None where the root cannot be written: what was written then is not all of it below overlays.
    pub(crate) fn of(sandbox: &Sandbox) -> Option<Wanted> {
        let root = sandbox.root.as_ref()?;
        Some(Wanted {
            overlays: root.overlays.iter().map(|each| each.name.clone()).collect(),
            uids: sandbox.uids.clone(),
            gids: sandbox.gids.clone(),
        })
    }
}

/// A process that copies.
#[derive(Debug)]
pub(crate) struct Saver {
    pub(crate) id: String,
    pub(crate) pidfd: OwnedFd,
    said: OwnedFd,
}

impl Saver {
    pub(crate) fn start(
        id: String,
        wanted: &Wanted,
        from: &OwnedFd,
        to: &OwnedFd,
    ) -> Result<Saver, Errno> {
        let (said, say) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let Some((_, pidfd)) = sys::fork_into(0)? else {
            child(wanted, [from, to, &say])
        };
        Ok(Saver { id, pidfd, said })
    }

    /// What it said before it ended.
    pub(crate) fn result(&self) -> Result<u64, Failure> {
        let mut bytes = [0; 1024];
        let n = rustix::io::read(&self.said, &mut bytes).unwrap_or(0);
        let silent = || Err(failed("copy", "to the end")(Errno::CANCELED));
        message::decode(bytes.get(..n).unwrap_or_default()).unwrap_or_else(silent)
    }
}

/// The three descriptors of a saver.
const FROM: RawFd = 3;

fn child(wanted: &Wanted, fds: [&OwnedFd; 3]) -> ! {
    let result = prepare(fds).map(|[from, to, say]| (copy_all(wanted, &from, &to), say));
    if let Ok((copied, say)) = result
        && let Some(bytes) = message::encode(&copied)
    {
        let _ = rustix::io::write(&say, &bytes);
        sys::exit_now(0)
    }
    sys::exit_now(1)
}

/// Keeps of the launcher three descriptors and the rights over files, and dies with it: other sandboxes must
/// not live longer because their descriptors are open here.
fn prepare(fds: [&OwnedFd; 3]) -> Result<[OwnedFd; 3], Errno> {
    let kill = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(kill)?;
    let mut lifted = Vec::new();
    for fd in fds {
        lifted.push(rustix::io::fcntl_dupfd_cloexec(fd, FROM + 3)?);
    }
    for (fd, at) in lifted.iter().zip(FROM..) {
        sys::place(fd, at)?;
    }
    std::mem::forget(lifted);
    sys::close_from(FROM + 3)?;
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)?;
    let kept = CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::DAC_READ_SEARCH
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::MKNOD;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets)?;
    rustix::thread::set_no_new_privs(true)?;
    Ok([FROM, FROM + 1, FROM + 2].map(sys::inherited))
}

fn copy_all(wanted: &Wanted, from: &OwnedFd, to: &OwnedFd) -> Result<u64, Failure> {
    rustix::fs::mkdirat(to, LINKS, Mode::from_raw_mode(0o700)).map_err(failed("mkdir", LINKS))?;
    let directory = OFlags::RDONLY | OFlags::DIRECTORY;
    let links = open_in(to, LINKS, directory).map_err(failed("open", LINKS))?;
    let mut copy = Copying {
        wanted,
        links,
        bytes: 0,
        failed: None,
    };
    for name in &wanted.overlays {
        let upper = open_in(from, format!("{name}/{UPPER}"), directory);
        let upper = upper.map_err(failed("open", name))?;
        let copied = copy.top(&upper, to, name);
        copied.map_err(|errno| {
            copy.failed
                .take()
                .unwrap_or_else(|| failed("copy", name)(errno))
        })?;
    }
    let cleared = files::each_name(&copy.links, |name| {
        rustix::fs::unlinkat(&copy.links, name, AtFlags::empty())
    });
    cleared.map_err(failed("clear", LINKS))?;
    rustix::fs::unlinkat(to, LINKS, AtFlags::REMOVEDIR).map_err(failed("remove", LINKS))?;
    // Whoever hears that it is saved may rely on it after a power cut.
    rustix::fs::syncfs(to).map_err(failed("sync", ""))?;
    Ok(copy.bytes)
}

#[derive(Debug)]
struct Copying<'w> {
    wanted: &'w Wanted,
    links: OwnedFd,
    bytes: u64,
    /// The step that failed, where it says more than the error.
    failed: Option<Failure>,
}

impl Copying<'_> {
    fn top(&mut self, upper: &OwnedFd, to: &OwnedFd, name: &str) -> Result<(), Errno> {
        rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
        let made = open_in(to, name, OFlags::RDONLY | OFlags::DIRECTORY)?;
        self.directory(upper, &made, 0)?;
        self.give(upper, &made)
    }

    fn directory(&mut self, from: &OwnedFd, to: &OwnedFd, depth: u32) -> Result<(), Errno> {
        files::each_name(from, |name| self.entry(from, to, name, depth))
    }

    fn entry(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &CStr,
        depth: u32,
    ) -> Result<(), Errno> {
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match kind(&stat) {
            FileType::Directory if depth >= DEPTH_MAX => {
                let step = format!("enter more than {DEPTH_MAX} directories in one another");
                self.failed = Some(failed(&step, "")(Errno::MLINK));
                Err(Errno::MLINK)
            }
            FileType::Directory => {
                let inner = open_in(from, name, OFlags::RDONLY | OFlags::DIRECTORY)?;
                rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
                let made = open_in(to, name, OFlags::RDONLY | OFlags::DIRECTORY)?;
                self.directory(&inner, &made, depth + 1)?;
                self.give(&inner, &made)
            }
            FileType::RegularFile => self.file(from, to, name),
            FileType::Symlink => {
                let says = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(&*says, to, name)?;
                let (uid, gid) = self.ids(&stat);
                let nofollow = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::chownat(to, name, owner(uid), group(gid), nofollow)?;
                rustix::fs::utimensat(to, name, &times(&stat), nofollow)
            }
            // A whiteout: this name of the layers below is removed.
            FileType::CharacterDevice if stat.st_rdev == 0 => {
                rustix::fs::mknodat(to, name, FileType::CharacterDevice, Mode::empty(), 0)
            }
            // Nobody listens at a socket or a pipe of another life, and there are no devices.
            FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Fifo
            | FileType::Socket
            | FileType::Unknown => Ok(()),
        }
    }

    fn file(&mut self, from: &OwnedFd, to: &OwnedFd, name: &CStr) -> Result<(), Errno> {
        let file = open_in(from, name, OFlags::RDONLY)?;
        let stat = rustix::fs::fstat(&file)?;
        if kind(&stat) != FileType::RegularFile {
            return Err(Errno::AGAIN); // It was another a moment ago: nothing here is frozen.
        }
        let link = format!("{}", stat.st_ino);
        if stat.st_nlink > 1 {
            // A second name of what was copied already.
            match rustix::fs::linkat(&self.links, &*link, to, name, AtFlags::empty()) {
                Err(Errno::NOENT) => {}
                linked => return linked,
            }
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let made = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?;
        self.bytes += files::copy_content(&file, &made)?;
        self.give(&file, &made)?;
        if stat.st_nlink > 1 {
            rustix::fs::linkat(to, name, &self.links, &*link, AtFlags::empty())?;
        }
        Ok(())
    }

    /// Owner, mode, attributes and times, in an order in which none undoes another.
    fn give(&self, from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
        let stat = rustix::fs::fstat(from)?;
        let (uid, gid) = self.ids(&stat);
        rustix::fs::fchown(to, owner(uid), group(gid))?;
        // Root inside is 0, and so on the disk is root's. Its set-user-id bits have no effect inside; on the
        // host they would, if ever somebody came into this directory.
        let kept = if kind(&stat) == FileType::Directory {
            0o7777
        } else {
            0o1777
        };
        rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & kept))?;
        copy_attributes(from, to)?;
        rustix::fs::futimens(to, &times(&stat))
    }

    fn ids(&self, stat: &Stat) -> (u32, u32) {
        (
            inside(&self.wanted.uids, stat.st_uid),
            inside(&self.wanted.gids, stat.st_gid),
        )
    }
}

/// What the kernel shows for an id that a map does not have.
const NOBODY: u32 = 65534;

/// The id inside of which this one stands.
fn inside(maps: &[IdMap], outside: u32) -> u32 {
    let of = |map: &IdMap| {
        let above = outside.checked_sub(map.outside)?;
        (above < map.count).then(|| map.inside + above)
    };
    maps.iter().find_map(of).unwrap_or(NOBODY)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanos: u64| rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanos).unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// Which attributes are a user's, or say that a directory hides those below it. What else the overlay has
/// noted is about the layers that it had, and none of the workload's attributes has such a name: it can
/// only write through the overlay, which gives them another.
fn is_kept(name: &[u8]) -> bool {
    match name.strip_prefix(b"user.overlay.") {
        None => name.starts_with(b"user."),
        Some(rest) => rest == b"opaque" || rest.starts_with(b"overlay."),
    }
}

fn copy_attributes(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    let mut names = vec![0_u8; ATTRIBUTES_MAX];
    let length = match rustix::fs::flistxattr(from, &mut *names) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        other => other?,
    };
    let names = names.get(..length).unwrap_or_default();
    for name in names.split(|byte| *byte == 0).filter(|name| is_kept(name)) {
        let mut value = vec![0_u8; ATTRIBUTES_MAX];
        let length = rustix::fs::fgetxattr(from, name, &mut *value)?;
        let value = value.get(..length).unwrap_or_default();
        rustix::fs::fsetxattr(to, name, value, XattrFlags::empty())?;
    }
    Ok(())
}

/// Frees the launcher of a child that is dead.
pub(crate) fn is_over(saver: &Saver) -> bool {
    let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOHANG;
    let it = rustix::process::WaitId::PidFd(saver.pidfd.as_fd());
    !matches!(rustix::process::waitid(it, options), Ok(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_outside_is_the_id_inside_that_it_stands_for() {
        let map = [IdMap {
            inside: 0,
            outside: 0x1000_0000,
            count: 65536,
        }];
        assert_eq!(inside(&map, 0x1000_0000), 0);
        assert_eq!(inside(&map, 0x1000_03e8), 1000);
        assert_eq!(inside(&map, 0x1001_0000), NOBODY);
        assert_eq!(inside(&map, 0), NOBODY);
    }

    #[test]
    fn of_the_overlays_own_attributes_only_opaque_is_kept() {
        for kept in [
            "user.mine",
            "user.overlay.opaque",
            "user.overlay.overlay.opaque",
        ] {
            assert!(is_kept(kept.as_bytes()), "{kept}");
        }
        for left in [
            "user.overlay.origin",
            "user.overlay.redirect",
            "security.capability",
            "",
        ] {
            assert!(!is_kept(left.as_bytes()), "{left}");
        }
    }
}

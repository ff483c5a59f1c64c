//! Mounts, by descriptor wherever the kernel lets us, so that no path is walked twice.

use jail::message::Failure;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// What failed, and where.
pub(crate) fn failed(step: &str, what: &str) -> impl FnOnce(Errno) -> Failure {
    let step = if what.is_empty() {
        step.to_owned()
    } else {
        format!("{step} {what}")
    };
    move |errno| Failure {
        step,
        errno: errno.raw_os_error(),
    }
}

/// A new tmpfs with these limits, mounted nowhere yet. Never with set-user-id or device files.
pub(crate) fn tmpfs(bytes: u64, inodes: u64) -> Result<OwnedFd, Errno> {
    let fs = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&fs, "size", bytes.to_string())?;
    rustix::mount::fsconfig_set_string(&fs, "nr_inodes", inodes.to_string())?;
    rustix::mount::fsconfig_set_string(&fs, "mode", "0755")?;
    rustix::mount::fsconfig_create(&fs)?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

/// A new proc of the caller's pid namespace, mounted nowhere yet.
pub(crate) fn proc() -> Result<OwnedFd, Errno> {
    let fs = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&fs)?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

/// Terminals of one sandbox; the kernel has some thousand for the whole machine.
const TERMINALS_MAX: u32 = 64;

/// A new devpts with terminals that nobody else has, mounted nowhere yet.
pub(crate) fn terminals() -> Result<OwnedFd, Errno> {
    let fs = rustix::mount::fsopen("devpts", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&fs, "max", TERMINALS_MAX.to_string())?;
    rustix::mount::fsconfig_set_string(&fs, "mode", "0620")?;
    rustix::mount::fsconfig_set_string(&fs, "ptmxmode", "0666")?;
    rustix::mount::fsconfig_create(&fs)?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

/// A copy of what is mounted at `path`, and with `recursive` of all below it, mounted nowhere yet.
pub(crate) fn copy(path: impl rustix::path::Arg, recursive: Recursive) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive == Recursive::Yes {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(CWD, path, flags)
}

/// Whether mounts below a mount are meant too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recursive {
    /// They are.
    Yes,
    /// They are not.
    No,
}

/// Mounts what `mount` holds at `target`, relative to `at`.
pub(crate) fn attach(
    mount: &OwnedFd,
    at: impl AsFd,
    target: impl rustix::path::Arg,
) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", at, target, flags)
}

/// Mounts an overlay. Its marks are user attributes, because this is not the host's root; whatever makes a
/// name mean a file elsewhere (redirects, metacopy) is off then, see `overlayfs.rst` of the kernel.
pub(crate) fn overlay(lower: &[String], storage: &str, target: &str) -> Result<(), Errno> {
    use jail::plan::{UPPER, WORK};
    let options = format!(
        "userxattr,lowerdir={},upperdir={storage}/{UPPER},workdir={storage}/{WORK}",
        lower.join(":")
    );
    let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
    let flags = rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV;
    rustix::mount::mount("overlay", target, "overlay", flags, &*options)
}

/// Mounts `source` at `target` with everything that is mounted in it.
pub(crate) fn bind_all(source: &str, target: &str) -> Result<(), Errno> {
    rustix::mount::mount_bind_recursive(source, target)
}

/// Mounts `source` at `target` as well; both are paths of this namespace.
pub(crate) fn bind(source: &str, target: &str) -> Result<(), Errno> {
    rustix::mount::mount_bind(source, target)
}

/// The layout of `struct mount_attr` in `mount_setattr(2)`.
#[repr(C)]
#[derive(Debug)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// Sets these flags on the mount that `mount` holds and, with `recursive`, on all below it. The
/// kernel does all or none of them, which a remount for each path could not.
pub(crate) fn restrict(
    mount: impl AsFd,
    flags: MountAttrFlags,
    recursive: Recursive,
) -> Result<(), Errno> {
    let attr = MountAttr {
        set: u64::from(flags.bits()),
        clear: 0,
        propagation: 0,
        userns: 0,
    };
    set_attributes(mount, &attr, recursive)
}

/// `MOUNT_ATTR_IDMAP` of `mount_setattr(2)`.
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// Whether a mount is written too, unless it was read-only before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is.
    Yes,
    /// It is only read.
    No,
}

/// Shows the ids that are on the disk, in what `mount` holds and all below it, as the same ids of this user
/// namespace. Only for a mount that is mounted nowhere yet, see `mount_setattr(2)`.
pub(crate) fn map_ids(mount: impl AsFd, userns: &OwnedFd, written: Written) -> Result<(), Errno> {
    let mut flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    if written == Written::No {
        flags |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    let attr = MountAttr {
        set: u64::from(flags.bits()) | MOUNT_ATTR_IDMAP,
        clear: 0,
        propagation: 0,
        userns: u64::from(userns.as_raw_fd().unsigned_abs()),
    };
    set_attributes(mount, &attr, Recursive::Yes)
}

#[expect(unsafe_code, reason = "mount_setattr has no safe wrapper")]
fn set_attributes(mount: impl AsFd, attr: &MountAttr, recursive: Recursive) -> Result<(), Errno> {
    let mut at = libc::AT_EMPTY_PATH;
    if recursive == Recursive::Yes {
        at |= libc::AT_RECURSIVE;
    }
    // SAFETY: the path is a terminated string and `attr` is read for exactly the length given.
    // JUSTIFICATION: rustix 1.1 does not wrap mount_setattr(2).
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            at,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(crate::sys::errno())
    }
}

/// Cuts the namespace loose from the host's: nothing mounted from now on, here or there, is seen on
/// the other side.
pub(crate) fn make_private() -> Result<(), Errno> {
    use rustix::mount::MountPropagationFlags as Flags;
    rustix::mount::mount_change("/", Flags::PRIVATE | Flags::REC)
}

/// Makes the tree at the working directory the root, and takes the old root away with everything
/// mounted in it. See the last paragraph of `pivot_root(2)` for the two dots.
pub(crate) fn enter_root() -> Result<(), Errno> {
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}

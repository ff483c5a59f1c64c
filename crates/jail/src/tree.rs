//! Building the tree that every sandbox of this launcher sees, and leaving the host's for it.

use crate::files::{group, owner};
use crate::mount::{self, Recursive, failed};
use crate::readable;
use jail::message::Failure;
use jail::plan::{EMPTY_DIR, EMPTY_FILE, Op, Tree};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Bytes and files of the tree itself: names and mount points, a few synthetic files, and what of the host's
/// `/etc` is copied (a few MiB; fonts, Java and certificates are most of it).
const TREE_BYTES: u64 = 64 << 20;
const TREE_INODES: u64 = 65536;

/// Moves this process into a mount namespace of its own in which nothing but the tree is left, all of
/// it read-only.
pub(crate) fn enter(tree: &Tree, program: &OwnedFd) -> Result<(), Failure> {
    crate::sys::unshare(libc::CLONE_NEWNS).map_err(failed("unshare", "mount"))?;
    mount::make_private().map_err(failed("make private", "/"))?;
    let root = mount::tmpfs(TREE_BYTES, TREE_INODES).map_err(failed("tmpfs", "/"))?;
    let staging = tree.staging.display().to_string();
    mount::attach(&root, CWD, &tree.staging).map_err(failed("mount", &staging))?;
    rustix::process::fchdir(&root).map_err(failed("chdir", &staging))?;
    for op in covers().iter().chain(&tree.ops) {
        apply(op, program)?;
    }
    mount::enter_root().map_err(failed("pivot_root", ""))?;
    mount::restrict(&root, MountAttrFlags::MOUNT_ATTR_RDONLY, Recursive::No)
        .map_err(failed("read-only", "/"))
}

/// What [`jail::plan::Sandbox::masked`] paths are covered with.
fn covers() -> [Op; 2] {
    [
        Op::Dir {
            path: EMPTY_DIR.to_owned(),
            mode: 0o555,
        },
        Op::File {
            path: EMPTY_FILE.to_owned(),
            mode: 0o444,
            content: Vec::new(),
        },
    ]
}

/// A path of the tree, relative to the working directory, which is its root while it is built.
fn below(path: &str) -> Result<&str, Failure> {
    let relative = path.trim_start_matches('/');
    let climbs = relative.split('/').any(|part| part == "..");
    if relative.is_empty() || climbs {
        return Err(Failure {
            step: format!("target {path}"),
            errno: libc::EINVAL,
        });
    }
    Ok(relative)
}

fn apply(op: &Op, program: &OwnedFd) -> Result<(), Failure> {
    match op {
        Op::Dir { path, mode } => make_dirs(below(path)?, *mode).map_err(failed("mkdir", path)),
        Op::File {
            path,
            mode,
            content,
        } => write_file(below(path)?, *mode, content).map_err(failed("write", path)),
        Op::Link { path, to } => {
            make_parents(below(path)?).map_err(failed("mkdir", path))?;
            rustix::fs::symlink(to, below(path)?).map_err(failed("link", path))
        }
        Op::Bind { source, target } => {
            bind(source, below(target)?).map_err(failed("bind", &source.display().to_string()))
        }
        Op::Device { source, target } => {
            device(source, below(target)?).map_err(failed("device", source))
        }
        Op::HostProc { target } => host_proc(below(target)?).map_err(failed("host proc", target)),
        Op::Owner { path, id } => {
            let none = rustix::fs::AtFlags::empty();
            rustix::fs::chownat(CWD, below(path)?, owner(*id), group(*id), none)
                .map_err(failed("owner", path))
        }
        Op::Copy { source, target } => {
            let path = source.display().to_string();
            make_parents(below(target)?).map_err(failed("mkdir", target))?;
            readable::copy(source, below(target)?).map_err(failed("copy", &path))
        }
        Op::Lower {
            source,
            target,
            mask,
        } => lower(source, target, mask.as_deref()),
        Op::Program { path } => write_program(below(path)?, program).map_err(failed("write", path)),
    }
}

/// One file system alone: an overlay does not see what is mounted in its layers.
fn lower(source: &Path, target: &str, mask: Option<&str>) -> Result<(), Failure> {
    let path = source.display().to_string();
    let made = mount::copy(source, Recursive::No).and_then(|copy| {
        make_target(&copy, below(target).unwrap_or_default())?;
        mount::restrict(&copy, SHOWN, Recursive::No)?;
        mount::attach(&copy, CWD, below(target).unwrap_or_default())?;
        Ok(copy)
    });
    let copy = made.map_err(failed("lower", &path))?;
    if let Some(mask) = mask {
        let relative = below(mask)?;
        make_dirs(relative, 0o755).map_err(failed("mkdir", mask))?;
        readable::mask(&copy, relative).map_err(failed("mask", &path))?;
    }
    Ok(())
}

fn write_program(path: &str, program: &OwnedFd) -> Result<(), Errno> {
    make_parents(path)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o755))?;
    crate::files::copy_content(program, &file).map(drop)
}

fn make_parents(path: &str) -> Result<(), Errno> {
    path.rsplit_once('/')
        .map_or(Ok(()), |(parent, _)| make_dirs(parent, 0o755))
}

/// Makes a directory and its parents. One that is there keeps its mode, except the last, whose mode is
/// set whatever the umask is.
fn make_dirs(path: &str, mode: u32) -> Result<(), Errno> {
    let ends = path
        .match_indices('/')
        .map(|(at, _)| at)
        .chain([path.len()]);
    for end in ends {
        let part = path.get(..end).unwrap_or_default();
        match rustix::fs::mkdir(part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    rustix::fs::chmod(path, Mode::from_raw_mode(mode))
}

fn write_file(path: &str, mode: u32, content: &[u8]) -> Result<(), Errno> {
    make_parents(path)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(mode))?;
    let mut left = content;
    while !left.is_empty() {
        let n = rustix::io::write(&file, left)?;
        left = left.get(n..).unwrap_or_default();
    }
    Ok(())
}

/// A bind needs something of the same kind below it.
fn make_target(source: &OwnedFd, target: &str) -> Result<(), Errno> {
    let mode = rustix::fs::fstat(source)?.st_mode;
    let made = if rustix::fs::FileType::from_raw_mode(mode) == rustix::fs::FileType::Directory {
        make_dirs(target, 0o755)
    } else {
        write_file(target, 0o444, b"")
    };
    if made == Err(Errno::EXIST) {
        Ok(())
    } else {
        made
    }
}

/// How all of the host is shown.
const SHOWN: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY
    .union(MountAttrFlags::MOUNT_ATTR_NOSUID)
    .union(MountAttrFlags::MOUNT_ATTR_NODEV);

fn bind(source: &Path, target: &str) -> Result<(), Errno> {
    let copy = mount::copy(source, Recursive::Yes)?;
    make_target(&copy, target)?;
    mount::restrict(&copy, SHOWN, Recursive::Yes)?;
    mount::attach(&copy, CWD, target)
}

/// A device file on a read-only mount can be read and written, but not changed in mode or owner.
fn device(source: &str, target: &str) -> Result<(), Errno> {
    let copy = mount::copy(source, Recursive::No)?;
    make_target(&copy, target)?;
    let flags = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    mount::restrict(&copy, flags, Recursive::No)?;
    mount::attach(&copy, CWD, target)
}

fn host_proc(target: &str) -> Result<(), Errno> {
    let copy = mount::copy("/proc", Recursive::Yes)?;
    make_dirs(target, 0o555)?;
    mount::attach(&copy, CWD, target)
}

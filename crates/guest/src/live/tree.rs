//! Files and directories, touched as the user who asks.
//!
//! Whatever the workload has laid in the way, a path is walked by the kernel with that user's rights
//! and never through proc's magic links; nothing in proc is touched at all, because to proc this
//! process is itself, whoever it acts for. What is opened is looked at before it is used, so that no
//! pipe or device is waited on.

use super::failure::{Code, Failure};
use super::path;
use super::user::User;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// `f_type` of proc, see `statfs(2)`.
const PROC: u64 = 0x9fa0;

/// Directories in one another that are gone through. Programs make fewer; each takes a descriptor.
pub(super) const DEPTH_MAX: usize = 96;

/// What new directories get; the umask of the guest is not the workload's.
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);

/// The kernel's refusal of a path.
fn refused(path: &str) -> impl Fn(Errno) -> Failure {
    move |errno| Failure::errno(path, errno)
}

fn outside_proc(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    let kind = fs::fstatfs(&fd)?.f_type;
    if u64::try_from(kind).is_ok_and(|kind| kind == PROC) {
        return Err(Errno::ACCESS);
    }
    Ok(fd)
}

/// Opens what is at a clean path, links followed.
pub(super) fn open(path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    // What is only named, and not opened, waits for nobody.
    let waits = OFlags::NOCTTY | OFlags::NONBLOCK;
    let waits = if flags.contains(OFlags::PATH) {
        OFlags::empty()
    } else {
        waits
    };
    let flags = flags | OFlags::CLOEXEC | waits;
    let links = ResolveFlags::NO_MAGICLINKS;
    fs::openat2(fs::CWD, path, flags, mode, links).and_then(outside_proc)
}

/// A directory, to look for names in it.
pub(super) fn open_directory(path: &str) -> Result<OwnedFd, Errno> {
    open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
}

/// The directory that a path is in, and the name there.
pub(super) fn parent(path: &str) -> Result<(OwnedFd, &str), Failure> {
    let (directory, name) =
        path::split(path).ok_or_else(|| Failure::invalid("that is the root directory"))?;
    let directory = open_directory(directory).map_err(refused(directory))?;
    Ok((directory, name))
}

/// Looks at a name, links not followed.
pub(super) fn look(directory: impl AsFd, name: &str) -> Result<Stat, Errno> {
    fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// What a file is.
pub(super) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Makes a directory and those above it. Whether it was there already.
pub(super) fn make_directories(path: &str) -> Result<bool, Failure> {
    let mut there = true;
    let mut ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).skip(1).collect();
    ends.push(path.len());
    for end in ends {
        let so_far = path.get(..end).unwrap_or_default();
        if open_directory(so_far).is_ok() {
            continue;
        }
        let (above, name) = parent(so_far)?;
        match fs::mkdirat(&above, name, DIRECTORY_MODE) {
            Ok(()) => there = false,
            // Made meanwhile, or no directory, which the next look tells.
            Err(Errno::EXIST) => {
                open_directory(so_far).map_err(refused(so_far))?;
            }
            Err(errno) => return Err(Failure::errno(so_far, errno)),
        }
    }
    Ok(there)
}

/// Makes the directories above a path.
pub(super) fn make_parents(path: &str) -> Result<(), Failure> {
    match path::split(path) {
        Some(("/", _)) | None => Ok(()),
        Some((directory, _)) => make_directories(directory).map(drop),
    }
}

/// Opens a regular file to read it.
pub(super) fn open_to_read(path: &str) -> Result<(OwnedFd, Stat), Failure> {
    let file = open(path, OFlags::RDONLY, Mode::empty()).map_err(refused(path))?;
    let stat = regular(path, &file)?;
    Ok((file, stat))
}

/// Opens a file to write it from its beginning; makes it and the directories above it if need be.
pub(super) fn open_to_write(path: &str) -> Result<OwnedFd, Failure> {
    make_parents(path)?;
    let file = match open(path, OFlags::WRONLY, Mode::empty()) {
        Err(Errno::NOENT) => make(path),
        opened => opened,
    };
    let file = file.map_err(refused(path))?;
    regular(path, &file)?;
    // Only now: a device or a pipe must not be touched.
    fs::ftruncate(&file, 0).map_err(refused(path))?;
    Ok(file)
}

/// What new files get.
const FILE_MODE: Mode = Mode::from_raw_mode(0o644);

/// Makes a file. E2B's envd gives a new file to its user after it made it, and clients that watch a
/// directory count on being told of both; here the second is that it gets its mode.
fn make(path: &str) -> Result<OwnedFd, Errno> {
    let file = open(path, OFlags::WRONLY | OFlags::CREATE, FILE_MODE)?;
    fs::fchmod(&file, FILE_MODE)?;
    Ok(file)
}

/// Where the kernel tells how it is set. Nothing there is of one process, so it is the same for this one
/// as for the workload.
const SETTINGS: &str = "/proc/sys/";
/// Most are a line. The longest is a list of ports, of which there are so many.
const SETTING_MAX: usize = 64 * 1024;

/// What a setting of the kernel says, if that is what is at `path`.
pub(super) fn read_setting(path: &str) -> Option<Result<Vec<u8>, Failure>> {
    let name = path.strip_prefix(SETTINGS)?;
    // No link may lead from here to what is this process's own.
    let links = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let read = || {
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let settings = fs::openat(fs::CWD, SETTINGS, directory, Mode::empty())?;
        let file = fs::openat2(settings, name, flags, Mode::empty(), links)?;
        let mut bytes = vec![0; SETTING_MAX];
        let n = rustix::io::read(&file, &mut bytes)?;
        bytes.truncate(n);
        Ok(bytes)
    };
    Some(read().map_err(refused(path)))
}

fn regular(path: &str, file: &OwnedFd) -> Result<Stat, Failure> {
    let stat = fs::fstat(file).map_err(refused(path))?;
    match kind(&stat) {
        FileType::RegularFile => Ok(stat),
        FileType::Directory => Err(Failure::invalid(format!("path '{path}' is a directory"))),
        FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Err(Failure::invalid(format!(
            "path '{path}' is no regular file"
        ))),
    }
}

/// Removes what is at a path, with all below it. What is not there needs no removing.
pub(super) fn remove(user: User, path: &str) -> Result<(), Failure> {
    user.act(|| {
        let (directory, name) = match parent(path) {
            Err(missing) if missing.code == Code::NotFound => return Ok(()),
            found => found?,
        };
        remove_below(&directory, name, path)
    })
}

/// Removes what has this name in a directory, with all below it. `path` is how the client knows it.
pub(super) fn remove_below(directory: &OwnedFd, name: &str, path: &str) -> Result<(), Failure> {
    let name = std::ffi::CString::new(name).map_err(|_| Failure::invalid("zero bytes"))?;
    remove_in(directory, &name, 0).map_err(|errno| match errno {
        Errno::MLINK => Failure::new(
            Code::ResourceExhausted,
            format!("{path}: its directories are too deep"),
        ),
        _ => Failure::errno(path, errno),
    })
}

fn remove_in(directory: &OwnedFd, name: &std::ffi::CStr, depth: usize) -> Result<(), Errno> {
    match fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    match fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    if depth >= DEPTH_MAX {
        return Err(Errno::MLINK);
    }
    let inner = open_below(directory, name)?;
    let mut entries = fs::Dir::read_from(&inner)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            remove_in(&inner, entry.file_name(), depth + 1)?;
        }
    }
    fs::unlinkat(directory, name, AtFlags::REMOVEDIR)
}

/// Opens a directory by its name in another, links not followed, to list it.
pub(super) fn open_below(directory: &OwnedFd, name: &std::ffi::CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(directory, name, flags, Mode::empty()).and_then(outside_proc)
}

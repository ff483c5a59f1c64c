//! Volumes: file systems of their own in one file each, which bounds what is written in them whatever is
//! done there.
//!
//! A file system is made here and its device is seen by nobody else, so what the kernel reads is what it
//! wrote. It is mounted nowhere on the host: each sandbox gets a mount of its own as a descriptor, all of one
//! superblock. The kernel unmounts it with the last of them and then frees the loop device by itself
//! (`LO_FLAGS_AUTOCLEAR`, see `loop(4)`), so that whoever dies at whatever line leaves nothing.

use crate::driver::{DriverError, Volume};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Behind the name of a file system that is not whole yet.
const HALF: &str = "new";
/// Where a program of e2fsprogs is, of which the search path of a service may have none.
const SBIN: [&str; 5] = [
    "/usr/sbin",
    "/sbin",
    "/usr/local/sbin",
    "/usr/bin",
    "/run/current-system/sw/bin",
];
const MKFS: &str = "mkfs.ext4";
const LOOP_CONTROL: &str = "/dev/loop-control";
/// Another program may take a free loop device before we do.
const LOOP_TRIES: u32 = 64;
/// What the kernel's `major.h` gives to loop devices.
const LOOP_MAJOR: u32 = 7;

/// Why no volume can be kept here, if so. Looks, and tries nothing.
pub(crate) fn no_volumes() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("the node is not root, and only root mounts a file system".to_owned());
    }
    if let Err(error) = File::open(LOOP_CONTROL) {
        return Some(format!(
            "there are no loop devices: {LOOP_CONTROL}: {error}"
        ));
    }
    mkfs()
        .is_none()
        .then(|| format!("there is no {MKFS}: install e2fsprogs"))
}

fn mkfs() -> Option<PathBuf> {
    let paths = SBIN.iter().map(|dir| Path::new(dir).join(MKFS));
    paths.into_iter().find(|path| path.is_file())
}

/// A mount of each, mounted nowhere; made before where it is new.
pub(super) fn open_all(volumes: &[Volume]) -> Result<Vec<OwnedFd>, DriverError> {
    volumes.iter().map(open_one).collect()
}

fn open_one(volume: &Volume) -> Result<OwnedFd, DriverError> {
    let failed = |step: &str| {
        let step = format!("{step} the volume at {}", volume.target);
        move |source| DriverError::SetUp { step, source }
    };
    if !volume.image.exists() {
        if !volume.is_new {
            let lost = io::Error::new(io::ErrorKind::NotFound, "its bytes are not on the node");
            return Err(failed("find")(lost));
        }
        make(volume).map_err(failed("make"))?;
    }
    open(&volume.image, volume.read_only).map_err(failed("mount"))
}

/// Makes a file system under another name and gives it its own when it is whole, for good.
fn make(volume: &Volume) -> io::Result<()> {
    let directory = volume.image.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let half = volume.image.with_extension(HALF);
    // One maker at a time. If we die here the next one begins anew, because the name is not the real one.
    let lock = File::open(directory)?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
    if volume.image.exists() {
        return Ok(());
    }
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&half)?;
    file.set_len(volume.size_bytes)?;
    // Its top belongs to the workload's user.
    format(&half, "lazy_journal_init=1,root_owner=1000:1000", &[])?;
    // Of a new file system only; nobody has written in it yet.
    let top = open(&half, false)?;
    match rustix::fs::unlinkat(&top, "lost+found", AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    rustix::fs::syncfs(&open_directory(&top)?)?;
    drop(top);
    file.sync_all()?;
    std::fs::rename(&half, &volume.image)?;
    lock.sync_all()
}

/// What `mount` holds, opened so that it can be synced: a mount's own descriptor only names it.
fn open_directory(mount: impl AsFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(mount, ".", flags, Mode::empty())?)
}

/// An empty file system, made with these words beside those that all have. Nothing is kept back for the host's
/// root, which never writes there; an error makes it read-only.
#[expect(
    clippy::disallowed_methods,
    reason = "this is a place that clears what a child inherits"
)]
pub(super) fn format(path: &Path, options: &str, more: &[&str]) -> io::Result<()> {
    let program = mkfs().ok_or(io::ErrorKind::NotFound)?;
    let options = format!("lazy_itable_init=1,nodiscard,{options}");
    let output = Command::new(program)
        .args(["-q", "-F", "-m", "0", "-e", "remount-ro", "-E", &options])
        .args(more)
        .arg("--")
        .arg(path)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let said: String = String::from_utf8_lossy(&output.stderr)
        .chars()
        .take(200)
        .collect();
    Err(io::Error::other(format!("{MKFS}: {}", said.trim())))
}

/// A mount of the file system in a file, mounted nowhere.
fn open(image: &Path, read_only: bool) -> io::Result<OwnedFd> {
    // Two devices of one file would be two file systems that know nothing of each other and destroy it. So
    // whoever looks for its device, and takes one if there is none, does that alone. The lock is of an opening
    // of its own: the kernel keeps the one that a device is given, and a lock with it.
    let lock = File::open(image)?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
    let file = File::options().read(true).write(true).open(image)?;
    let device = match attached(&file)? {
        Some(found) => found,
        None => attach(&file)?,
    };
    // What is deleted goes back to the disk of the node.
    let mount = mount(&device, &["discard"], read_only)?;
    tracing::debug!(loop.number = device.1, "a volume is mounted for a sandbox");
    Ok(mount)
}

/// A mount of the file system on a device, mounted nowhere. One that is mounted already is the same file
/// system from here on, and not mounted twice.
pub(super) fn mount(
    (device, number): &(File, u32),
    options: &[&str],
    read_only: bool,
) -> io::Result<OwnedFd> {
    let fs = rustix::mount::fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // By its descriptor, where `/dev` has no name for it.
    let name = format!("/dev/loop{number}");
    let source = match Path::new(&name).exists() {
        true => name,
        false => format!("/proc/self/fd/{}", device.as_raw_fd()),
    };
    rustix::mount::fsconfig_set_string(&fs, "source", &source)?;
    for option in options {
        rustix::mount::fsconfig_set_flag(&fs, *option)?;
    }
    rustix::mount::fsconfig_create(&fs)?;
    let mut flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    if read_only {
        flags |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    Ok(rustix::mount::fsmount(
        &fs,
        FsMountFlags::FSMOUNT_CLOEXEC,
        flags,
    )?)
}

/// The loop device that has this file, and its number. As long as it is open here it keeps it.
fn attached(file: &File) -> io::Result<Option<(File, u32)>> {
    let stat = file.metadata()?;
    for entry in std::fs::read_dir("/sys/block")? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("loop"));
        let Some(number) = number.and_then(|number| number.parse().ok()) else {
            continue;
        };
        let has_file = Path::new("/sys/block")
            .join(&name)
            .join("loop/backing_file");
        if !has_file.exists() {
            continue;
        }
        // It may have gone meanwhile.
        let Ok(device) = loop_device(number) else {
            continue;
        };
        match status(&device) {
            // `lo_device` is encoded as `stat(2)` has it on 64 bits (`huge_encode_dev`).
            Ok(status) if (status.device, status.inode) == (stat.dev(), stat.ino()) => {
                return Ok(Some((device, number)));
            }
            Ok(_) | Err(_) => {}
        }
    }
    Ok(None)
}

/// Gives a file a loop device, and says its number.
pub(super) fn attach(file: &File) -> io::Result<(File, u32)> {
    let control = File::options().read(true).write(true).open(LOOP_CONTROL)?;
    for _ in 0..LOOP_TRIES {
        let number = free_number(&control)?;
        let device = loop_device(number)?;
        match configure(&device, file) {
            Ok(()) => return Ok((device, number)),
            Err(Errno::BUSY) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(Errno::BUSY.into())
}

/// Opens a loop device by its number. Where `/dev` is not the kernel's own there may be no name for it, and
/// then one is made for a moment.
fn loop_device(number: u32) -> io::Result<File> {
    let open = |path: &Path| {
        let file = File::options().read(true).write(true).open(path)?;
        let stat = rustix::fs::fstat(&file)?;
        let is_it = FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice
            && rustix::fs::major(stat.st_rdev) == LOOP_MAJOR
            && rustix::fs::minor(stat.st_rdev) == number;
        if is_it {
            Ok(file)
        } else {
            Err(io::Error::from(io::ErrorKind::NotFound))
        }
    };
    match open(&PathBuf::from(format!("/dev/loop{number}"))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    let dir = PathBuf::from(format!("/dev/.cofferdam-loop-{}", std::process::id()));
    let device = rustix::fs::makedev(LOOP_MAJOR, number);
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &dir, FileType::BlockDevice, mode, device)?;
    let opened = open(&dir);
    // If we die before this line a device file is left that only root opens.
    std::fs::remove_file(&dir)?;
    opened
}

// Numbers and structures of the kernel's `include/uapi/linux/loop.h`.
const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Debug)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
#[derive(Debug)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const NO_INFO: Info = Info {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

#[expect(unsafe_code, reason = "loop devices have no safe wrapper")]
fn free_number(control: &File) -> Result<u32, Errno> {
    // SAFETY: this request takes no argument.
    // JUSTIFICATION: rustix wraps no requests of loop devices.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    u32::try_from(number).map_err(|_| errno())
}

#[expect(unsafe_code, reason = "loop devices have no safe wrapper")]
fn status(device: &File) -> Result<Info, Errno> {
    let mut info = NO_INFO;
    // SAFETY: `info` has the layout that the request writes, and outlives the call.
    // JUSTIFICATION: rustix wraps no requests of loop devices.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) };
    if result == 0 { Ok(info) } else { Err(errno()) }
}

#[expect(unsafe_code, reason = "loop devices have no safe wrapper")]
fn configure(device: &File, file: &File) -> Result<(), Errno> {
    let config = Config {
        fd: file.as_raw_fd().unsigned_abs(),
        block_size: 0,
        info: Info {
            flags: LO_FLAGS_AUTOCLEAR,
            ..NO_INFO
        },
        reserved: [0; 8],
    };
    // SAFETY: `config` has the layout that the request reads, and outlives the call.
    // JUSTIFICATION: rustix wraps no requests of loop devices.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    if result == 0 { Ok(()) } else { Err(errno()) }
}

fn errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

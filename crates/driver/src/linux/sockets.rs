//! Sockets with names in the file system, however long the directory's own name is.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Connections that may wait at a guest: a node that reconnects, and one that it replaced.
const BACKLOG: i32 = 4;

/// Makes a directory and its parents, for this user alone.
pub(super) fn private_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

/// A short name for a directory: an address of a Unix socket has room for 107 bytes only.
fn short(dir: &Path) -> Result<(OwnedFd, PathBuf), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(dir, flags, Mode::empty())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    Ok((fd, path))
}

/// A listening stream socket for a guest. A stale one of the same name is replaced.
pub(super) fn listen(dir: &Path, name: &str) -> io::Result<OwnedFd> {
    Ok(listen_with(dir, name, SocketType::STREAM)?)
}

/// A listening socket of whole messages, for agents of a launcher.
pub(super) fn listen_messages(dir: &Path, name: &str) -> io::Result<OwnedFd> {
    Ok(listen_with(dir, name, SocketType::SEQPACKET)?)
}

fn listen_with(dir: &Path, name: &str, kind: SocketType) -> Result<OwnedFd, Errno> {
    let (_dir, path) = short(dir)?;
    let path = path.join(name);
    match rustix::fs::unlink(&path) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(&path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Removes sockets of launchers at which nobody listens: a launcher that was killed leaves its own, and
/// another one of its name may never be wanted again.
pub(super) fn remove_stale(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| is_launcher(name)) else {
            continue;
        };
        if matches!(connect_messages(dir, name), Err(Errno::CONNREFUSED)) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn is_launcher(name: &str) -> bool {
    name.starts_with("launcher-") && Path::new(name).extension().is_some_and(|end| end == "sock")
}

/// Connects to a guest.
pub(super) async fn connect(dir: &Path, name: &str) -> io::Result<tokio::net::UnixStream> {
    let (_dir, path) = short(dir)?;
    tokio::net::UnixStream::connect(path.join(name)).await
}

/// Connects to a launcher; the socket does not block.
pub(super) fn connect_messages(dir: &Path, name: &str) -> Result<OwnedFd, Errno> {
    let (_dir, path) = short(dir)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let kind = SocketType::SEQPACKET;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path.join(name))?)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_at_which_nobody_listens_goes_and_the_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let dead = listen_messages(dir.path(), "launcher-dead.sock").unwrap();
        let _live = listen_messages(dir.path(), "launcher-live.sock").unwrap();
        drop(dead);
        std::fs::write(dir.path().join("other.sock"), "").unwrap();
        remove_stale(dir.path()).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["launcher-live.sock", "other.sock"]);
    }
}

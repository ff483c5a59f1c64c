//! The way out of a job: a process of the guest's own beside the command, because the guest itself is one loop that
//! must never wait, and carries the command's streams. It gets the node's lines as descriptors, opens the port
//! inside, reads the TUN device if there is one, and carries bytes; it has no rights that the command lacks but its own descriptors.
//!
//! It ends with the job, by the signal that ends everything, and its parent is the first process, so nothing of it
//! stays. If the command kills it, what it carried is cut, and the node's next line begins another one.

use crate::handed;
use crate::live::egress::{Egress, serve_line};
use crate::live::{allow_descriptors, register};
use crate::process;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg,
};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::rc::Rc;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::task::LocalSet;

/// The process, and where it gets lines from.
#[derive(Debug)]
pub(crate) struct Carrier {
    /// Its process id.
    pub(crate) pid: i32,
    lines: OwnedFd,
}

impl Carrier {
    /// Starts it, with a copy of the device: the guest keeps its own, so that the device outlives this process.
    pub(crate) fn start(device: Option<&OwnedFd>) -> Result<Carrier, Errno> {
        let device = device
            .map(|device| rustix::io::fcntl_dupfd_cloexec(device, 0))
            .transpose()?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None)?;
        match process::fork()? {
            0 => {
                // A copy of the command's pipes would keep its input open for ever.
                let device_at = device.as_ref().map(OwnedFd::as_raw_fd);
                let keep = [Some(theirs.as_raw_fd()), device_at];
                process::close_all_but(&mut keep.into_iter().flatten().collect::<Vec<_>>());
                drop(run(theirs, device));
                process::exit_now()
            }
            pid => Ok(Carrier { pid, lines: ours }),
        }
    }

    /// Gives it a line. One that does not fit is dropped, which tells the node.
    pub(crate) fn give(&self, line: &OwnedFd) {
        let fds = [line.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if control.push(SendAncillaryMessage::ScmRights(&fds)) {
            let byte = [IoSlice::new(&[0])];
            let _ = sendmsg(&self.lines, &byte, &mut control, SendFlags::NOSIGNAL);
        }
    }
}

fn run(lines: OwnedFd, device: Option<OwnedFd>) -> io::Result<()> {
    allow_descriptors()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let lines = register(lines, Interest::READABLE)?;
        let egress = Rc::new(Egress::with(device));
        loop {
            let mut ready = lines.readable().await?;
            match handed::receive(lines.get_ref()) {
                Ok(Some(line)) => {
                    let stream = std::os::unix::net::UnixStream::from(line);
                    stream.set_nonblocking(true)?;
                    let stream = UnixStream::from_std(stream)?;
                    tokio::task::spawn_local(serve_line(stream, egress.clone()));
                }
                // The guest is gone, and so is everything in a moment.
                Ok(None) => return Ok(()),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(errno) => return Err(errno.into()),
            }
        }
    })
}

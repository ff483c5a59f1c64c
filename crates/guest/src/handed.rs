//! Descriptors that come over a socket, and the TUN device, which may come so.

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

/// The device of programs that know no proxy: there from the start, or handed over by the launcher before the
/// node brings its first line, or never.
#[derive(Debug)]
pub(crate) struct Device {
    launcher: OwnedFd,
    device: Option<OwnedFd>,
}

impl Device {
    pub(crate) fn new(launcher: OwnedFd, device: Option<OwnedFd>) -> Device {
        Device { launcher, device }
    }

    /// The device, if it is there by now.
    pub(crate) fn get(&mut self) -> Option<&OwnedFd> {
        if self.device.is_none() {
            // Nothing has come, or the launcher has died, and then this process is about to.
            self.device = receive(&self.launcher).ok().flatten();
        }
        self.device.as_ref()
    }

    /// The same for whoever keeps it.
    pub(crate) fn take(&mut self) -> Option<OwnedFd> {
        self.get()?;
        self.device.take()
    }
}

/// Takes one datagram with its descriptor and does not wait for it; `None` when the other end is closed.
pub(crate) fn receive(socket: &OwnedFd) -> Result<Option<OwnedFd>, Errno> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut byte)];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let got = recvmsg(socket, &mut into, &mut control, flags)?;
    let mut fd = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            fd = fds.last();
        }
    }
    if got.bytes == 0 { Ok(None) } else { Ok(fd) }
}

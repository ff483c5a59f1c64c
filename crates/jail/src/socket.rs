//! Datagrams with descriptors, over a `SOCK_SEQPACKET` socket.

use crate::message::{CGROUPS_MAX, LAYERS_MAX, MESSAGE_MAX, VOLUMES_MAX};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The most descriptors that ride along with one datagram: a socket, two for each control group, a TUN device,
/// layers, volumes and a storage.
pub const FDS_MAX: usize = 3 + 2 * CGROUPS_MAX + LAYERS_MAX + VOLUMES_MAX;

/// Sends one datagram with descriptors.
///
/// # Errors
/// Those of `sendmsg(2)`; `AGAIN` on a non-blocking socket whose other end does not read.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    if fds.len() > FDS_MAX || bytes.len() > MESSAGE_MAX {
        return Err(Errno::MSGSIZE);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::MSGSIZE);
    }
    let flags = SendFlags::NOSIGNAL;
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags).map(drop)
}

/// Receives one datagram into `buffer`, which is [`MESSAGE_MAX`] long, with its descriptors. An empty
/// answer means that the other end is closed.
///
/// # Errors
/// Those of `recvmsg(2)`, and `MSGSIZE` for a datagram that does not fit.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<(&[u8], Vec<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if got.flags.contains(rustix::net::ReturnFlags::TRUNC) {
        return Err(Errno::MSGSIZE);
    }
    Ok((buffer.get(..got.bytes).unwrap_or_default(), fds))
}

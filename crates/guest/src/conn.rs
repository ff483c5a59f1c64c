//! The connection to the node: frames in, control frames out, never blocking.

use guest::message::{self, FromGuest};
use guest::wire::{self, Kind};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::OwnedFd;

/// Control frames that wait for a slow node. They are tens of bytes and answer what the node said, so
/// a node that lets more than this pile up is broken and is hung up on.
const QUEUE_MAX: usize = 1024;

/// One connection. The node that connects last is served; the older connection is dropped.
#[derive(Debug)]
pub(crate) struct Conn {
    /// The socket, non-blocking.
    pub(crate) fd: OwnedFd,
    input: Vec<u8>,
    queue: VecDeque<Vec<u8>>,
    /// Bytes of the front of `queue` that were sent already.
    sent: usize,
}

/// The connection is over: the node hung up, or what it said was no frame.
#[derive(Debug)]
pub(crate) struct Closed;

impl Conn {
    pub(crate) fn new(fd: OwnedFd) -> Conn {
        Conn {
            fd,
            input: Vec::new(),
            queue: VecDeque::new(),
            sent: 0,
        }
    }

    /// Queues a message. [`Closed`] when the node does not take what was queued before.
    pub(crate) fn say(&mut self, message: &FromGuest) -> Result<(), Closed> {
        let frame = message::frame(message).map_err(|_| Closed)?;
        self.push(frame)
    }

    /// Queues a whole frame.
    pub(crate) fn push(&mut self, frame: Vec<u8>) -> Result<(), Closed> {
        if self.queue.len() >= QUEUE_MAX {
            return Err(Closed);
        }
        self.queue.push_back(frame);
        Ok(())
    }

    /// No control frame waits to be sent.
    pub(crate) fn idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Sends queued frames until the socket is full. True when all of them went out.
    pub(crate) fn flush(&mut self) -> Result<bool, Closed> {
        while let Some(front) = self.queue.front() {
            match rustix::io::write(&self.fd, front.get(self.sent..).unwrap_or_default()) {
                Ok(n) => self.sent += n,
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => continue,
                Err(_) => return Err(Closed),
            }
            if self.sent >= front.len() {
                self.queue.pop_front();
                self.sent = 0;
            }
        }
        Ok(true)
    }

    /// Sends as much of `parts` as the socket takes now, in one call.
    pub(crate) fn send(&self, parts: &[IoSlice<'_>]) -> Result<usize, Closed> {
        match rustix::io::writev(&self.fd, parts) {
            Ok(n) => Ok(n),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(_) => Err(Closed),
        }
    }

    /// Reads once. The bytes are taken frame by frame with [`Conn::next_frame`].
    pub(crate) fn fill(&mut self) -> Result<(), Closed> {
        let from = self.input.len();
        let want = match self.frame_len()? {
            Some(len) => len.saturating_sub(from).max(wire::HEAD),
            None => 4096,
        };
        self.input.resize(from + want, 0);
        let read = rustix::io::read(&self.fd, self.input.get_mut(from..).unwrap_or_default());
        self.input.truncate(from + read.unwrap_or(0));
        match read {
            Ok(0) => Err(Closed),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(_) => Err(Closed),
        }
    }

    fn frame_len(&self) -> Result<Option<usize>, Closed> {
        let Some(head) = self.input.first_chunk::<{ wire::HEAD }>() else {
            return Ok(None);
        };
        let (_, len) = wire::parse_head(*head).map_err(|_| Closed)?;
        Ok(Some(wire::HEAD + len))
    }

    /// The next whole frame, if it has arrived.
    pub(crate) fn next_frame(&mut self) -> Result<Option<(Kind, Vec<u8>)>, Closed> {
        let Some(head) = self.input.first_chunk::<{ wire::HEAD }>() else {
            return Ok(None);
        };
        let (kind, len) = wire::parse_head(*head).map_err(|_| Closed)?;
        if self.input.len() < wire::HEAD + len {
            return Ok(None);
        }
        let rest = self.input.split_off(wire::HEAD + len);
        let frame = std::mem::replace(&mut self.input, rest);
        Ok(Some((
            kind,
            frame.get(wire::HEAD..).unwrap_or_default().to_vec(),
        )))
    }
}

//! One output stream of the command: from its pipe, through a bounded window, into frames.

use crate::conn::{Closed, Conn};
use guest::message::WINDOW;
use guest::ring::Ring;
use guest::wire::{self, Kind};
use rustix::io::Errno;
use std::io::IoSlice;
use std::os::fd::OwnedFd;

/// A stream and what of it the node has.
#[derive(Debug)]
pub(crate) struct Output {
    kind: Kind,
    /// The read end of the pipe; gone at its end.
    pub(crate) pipe: Option<OwnedFd>,
    ring: Ring,
    /// Offset of the next byte to send.
    next: u64,
    /// The frame that is on its way: its head, and how much of head and body went out.
    frame: Option<Frame>,
}

#[derive(Debug)]
struct Frame {
    head: [u8; wire::HEAD],
    body: usize,
    sent: usize,
}

impl Output {
    pub(crate) fn new(kind: Kind) -> Output {
        Output {
            kind,
            pipe: None,
            ring: Ring::new(WINDOW),
            next: 0,
            frame: None,
        }
    }

    /// Whether the pipe should be polled: there is one, and room for what it has.
    pub(crate) fn wants_input(&self) -> bool {
        self.pipe.is_some() && self.ring.end() - self.ring.base() < WINDOW as u64
    }

    /// Reads until the pipe is empty, at its end, or the window is full.
    pub(crate) fn fill(&mut self) {
        while let Some(pipe) = &self.pipe {
            let space = self.ring.space();
            if space.is_empty() {
                return;
            }
            match rustix::io::read(pipe, space) {
                Ok(0) => self.pipe = None,
                Ok(n) => self.ring.grow(n),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.pipe = None,
            }
        }
    }

    /// The offset from which frames go on.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// A new connection has everything before `safe`; all that is kept after it is sent again.
    pub(crate) fn resume(&mut self, safe: u64) {
        self.ring.forget(safe);
        self.next = self.ring.base();
        self.frame = None;
    }

    /// The node has everything before `offset` safe.
    pub(crate) fn acknowledge(&mut self, offset: u64) {
        // Bytes that were never sent cannot be safe anywhere; a node that says so is mistaken.
        self.ring.forget(offset.min(self.next));
    }

    /// A frame is half sent, so no other frame may be sent now.
    pub(crate) fn mid_frame(&self) -> bool {
        self.frame.is_some()
    }

    /// There is something to send.
    pub(crate) fn wants_output(&self) -> bool {
        self.frame.is_some() || self.next < self.ring.end()
    }

    /// At its end, and everything was sent.
    pub(crate) fn done(&self) -> bool {
        self.pipe.is_none() && !self.wants_output()
    }

    /// Sends one frame, or as much of it as the socket takes. True when a whole frame went out.
    pub(crate) fn pump(&mut self, conn: &Conn) -> Result<bool, Closed> {
        let frame = self.frame.take().unwrap_or_else(|| {
            let body = self.ring.piece(self.next, wire::FRAME_MAX).len();
            Frame {
                head: wire::head(self.kind, body),
                body,
                sent: 0,
            }
        });
        let head = frame
            .head
            .get(frame.sent.min(wire::HEAD)..)
            .unwrap_or_default();
        let done = frame.sent.saturating_sub(wire::HEAD);
        let body = self.ring.piece(self.next, frame.body - done);
        let n = conn.send(&[IoSlice::new(head), IoSlice::new(body)])?;
        self.next += n.saturating_sub(head.len()) as u64;
        let sent = frame.sent + n;
        let whole = sent == wire::HEAD + frame.body;
        if !whole {
            self.frame = Some(Frame { sent, ..frame });
        }
        Ok(whole)
    }
}

//! What a kernel says: lines, of which none is longer than the largest result.

use super::super::Stream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of the longest line: a result of 10 MiB, which a kernel of ours keeps within, and what is
/// around it.
pub(super) const LINE_MAX: usize = (10 << 20) + 4096;

/// A longer line needs the right to be held.
const SMALL: usize = 256 * 1024;

/// Bytes that are read at a time.
const CHUNK: usize = 64 * 1024;

/// A line without its end, and the right to hold it if it is large.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) bytes: Vec<u8>,
    _large: Option<OwnedSemaphorePermit>,
}

/// Why there are no more lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// The other end is closed.
    Closed,
    /// A line is too long.
    TooLong,
}

/// Cuts what comes into lines.
#[derive(Debug)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// There is no end of a line before this.
    searched: usize,
    large: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl Lines {
    pub(super) fn new(large: Arc<Semaphore>) -> Lines {
        Lines {
            buffer: Vec::new(),
            searched: 0,
            large,
            held: None,
        }
    }

    /// The next line. Nothing is lost when this is dropped before it has one.
    pub(super) async fn next(&mut self, stream: &Stream) -> Result<Line, Broken> {
        loop {
            if let Some(line) = self.cut() {
                return Ok(line);
            }
            if self.buffer.len() > LINE_MAX {
                return Err(Broken::TooLong);
            }
            if self.buffer.len() > SMALL && self.held.is_none() {
                // Nobody closes it.
                self.held = self.large.clone().acquire_owned().await.ok();
            }
            let read = |fd: &OwnedFd| {
                let mut chunk = vec![0; CHUNK];
                let n = rustix::io::read(fd, &mut chunk)?;
                chunk.truncate(n);
                Ok(chunk)
            };
            let chunk = stream.async_io(Interest::READABLE, read).await;
            match chunk {
                Ok(chunk) if !chunk.is_empty() => self.buffer.extend_from_slice(&chunk),
                _ => return Err(Broken::Closed),
            }
        }
    }

    fn cut(&mut self) -> Option<Line> {
        let fresh = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(at) = fresh.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            return None;
        };
        let rest = self.buffer.split_off(self.searched + at + 1);
        let mut bytes = std::mem::replace(&mut self.buffer, rest);
        bytes.pop();
        self.searched = 0;
        Some(Line {
            bytes,
            _large: self.held.take(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_however_they_are_cut() {
        let text = b"one\n\ntwo and more\nthree\n";
        for at in 1..text.len() {
            let mut lines = Lines::new(Arc::new(Semaphore::new(1)));
            let mut found = Vec::new();
            for piece in text.chunks(at) {
                lines.buffer.extend_from_slice(piece);
                while let Some(line) = lines.cut() {
                    found.push(String::from_utf8(line.bytes).unwrap());
                }
            }
            assert_eq!(found, ["one", "", "two and more", "three"], "{at}");
        }
    }
}

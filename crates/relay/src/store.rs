//! Where bytes are between two ends: a pipe, or a buffer where no pipe is to be had.

use crate::End;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::Interest;

/// The size of a pipe: 64 pages, each of which keeps at most 32 KiB of the kernel's memory from being used
/// again, however few of its bytes are meant. An ordinary user may have 64 MiB of pipes (`pipe(7)`).
pub(crate) const PIPE_BYTES: usize = 256 * 1024;

/// Bytes that are taken from one end at once, before the other gets them.
const CHUNK: usize = PIPE_BYTES;

/// Bytes of a buffer.
const BUFFER: usize = 64 * 1024;

/// Pipes that are kept for the next one: about as many as move bytes at the same moment on a few processors.
const IDLE_MAX: usize = 8;

/// The pipes of a process.
#[derive(Debug)]
pub struct Pipes {
    idle: Mutex<Vec<Pipe>>,
    held: AtomicUsize,
    most: usize,
}

/// The pipes that one party may hold of them at a time, so that its slow readers leave some to others.
#[derive(Debug)]
pub struct Share {
    pipes: Arc<Pipes>,
    held: AtomicUsize,
    most: usize,
}

/// Both of its ends are ours. It is empty whenever nobody holds it.
#[derive(Debug)]
struct Pipe {
    from: OwnedFd,
    to: OwnedFd,
}

impl Pipes {
    /// At most so many pipes, of [`PIPE_BYTES`] and two descriptors each. Who comes then gets a buffer.
    #[must_use]
    pub fn new(most: usize) -> Pipes {
        Pipes {
            idle: Mutex::default(),
            held: AtomicUsize::new(0),
            most,
        }
    }

    fn take(&self) -> Option<Pipe> {
        if !count(&self.held, self.most) {
            return None;
        }
        let kept = self.idle().pop();
        let pipe = kept.or_else(|| Pipe::new().ok());
        if pipe.is_none() {
            self.held.fetch_sub(1, Ordering::Relaxed);
        }
        pipe
    }

    fn put(&self, pipe: Option<Pipe>) {
        let mut idle = self.idle();
        if let Some(pipe) = pipe.filter(|_| idle.len() < IDLE_MAX) {
            idle.push(pipe);
        }
        self.held.fetch_sub(1, Ordering::Relaxed);
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Pipe>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one more, if there may be one.
fn count(held: &AtomicUsize, most: usize) -> bool {
    let one_more = |count| (count < most).then_some(count + 1);
    let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
    held.fetch_update(set, fetch, one_more).is_ok()
}

impl Pipe {
    /// One of the full size. Who has too many may get one of two pages, which a buffer is better than.
    fn new() -> Result<Pipe, Errno> {
        let (from, to) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        fcntl_setpipe_size(&to, PIPE_BYTES)?;
        Ok(Pipe { from, to })
    }
}

impl Share {
    /// At most so many of these pipes.
    #[must_use]
    pub fn of(pipes: Arc<Pipes>, most: usize) -> Share {
        let held = AtomicUsize::new(0);
        Share { pipes, held, most }
    }

    /// How many it holds now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.pipes.idle().len()
    }

    pub(crate) fn take(&self) -> Held<'_> {
        let is_counted = count(&self.held, self.most);
        let pipe = is_counted.then(|| self.pipes.take()).flatten();
        if is_counted && pipe.is_none() {
            self.held.fetch_sub(1, Ordering::Relaxed);
        }
        let place = pipe.map_or_else(|| Place::Buffer(Vec::new()), Place::Pipe);
        Held {
            share: self,
            place,
            at: 0,
            until: 0,
        }
    }
}

#[derive(Debug)]
enum Place {
    Pipe(Pipe),
    Buffer(Vec<u8>),
}

/// A pipe or a buffer, and what is in it. A pipe is given back when this is dropped, or closed if it is not empty:
/// its bytes are one connection's, and must not come out on another.
#[derive(Debug)]
pub(crate) struct Held<'s> {
    share: &'s Share,
    place: Place,
    /// Bytes that came out again, and that went in.
    at: usize,
    until: usize,
}

impl Held<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.until
    }

    /// Takes bytes from an end, when nothing is held. None means that the end has closed.
    pub(crate) fn fill(&mut self, from: &impl End) -> io::Result<usize> {
        let most = from.reserve(CHUNK)?;
        let moved = match &self.place {
            Place::Pipe(pipe) => from.when_ready(Interest::READABLE, || {
                Ok(splice(from.fd(), None, &pipe.to, None, most, SPLICE)?)
            }),
            Place::Buffer(_) => self.read(from, most),
        };
        from.came(most, moved.as_ref().map_or(0, |count| *count));
        if self.is_pipe() && moved.as_ref().is_err_and(is_unknown) {
            self.give_up(Vec::new());
            return self.fill(from);
        }
        let count = moved?;
        (self.at, self.until) = (0, count);
        Ok(count)
    }

    fn is_pipe(&self) -> bool {
        matches!(self.place, Place::Pipe(_))
    }

    fn read(&mut self, from: &impl End, most: usize) -> io::Result<usize> {
        let Place::Buffer(buffer) = &mut self.place else {
            return Ok(0);
        };
        buffer.resize(BUFFER, 0);
        let room = buffer.get_mut(..most.min(BUFFER)).unwrap_or_default();
        from.when_ready(Interest::READABLE, || {
            Ok(rustix::io::read(from.fd(), &mut *room)?)
        })
    }

    /// Gives an end some of what is held.
    pub(crate) fn pour(&mut self, to: &impl End) -> io::Result<usize> {
        let left = to.reserve(self.until - self.at)?;
        let moved = match &self.place {
            Place::Pipe(pipe) => to.when_ready(Interest::WRITABLE, || {
                Ok(splice(&pipe.from, None, to.fd(), None, left, SPLICE)?)
            }),
            Place::Buffer(buffer) => {
                let bytes = buffer.get(self.at..self.at + left).unwrap_or_default();
                to.when_ready(Interest::WRITABLE, || {
                    Ok(rustix::io::write(to.fd(), bytes)?)
                })
            }
        };
        to.went(left, moved.as_ref().map_or(0, |count| *count));
        if self.is_pipe() && moved.as_ref().is_err_and(is_unknown) {
            let held = self.drain()?;
            self.give_up(held);
            return self.pour(to);
        }
        let count = moved?;
        self.at += count;
        Ok(count)
    }

    /// All that is in the pipe. It comes at once, because it is there.
    fn drain(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.until - self.at];
        let mut length = 0;
        while let (Place::Pipe(pipe), Some(room @ [_, ..])) = (&self.place, bytes.get_mut(length..))
        {
            match rustix::io::read(&pipe.from, room)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => length += count,
            }
        }
        Ok(bytes)
    }

    /// Goes on with a buffer.
    fn give_up(&mut self, bytes: Vec<u8>) {
        self.let_go(true);
        (self.at, self.until) = (0, bytes.len());
        self.place = Place::Buffer(bytes);
    }

    fn let_go(&mut self, is_empty: bool) {
        let place = std::mem::replace(&mut self.place, Place::Buffer(Vec::new()));
        if let Place::Pipe(pipe) = place {
            self.share.pipes.put(is_empty.then_some(pipe));
            self.share.held.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.let_go(self.is_empty());
    }
}

/// Neither the pipe nor, being what it is already, the socket is waited for.
const SPLICE: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

/// Whether the kernel, or a filter of calls, knows no way to move these bytes; see `splice(2)`. Nothing is
/// remembered of it: what one connection can bring about must not slow down another.
fn is_unknown(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::INVAL | Errno::NOSYS))
}

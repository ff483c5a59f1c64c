//! Bytes, counted as they pass, and streams that begin with bytes that were read already.

use crate::decide::Refusal;
use crate::outside::Outside;
use crate::reason::Reason;
use crate::total::{Full, Total};
use bytes::{Buf as _, Bytes};
use relay::End;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// How long neither end may say anything: longer than any program waits for an answer by itself, and short
/// enough that what both ends forgot does not hold a place for a day.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(600);

/// Bytes of one connection to the outside.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    out: AtomicU64,
    back: AtomicU64,
    was_idle: AtomicBool,
    /// Of all connections of the sandbox.
    all: Arc<Total>,
    /// Why it was ended before its time.
    cut: OnceLock<Refusal>,
}

impl Traffic {
    pub(crate) fn of(all: Arc<Total>) -> Traffic {
        Traffic {
            all,
            ..Traffic::default()
        }
    }

    /// Notes why it is ended; the first reason counts.
    pub(crate) fn cut(&self, why: Refusal) {
        drop(self.cut.set(why));
    }

    /// Why it was ended before its time, if it was.
    pub(crate) fn was_cut(&self) -> Option<&Refusal> {
        self.cut.get()
    }

    /// Reserves at most so many bytes, and at least one where any are wanted.
    fn reserve(&self, wanted: usize) -> io::Result<usize> {
        let reserved = self.all.reserve(wanted as u64).map_err(|full| match full {
            Full::ForNow => io::ErrorKind::WouldBlock,
            Full::ForGood => {
                self.cut(Reason::TooMuch.into());
                io::ErrorKind::QuotaExceeded
            }
        })?;
        Ok(usize::try_from(reserved).unwrap_or(wanted))
    }

    /// The same for whoever can be asked again at once, and is then.
    fn poll_reserve(&self, wanted: usize, context: &Context<'_>) -> Poll<io::Result<usize>> {
        match self.reserve(wanted) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            reserved => Poll::Ready(reserved),
        }
    }

    fn settle(&self, count: &AtomicU64, reserved: usize, bytes: usize) {
        count.fetch_add(bytes as u64, Ordering::Relaxed);
        self.all.settle(reserved as u64, bytes as u64);
    }

    pub(crate) fn out(&self) -> u64 {
        self.out.load(Ordering::Relaxed)
    }

    pub(crate) fn back(&self) -> u64 {
        self.back.load(Ordering::Relaxed)
    }

    /// Whether that is why it ended.
    pub(crate) fn was_idle(&self) -> bool {
        self.was_idle.load(Ordering::Relaxed)
    }

    /// Returns when nothing has passed for [`IDLE_MAX`], or a little longer.
    pub(crate) async fn idle(&self) {
        let sum = || self.out().wrapping_add(self.back());
        let mut seen = sum();
        loop {
            tokio::time::sleep(IDLE_MAX).await;
            let now = sum();
            if now == seen {
                self.was_idle.store(true, Ordering::Relaxed);
                return;
            }
            seen = now;
        }
    }
}

/// A connection to the outside, whose bytes are counted.
#[derive(Debug)]
pub(crate) struct Counted<S> {
    pub(crate) io: S,
    pub(crate) traffic: Arc<Traffic>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let reserved = ready!(self.traffic.poll_reserve(buffer.remaining(), context))?;
        let before = buffer.filled().len();
        let read = if reserved == buffer.remaining() {
            Pin::new(&mut self.io).poll_read(context, buffer)
        } else {
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(reserved));
            let read = Pin::new(&mut self.io).poll_read(context, &mut part);
            let count = part.filled().len();
            buffer.advance(count);
            read
        };
        let count = buffer.filled().len().saturating_sub(before);
        self.traffic.settle(&self.traffic.back, reserved, count);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let reserved = ready!(self.traffic.poll_reserve(bytes.len(), context))?;
        let bytes = bytes.get(..reserved).unwrap_or_default();
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        self.traffic
            .settle(&self.traffic.out, reserved, count_of(&written));
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = parts.iter().map(|part| part.len()).sum();
        let reserved = ready!(self.traffic.poll_reserve(all, context))?;
        let written = if reserved == all {
            Pin::new(&mut self.io).poll_write_vectored(context, parts)
        } else {
            let first = parts.iter().find(|part| !part.is_empty());
            let first = first.map(|part| part.get(..reserved).unwrap_or(part));
            Pin::new(&mut self.io).poll_write(context, first.unwrap_or_default())
        };
        self.traffic
            .settle(&self.traffic.out, reserved, count_of(&written));
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

fn count_of(written: &Poll<io::Result<usize>>) -> usize {
    match written {
        Poll::Ready(Ok(count)) => *count,
        Poll::Ready(Err(_)) | Poll::Pending => 0,
    }
}

impl Counted<Outside> {
    /// For the kernel, where it can carry what passes by itself.
    pub(crate) fn bare(&self) -> Option<Bare<'_>> {
        let (io, traffic) = (self.io.bare()?, &*self.traffic);
        Some(Bare { io, traffic })
    }
}

/// A socket to the outside, whose bytes are counted by what the kernel says that it moved; no more of them are moved
/// than may pass.
#[derive(Debug)]
pub(crate) struct Bare<'a> {
    io: &'a TcpStream,
    traffic: &'a Traffic,
}

impl End for Bare<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        End::fd(self.io)
    }

    fn ready(&self, interest: Interest) -> impl Future<Output = io::Result<()>> + Send {
        End::ready(self.io, interest)
    }

    fn when_ready<R>(
        &self,
        interest: Interest,
        deed: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        self.io.when_ready(interest, deed)
    }

    fn reserve(&self, most: usize) -> io::Result<usize> {
        self.traffic.reserve(most)
    }

    fn came(&self, reserved: usize, bytes: usize) {
        self.traffic.settle(&self.traffic.back, reserved, bytes);
    }

    fn went(&self, reserved: usize, bytes: usize) {
        self.traffic.settle(&self.traffic.out, reserved, bytes);
    }
}

/// A stream whose first bytes were read by somebody who had to look at them.
#[derive(Debug)]
pub(crate) struct Reread<S> {
    pub(crate) first: Bytes,
    pub(crate) io: S,
}

impl<S> Reread<S> {
    /// The same with these bytes before all others.
    pub(crate) fn after(self, read: &Bytes) -> Reread<S> {
        let first = match (read.is_empty(), self.first.is_empty()) {
            (true, _) => self.first,
            (false, true) => read.clone(),
            (false, false) => [&read[..], &self.first].concat().into(),
        };
        Reread { first, io: self.io }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Reread<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.io).poll_read(context, buffer);
        }
        let count = self.first.len().min(buffer.remaining());
        buffer.put_slice(self.first.get(..count).unwrap_or_default());
        self.first.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Reread<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

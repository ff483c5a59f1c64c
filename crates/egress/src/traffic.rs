//! Bytes, counted as they pass, and streams that begin with bytes that were read already.

use crate::decide::Refusal;
use crate::reason::Reason;
use bytes::{Buf as _, Bytes};
use relay::End;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
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

/// Bytes of a sandbox, and how many it may have.
#[derive(Debug)]
pub(crate) struct Total {
    passed: AtomicU64,
    most: AtomicU64,
}

impl Default for Total {
    fn default() -> Total {
        Total {
            passed: AtomicU64::new(0),
            most: AtomicU64::new(u64::MAX),
        }
    }
}

impl Total {
    pub(crate) fn allow(&self, most: Option<u64>) {
        self.most.store(most.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn is_used_up(&self) -> bool {
        self.left() == 0
    }

    fn left(&self) -> u64 {
        let most = self.most.load(Ordering::Relaxed);
        most.saturating_sub(self.passed.load(Ordering::Relaxed))
    }
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

    /// Whether another byte may pass.
    fn check(&self) -> io::Result<()> {
        self.room().map(drop)
    }

    /// How many bytes more may pass, of which there is one.
    fn room(&self) -> io::Result<u64> {
        match self.all.left() {
            0 => {
                self.cut(Reason::TooMuch.into());
                Err(io::ErrorKind::QuotaExceeded.into())
            }
            left => Ok(left),
        }
    }

    fn add(&self, count: &AtomicU64, bytes: usize) {
        count.fetch_add(bytes as u64, Ordering::Relaxed);
        self.all.passed.fetch_add(bytes as u64, Ordering::Relaxed);
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
        self.traffic.check()?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        let count = buffer.filled().len().saturating_sub(before);
        self.traffic.add(&self.traffic.back, count);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.traffic.check()?;
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = &written {
            self.traffic.add(&self.traffic.out, *count);
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.traffic.check()?;
        let written = Pin::new(&mut self.io).poll_write_vectored(context, parts);
        if let Poll::Ready(Ok(count)) = &written {
            self.traffic.add(&self.traffic.out, *count);
        }
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

/// The bytes are counted by what the kernel says that it moved, and no more of them are moved than may pass.
impl End for Counted<TcpStream> {
    fn fd(&self) -> BorrowedFd<'_> {
        End::fd(&self.io)
    }

    fn ready(&self, interest: Interest) -> impl Future<Output = io::Result<()>> + Send {
        End::ready(&self.io, interest)
    }

    fn when_ready<R>(
        &self,
        interest: Interest,
        deed: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        self.io.when_ready(interest, deed)
    }

    fn room(&self) -> io::Result<usize> {
        let room = self.traffic.room()?;
        Ok(usize::try_from(room).unwrap_or(usize::MAX))
    }

    fn came(&self, bytes: usize) {
        self.traffic.add(&self.traffic.back, bytes);
    }

    fn went(&self, bytes: usize) {
        self.traffic.add(&self.traffic.out, bytes);
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

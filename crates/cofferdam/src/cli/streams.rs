//! The three standard streams of this process, tied to those of a job.

use api::attach::{FrameKind, FrameReader, write_frame};
use api::client::AttachIo;
use bytes::Bytes;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use std::os::fd::BorrowedFd;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Pieces between the connection and the thread that writes: enough to overlap the two.
const PIECES: usize = 4;
/// How much of standard input is sent at once.
const INPUT: usize = 64 * 1024;

/// What is to be told to a job.
#[derive(Debug)]
pub(crate) enum Tell {
    /// A signal for its command.
    Signal(i32),
}

/// What becomes of what the job writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// It goes to our own standard output and standard error.
    Ours,
    /// It is not wanted here; it is on record.
    Dropped,
}

/// How the streams ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Everything that came was written: so many bytes of output.
    Whole(u64),
    /// Our own output could not be written, for example because nobody reads it any more.
    Unwritten(Errno),
    /// The connection ended before the job said that all was sent, after so many bytes of output.
    Broken(u64),
}

/// The way to two threads that write to our own standard output and standard error.
#[derive(Debug, Clone)]
pub(crate) struct Writers {
    stdout: mpsc::Sender<Bytes>,
    stderr: mpsc::Sender<Bytes>,
}

impl Writers {
    /// Gives a piece to its thread. One that has ended takes none, and has said why.
    pub(crate) async fn write(&self, is_error: bool, piece: Bytes) {
        let to = if is_error { &self.stderr } else { &self.stdout };
        drop(to.send(piece).await);
    }
}

/// Our own standard output and standard error.
#[derive(Debug)]
pub(crate) struct Ours {
    writers: Writers,
    failed: mpsc::Receiver<Errno>,
    threads: [JoinHandle<()>; 2],
}

impl Ours {
    pub(crate) fn start() -> Ours {
        let (fail, failed) = mpsc::channel(2);
        let (stdout, stdout_thread) = writer(1, fail.clone());
        let (stderr, stderr_thread) = writer(2, fail);
        Ours {
            writers: Writers { stdout, stderr },
            failed,
            threads: [stdout_thread, stderr_thread],
        }
    }

    pub(crate) fn writers(&self) -> Writers {
        self.writers.clone()
    }

    /// Waits until something cannot be written.
    pub(crate) async fn failed(&mut self) -> Errno {
        match self.failed.recv().await {
            Some(errno) => errno,
            // Both threads have ended without an error, which they do only below.
            None => std::future::pending().await,
        }
    }

    /// Waits until everything is written, or says why it cannot be. Nobody else may have a way to the
    /// threads any more, or this never ends.
    pub(crate) async fn finish(self) -> Option<Errno> {
        let Ours {
            writers,
            mut failed,
            threads,
        } = self;
        drop(writers);
        for thread in threads {
            // It ends when its channel is empty and closed.
            drop(thread.await);
        }
        failed.try_recv().ok()
    }
}

/// Carries the streams until the job has ended. `started` is called once, when the command runs; before that nothing is
/// read of our input, because what a connection takes that breaks while the job waits would be lost to the command.
pub(crate) async fn carry(
    io: AttachIo,
    told: mpsc::Receiver<Tell>,
    output: Output,
    started: impl FnOnce() + Send,
) -> End {
    let (read, write) = tokio::io::split(io);
    let (begin, begun) = oneshot::channel();
    let input = tokio::spawn(async move {
        if begun.await.is_ok() {
            send(write, told).await;
        }
    });
    let started = || {
        started();
        // Nobody hears it where the connection cannot be written to any more.
        let _ = begin.send(());
    };
    let mut ours = Ours::start();
    let writers = ours.writers();
    let frames = FrameReader::new(read);
    let end = tokio::select! {
        end = receive(frames, output, writers, started) => end,
        errno = ours.failed() => End::Unwritten(errno),
    };
    input.abort();
    // The last of it may be what could not be written.
    match ours.finish().await {
        Some(errno) if matches!(end, End::Whole(_)) => End::Unwritten(errno),
        _ => end,
    }
}

async fn receive(
    mut frames: FrameReader<ReadHalf<AttachIo>>,
    output: Output,
    writers: Writers,
    started: impl FnOnce() + Send,
) -> End {
    let (mut started, mut seen) = (Some(started), 0_u64);
    loop {
        let Ok(Some(frame)) = frames.next().await else {
            return End::Broken(seen);
        };
        let to = match frame.kind {
            FrameKind::Stdout => &writers.stdout,
            FrameKind::Stderr => &writers.stderr,
            FrameKind::Ended => return End::Whole(seen),
            FrameKind::Started => {
                if let Some(started) = started.take() {
                    started();
                }
                continue;
            }
            FrameKind::Stdin | FrameKind::StdinEof | FrameKind::Signal => return End::Broken(seen),
        };
        seen = seen.saturating_add(frame.payload.len() as u64);
        if let Some(started) = started.take() {
            started();
        }
        if output == Output::Ours && to.send(frame.payload).await.is_err() {
            // The thread has ended, and said why before it did.
            std::future::pending::<()>().await;
        }
    }
}

/// A thread that writes to one of our own descriptors: that may block for as long as a reader likes.
fn writer(fd: i32, fail: mpsc::Sender<Errno>) -> (mpsc::Sender<Bytes>, JoinHandle<()>) {
    let (send, mut pieces) = mpsc::channel::<Bytes>(PIECES);
    let thread = tokio::task::spawn_blocking(move || {
        while let Some(piece) = pieces.blocking_recv() {
            if let Err(errno) = write_all(standard(fd), &piece) {
                // There is room for one of each thread.
                let _ = fail.try_send(errno);
                return;
            }
        }
    });
    (send, thread)
}

fn write_all(to: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), Errno> {
    let mut left = bytes;
    while !left.is_empty() {
        match rustix::io::write(to, left) {
            Ok(n) => left = left.get(n..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            // Whoever gave us the descriptor does not want to block, and we must.
            Err(Errno::AGAIN) => wait_until_writable(to)?,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn wait_until_writable(to: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut fds = [PollFd::new(&to, PollFlags::OUT)];
    match rustix::event::poll(&mut fds, None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

#[expect(unsafe_code, reason = "the standard descriptors are known by number")]
fn standard(fd: i32) -> BorrowedFd<'static> {
    // SAFETY: descriptors 1 and 2 are open from the start of the process to its end: Rust's runtime
    // opens /dev/null for those that are not, and nothing in this program closes them.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Sends our standard input, and what else is to be told.
async fn send(mut to: WriteHalf<AttachIo>, mut told: mpsc::Receiver<Tell>) {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; INPUT];
    let mut open = true;
    loop {
        let sent = tokio::select! {
            Some(Tell::Signal(signal)) = told.recv() => {
                write_frame(&mut to, FrameKind::Signal, &signal.to_le_bytes()).await
            }
            read = stdin.read(&mut buffer), if open => match read {
                Ok(n) if n > 0 => {
                    let bytes = buffer.get(..n).unwrap_or_default();
                    write_frame(&mut to, FrameKind::Stdin, bytes).await
                }
                _ => {
                    open = false;
                    write_frame(&mut to, FrameKind::StdinEof, &[]).await
                }
            },
            else => return,
        };
        if sent.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn a_pipe_that_nobody_reads_and_one_that_is_full_are_told_apart() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        rustix::io::ioctl_fionbio(&write, true).unwrap();
        let much = vec![7; 1 << 20];
        let expected = much.len();
        let reader = std::thread::spawn(move || {
            let mut file = std::fs::File::from(read);
            let mut got = vec![0; expected];
            std::io::Read::read_exact(&mut file, &mut got).unwrap();
            got
        });
        write_all(write.as_fd(), &much).unwrap();
        assert_eq!(reader.join().unwrap(), much);
        assert_eq!(write_all(write.as_fd(), b"x"), Err(Errno::PIPE));
    }
}

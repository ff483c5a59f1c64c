//! The three standard streams of this process, tied to those of a job.

use api::attach::{FrameKind, FrameReader, write_frame};
use api::client::AttachIo;
use bytes::Bytes;
use std::os::fd::BorrowedFd;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
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

/// How the streams ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Everything was written.
    Whole,
    /// Whoever reads our output has gone away.
    NobodyReads,
    /// The connection broke.
    Broken,
}

/// Carries the streams until the job has ended. `started` is called once, when the command runs.
pub(crate) async fn carry(
    io: AttachIo,
    told: mpsc::Receiver<Tell>,
    started: impl FnOnce() + Send,
) -> End {
    let (read, write) = tokio::io::split(io);
    let input = tokio::spawn(send(write, told));
    let (stdout, stdout_thread) = writer(1);
    let (stderr, stderr_thread) = writer(2);
    let end = receive(FrameReader::new(read), &stdout, &stderr, started).await;
    drop((stdout, stderr));
    input.abort();
    for thread in [stdout_thread, stderr_thread] {
        // It ends when its channel is empty and closed.
        drop(thread.await);
    }
    end
}

async fn receive(
    mut frames: FrameReader<ReadHalf<AttachIo>>,
    stdout: &mpsc::Sender<Bytes>,
    stderr: &mpsc::Sender<Bytes>,
    started: impl FnOnce() + Send,
) -> End {
    let mut started = Some(started);
    loop {
        let Ok(Some(frame)) = frames.next().await else {
            return End::Broken;
        };
        let to = match frame.kind {
            FrameKind::Stdout => stdout,
            FrameKind::Stderr => stderr,
            FrameKind::Ended => return End::Whole,
            FrameKind::Started => {
                if let Some(started) = started.take() {
                    started();
                }
                continue;
            }
            FrameKind::Stdin | FrameKind::StdinEof | FrameKind::Signal => return End::Broken,
        };
        if let Some(started) = started.take() {
            started();
        }
        if to.send(frame.payload).await.is_err() {
            return End::NobodyReads;
        }
    }
}

/// A thread that writes to one of our own descriptors: that may block for as long as a reader likes.
fn writer(fd: i32) -> (mpsc::Sender<Bytes>, JoinHandle<()>) {
    let (send, mut pieces) = mpsc::channel::<Bytes>(PIECES);
    let thread = tokio::task::spawn_blocking(move || {
        while let Some(piece) = pieces.blocking_recv() {
            let mut left = piece.as_ref();
            while !left.is_empty() {
                match rustix::io::write(standard(fd), left) {
                    Ok(n) => left = left.get(n..).unwrap_or_default(),
                    Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                    Err(_) => return,
                }
            }
        }
    });
    (send, thread)
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

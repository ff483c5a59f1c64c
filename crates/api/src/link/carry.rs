//! One stream of a link: bytes both ways between a pipe in memory and the two bodies of HTTP/2.

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use std::future::poll_fn;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};

/// What is read at a time: a fourth of a stream's window, so that reading and sending go on side by side.
const CHUNK_BYTES: usize = 64 * 1024;

/// Carries until both ways have ended, or one has broken. What has broken one way ends both: a guest that
/// reads and is not heard any more is of no use to whoever wrote.
pub(super) async fn carry(io: DuplexStream, mut sender: SendStream<Bytes>, receiver: RecvStream) {
    let (from_io, to_io) = tokio::io::split(io);
    let done = async {
        let sent = send(from_io, &mut sender);
        let received = receive(receiver, to_io);
        tokio::try_join!(sent, received)
    };
    if done.await.is_err() {
        sender.send_reset(Reason::CANCEL);
    }
}

/// One way has broken.
struct Broken;

impl From<h2::Error> for Broken {
    fn from(_: h2::Error) -> Broken {
        Broken
    }
}

impl From<std::io::Error> for Broken {
    fn from(_: std::io::Error) -> Broken {
        Broken
    }
}

/// Sends what is read, never more than the other end has room for.
async fn send(
    mut from: ReadHalf<DuplexStream>,
    sender: &mut SendStream<Bytes>,
) -> Result<(), Broken> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK_BYTES);
        let count = tokio::select! {
            count = from.read_buf(&mut buffer) => count?,
            // Heard also while there is nothing to send.
            _ = poll_fn(|cx| sender.poll_reset(cx)) => return Err(Broken),
        };
        if count == 0 {
            sender.send_data(Bytes::new(), true)?;
            return Ok(());
        }
        while !buffer.is_empty() {
            sender.reserve_capacity(buffer.len());
            let room = poll_fn(|cx| sender.poll_capacity(cx)).await;
            let room = room.ok_or(Broken)??.min(buffer.len());
            // An empty frame would say nothing, and there is no bound on how many.
            if room == 0 {
                continue;
            }
            sender.send_data(buffer.split_to(room).freeze(), false)?;
        }
    }
}

/// Writes what is received, and gives room only for what was written.
async fn receive(mut from: RecvStream, mut to: WriteHalf<DuplexStream>) -> Result<(), Broken> {
    while let Some(bytes) = from.data().await {
        let bytes = bytes?;
        to.write_all(&bytes).await?;
        from.flow_control().release_capacity(bytes.len())?;
    }
    Ok(to.shutdown().await?)
}

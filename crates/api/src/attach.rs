//! The frames of an attached job: the standard streams of a command over one connection.
//!
//! A frame is `[kind u8][0u8; 3][length u32 little-endian]` and so many bytes. The server copies
//! them unread; only the two ends (the command line and the node) know what they mean. What comes
//! from the other end is untrusted, so a length over [`PAYLOAD_MAX_BYTES`] ends the connection
//! before a byte of it is read. `Ended` is a hint that lets the client stop reading; the outcome
//! is what `GET /v1/jobs/{id}` answers.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};

/// The value of the `Upgrade` header.
pub const UPGRADE: &str = "cofferdam-attach";
/// The length of a frame's head.
pub const HEADER_BYTES: usize = 8;
/// The longest payload: enough to amortise the system calls, small enough for every reader to
/// hold one in memory.
pub const PAYLOAD_MAX_BYTES: usize = 1 << 20;
/// The size of every buffer that frames pass through on their way. Measured on pipes and sockets
/// of this kind, larger ones no longer help and smaller ones cost system calls.
pub const BUFFER_BYTES: usize = 256 * 1024;

/// Somebody wants to speak to what runs on a node; the node gets the other end of the stream.
#[derive(Debug)]
pub struct LinkOpen {
    /// To what.
    pub target: LinkTarget,
    /// Bytes from and to the client.
    pub io: DuplexStream,
}

/// What a stream to a node is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkTarget {
    /// The standard streams of a running job, as frames.
    Job {
        /// The job.
        id: String,
        /// Which try.
        attempt: u32,
    },
    /// The guest of a sandbox that lives on, as HTTP/1.1. A node that cannot reach it closes the stream.
    Sandbox {
        /// The sandbox.
        id: String,
    },
    /// What is under way to the outside. The node writes [`NodeConnections`](crate::egress::NodeConnections) as
    /// JSON and closes the stream.
    Connections {
        /// Of this sandbox or job; of all when absent.
        of: Option<String>,
    },
}

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// To the node: bytes for standard input.
    Stdin = 1,
    /// To the node: standard input has ended.
    StdinEof = 2,
    /// To the node: a signal for the command, as u32 little-endian.
    Signal = 3,
    /// To the client: bytes from standard output.
    Stdout = 17,
    /// To the client: bytes from standard error.
    Stderr = 18,
    /// To the client: the command was let go.
    Started = 19,
    /// To the client: the command has ended and everything it wrote was sent.
    Ended = 20,
}

impl FrameKind {
    /// Reads a kind; `None` for one that does not exist.
    #[must_use]
    pub const fn from_u8(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Stdin,
            2 => Self::StdinEof,
            3 => Self::Signal,
            17 => Self::Stdout,
            18 => Self::Stderr,
            19 => Self::Started,
            20 => Self::Ended,
            _ => return None,
        })
    }
}

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer speaks something else, or a newer version.
    #[error("read a frame of unknown kind {0}")]
    UnknownKind(u8),
    /// The peer is broken or hostile.
    #[error("read a frame of {0} bytes, over the bound")]
    TooLong(u32),
    /// The connection broke in the middle of a frame, or could not be read at all.
    #[error("read from the connection")]
    Io(#[from] std::io::Error),
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What follows.
    pub kind: FrameKind,
    /// How many bytes of it; at most [`PAYLOAD_MAX_BYTES`].
    pub len: u32,
}

impl Header {
    /// Writes the head of a frame. `len` is cut to the bound; callers split what is longer.
    #[must_use]
    pub fn new(kind: FrameKind, len: usize) -> Self {
        let len = u32::try_from(len.min(PAYLOAD_MAX_BYTES)).unwrap_or(u32::MAX);
        Self { kind, len }
    }

    /// The bytes of the head.
    #[must_use]
    pub const fn encode(self) -> [u8; HEADER_BYTES] {
        let [a, b, c, d] = self.len.to_le_bytes();
        [self.kind as u8, 0, 0, 0, a, b, c, d]
    }

    /// Reads a head.
    ///
    /// # Errors
    /// [`FrameError`] for an unknown kind or a length over the bound.
    pub const fn decode(bytes: [u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let [kind, _, _, _, a, b, c, d] = bytes;
        let len = u32::from_le_bytes([a, b, c, d]);
        if len as usize > PAYLOAD_MAX_BYTES {
            return Err(FrameError::TooLong(len));
        }
        match FrameKind::from_u8(kind) {
            Some(kind) => Ok(Self { kind, len }),
            None => Err(FrameError::UnknownKind(kind)),
        }
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it carries.
    pub kind: FrameKind,
    /// The bytes.
    pub payload: Bytes,
}

/// Writes one frame; a payload over the bound is written as several. Does not flush.
///
/// # Errors
/// What the connection says.
pub async fn write_frame<W>(to: &mut W, kind: FrameKind, payload: &[u8]) -> std::io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    let mut rest = payload;
    loop {
        let (now, later) = rest.split_at(rest.len().min(PAYLOAD_MAX_BYTES));
        let head = Header::new(kind, now.len()).encode();
        to.write_all_buf(&mut Buf::chain(head.as_slice(), now))
            .await?;
        if later.is_empty() {
            return Ok(());
        }
        rest = later;
    }
}

/// Reads frames from one connection through one large buffer.
///
/// Cancel-safe: what was read of an unfinished frame stays in the buffer.
#[derive(Debug)]
pub struct FrameReader<R> {
    from: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from here on.
    #[must_use]
    pub fn new(from: R) -> Self {
        Self {
            from,
            buffer: BytesMut::with_capacity(BUFFER_BYTES),
        }
    }

    /// The next frame; `None` when the peer closed between two frames.
    ///
    /// # Errors
    /// [`FrameError`]; the connection is of no use after it.
    pub async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            if self.buffer.capacity() - self.buffer.len() < BUFFER_BYTES / 4 {
                self.buffer.reserve(BUFFER_BYTES);
            }
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(FrameError::Io(std::io::ErrorKind::UnexpectedEof.into()))
                };
            }
        }
    }

    /// Takes a whole frame out of the buffer, or makes room for the rest of it.
    fn take(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(head) = self.buffer.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let header = Header::decode(*head)?;
        let whole = HEADER_BYTES + header.len as usize;
        if self.buffer.len() < whole {
            self.buffer.reserve(whole - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(HEADER_BYTES);
        let payload = self.buffer.split_to(header.len as usize).freeze();
        Ok(Some(Frame {
            kind: header.kind,
            payload,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(frames: &[(FrameKind, usize)], room: usize) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (mut writer, reader) = tokio::io::duplex(room);
            let send = async {
                for (kind, len) in frames {
                    write_frame(&mut writer, *kind, &vec![7; *len])
                        .await
                        .unwrap();
                }
                drop(writer);
            };
            let receive = async {
                let mut reader = FrameReader::new(reader);
                let mut seen = Vec::new();
                while let Some(frame) = reader.next().await.unwrap() {
                    assert!(frame.payload.iter().all(|byte| *byte == 7));
                    seen.push((frame.kind, frame.payload.len()));
                }
                seen
            };
            let ((), seen) = tokio::join!(send, receive);
            assert_eq!(seen, frames);
        });
    }

    #[test]
    fn frames_arrive_whole_however_they_are_cut() {
        for room in [1, 7, 64, BUFFER_BYTES] {
            check(
                &[
                    (FrameKind::Stdin, 0),
                    (FrameKind::Stdout, 5),
                    (FrameKind::Ended, 0),
                ],
                room,
            );
        }
        check(
            &[
                (FrameKind::Stdout, PAYLOAD_MAX_BYTES),
                (FrameKind::Stderr, 300_000),
            ],
            4096,
        );
    }

    #[test]
    fn a_long_payload_becomes_several_frames() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut out = Vec::new();
            let payload = vec![0; PAYLOAD_MAX_BYTES + 1];
            write_frame(&mut out, FrameKind::Stdin, &payload)
                .await
                .unwrap();
            let mut reader = FrameReader::new(out.as_slice());
            assert_eq!(
                reader.next().await.unwrap().unwrap().payload.len(),
                PAYLOAD_MAX_BYTES
            );
            assert_eq!(reader.next().await.unwrap().unwrap().payload.len(), 1);
            assert_eq!(reader.next().await.unwrap(), None);
        });
    }

    #[test]
    fn a_hostile_head_is_refused_before_its_payload_is_read() {
        let too_long = [17, 0, 0, 0, 0, 0, 0, 0xff];
        assert!(matches!(
            Header::decode(too_long),
            Err(FrameError::TooLong(_))
        ));
        let unknown = [99, 0, 0, 0, 0, 0, 0, 0];
        assert!(matches!(
            Header::decode(unknown),
            Err(FrameError::UnknownKind(99))
        ));
    }

    #[test]
    fn a_connection_that_breaks_inside_a_frame_is_an_error() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut reader = FrameReader::new(&[17u8, 0, 0, 0, 5, 0, 0, 0, 1][..]);
            assert!(matches!(reader.next().await, Err(FrameError::Io(_))));
        });
    }
}

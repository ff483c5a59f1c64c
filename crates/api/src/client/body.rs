//! The bodies that go out and come in as streams.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, ReadBuf};

use super::pool::Borrowed;
use super::{ClientError, STALL_DEADLINE};
use crate::attach::BUFFER_BYTES;

/// What a request carries.
pub(crate) enum RequestBody {
    /// Nothing.
    Empty,
    /// Bytes that are there.
    Full(Bytes),
    /// Bytes that are read as the connection takes them.
    Reader {
        from: Pin<Box<dyn AsyncRead + Send>>,
        /// The bytes that are still to come, where the caller knows. With it the server can refuse
        /// too large a body before a byte of it is sent.
        left_bytes: Option<u64>,
        /// Read into, then copied out: handing out the buffer itself would cost a new one for
        /// every short read of a pipe.
        buffer: Box<[u8]>,
    },
}

impl RequestBody {
    pub(crate) fn reader(from: impl AsyncRead + Send + 'static, size_bytes: Option<u64>) -> Self {
        let room = size_bytes.map_or(BUFFER_BYTES, capped);
        Self::Reader {
            from: Box::pin(from),
            left_bytes: size_bytes,
            buffer: vec![0; room].into(),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Reader {
                from,
                left_bytes,
                buffer,
            } => poll_reader(from, left_bytes, buffer, cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Reader { left_bytes, .. } => *left_bytes == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Reader {
                left_bytes: Some(left),
                ..
            } => SizeHint::with_exact(*left),
            Self::Reader {
                left_bytes: None, ..
            } => SizeHint::default(),
        }
    }
}

fn poll_reader(
    from: &mut Pin<Box<dyn AsyncRead + Send>>,
    left_bytes: &mut Option<u64>,
    buffer: &mut [u8],
    cx: &mut Context<'_>,
) -> Poll<Option<io::Result<Frame<Bytes>>>> {
    if *left_bytes == Some(0) {
        return Poll::Ready(None);
    }
    let room = left_bytes.map_or(BUFFER_BYTES, capped).min(buffer.len());
    let mut read = ReadBuf::new(&mut buffer[..room]);
    if let Err(error) = ready!(from.as_mut().poll_read(cx, &mut read)) {
        return Poll::Ready(Some(Err(error)));
    }
    let bytes = Bytes::copy_from_slice(read.filled());
    let count = bytes.len();
    if count == 0 {
        // A promised length that does not come would leave the server waiting for the rest.
        let short = left_bytes
            .is_some()
            .then(|| Err(io::ErrorKind::UnexpectedEof.into()));
        return Poll::Ready(short);
    }
    if let Some(left) = left_bytes {
        *left -= count as u64;
    }
    Poll::Ready(Some(Ok(Frame::data(bytes))))
}

/// A length as the size of a buffer.
fn capped(size_bytes: u64) -> usize {
    usize::try_from(size_bytes)
        .unwrap_or(usize::MAX)
        .min(BUFFER_BYTES)
}

/// An answer whose bytes are read as they come.
#[derive(Debug)]
pub struct Download {
    body: Incoming,
    connection: Option<Borrowed>,
    target: String,
    size_bytes: Option<u64>,
}

impl Download {
    pub(crate) fn new(body: Incoming, connection: Borrowed, target: String) -> Self {
        let size_bytes = body.size_hint().exact();
        Self {
            body,
            connection: Some(connection),
            target,
            size_bytes,
        }
    }

    /// How many bytes there are, where the server said so.
    #[must_use]
    pub fn size_bytes(&self) -> Option<u64> {
        self.size_bytes
    }

    /// The next bytes; `None` after the last.
    ///
    /// # Errors
    /// `Timeout` when nothing comes for [`STALL_DEADLINE`], `Unreachable` when the connection
    /// breaks. Then what was read is not the whole.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            let frame = tokio::time::timeout(STALL_DEADLINE, self.body.frame());
            let frame = frame.await.map_err(|_| ClientError::Timeout {
                target: self.target.clone(),
                within: STALL_DEADLINE,
            })?;
            match frame {
                None => {
                    if let Some(connection) = self.connection.take() {
                        connection.give_back();
                    }
                    return Ok(None);
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => return Ok(Some(data)),
                    // Trailers carry nothing of ours.
                    Err(_) => continue,
                },
                Some(Err(error)) => {
                    return Err(ClientError::Unreachable {
                        target: self.target.clone(),
                        source: Box::new(error),
                    });
                }
            }
        }
    }
}

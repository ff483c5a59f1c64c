//! Streams of the Connect protocol with its JSON codec, as a client reads them.
//!
//! See <https://connectrpc.com/docs/protocol>. An envelope is a byte of flags, the length as big-endian
//! `u32`, and the message.

use bytes::{Buf as _, Bytes, BytesMut};
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::error::{GuestError, Refusal};

/// How a stream of envelopes is typed.
pub(super) const STREAM_TYPE: &str = "application/connect+json";

/// The longest message of a stream in bytes. A guest sends at most 32 KiB of output in one, which is
/// 43 KiB in base64; envd's own are of the same size.
pub(super) const MESSAGE_MAX_BYTES: usize = 256 * 1024;

/// The flag of the last envelope.
const END: u8 = 0b10;
/// The flag of a message that was compressed, which nobody offered to take.
const COMPRESSED: u8 = 0b01;
/// The length of an envelope's head.
const HEAD: usize = 5;

/// A message in its envelope.
pub(super) fn envelope(message: &Value) -> Bytes {
    let json = message.to_string();
    let mut bytes = Vec::with_capacity(HEAD + json.len());
    bytes.push(0);
    let len = u32::try_from(json.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(json.as_bytes());
    bytes.into()
}

/// What is in an envelope.
#[derive(Debug)]
pub(super) enum Envelope {
    /// A message.
    Message(Bytes),
    /// The end of a stream that ended as it should.
    End,
}

/// How the last envelope of a stream looks.
#[derive(Debug, Default, Deserialize)]
struct Trailer {
    error: Option<Refusal>,
}

/// Cuts a stream of bytes into envelopes.
#[derive(Debug, Default)]
pub(super) struct Envelopes {
    buffer: BytesMut,
}

impl Envelopes {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether part of an envelope has come, and not all of it.
    pub(super) fn is_amid(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The next envelope, if all of it has come.
    ///
    /// # Errors
    /// For a message that is too long, before it has come; for one that is compressed; and for a stream
    /// that ends with an error, which is that error.
    pub(super) fn next(&mut self) -> Result<Option<Envelope>, GuestError> {
        let Some([flags, a, b, c, d]) = self.buffer.first_chunk::<HEAD>().copied() else {
            return Ok(None);
        };
        let len = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if len > MESSAGE_MAX_BYTES {
            let why = format!("a message of {len} bytes; the most are {MESSAGE_MAX_BYTES}");
            return Err(GuestError::Protocol(why));
        }
        if flags & COMPRESSED != 0 {
            let why = "a compressed message, which nobody asked for".to_owned();
            return Err(GuestError::Protocol(why));
        }
        if self.buffer.len() < HEAD + len {
            return Ok(None);
        }
        self.buffer.advance(HEAD);
        let message = self.buffer.split_to(len).freeze();
        if flags & END == 0 {
            return Ok(Some(Envelope::Message(message)));
        }
        let trailer: Trailer = serde_json::from_slice(&message)
            .map_err(|error| GuestError::Protocol(format!("an end that {error}")))?;
        match trailer.error {
            Some(refusal) => Err(GuestError::said(refusal, StatusCode::OK)),
            None => Ok(Some(Envelope::End)),
        }
    }
}

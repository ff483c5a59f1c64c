//! Bytes inside JSON: readable where they are text, base64 where they are not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How the bytes of a `data` field are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// The bytes are UTF-8 and stand there as they are.
    Utf8,
    /// The bytes are not UTF-8 (or were cut in the middle of a character) and stand there as
    /// standard base64 with padding.
    Base64,
}

/// A `data` field that does not decode.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("decode `data` as base64")]
pub struct BadData(#[from] base64::DecodeError);

/// Writes bytes as text, and says how.
#[must_use]
pub fn encode(bytes: &[u8]) -> (Encoding, String) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Encoding::Utf8, text.to_owned()),
        Err(_) => (Encoding::Base64, STANDARD.encode(bytes)),
    }
}

/// Reads bytes back from text.
///
/// # Errors
/// [`BadData`] when the text claims to be base64 and is not.
pub fn decode(encoding: Encoding, data: String) -> Result<Bytes, BadData> {
    match encoding {
        Encoding::Utf8 => Ok(Bytes::from(data)),
        Encoding::Base64 => Ok(Bytes::from(STANDARD.decode(data)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text_and_bytes_come_back_whole() {
        assert_eq!(encode(b"hi\n"), (Encoding::Utf8, "hi\n".to_owned()));
        for bytes in [&b""[..], b"hi", b"\xff\x00\xfe", "gr\u{fc}n".as_bytes()] {
            let (encoding, data) = encode(bytes);
            assert_eq!(decode(encoding, data).unwrap(), bytes);
        }
    }

    #[test]
    fn broken_base64_is_an_error_not_a_guess() {
        assert!(decode(Encoding::Base64, "***".to_owned()).is_err());
    }
}

//! Frames on the connection between a node and a guest.
//!
//! A frame is an 8-byte head (kind, three zero bytes, length as little-endian `u32`) and its payload.
//! Control frames carry a [`crate::message`] in postcard; the others carry raw bytes, so that output
//! is never copied through an encoder.

/// The longest payload of a frame, in bytes. One read of a full pipe is 64 KiB; four of them keep the
/// system calls per megabyte low while a guest's buffers stay small.
pub const FRAME_MAX: usize = 256 * 1024;

/// The length of a frame's head in bytes.
pub const HEAD: usize = 8;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A message in postcard, in either direction.
    Control,
    /// Bytes for the command's standard input (node to guest).
    Stdin,
    /// Bytes of the command's standard output (guest to node).
    Stdout,
    /// Bytes of the command's standard error (guest to node).
    Stderr,
    /// Bytes of the file that is being put or got.
    File,
}

impl Kind {
    const ALL: [Kind; 5] = [
        Kind::Control,
        Kind::Stdin,
        Kind::Stdout,
        Kind::Stderr,
        Kind::File,
    ];

    /// The byte on the wire.
    pub fn byte(self) -> u8 {
        match self {
            Kind::Control => 0,
            Kind::Stdin => 1,
            Kind::Stdout => 2,
            Kind::Stderr => 3,
            Kind::File => 4,
        }
    }

    /// The kind that `byte` stands for.
    pub fn from_byte(byte: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.byte() == byte)
    }
}

/// Why bytes are not a frame. The connection cannot go on after one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadFrame {
    /// The kind byte is none that this version knows.
    UnknownKind(u8),
    /// The length is over [`FRAME_MAX`].
    TooLong(u32),
}

impl std::fmt::Display for BadFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BadFrame::UnknownKind(kind) => write!(f, "unknown frame kind {kind}"),
            BadFrame::TooLong(len) => write!(f, "frame of {len} bytes is over the limit"),
        }
    }
}

impl std::error::Error for BadFrame {}

/// Returns the head of a frame with `len` payload bytes. `len` is at most [`FRAME_MAX`].
pub fn head(kind: Kind, len: usize) -> [u8; HEAD] {
    assert!(len <= FRAME_MAX, "frames are cut before they are headed");
    let [a, b, c, d] = u32::try_from(len).unwrap_or(0).to_le_bytes();
    [kind.byte(), 0, 0, 0, a, b, c, d]
}

/// Reads a head: the kind and the payload's length.
///
/// # Errors
/// [`BadFrame`] for an unknown kind or a length over [`FRAME_MAX`], before anything is allocated.
pub fn parse_head(head: [u8; HEAD]) -> Result<(Kind, usize), BadFrame> {
    let [kind, _, _, _, a, b, c, d] = head;
    let len = u32::from_le_bytes([a, b, c, d]);
    let kind = Kind::from_byte(kind).ok_or(BadFrame::UnknownKind(kind))?;
    match usize::try_from(len) {
        Ok(size) if size <= FRAME_MAX => Ok((kind, size)),
        _ => Err(BadFrame::TooLong(len)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_back_as_it_was_written() {
        for kind in Kind::ALL {
            for len in [0, 1, 4096, FRAME_MAX] {
                assert_eq!(parse_head(head(kind, len)), Ok((kind, len)));
            }
        }
    }

    #[test]
    fn a_head_that_is_too_long_or_unknown_is_refused() {
        assert_eq!(
            parse_head([9, 0, 0, 0, 0, 0, 0, 0]),
            Err(BadFrame::UnknownKind(9))
        );
        assert_eq!(
            parse_head([0, 0, 0, 0, 255, 255, 255, 255]),
            Err(BadFrame::TooLong(u32::MAX))
        );
    }
}

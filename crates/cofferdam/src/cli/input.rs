//! What a person gives in a file or on standard input: never more of it than is wanted.

use crate::cli::failure::{Failure, reason};
use api::Code;
use std::io::Read;

/// All of it; of what is longer than `most` bytes one byte more, which shows that it is. It is read into one
/// place, so that no copy of a secret is left behind.
pub(crate) fn read(
    from: std::io::Result<impl Read>,
    what: &str,
    most: usize,
) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| {
        let text = format!("failed to read {what}: {}", reason(&error));
        Failure::new(Code::FileMissing, text)
    };
    // Room beyond the end, or reading would look for more of it and move what is there.
    let mut bytes = Vec::with_capacity(most + 64);
    let mut from = from.map_err(failed)?.take(most as u64 + 1);
    from.read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_is_too_long_one_byte_more_is_read() {
        let read = |most| read(Ok(&b"12345"[..]), "it", most).map(|bytes| bytes.len());
        assert_eq!(
            [read(3).unwrap(), read(5).unwrap(), read(9).unwrap()],
            [4, 5, 5]
        );
        let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
        let failed = super::read(Err::<&[u8], _>(gone), "it", 3).unwrap_err();
        assert!(format!("{failed:?}").contains("failed to read it"));
    }
}

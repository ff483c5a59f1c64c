//! `multipart/form-data` as it comes, cut into heads and pieces of parts. Pure.
//!
//! A part's content is passed on as it comes. What is kept is one head, or as much of the end of a
//! piece as may be the beginning of the line that divides the parts.

use super::failure::Failure;
use bytes::{Buf as _, Bytes, BytesMut};

#[cfg(test)]
mod fuzz;

/// The longest head of a part in bytes: a path of 4 KiB, escaped, and room.
const HEAD_MAX: usize = 16 * 1024;

/// The longest line between parts that a client may choose, by RFC 2046.
const BOUNDARY_MAX: usize = 70;

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A part begins, of this form field and file name.
    Begin {
        field: String,
        filename: Option<String>,
    },
    /// More of its content.
    Content(Bytes),
    /// It ends.
    End,
    /// All parts have come.
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the first line that divides.
    Before,
    /// After such a line.
    Divider,
    Head,
    Content,
    Over,
}

/// Reads the parts.
#[derive(Debug)]
pub(super) struct Parts {
    /// The line that divides, with the line's end before it.
    divider: Vec<u8>,
    buffer: BytesMut,
    place: Place,
}

impl Parts {
    /// For a request of this type.
    pub(super) fn of_type(kind: &str) -> Result<Parts, Failure> {
        let bad = || Failure::invalid("the request names no boundary between its parts");
        let boundary = parameter(kind, "boundary").ok_or_else(bad)?;
        if boundary.is_empty() || boundary.len() > BOUNDARY_MAX {
            return Err(bad());
        }
        // As if a line had ended before, so that the first divider is as the others.
        Ok(Parts {
            divider: format!("\r\n--{boundary}").into_bytes(),
            buffer: BytesMut::from(&b"\r\n"[..]),
            place: Place::Before,
        })
    }

    /// Takes more of the body.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next piece, or none until more has come.
    pub(super) fn next(&mut self) -> Result<Option<Piece>, Failure> {
        loop {
            let piece = match self.place {
                Place::Before => match find(&self.buffer, &self.divider) {
                    Some(at) => {
                        self.buffer.advance(at + self.divider.len());
                        self.place = Place::Divider;
                        continue;
                    }
                    None => self.wait_in_head(),
                },
                Place::Divider => match self.buffer.first_chunk::<2>() {
                    Some(b"\r\n") => {
                        // The end of the line stays: a head may be empty.
                        self.place = Place::Head;
                        continue;
                    }
                    Some(b"--") => {
                        self.place = Place::Over;
                        Ok(Some(Piece::Over))
                    }
                    Some(_) => Err(Failure::invalid("the parts are not divided by lines")),
                    None => Ok(None),
                },
                Place::Head => match find(&self.buffer, b"\r\n\r\n") {
                    Some(at) => {
                        let head = self.buffer.split_to(at);
                        self.buffer.advance(4);
                        self.place = Place::Content;
                        begin(&head).map(Some)
                    }
                    None => self.wait_in_head(),
                },
                Place::Content => Ok(self.content()),
                Place::Over => Ok(Some(Piece::Over)),
            };
            return piece;
        }
    }

    fn wait_in_head(&self) -> Result<Option<Piece>, Failure> {
        if self.buffer.len() > HEAD_MAX {
            return Err(Failure::invalid("the head of a part is too long"));
        }
        Ok(None)
    }

    fn content(&mut self) -> Option<Piece> {
        match find(&self.buffer, &self.divider) {
            Some(0) => {
                self.buffer.advance(self.divider.len());
                self.place = Place::Divider;
                Some(Piece::End)
            }
            Some(at) => Some(Piece::Content(self.buffer.split_to(at).freeze())),
            None => {
                // Its beginning may be here already.
                let safe = self.buffer.len().saturating_sub(self.divider.len() - 1);
                (safe > 0).then(|| Piece::Content(self.buffer.split_to(safe).freeze()))
            }
        }
    }
}

/// Where `wanted` is. Looks for its first byte, which is rare where contents are large.
fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = *wanted.first()?;
    let mut from = 0;
    while let Some(at) = bytes.get(from..)?.iter().position(|byte| *byte == first) {
        if bytes.get(from + at..)?.starts_with(wanted) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

fn begin(head: &[u8]) -> Result<Piece, Failure> {
    let bad = || Failure::invalid("the head of a part cannot be read");
    let head = std::str::from_utf8(head).map_err(|_| bad())?;
    let disposition = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim()
            .eq_ignore_ascii_case("content-disposition")
            .then_some(value)
    });
    let disposition = disposition.ok_or_else(bad)?;
    Ok(Piece::Begin {
        field: parameter(disposition, "name").ok_or_else(bad)?,
        filename: parameter(disposition, "filename"),
    })
}

/// A parameter of a header's value, such as `a; name="b"`.
fn parameter(value: &str, wanted: &str) -> Option<String> {
    let (_, mut rest) = value.split_once(';')?;
    loop {
        let (name, after) = rest.split_once('=')?;
        let (text, left) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = after.find(';').unwrap_or(after.len());
                let (text, left) = after.split_at_checked(end)?;
                (text.trim().to_owned(), left)
            }
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(text);
        }
        rest = left.trim_start().strip_prefix(';')?;
    }
}

/// The text up to the closing quote, and what is after it.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((text, quoted.get(at + 1..)?)),
            // Only these two are escaped so; a client that writes a Windows path means its backslashes.
            '\\' if quoted.get(at + 1..)?.starts_with(['"', '\\']) => {
                text.push(characters.next()?.1);
            }
            _ => text.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=xyz";

    fn body(parts: &[(&str, &str)]) -> String {
        let part = |(name, content): &(&str, &str)| {
            format!(
                "--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
                 Content-Type: text/plain\r\n\r\n{content}\r\n"
            )
        };
        parts.iter().map(part).collect::<String>() + "--xyz--\r\n"
    }

    fn read(body: &[u8], at: usize) -> Result<Vec<(String, Vec<u8>)>, Failure> {
        let mut parts = Parts::of_type(TYPE)?;
        let mut found: Vec<(String, Vec<u8>)> = Vec::new();
        for piece in body.chunks(at) {
            parts.push(piece);
            loop {
                match parts.next()? {
                    Some(Piece::Begin { filename, .. }) => {
                        found.push((filename.unwrap_or_default(), Vec::new()));
                    }
                    Some(Piece::Content(bytes)) => found.last_mut().unwrap().1.extend(bytes),
                    Some(Piece::End) => {}
                    Some(Piece::Over) => return Ok(found),
                    None => break,
                }
            }
        }
        Err(Failure::invalid("cut off"))
    }

    #[test]
    fn parts_come_out_whole_however_they_are_cut() {
        let tricky = "a\r\n--xy\r\n\r\n-\r\r\n--";
        let body = body(&[("/home/user/a", tricky), ("b c", ""), ("\u{e4}", "x")]);
        let expected: Vec<(String, Vec<u8>)> =
            [("/home/user/a", tricky), ("b c", ""), ("\u{e4}", "x")]
                .map(|(name, content)| (name.to_owned(), content.as_bytes().to_vec()))
                .to_vec();
        for at in 1..body.len() {
            assert_eq!(read(body.as_bytes(), at).unwrap(), expected, "{at}");
        }
    }

    #[test]
    fn what_is_no_multipart_is_refused() {
        assert!(Parts::of_type("multipart/form-data").is_err());
        assert!(Parts::of_type(&format!("x; boundary={}", "x".repeat(71))).is_err());
        for bad in [
            "--xyzjunk",
            "--xyz\r\nno head\r\n\r\n",
            "--xyz\r\nContent-Disposition: form-data\r\n\r\n",
        ] {
            let mut parts = Parts::of_type(TYPE).unwrap();
            parts.push(bad.as_bytes());
            assert!(parts.next().is_err(), "{bad}");
        }
        let mut parts = Parts::of_type(TYPE).unwrap();
        parts.push(&vec![b'x'; HEAD_MAX + 1]);
        assert!(parts.next().is_err());
    }

    #[test]
    fn names_are_unquoted() {
        let of = |text: &str| parameter(text, "filename");
        assert_eq!(
            of("form-data; name=\"f\"; filename=\"a\\\"b\""),
            Some("a\"b".to_owned())
        );
        assert_eq!(
            of("form-data; filename=a.txt; name=f"),
            Some("a.txt".to_owned())
        );
        assert_eq!(
            of("form-data; filename=\"a;b=c\""),
            Some("a;b=c".to_owned())
        );
        assert_eq!(of("form-data; filename=\"unfinished"), None);
        assert_eq!(
            parameter("multipart/x; boundary=\"a b\"", "boundary"),
            Some("a b".to_owned())
        );
    }
}

//! Where output goes on: pure.
//!
//! The output of a job is with the server, and its cursor names the job, so that the server asks each time
//! who wants to know. All else is kept here, and its cursor begins with a name that cannot be guessed.

use std::fmt;
use std::str::FromStr;

/// The longest cursor that is looked at; ours are below 60 bytes.
const CURSOR_MAX_BYTES: usize = 128;

/// One of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// A place in what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) of: Of,
    /// In bytes of what was kept.
    pub(crate) at: usize,
}

/// Whose output it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Of {
    Job { id: String, stream: Stream },
    Kept { name: String },
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.of {
            Of::Job { id, stream } => write!(f, "{id}:{}:{}", stream.as_str(), self.at),
            Of::Kept { name } => write!(f, "{name}:{}", self.at),
        }
    }
}

/// A text that is no cursor of ours.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadCursor;

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
        if text.len() > CURSOR_MAX_BYTES || !text.bytes().all(plain) {
            return Err(BadCursor);
        }
        let (of, at) = text.rsplit_once(':').ok_or(BadCursor)?;
        let at = at.parse().map_err(|_| BadCursor)?;
        let of = match of.split_once(':') {
            None if of.starts_with("out_") => Of::Kept {
                name: of.to_owned(),
            },
            Some((id, stream)) if id.starts_with("job_") => Of::Job {
                id: id.to_owned(),
                stream: match stream {
                    "stdout" => Stream::Stdout,
                    "stderr" => Stream::Stderr,
                    _ => return Err(BadCursor),
                },
            },
            _ => return Err(BadCursor),
        };
        Ok(Self { of, at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back_from_their_text() {
        for text in [
            "job_01abc:stdout:0",
            "job_x:stderr:99999",
            "out_0123abcd:8192",
        ] {
            assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let long = format!("out_{}:1", "a".repeat(200));
        for text in [
            "",
            ":",
            "out_a",
            "out_a:",
            "out_a:-1",
            "out_a:1:2",
            "job_a:1",
            "job_a:stdin:1",
            "x:1",
            "job_../b:stdout:1",
            "out_a:99999999999999999999999",
            "out_\u{e9}:1",
            &long,
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(BadCursor), "{text}");
        }
    }
}

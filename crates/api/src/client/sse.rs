//! Server-sent events, as far as we send them.

use bytes::{Buf, BytesMut};

/// The most that one event may have: a segment is at most 256 KiB, which base64 and JSON escapes
/// make larger by at most a factor of six, and the job at the end is at most a few MB.
const EVENT_MAX_BYTES: usize = 8 << 20;

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SseEvent {
    pub(crate) name: String,
    pub(crate) data: String,
}

/// Cuts a stream of bytes into events.
#[derive(Debug, Default)]
pub(crate) struct SseParser {
    buffer: BytesMut,
    /// Up to here there is no line feed, so that a long line is not searched again and again.
    searched: usize,
    event: SseEvent,
    has_data: bool,
}

impl SseParser {
    /// Takes bytes; false when more is waiting than any event of ours has.
    #[must_use]
    pub(crate) fn push(&mut self, bytes: &[u8]) -> bool {
        self.buffer.extend_from_slice(bytes);
        self.buffer.len() + self.event.data.len() <= EVENT_MAX_BYTES
    }

    /// The next whole event. Comments, ids and unknown fields are passed over.
    pub(crate) fn next_event(&mut self) -> Option<SseEvent> {
        while let Some(line) = self.next_line() {
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                if std::mem::take(&mut self.has_data) {
                    return Some(event);
                }
            } else {
                self.take_field(&line);
            }
        }
        None
    }

    fn take_field(&mut self, line: &str) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                self.has_data = true;
            }
            _ => {}
        }
    }

    fn next_line(&mut self) -> Option<String> {
        let found = self.buffer[self.searched..]
            .iter()
            .position(|byte| *byte == b'\n');
        let Some(found) = found else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.buffer.split_to(self.searched + found);
        self.buffer.advance(1);
        self.searched = 0;
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        Some(String::from_utf8_lossy(line).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str, cut: usize) -> Vec<(String, String)> {
        let mut parser = SseParser::default();
        let mut seen = Vec::new();
        for piece in text.as_bytes().chunks(cut) {
            assert!(parser.push(piece));
            while let Some(event) = parser.next_event() {
                seen.push((event.name, event.data));
            }
        }
        seen
    }

    #[test]
    fn events_are_the_same_however_the_stream_is_cut() {
        let text = ": keep-alive\n\nevent: output\nid: 7\ndata: {\"a\":1}\n\n\
                    event: end\r\ndata: x\r\ndata: y\r\n\r\nevent: unfinished\n";
        for cut in [1, 2, 3, 1000] {
            assert_eq!(
                events(text, cut),
                [
                    ("output".to_owned(), "{\"a\":1}".to_owned()),
                    ("end".to_owned(), "x\ny".to_owned())
                ]
            );
        }
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_the_memory() {
        let mut parser = SseParser::default();
        let piece = vec![b'x'; 1 << 20];
        let taken = (0..16).take_while(|_| parser.push(&piece)).count();
        assert_eq!(taken, 8);
    }
}

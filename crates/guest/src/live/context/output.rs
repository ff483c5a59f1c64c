//! What the code writes to its standard streams, as text.

use super::super::{Stream, register};
use scrub::Cleaner;
use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;

/// Bytes of one event.
const CHUNK: usize = 32 * 1024;

/// One of the two streams.
#[derive(Debug)]
pub(super) struct Output {
    stream: Stream,
    /// Nobody has the other end any more.
    is_closed: bool,
    /// In a sandbox with secrets, or in one whose patterns are looked for.
    cleaner: Option<Cleaner>,
    /// Credentials that were found and nobody has asked for.
    found: u64,
    text: Text,
}

impl Output {
    pub(super) fn new(stream: Stream, cleaner: Option<Cleaner>) -> Output {
        Output {
            stream,
            is_closed: false,
            cleaner,
            found: 0,
            text: Text::default(),
        }
    }

    /// The next bytes; never, once it is closed. Nothing is lost when this is dropped.
    pub(super) async fn read(&self) -> Vec<u8> {
        if self.is_closed {
            std::future::pending::<()>().await;
        }
        let read = |fd: &OwnedFd| read(fd, CHUNK);
        let bytes = self.stream.async_io(Interest::READABLE, read).await;
        bytes.unwrap_or_default()
    }

    /// The text of bytes that were read; no bytes are the end.
    pub(super) fn text(&mut self, bytes: &[u8]) -> String {
        if bytes.is_empty() {
            self.is_closed = true;
            return self.rest();
        }
        match &mut self.cleaner {
            Some(cleaner) => self.text.push(&cleaner.feed(bytes)),
            None => self.text.push(bytes),
        }
    }

    /// Whether something is held back that could be a credential.
    pub(super) fn holds(&self) -> bool {
        self.cleaner.as_ref().is_some_and(Cleaner::holds_shapes)
    }

    /// The same as text: nobody waits any longer.
    pub(super) fn release(&mut self) -> String {
        let held = self.cleaner.as_mut().map(Cleaner::release_shapes);
        self.text.push(&held.unwrap_or_default())
    }

    /// How many credentials were taken out since this was asked last.
    pub(super) fn found(&mut self) -> u64 {
        let all = self.cleaner.as_ref().map_or(0, Cleaner::found);
        all - std::mem::replace(&mut self.found, all)
    }

    /// What is in the pipe now, of what was written before something that was said beside it. More may
    /// come all the time, so only so much is taken.
    pub(super) fn drain(&mut self) -> Vec<Vec<u8>> {
        let mut left = rustix::io::ioctl_fionread(self.stream.get_ref()).unwrap_or(0);
        let mut pieces = Vec::new();
        while left > 0 && !self.is_closed {
            let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            match read(self.stream.get_ref(), most) {
                Ok(bytes) if !bytes.is_empty() => {
                    left = left.saturating_sub(bytes.len() as u64);
                    pieces.push(bytes);
                }
                _ => break,
            }
        }
        pieces
    }

    /// What was held back, and what is left of a character that never came whole.
    pub(super) fn rest(&mut self) -> String {
        let held = self.cleaner.as_mut().map(Cleaner::finish);
        let text = self.text.push(&held.unwrap_or_default());
        text + &self.text.rest()
    }
}

fn read(fd: &OwnedFd, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; most];
    let n = rustix::io::read(fd, &mut bytes)?;
    bytes.truncate(n);
    Ok(bytes)
}

/// Our end of a socket.
pub(super) fn socket(fd: OwnedFd) -> io::Result<Stream> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    register(fd, Interest::READABLE | Interest::WRITABLE)
}

/// Makes text of bytes that may end inside a character.
#[derive(Debug, Default)]
struct Text {
    begun: Vec<u8>,
}

impl Text {
    fn push(&mut self, bytes: &[u8]) -> String {
        self.begun.extend_from_slice(bytes);
        let whole = self.begun.len() - begun(&self.begun);
        let rest = self.begun.split_off(whole);
        let text = String::from_utf8_lossy(&self.begun).into_owned();
        self.begun = rest;
        text
    }

    fn rest(&mut self) -> String {
        let rest = std::mem::take(&mut self.begun);
        String::from_utf8_lossy(&rest).into_owned()
    }
}

/// How many bytes at the end are a character that may still become whole.
fn begun(bytes: &[u8]) -> usize {
    let last = bytes.iter().rev().take(3);
    for (at, byte) in (1..).zip(last) {
        let needs = match byte {
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf7 => 4,
            0x80..=0xbf => continue,
            _ => return 0,
        };
        return if needs > at { at } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_come_whole_however_they_are_cut_and_what_is_none_is_marked() {
        let whole = "a\u{e4}\u{20ac}\u{1f600}b";
        for at in 1..whole.len() {
            let mut text = Text::default();
            let mut seen = String::new();
            for piece in whole.as_bytes().chunks(at) {
                seen.push_str(&text.push(piece));
            }
            assert_eq!(seen, whole, "{at}");
        }
        let mut text = Text::default();
        assert_eq!(
            text.push(b"x\xff\x80\x80\x80\x80y"),
            "x\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}y"
        );
        assert_eq!(
            (text.push(b"\xe2\x82").as_str(), text.rest().as_str()),
            ("", "\u{fffd}")
        );
    }
}

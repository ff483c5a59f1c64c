//! One output stream of a job on the node's disk: its beginning and its end, bounded.
//!
//! The file is the truth about how much of the stream this node has: a guest may forget only what is in
//! it. Layout: three little-endian `u64` (all bytes so far; how many of the head are reported; how many
//! are being reported), the head, and the tail as a ring. Bytes go in before the count, so a process
//! that dies between the two gets the same bytes again and writes them to the same place.
//!
//! What is taken out of a stream makes it shorter than what the guest sent. The spool of such a stream has
//! a fourth number, how much of the guest's bytes it stands for, written together with the others.

use model::limits::{OUTPUT_HEAD_BYTES as HEAD, OUTPUT_TAIL_BYTES as TAIL};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

const HEADER: u64 = 24;
/// Of a stream that is scrubbed.
const HEADER_SCRUBBED: u64 = 32;

/// A stream's spool.
#[derive(Debug)]
pub(crate) struct Spool {
    path: PathBuf,
    /// Made with the first byte: most jobs write nothing to one of their streams.
    file: Option<File>,
    total: u64,
    reported: u64,
    reporting: u64,
    /// Bytes of the guest's stream that it stands for; the same as `total` where nothing is scrubbed.
    taken: u64,
    scrubbed: bool,
    /// Credentials that were found by their shape in what passed through this process.
    pub(crate) patterns_found: u64,
}

/// Some bytes of a stream, and where they belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Spool {
    /// Opens the spool at `path`, as far as it got.
    pub(crate) fn open(path: &Path, scrubbed: bool) -> io::Result<Spool> {
        let mut spool = Spool {
            path: path.to_owned(),
            file: None,
            total: 0,
            reported: 0,
            reporting: 0,
            taken: 0,
            scrubbed,
            patterns_found: 0,
        };
        match File::options().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(file) => {
                let mut header = [0; 32];
                let size = usize::try_from(spool.header()).unwrap_or(0);
                let (header, _) = header.split_at_mut(size);
                // A process that died before the first count wrote nothing that counts.
                if file.read_exact_at(header, 0).is_ok() {
                    let (counts, _) = header.as_chunks::<8>();
                    let count = |at: usize| counts.get(at).map(|bytes| u64::from_le_bytes(*bytes));
                    spool.total = count(0).unwrap_or(0);
                    spool.reported = count(1).unwrap_or(0);
                    spool.reporting = count(2).unwrap_or(0);
                    spool.taken = count(3).unwrap_or(spool.total);
                }
                spool.file = Some(file);
            }
        }
        Ok(spool)
    }

    /// Bytes of the stream so far.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    fn header(&self) -> u64 {
        if self.scrubbed {
            HEADER_SCRUBBED
        } else {
            HEADER
        }
    }

    /// Bytes of the guest's stream that are safe here, or need not be.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Takes the next bytes of the stream.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.append_for(bytes, self.taken + bytes.len() as u64)
    }

    /// Takes what is left of the guest's stream up to `taken`.
    pub(crate) fn append_for(&mut self, bytes: &[u8], taken: u64) -> io::Result<()> {
        self.taken = taken;
        if bytes.is_empty() {
            return Ok(());
        }
        if self.file.is_none() {
            let mut options = File::options();
            self.file = Some(
                options
                    .read(true)
                    .write(true)
                    .create_new(true)
                    .open(&self.path)?,
            );
        }
        let mut at = self.total;
        let mut left = bytes;
        // Of a flood only the last bytes can stay; the rest need not be written at all.
        let end = self.total + bytes.len() as u64;
        while !left.is_empty() {
            let room = if at < HEAD {
                HEAD - at
            } else {
                TAIL - (at - HEAD) % TAIL
            };
            let n = usize::try_from(room).unwrap_or(left.len()).min(left.len());
            let (now, later) = left.split_at(n);
            if at < HEAD || end - at <= TAIL + now.len() as u64 {
                self.write_at(now, self.place(at))?;
            }
            at += n as u64;
            left = later;
        }
        self.total = at;
        self.write_counts()
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file
            .as_ref()
            .map_or(Ok(()), |file| file.write_all_at(bytes, at))
    }

    fn write_counts(&self) -> io::Result<()> {
        let counts = [self.total, self.reported, self.reporting, self.taken];
        let counts = counts.map(u64::to_le_bytes);
        let counts = if self.scrubbed {
            &counts[..]
        } else {
            &counts[..3]
        };
        self.write_at(counts.as_flattened(), 0)
    }

    /// The next piece of the head that has to be reported, at most `most` bytes. The same piece is
    /// given again, also to the next process, until [`Spool::reported`]: the control plane knows a
    /// piece by where it starts, so it must not grow between two tries.
    pub(crate) fn unreported(&mut self, most: usize) -> io::Result<Option<Piece>> {
        let head = self.total.min(HEAD);
        if self.reporting <= self.reported {
            if self.reported >= head {
                return Ok(None);
            }
            let before = self.reporting;
            self.reporting = head.min(self.reported + most as u64);
            if let Err(error) = self.write_counts() {
                // It is not given, so it is none that the next process would have to give again: the rest of the
                // stream falls into the same pieces for both.
                self.reporting = before;
                return Err(error);
            }
        }
        let offset = self.reported;
        let bytes = self.read(offset, self.reporting - offset)?;
        Ok(Some(Piece { offset, bytes }))
    }

    /// Bytes of the head that are not reported yet.
    pub(crate) fn waiting(&self) -> u64 {
        self.total.min(HEAD).saturating_sub(self.reported)
    }

    /// Bytes of the head that the control plane has, as far as this node has heard.
    pub(crate) fn safe(&self) -> u64 {
        self.reported
    }

    /// The piece that was given last is safe.
    pub(crate) fn reported(&mut self) -> io::Result<()> {
        self.reported = self.reporting.max(self.reported);
        self.write_counts()
    }

    /// All that is kept and not reported, once the stream is over, in pieces of at most `most` bytes, each with its
    /// length and what was read of it. Nothing is written, so it is told on a full disk too; the next process finds
    /// the same pieces, because the stream does not grow any more.
    pub(crate) fn rest(&self, most: usize) -> Vec<(u64, io::Result<Piece>)> {
        let head = self.total.min(HEAD);
        let tail = HEAD.max(self.total.saturating_sub(TAIL));
        // The piece that was given last, if nobody said that it is safe, has to be the same again.
        let first = self.reported..self.reporting.max(self.reported).min(head);
        let ranges = std::iter::once(first.clone())
            .chain(steps(first.end..head, most))
            .chain(steps(tail..self.total, most));
        let piece = |range: Range<u64>| {
            let len = range.end - range.start;
            let bytes = self.read(range.start, len);
            let offset = range.start;
            (len, bytes.map(|bytes| Piece { offset, bytes }))
        };
        ranges
            .filter(|range| !range.is_empty())
            .map(piece)
            .collect()
    }

    /// Bytes that are kept of the whole stream.
    pub(crate) fn kept(&self) -> u64 {
        self.total.min(HEAD + TAIL)
    }

    fn read(&self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        let Some(file) = &self.file else {
            return Ok(Vec::new());
        };
        let mut at = offset;
        let mut left = bytes.as_mut_slice();
        while !left.is_empty() {
            let room = if at < HEAD {
                HEAD - at
            } else {
                TAIL - (at - HEAD) % TAIL
            };
            let n = usize::try_from(room).unwrap_or(left.len()).min(left.len());
            let (now, later) = left.split_at_mut(n);
            file.read_exact_at(now, self.place(at))?;
            at += n as u64;
            left = later;
        }
        Ok(bytes)
    }

    /// Where in the file the byte at `offset` of the stream is.
    fn place(&self, offset: u64) -> u64 {
        if offset < HEAD {
            self.header() + offset
        } else {
            self.header() + HEAD + (offset - HEAD) % TAIL
        }
    }
}

/// A range in steps of at most `most`.
fn steps(range: Range<u64>, most: usize) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    let next = move |at: &u64| Some(*at + most as u64);
    let starts = std::iter::successors(Some(range.start), next);
    starts
        .take_while(move |at| *at < end)
        .map(move |at| at..end.min(at + most as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn byte(at: u64) -> u8 {
        u8::try_from(at % 251).unwrap()
    }

    fn filled(path: &Path, total: u64, step: u64) -> Spool {
        let mut spool = Spool::open(path, false).unwrap();
        while spool.total() < total {
            let end = total.min(spool.total() + step);
            let bytes: Vec<u8> = (spool.total()..end).map(byte).collect();
            spool.append(&bytes).unwrap();
        }
        spool
    }

    #[test]
    fn the_beginning_and_the_end_are_kept_however_they_arrive() {
        for (total, step) in [
            (10, 3),
            (1_000_000, 65_536),
            (3_000_001, 700_001),
            (1_700_000, 1_700_000),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let mut spool = filled(&dir.path().join("s"), total, step);
            let mut seen = Vec::new();
            while let Some(piece) = spool.unreported(100_000).unwrap() {
                seen.push(piece);
                spool.reported().unwrap();
            }
            let tail = spool.rest(100_000).into_iter();
            seen.extend(tail.map(|(_, piece)| piece.unwrap()));
            let kept: u64 = seen.iter().map(|piece| piece.bytes.len() as u64).sum();
            assert_eq!(kept, spool.kept(), "{total}");
            for piece in seen {
                let right = (piece.offset..)
                    .zip(&piece.bytes)
                    .all(|(at, b)| byte(at) == *b);
                assert!(right, "{total} at {}", piece.offset);
            }
        }
    }

    /// So that a disk that is full, on which nothing can be noted, takes nothing from a log.
    #[test]
    fn the_rest_of_a_stream_is_what_was_not_reported_in_the_same_pieces() {
        for (total, reported) in [
            (0, 0),
            (10, 0),
            (1_700_000, 2),
            (3_000_001, 1),
            (3_000_001, 9),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let mut spool = filled(&dir.path().join("s"), total, 65_536);
            for _ in 0..reported {
                spool.unreported(100_000).unwrap();
                spool.reported().unwrap();
            }
            let given = spool.unreported(60_000).unwrap();
            let rest = spool.rest(100_000);
            let rest: Vec<Piece> = rest.into_iter().map(|(_, piece)| piece.unwrap()).collect();
            if given.is_some() {
                assert_eq!(rest.first(), given.as_ref());
            }
            let bytes: u64 = rest.iter().map(|piece| piece.bytes.len() as u64).sum();
            assert_eq!(bytes, spool.kept() - spool.reported, "{total} {reported}");
            assert!(rest.iter().all(|piece| piece.bytes.len() <= 100_000));
            for piece in rest {
                let mut own = (piece.offset..).zip(&piece.bytes);
                assert!(
                    own.all(|(at, b)| byte(at) == *b),
                    "{total} at {}",
                    piece.offset
                );
            }
        }
    }

    #[test]
    fn the_next_process_goes_on_where_this_one_died_with_the_same_piece() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let mut first = filled(&path, 100, 100);
        let piece = first.unreported(60).unwrap().unwrap();
        drop(first);
        let mut second = Spool::open(&path, false).unwrap();
        assert_eq!(second.total(), 100);
        second.append(&[1; 50]).unwrap();
        assert_eq!(second.unreported(1000).unwrap().unwrap(), piece);
        second.reported().unwrap();
        assert_eq!(second.unreported(1000).unwrap().unwrap().offset, 60);
    }

    /// Otherwise what this process has told of the rest, and the next one tells again, would overlap.
    #[test]
    fn a_piece_that_could_not_be_noted_was_not_given_and_the_rest_is_the_same_for_the_next_process()
    {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let mut first = filled(&path, 200, 200);
        first.unreported(50).unwrap();
        first.reported().unwrap();
        // As on a disk that takes nothing.
        first.file = Some(File::open(&path).unwrap());
        first.unreported(60).unwrap_err();
        let second = Spool::open(&path, false).unwrap();
        for spool in [first, second] {
            let rest = spool.rest(80).into_iter();
            let rest: Vec<_> = rest
                .map(|(len, piece)| (piece.unwrap().offset, len))
                .collect();
            assert_eq!(rest, [(50, 80), (130, 70)]);
        }
    }

    #[test]
    fn a_scrubbed_stream_goes_on_where_the_guest_has_to_and_not_where_its_own_bytes_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let mut first = Spool::open(&path, true).unwrap();
        first.append_for(b"short", 1000).unwrap();
        first.append_for(b"", 1000).unwrap();
        drop(first);
        let mut second = Spool::open(&path, true).unwrap();
        assert_eq!((second.total(), second.taken()), (5, 1000));
        assert_eq!(second.unreported(100).unwrap().unwrap().bytes, b"short");
        let plain = Spool::open(&dir.path().join("none"), false).unwrap();
        assert_eq!(plain.taken(), 0);
    }
}

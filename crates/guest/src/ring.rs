//! A bounded window over a stream of bytes, addressed by offset from the stream's beginning.

/// Keeps the bytes between what the other end has safe (`base`) and what was read so far (`end`).
///
/// Memory is taken on the first write only, so that a guest whose command prints nothing stays small.
#[derive(Debug)]
pub struct Ring {
    data: Vec<u8>,
    capacity: usize,
    base: u64,
    len: usize,
}

impl Ring {
    /// An empty window of at most `capacity` bytes at offset 0.
    pub fn new(capacity: usize) -> Ring {
        Ring {
            data: Vec::new(),
            capacity,
            base: 0,
            len: 0,
        }
    }

    /// Offset of the first byte kept.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Offset after the last byte kept.
    pub fn end(&self) -> u64 {
        self.base + self.len as u64
    }

    /// No byte is kept.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn index(&self, offset: u64) -> usize {
        usize::try_from(offset % self.capacity as u64).unwrap_or(0)
    }

    /// The free bytes in one piece, to read into; empty when the window is full. Follow with [`Ring::grow`].
    pub fn space(&mut self) -> &mut [u8] {
        if self.data.is_empty() {
            self.data = vec![0; self.capacity];
        }
        let at = self.index(self.end());
        let room = (self.capacity - self.len).min(self.capacity - at);
        self.data.get_mut(at..at + room).unwrap_or_default()
    }

    /// Takes `n` bytes that were written into [`Ring::space`].
    pub fn grow(&mut self, n: usize) {
        assert!(
            self.len + n <= self.capacity,
            "more bytes than there was space"
        );
        self.len += n;
    }

    /// The bytes from `offset` on, as far as they lie in one piece and at most `most`.
    pub fn piece(&self, offset: u64, most: usize) -> &[u8] {
        if offset < self.base || offset >= self.end() {
            return &[];
        }
        let at = self.index(offset);
        let left = usize::try_from(self.end() - offset).unwrap_or(0);
        let n = left.min(self.capacity - at).min(most);
        self.data.get(at..at + n).unwrap_or_default()
    }

    /// Forgets the bytes before `offset`. An offset outside the window changes nothing: it comes from
    /// the other end and may be stale.
    pub fn forget(&mut self, offset: u64) {
        if offset > self.base && offset <= self.end() {
            self.len -= usize::try_from(offset - self.base).unwrap_or(0);
            self.base = offset;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(ring: &mut Ring, mut bytes: &[u8]) -> usize {
        let mut written = 0;
        while !bytes.is_empty() {
            let space = ring.space();
            let n = space.len().min(bytes.len());
            if n == 0 {
                break;
            }
            space[..n].copy_from_slice(&bytes[..n]);
            ring.grow(n);
            bytes = &bytes[n..];
            written += n;
        }
        written
    }

    #[test]
    fn bytes_come_back_in_order_across_the_seam() {
        let mut ring = Ring::new(8);
        assert_eq!(write(&mut ring, b"abcdef"), 6);
        ring.forget(4);
        assert_eq!(write(&mut ring, b"ghijklm"), 6);
        assert_eq!(ring.piece(4, 100), b"efgh");
        assert_eq!(ring.piece(8, 2), b"ij");
        assert_eq!(ring.end(), 12);
        assert!(ring.space().is_empty());
    }

    #[test]
    fn an_acknowledgement_from_outside_the_window_changes_nothing() {
        let mut ring = Ring::new(8);
        write(&mut ring, b"abcd");
        ring.forget(9);
        assert_eq!((ring.base(), ring.end()), (0, 4));
        ring.forget(2);
        ring.forget(1);
        assert_eq!((ring.base(), ring.end()), (2, 4));
        assert_eq!(ring.piece(1, 4), b"");
    }
}

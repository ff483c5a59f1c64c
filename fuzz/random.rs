//! Numbers that are the same on every machine, and what is done to an input with them.

/// Numbers at which lengths and counts break.
const EDGES: [u8; 10] = [0, 1, 5, 0x16, 0x20, 0x7f, 0x80, 0xc0, 0xfe, 0xff];

/// Xorshift, Marsaglia 2003.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below this one, or 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).unwrap_or(0)
    }

    /// Changes an input in one place.
    pub(super) fn change(&mut self, input: &mut Vec<u8>, others: &[Vec<u8>], words: &[&[u8]]) {
        let at = self.below(input.len() + 1);
        let to = (at + self.below(24)).min(input.len());
        let byte = self.next().to_le_bytes()[0];
        match self.below(9) {
            0 if at < input.len() => input[at] ^= 1 << (byte % 8),
            1 if at < input.len() => input[at] = EDGES[self.below(EDGES.len())],
            2 => input.insert(at, byte),
            3 => drop(input.drain(at..to)),
            4 => {
                let piece = input[at..to].to_vec();
                input.splice(at..at, piece);
            }
            5 => {
                let other = &others[self.below(others.len())];
                let from = self.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            6 if !words.is_empty() => {
                let word = words[self.below(words.len())];
                input.splice(at..at, word.iter().copied());
            }
            7 => input.truncate(at),
            8 if !words.is_empty() => {
                let word = words[self.below(words.len())];
                input.splice(at..to, word.iter().copied());
            }
            _ => input.push(byte),
        }
    }
}

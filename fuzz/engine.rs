//! Mutates seeds and gives them to a target, which must not panic: what the fuzz targets of all rooms share. Each
//! room has its targets in a file `fuzz.rs`, with the seeds beside them, and includes this one by its path.
//!
//! In the ordinary tests a target gets each seed and some thousand mutations, always the same ones. With
//! `COFFERDAM_FUZZ_SECONDS` it goes on for so long, with others each time. Nothing guides it by coverage: a target
//! is a `fn(&[u8])`, so whoever has libFuzzer can call it from there.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

/// Mutations of an ordinary run: together with the seeds a second at most.
const FEW: u64 = 4000;

/// Inputs that are mutated further, besides the seeds.
const KEPT_MAX: usize = 256;

/// No input is longer, so that no run is slow.
const BYTES_MAX: usize = 4096;

/// Numbers at which lengths and counts break.
const EDGES: [u8; 10] = [0, 1, 5, 0x16, 0x20, 0x7f, 0x80, 0xc0, 0xfe, 0xff];

/// Runs a target. `words` are put in as they are.
pub(crate) fn run(name: &str, seeds: &[Vec<u8>], words: &[&[u8]], mut target: impl FnMut(&[u8])) {
    let seconds = std::env::var("COFFERDAM_FUZZ_SECONDS").ok();
    let seconds = seconds
        .and_then(|text| text.parse().ok())
        .map(Duration::from_secs);
    let begun = Instant::now();
    let mut random = Random(match seconds {
        None => 0x9e37_79b9_7f4a_7c15,
        Some(_) => u64::from(std::process::id()) << 20 | 0x9e37,
    });
    let mut try_one = |input: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
            println!("{name} fails for b\"{}\"", input.escape_ascii());
            resume_unwind(panic);
        }
    };
    seeds.iter().for_each(|seed| try_one(seed));
    let mut kept: Vec<Vec<u8>> = seeds.to_vec();
    let mut count = seeds.len() as u64;
    while seconds.map_or(count < FEW, |seconds| begun.elapsed() < seconds) {
        let mut input = kept[random.below(kept.len())].clone();
        for _ in 0..=random.below(4) {
            random.change(&mut input, &kept, words);
        }
        input.truncate(BYTES_MAX);
        try_one(&input);
        count += 1;
        if random.below(16) == 0 {
            let at = seeds.len() + random.below(KEPT_MAX);
            match kept.get_mut(at) {
                Some(old) => *old = input,
                None => kept.push(input),
            }
        }
    }
    println!("{name}: {count} executions in {:?}", begun.elapsed());
}

/// Xorshift, Marsaglia 2003: the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below this one, or 0.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).unwrap_or(0)
    }

    fn change(&mut self, input: &mut Vec<u8>, others: &[Vec<u8>], words: &[&[u8]]) {
        let at = self.below(input.len() + 1);
        let to = (at + self.below(24)).min(input.len());
        let byte = self.next().to_le_bytes()[0];
        match self.below(8) {
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
            _ => input.push(byte),
        }
    }
}

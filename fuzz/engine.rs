//! Mutates seeds and gives them to a target, which must not panic: what the fuzz targets of all rooms share. Each
//! room has its targets in a file `fuzz.rs`, with the seeds beside them, and includes this one by its path.
//!
//! In the ordinary tests a target gets each seed, each input of its corpus and some thousand mutations, always the
//! same ones. With `COFFERDAM_FUZZ_SECONDS` it goes on for so long, with others each time: guided by what code an input
//! reaches where the target was built for that (`cargo xtask fuzz`), and blindly otherwise, which it says.
//! With `COFFERDAM_FUZZ_KEEP` what a guided run has found is put into the corpus.

#[path = "corpus.rs"]
mod corpus;
#[path = "coverage.rs"]
mod coverage;
#[path = "random.rs"]
mod random;

use coverage::Seen;
use random::Random;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

/// Mutations of an ordinary run: together with the seeds a second at most.
const FEW: u64 = 4000;

/// Inputs that are mutated further, besides the seeds, where nothing says which are worth it.
const KEPT_MAX: usize = 256;

/// No input is longer, so that no run is slow.
const BYTES_MAX: usize = 4096;

/// Tries to make an input shorter that reaches something new.
const CUTS_MAX: usize = 48;

/// Runs a target. `words` are put in as they are.
pub(crate) fn run(name: &str, seeds: &[Vec<u8>], words: &[&[u8]], target: impl FnMut(&[u8])) {
    let seconds = std::env::var("COFFERDAM_FUZZ_SECONDS").ok();
    let seconds = seconds
        .and_then(|text| text.parse().ok())
        .map(Duration::from_secs);
    let seed = match seconds {
        None => 0x9e37_79b9_7f4a_7c15,
        Some(_) => u64::from(std::process::id()) << 20 | 0x9e37,
    };
    let mut inputs = seeds.to_vec();
    inputs.extend(corpus::read(name));
    let mut fuzz = Fuzz {
        name,
        target,
        words,
        random: Random(seed),
        seen: Seen::default(),
        kept: Vec::new(),
        count: 0,
        slowest: Duration::ZERO,
        begun: Instant::now(),
    };
    match seconds {
        Some(seconds) if coverage::IS_GUIDED => fuzz.guided(inputs, seconds),
        seconds => fuzz.blind(inputs, seconds),
    }
}

/// One run of a target.
struct Fuzz<'a, T> {
    name: &'a str,
    target: T,
    words: &'a [&'a [u8]],
    random: Random,
    seen: Seen,
    kept: Vec<Vec<u8>>,
    count: u64,
    slowest: Duration,
    begun: Instant,
}

impl<T: FnMut(&[u8])> Fuzz<'_, T> {
    /// Nothing says which inputs are worth more than others.
    fn blind(&mut self, inputs: Vec<Vec<u8>>, seconds: Option<Duration>) {
        inputs.iter().for_each(|input| self.try_one(input));
        let first = inputs.len();
        self.kept = inputs;
        let few = FEW + self.count;
        while seconds.map_or(self.count < few, |seconds| self.begun.elapsed() < seconds) {
            let input = self.mutation();
            self.try_one(&input);
            if self.random.below(16) == 0 {
                let at = first + self.random.below(KEPT_MAX);
                match self.kept.get_mut(at) {
                    Some(old) => *old = input,
                    None => self.kept.push(input),
                }
            }
        }
        self.say(match seconds {
            Some(_) => ", not guided: it was not built to count what it reaches",
            None => "",
        });
    }

    /// What reaches something that nothing has reached before is made as short as it may be, and mutated further.
    fn guided(&mut self, inputs: Vec<Vec<u8>>, seconds: Duration) {
        for input in inputs {
            self.try_one(&input);
            if self.seen.learn() {
                self.kept.push(input);
            }
        }
        let first = (self.kept.len(), self.seen.count());
        while self.begun.elapsed() < seconds {
            let mut input = self.mutation();
            self.try_one(&input);
            let new = self.seen.new_ones();
            if new.is_empty() {
                continue;
            }
            self.shorten(&mut input, &new);
            self.seen.add(&new);
            self.kept.push(input);
        }
        let reached = self.seen.count();
        let small = self.smallest();
        let inputs = small.len();
        self.say(&format!(
            ", guided: {} inputs that reached {} became {inputs} that reach {reached}",
            first.0, first.1
        ));
        if std::env::var_os("COFFERDAM_FUZZ_KEEP").is_some() {
            corpus::write(self.name, &small);
        }
    }

    /// Takes pieces away, as long as what is new about the input is still reached.
    fn shorten(&mut self, input: &mut Vec<u8>, new: &[coverage::Edge]) {
        let mut size = input.len() / 2;
        let mut left = CUTS_MAX;
        while size > 0 && left > 0 {
            let mut at = 0;
            while at < input.len() && left > 0 {
                let mut shorter = input.clone();
                shorter.drain(at..(at + size).min(input.len()));
                self.try_one(&shorter);
                left -= 1;
                if coverage::has_reached(new) {
                    *input = shorter;
                } else {
                    at += size;
                }
            }
            size /= 2;
        }
    }

    /// As few and as short inputs as reach what all do: the shortest first, each that adds something.
    fn smallest(&mut self) -> Vec<Vec<u8>> {
        let mut all = std::mem::take(&mut self.kept);
        all.sort_by_key(Vec::len);
        let mut small = Vec::new();
        let mut seen = Seen::default();
        for input in all {
            self.try_one(&input);
            if seen.learn() {
                small.push(input);
            }
        }
        small
    }

    fn mutation(&mut self) -> Vec<u8> {
        let which = match self.random.below(3) {
            // What was found last is where something new may be near.
            0 => self.kept.len() - 1 - self.random.below(self.kept.len().min(16)),
            _ => self.random.below(self.kept.len()),
        };
        let mut input = self.kept.get(which).cloned().unwrap_or_default();
        for _ in 0..=self.random.below(4) {
            self.random.change(&mut input, &self.kept, self.words);
        }
        input.truncate(BYTES_MAX);
        input
    }

    fn try_one(&mut self, input: &[u8]) {
        self.count += 1;
        let begun = Instant::now();
        coverage::forget();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.target)(input))) {
            println!("{} fails for b\"{}\"", self.name, input.escape_ascii());
            resume_unwind(panic);
        }
        self.slowest = self.slowest.max(begun.elapsed());
    }

    fn say(&self, how: &str) {
        let (name, count, took) = (self.name, self.count, self.begun.elapsed());
        let slowest = self.slowest;
        println!("{name}: {count} executions in {took:.1?}, the slowest {slowest:.1?}{how}");
    }
}

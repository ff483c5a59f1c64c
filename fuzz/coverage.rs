//! What an input reaches: the counters that the compiler puts into code with `-C instrument-coverage`, read in the
//! process itself. `cargo xtask fuzz` builds so, and says it with the `cfg` `guided`; the ordinary tests do not, and
//! here is then nothing.

/// A counter, by its number, and how often it was passed, roughly: a bit for 1, 2, 3, 4 to 7, 8 to 15, 16 to 31, 32 to
/// 127, and more. A loop that goes round once more is new only where that is much.
pub(super) type Edge = (usize, u8);

/// What was reached so far.
#[derive(Default)]
pub(super) struct Seen {
    /// For each counter the bits that were seen.
    bits: Vec<u8>,
}

impl Seen {
    /// What was reached by the last execution alone.
    pub(super) fn new_ones(&self) -> Vec<Edge> {
        let is_new = |(at, bit): &Edge| self.bits.get(*at).copied().unwrap_or(0) & bit == 0;
        reached().filter(is_new).collect()
    }

    pub(super) fn add(&mut self, edges: &[Edge]) {
        for (at, bit) in edges {
            if self.bits.len() <= *at {
                self.bits.resize(*at + 1, 0);
            }
            self.bits[*at] |= bit;
        }
    }

    /// Both, and whether there was anything.
    pub(super) fn learn(&mut self) -> bool {
        let new = self.new_ones();
        self.add(&new);
        !new.is_empty()
    }

    pub(super) fn count(&self) -> u32 {
        self.bits.iter().map(|bits| bits.count_ones()).sum()
    }
}

/// Whether the last execution has reached all of these.
pub(super) fn has_reached(edges: &[Edge]) -> bool {
    let now: Vec<Edge> = reached().collect();
    edges.iter().all(|edge| now.binary_search(edge).is_ok())
}

fn bit(count: u64) -> u8 {
    match count {
        0 => 0,
        1 => 1,
        2 => 1 << 1,
        3 => 1 << 2,
        4..=7 => 1 << 3,
        8..=15 => 1 << 4,
        16..=31 => 1 << 5,
        32..=127 => 1 << 6,
        _ => 1 << 7,
    }
}

fn reached() -> impl Iterator<Item = Edge> {
    let counts = counters::all().iter().enumerate();
    counts.filter_map(|(at, count)| {
        let bit = bit(count.load(std::sync::atomic::Ordering::Relaxed));
        (bit != 0).then_some((at, bit))
    })
}

/// Before an execution: nothing is reached.
pub(super) fn forget() {
    for count in counters::all() {
        count.store(0, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Whether anything is counted.
pub(super) const IS_GUIDED: bool = cfg!(guided);

#[cfg(not(guided))]
mod counters {
    use std::sync::atomic::AtomicU64;

    pub(super) fn all() -> &'static [AtomicU64] {
        &[]
    }
}

#[cfg(guided)]
#[expect(
    unsafe_code,
    reason = "the counters are a section of this program, which only its linker can name"
)]
mod counters {
    use std::sync::atomic::AtomicU64;

    unsafe extern "C" {
        /// The linker puts these before and behind every section whose name is one of C.
        #[link_name = "__start___llvm_prf_cnts"]
        static FIRST: AtomicU64;
        #[link_name = "__stop___llvm_prf_cnts"]
        static END: AtomicU64;
    }

    pub(super) fn all() -> &'static [AtomicU64] {
        let (first, end) = (&raw const FIRST, &raw const END);
        let bytes = end.addr().saturating_sub(first.addr());
        // SAFETY: what is between the two is the section, all of it counters of eight bytes, aligned and there for as
        // long as the program is. Code that counts does so on this thread, or on others at which nobody looks.
        // JUSTIFICATION: the compiler gives no other way to its counters within the process.
        unsafe { std::slice::from_raw_parts(first, bytes / size_of::<AtomicU64>()) }
    }
}

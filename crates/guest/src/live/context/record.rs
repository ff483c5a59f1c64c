//! What is kept of a step for the record.

use super::super::Live;
use super::super::facts::{Asked, End, Written};
use super::event::Which;
use std::rc::Rc;

/// A step that runs. Its end is a fact when this is dropped, whoever drops it: a context that is taken
/// away ends in the middle of a step.
#[derive(Debug)]
pub(super) struct Step {
    live: Rc<Live>,
    /// The number of its start, unless that was missed.
    fact: Option<u64>,
    /// How it ends. Nobody knows until something is said.
    pub(super) end: End,
    written: Written,
}

impl Step {
    /// It is asked for, and about to run in the process `pid`.
    pub(super) fn begin(live: &Rc<Live>, asked: &Asked, pid: Option<i32>) -> Step {
        Step {
            live: live.clone(),
            fact: live.facts.borrow_mut().started(asked, pid),
            end: End::Unknown,
            written: Written::default(),
        }
    }

    /// It was asked for, and there is nobody who runs it.
    pub(super) fn not_started(live: &Rc<Live>, asked: &Asked, why: &str) {
        Step::begin(live, asked, None).end = End::not_started(why);
    }

    /// It has come to its end, well unless it said something else.
    pub(super) fn done(&mut self) {
        if self.end == End::Unknown {
            self.end = End::Exited { code: 0 };
        }
    }

    /// So many credentials were taken out of what it told.
    pub(super) fn found(&mut self, patterns: u64) {
        self.written.patterns = self.written.patterns.saturating_add(patterns);
    }

    /// Its code has written so many bytes.
    pub(super) fn wrote(&mut self, which: Which, bytes: usize) {
        let [stdout, stderr] = &mut self.written.bytes;
        let written = match which {
            Which::Stdout => stdout,
            Which::Stderr => stderr,
        };
        *written = written.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        let mut facts = self.live.facts.borrow_mut();
        facts.ended(self.fact, &self.end, self.written);
    }
}

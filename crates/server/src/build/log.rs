//! What a build has to say, on its way to the database: cut into lines, bounded, told in batches.

use super::World;
use model::build::Phase;
use model::limits;
use service::{BuildHold, Error, Level, LogRow};
use std::time::Duration;
use tokio::time::Instant;

/// How long an entry waits for others: whoever builds watches.
const FLUSH_EVERY: Duration = Duration::from_millis(150);
/// How often it is said that somebody is still there: five misses cost the build.
const RENEW_EVERY: Duration = Duration::from_millis(limits::BUILD_LEASE_MS / 5);
/// Entries that wait at most; a command that writes more waits for the database.
const BATCH: usize = 256;

/// A build in hand, with the entries that wait.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) world: World,
    pub(super) hold: BuildHold,
    waiting: Vec<LogRow>,
    /// Entries of this attempt, told or not.
    said: u64,
    flushed: Instant,
    renewed: Instant,
}

/// The name of a part of a build, as E2B's clients read it.
pub(super) fn name(phase: Phase) -> String {
    match phase {
        Phase::Base => "base".to_owned(),
        Phase::Instruction(number) => number.to_string(),
        Phase::Finish => "finalize".to_owned(),
    }
}

impl Bench {
    pub(super) fn new(world: World, hold: BuildHold) -> Bench {
        let (said, now) = (hold.row().logs, Instant::now());
        Bench {
            world,
            hold,
            waiting: Vec::new(),
            said,
            flushed: now,
            renewed: now,
        }
    }

    /// Adds an entry. Beyond the bound there is one that says so.
    pub(super) fn say(&mut self, phase: Phase, level: Level, message: &str) {
        let last = limits::BUILD_LOGS_MAX - 1;
        let (level, message) = match self.said {
            said if said < last => (level, clean(message)),
            said if said == last => {
                let more = "the log is full; what else there is to say is not kept";
                (Level::Warn, more.to_owned())
            }
            _ => return,
        };
        self.said += 1;
        self.waiting.push(LogRow {
            at_ms: self.world.service.clock().now_ms(),
            level,
            phase: name(phase),
            message,
        });
    }

    /// Writes down what waits, and says that somebody is still there, when it is time for it.
    ///
    /// # Errors
    /// When the build is another's.
    pub(super) async fn tick(&mut self) -> Result<(), Error> {
        if self.waiting.len() >= BATCH || self.flushed.elapsed() >= FLUSH_EVERY {
            self.flush().await?;
        }
        if self.renewed.elapsed() >= RENEW_EVERY {
            self.renewed = Instant::now();
            self.world.service.build_renew(&mut self.hold).await?;
        }
        Ok(())
    }

    /// Writes down what waits.
    ///
    /// # Errors
    /// When the build is another's.
    pub(super) async fn flush(&mut self) -> Result<(), Error> {
        self.flushed = Instant::now();
        let waiting = std::mem::take(&mut self.waiting);
        self.world.service.build_log(&mut self.hold, waiting).await
    }

    /// Waits for something that may take long, and tells meanwhile.
    ///
    /// # Errors
    /// When the build is another's; what was waited for is dropped then.
    pub(super) async fn tend<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Error> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = tokio::time::sleep(FLUSH_EVERY) => self.tick().await?,
            }
        }
    }
}

/// A message as it may be kept: short, on one line, and without what a database cannot have. Colors stay; who
/// shows them takes them out.
fn clean(message: &str) -> String {
    let kept = |c: char| {
        if c.is_control() && c != '\t' && c != '\u{1b}' {
            '?'
        } else {
            c
        }
    };
    let mut text = String::new();
    for c in message.chars().map(kept) {
        if text.len() + c.len_utf8() > limits::BUILD_LOG_BYTES_MAX {
            break;
        }
        text.push(c);
    }
    text
}

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// The lines that are whole now. A line that is too long is several.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                lines.extend(self.end());
            } else {
                self.rest.push(*byte);
                if self.rest.len() >= limits::BUILD_LOG_BYTES_MAX {
                    lines.extend(self.end());
                }
            }
        }
        lines
    }

    /// What is there without an end of line.
    pub(super) fn end(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.rest);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        // What was written over on a terminal is not what anybody saw last.
        let shown = line.rsplit(|byte| *byte == b'\r').next().unwrap_or(line);
        let text = String::from_utf8_lossy(shown);
        (!text.trim().is_empty()).then(|| text.into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_lines_however_they_are_cut() {
        let text = "one\r\ntwo\n\n10%\r100%\nlast".as_bytes();
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let mut found: Vec<String> = text.chunks(size).flat_map(|c| lines.push(c)).collect();
            found.extend(lines.end());
            assert_eq!(found, ["one", "two", "100%", "last"], "{size}");
        }
    }

    #[test]
    fn a_line_without_an_end_does_not_grow_and_no_sign_breaks_the_database() {
        let mut lines = Lines::default();
        let long = vec![b'x'; limits::BUILD_LOG_BYTES_MAX * 2 + 1];
        assert_eq!(lines.push(&long).len(), 2);
        assert_eq!(lines.end(), Some("x".to_owned()));
        assert_eq!(clean("a\0b\u{1b}[31mc\td"), "a?b\u{1b}[31mc\td");
        assert!(clean(&"ö".repeat(5000)).len() <= limits::BUILD_LOG_BYTES_MAX);
    }
}

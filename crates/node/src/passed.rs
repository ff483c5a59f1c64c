//! How many bytes have passed of a way out, on this node's disk: a bound on them is for the life of the sandbox or the
//! job, and processes of ours come and go meanwhile.
//!
//! It is written once in an interval, where any have passed, and not before they do: of what passed in the last interval
//! of a process that was killed, the next one does not know. As with the record beside it, nothing is synced.

use ::egress::proxy::Way;
use std::io;
use std::path::Path;
use std::time::Duration;

/// The file, beside the record, and what it is called before it is in force.
const FILE: &str = "passed";
const NEW: &str = "passed.new";

/// How often it is written at most: some 20 bytes, for each sandbox that has something under way.
const EVERY: Duration = Duration::from_secs(1);

/// What was written down; 0 of a way out that is new. What cannot be read counts as all that any bound lets pass: less
/// would let pass more than was asked.
pub(crate) fn read(dir: &Path) -> u64 {
    let bytes = match std::fs::read_to_string(dir.join(FILE)) {
        Ok(text) => text.trim_end().parse().ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(0),
        Err(_) => None,
    };
    bytes.unwrap_or_else(|| {
        tracing::error!(
            "what has passed of a network cannot be read; where bytes are bounded, none pass"
        );
        u64::MAX
    })
}

/// Writes down what passes, for as long as somebody waits for this.
pub(crate) async fn keep(way: &Way, dir: &Path) {
    let mut written = way.passed();
    loop {
        tokio::time::sleep(EVERY).await;
        save(dir, way.passed(), &mut written);
    }
}

fn save(dir: &Path, passed: u64, written: &mut u64) {
    if passed == *written {
        return;
    }
    match write(dir, passed) {
        Ok(()) => *written = passed,
        // It is over, and its files are taken away.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, "failed to write down what has passed of a network"),
    }
}

/// The old number or the new one is there at any time, never half of one.
fn write(dir: &Path, passed: u64) -> io::Result<()> {
    std::fs::write(dir.join(NEW), format!("{passed}\n"))?;
    std::fs::rename(dir.join(NEW), dir.join(FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passed_is_known_to_the_next_process_and_written_only_where_there_is_more() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), 0, "a new one");
        let mut written = 0;
        save(dir.path(), 0, &mut written);
        assert!(!dir.path().join(FILE).exists());
        save(dir.path(), 4096, &mut written);
        assert_eq!((read(dir.path()), written), (4096, 4096));
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        save(dir.path(), 4096, &mut written);
        assert!(!dir.path().join(FILE).exists(), "it is not written again");
        // Nothing comes back of a sandbox that was taken away.
        let gone = dir.path().join("gone");
        save(&gone, 5000, &mut written);
        assert!(!gone.exists());
        assert_eq!(written, 4096);
    }

    #[test]
    fn what_cannot_be_read_is_as_much_as_can_be() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "x", "-1", "12 13", "99999999999999999999999"] {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            assert_eq!(read(dir.path()), u64::MAX, "{text}");
        }
    }
}

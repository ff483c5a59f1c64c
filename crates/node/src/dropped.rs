//! Reports that can never be delivered: they are given up, and the control plane is told that they were.
//!
//! What is refused for good would be refused again, and what the server fails over again and again is our bug or its
//! own. Neither is repeated for ever, and neither is forgotten in silence: it is in a file before what it was about
//! is, and goes with a heartbeat until the server has it in its record. So whoever dies in between, it is told.

use crate::Node;
use api::Code;
use api::client::ClientError;
use api::dropped::{DROPPED_MAX, DroppedWhat, NodeDropped};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How often a server may fail over one report. With the longest pause between two tries that is two hours, in
/// which somebody can repair it; a database that is away is another error, and is waited for without end.
const FAILED_MAX: u32 = 500;
/// Reports of which the node remembers that it gave them up; of more it has the number.
const KEPT_MAX: usize = 64;
/// The longest file that is read: what that many need, and some more.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// The file, and what it is called before it is in force.
const FILE: &str = "dropped.json";
const NEW: &str = "dropped.new";

/// How often one report has failed.
#[derive(Debug, Default)]
pub(crate) struct Patience(u32);

impl Patience {
    /// Whether it is of no use to try once more.
    pub(crate) fn is_over(&mut self, error: &ClientError) -> bool {
        if error.is(Code::Internal) {
            self.0 = self.0.saturating_add(1);
        }
        !error.body().retryable || self.0 >= FAILED_MAX
    }
}

/// What was given up and is not told yet.
#[derive(Debug)]
pub(crate) struct Dropped {
    dir: PathBuf,
    kept: Mutex<Vec<NodeDropped>>,
}

impl Dropped {
    /// As the process before has left it. A file that cannot be read tells of nothing.
    pub(crate) fn of(dir: &Path) -> Dropped {
        let path = dir.join(FILE);
        let short = std::fs::metadata(&path).is_ok_and(|data| data.len() <= FILE_BYTES_MAX);
        let text = short.then(|| std::fs::read(&path).ok()).flatten();
        let kept = text.and_then(|text| serde_json::from_slice(&text).ok());
        Dropped {
            dir: dir.to_owned(),
            kept: Mutex::new(kept.unwrap_or_default()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<NodeDropped>> {
        // Each statement under the lock leaves the list whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same report given up once more, because we died before its record was gone, is one.
    fn add(&self, what: DroppedWhat, about: &str, code: &str) {
        let mut kept = self.lock();
        if kept
            .iter()
            .any(|one| one.what == what && one.about == about)
        {
            return;
        }
        if kept.len() >= KEPT_MAX {
            if let Some(last) = kept.last_mut() {
                last.more = last.more.saturating_add(1);
            }
        } else {
            kept.push(NodeDropped {
                id: random_id(),
                what,
                about: about.to_owned(),
                code: code.to_owned(),
                more: 0,
            });
        }
        self.write(&kept);
    }

    /// The next that are to be told.
    pub(crate) fn waiting(&self) -> Vec<NodeDropped> {
        self.lock().iter().take(DROPPED_MAX).cloned().collect()
    }

    /// The server has these.
    pub(crate) fn told(&self, ids: &[String]) {
        if ids.is_empty() {
            return;
        }
        let mut kept = self.lock();
        kept.retain(|one| !ids.contains(&one.id));
        self.write(&kept);
    }

    fn write(&self, kept: &[NodeDropped]) {
        let written = serde_json::to_vec(kept)
            .map_err(io::Error::other)
            .and_then(|text| std::fs::write(self.dir.join(NEW), text))
            .and_then(|()| std::fs::rename(self.dir.join(NEW), self.dir.join(FILE)));
        if let Err(error) = written {
            // It is told from memory, unless this process ends before.
            tracing::warn!(%error, "failed to write down which reports were given up");
        }
    }
}

/// A report is given up. One that was overtaken by a newer order or lease is not missed by anybody.
pub(crate) fn give_up(node: &Node, what: DroppedWhat, about: &str, error: &ClientError) {
    if error.is(Code::StaleEpoch) {
        tracing::debug!(about, what = what.as_str(), "a report was overtaken");
        return;
    }
    let code = error.code();
    tracing::warn!(
        error = error.chain(),
        about,
        what = what.as_str(),
        code,
        "a report is given up"
    );
    node.inner.dropped.add(what, about, code);
    node.at("node.dropped");
}

/// What goes with a heartbeat, where the server would understand it.
pub(crate) fn for_beat(node: &Node) -> Vec<NodeDropped> {
    let speaks = node
        .inner
        .server_speaks
        .load(std::sync::atomic::Ordering::Acquire);
    match speaks >= model::node::PROTOCOL_LEASE_TOKENS {
        true => node.inner.dropped.waiting(),
        false => Vec::new(),
    }
}

fn random_id() -> String {
    let mut random = [0; 16];
    // Without random bytes two reports could be one event, which is better than none.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::client::ApiFailure;

    fn error(code: Code) -> ClientError {
        ClientError::Api(Box::new(ApiFailure {
            http_status: 500,
            body: code.body("no".to_owned(), ""),
            retry_after_ms: None,
        }))
    }

    #[test]
    fn what_is_refused_for_good_is_given_up_at_once_and_what_fails_again_and_again_at_last() {
        assert!(Patience::default().is_over(&error(Code::NotFound)));
        let mut patience = Patience::default();
        for _ in 1..FAILED_MAX {
            assert!(!patience.is_over(&error(Code::Internal)));
            // Nobody was there to fail over it.
            assert!(!patience.is_over(&error(Code::Unavailable)));
        }
        assert!(patience.is_over(&error(Code::Internal)));
    }

    #[test]
    fn what_was_given_up_is_told_until_it_was_taken_also_by_the_next_process() {
        let dir = tempfile::tempdir().unwrap();
        let dropped = Dropped::of(dir.path());
        dropped.add(DroppedWhat::Finished, "job_1", "conflict");
        dropped.add(DroppedWhat::Finished, "job_1", "conflict");
        dropped.add(DroppedWhat::Output, "job_1", "conflict");
        let waiting = Dropped::of(dir.path()).waiting();
        assert_eq!(waiting.len(), 2);
        let next = Dropped::of(dir.path());
        next.told(&[waiting[0].id.clone()]);
        assert_eq!(Dropped::of(dir.path()).waiting(), waiting[1..]);
    }

    #[test]
    fn of_more_than_there_is_room_for_the_number_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let dropped = Dropped::of(dir.path());
        for number in 0..KEPT_MAX + 3 {
            dropped.add(DroppedWhat::Finished, &format!("job_{number}"), "conflict");
        }
        assert_eq!(dropped.waiting().len(), DROPPED_MAX);
        assert_eq!(dropped.lock().len(), KEPT_MAX);
        assert_eq!(dropped.lock().last().unwrap().more, 3);
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(Dropped::of(dir.path()).waiting().is_empty());
    }
}

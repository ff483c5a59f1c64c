//! The last calls of a client, for whoever asks why something does not go on: when, what, how long, how large and how
//! it ended. Neither bodies nor headers are on it, and of a path only what the route table has and ids.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body::Body as _;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::ClientError;
use super::send::Call;

/// Calls that are kept: some minutes of a busy node, and less than 200 KiB.
pub const TAPE_MAX: usize = 512;
/// The longest path that is kept: a route with an id in it is shorter.
const PATH_BYTES_MAX: usize = 160;

/// One call that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapeLine {
    /// When it began, in milliseconds since 1970.
    pub at_ms: u64,
    /// `POST` and the like.
    pub method: String,
    /// Without its query.
    pub path: String,
    /// How it ended: `ok`, or the code of the error.
    pub code: String,
    /// From its beginning to the end of its answer, or for a stream to the head of that.
    pub took_ms: u64,
    /// Of its body, where that is known before it is sent.
    pub sent_bytes: Option<u64>,
    /// Of the answer's, where that was read as a whole.
    pub received_bytes: Option<u64>,
}

/// The last calls.
#[derive(Debug)]
pub struct Tape {
    lines: Mutex<VecDeque<TapeLine>>,
    now_ms: fn() -> u64,
}

impl Tape {
    /// An empty one, with what says what time it is, in milliseconds since 1970.
    #[must_use]
    pub fn new(now_ms: fn() -> u64) -> Self {
        Self {
            lines: Mutex::default(),
            now_ms,
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<TapeLine>> {
        // Each statement under the lock leaves the ring whole.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is on it, the oldest first.
    #[must_use]
    pub fn lines(&self) -> Vec<TapeLine> {
        self.lock().iter().cloned().collect()
    }

    /// A call begins.
    pub(crate) fn begin(&self, call: &Call) -> Begun {
        let path = call.path.split('?').next().unwrap_or_default();
        Begun {
            at_ms: (self.now_ms)(),
            since: Instant::now(),
            method: call.method.to_string(),
            path: path.chars().take(PATH_BYTES_MAX).collect(),
            sent_bytes: call.body.size_hint().exact(),
        }
    }

    /// It has ended, with an answer of so many bytes where that is known.
    pub(crate) fn end(&self, begun: Begun, how: Result<Option<u64>, &ClientError>) {
        let line = TapeLine {
            at_ms: begun.at_ms,
            method: begun.method,
            path: begun.path,
            code: how.map_or_else(ClientError::code, |_| "ok").to_owned(),
            took_ms: whole_ms(begun.since.elapsed()),
            sent_bytes: begun.sent_bytes,
            received_bytes: how.ok().flatten(),
        };
        let mut lines = self.lock();
        if lines.len() >= TAPE_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A call that has begun.
#[derive(Debug)]
pub(crate) struct Begun {
    at_ms: u64,
    since: Instant,
    method: String,
    path: String,
    sent_bytes: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Client, Endpoint};
    use std::sync::Arc;

    #[tokio::test]
    async fn the_last_calls_are_on_the_tape_without_queries_bodies_or_tokens() {
        let (dial, gone) = tokio::sync::mpsc::channel(1);
        drop(gone);
        let tape = Arc::new(Tape::new(|| 7));
        let client = Client::new(Endpoint::Memory(dial)).with_tape(tape.clone());
        client.lease_token("job_1", "1.hidden");
        for number in 0..TAPE_MAX + 2 {
            let call = client.call(http::Method::POST, format!("/a/{number}?path=hidden"));
            let call = client
                .with_json(client.shown(call, "job_1"), &"hidden")
                .unwrap();
            let said = client.json::<()>(call).await;
            assert!(said.is_err());
        }
        let lines = tape.lines();
        assert_eq!(lines.len(), TAPE_MAX);
        let last = lines.last().unwrap();
        let expect = TapeLine {
            at_ms: 7,
            method: "POST".to_owned(),
            path: format!("/a/{}", TAPE_MAX + 1),
            code: "server_unreachable".to_owned(),
            took_ms: last.took_ms,
            sent_bytes: Some(8),
            received_bytes: None,
        };
        assert_eq!(*last, expect);
        assert!(!serde_json::to_string(&lines).unwrap().contains("hidden"));
    }
}

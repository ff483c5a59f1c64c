//! From an execution to the client who follows it: lines of JSON, and every stream with an end.

use super::super::body::Body;
use super::super::facts::Asked;
use super::event;
use bytes::Bytes;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;

/// After so much silence a client is told that somebody is there, as E2B's server does.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Pieces that wait for the client; then the code waits.
pub(super) const QUEUE: usize = 4;

/// Bytes of one piece, so that a client who reads slowly makes us hold little.
const PIECE: usize = 64 * 1024;

/// Code that is to run.
#[derive(Debug)]
pub(super) struct Run {
    /// For the record.
    pub(super) asked: Asked,
    pub(super) code: String,
    pub(super) env: BTreeMap<String, String>,
    pub(super) events: mpsc::Sender<Bytes>,
    pub(super) _waiting: Waiting,
}

/// Bytes of code that wait, until this is dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    all: Rc<Cell<usize>>,
    own: usize,
}

impl Waiting {
    /// None where too much waits already.
    pub(super) fn add(all: &Rc<Cell<usize>>, own: usize, most: usize) -> Option<Waiting> {
        let sum = all.get().saturating_add(own);
        // The longest code is never refused where nothing else waits.
        if all.get() > 0 && sum > most {
            return None;
        }
        all.set(sum);
        Some(Waiting {
            all: all.clone(),
            own,
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.all.set(self.all.get().saturating_sub(self.own));
    }
}

impl Run {
    /// Tells the client a line, at its pace. Nobody hears it where the client is gone.
    pub(super) async fn tell(&self, line: Vec<u8>) {
        if line.len() <= PIECE {
            return drop(self.events.send(line.into()).await);
        }
        for piece in line.chunks(PIECE) {
            if self
                .events
                .send(Bytes::copy_from_slice(piece))
                .await
                .is_err()
            {
                return;
            }
        }
    }
}

/// The body of an answer.
pub(super) fn body(events: mpsc::Receiver<Bytes>) -> Body {
    let (to, pieces) = mpsc::channel(1);
    tokio::task::spawn_local(forward(events, to));
    Body::Pieces(pieces)
}

async fn forward(mut events: mpsc::Receiver<Bytes>, to: mpsc::Sender<Bytes>) {
    let mut is_between = true;
    loop {
        let next = tokio::select! {
            biased;
            () = to.closed() => return,
            event = events.recv() => event,
            () = tokio::time::sleep(KEEPALIVE), if is_between => {
                Some(Bytes::from_static(event::KEEPALIVE))
            }
        };
        let Some(next) = next else {
            // The context was taken away in the middle.
            let mut last = event::failed(event::GONE, "the context was removed");
            last.extend_from_slice(event::END);
            return drop(to.send(last.into()).await);
        };
        is_between = next.ends_with(b"\n");
        let is_last = next.ends_with(event::END);
        if to.send(next).await.is_err() || is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_that_waits_is_bounded_and_gives_its_room_back() {
        let all = Rc::new(Cell::new(0));
        let long = Waiting::add(&all, 20, 10);
        assert!(long.is_some() && Waiting::add(&all, 1, 10).is_none());
        drop(long);
        let both = (Waiting::add(&all, 5, 10), Waiting::add(&all, 5, 10));
        assert!(both.0.is_some() && both.1.is_some() && Waiting::add(&all, 1, 10).is_none());
        drop(both);
        assert_eq!(all.get(), 0);
    }
}

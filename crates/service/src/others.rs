//! What other processes on the same database have written: whoever waits here for it is woken.
//!
//! A word of theirs says only that something was written. What, say the newest events, which are read once for all
//! who wait. An event with a lower number may be committed after one with a higher, so the last few are read again.
//! Whatever is missed all the same is found by looking, which everybody who waits does each second.

use crate::Service;
use crate::error::Fail;
use crate::wake::News;
use model::id::{JobId, NodeId, SandboxId, TenantId};
use std::collections::HashSet;
use std::time::Duration;
use store::event::{self, Heard};
use store::{Tx, queue, sandbox};
use tokio::sync::watch;
use tokio::time::Instant;

/// Events that are read again: more than all writers of some servers have under way at a time.
const AGAIN: u64 = 256;
/// Events that are read at a time. When there are more, everybody looks.
const READ_MAX: u32 = 1024;
/// Time between two looks, however often others tell.
const EVERY: Duration = Duration::from_millis(10);
/// Time between two looks of those who wait for output, of which there are no events.
const OUTPUT_EVERY: Duration = Duration::from_millis(100);

/// Which events were seen.
#[derive(Debug, Default)]
struct Seen {
    newest: u64,
    lately: HashSet<u64>,
}

impl Seen {
    /// After which event to read.
    fn after(&self) -> u64 {
        self.newest.saturating_sub(AGAIN)
    }

    /// Of what was read, what was not seen before. Pure but for the memory.
    fn news(&mut self, read: Vec<Heard>) -> Vec<Heard> {
        let newest = read.iter().map(|one| one.position).max();
        self.newest = self.newest.max(newest.unwrap_or(0));
        let after = self.after();
        self.lately.retain(|position| *position > after);
        let is_new = |one: &Heard| self.lately.insert(one.position);
        read.into_iter().filter(is_new).collect()
    }
}

impl Service {
    /// Wakes whoever waits here for what other processes write, until `stop` says true or is dropped. Returns at once
    /// on a database that no other process uses.
    pub async fn hear_others(&self, mut stop: watch::Receiver<bool>) {
        let Some(mut told) = self.inner.store.others() else {
            return;
        };
        let mut seen = Seen::default();
        if let Ok(read) = self.look(|tx| Ok(event::newest(tx, 0, 1)?)).await {
            seen.news(read);
        }
        let mut output_at = Instant::now();
        let mut output_owed = false;
        loop {
            tokio::select! {
                changed = stop.changed() => if changed.is_err() || *stop.borrow_and_update() { return },
                changed = told.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.look_for_news(&mut seen).await;
                    output_owed = true;
                    tokio::time::sleep(EVERY).await;
                }
                () = tokio::time::sleep_until(output_at), if output_owed => {
                    self.wake().job_here(None, News::Output);
                    output_owed = false;
                    output_at = Instant::now() + OUTPUT_EVERY;
                }
            }
        }
    }

    async fn look_for_news(&self, seen: &mut Seen) {
        let after = seen.after();
        let read = self.look(move |tx| Ok(event::newest(tx, after, READ_MAX)?));
        let read = match read.await {
            Ok(read) => read,
            Err(error) => {
                tracing::debug!(
                    error = error.cause(),
                    "failed to look what others have written"
                );
                return;
            }
        };
        let is_all = read.len() < READ_MAX as usize;
        let mut is_queue = !is_all;
        for one in seen.news(read) {
            is_queue |= self.wake_for(&one);
        }
        if is_queue && self.something_waits().await {
            self.wake().queue_here();
        }
    }

    /// Whether polls have anything to look for: each of them would look by itself.
    async fn something_waits(&self) -> bool {
        let waits =
            |tx: &mut Tx<'_>| Ok::<_, Fail>(queue::has_any(tx)? || sandbox::any_requested(tx)?);
        self.look(waits).await.unwrap_or(true)
    }

    /// Wakes who waits for what this event tells. Says whether something may wait for a node now.
    fn wake_for(&self, event: &Heard) -> bool {
        let kind = event.kind.as_str();
        match event.resource.as_str() {
            "job" => {
                if let (Ok(id), Some(news)) = (event.resource_id.parse::<JobId>(), job_news(kind)) {
                    self.wake().job_here(Some(&id), news);
                }
                if kind == "job.stopping" {
                    self.wake_node_of(event);
                }
                matches!(kind, "job.queued" | "job.requeued" | "job.released")
            }
            "sandbox" => {
                if let Ok(id) = event.resource_id.parse::<SandboxId>() {
                    self.wake().sandbox_here(id);
                }
                self.wake_node_of(event);
                kind == "sandbox.requested"
            }
            "node" => {
                self.forget_roots();
                kind == "node.uncordoned" || kind == "node.online"
            }
            "key" | "principal" | "tenant" => {
                self.keys_forget();
                false
            }
            "policy" => {
                self.policies_forget();
                false
            }
            "quota" => {
                let tenant = event.resource_id.split('/').next().unwrap_or_default();
                if let Ok(tenant) = tenant.parse::<TenantId>() {
                    self.release_soon(&tenant);
                }
                true
            }
            "build" => {
                self.inner.builds.notify_one();
                false
            }
            _ => {
                self.wake_node_of(event);
                false
            }
        }
    }

    /// Wakes the polls of the node that an event names, if one does.
    fn wake_node_of(&self, event: &Heard) {
        let data = serde_json::from_str::<serde_json::Value>(&event.data).ok();
        let node = data.as_ref().and_then(|data| data.get("node")?.as_str());
        if let Some(node) = node.and_then(|node| node.parse::<NodeId>().ok()) {
            self.wake().node_here(&node);
        }
    }
}

fn job_news(kind: &str) -> Option<News> {
    match kind {
        "job.leased" => Some(News::Leased),
        "job.finished" => Some(News::Finished),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(position: u64) -> Heard {
        Heard {
            position,
            resource: "job".to_owned(),
            resource_id: String::new(),
            kind: String::new(),
            data: String::new(),
        }
    }

    #[test]
    fn an_event_that_is_committed_late_is_news_once() {
        let mut seen = Seen::default();
        let mut news = |positions: &[u64]| -> Vec<u64> {
            let read = positions.iter().map(|position| heard(*position));
            let news = seen.news(read.collect());
            news.iter().map(|one| one.position).collect()
        };
        assert_eq!(news(&[1000, 998]), [1000, 998]);
        assert_eq!(news(&[1000, 999, 998]), [999]);
        assert_eq!(news(&[1001, 1000, 999, 998]), [1001]);
        assert_eq!(news(&[2000]), [2000]);
        assert!(seen.lately.len() <= 1, "what is old is forgotten");
        assert_eq!(seen.after(), 2000 - AGAIN);
    }
}

//! What sandboxes use, looked at now and then and told in batches. Nothing of it is on the disk: what is
//! not told when the process ends is not known.

use crate::Node;
use api::node::{NodeUsage, SandboxUsed, UsageSample};
use driver::driver::Handle;
use model::limits;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// How long a guest may take to answer; one that works does in a millisecond.
const PATIENCE: Duration = Duration::from_secs(2);
/// So often what was seen is told: as often as the node is heard anyway.
const TELL: Duration = Duration::from_millis(limits::HEARTBEAT_MS);

/// What was seen of sandboxes, and when.
#[derive(Debug, Default)]
struct Seen {
    /// When each was looked at last.
    looked: HashMap<String, Instant>,
    /// What is still to be told.
    untold: HashMap<String, Vec<(Instant, UsageSample)>>,
}

/// Looks and tells, for as long as the node works.
pub(crate) async fn watch(node: &Node) {
    let mut seen = Seen::default();
    let mut told = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(limits::USAGE_EVERY_MS)).await;
        look(node, &mut seen).await;
        if told.elapsed() >= TELL {
            told = Instant::now();
            tell(node, &mut seen).await;
        }
    }
}

/// Looks at those that were not looked at for longest, one after the other: they wait for us, and not those
/// who use them.
async fn look(node: &Node, seen: &mut Seen) {
    let ready: Vec<(String, Handle)> = {
        let kept = node.kept();
        let ready = kept.iter().filter(|(_, keeper)| keeper.is_ready);
        let named = ready.map(|(id, keeper)| (id.clone(), keeper.handle.clone()));
        named.collect()
    };
    for (id, handle) in seen.next(ready) {
        let Some(sample) = sample(node, &handle).await else {
            continue;
        };
        seen.keep(&id, sample);
    }
}

impl Seen {
    /// Whom to look at now; those that are gone are forgotten.
    fn next(&mut self, ready: Vec<(String, Handle)>) -> Vec<(String, Handle)> {
        let now = Instant::now();
        let mut ready: Vec<_> = ready
            .into_iter()
            .map(|(id, handle)| (self.looked.get(&id).copied(), id, handle))
            .collect();
        ready.sort_by_key(|(looked, ..)| *looked);
        let known = |(_, id, _): &(Option<Instant>, String, Handle)| id.clone();
        let all: std::collections::HashSet<String> = ready.iter().map(known).collect();
        self.looked.retain(|id, _| all.contains(id));
        ready.truncate(limits::USAGE_ASKED_MAX);
        for (_, id, _) in &ready {
            self.looked.insert(id.clone(), now);
        }
        ready
            .into_iter()
            .map(|(_, id, handle)| (id, handle))
            .collect()
    }

    /// Keeps a moment. One in which nothing is new replaces the one before, so that an idle sandbox is told
    /// once in a batch.
    fn keep(&mut self, id: &str, sample: UsageSample) {
        let samples = self.untold.entry(id.to_owned()).or_default();
        if samples.last().is_some_and(|(_, last)| *last == sample) {
            samples.pop();
        }
        if samples.len() >= limits::USAGE_POINTS_MAX {
            samples.remove(0);
        }
        samples.push((Instant::now(), sample));
    }

    /// What there is to tell, with its age.
    fn batch(&self) -> NodeUsage {
        let aged = |(at, sample): &(Instant, UsageSample)| UsageSample {
            age_ms: u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX),
            ..*sample
        };
        let one = |(id, samples): (&String, &Vec<_>)| SandboxUsed {
            sandbox_id: id.clone(),
            samples: samples.iter().map(aged).collect(),
        };
        let some = self.untold.iter().take(limits::NODE_SANDBOXES_MAX as usize);
        NodeUsage {
            sandboxes: some.map(one).collect(),
        }
    }
}

/// What a sandbox uses now: from outside where that can be seen, else as its guest says.
pub(super) async fn sample(node: &Node, handle: &Handle) -> Option<UsageSample> {
    let driver = &node.inner.driver;
    let asking = async {
        let stream = driver.connect(handle).await.ok()?;
        driver::guest::metrics(stream).await
    };
    let said = tokio::time::timeout(PATIENCE, asking)
        .await
        .ok()
        .flatten()?;
    let counted = driver.counting(handle).await.ok()?;
    Some(UsageSample {
        age_ms: 0,
        cpu_us: counted.cpu_us.unwrap_or(said.cpu_used_us),
        memory_bytes: counted.memory_bytes.unwrap_or(said.mem_used),
        cache_bytes: counted.cache_bytes.unwrap_or(0),
        disk_bytes: said.disk_used,
    })
}

/// Tells what was seen. What cannot be told is kept until it is too old.
async fn tell(node: &Node, seen: &mut Seen) {
    let batch = seen.batch();
    if batch.sandboxes.is_empty() {
        return;
    }
    match node.inner.client.node_usage(&batch).await {
        Ok(_) => seen.untold.clear(),
        Err(error) => {
            tracing::warn!(%error, "failed to say what sandboxes use");
            let most = Duration::from_millis(limits::USAGE_AGE_MAX_MS);
            for samples in seen.untold.values_mut() {
                samples.retain(|(at, _)| at.elapsed() < most);
            }
            seen.untold.retain(|_, samples| !samples.is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cpu_us: u64) -> UsageSample {
        UsageSample {
            age_ms: 0,
            cpu_us,
            memory_bytes: 1,
            cache_bytes: 0,
            disk_bytes: 1,
        }
    }

    fn handle(id: &str) -> (String, Handle) {
        let handle = Handle {
            version: 1,
            driver: "fake".to_owned(),
            id: model::id::SandboxId::from_parts(1, [1; 10]),
            body: String::new(),
        };
        (id.to_owned(), handle)
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_sandbox_is_told_once_and_the_oldest_moments_go_first() {
        let mut seen = Seen::default();
        for _ in 0..5 {
            seen.keep("idle", sample(7));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let told = seen.batch().sandboxes.remove(0);
        assert_eq!((told.samples.len(), told.samples[0].age_ms), (1, 1000));
        for cpu_us in 0..40 {
            seen.keep("busy", sample(cpu_us));
        }
        let busy = &seen.untold["busy"];
        assert_eq!(busy.len(), limits::USAGE_POINTS_MAX);
        assert_eq!(busy[0].1.cpu_us, 8);
    }

    #[tokio::test(start_paused = true)]
    async fn of_too_many_all_have_their_turn() {
        let mut seen = Seen::default();
        let most = limits::USAGE_ASKED_MAX;
        let all: Vec<_> = (0..most * 2).map(|n| handle(&n.to_string())).collect();
        let mut looked = std::collections::HashSet::new();
        for _ in 0..2 {
            let next = seen.next(all.clone());
            assert_eq!(next.len(), most);
            looked.extend(next.into_iter().map(|(id, _)| id));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(looked.len(), most * 2);
        assert_eq!(seen.next(Vec::new()), []);
        assert!(seen.looked.is_empty());
    }
}

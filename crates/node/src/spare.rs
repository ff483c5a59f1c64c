//! Sandboxes that stand ready before anybody asks, so that a job need not wait for one to be made.
//!
//! A spare is an ordinary sandbox with nothing in it: made by the same plan, confined the same way, its
//! process waiting for a command. It is used for one job and then destroyed like any other. It is not
//! written down: after a crash it is a sandbox that no record names, and recovery takes it away.

use crate::job::{Broken, chain};
use crate::outcome::{self, Told};
use crate::{Node, convert};
use api::node::LeaseSpec;
use driver::driver::{Found, Mode, Plan, Spec};
use driver::guest::message::{FromGuest, ToGuest, VERSION};
use driver::guest::{GuestError, GuestReader, GuestWriter, Incoming, split};
use model::spec::AskedLimits;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a sandbox may take until its guest has answered and the workload is confined.
pub(crate) const PROVISION: Duration = Duration::from_secs(60);

/// A sandbox whose confined process waits for a command.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) plan: Plan,
    pub(crate) reader: GuestReader,
    pub(crate) writer: GuestWriter,
}

/// The spares of a node.
#[derive(Debug, Default)]
pub(crate) struct Spares {
    shelf: Mutex<Shelf>,
    /// Nobody fills any more.
    filled: Notify,
}

/// What is kept, and for whom.
#[derive(Debug, Default)]
struct Shelf {
    wanted: Wanted,
    ready: VecDeque<(Instant, Standing)>,
    /// One task fills the shelf at any time; more would only take the processors from jobs.
    filling: bool,
}

/// Which limits the next job will probably have: those that were asked for last, once they were asked
/// for twice in a row. So two callers who take turns do not make us throw spares away all the time.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Wanted {
    kept: AskedLimits,
    last: AskedLimits,
}

impl Wanted {
    /// Notes what was asked for. True when what is kept is of no use any more.
    fn asked(&mut self, limits: &AskedLimits) -> bool {
        let again = self.last == *limits;
        self.last = *limits;
        let changed = again && self.kept != *limits;
        if changed {
            self.kept = *limits;
        }
        changed
    }
}

impl Spares {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // Each statement under the lock leaves the shelf whole.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A spare for this job, if there is one. Only jobs on the host's own root get one: another root may
/// have changed since the spare was made.
///
/// It still has what is left of a spare's life; the job extends it.
pub(crate) async fn take(node: &Node, spec: &LeaseSpec) -> Option<Standing> {
    if node.inner.config.spares == 0 || spec.root.is_some() {
        return None;
    }
    let limits = convert::limits(spec.limits);
    loop {
        let standing = next(node, &limits)?;
        let found = node.inner.driver.find(&standing.plan.handle).await;
        if matches!(found, Ok(Found::Running)) {
            return Some(standing);
        }
        discard(node, vec![standing]).await;
    }
}

/// How many stand ready.
pub(crate) fn count(node: &Node) -> usize {
    node.inner.spares.shelf().ready.len()
}

/// A spare that is older is not used any more, so that none ends under the job that takes it: a tenth of
/// its life is left.
fn fresh(node: &Node) -> Duration {
    node.inner.config.spare_life / 10 * 9
}

/// Takes the first fresh one off the shelf; those of other limits go if nobody asks for them any more.
fn next(node: &Node, limits: &AskedLimits) -> Option<Standing> {
    let mut useless = Vec::new();
    let fresh = fresh(node);
    let found = {
        let mut shelf = node.inner.spares.shelf();
        if shelf.wanted.asked(limits) {
            useless.extend(shelf.ready.drain(..).map(|(_, standing)| standing));
        }
        let mut found = None;
        while shelf.wanted.kept == *limits && found.is_none() {
            match shelf.ready.pop_front() {
                Some((made, standing)) if made.elapsed() < fresh => found = Some(standing),
                Some((_, standing)) => useless.push(standing),
                None => break,
            }
        }
        found
    };
    if !useless.is_empty() {
        let node = node.clone();
        let tasks = node.inner.tasks.clone();
        tasks.spawn(async move { discard(&node, useless).await });
    }
    found
}

/// Fills the shelf, one by one, unless somebody does already.
pub(crate) async fn fill(node: &Node) {
    while let Some(limits) = begin(node) {
        let made = make(node, limits).await;
        let failed = made.is_err();
        match made {
            Ok(standing) => keep(node, limits, standing).await,
            // A job that comes now makes its own, and is told what is wrong if that fails too.
            Err(why) => tracing::debug!(error = why, "failed to make a spare sandbox"),
        }
        node.inner.spares.shelf().filling = false;
        node.inner.spares.filled.notify_waiters();
        if failed {
            return;
        }
    }
}

/// The limits of the next spare, if one is missing and nobody makes it.
fn begin(node: &Node) -> Option<AskedLimits> {
    let ending = node.inner.draining.load(Ordering::Acquire);
    let mut shelf = node.inner.spares.shelf();
    let full = shelf.ready.len() >= node.inner.config.spares as usize;
    if ending || full || shelf.filling {
        return None;
    }
    shelf.filling = true;
    Some(shelf.wanted.kept)
}

async fn keep(node: &Node, limits: AskedLimits, standing: Standing) {
    let ending = node.inner.draining.load(Ordering::Acquire);
    let useless = {
        let mut shelf = node.inner.spares.shelf();
        if ending || shelf.wanted.kept != limits {
            Some(standing)
        } else {
            shelf.ready.push_back((Instant::now(), standing));
            None
        }
    };
    discard(node, useless).await;
}

async fn make(node: &Node, limits: AskedLimits) -> Result<Standing, String> {
    let spec = Spec {
        id: crate::job::new_sandbox_id(),
        root: None,
        limits,
        life: node.inner.config.spare_life,
        mode: Mode::Job,
        way_out: false,
        layers: Vec::new(),
        volumes: Vec::new(),
    };
    let plan = node.inner.driver.plan(&spec, &node.inner.host);
    let plan = plan.map_err(|_| "these limits cannot be held".to_owned())?;
    match stand(node, plan.clone()).await {
        Ok(Ok(standing)) => {
            node.inner.health.works();
            node.at("node.spared");
            Ok(standing)
        }
        broken => {
            drop(node.inner.driver.destroy(&plan.handle).await);
            let why = broken.map_or_else(|error| chain(&error), |_| "it was refused".to_owned());
            node.inner.health.failed(&why);
            Err(why)
        }
    }
}

/// Tries whether sandboxes can be made again, where they could not: nobody else would, because such a node gets
/// no work.
pub(crate) async fn probe(node: &Node) {
    if node.inner.health.unhealthy().is_some()
        && let Ok(standing) = make(node, AskedLimits::default()).await
    {
        discard(node, [standing]).await;
    }
}

/// Takes away what got too old while nobody asked.
pub(crate) async fn expire(node: &Node) {
    let old: Vec<Standing> = {
        let fresh = fresh(node);
        let mut shelf = node.inner.spares.shelf();
        let first = shelf
            .ready
            .partition_point(|(made, _)| made.elapsed() >= fresh);
        shelf.ready.drain(..first).map(|(_, one)| one).collect()
    };
    discard(node, old).await;
}

/// Takes all of them away, also the one that is being made. Called when no new ones are begun.
pub(crate) async fn clear(node: &Node) {
    loop {
        let filled = node.inner.spares.filled.notified();
        if !node.inner.spares.shelf().filling {
            break;
        }
        filled.await;
    }
    let all: Vec<Standing> = {
        let mut shelf = node.inner.spares.shelf();
        shelf
            .ready
            .drain(..)
            .map(|(_, standing)| standing)
            .collect()
    };
    discard(node, all).await;
}

async fn discard(node: &Node, standing: impl IntoIterator<Item = Standing>) {
    for each in standing {
        let handle = &each.plan.handle;
        if let Err(error) = node.inner.driver.destroy(handle).await {
            let error = chain(&error);
            tracing::error!(sandbox.id = %handle.id, error, "failed to take a spare away");
        }
    }
}

/// Starts a sandbox and waits until its process is confined. What the guest says is that it refuses.
pub(crate) async fn stand(node: &Node, plan: Plan) -> Result<Result<Standing, Told>, Broken> {
    let set_up = async {
        let driver = &node.inner.driver;
        driver.start(&plan).await?;
        node.at("node.sandboxed");
        let (mut reader, mut writer) = split(driver.connect(&plan.handle).await?);
        let hello = ToGuest::Hello {
            version: VERSION,
            stdout: 0,
            stderr: 0,
        };
        writer.say(&hello).await?;
        writer.say(&ToGuest::Confine(plan.confine.clone())).await?;
        let refused = confined(&mut reader).await?;
        Ok(refused.map_or(Ok((reader, writer)), Err))
    };
    let made = tokio::time::timeout(PROVISION, set_up).await;
    let made: Result<Result<_, Told>, Broken> = made.map_err(|_| Broken::Silent)?;
    Ok(made?.map(|(reader, writer)| Standing {
        plan,
        reader,
        writer,
    }))
}

/// Reads until the workload is confined, or until the guest says why it cannot be.
async fn confined(reader: &mut GuestReader) -> Result<Option<Told>, Broken> {
    loop {
        match reader.next().await? {
            Incoming::Message(FromGuest::Hello { version, .. }) if version != VERSION => {
                return Err(GuestError::Version { theirs: version }.into());
            }
            Incoming::Message(FromGuest::Confined) => return Ok(None),
            Incoming::Message(FromGuest::Started {
                failure: Some(failure),
            }) => return Ok(Some(outcome::not_started("", &failure))),
            Incoming::Message(_) | Incoming::Output(..) | Incoming::File(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pids(pids: u32) -> AskedLimits {
        AskedLimits {
            pids: Some(pids),
            ..AskedLimits::default()
        }
    }

    #[test]
    fn what_is_kept_changes_when_the_same_is_asked_twice() {
        let mut wanted = Wanted::default();
        let asked = [(pids(1), false), (pids(2), false), (pids(1), false)];
        for (limits, changed) in asked.into_iter().chain([(pids(1), true), (pids(1), false)]) {
            assert_eq!(wanted.asked(&limits), changed, "{limits:?}");
        }
        assert_eq!(wanted.kept, pids(1));
    }
}

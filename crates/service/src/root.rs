//! Root file systems that operators have given to nodes, by what the nodes say about themselves.

use crate::{Ctx, Error, Service, locked};
use model::access::Action;
use model::id::NodeId;
use model::node::Scheduling;
use model::root::FACT;
use model::spec::Invalid;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use store::node::NodeRow;

/// Nodes that are looked at.
const NODES_MAX: u32 = 1000;
/// How old the answer to "which roots are there" may be. Each sandbox that E2B's clients make asks; and what
/// is made of it is looked at again, in the database.
const FRESH_MS: u64 = 1000;
/// How long the first node is waited for.
const NODE_WAIT: Duration = Duration::from_secs(5);

/// A root file system that sandboxes can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootSeen {
    /// Its name.
    pub name: String,
    /// Which one has that name; of several nodes, on the one whose lease is the newest.
    pub identity: String,
}

/// When they were last looked for, and what was found.
pub(crate) type RootsKnown = Option<(u64, Arc<Vec<RootSeen>>)>;

impl Service {
    /// The root file systems of nodes that may get work, by name, each once.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and its like.
    pub async fn root_list(&self, ctx: &Ctx) -> Result<Arc<Vec<RootSeen>>, Error> {
        // Sandboxes are made on them, and profiles stand on them.
        ctx.may(Action::ProfileRead)
            .or_else(|_| ctx.may(Action::SandboxRead))?;
        let now = self.now_ms();
        if let Some((at, known)) = &*locked(&self.inner.roots)
            && now.saturating_sub(*at) <= FRESH_MS
        {
            return Ok(known.clone());
        }
        let nodes = self.root_nodes(None).await?;
        let mut found = BTreeMap::new();
        for (name, identity) in nodes.iter().rev().flat_map(roots) {
            found.insert(name.to_owned(), identity.to_owned());
        }
        let found = found.into_iter();
        let found: Vec<RootSeen> = found
            .map(|(name, identity)| RootSeen { name, identity })
            .collect();
        let found = Arc::new(found);
        *locked(&self.inner.roots) = Some((now, found.clone()));
        Ok(found)
    }

    /// The root of this name, if a node that may get work has one.
    ///
    /// # Errors
    /// As of [`Service::root_list`].
    pub async fn root_find(&self, ctx: &Ctx, name: &str) -> Result<Option<RootSeen>, Error> {
        let all = self.root_list(ctx).await?;
        Ok(all.iter().find(|root| root.name == name).cloned())
    }

    /// Whether somebody may name this as a root: a directory of the node opens whatever the machine lets everybody
    /// read, also to whoever is not to see the machine. What an operator has given by name is for all.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub(crate) fn root_may(ctx: &Ctx, root: Option<&str>) -> Result<(), Error> {
        match root {
            Some(root) if root.starts_with('/') => ctx.may(Action::HostRead),
            Some(_) | None => Ok(()),
        }
    }

    /// Which root a job or a sandbox gets that names one. Where not all nodes have the same by that name, it
    /// is bound to one that has.
    ///
    /// # Errors
    /// [`Error::Invalid`] `unknown_root`, where no node has it; [`Error::TooMuch`] `no_capacity`, where no node
    /// came in time who could say.
    pub(crate) async fn place_on_root(
        &self,
        root: Option<&str>,
        pin: &mut Option<NodeId>,
    ) -> Result<Option<String>, Error> {
        let Some(name) = root.filter(|root| !root.starts_with('/')) else {
            return Ok(None);
        };
        let nodes = self.wait_for_nodes(pin.as_ref()).await?;
        let Some(node) = nodes.iter().find(|node| has(node, name).is_some()) else {
            return Err(unknown(name, &nodes));
        };
        let identity = has(node, name).map(str::to_owned);
        if nodes
            .iter()
            .any(|other| has(other, name) != identity.as_deref())
        {
            *pin = Some(node.id.clone());
        }
        Ok(identity)
    }

    /// The same, once there is one: the node of a server that has just started comes a moment after its doors
    /// are open.
    async fn wait_for_nodes(&self, pin: Option<&NodeId>) -> Result<Vec<NodeRow>, Error> {
        let until = tokio::time::Instant::now() + NODE_WAIT;
        loop {
            let came = self.inner.node_came.notified();
            let nodes = self.root_nodes(pin).await?;
            if !nodes.is_empty() {
                return Ok(nodes);
            }
            if tokio::time::timeout_at(until, came).await.is_err() {
                return Err(Error::TooMuch {
                    code: "no_capacity",
                    message: "no node is here that could have a root file system".to_owned(),
                });
            }
        }
    }

    /// Nodes that may get work now or later, those that get it now first, and of those the newest lease.
    async fn root_nodes(&self, pin: Option<&NodeId>) -> Result<Vec<NodeRow>, Error> {
        let mut nodes = self
            .look(|tx| Ok(store::node::list(tx, NODES_MAX)?))
            .await?;
        nodes.retain(|node| {
            pin.is_none_or(|pin| *pin == node.id)
                && node.state.scheduling != Scheduling::Decommissioned
        });
        nodes.sort_by_key(|node| {
            let closed = node.state.scheduling != Scheduling::Active;
            (closed, std::cmp::Reverse(node.lease_expires_at_ms))
        });
        Ok(nodes)
    }

    /// What nodes say has changed.
    pub(crate) fn forget_roots(&self) {
        *locked(&self.inner.roots) = None;
        self.inner.node_came.notify_waiters();
    }
}

fn has<'n>(node: &'n NodeRow, name: &str) -> Option<&'n str> {
    node.facts.get(&format!("{FACT}{name}")).map(String::as_str)
}

fn roots(node: &NodeRow) -> impl Iterator<Item = (&str, &str)> {
    node.facts
        .iter()
        .filter_map(|(key, identity)| Some((key.strip_prefix(FACT)?, identity.as_str())))
}

fn unknown(name: &str, nodes: &[NodeRow]) -> Error {
    let mut names: Vec<&str> = nodes.iter().flat_map(roots).map(|(name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    names.truncate(model::limits::ROOTS_MAX);
    let there = match names.is_empty() {
        true => "there is none here".to_owned(),
        false => format!("there are `{}`", names.join("`, `")),
    };
    Error::Invalid(vec![Invalid {
        field: "root".to_owned(),
        code: "unknown_root",
        message: format!("no root file system is called `{name}`; {there}"),
    }])
}

/// What was saved fits on the root that it was written on, and on no other.
///
/// # Errors
/// [`Error::Conflict`] `root_changed`.
pub(crate) fn check_same(was: Option<&str>, is: Option<&str>) -> Result<(), Error> {
    match (was, is) {
        (Some(was), Some(is)) if was != is => Err(Error::conflict_of(
            "root_changed",
            "the root file system that the snapshot stands on is another one now",
        )),
        _ => Ok(()),
    }
}

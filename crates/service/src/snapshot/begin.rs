//! What a sandbox that begins with a snapshot takes over from it.

use super::owned_snapshot;
use crate::error::Fail;
use crate::{Ctx, Error};
use model::id::SnapshotId;
use model::sandbox_spec::{Defaults, SandboxSpec};
use model::snapshot::{SnapshotName, SnapshotState};
use model::spec::AskedLimits;
use store::Tx;
use store::snapshot::{self, SnapshotRow};

/// A snapshot, as somebody names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotRef {
    /// This one.
    Id(SnapshotId),
    /// The newest that is ready and called so.
    Name(SnapshotName),
}

impl std::str::FromStr for SnapshotRef {
    type Err = model::snapshot::NotAName;

    fn from_str(text: &str) -> Result<SnapshotRef, Self::Err> {
        match text.parse() {
            Ok(id) => Ok(SnapshotRef::Id(id)),
            Err(_) => text.parse().map(SnapshotRef::Name),
        }
    }
}

pub(super) fn find(tx: &mut Tx<'_>, ctx: &Ctx, named: &SnapshotRef) -> Result<SnapshotRow, Fail> {
    match named {
        SnapshotRef::Id(id) => owned_snapshot(tx, ctx, id),
        SnapshotRef::Name(name) => {
            let row = snapshot::named(tx, &ctx.tenant, name)?;
            row.ok_or(Fail::Ours(Error::NotFound))
        }
    }
}

/// What is asked, with what was not said taken from the snapshot. Pure.
///
/// # Errors
/// [`Error::Conflict`] or [`Error::NotFound`] for one that nothing can begin with; [`Error::Invalid`] for
/// another root or node than the snapshot's.
pub(crate) fn spec_from(asked: SandboxSpec, from: &SnapshotRow) -> Result<SandboxSpec, Error> {
    check_ready(from)?;
    let invalid = |field: &str, what: &str| {
        let message = format!("the snapshot has another {what}");
        Err(Error::invalid(field, "invalid_argument", message))
    };
    if asked.root.is_some() && asked.root != from.spec.root {
        return invalid("root", "root");
    }
    if asked.node.is_some_and(|node| node != from.node) {
        return invalid("node", "node, and its bytes are there");
    }
    let mut env = from.spec.env.clone();
    env.extend(asked.env);
    let (mine, its) = (asked.limits, from.spec.limits);
    let its_defaults = &from.spec.defaults;
    Ok(SandboxSpec {
        profile: from.spec.profile.clone(),
        env,
        root: from.spec.root.clone(),
        root_identity: from.spec.root_identity.clone(),
        limits: AskedLimits {
            cpu_millis: mine.cpu_millis.or(its.cpu_millis),
            memory_bytes: mine.memory_bytes.or(its.memory_bytes),
            pids: mine.pids.or(its.pids),
            disk_bytes: mine.disk_bytes.or(its.disk_bytes),
        },
        // Files of its own root are of nobody in a sandbox that has none.
        allow_root: asked.allow_root || from.spec.allow_root,
        // What one of them was not to tell, the other does not either.
        scrub_patterns: asked.scrub_patterns || from.spec.scrub_patterns,
        node: Some(from.node.clone()),
        layers: from.layers.clone(),
        defaults: Defaults {
            user: asked.defaults.user.or_else(|| its_defaults.user.clone()),
            workdir: asked
                .defaults
                .workdir
                .or_else(|| its_defaults.workdir.clone()),
            start: asked.defaults.start.or_else(|| its_defaults.start.clone()),
        },
        ..asked
    })
}

fn check_ready(from: &SnapshotRow) -> Result<(), Error> {
    match &from.state {
        SnapshotState::Ready => Ok(()),
        SnapshotState::Saving => Err(Error::conflict("the snapshot is not ready yet")),
        SnapshotState::Failed { why } => Err(Error::conflict(format!(
            "the snapshot could not be made: {why}"
        ))),
        SnapshotState::Deleting | SnapshotState::Deleted => Err(Error::NotFound),
    }
}

/// Looks again in the transaction that makes the sandbox, and keeps whoever deletes the snapshot waiting:
/// either the sandbox is seen then, or the deletion is seen here.
pub(crate) fn hold(
    tx: &mut Tx<'_>,
    ctx: &model::id::TenantId,
    spec: &SandboxSpec,
) -> Result<(), Fail> {
    let Some(id) = spec.snapshot() else {
        return Ok(());
    };
    let row = snapshot::lock(tx, ctx, id)?.ok_or(Fail::Ours(Error::NotFound))?;
    Ok(check_ready(&row)?)
}

//! Snapshots, in both languages.

use api::Code;
use api::snapshot::{ForkResult, SnapshotList, SnapshotMode, SnapshotStateName, SnapshotView};
use model::id::SnapshotId;
use model::snapshot::{SnapshotName, SnapshotState};
use service::{Ctx, SandboxRow, SnapshotFilter, SnapshotPage, SnapshotRef, SnapshotRow};

use super::from_wire;
use crate::error::Error;

/// A name that somebody gives.
pub(crate) fn name(text: &str) -> Result<SnapshotName, Error> {
    let wrong = |error: model::snapshot::NotAName| {
        Error::field(Code::InvalidArgument, "name", error.to_string())
    };
    text.parse().map_err(wrong)
}

/// A snapshot that somebody names.
pub(crate) fn named(text: &str) -> Result<SnapshotRef, Error> {
    let wrong = |_| {
        let message = "no id of a snapshot, and no name";
        Error::field(Code::InvalidArgument, "snapshot", message)
    };
    text.parse().map_err(wrong)
}

pub(crate) fn filter(query: &api::snapshot::SnapshotListQuery) -> Result<SnapshotFilter, Error> {
    let sandbox = query.sandbox.as_deref().map(|id| {
        let id = id.parse();
        id.map_err(|error| from_wire::bad_id("sandbox", &error))
    });
    let named = query.name.as_deref().map(name).transpose()?;
    let has_tag = query.name.as_deref().is_some_and(|name| name.contains(':'));
    let (name, tag) = named.map(|named| (named.name, named.tag)).unzip();
    Ok(SnapshotFilter {
        id: None,
        sandbox: sandbox.transpose()?,
        name,
        tag: tag.filter(|_| has_tag),
        ready: false,
    })
}

fn state(state: &SnapshotState) -> SnapshotStateName {
    match state {
        SnapshotState::Saving => SnapshotStateName::Saving,
        SnapshotState::Ready => SnapshotStateName::Ready,
        SnapshotState::Deleting => SnapshotStateName::Deleting,
        SnapshotState::Deleted => SnapshotStateName::Deleted,
        SnapshotState::Failed { .. } => SnapshotStateName::Failed,
    }
}

pub(crate) fn view(row: SnapshotRow) -> SnapshotView {
    let reason = match &row.state {
        SnapshotState::Failed { why } => Some(why.clone()),
        SnapshotState::Saving
        | SnapshotState::Ready
        | SnapshotState::Deleting
        | SnapshotState::Deleted => None,
    };
    let below = row.layers.iter().filter(|id| **id != row.id);
    SnapshotView {
        parents: below.map(SnapshotId::to_string).collect(),
        id: row.id.to_string(),
        state: state(&row.state),
        mode: SnapshotMode::Filesystem,
        name: row.name.map(|name| name.to_string()),
        sandbox: row.sandbox.to_string(),
        node: row.node.to_string(),
        size_bytes: row.bytes,
        version: row.version,
        principal: row.principal.to_string(),
        created_at_ms: row.created_at_ms,
        ready_at_ms: row.ready_at_ms,
        ended_at_ms: row.ended_at_ms,
        reason,
    }
}

pub(crate) fn list(page: SnapshotPage) -> SnapshotList {
    SnapshotList {
        snapshots: page.snapshots.into_iter().map(view).collect(),
        next: page.next,
    }
}

pub(crate) fn fork(one: Result<SandboxRow, service::Error>, ctx: &Ctx) -> ForkResult {
    match one {
        Ok(row) => ForkResult {
            sandbox: Some(Box::new(super::sandbox::view(ctx, row))),
            error: None,
        },
        Err(error) => ForkResult {
            sandbox: None,
            error: Some(Error::from(error).into_body(&ctx.request_id)),
        },
    }
}

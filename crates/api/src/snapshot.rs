//! Snapshots on the wire: saved file systems of sandboxes, and sandboxes made from them.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::error::ErrorBody;
use crate::sandbox::SandboxView;

/// A snapshot that is to be made of a sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotCreate {
    /// What it is called: small letters, digits and `_-./`, and perhaps `:` and a tag; at most 128 bytes. Of
    /// several with one name the newest is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The states of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotStateName {
    /// Its sandbox is being copied.
    Saving,
    /// Sandboxes can begin with it.
    Ready,
    /// Nothing begins with it any more; its bytes go when nothing stands on them.
    Deleting,
    /// Nothing of it is left but this record.
    Deleted,
    /// It never came to be; `reason` says why.
    Failed,
}

impl SnapshotStateName {
    /// The name as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Saving => "saving",
            Self::Ready => "ready",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
            Self::Failed => "failed",
        }
    }
}

/// What a snapshot keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotMode {
    /// Files. Processes and what they had in memory are not in it.
    Filesystem,
}

/// One snapshot as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotView {
    /// The id, `snp_...`.
    pub id: String,
    /// Where it is in its life.
    pub state: SnapshotStateName,
    /// What it keeps.
    pub mode: SnapshotMode,
    /// What it is called, with its tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The sandbox that it is a copy of.
    pub sandbox: String,
    /// The node that has its bytes, and that sandboxes from it are on.
    pub node: String,
    /// What it stands on, the oldest first; with itself, at most 16.
    pub parents: Vec<String>,
    /// Its own bytes, without those that it stands on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Counts the changes of this record.
    pub version: u64,
    /// Who asked.
    pub principal: String,
    /// When it was asked for, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When it was ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at_ms: Option<u64>,
    /// When it was deleted or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<u64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What `GET /v1/snapshots` takes in the query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SnapshotListQuery {
    /// Only those of this sandbox.
    #[serde(default)]
    pub sandbox: Option<String>,
    /// Only those that are called so, with this tag if there is one.
    #[serde(default)]
    pub name: Option<String>,
    /// At most so many, 1 to 500; 50 when absent.
    #[serde(default)]
    pub limit: Option<u32>,
    /// The `next` of the page before.
    #[serde(default)]
    pub before: Option<String>,
}

/// A page of snapshots, newest first, without those that are deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotList {
    /// The snapshots.
    pub snapshots: Vec<SnapshotView>,
    /// Give this as `before` to get the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Sandboxes that are to be made from one that lives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SandboxFork {
    /// So many, 1 to 100; one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// How long each lives, counted from when it is ready; as long as the first when absent. Cut to 24 h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// What became of a fork: as many entries as were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForkList {
    /// Each by itself.
    pub forks: Vec<ForkResult>,
}

/// One of a fork: a sandbox, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForkResult {
    /// The sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Box<SandboxView>>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
}

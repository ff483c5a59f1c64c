//! Volumes on the wire: named directories that outlive sandboxes.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A new volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeCreate {
    /// One of a kind: 1 to 128 of letters, digits, `_` and `-`.
    pub name: String,
    /// What it holds at most, 16 MiB to 1 TiB; 10 GiB when absent. It takes of its node's disk what is written,
    /// not more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// The node that is to keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// Where a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VolumeStateName {
    /// Sandboxes can have it.
    Created,
    /// It goes when no sandbox has it any more and its node has heard of it.
    Deleting,
    /// Nothing of it is left but this record.
    Deleted,
}

impl VolumeStateName {
    /// Its name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
        }
    }
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeView {
    /// Its name for programs, `vol_...`; another volume of the same name later has another.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where it is.
    pub state: VolumeStateName,
    /// What it holds at most.
    pub size_bytes: u64,
    /// The node that keeps it, where every sandbox is that has it.
    pub node: String,
    /// Who asked for it.
    pub principal: String,
    /// When it was asked for.
    pub created_at_ms: u64,
    /// When a sandbox had it first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_at_ms: Option<u64>,
    /// When nothing of it was left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<u64>,
    /// Opens its content. Not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// A page of volumes, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeList {
    /// The volumes.
    pub volumes: Vec<VolumeView>,
    /// The `after` of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What `GET /v1/volumes` takes in the query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct VolumeListQuery {
    /// At most so many, 1 to 500; 50 when absent.
    #[serde(default)]
    pub limit: Option<u32>,
    /// The `next` of the page before.
    #[serde(default)]
    pub after: Option<String>,
}

/// A volume in the files of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeUse {
    /// Which.
    pub name: String,
    /// Where: an absolute path without `.` and `..`, at most 512 bytes, not below `/proc`, `/dev`, `/sys`,
    /// `/run` or `/etc`.
    pub path: String,
    /// It is only read there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

/// A volume for the node of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeWork {
    /// The volume, `vol_...`.
    pub volume_id: String,
    /// Where.
    pub path: String,
    /// It is only read there.
    #[serde(default)]
    pub read_only: bool,
    /// What it holds at most.
    pub size_bytes: u64,
    /// No sandbox had it before, so that it is made if it is not there. Any other that is not there is lost.
    #[serde(default)]
    pub is_new: bool,
}

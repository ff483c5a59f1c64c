//! Volumes, in both languages.

use api::Code;
use api::volume::{VolumeCreate, VolumeList, VolumeStateName, VolumeUse, VolumeView, VolumeWork};
use model::id::VolumeId;
use model::volume::{VolumeMount, VolumeState, is_volume_name};
use service::{NewVolume, VolumePage, VolumeRow};

use super::from_wire;
use crate::error::Error;

pub(crate) fn new(asked: VolumeCreate) -> Result<NewVolume, Error> {
    let node = asked.node.map(|node| from_wire::node_id(&node));
    Ok(NewVolume {
        name: asked.name,
        size_bytes: asked.size_bytes,
        node: node.transpose()?,
    })
}

/// Where a page begins: after a name.
pub(crate) fn cursor(after: Option<String>) -> Result<Option<String>, Error> {
    match after {
        Some(name) if !is_volume_name(&name) => {
            let message = "no page ended with this";
            Err(Error::field(Code::InvalidArgument, "after", message))
        }
        after => Ok(after),
    }
}

/// A volume, with what opens its content for who may have that.
pub(crate) fn view(row: VolumeRow, token: Option<String>) -> VolumeView {
    VolumeView {
        token,
        ..without_token(row)
    }
}

pub(crate) fn without_token(row: VolumeRow) -> VolumeView {
    VolumeView {
        id: row.id.to_string(),
        name: row.name,
        state: match row.state {
            VolumeState::Created => VolumeStateName::Created,
            VolumeState::Deleting => VolumeStateName::Deleting,
            VolumeState::Deleted => VolumeStateName::Deleted,
        },
        size_bytes: row.size_bytes,
        node: row.node.to_string(),
        principal: row.principal.to_string(),
        created_at_ms: row.created_at_ms,
        made_at_ms: row.made_at_ms,
        ended_at_ms: row.ended_at_ms,
        token: None,
    }
}

pub(crate) fn list(page: VolumePage) -> VolumeList {
    VolumeList {
        volumes: page.volumes.into_iter().map(without_token).collect(),
        next: page.next,
    }
}

/// Volumes that a sandbox is to have.
pub(crate) fn mounts(asked: Vec<VolumeUse>) -> Vec<VolumeMount> {
    let one = |asked: VolumeUse| VolumeMount {
        name: asked.name,
        id: None,
        path: asked.path,
        read_only: asked.read_only,
        size_bytes: 0,
        is_new: false,
    };
    asked.into_iter().map(one).collect()
}

pub(crate) fn mounts_view(mounts: Vec<VolumeMount>) -> Vec<VolumeUse> {
    let one = |mount: VolumeMount| VolumeUse {
        name: mount.name,
        path: mount.path,
        read_only: mount.read_only,
    };
    mounts.into_iter().map(one).collect()
}

/// For the node of the sandbox. Which volumes they are was fixed when it was asked for.
pub(crate) fn works(mounts: Vec<VolumeMount>) -> Vec<VolumeWork> {
    let one = |mount: VolumeMount| VolumeWork {
        volume_id: mount.id.map(String::from).unwrap_or_default(),
        path: mount.path,
        read_only: mount.read_only,
        size_bytes: mount.size_bytes,
        is_new: mount.is_new,
    };
    mounts.into_iter().map(one).collect()
}

pub(crate) fn ids_from(ids: &[String]) -> Result<Vec<VolumeId>, Error> {
    let one = |id: &String| id.parse().map_err(|e| from_wire::bad_id("volumes", &e));
    ids.iter().map(one).collect()
}

//! The bytes of volumes: a file for each, which a driver makes and mounts. Rows decide what stays: each
//! heartbeat names what is here, and hears what nobody needs.

use crate::{Node, agent};
use api::volume::VolumeWork;
use driver::driver::Volume;
use driver::host::Host;
use model::id::VolumeId;
use model::limits;
use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

// What the control plane lets into one sandbox, a driver must take.
const _: () = assert!(limits::VOLUME_MOUNTS_MAX <= driver::driver::VOLUMES_MAX);

/// Behind the name of a file system, and behind that of one that is not whole yet, which is the driver's.
const WHOLE: &str = "ext4";

/// Whether a sandbox here can have a volume, in the words of the control plane.
pub(crate) fn can_be_kept(host: &Host) -> &'static str {
    match host.no_volumes.is_none() && host.no_writable_root.is_none() {
        true => "yes",
        false => "no",
    }
}

/// Bytes of the disk on which files of sandboxes can be, free or not; 0 when that cannot be told.
pub(crate) fn disk_bytes(node: &Node) -> u64 {
    let told = rustix::fs::statvfs(&node.inner.config.dir);
    told.map_or(0, |told| told.f_blocks.saturating_mul(told.f_frsize))
}

fn dir(node: &Node) -> PathBuf {
    node.inner.config.dir.join("volumes")
}

/// The volumes of a sandbox.
///
/// # Errors
/// A text for a person, when there can be none here.
pub(crate) fn of(node: &Node, works: &[VolumeWork]) -> Result<Vec<Volume>, String> {
    if works.is_empty() {
        return Ok(Vec::new());
    }
    let dir = dir(node);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
    made.map_err(|error| format!("the node cannot make a directory for volumes: {error}"))?;
    let one = |work: &VolumeWork| {
        let id: VolumeId = work
            .volume_id
            .parse()
            .map_err(|_| "no volume has such an id")?;
        Ok(Volume {
            image: dir.join(format!("{id}.{WHOLE}")),
            is_new: work.is_new,
            size_bytes: work.size_bytes,
            target: work.path.clone(),
            read_only: work.read_only,
        })
    };
    works.iter().map(one).collect()
}

/// Each file of a volume, with the volume.
fn entries(node: &Node) -> Vec<(VolumeId, PathBuf)> {
    let entries = std::fs::read_dir(dir(node)).into_iter().flatten();
    let one = |entry: io::Result<std::fs::DirEntry>| {
        let path = entry.ok()?.path();
        let id = path.file_stem()?.to_str()?.parse().ok()?;
        Some((id, path))
    };
    entries.filter_map(one).collect()
}

/// The volumes of which something is here, as many as a heartbeat may name.
pub(crate) fn held(node: &Node) -> Vec<String> {
    let ids: BTreeSet<VolumeId> = entries(node).into_iter().map(|(id, _)| id).collect();
    let most = limits::NODE_VOLUMES_MAX as usize;
    ids.into_iter().take(most).map(String::from).collect()
}

/// Removes what nobody needs any more; the next heartbeat does not name it. What fails is told again.
pub(crate) fn remove(node: &Node, ids: Vec<String>) {
    if ids.is_empty() {
        return;
    }
    let node = node.clone();
    node.inner.tasks.clone().spawn(async move {
        let removing = node.clone();
        let removed = tokio::task::spawn_blocking(move || remove_all(&removing, &ids)).await;
        node.at("node.volumes_removed");
        if removed.unwrap_or(false) {
            // So that it is known at once, and not after the next half minute.
            agent::renew_once(&node).await;
        }
    });
}

/// Whether something went. A file that is mounted still goes when nobody has it any more.
fn remove_all(node: &Node, ids: &[String]) -> bool {
    let mut some = false;
    for (id, path) in entries(node) {
        if !ids.iter().any(|each| *each == id.as_str()) {
            continue;
        }
        match std::fs::remove_file(&path) {
            Ok(()) => some = true,
            Err(error) => {
                tracing::warn!(%error, volume.id = %id, "failed to remove a volume");
            }
        }
    }
    some
}

//! The bytes of snapshots: a directory for each, which a driver has written and which it shows to
//! sandboxes that begin with it.
//!
//! A copy is made under another name and gets its own when it is whole, so whatever has the name of a
//! snapshot is one, and the rest goes at the next start. Rows decide what stays: each heartbeat names what
//! is here, and hears what nobody needs.

use crate::job::chain;
use crate::{Node, sandbox};
use api::node::{CopyWork, SandboxSaid, SandboxWork};
use driver::driver::{DriverError, Handle};
use model::id::SnapshotId;
use model::limits;
use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

// What the control plane lets stand on each other, a driver must take.
const _: () = assert!(limits::SNAPSHOT_LAYERS_MAX <= driver::driver::LAYERS_MAX);

/// Behind the name of a copy that is not whole yet.
const HALF: &str = ".new";

/// Snapshots that are being removed, so that each is once.
#[derive(Debug, Default)]
pub(crate) struct Removing(Mutex<HashSet<SnapshotId>>);

fn dir(node: &Node) -> PathBuf {
    node.inner.config.dir.join("layers")
}

fn whole(node: &Node, id: &SnapshotId) -> PathBuf {
    dir(node).join(id.as_str())
}

fn half(node: &Node, id: &SnapshotId) -> PathBuf {
    dir(node).join(format!("{id}{HALF}"))
}

/// Where the layers of a sandbox are.
///
/// # Errors
/// A text for a person, when one of them is not here.
pub(crate) fn layers(node: &Node, ids: &[String]) -> Result<Vec<PathBuf>, String> {
    let one = |id: &String| {
        let path = id.parse().ok().map(|id| whole(node, &id));
        let there = path.filter(|path| path.is_dir());
        there.ok_or_else(|| format!("the node does not have the bytes of the snapshot {id}"))
    };
    ids.iter().map(one).collect()
}

/// Copies what was written in a sandbox. What runs in it stands still meanwhile; afterwards it is what it
/// was, whether there is a copy or not.
///
/// # Errors
/// Why the sandbox could not be let go again, which is its end.
pub(crate) async fn copy(
    node: &Node,
    work: &SandboxWork,
    handle: &Handle,
) -> Result<SandboxSaid, String> {
    let not_saved = |why: &str| SandboxSaid::NotSaved {
        why: why.to_owned(),
    };
    let named = |copy: &CopyWork| copy.snapshot_id.parse().ok().map(|id| (id, copy.paused));
    let Some((id, paused)) = work.copy.as_ref().and_then(named) else {
        return Ok(not_saved("the order names no snapshot"));
    };
    let id: SnapshotId = id;
    let driver = &node.inner.driver;
    let saved = match driver.pause(handle, true).await {
        Ok(()) => save(node, &id, handle).await,
        Err(error) => Err(error),
    };
    if !paused {
        // Also after an error, because it may have stood still already then. Where nothing can stand
        // still, nothing does.
        match driver.pause(handle, false).await {
            Ok(()) | Err(DriverError::CannotPause) => {}
            Err(error) => return Err(chain(&error)),
        }
    }
    node.at("node.snapshot_thawed");
    let size_bytes = match saved {
        Ok(bytes) => bytes,
        Err(error) => {
            clear(node, &id).await;
            return Ok(not_saved(&chain(&error)));
        }
    };
    match keep(node, &id).await {
        Ok(()) => Ok(SandboxSaid::Saved { size_bytes }),
        Err(error) => {
            clear(node, &id).await;
            Ok(not_saved(&format!(
                "the node cannot keep the copy: {error}"
            )))
        }
    }
}

/// What an earlier try has left goes first: nobody was told of it, and the sandbox may have gone on since.
async fn save(node: &Node, id: &SnapshotId, handle: &Handle) -> Result<u64, DriverError> {
    clear(node, id).await;
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir(node));
    made.map_err(|source| DriverError::Io {
        what: "make a directory for snapshots".to_owned(),
        source,
    })?;
    node.at("node.snapshot_begun");
    let bytes = node.inner.driver.save(handle, &half(node, id)).await?;
    node.at("node.snapshot_saved");
    Ok(bytes)
}

/// Gives a copy its name, for good: when this returns, it survives a power cut.
async fn keep(node: &Node, id: &SnapshotId) -> io::Result<()> {
    let (half, whole, dir) = (half(node, id), whole(node, id), dir(node));
    blocking(move || {
        rustix::fs::syncfs(File::open(&half)?)?;
        fs::rename(&half, &whole)?;
        File::open(dir)?.sync_all()
    })
    .await?;
    node.at("node.snapshot_named");
    Ok(())
}

async fn clear(node: &Node, id: &SnapshotId) {
    let both = [half(node, id), whole(node, id)];
    let cleared = blocking(move || both.iter().try_for_each(|path| remove_tree(path)));
    if let Err(error) = cleared.await {
        tracing::warn!(%error, snapshot.id = %id, "failed to remove what is left of a copy");
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other)?
}

/// After a start: copies that are not whole are of a process that died in the middle, and are made again
/// if they are still wanted.
pub(crate) async fn clear_halves(node: &Node) {
    for path in entries(node) {
        if path
            .extension()
            .is_some_and(|end| format!(".{}", end.to_string_lossy()) == HALF)
        {
            let removed = blocking(move || remove_tree(&path)).await;
            if let Err(error) = removed {
                tracing::warn!(%error, "failed to remove half a copy");
            }
        }
    }
}

fn entries(node: &Node) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir(node)).into_iter().flatten();
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}

/// The snapshots of which something is here, as many as a heartbeat may name.
pub(crate) fn held(node: &Node) -> Vec<String> {
    let name = |path: PathBuf| {
        let name = path.file_name()?.to_str()?;
        let name = name.strip_suffix(HALF).unwrap_or(name);
        name.parse::<SnapshotId>().ok().map(|id| id.to_string())
    };
    let mut ids: Vec<String> = entries(node).into_iter().filter_map(name).collect();
    ids.sort_unstable();
    ids.dedup();
    ids.truncate(limits::NODE_SNAPSHOTS_MAX as usize);
    ids
}

/// Removes what nobody needs any more, and says so. What fails is told again by the next heartbeat.
pub(crate) fn remove(node: &Node, ids: Vec<String>) {
    for id in ids {
        let Ok(id) = id.parse::<SnapshotId>() else {
            continue;
        };
        let is_new = node.inner.removing.lock().insert(id.clone());
        if is_new {
            let removing = node.clone();
            node.inner.tasks.spawn(async move {
                remove_one(&removing, &id).await;
                removing.inner.removing.lock().remove(&id);
            });
        }
    }
}

impl Removing {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<SnapshotId>> {
        // Each statement under the lock leaves the set whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn remove_one(node: &Node, id: &SnapshotId) {
    // A sandbox that the control plane has given up may still be here, and stand on it.
    let (looking, layer) = (node.clone(), id.to_string());
    let used = blocking(move || Ok(sandbox::stands_on(&looking, &layer))).await;
    if used.unwrap_or(true) {
        return;
    }
    clear(node, id).await;
    if whole(node, id).exists() || half(node, id).exists() {
        return;
    }
    node.at("node.snapshot_removed");
    let said = node.inner.client.node_snapshot_removed(id.as_str()).await;
    if let Err(error) = said
        && !error.is(api::Code::NotFound)
    {
        tracing::warn!(%error, snapshot.id = %id, "that a snapshot is gone was not accepted");
    }
}

/// Removes a directory with everything in it. A workload may have nested directories a hundred thousand
/// deep, which would overflow a stack or run out of descriptors; so what is in a directory of the top is
/// moved to the top, and nothing is ever deeper than two. Follows no link. One that is not there is removed.
fn remove_tree(top: &Path) -> io::Result<()> {
    let mut moved = 0_u64;
    loop {
        let mut is_empty = true;
        let entries = match fs::read_dir(top) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            is_empty = false;
            if entry.file_type()?.is_dir() {
                flatten(&entry.path(), top, &mut moved)?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        if is_empty {
            return fs::remove_dir(top);
        }
    }
}

/// Removes a directory of the top, after its own directories have come to the top.
fn flatten(dir: &Path, top: &Path, moved: &mut u64) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    // A workload can take away its own permissions, and an ordinary user's node has no others.
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            fs::remove_file(entry.path())?;
            continue;
        }
        loop {
            *moved += 1;
            let to = top.join(format!("{moved}"));
            if fs::symlink_metadata(&to).is_err() {
                // Its parent is written in it, for which an ordinary user needs the permission.
                fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o700))?;
                fs::rename(entry.path(), to)?;
                break;
            }
        }
    }
    fs::remove_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn a_tree_goes_however_deep_it_is_and_no_link_is_followed() {
        let place = tempfile::tempdir().unwrap();
        let (top, other) = (place.path().join("top"), place.path().join("other"));
        fs::create_dir_all(other.join("kept")).unwrap();
        fs::create_dir(&top).unwrap();
        fs::create_dir(top.join("1")).unwrap();
        symlink(&other, top.join("link")).unwrap();
        let chain = |at: &Path| {
            std::env::set_current_dir(at).unwrap();
            for _ in 0..5000 {
                fs::create_dir("d").unwrap();
                fs::write("f", "").unwrap();
                symlink(&other, "l").unwrap();
                std::env::set_current_dir("d").unwrap();
            }
            fs::set_permissions(".", fs::Permissions::from_mode(0o000)).unwrap();
        };
        chain(&top);
        std::env::set_current_dir(place.path()).unwrap();
        remove_tree(&top).unwrap();
        remove_tree(&top).unwrap();
        assert!(!top.exists() && other.join("kept").is_dir());
    }
}

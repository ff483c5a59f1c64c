//! What a process that was killed has left: its node, the jobs that this node had, its sandboxes.
//!
//! A node of `up` is not swept: its sandboxes outlive it on purpose, for the next `up` to go on with. All
//! other nodes end with their process, and each holds a lock as long as it lives. So a node whose lock is
//! free belongs to nobody, and whoever has the lock is the only one who sweeps it.

use crate::cli::failure::chain;
use crate::identity::Identity;
use crate::private::{Locked, lock};
use crate::state::State;
use driver::driver::{Driver as _, DriverError};
use driver::host::Host;
use driver::linux::{Linger, Linux};
use model::id::{NodeId, SandboxId};
use service::{Ctx, Service};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Nodes that are swept at one time: each command that finds some does a part, and none takes for ever.
const SWEPT_MAX: usize = 64;

/// How often launchers are asked to destroy sandboxes.
const TRIES: u32 = 5;

/// A directory of a node whose process is gone. Nobody else sweeps it while this is held.
#[derive(Debug)]
pub(crate) struct Left {
    name: OsString,
    dir: PathBuf,
    _locked: Locked,
}

/// What was left behind in a state directory. Costs one look at a directory when nothing was.
pub(crate) fn left(state: &State) -> Vec<Left> {
    let Ok(entries) = std::fs::read_dir(state.nodes()) else {
        return Vec::new(); // No node was ever here.
    };
    let names: Vec<OsString> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .collect();
    if names.is_empty() {
        return Vec::new();
    }
    // Read after the names: the id is written before the directory of this name is made, so no `up`
    // that has just begun is taken for one of the others. Nor is the node of a fleet: it is often away for a
    // moment, and its sandboxes are not. Where nobody can say who that is, nothing is swept.
    let Ok(enrolled) = Identity::known(state) else {
        return Vec::new();
    };
    let kept = [state.known_node(), enrolled.map(|identity| identity.node)];
    let left = names.into_iter().filter_map(|name| {
        if kept.iter().flatten().any(|id| name == id.as_str()) {
            return None;
        }
        let dir = state.nodes().join(&name);
        // What cannot be locked lives, or is none of ours.
        let locked = lock(&dir.join("lock")).ok()??;
        Some(Left {
            name,
            dir,
            _locked: locked,
        })
    });
    left.take(SWEPT_MAX).collect()
}

/// Takes away what was left behind and ends its jobs. What fails is tried again by the next that looks.
pub(crate) async fn sweep(service: Service, host: Host, left: Vec<Left>) {
    for one in left {
        let name = one.name.to_string_lossy().into_owned();
        match sweep_one(&service, &host, one).await {
            Ok(()) => tracing::info!(node.id = name, "took away what a killed process had left"),
            Err(error) => {
                tracing::warn!(node.id = name, error, "failed to take away what was left")
            }
        }
    }
}

async fn sweep_one(service: &Service, host: &Host, left: Left) -> Result<(), String> {
    let destroyed = destroy(&left.dir, host).await;
    // The jobs are ended in any case: nobody will ever report on them.
    if let Some(id) = left
        .name
        .to_str()
        .and_then(|name| name.parse::<NodeId>().ok())
    {
        let ctx = Ctx::node(id, "sweep".to_owned());
        service
            .node_gone(&ctx)
            .await
            .map_err(|error| error.cause())?;
    }
    destroyed.map_err(|error| chain(&error))?;
    // We can be here again if we die before the directory is gone: nothing of the above minds.
    std::fs::remove_dir_all(&left.dir).map_err(|error| chain(&error))
}

/// Takes away all sandboxes of the node that had this directory.
pub(crate) async fn destroy(node: &Path, host: &Host) -> Result<(), DriverError> {
    let dir = node.join("linux");
    if !dir.exists() {
        return Ok(());
    }
    let mut tries = 1;
    loop {
        // Anew each time: a launcher that is about to end may take our call and then hang up. The next
        // time it is not there, and what it leaves is taken away without it.
        let linux = Linux::new(&dir, host.clone(), Linger::No)?;
        match destroy_all(&linux).await {
            Err(DriverError::Launcher { .. }) if tries < TRIES => tries += 1,
            done => return done,
        }
    }
}

/// Takes away one sandbox of the node that has this directory. Its launchers go on, for the others.
pub(crate) async fn destroy_one(
    node: &Path,
    host: &Host,
    id: &SandboxId,
) -> Result<(), DriverError> {
    let linux = Linux::new(&node.join("linux"), host.clone(), Linger::Yes)?;
    linux.destroy(&linux.handle(id)).await
}

async fn destroy_all(linux: &Linux) -> Result<(), DriverError> {
    for id in linux.list().await? {
        linux.destroy(&linux.handle(&id)).await?;
    }
    // Launchers end by themselves when the process does that they were started for. One that has not is
    // told to.
    linux.quit().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nodes_whose_process_is_gone_are_left() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path());
        assert!(left(&state).is_empty());
        let (_alive, _locked) = state.new_node().unwrap();
        let own = state.own_node().unwrap();
        drop(state.lock_node(&own).unwrap());
        let (dead, locked) = state.new_node().unwrap();
        drop(locked);
        let found = left(&state);
        let names: Vec<_> = found.iter().map(|left| left.name.clone()).collect();
        assert_eq!(names, [OsString::from(dead.as_str())]);
        // Whoever looks while they are held finds none.
        assert!(left(&state).is_empty());
        drop(found);
        assert_eq!(left(&state).len(), 1);
    }

    #[test]
    fn the_node_of_a_fleet_is_not_swept_while_its_process_is_away() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path());
        let id = crate::state::new_node_id().unwrap();
        drop(state.lock_node(&id).unwrap());
        let identity = serde_json::json!({
            "node": id, "server": "https://127.0.0.1:1", "key": "", "certificate": "", "authority": "",
            "expires_at_ms": 0,
        });
        let path = dir.path().join("identity.json");
        std::fs::write(&path, identity.to_string()).unwrap();
        assert!(left(&state).is_empty());
        std::fs::write(&path, "{").unwrap();
        assert!(left(&state).is_empty());
    }

    #[test]
    fn one_that_died_before_it_had_a_lock_is_left_too() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path());
        let id = crate::state::new_node_id().unwrap();
        std::fs::create_dir_all(state.node(&id)).unwrap();
        assert_eq!(left(&state).len(), 1);
    }
}

//! What is left in a state directory and among the control groups.

use super::{Bounds, FOUND_MAX, Left, Seen, What};
use crate::cli::failure::Failure;
use crate::identity::Identity;
use crate::private::lock;
use crate::state::State;
use driver::host::Host;
use driver::orphan;
use model::id::{NodeId, SandboxId};
use std::collections::HashSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Names that are looked at to find out when something was touched last; a sandbox can have made many. Of what
/// has more, age alone counts.
const LOOKED_AT_MAX: usize = 100_000;

/// Names that a glance looks at in all, so that it is over in a second.
const GLANCED_AT_MAX: usize = LOOKED_AT_MAX;

/// What ends the name of a half of a copy: of a snapshot, or of a volume.
const HALF: &str = "new";

/// Finds what is left. Locks what it finds it in, so that no process begins to use it meanwhile.
pub(super) fn look(state: &State, host: &Host, bounds: Bounds) -> Result<Seen, Failure> {
    look_at(state, host, bounds, (true, usize::MAX))
}

/// The same for whoever only counts. Nothing stays locked: a process that begins meanwhile must not be kept out, nor
/// another look be told that somebody is there.
pub(super) fn glance(state: &State, host: &Host, bounds: Bounds) -> Result<Seen, Failure> {
    look_at(state, host, bounds, (false, GLANCED_AT_MAX))
}

fn look_at(
    state: &State,
    host: &Host,
    bounds: Bounds,
    (holds, budget): (bool, usize),
) -> Result<Seen, Failure> {
    let own = own_nodes(state)?;
    let mut seen = Seen {
        budget,
        ..Seen::default()
    };
    let mut known = HashSet::new();
    for (id, dir) in nodes(state) {
        known.extend(traces(&dir));
        match lock(&dir.join("lock")) {
            Ok(Some(locked)) if holds => seen._locks.push(locked),
            // Let go of with the end of this.
            Ok(Some(_)) => {}
            // A process has it, and looks after it itself.
            Ok(None) => {
                known.extend(node::recorded(&dir).unwrap_or_default());
                continue;
            }
            Err(failure) => return Err(failure),
        }
        if own.contains(&id) {
            in_own_node(&dir, bounds, &mut seen);
        } else {
            add(
                What::Node(dir.clone()),
                (&dir, id.unix_ms()),
                bounds,
                &mut seen,
            );
        }
    }
    groups(host, &known, bounds, &mut seen);
    seen.left.truncate(FOUND_MAX);
    Ok(seen)
}

/// The nodes that this machine is, of `up` and of a fleet: their next process goes on with what they have.
fn own_nodes(state: &State) -> Result<Vec<NodeId>, Failure> {
    let enrolled = Identity::known(state)?.map(|identity| identity.node);
    Ok(state.known_node().into_iter().chain(enrolled).collect())
}

fn nodes(state: &State) -> Vec<(NodeId, PathBuf)> {
    let entries = std::fs::read_dir(state.nodes()).into_iter().flatten();
    let one = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.ok()?.path();
        Some((path.file_name()?.to_str()?.parse().ok()?, path))
    };
    entries.filter_map(one).collect()
}

/// The sandboxes that the driver has made in a node's directory.
fn traces(node: &Path) -> Vec<SandboxId> {
    let all = std::fs::read_dir(node.join("linux/sandboxes"));
    let names = all.into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    names.collect()
}

/// What no record of the node names: its next process would take it away too, but there may be none.
fn in_own_node(dir: &Path, bounds: Bounds, seen: &mut Seen) {
    let Some(recorded) = node::recorded(dir) else {
        let path = dir.display();
        let note = format!("{path} has a record that cannot be read; its node looks after it");
        seen.notes.push(note);
        return;
    };
    for id in traces(dir).into_iter().filter(|id| !recorded.contains(id)) {
        let trace = dir.join("linux/sandboxes").join(id.as_str());
        let made_ms = id.unix_ms();
        let what = What::Sandbox(dir.to_owned(), id);
        add(what, (&trace, made_ms), bounds, seen);
    }
    for kind in ["layers", "volumes"] {
        let entries = std::fs::read_dir(dir.join(kind)).into_iter().flatten();
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|end| end == HALF) {
                let made_ms = touched(&path).unwrap_or(u64::MAX);
                add(What::Copy(path.clone()), (&path, made_ms), bounds, seen);
            }
        }
    }
}

fn groups(host: &Host, known: &HashSet<SandboxId>, bounds: Bounds, seen: &mut Seen) {
    match orphan::groups(&host.cgroups) {
        Ok(orphans) => {
            for orphan in orphans.into_iter().filter(|one| !known.contains(&one.id)) {
                // The times of a group's files are those of the first look at them.
                let age = bounds.since(orphan.id.unix_ms());
                if bounds.are_over(age, age) {
                    let what = What::Groups(orphan);
                    let (idle, bytes) = (age, 0);
                    seen.left.push(Left { what, idle, age, bytes });
                }
            }
        }
        Err(error) => seen.notes.push(format!(
            "control groups were not looked at: whether a process holds them cannot be seen ({error}); root can"
        )),
    }
}

fn add(what: What, (path, made_ms): (&Path, u64), bounds: Bounds, seen: &mut Seen) {
    let (touched_ms, bytes) = walked(path, &mut seen.budget).unwrap_or((u64::MAX, 0));
    let idle = bounds.since(touched_ms);
    let age = bounds.since(made_ms);
    if bounds.are_over(idle, age) {
        let left = Left {
            what,
            idle,
            age,
            bytes,
        };
        seen.left.push(left);
    }
}

/// When somebody last touched it or what is in it, and the bytes of disk that it all takes; `None` where that cannot
/// be told. What is looked at is taken from the budget.
fn walked(path: &Path, budget: &mut usize) -> Option<(u64, u64)> {
    let data = path.symlink_metadata().ok()?;
    let (mut newest, mut bytes) = (modified(&data)?, on_disk(&data));
    let mut most = LOOKED_AT_MAX.min(*budget);
    let mut dirs = vec![path.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).ok()? {
            let path = entry.ok()?.path();
            most = most.checked_sub(1)?;
            *budget = budget.saturating_sub(1);
            let data = path.symlink_metadata().ok()?;
            newest = newest.max(modified(&data)?);
            bytes = bytes.saturating_add(on_disk(&data));
            if data.is_dir() {
                dirs.push(path);
            }
        }
    }
    Some((newest, bytes))
}

/// In milliseconds since 1970.
fn touched(path: &Path) -> Option<u64> {
    modified(&path.symlink_metadata().ok()?)
}

fn modified(data: &Metadata) -> Option<u64> {
    let since = data.modified().ok()?.duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).ok()
}

/// Of a file with holes only what is there; st_blocks are of 512 bytes (`inode(7)`).
fn on_disk(data: &Metadata) -> u64 {
    data.blocks().saturating_mul(512)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const HOUR: Duration = Duration::from_secs(3600);

    fn now_ms() -> u64 {
        service::Clock::system().now_ms()
    }

    fn bounds() -> Bounds {
        Bounds {
            idle: 24 * HOUR,
            age: 7 * 24 * HOUR,
            now_ms: now_ms(),
        }
    }

    fn host() -> Host {
        let mut host = Host::probe_for_jobs();
        // Others on this machine have groups too.
        let why = "not looked at here".to_owned();
        host.cgroups = driver::host::Cgroups::None { why };
        host
    }

    /// A node that was made so long ago, touched just now.
    fn node(state: &State, hours: u64) -> PathBuf {
        let then = now_ms() - hours * 3_600_000;
        let dir = state.node(&NodeId::from_parts(then, [hours.to_le_bytes()[0]; 10]));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("lock"), "").unwrap();
        dir
    }

    fn untouched_for(path: &Path, hours: u64) {
        let at = UNIX_EPOCH + Duration::from_millis(now_ms() - hours * 3_600_000);
        let times = std::fs::FileTimes::new().set_modified(at);
        std::fs::File::open(path).unwrap().set_times(times).unwrap();
    }

    fn lines(state: &State) -> Vec<(&'static str, String)> {
        let seen = look(state, &host(), bounds()).unwrap();
        let lines = seen.left.iter().map(Left::line);
        lines.map(|line| (line.kind, line.what)).collect()
    }

    #[test]
    fn a_node_that_nobody_is_any_more_is_left_when_it_is_idle_or_old() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path());
        assert_eq!(lines(&state), []);
        let (_young, idle, old) = (node(&state, 30), node(&state, 31), node(&state, 200));
        untouched_for(&idle.join("lock"), 25);
        untouched_for(&idle, 25);
        let mut expect = [idle, old].map(|dir| ("node", dir.display().to_string()));
        let mut found = lines(&state);
        expect.sort();
        found.sort();
        assert_eq!(found, expect);
    }

    #[test]
    fn who_only_counts_holds_nothing_and_finds_the_same_with_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path());
        let old = node(&state, 200);
        let data = old.join("data");
        std::fs::write(&data, vec![1; 1 << 20]).unwrap();
        std::fs::File::open(&data).unwrap().sync_all().unwrap();
        let on_disk = on_disk(&data.symlink_metadata().unwrap());
        let counted = crate::reap::count(&state, &host(), now_ms()).unwrap();
        assert_eq!((counted.count, counted.partial), (1, false));
        assert!(on_disk > 0 && counted.bytes >= on_disk, "{counted:?}");
        let seen = glance(&state, &host(), bounds()).unwrap();
        assert!(lock(&old.join("lock")).unwrap().is_some());
        drop(seen);
        let seen = look(&state, &host(), bounds()).unwrap();
        assert!(lock(&old.join("lock")).unwrap().is_none());
        drop(seen);
    }

    #[test]
    fn what_is_beyond_the_budget_is_not_walked_and_not_said_to_be_untouched() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        let mut budget = 3;
        assert!(walked(dir.path(), &mut budget).is_some());
        assert_eq!(budget, 0);
        budget = 2;
        assert_eq!(walked(dir.path(), &mut budget), None);
        assert_eq!(budget, 0);
    }

    #[test]
    fn a_node_whose_process_lives_or_that_this_machine_is_stays() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path());
        let lives = node(&state, 200);
        let _locked = lock(&lives.join("lock")).unwrap().unwrap();
        let own = node(&state, 201);
        let name = own.file_name().unwrap().to_str().unwrap();
        std::fs::write(dir.path().join("node"), name).unwrap();
        assert_eq!(lines(&state), []);
    }

    #[test]
    fn of_the_own_node_a_sandbox_is_left_that_no_record_names_and_half_a_copy() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path());
        let own = node(&state, 200);
        let name = own.file_name().unwrap().to_str().unwrap();
        std::fs::write(dir.path().join("node"), name).unwrap();
        let [named, nameless] = [1, 2].map(|n| SandboxId::from_parts(1, [n; 10]));
        let young = SandboxId::from_parts(now_ms(), [3; 10]);
        for id in [&named, &nameless, &young] {
            std::fs::create_dir_all(own.join("linux/sandboxes").join(id.as_str())).unwrap();
        }
        let record = own.join("jobs/job_1");
        std::fs::create_dir_all(&record).unwrap();
        let handle = driver::driver::Handle {
            version: 1,
            driver: "linux".to_owned(),
            id: named,
            body: String::new(),
        };
        let text = serde_json::json!({"handle": handle}).to_string();
        std::fs::write(record.join("record.json"), text).unwrap();
        let half = own.join("layers/snp_1.new");
        std::fs::create_dir_all(&half).unwrap();
        untouched_for(&half, 25);
        let expect = [
            ("sandbox", nameless.to_string()),
            ("copy", half.display().to_string()),
        ];
        assert_eq!(lines(&state), expect);
        // Nobody can say whom it names.
        std::fs::write(record.join("record.json"), "{").unwrap();
        assert_eq!(lines(&state), []);
    }
}

//! Control groups of sandboxes that nobody has any more: everybody who could take them away died.
//!
//! A group without processes is no proof: the guest of a sandbox that lives on stays outside its groups and holds
//! descriptors of them. So the descriptors of all processes are looked at, and where that cannot be done, nothing
//! is said to be left.

use crate::host::Cgroups;
use model::id::SandboxId;
use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The groups of one sandbox, none of which a process is in or holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Whose they were.
    pub id: SandboxId,
    /// Directories that hold one of them each.
    pub parents: Vec<PathBuf>,
}

impl Orphan {
    /// Takes them away. One that a process has come into meanwhile stays.
    ///
    /// # Errors
    /// What the kernel says: `EBUSY` for such a one.
    pub fn remove(&self) -> io::Result<()> {
        Ok(crate::cgroup::remove(&self.parents, self.id.as_str())?)
    }
}

/// All of them, by the age of their sandboxes. Takes the time of a look at every descriptor of the machine.
///
/// # Errors
/// Why it cannot be known: a process whose descriptors this user may not see.
pub fn groups(cgroups: &Cgroups) -> io::Result<Vec<Orphan>> {
    let parents: Vec<&PathBuf> = match cgroups {
        Cgroups::None { .. } => return Ok(Vec::new()),
        Cgroups::V1 { controllers } => controllers.values().collect(),
        Cgroups::V2 { base, .. } => vec![base],
    };
    let mut empty: BTreeMap<SandboxId, Vec<PathBuf>> = BTreeMap::new();
    let mut in_use = HashSet::new();
    for parent in parents {
        for (id, dir) in groups_in(parent)? {
            if !is_empty(&dir) {
                in_use.insert(id.clone());
            }
            empty.entry(id).or_default().push(parent.clone());
        }
    }
    if empty.is_empty() {
        return Ok(Vec::new());
    }
    // After the list: what was made in between is not on it.
    in_use.extend(held(Path::new("/proc"))?);
    empty.retain(|id, _| !in_use.contains(id));
    let all = empty.into_iter();
    Ok(all.map(|(id, parents)| Orphan { id, parents }).collect())
}

fn groups_in(parent: &Path) -> io::Result<Vec<(SandboxId, PathBuf)>> {
    let entries = match std::fs::read_dir(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let one = |entry: io::Result<std::fs::DirEntry>| {
        let path = entry.ok()?.path();
        let id = path.file_name()?.to_str()?.parse().ok()?;
        Some((id, path))
    };
    Ok(entries.filter_map(one).collect())
}

/// Nobody is in it. One that cannot be read is not said to be empty.
fn is_empty(group: &Path) -> bool {
    std::fs::read_to_string(group.join("cgroup.procs")).is_ok_and(|text| text.is_empty())
}

/// The sandboxes of whose groups some process has a file open.
fn held(proc: &Path) -> io::Result<HashSet<SandboxId>> {
    let mut held = HashSet::new();
    for process in std::fs::read_dir(proc)? {
        let process = process?.path();
        let name = process.file_name().and_then(|name| name.to_str());
        if !name.is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit())) {
            continue;
        }
        let links = links_of(&process)?;
        held.extend(links.iter().filter_map(|link| group_of(link)));
    }
    Ok(held)
}

/// The links of a process that is ending are said to be forbidden for a moment (`proc_fd_access_allowed` in the
/// kernel's `fs/proc/base.c`), so they are looked at again before that is believed. Nothing tells when that moment
/// is over, and no answer depends on it: one that is still forbidden at the last look takes no group away.
const LOOKS: u32 = 5;
const BETWEEN: Duration = Duration::from_millis(10);

/// What a process holds; nothing where it has ended.
fn links_of(process: &Path) -> io::Result<Vec<PathBuf>> {
    let mut look = 1;
    loop {
        match links(&process.join("fd")) {
            Ok(links) => return Ok(links),
            Err(error) if is_gone(&error) || has_ended(process) => return Ok(Vec::new()),
            Err(_) if is_above_us(process) => return Ok(Vec::new()),
            Err(_) if look < LOOKS => look += 1,
            Err(error) => return Err(error),
        }
        std::thread::sleep(BETWEEN);
    }
}

/// What the arguments of a launcher begin with. The name of its process is the number of the descriptor that it was
/// started from.
const LAUNCHER: &[u8; 15] = b"cofferdam-jail\0";

/// Whether a process, by its directory in `/proc`, may be a launcher: one whose arguments cannot be read may be, too.
pub fn is_launcher(process: &Path) -> bool {
    let mut begin = [0; LAUNCHER.len()];
    let arguments = std::fs::File::open(process.join("cmdline"));
    match arguments.and_then(|mut file| file.read_exact(&mut begin)) {
        Ok(()) => begin == *LAUNCHER,
        Err(error) => error.kind() != io::ErrorKind::UnexpectedEof,
    }
}

/// Whether even root may not look at a process, because it has a capability that we lack (`ptrace(2)`). Not a launcher:
/// those hold groups with all that their root has.
fn is_above_us(process: &Path) -> bool {
    if is_launcher(process) {
        return false;
    }
    let status = |path: &Path| std::fs::read_to_string(path.join("status")).unwrap_or_default();
    is_above(&status(process), &status(Path::new("/proc/self")))
}

/// See `CAP_SYS_PTRACE` in `capabilities(7)`.
const SYS_PTRACE: u64 = 1 << 19;

/// The same by what `proc_pid_status(5)` says of both. Only for those who may look at everybody of their own: to an
/// ordinary user his own guests, which hold groups, are closed too.
fn is_above(theirs: &str, own: &str) -> bool {
    let permitted = |text: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix("CapPrm:"));
        line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
    };
    let has_more = |(theirs, own): (u64, u64)| own & SYS_PTRACE != 0 && theirs & !own != 0;
    permitted(theirs).zip(permitted(own)).is_some_and(has_more)
}

/// Whether a process is gone, or is only waited for and holds nothing: its state, see `proc_pid_stat(5)`.
fn has_ended(process: &Path) -> bool {
    let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

fn links(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut links = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        match std::fs::read_link(entry?.path()) {
            Ok(link) => links.push(link),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(links)
}

fn is_gone(error: &io::Error) -> bool {
    let gone = [rustix::io::Errno::NOENT, rustix::io::Errno::SRCH];
    gone.iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// The sandbox that a path of the tree of groups is of: a file of its group, or the group.
fn group_of(link: &Path) -> Option<SandboxId> {
    let mut parts = link.components().rev().take(2);
    parts.find_map(|part| part.as_os_str().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> SandboxId {
        SandboxId::from_parts(1, [7; 10])
    }

    #[test]
    fn a_descriptor_of_a_group_says_whose_it_is() {
        let group = Path::new("/sys/fs/cgroup/pids/cofferdam").join(id().as_str());
        assert_eq!(group_of(&group.join("tasks")), Some(id()));
        assert_eq!(group_of(&group), Some(id()));
        assert_eq!(group_of(Path::new("socket:[12]")), None);
        assert_eq!(group_of(Path::new("/sys/fs/cgroup/pids/cofferdam")), None);
    }

    #[test]
    fn only_who_may_look_at_everybody_passes_over_those_who_have_more() {
        let status = |caps: &str| format!("Name:\t7\nCapPrm:\t{caps}\n");
        let [all, root, guest, none] = [
            "000001ffffffffff",
            "000001fffeffffff",
            "00000000000001e0",
            "0000000000000000",
        ];
        for (theirs, own, expect) in [
            (all, root, true),
            (guest, root, false),
            (all, all, false),
            // Of an ordinary user, whose own guests have more than he.
            (guest, none, false),
            (all, none, false),
        ] {
            let found = is_above(&status(theirs), &status(own));
            assert_eq!(found, expect, "{theirs} {own}");
        }
        assert!(!is_above("", &status(root)) && !is_above(&status(all), ""));
    }

    #[test]
    fn a_launcher_is_known_by_how_it_was_started() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = 0;
        let mut of = |arguments: &[u8]| {
            process += 1;
            let process = dir.path().join(process.to_string());
            std::fs::create_dir(&process).unwrap();
            std::fs::write(process.join("cmdline"), arguments).unwrap();
            is_launcher(&process)
        };
        assert!(of(b"cofferdam-jail\0/run/x\0"));
        assert!(!of(b"cofferdam-jailer\0") && !of(b"/bin/cofferdam-jail\0"));
        // A thread of the kernel has none.
        assert!(!of(b""));
        assert!(is_launcher(&dir.path().join("unread")));
    }

    #[test]
    fn a_group_whose_file_somebody_holds_is_in_use_and_one_that_nobody_holds_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let parent = dir.path().join("cofferdam");
        let group = parent.join(id().as_str());
        std::fs::create_dir_all(&group).unwrap();
        let join = group.join("cgroup.procs");
        std::fs::write(&join, "").unwrap();
        let cgroups = Cgroups::V2 {
            base: parent.clone(),
            controllers: Vec::new(),
        };
        let open = std::fs::File::open(&join).unwrap();
        let Ok(found) = groups(&cgroups) else {
            println!("skipped: descriptors of other processes cannot be seen by this user");
            return;
        };
        assert_eq!(found, []);
        drop(open);
        let left = Orphan {
            id: id(),
            parents: vec![parent],
        };
        assert_eq!(groups(&cgroups).unwrap(), [left]);
        std::fs::write(&join, "1\n").unwrap();
        assert_eq!(groups(&cgroups).unwrap(), []);
    }
}

//! Control groups: where they are, what is written into them, what they counted.
//!
//! The workload of each sandbox has one group in each hierarchy that a limit needs. Its guest stays
//! outside, so that a fork bomb or a memory hog hits its own group and not the one that must end it.

use crate::host::Cgroups;
use rustix::fs::{Access, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The group below which all of ours are.
const OURS: &str = "cofferdam";

/// Processor time is given out in slices of this many microseconds.
const CPU_PERIOD_US: u64 = 100_000;

/// The limits of one group. `None` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Bytes of memory, files on tmpfs included.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Thousandths of a processor.
    pub cpu_millis: Option<u32>,
    /// What is in the group can be stopped in its tracks.
    pub freezes: bool,
}

/// One group in one hierarchy, and what is written into its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The directory that holds the groups of all sandboxes.
    pub parent: PathBuf,
    /// The file through which a process joins.
    pub join: String,
    /// File name and text, in order. A name that starts with `?` is written only where it exists.
    pub writes: Vec<(String, String)>,
}

/// What the groups of a sandbox counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// Most memory at any time, in bytes.
    pub memory_peak_bytes: Option<u64>,
    /// Memory now, in bytes, without what the kernel keeps of files and would give back.
    pub memory_bytes: Option<u64>,
    /// That, in bytes.
    pub cache_bytes: Option<u64>,
    /// Processor time so far, in microseconds.
    pub cpu_us: Option<u64>,
    /// Most processes at any time.
    pub pids_peak: Option<u64>,
    /// The kernel killed a process of the workload because the memory limit was reached.
    pub out_of_memory: bool,
    /// A process could not be made because the limit was reached.
    pub out_of_pids: bool,
}

/// The groups that hold these limits: pure, tested as text.
pub fn plan(cgroups: &Cgroups, limits: &Limits) -> Vec<Group> {
    match cgroups {
        Cgroups::None { .. } => Vec::new(),
        Cgroups::V1 { controllers } => {
            let group = |controller: &str, writes: Vec<(String, String)>| {
                let parent = controllers.get(controller)?.clone();
                Some(Group {
                    parent,
                    join: "tasks".to_owned(),
                    writes,
                })
            };
            let memory = limits
                .memory_bytes
                .and_then(|n| group("memory", memory_v1(n)));
            let pids = limits
                .pids
                .and_then(|n| group("pids", vec![text("pids.max", n)]));
            let cpu = limits.cpu_millis.and_then(|n| group("cpu", cpu_v1(n)));
            let freezer = limits.freezes.then(|| group("freezer", Vec::new()));
            let all = [memory, pids, cpu, freezer.flatten()];
            all.into_iter().flatten().collect()
        }
        Cgroups::V2 { base, .. } => {
            let mut writes = Vec::new();
            if let Some(bytes) = limits.memory_bytes {
                writes.push(text("memory.max", bytes));
                writes.push(text("?memory.swap.max", 0));
                writes.push(text("?memory.oom.group", 1));
            }
            writes.extend(limits.pids.map(|n| text("pids.max", n)));
            writes.extend(
                limits
                    .cpu_millis
                    .map(|n| text("cpu.max", format!("{} {CPU_PERIOD_US}", quota(n)))),
            );
            vec![Group {
                parent: base.clone(),
                join: "cgroup.procs".to_owned(),
                writes,
            }]
        }
    }
}

fn text(file: &str, value: impl ToString) -> (String, String) {
    (file.to_owned(), value.to_string())
}

fn quota(cpu_millis: u32) -> u64 {
    // The kernel refuses slices under a millisecond.
    (u64::from(cpu_millis) * CPU_PERIOD_US / 1000).max(1000)
}

fn memory_v1(bytes: u64) -> Vec<(String, String)> {
    // Swap after memory: the kernel refuses a sum that is below the memory limit.
    vec![
        text("memory.limit_in_bytes", bytes),
        text("?memory.memsw.limit_in_bytes", bytes),
    ]
}

fn cpu_v1(cpu_millis: u32) -> Vec<(String, String)> {
    vec![
        text("cpu.cfs_period_us", CPU_PERIOD_US),
        text("cpu.cfs_quota_us", quota(cpu_millis)),
    ]
}

/// Finds where this process may make groups, and makes the one that holds all of ours.
pub fn find(uid: u32) -> Cgroups {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    find_in(&mounts, &own, uid)
}

fn find_in(mounts: &str, own: &str, uid: u32) -> Cgroups {
    if let Some(found) = find_v2(mounts, own, uid) {
        return found;
    }
    let mut controllers = BTreeMap::new();
    for (mount, options) in mounts.lines().filter_map(|line| hierarchy(line, "cgroup")) {
        for controller in ["memory", "pids", "cpu", "freezer"] {
            if options.split(',').any(|option| option == controller) {
                let parent = mount.join(OURS);
                if make(&parent).is_ok() {
                    controllers.insert(controller.to_owned(), parent);
                }
            }
        }
    }
    if controllers.is_empty() {
        let why = "no control group is delegated to this user, and it is not root";
        return Cgroups::None {
            why: why.to_owned(),
        };
    }
    Cgroups::V1 { controllers }
}

/// The mount point and the super options of a line of `/proc/self/mountinfo` (see `proc(5)`), if it is
/// a file system of this type.
fn hierarchy<'l>(line: &'l str, kind: &str) -> Option<(PathBuf, &'l str)> {
    let (mount, rest) = line.split_once(" - ")?;
    let mut rest = rest.split(' ');
    let options = (rest.next()? == kind).then(|| rest.nth(1))??;
    Some((PathBuf::from(mount.split(' ').nth(4)?), options))
}

/// The unified hierarchy, where it has the controllers. Root makes groups at the top; others below
/// the group that they are in, if it was delegated to them.
fn find_v2(mounts: &str, own: &str, uid: u32) -> Option<Cgroups> {
    let (mount, _) = mounts.lines().find_map(|line| hierarchy(line, "cgroup2"))?;
    let above = if uid == 0 {
        mount
    } else {
        let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
        mount.join(path)
    };
    let available = std::fs::read_to_string(above.join("cgroup.controllers")).ok()?;
    let wanted = ["memory", "pids", "cpu"];
    let has = |name: &&&str| available.split_whitespace().any(|one| one == **name);
    let controllers: Vec<String> = wanted.iter().filter(has).map(|c| (*c).to_owned()).collect();
    if controllers.is_empty() {
        return None;
    }
    let base = above.join(OURS);
    let enabled = leave_leaf(&above, uid).and_then(|()| enable(&above, &controllers));
    let ready = enabled
        .and_then(|()| make(&base))
        .and_then(|()| enable(&base, &controllers));
    match ready {
        Ok(()) => Some(Cgroups::V2 { base, controllers }),
        Err(errno) => Some(Cgroups::None {
            why: format!(
                "the control group {} is not ours to divide ({errno})",
                above.display()
            ),
        }),
    }
}

/// A group that passes controllers on may hold no processes itself, so those of a delegated group go
/// into a group beside ours first. The top group is exempt from that rule.
fn leave_leaf(above: &Path, uid: u32) -> Result<(), Errno> {
    if uid == 0 {
        return Ok(());
    }
    let leaf = above.join(format!("{OURS}-node"));
    make(&leaf)?;
    let processes = std::fs::read_to_string(above.join("cgroup.procs")).unwrap_or_default();
    for process in processes.lines() {
        write(&leaf.join("cgroup.procs"), process)?;
    }
    Ok(())
}

fn enable(group: &Path, controllers: &[String]) -> Result<(), Errno> {
    let file = group.join("cgroup.subtree_control");
    let enabled = std::fs::read_to_string(&file).unwrap_or_default();
    let missing = controllers
        .iter()
        .filter(|c| !enabled.split_whitespace().any(|e| e == *c));
    missing
        .map(|c| format!("+{c}"))
        .try_for_each(|text| write(&file, &text))
}

fn make(group: &Path) -> Result<(), Errno> {
    match rustix::fs::mkdir(group, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => usable(group),
        Err(errno) => Err(errno),
    }
}

/// A group that is there may be somebody else's: the one that root made when it used this program.
fn usable(group: &Path) -> Result<(), Errno> {
    let access = Access::WRITE_OK | Access::EXEC_OK;
    rustix::fs::accessat(rustix::fs::CWD, group, access, AtFlags::EACCESS)
}

fn write(file: &Path, text: &str) -> Result<(), Errno> {
    let fd = rustix::fs::open(file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&fd, text.as_bytes()).map(drop)
}

/// What failed while a group was made.
#[derive(Debug, thiserror::Error)]
#[error("control group file {}", path.display())]
pub struct CgroupError {
    /// The file or directory.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: Errno,
}

/// Makes the groups of one sandbox, and opens what its processes join them through and where they are:
/// all membership files first, then all parents.
///
/// # Errors
/// [`CgroupError`]; what was made until then is left for [`remove`].
pub fn create(groups: &[Group], name: &str) -> Result<Vec<OwnedFd>, CgroupError> {
    let mut fds = Vec::new();
    let mut parents = Vec::new();
    for group in groups {
        let dir = group.parent.join(name);
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| CgroupError { path, source }
        };
        make(&dir).map_err(at(&dir))?;
        for (file, text) in &group.writes {
            let (optional, file) = file
                .strip_prefix('?')
                .map_or((false, &**file), |f| (true, f));
            let path = dir.join(file);
            match write(&path, text) {
                Err(Errno::NOENT) if optional => {}
                result => result.map_err(at(&path))?,
            }
        }
        let join = dir.join(&group.join);
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        fds.push(rustix::fs::open(&join, flags, Mode::empty()).map_err(at(&join))?);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        parents.push(rustix::fs::open(&group.parent, flags, Mode::empty()).map_err(at(&dir))?);
    }
    fds.extend(parents);
    Ok(fds)
}

/// Stops everything in the groups of one sandbox in its tracks, or lets it go on. Returns whether it is
/// so already: the kernel stops processes one by one.
///
/// # Errors
/// `NOENT` where no group of it can be frozen; else those of writing the file.
pub fn freeze(parents: &[PathBuf], name: &str, frozen: bool) -> Result<bool, Errno> {
    for dir in parents.iter().map(|parent| parent.join(name)) {
        let read = |file: &str| std::fs::read_to_string(dir.join(file)).unwrap_or_default();
        let state = if frozen { "FROZEN" } else { "THAWED" };
        // Version 1, see freezer-subsystem.rst of the kernel. It is written again until it holds,
        // because a process that was being made at the first time can be missed.
        match write(&dir.join("freezer.state"), state) {
            Ok(()) => return Ok(read("freezer.state").trim() == state),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        match write(&dir.join("cgroup.freeze"), if frozen { "1" } else { "0" }) {
            Ok(()) => return Ok(keyed(&read("cgroup.events"), "frozen") == Some(u64::from(frozen))),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::NOENT)
}

/// Whether everything in the groups of one sandbox is stopped; `None` where no group of it can be.
pub fn is_frozen(parents: &[PathBuf], name: &str) -> Option<bool> {
    parents
        .iter()
        .map(|parent| parent.join(name))
        .find_map(|dir| {
            let read = |file: &str| std::fs::read_to_string(dir.join(file)).ok();
            let first = read("freezer.state").map(|state| state.trim() == "FROZEN");
            first.or_else(|| Some(keyed(&read("cgroup.events")?, "frozen")? == 1))
        })
}

/// Removes the groups of one sandbox. `BUSY` as long as a process is in one.
///
/// # Errors
/// Those of `rmdir(2)`, except that a group that is not there is no error.
pub fn remove(parents: &[PathBuf], name: &str) -> Result<(), Errno> {
    for parent in parents {
        match rustix::fs::rmdir(parent.join(name)) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Reads what the groups of one sandbox counted so far.
pub fn counted(parents: &[PathBuf], name: &str) -> Counted {
    let mut counted = Counted::default();
    for dir in parents.iter().map(|parent| parent.join(name)) {
        let read = |file: &str| std::fs::read_to_string(dir.join(file)).ok();
        let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
        let field = |file: &str, key: &str| read(file).and_then(|text| keyed(&text, key));
        // Of version 1, each group has the files of its one controller; what is not there is not asked
        // for further, because this is between the end of a command and whoever waits for it.
        let peak = number("memory.max_usage_in_bytes");
        if let Some(peak) = peak.or_else(|| number("memory.peak")) {
            counted.memory_peak_bytes = Some(peak);
            let version_2 = || field("memory.events", "oom_kill");
            let killed = field("memory.oom_control", "oom_kill").or_else(version_2);
            counted.out_of_memory |= killed.unwrap_or(0) > 0;
        }
        if let Some(hits) = field("pids.events", "max") {
            counted.pids_peak = number("pids.peak");
            counted.out_of_pids |= hits > 0;
        }
    }
    counted
}

/// What the groups of a sandbox that runs count now: beside what [`counted`] says at the end, memory and
/// processor time.
pub fn counting(parents: &[PathBuf], name: &str) -> Counted {
    let mut now = Counted::default();
    for dir in parents.iter().map(|parent| parent.join(name)) {
        let read = |file: &str| std::fs::read_to_string(dir.join(file)).ok();
        let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
        let all = number("memory.usage_in_bytes").or_else(|| number("memory.current"));
        if let Some(all) = all {
            let stat = read("memory.stat").unwrap_or_default();
            // What is in a tmpfs is counted as cache, and cannot be given back.
            let files = keyed(&stat, "cache ").or_else(|| keyed(&stat, "file "));
            let kept = keyed(&stat, "shmem ").unwrap_or(0);
            let cache = files.unwrap_or(0).saturating_sub(kept).min(all);
            now.memory_bytes = Some(all - cache);
            now.cache_bytes = Some(cache);
        }
        let version_1 = || number("cpuacct.usage").map(|ns| ns / 1000);
        let version_2 = read("cpu.stat").and_then(|text| keyed(&text, "usage_usec "));
        now.cpu_us = now.cpu_us.or(version_2).or_else(version_1);
    }
    now
}

/// The number after `key` in a file of keys and numbers.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        memory_bytes: Some(64 << 20),
        pids: Some(64),
        cpu_millis: Some(500),
        freezes: false,
    };

    #[test]
    fn version_2_writes_one_group() {
        let cgroups = Cgroups::V2 {
            base: "/sys/fs/cgroup/cofferdam".into(),
            controllers: vec![],
        };
        insta::assert_debug_snapshot!(plan(&cgroups, &LIMITS));
    }

    #[test]
    fn version_1_writes_a_group_for_each_controller() {
        let dir = |name: &str| {
            (
                name.to_owned(),
                PathBuf::from(format!("/cg/{name}/cofferdam")),
            )
        };
        let controllers = [dir("memory"), dir("pids"), dir("cpu")].into();
        insta::assert_debug_snapshot!(plan(&Cgroups::V1 { controllers }, &LIMITS));
    }

    #[test]
    fn a_line_of_mountinfo_gives_its_mount_point_and_controllers() {
        let line = "30 25 0:27 / /sys/fs/cgroup/pids rw,nosuid shared:9 - cgroup cgroup rw,pids";
        let found = hierarchy(line, "cgroup");
        assert_eq!(
            found,
            Some((PathBuf::from("/sys/fs/cgroup/pids"), "rw,pids"))
        );
        assert_eq!(hierarchy(line, "cgroup2"), None);
    }

    #[test]
    fn a_group_of_somebody_else_is_none_of_ours() {
        let base = tempfile::tempdir().unwrap();
        let theirs = base.path().join(OURS);
        std::fs::create_dir(&theirs).unwrap();
        let read_only = std::os::unix::fs::PermissionsExt::from_mode(0o555);
        std::fs::set_permissions(&theirs, read_only).unwrap();
        let mounts = format!(
            "1 2 0:3 / {} rw - cgroup cgroup rw,pids\n",
            base.path().display()
        );
        let found = find_in(&mounts, "", 1000);
        // Root may write everywhere, so this says nothing to root.
        let root = rustix::process::geteuid().is_root();
        assert!(root || matches!(found, Cgroups::None { .. }), "{found:?}");
    }

    #[test]
    fn counters_are_read_from_files_of_either_version() {
        let base = tempfile::tempdir().unwrap();
        let group = base.path().join("sbx_1");
        std::fs::create_dir(&group).unwrap();
        std::fs::write(group.join("memory.peak"), "4096\n").unwrap();
        std::fs::write(group.join("memory.events"), "low 0\noom 1\noom_kill 1\n").unwrap();
        std::fs::write(group.join("pids.events"), "max 3\n").unwrap();
        let counted = counted(&[base.path().to_owned()], "sbx_1");
        let all = Counted {
            memory_peak_bytes: Some(4096),
            pids_peak: None,
            out_of_memory: true,
            out_of_pids: true,
            ..Counted::default()
        };
        assert_eq!(counted, all);
    }

    #[test]
    fn a_delegated_group_is_divided_and_its_processes_moved_aside() {
        let base = tempfile::tempdir().unwrap();
        let above = base.path().join("user.slice");
        std::fs::create_dir_all(above.join("cofferdam-node")).unwrap();
        std::fs::create_dir_all(above.join("cofferdam")).unwrap();
        std::fs::write(above.join("cgroup.controllers"), "cpu memory pids io\n").unwrap();
        std::fs::write(above.join("cgroup.procs"), "12\n").unwrap();
        std::fs::write(above.join("cgroup.subtree_control"), "").unwrap();
        std::fs::write(above.join("cofferdam-node/cgroup.procs"), "").unwrap();
        std::fs::write(above.join("cofferdam/cgroup.subtree_control"), "cpu").unwrap();
        let mounts = format!(
            "1 2 0:3 / {} rw - cgroup2 cgroup2 rw\n",
            base.path().display()
        );
        let found = find_in(&mounts, "0::/user.slice\n", 1000);
        let controllers = ["memory", "pids", "cpu"].map(str::to_owned).to_vec();
        assert_eq!(
            found,
            Cgroups::V2 {
                base: above.join("cofferdam"),
                controllers
            }
        );
        let moved = std::fs::read_to_string(above.join("cofferdam-node/cgroup.procs")).unwrap();
        assert_eq!(moved, "12");
    }

    #[test]
    fn what_is_to_be_paused_gets_a_group_that_can_be_frozen() {
        let controllers =
            ["memory", "freezer"].map(|c| (c.to_owned(), PathBuf::from("/c").join(c)));
        let cgroups = Cgroups::V1 {
            controllers: controllers.into(),
        };
        let parents = |freezes| {
            let limits = Limits { freezes, ..LIMITS };
            let groups = plan(&cgroups, &limits);
            groups
                .into_iter()
                .map(|group| group.parent)
                .collect::<Vec<_>>()
        };
        assert_eq!(parents(false), [Path::new("/c/memory")]);
        assert_eq!(
            parents(true),
            [Path::new("/c/memory"), Path::new("/c/freezer")]
        );
    }

    #[test]
    fn a_group_is_frozen_when_the_kernel_says_so_in_either_version() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("sbx");
        let parents = [dir.path().to_owned()];
        std::fs::create_dir(&group).unwrap();
        assert_eq!(freeze(&parents, "sbx", true), Err(Errno::NOENT));
        std::fs::write(group.join("cgroup.freeze"), "").unwrap();
        std::fs::write(group.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        assert_eq!(freeze(&parents, "sbx", true), Ok(false));
        std::fs::write(group.join("cgroup.events"), "populated 1\nfrozen 1\n").unwrap();
        assert_eq!(freeze(&parents, "sbx", true), Ok(true));
        assert_eq!(freeze(&parents, "sbx", false), Ok(false));
        assert_eq!(std::fs::read(group.join("cgroup.freeze")).unwrap(), b"0");
        std::fs::write(group.join("freezer.state"), "").unwrap();
        assert_eq!(freeze(&parents, "sbx", true), Ok(true));
        assert_eq!(
            std::fs::read(group.join("freezer.state")).unwrap(),
            b"FROZEN"
        );
    }

    #[test]
    fn what_is_counted_now_is_read_from_either_version() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let write = |parent: &PathBuf, files: &[(&str, &str)]| {
            std::fs::create_dir_all(parent.join("sbx")).unwrap();
            for (name, text) in files {
                std::fs::write(parent.join("sbx").join(name), text).unwrap();
            }
        };
        write(
            &one,
            &[
                ("memory.usage_in_bytes", "1000\n"),
                (
                    "memory.stat",
                    "cache 700\nrss 300\nshmem 600\ntotal_cache 9\n",
                ),
                ("cpuacct.usage", "5000000\n"),
            ],
        );
        write(
            &two,
            &[
                ("memory.current", "1000\n"),
                (
                    "memory.stat",
                    "anon 300\nfile 700\nfile_mapped 3\nshmem 600\n",
                ),
                ("cpu.stat", "usage_usec 5000\nuser_usec 1\n"),
            ],
        );
        let expected = Counted {
            memory_bytes: Some(900),
            cache_bytes: Some(100),
            cpu_us: Some(5000),
            ..Counted::default()
        };
        assert_eq!(counting(&[one], "sbx"), expected);
        assert_eq!(counting(&[two], "sbx"), expected);
        assert_eq!(
            counting(&[dir.path().join("none")], "sbx"),
            Counted::default()
        );
    }
}

//! From what is asked and what the machine is to a plan. Pure: looks at nothing but its arguments.

use crate::cgroup::{self, Group, Limits};
use crate::driver::{
    Body as PlanBody, HANDLE_VERSION, Handle, LAYERS_MAX, Mode, Plan, Spec, Unsupported,
    VOLUMES_MAX, Volume,
};
use crate::host::{Cgroups, Host, Ids, Root};
use crate::linux::{Body, NAME, ids, seccomp, tree, writable};
use guest::message::{Confine, TUN_ADDRESS, TUN_ADDRESS6, TUN_MTU};
use jail::plan::{Sandbox, Tree, Tun};
use model::enforcement::{Enforced, Held};
use model::id::SandboxId;
use model::limits as defaults;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the Linux driver does for one sandbox.
#[derive(Debug, Clone, PartialEq)]
pub struct LinuxPlan {
    /// The name of the launcher's socket; sandboxes of one tree share a launcher.
    pub(super) launcher: String,
    /// What the launcher shows.
    pub(super) tree: Arc<Tree>,
    /// What the sandbox is.
    pub(super) sandbox: Sandbox,
    /// Its control groups.
    pub(super) groups: Vec<Group>,
    /// What it begins with, the oldest first.
    pub(super) layers: Vec<PathBuf>,
    /// In the order of those of the sandbox.
    pub(super) volumes: Vec<Volume>,
}

/// What a launcher's sandboxes see: each kind has a tree of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A root that is read, for one command.
    Job,
    /// A root that is read, with terminals.
    Live,
    /// A root that is written.
    Writable,
}

impl Kind {
    pub(super) fn of(mode: Mode, root: &Root, host: &Host) -> Kind {
        match mode {
            // All see the same of a root that was given, so that one launcher does for all.
            _ if root.given.is_some() && writable::impossible(root, host).is_none() => {
                Kind::Writable
            }
            Mode::Job => Kind::Job,
            Mode::Live { allow_root: true } if writable::impossible(root, host).is_none() => {
                Kind::Writable
            }
            Mode::Live { .. } => Kind::Live,
        }
    }

    pub(super) fn tree(self, root: &Root, devices: &[String], staging: &Path) -> Tree {
        match self {
            Kind::Job => tree::tree(root, devices, staging, Mode::Job),
            // The same tree for both: whether there is a root inside is the sandbox's matter.
            Kind::Live => {
                let mode = Mode::Live { allow_root: false };
                tree::tree(root, devices, staging, mode)
            }
            Kind::Writable => writable::tree(root, devices, staging),
        }
    }
}

/// Where what is written is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Storage {
    /// In memory, and a part of it.
    Shared,
    /// In memory, added to it, so that both can be used in full.
    Added,
    /// In a file system of its own on the node's disk.
    Disk,
}

/// The limits that will be in force, asked for or not.
#[derive(Debug, Clone, Copy)]
struct Effective {
    memory_bytes: u64,
    disk_bytes: u64,
    storage: Storage,
    pids: u32,
    cpu_millis: u32,
}

/// Open files of one process; a machine may allow less.
const OPEN_FILES: u64 = 4096;
/// Bytes that one process may pin in memory.
const LOCKED_BYTES: u64 = 64 * 1024;
/// Bytes of message queues.
const QUEUE_BYTES: u64 = 819_200;

/// Decides everything about a sandbox.
pub(super) fn plan(spec: &Spec, host: &Host, dir: &Path) -> Result<Plan, Vec<Unsupported>> {
    let limits = effective(spec, host);
    let mut refused = refusals(spec, host, &limits);
    let filter = seccomp::workload().map_err(|bad| refused.push(unsupported("seccomp", bad)));
    let (Ok(filter), []) = (filter, refused.as_slice()) else {
        return Err(refused);
    };
    let root = root(spec, host);
    let kind = Kind::of(spec.mode, root, host);
    let groups = groups(spec, host, &limits);
    let sandbox = sandbox(spec, host, &limits, kind);
    Ok(Plan {
        handle: handle(spec, launcher_name(root, kind), &groups),
        life: spec.life,
        enforced: enforced(spec, host, &limits, &groups),
        confine: Confine {
            uid: tree::USER,
            gid: tree::USER,
            rlimits: rlimits(host, &limits),
            landlock: (host.landlock_abi > 0)
                .then(|| tree::landlock(spec.mode, writes_all(spec.mode, kind))),
            seccomp: filter.to_vec(),
        },
        body: PlanBody::Linux(Box::new(LinuxPlan {
            launcher: launcher_name(root, kind),
            tree: Arc::new(kind.tree(root, &host.devices, &dir.join("staging"))),
            sandbox,
            groups,
            layers: spec.layers.clone(),
            volumes: spec.volumes.clone(),
        })),
    })
}

/// Whether there is somebody inside who may write everywhere.
fn writes_all(mode: Mode, kind: Kind) -> bool {
    kind == Kind::Writable && mode == Mode::Live { allow_root: true }
}

fn root<'s>(spec: &'s Spec, host: &'s Host) -> &'s Root {
    spec.root.as_ref().unwrap_or(&host.root)
}

fn unsupported(clause: &str, why: impl ToString) -> Unsupported {
    Unsupported {
        clause: clause.to_owned(),
        why: why.to_string(),
    }
}

/// Defaults are filled in. A small storage is in memory and counts as that. When a size was asked for, it is added
/// to the memory limit; else it shares the memory, and is at most half of it. Where the whole root is what is
/// written, packages and all, that would be too little, so it is added there too, unless somebody named a memory
/// limit: what was named is not made larger by what was not.
fn effective(spec: &Spec, host: &Host) -> Effective {
    let asked = &spec.limits;
    let half = host.memory_bytes / 2;
    let memory_bytes = asked
        .memory_bytes
        .unwrap_or_else(|| defaults::MEMORY_DEFAULT_BYTES.min(half));
    let kind = Kind::of(spec.mode, root(spec, host), host);
    let roomy = kind == Kind::Writable && asked.memory_bytes.is_none();
    let most = if roomy { half } else { memory_bytes };
    let default_disk = defaults::DISK_DEFAULT_BYTES.min(most / 2);
    let can = kind == Kind::Writable && host.no_volumes.is_none();
    let storage = match asked.disk_bytes {
        Some(bytes) if can && bytes > defaults::DISK_IN_MEMORY_BYTES => Storage::Disk,
        Some(_) => Storage::Added,
        None if roomy => Storage::Added,
        None => Storage::Shared,
    };
    Effective {
        memory_bytes,
        disk_bytes: asked.disk_bytes.unwrap_or(default_disk),
        storage,
        pids: asked.pids.unwrap_or(defaults::PIDS_DEFAULT),
        cpu_millis: asked
            .cpu_millis
            .unwrap_or_else(|| defaults::CPU_DEFAULT_MILLIS.min(host.cpus * 1000)),
    }
}

/// All clauses that this machine cannot hold.
fn refusals(spec: &Spec, host: &Host, limits: &Effective) -> Vec<Unsupported> {
    let mut refused = Vec::new();
    if let Some(why) = &host.no_user_namespaces {
        let why = format!("no sandbox can be made: {why}; `cofferdam doctor` says what to do");
        refused.push(unsupported("namespaces", why));
    }
    let asked = &spec.limits;
    if let Some(why) = no_group(host, "memory").filter(|_| asked.memory_bytes.is_some()) {
        refused.push(unsupported("memory", why));
    }
    if let Some(why) = no_group(host, "cpu").filter(|_| asked.cpu_millis.is_some()) {
        refused.push(unsupported("cpu", why));
    }
    let total = limits.memory_bytes.saturating_add(limits.disk_bytes);
    if asked
        .memory_bytes
        .is_some_and(|bytes| bytes > host.memory_bytes)
    {
        refused.push(beyond("memory", host.memory_bytes));
    } else if asked.disk_bytes.is_some()
        && limits.storage != Storage::Disk
        && total > host.memory_bytes
    {
        let left = host.memory_bytes.saturating_sub(limits.memory_bytes);
        refused.push(beyond("disk", left));
    }
    if asked
        .cpu_millis
        .is_some_and(|millis| millis > host.cpus * 1000)
    {
        refused.push(beyond("cpu", u64::from(host.cpus * 1000)));
    }
    refused.extend(layers(spec, host));
    refused.extend(volumes(spec, host));
    refused
}

/// Layers are below what is written, so there must be a root that can be.
fn layers(spec: &Spec, host: &Host) -> Option<Unsupported> {
    let why = match spec.mode {
        _ if spec.layers.is_empty() => return None,
        _ if spec.layers.len() > LAYERS_MAX => format!("at most {LAYERS_MAX} can be had"),
        Mode::Live { .. } if Kind::of(spec.mode, root(spec, host), host) == Kind::Writable => {
            return None;
        }
        Mode::Job | Mode::Live { allow_root: false } => {
            "only a sandbox that lives on and allows root has a root that can be written".to_owned()
        }
        Mode::Live { allow_root: true } => {
            let why = writable::impossible(root(spec, host), host)?;
            format!("its root cannot be written: {why}")
        }
    };
    Some(unsupported("layers", why))
}

/// Volumes are mounted where no other sandbox sees them, so there must be a root of the sandbox's own.
fn volumes(spec: &Spec, host: &Host) -> Option<Unsupported> {
    let why = match (spec.mode, &host.no_volumes) {
        _ if spec.volumes.is_empty() => return None,
        _ if spec.volumes.len() > VOLUMES_MAX => format!("at most {VOLUMES_MAX} can be had"),
        (Mode::Job | Mode::Live { allow_root: false }, _) => {
            "only a sandbox that lives on and allows root has files of its own to put them into"
                .to_owned()
        }
        (Mode::Live { allow_root: true }, Some(why)) => why.clone(),
        (Mode::Live { allow_root: true }, None) => {
            let why = writable::impossible(root(spec, host), host)?;
            format!("its root cannot be written: {why}")
        }
    };
    Some(unsupported("volumes", why))
}

fn beyond(clause: &str, most: u64) -> Unsupported {
    unsupported(
        clause,
        format!("it is beyond the machine, which has {most}"),
    )
}

/// Why a limit of this controller cannot be held, if it cannot.
fn no_group(host: &Host, controller: &str) -> Option<String> {
    match &host.cgroups {
        Cgroups::None { why } => Some(why.clone()),
        Cgroups::V1 { controllers } if controllers.contains_key(controller) => None,
        Cgroups::V2 { controllers, .. } if controllers.iter().any(|c| c == controller) => None,
        Cgroups::V1 { .. } | Cgroups::V2 { .. } => Some(format!(
            "the control group controller `{controller}` is not available"
        )),
    }
}

fn groups(spec: &Spec, host: &Host, limits: &Effective) -> Vec<Group> {
    let memory = memory_limit(limits);
    let has = |controller: &str| no_group(host, controller).is_none();
    let limits = Limits {
        memory_bytes: has("memory").then_some(memory),
        pids: has("pids").then_some(limits.pids),
        cpu_millis: has("cpu").then_some(limits.cpu_millis),
        freezes: matches!(spec.mode, Mode::Live { .. }),
    };
    cgroup::plan(&host.cgroups, &limits)
}

/// Bytes in the control group; see [`effective`].
fn memory_limit(limits: &Effective) -> u64 {
    match limits.storage {
        Storage::Added => limits.memory_bytes.saturating_add(limits.disk_bytes),
        Storage::Shared | Storage::Disk => limits.memory_bytes,
    }
}

fn sandbox(spec: &Spec, host: &Host, limits: &Effective, kind: Kind) -> Sandbox {
    let written = (kind == Kind::Writable).then(|| writable::root(root(spec, host)));
    let data = match &written {
        Some(written) => {
            writable::data(limits.disk_bytes, written, limits.storage == Storage::Disk)
        }
        None => tree::data(limits.disk_bytes, spec.mode),
    };
    let map = ids::sandbox_map(&host.ids, &spec.id);
    Sandbox {
        id: spec.id.to_string(),
        hostname: "sandbox".to_owned(),
        uids: map.clone(),
        gids: map,
        guest_uid: ids::guest_uid(&host.ids),
        user_uid: tree::USER,
        data,
        root: written,
        proc: "/proc".to_owned(),
        masked: tree::MASKED.map(str::to_owned).to_vec(),
        read_only: tree::READ_ONLY.map(str::to_owned).to_vec(),
        terminals: (spec.mode != Mode::Job).then(|| tree::TERMINALS.to_owned()),
        root_inside: spec.mode == Mode::Live { allow_root: true },
        tun: (spec.way_out && host.no_tun.is_none()).then(tun),
        volumes: spec
            .volumes
            .iter()
            .map(|volume| volume.target.clone())
            .collect(),
        deadline_boot_ms: 0, // Set at the start, from the plan's life.
    }
}

/// The device, whenever a sandbox gets it.
pub(super) fn tun() -> Tun {
    Tun {
        name: "tun0".to_owned(),
        address: TUN_ADDRESS,
        address6: TUN_ADDRESS6,
        mtu: TUN_MTU,
    }
}

fn rlimits(host: &Host, limits: &Effective) -> Vec<(u32, u64)> {
    let all = [
        // Not 0: then a crash still starts a handler that the host has for core dumps, as root and with
        // the dump as its input. With 1 it does not, see `core(5)`; and a dump of one byte is none.
        (libc::RLIMIT_CORE, 1),
        // Counted in the sandbox's user namespace alone, so this holds without control groups too.
        (libc::RLIMIT_NPROC, u64::from(limits.pids)),
        (libc::RLIMIT_NOFILE, OPEN_FILES.min(host.open_files_max)),
        (libc::RLIMIT_MEMLOCK, LOCKED_BYTES),
        (libc::RLIMIT_MSGQUEUE, QUEUE_BYTES),
        (libc::RLIMIT_RTPRIO, 0),
        (libc::RLIMIT_NICE, 0),
    ];
    all.map(|(resource, limit)| (resource, limit)).to_vec()
}

fn handle(spec: &Spec, launcher: String, groups: &[Group]) -> Handle {
    let cgroups: Vec<PathBuf> = groups.iter().map(|group| group.parent.clone()).collect();
    handle_with(&spec.id, launcher, cgroups)
}

/// For a sandbox of which only its directory is left: no launcher by name, because that follows from a root
/// that nobody remembers, and all groups that it can have been in.
pub(super) fn handle_of_unknown(id: &SandboxId, host: &Host) -> Handle {
    let cgroups = match &host.cgroups {
        Cgroups::None { .. } => Vec::new(),
        Cgroups::V1 { controllers } => controllers.values().cloned().collect(),
        Cgroups::V2 { base, .. } => vec![base.clone()],
    };
    handle_with(id, String::new(), cgroups)
}

fn handle_with(id: &SandboxId, launcher: String, cgroups: Vec<PathBuf>) -> Handle {
    let body = Body { launcher, cgroups };
    let body = serde_json::to_string(&body).unwrap_or_default();
    Handle {
        version: HANDLE_VERSION,
        driver: NAME.to_owned(),
        id: id.clone(),
        body,
    }
}

/// The name of the socket of the launcher that shows this root in this way: it shows one tree.
pub(super) fn launcher_name(root: &Root, kind: Kind) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let kind = match kind {
        Kind::Job => "launcher",
        Kind::Live => "launcher-live",
        Kind::Writable => "launcher-root",
    };
    if root.is_host {
        return format!("{kind}-host.sock");
    }
    let mut hasher = DefaultHasher::new(); // Keyed with zeros: the same in every process.
    root.path.hash(&mut hasher);
    if let Some(given) = &root.given {
        // A launcher of an earlier process shows what was there then, and copies of its users.
        given.identity.hash(&mut hasher);
        given.passwd.hash(&mut hasher);
    }
    format!("{kind}-{:016x}.sock", hasher.finish())
}

fn disk_held(asked: bool, limits: &Effective) -> Enforced {
    let how = match limits.storage {
        Storage::Shared | Storage::Added => "tmpfs quota of bytes and files",
        Storage::Disk => "size of an ext4 file system of its own on the node's disk",
    };
    Enforced {
        clause: "disk".to_owned(),
        how: how.to_owned(),
        value: Some(format!("{} bytes", limits.disk_bytes)),
        asked,
        state: Held::Held,
    }
}

/// The record of what will be in force, for the job and for people.
fn enforced(spec: &Spec, host: &Host, limits: &Effective, groups: &[Group]) -> Vec<Enforced> {
    let asked = &spec.limits;
    let held = |clause: &str, how: &str, value: Option<String>| Enforced {
        clause: clause.to_owned(),
        how: how.to_owned(),
        value,
        asked: false,
        state: Held::Held,
    };
    let namespaces = "user, mount, pid, net, ipc, uts, cgroup";
    let landlock = format!(
        "abi {}",
        host.landlock_abi.min(guest::message::LANDLOCK_ABI)
    );
    let mut all = vec![
        held("isolation", "namespaces", Some(namespaces.to_owned())),
        held(
            "network",
            &host.network(spec.way_out),
            Some("none".to_owned()),
        ),
        shown_root(spec, host),
        held("seccomp", "allow-list of system calls", None),
        held("privileges", privileges(spec.mode), None),
    ];
    all.push(Enforced {
        state: if host.landlock_abi > 0 {
            Held::Held
        } else {
            Held::NotHeld
        },
        ..held(
            "files",
            "landlock",
            (host.landlock_abi > 0).then_some(landlock),
        )
    });
    all.push(disk_held(asked.disk_bytes.is_some(), limits));
    let memory = memory_limit(limits);
    let memory = match limits.storage {
        Storage::Added => format!(
            "{memory} bytes, of which {} for the disk",
            limits.disk_bytes
        ),
        Storage::Shared | Storage::Disk => format!("{memory} bytes"),
    };
    let cpu = format!("{} thousandths of a processor", limits.cpu_millis);
    all.push(grouped(
        host,
        "memory",
        groups,
        memory,
        asked.memory_bytes.is_some(),
    ));
    all.push(grouped(
        host,
        "cpu",
        groups,
        cpu,
        asked.cpu_millis.is_some(),
    ));
    all.push(pids(host, limits, asked.pids.is_some()));
    all.push(users(host));
    all.extend(pause(spec, host));
    all.extend(spec.volumes.iter().map(mounted));
    all
}

/// A volume, which is no larger than its file system.
fn mounted(volume: &Volume) -> Enforced {
    let how = match volume.read_only {
        true => "a file system of its own, read-only",
        false => "a file system of its own",
    };
    Enforced {
        clause: "volume".to_owned(),
        how: how.to_owned(),
        value: Some(volume.target.clone()),
        asked: true,
        state: Held::Held,
    }
}

/// What the sandbox has for a root, and whether it can be written.
fn shown_root(spec: &Spec, host: &Host) -> Enforced {
    let root = root(spec, host);
    let of = match &root.given {
        _ if root.is_host => "programs of the host".to_owned(),
        Some(given) => format!("{} {}", given.name, given.identity),
        None => root.path.display().to_string(),
    };
    let layers = match spec.layers.len() {
        0 => String::new(),
        1 => ", 1 layer".to_owned(),
        n => format!(", {n} layers"),
    };
    let written = Kind::of(spec.mode, root, host) == Kind::Writable;
    let (how, value) = match (spec.mode, writable::impossible(root, host)) {
        (Mode::Live { allow_root: true }, None) => (WRITTEN, format!("{of}{layers}")),
        (Mode::Live { allow_root: true }, Some(why)) => {
            (READ, format!("{of}; cannot be written: {why}"))
        }
        _ if written => (
            WRITTEN,
            format!("{of}{layers}; no root inside, who could write it"),
        ),
        (Mode::Job | Mode::Live { allow_root: false }, _) => (READ, of),
    };
    Enforced {
        clause: "root".to_owned(),
        how: how.to_owned(),
        value: Some(value),
        asked: false,
        state: Held::Held,
    }
}

/// How a root is shown that is read.
const READ: &str = "read-only mounts";
/// How a root is shown that is written.
const WRITTEN: &str = "read-only mounts below overlays of the sandbox's own";

/// Whether the sandbox can be paused; whoever orders a pause looks at this before.
fn pause(spec: &Spec, host: &Host) -> Option<Enforced> {
    if spec.mode == Mode::Job {
        return None;
    }
    // Each group of version 2 can be frozen, whatever its controllers.
    let missing = match host.cgroups {
        Cgroups::V2 { .. } => None,
        Cgroups::V1 { .. } | Cgroups::None { .. } => no_group(host, "freezer"),
    };
    let state = match missing {
        None => Held::Held,
        Some(_) => Held::NotHeld,
    };
    Some(Enforced {
        clause: "pause".to_owned(),
        how: missing.unwrap_or_else(|| version_name(host).to_owned()),
        value: None,
        asked: false,
        state,
    })
}

fn privileges(mode: Mode) -> &'static str {
    match mode {
        Mode::Job | Mode::Live { allow_root: false } => "no_new_privs, no capabilities",
        Mode::Live { allow_root: true } => {
            "no_new_privs, no capabilities but six of the sandbox's root over its own files and processes"
        }
    }
}

fn version_name(host: &Host) -> &'static str {
    match host.cgroups {
        Cgroups::V1 { .. } => "cgroup v1",
        Cgroups::V2 { .. } => "cgroup v2",
        Cgroups::None { .. } => "none",
    }
}

fn grouped(host: &Host, clause: &str, groups: &[Group], value: String, asked: bool) -> Enforced {
    let missing = no_group(host, clause);
    let held = missing.is_none() && !groups.is_empty();
    Enforced {
        clause: clause.to_owned(),
        how: missing.unwrap_or_else(|| version_name(host).to_owned()),
        value: held.then_some(value),
        asked,
        state: if held { Held::Held } else { Held::NotHeld },
    }
}

fn pids(host: &Host, limits: &Effective, asked: bool) -> Enforced {
    let group = no_group(host, "pids").is_none();
    let how = if group {
        version_name(host)
    } else {
        "resource limit in the user namespace"
    };
    Enforced {
        clause: "pids".to_owned(),
        how: how.to_owned(),
        value: Some(limits.pids.to_string()),
        asked,
        state: Held::Held,
    }
}

fn users(host: &Host) -> Enforced {
    let (how, value) = match host.ids {
        Ids::Root => ("ids of the sandbox's own", "user 1000, guest 0"),
        Ids::Subordinate { .. } => ("subordinate ids", "user 1000, guest 0"),
        Ids::Single => (
            "one id",
            "the workload has the id and the groups of the user who runs the node",
        ),
    };
    Enforced {
        clause: "users".to_owned(),
        how: how.to_owned(),
        value: Some(value.to_owned()),
        asked: false,
        state: Held::Held,
    }
}

// A driver's layers are the launcher's.
const _: () = assert!(LAYERS_MAX == jail::message::LAYERS_MAX);
const _: () = assert!(VOLUMES_MAX == jail::message::VOLUMES_MAX);

#[cfg(test)]
mod tests;

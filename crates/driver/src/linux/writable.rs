//! A root that can be written: the tree below it, its overlays, its storage. Pure, except for the trial.

use crate::host::{Entry, Host, Ids, Root};
use crate::linux::given;
use crate::linux::tree::{self, HOSTS, NSSWITCH, TERMINALS, USER};
use jail::message::LAYERS_MAX;
use jail::plan::{Data, EMPTY_DIR, Op, Overlay, Place, Tree, UPPER, WORK};
use std::path::Path;

/// Directories that are shown with the sandbox's own ids.
pub(super) const LOW: &str = "/.low";
/// Where a sandbox sees them so.
pub(super) const MAPPED: &str = "/.in";
/// Directories that are shown as they are: what belongs to the host's users stays nobody's.
const SHOWN: &str = "/.shown";
/// In [`LOW`]: the root's own directories. No directory at the top of a root has a name that begins so.
const BASE: &str = ".base";
/// In [`LOW`]: what hides files of the directories there.
const MASK: &str = ".mask";
/// Where the new root is put together.
pub(super) const NEW: &str = "/.new";
pub(super) const LAYERS: &str = "/.layers";
const DATA: &str = "/.data";
pub(super) const DEVICES: &str = "/.dev";

/// The name of the root's own overlay; no directory at the top is taken over from a root by this name.
pub(super) const ROOT: &str = "root";

/// The most directories that are overlays; each costs a sandbox some fifty microseconds.
const OVERLAYS_MAX: usize = 24;

/// Of the host, these may hold what other programs were given to keep, and new files of that kind at any
/// time; so their owners stay nobody's, and the sandbox's root adds to them and changes nothing.
const UNMAPPED: [&str; 2] = ["opt", "nix/store"];

/// Why this root cannot be written on this machine, if so.
pub(super) fn impossible(root: &Root, host: &Host) -> Option<String> {
    if host.ids != Ids::Root {
        return Some("the node is not root".to_owned());
    }
    if let Some(why) = &host.no_writable_root {
        return Some(why.clone());
    }
    if let Some(given) = &root.given {
        return given.no_overlay.clone();
    }
    if !root.is_one_file_system {
        return Some("a file system is mounted below one of its directories".to_owned());
    }
    let usual = |name: &str| {
        name.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._+-/".contains(&b))
    };
    if directories(root).count() + root.var.len() >= OVERLAYS_MAX
        || !root.top.keys().all(|name| usual(name))
    {
        return Some("its directories are too many, or have unusual names".to_owned());
    }
    None
}

fn directories(root: &Root) -> impl Iterator<Item = &String> {
    let is_directory = |(_, entry): &(&String, &Entry)| **entry == Entry::Directory;
    root.top.iter().filter(is_directory).map(|(name, _)| name)
}

/// Each directory of the host that gets an overlay: its name, its path, and whether its ids are mapped.
fn shown(root: &Root) -> impl Iterator<Item = (String, String, bool)> {
    let top = directories(root).map(|name| {
        let mapped = !(root.is_host && UNMAPPED.contains(&name.as_str()));
        (name.replace('/', "-"), format!("/{name}"), mapped)
    });
    let var = root.var.iter().map(|name| {
        let path = format!("/var/{name}");
        (format!(".{}", name.replace('/', "-")), path, true)
    });
    top.chain(var)
}

/// The overlays of a sandbox with this root.
pub(super) fn root(root: &Root) -> jail::plan::Root {
    if root.given.is_some() {
        return given::root();
    }
    let mut overlays = vec![Overlay {
        name: ROOT.to_owned(),
        lower: vec![format!("{MAPPED}/{BASE}")],
        target: String::new(),
    }];
    overlays.extend(shown(root).map(|(name, target, mapped)| {
        let lower = if mapped {
            vec![
                format!("{MAPPED}/{MASK}/{name}"),
                format!("{MAPPED}/{name}"),
            ]
        } else {
            vec![format!("{SHOWN}/{name}")]
        };
        Overlay {
            name,
            lower,
            target,
        }
    }));
    let bind = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    jail::plan::Root {
        lower: LOW.to_owned(),
        mapped: MAPPED.to_owned(),
        layers: LAYERS.to_owned(),
        target: NEW.to_owned(),
        overlays,
        binds: vec![bind(DEVICES, "/dev"), bind(EMPTY_DIR, "/sys")],
    }
}

/// Bytes of `/dev/shm` and of `/run` where the storage is on a disk: what container engines give.
const IN_MEMORY: u64 = 64 << 20;

/// The storage: what is above each overlay, and two places that are never saved.
pub(super) fn data(bytes: u64, root: &jail::plan::Root, on_disk: bool) -> Data {
    let place = |name: String, mode: u32, target: Option<&str>| Place {
        name,
        target: target.map(str::to_owned),
        mode,
        of_user: false,
        memory_bytes: None,
    };
    // Secrets are here, and no disk has them.
    let in_memory = |place: Place| Place {
        memory_bytes: Some(IN_MEMORY),
        ..place
    };
    let mut places = vec![
        in_memory(place(".shm".to_owned(), 0o1777, Some("/dev/shm"))),
        in_memory(place(".run".to_owned(), 0o755, Some("/run"))),
    ];
    for overlay in &root.overlays {
        let name = &overlay.name;
        places.push(place(name.clone(), 0o700, None));
        places.push(place(format!("{name}/{UPPER}"), 0o755, None));
        places.push(place(format!("{name}/{WORK}"), 0o700, None));
    }
    Data {
        target: DATA.to_owned(),
        bytes,
        inodes: tree::inodes(bytes),
        is_handed: on_disk,
        places,
    }
}

/// The launcher's tree for such sandboxes. They see nothing of it but through their overlays and binds.
pub(super) fn tree(root: &Root, devices: &[String], staging: &Path) -> Tree {
    if let Some(given) = &root.given {
        return given::tree(&root.path, given, devices, staging);
    }
    let mut ops = skeleton();
    ops.extend(base());
    for (name, entry) in &root.top {
        let path = format!("{LOW}/{BASE}/{name}");
        match entry {
            Entry::Link(to) => ops.push(Op::Link {
                path,
                to: to.clone(),
            }),
            Entry::Directory => ops.push(dir(&path, 0o755)),
            Entry::File => ops.push(Op::Copy {
                source: root.path.join(name),
                target: path,
            }),
        }
    }
    ops.extend(etc(root));
    for (name, path, mapped) in shown(root) {
        ops.push(dir(&format!("{LOW}/{BASE}{path}"), 0o755));
        let source = root.path.join(path.trim_start_matches('/'));
        let above = if mapped { LOW } else { SHOWN };
        ops.push(Op::Lower {
            source,
            target: format!("{above}/{name}"),
            mask: mapped.then(|| format!("{LOW}/{MASK}/{name}")),
        });
    }
    if directories(root).any(|name| name == "usr") {
        // In the layer above the root's own, whose set-user-id program would gain nothing.
        ops.extend(["bin", "local/bin"].map(|below| Op::Program {
            path: format!("{LOW}/{MASK}/usr/{below}/sudo"),
        }));
        ops.extend(root.lacks_python.then(|| Op::Link {
            path: format!("{LOW}/{MASK}/usr/local/bin/python"),
            to: "/usr/bin/python3".to_owned(),
        }));
    }
    ops.extend(tree::devices(DEVICES, devices));
    ops.push(Op::HostProc {
        target: "/proc".to_owned(),
    });
    Tree {
        staging: staging.to_path_buf(),
        ops,
    }
}

pub(super) fn dir(path: &str, mode: u32) -> Op {
    Op::Dir {
        path: path.to_owned(),
        mode,
    }
}

pub(super) fn skeleton() -> Vec<Op> {
    let mut ops = vec![
        dir(LOW, 0o755),
        dir(MAPPED, 0o755),
        dir(SHOWN, 0o755),
        dir(NEW, 0o755),
        dir(DATA, 0o700),
        dir(&format!("{LOW}/{MASK}"), 0o755),
        dir(
            &format!("{DEVICES}{}", TERMINALS.trim_start_matches("/dev")),
            0o755,
        ),
        dir(&format!("{DEVICES}/shm"), 0o1777),
        dir("/proc", 0o555),
    ];
    ops.extend((0..LAYERS_MAX).map(|at| dir(&format!("{LAYERS}/{at}"), 0o755)));
    ops
}

/// Directories of a root that are nobody's on the host. Of `/var` those that package managers and services
/// expect to be there.
const OWN: [(&str, u32); 26] = [
    ("/dev", 0o755),
    ("/etc", 0o755),
    ("/home", 0o755),
    ("/home/user", 0o755),
    ("/media", 0o755),
    ("/mnt", 0o755),
    ("/opt", 0o755),
    ("/proc", 0o555),
    ("/root", 0o700),
    ("/run", 0o755),
    ("/srv", 0o755),
    ("/sys", 0o555),
    ("/tmp", 0o1777),
    ("/var/backups", 0o755),
    ("/var/cache/apt/archives/partial", 0o700),
    ("/var/cache/debconf", 0o755),
    ("/var/lib/apt/lists/partial", 0o700),
    ("/var/lib/apt/mirrors/partial", 0o755),
    ("/var/lib/misc", 0o755),
    ("/var/lib/pam", 0o755),
    ("/var/local", 0o755),
    ("/var/log/apt", 0o755),
    ("/var/mail", 0o1777),
    ("/var/opt", 0o755),
    ("/var/spool", 0o755),
    ("/var/tmp", 0o1777),
];

fn base() -> Vec<Op> {
    let path = |path: &str| format!("{LOW}/{BASE}{path}");
    let mut ops: Vec<Op> = OWN
        .iter()
        .map(|(name, mode)| dir(&path(name), *mode))
        .collect();
    ops.push(Op::Owner {
        path: path(tree::HOME),
        id: USER,
    });
    for (name, to) in [("/var/run", "/run"), ("/var/lock", "/run/lock")] {
        ops.push(Op::Link {
            path: path(name),
            to: to.to_owned(),
        });
    }
    ops
}

/// Who there is beside the users and groups of the root's own packages.
const PASSWD: [&str; 3] = [
    "root:x:0:0:root:/root:/bin/bash",
    "user:x:1000:1000:user:/home/user:/bin/bash",
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin",
];
const GROUP: [&str; 3] = ["root:x:0:", "user:x:1000:", "nogroup:x:65534:"];
const SHADOW: &str = "root:*:20000:0:99999:7:::\nuser:*:20000:0:99999:7:::\n";

/// What a login shell reads first. A distribution's own starts programs, which costs each command of E2B's
/// clients a millisecond, and the host's may hold what its administrator told the host's users.
const PROFILE: &str = "for i in /etc/profile.d/*.sh; do [ -r \"$i\" ] && . \"$i\"; done; unset i\n";

/// A copy of what the launcher may show of a root's `/etc`, with files of our own in place of those that say
/// who and what there is inside.
fn etc(root: &Root) -> Vec<Op> {
    let all = |ours: &[&str], system: &[String]| -> String {
        let ours = ours.iter().map(|line| format!("{line}\n"));
        ours.chain(system.iter().map(|line| format!("{line}\n")))
            .collect()
    };
    let (group, passwd) = (all(&GROUP, &root.groups), all(&PASSWD, &root.users));
    let synthetic = [
        ("group", &*group, 0o644),
        ("hostname", "sandbox\n", 0o644),
        ("hosts", HOSTS, 0o644),
        ("nsswitch.conf", NSSWITCH, 0o644),
        ("passwd", &*passwd, 0o644),
        ("resolv.conf", tree::RESOLVER, 0o644),
        ("shadow", SHADOW, 0o600),
    ];
    let at = |name: &str| format!("{LOW}/{BASE}/etc/{name}");
    let mut ops = Vec::new();
    // A root that an operator prepared has its own.
    let profile = (!root.etc.contains_key("profile")).then_some(("profile", PROFILE, 0o644));
    if !root.etc.contains_key("profile.d") {
        ops.push(dir(&at("profile.d"), 0o755));
    }
    for (name, content, mode) in synthetic.into_iter().chain(profile) {
        ops.push(Op::File {
            path: at(name),
            mode,
            content: content.as_bytes().to_vec(),
        });
    }
    for (name, entry) in root.etc.iter().chain(&root.etc_more) {
        if synthetic.iter().any(|(ours, _, _)| ours == name) {
            continue;
        }
        ops.push(match entry {
            Entry::Link(to) => Op::Link {
                path: at(name),
                to: to.clone(),
            },
            Entry::Directory | Entry::File => Op::Copy {
                source: root.path.join("etc").join(name),
                target: at(name),
            },
        });
    }
    ops
}

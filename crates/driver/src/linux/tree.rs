//! What a sandbox sees: the tree, its writable places, and what of proc is covered. Pure.

use crate::driver::Mode;
use crate::host::{Entry, Root};
use jail::plan::{Data, Op, Place, Tree};
use std::path::Path;

/// The workload's user and group inside.
pub(super) const USER: u32 = 1000;

/// The directory that a command starts in.
pub(super) const HOME: &str = "/home/user";

/// Where the writable storage is mounted; what is not below it is shown from it.
const DATA: &str = "/home";

/// Files and directories for each MiB of storage, as ext4 does by default.
const INODES_PER_MIB: u64 = 64;
/// A small quota still holds a source tree.
const INODES_MIN: u64 = 4096;

/// Parts of proc that tell about the machine, or change it where a kernel has a hole. Most are root's
/// alone; they are covered all the same.
pub(super) const MASKED: [&str; 18] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/bus",
    "/proc/cmdline",
    "/proc/config.gz",
    "/proc/fs",
    "/proc/interrupts",
    "/proc/irq",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/modules",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/sysrq-trigger",
    "/proc/sysvipc",
    "/proc/timer_list",
];

/// Where the terminals of a sandbox that lives on are.
pub(super) const TERMINALS: &str = "/dev/pts";

/// Parts of proc that may be read and not written.
pub(super) const READ_ONLY: [&str; 1] = ["/proc/sys"];

/// Who there is inside. The numbers of `nobody` are those that the kernel shows for ids it cannot map.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    user:x:1000:1000:user:/home/user:/bin/sh\n\
    nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUP: &str = "root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n";
pub(super) const HOSTS: &str = "127.0.0.1 localhost sandbox\n::1 localhost\n";
pub(super) const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files dns\n";

/// Who answers questions of DNS: [`guest::message::TUN_DNS`] in text. A sandbox without a way out has no route to
/// there, so programs are told at once that nobody answers.
pub(super) const RESOLVER: &str = "nameserver 198.18.0.1\n";

/// Where the files are made that stand in for a root's own.
const OURS: &str = "/.etc";

/// The tree that shows this root's programs.
pub(super) fn tree(root: &Root, devices: &[String], staging: &Path, mode: Mode) -> Tree {
    let mut ops = skeleton();
    if mode != Mode::Job {
        ops.extend(terminals());
    }
    for (name, entry) in &root.top {
        ops.push(show(&root.path, "", name, entry));
    }
    ops.extend(etc(root));
    ops.extend(devices_at("/dev", devices));
    ops.push(Op::HostProc {
        target: "/proc".to_owned(),
    });
    Tree {
        staging: staging.to_path_buf(),
        ops,
    }
}

/// The device files that there are, and the links that programs expect beside them.
fn devices_at(at: &str, devices: &[String]) -> Vec<Op> {
    let device = |name: &String| Op::Device {
        source: format!("/dev/{name}"),
        target: format!("{at}/{name}"),
    };
    let mut ops: Vec<Op> = devices.iter().map(device).collect();
    for (name, to) in [
        ("fd", "fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
    ] {
        ops.push(Op::Link {
            path: format!("{at}/{name}"),
            to: format!("/proc/self/{to}"),
        });
    }
    ops
}

/// All of `/dev` of a sandbox that lives on, made elsewhere in the tree.
pub(super) fn devices(at: &str, devices: &[String]) -> Vec<Op> {
    let mut ops = devices_at(at, devices);
    ops.push(Op::Link {
        path: format!("{at}/ptmx"),
        to: "pts/ptmx".to_owned(),
    });
    ops.push(Op::Device {
        source: "/dev/tty".to_owned(),
        target: format!("{at}/tty"),
    });
    ops
}

/// The places of terminals. `/dev/tty` is whichever terminal its opener lives on.
fn terminals() -> [Op; 3] {
    [
        Op::Dir {
            path: TERMINALS.to_owned(),
            mode: 0o755,
        },
        Op::Link {
            path: "/dev/ptmx".to_owned(),
            to: "pts/ptmx".to_owned(),
        },
        Op::Device {
            source: "/dev/tty".to_owned(),
            target: "/dev/tty".to_owned(),
        },
    ]
}

fn show(root: &Path, below: &str, name: &str, entry: &Entry) -> Op {
    let target = format!("{below}/{name}");
    match entry {
        Entry::Link(to) => Op::Link {
            path: target,
            to: to.clone(),
        },
        Entry::Directory | Entry::File => {
            let source = root.join(target.trim_start_matches('/'));
            Op::Bind { source, target }
        }
    }
}

/// Directories that must be there before anything is mounted on them; the tree is read-only then.
fn skeleton() -> Vec<Op> {
    let dir = |path: &str, mode: u32| Op::Dir {
        path: path.to_owned(),
        mode,
    };
    vec![
        dir("/dev", 0o755),
        dir("/dev/shm", 0o1777),
        dir("/etc", 0o755),
        dir("/home", 0o755),
        dir("/proc", 0o555),
        dir("/root", 0o700),
        dir("/run", 0o755),
        dir("/sys", 0o555),
        dir("/tmp", 0o1777),
        dir("/var/tmp", 0o1777),
    ]
}

/// Who and what there is inside is ours, whatever the root says. Of the host's `/etc` only the listed
/// entries are shown; a root file system's own is shown whole, with ours over it.
fn etc(root: &Root) -> Vec<Op> {
    let (group, passwd) = match &root.given {
        Some(given) => (&*given.group, &*given.passwd),
        None => (GROUP, PASSWD),
    };
    let synthetic = [
        ("group", group),
        ("hostname", "sandbox\n"),
        ("hosts", HOSTS),
        ("nsswitch.conf", NSSWITCH),
        ("passwd", passwd),
        ("resolv.conf", RESOLVER),
    ];
    let file = |path: String, content: &str| Op::File {
        path,
        mode: 0o444,
        content: content.as_bytes().to_vec(),
    };
    let mut ops = Vec::new();
    for (name, content) in synthetic {
        ops.push(file(format!("{OURS}/{name}"), content));
    }
    for (name, entry) in &root.etc {
        if !synthetic.iter().any(|(ours, _)| ours == name) {
            ops.push(show(&root.path, "/etc", name, entry));
        }
    }
    for (name, _) in synthetic {
        ops.push(Op::Link {
            path: format!("/etc/{name}"),
            to: format!("{OURS}/{name}"),
        });
    }
    ops
}

/// The home of the sandbox's root, where processes may be asked for as that.
const ROOT_HOME: &str = "/root";

pub(super) fn inodes(bytes: u64) -> u64 {
    (bytes >> 20).saturating_mul(INODES_PER_MIB).max(INODES_MIN)
}

/// Everything that a sandbox can write: one tmpfs of `bytes`, shown in several places.
pub(super) fn data(bytes: u64, mode: Mode) -> Data {
    let place = |name: &str, target: Option<&str>, mode: u32| Place {
        name: name.to_owned(),
        target: target.map(str::to_owned),
        mode,
        of_user: false,
        memory_bytes: None,
    };
    let mut places = vec![
        Place {
            of_user: true,
            ..place("user", None, 0o755)
        },
        // Not to be reached by this name, only by the places where they are shown.
        place(".d", None, 0o700),
        place(".d/tmp", Some("/tmp"), 0o1777),
        place(".d/vartmp", Some("/var/tmp"), 0o1777),
        place(".d/shm", Some("/dev/shm"), 0o1777),
    ];
    if mode == (Mode::Live { allow_root: true }) {
        places.push(place(".d/root", Some(ROOT_HOME), 0o700));
    }
    Data {
        target: DATA.to_owned(),
        bytes,
        inodes: inodes(bytes),
        is_handed: false,
        places,
    }
}

/// What Landlock leaves open. The tree holds only what may be read, so reading is open in all of it;
/// writing is open where there is something to write, whatever becomes of the mounts. In a root that can
/// be written that is everywhere: directories that are made later are written too, and no rule can
/// name them; mounts and owners are what holds there.
pub(super) fn landlock(mode: Mode, writable: bool) -> guest::message::Landlock {
    let mut devices = vec![
        "/dev/null",
        "/dev/zero",
        "/dev/full",
        "/dev/random",
        "/dev/urandom",
    ];
    if mode != Mode::Job {
        devices.extend([TERMINALS, "/dev/tty"]);
    }
    let mut write = vec![HOME, "/tmp", "/var/tmp", "/dev/shm"];
    if mode == (Mode::Live { allow_root: true }) {
        write.push(ROOT_HOME);
    }
    if writable {
        write = vec!["/"];
    }
    let strings = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    guest::message::Landlock {
        read: strings(&["/"]),
        write: strings(&write),
        devices: strings(&devices),
    }
}

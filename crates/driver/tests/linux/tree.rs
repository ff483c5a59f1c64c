//! The private tree: what is there, and that it can be read and not changed.

use crate::probe;
use crate::world::{DEFAULTS, World};
use driver::conformance::{command, spec};
use driver::host::{DEVICES, Entry};
use std::collections::{BTreeMap, BTreeSet};

/// What a sandbox brings itself.
const OWN: [&str; 11] = [
    ".empty", ".etc", "dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "var",
];

/// What can be written, all of it on one tmpfs.
const WRITABLE: [&str; 4] = ["/home", "/tmp", "/var/tmp", "/dev/shm"];

/// What of proc is covered, where this kernel has it.
const MASKED: [&str; 18] = [
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

fn exists(path: &str) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

/// Attack: Files of the host are looked for in the sandbox.
#[tokio::test]
async fn nothing_of_the_host_is_there_but_its_programs() {
    let world = world!();
    let mut expected: BTreeSet<&str> = OWN.into();
    // Of some only what is below is shown.
    let top = world.host.root.top.keys();
    expected.extend(top.filter_map(|name| name.split('/').next()));
    // What is mounted on the root is found by going up from it: that is where an old root would be.
    for way in [
        "ls -A /",
        "ls -A /..",
        "cd /; cd ..; ls -A",
        "ls -A /proc/self/root/..",
    ] {
        let seen = world.sh(way).await;
        let seen: BTreeSet<&str> = seen.lines().collect();
        assert_eq!(seen, expected, "{way}");
    }
}

/// Attack: Homes, keys and states of the host are opened by their paths.
#[tokio::test]
async fn files_of_people_and_of_the_machine_are_not_reached() {
    let world = world!();
    let canary = world.dir.path().join("canary");
    std::fs::write(&canary, "of the host").unwrap();
    let canary = canary.display();
    let script = format!(
        "for f in {canary} /..{canary} /proc/self/root{canary} /etc/shadow /etc/gshadow \
         /etc/sudoers /root/.ssh /root/.bashrc ~/.ssh /home/*/.ssh /boot /var/log /var/lib /srv \
         /mnt /run/* /sys/*; do [ -e \"$f\" ] && echo \"$f\"; done; true"
    );
    assert_eq!(world.sh(&script).await, "");
    // The names of the host's people are not there either.
    assert_eq!(
        world.sh("cut -d: -f1,3 /etc/passwd").await,
        "root:0\nuser:1000\nnobody:65534\n"
    );
}

/// Covered by an id of the sandbox's own.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A line of `/proc/self/mountinfo`, see `proc(5)`.
#[derive(Debug)]
struct Mount {
    point: String,
    options: BTreeSet<String>,
    kind: String,
}

impl Mount {
    fn has(&self, option: &str) -> bool {
        self.options.contains(option)
    }
}

async fn mounts(world: &World) -> Vec<Mount> {
    let text = world.sh("cat /proc/self/mountinfo").await;
    let parse = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(4);
        Some(Mount {
            point: left.next()?.to_owned(),
            options: left.next()?.split(',').map(str::to_owned).collect(),
            kind: right.split(' ').next()?.to_owned(),
        })
    };
    text.lines().filter_map(parse).collect()
}

/// Everything that may be mounted in a default sandbox. What is mounted below a directory of the
/// host is shown with it.
fn expected_mounts(world: &World) -> (BTreeSet<String>, Vec<String>) {
    let root = &world.host.root;
    let real =
        |(name, entry): (&String, &Entry)| (!matches!(entry, Entry::Link(_))).then(|| name.clone());
    let top: Vec<String> = root
        .top
        .iter()
        .filter_map(real)
        .map(|n| format!("/{n}"))
        .collect();
    let etc = root
        .etc
        .iter()
        .filter_map(real)
        .map(|name| format!("/etc/{name}"));
    let devices = world.host.devices.iter().map(|name| format!("/dev/{name}"));
    let masked = MASKED.iter().filter(|path| exists(path));
    let mut all: BTreeSet<String> = ["/", "/proc", "/proc/sys", BOOT_ID]
        .map(str::to_owned)
        .into();
    all.extend(WRITABLE.map(str::to_owned));
    all.extend(masked.map(|path| (*path).to_owned()));
    all.extend(top.iter().cloned().chain(etc).chain(devices));
    (all, top)
}

#[tokio::test]
async fn only_what_was_planned_is_mounted_and_most_of_it_read_only() {
    let world = world!();
    let (expected, top) = expected_mounts(&world);
    let mounts = mounts(&world).await;
    let points: BTreeSet<String> = mounts.iter().map(|mount| mount.point.clone()).collect();
    let below = |point: &String| top.iter().any(|dir| point.starts_with(&format!("{dir}/")));
    let strange: Vec<_> = points.difference(&expected).filter(|p| !below(p)).collect();
    let missing: Vec<_> = expected.difference(&points).collect();
    assert!(
        strange.is_empty() && missing.is_empty(),
        "{strange:?}, {missing:?}"
    );
    // The last one at a place is the one that is seen: proc covers the one that lets it be mounted.
    let seen: BTreeMap<&str, &Mount> = mounts.iter().map(|m| (&*m.point, m)).collect();
    for mount in seen.into_values() {
        let writable = WRITABLE.contains(&&*mount.point);
        let proc = mount.kind == "proc";
        let device = mount.point.starts_with("/dev/") && !writable;
        assert!(mount.has("nosuid"), "{mount:?}");
        assert!(mount.has("nodev") || device, "{mount:?}");
        assert!(mount.has("noexec") || !(device || proc), "{mount:?}");
        assert!(
            mount.has("ro") || writable || mount.point == "/proc",
            "{mount:?}"
        );
        assert!(!writable || mount.kind == "tmpfs", "{mount:?}");
    }
}

#[tokio::test]
async fn a_root_that_anybody_may_write_outside_is_read_only_inside() {
    const READ_ONLY: &str = "30";
    let world = world!();
    let mut spec = spec(DEFAULTS);
    spec.root = Some(probe::root(&world));
    // Without Landlock, which would refuse it before the mounts are asked.
    let mut prepared = world.start(&spec, |confine| confine.landlock = None).await;
    let argv = [
        "/bin/probe",
        "make",
        "/open/new",
        "/open/file",
        "/etc/new",
        "/new",
        "/tmp/new",
    ];
    let answers = probe::run(&mut prepared, &argv).await;
    assert_eq!(answers[..2], [READ_ONLY, READ_ONLY]);
    // Those belong to nobody inside, or to the only user that there is.
    assert!(
        answers[2..4].iter().all(|answer| answer != "0"),
        "{answers:?}"
    );
    assert_eq!(answers[4], "0");
    world.destroy(&prepared).await;
    let file = world.dir.path().join("root/open/file");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "as it was");
}

/// Attack: A program writes, links, renames and removes wherever it can name a path.
#[tokio::test]
async fn nothing_outside_the_writable_places_can_be_made_or_changed() {
    let world = world!();
    let script = "for d in / /bin /dev /etc /etc/ssl /home /lib /proc /proc/self /proc/sys/kernel /root \
                  /run /sbin /sys /usr /usr/bin /usr/local /var /.etc /.empty /.empty/dir; do \
                  (: > $d/new) 2>/dev/null && echo $d; mkdir $d/dir 2>/dev/null && echo $d; done; \
                  for f in /etc/passwd /etc/hosts /.etc/group /.empty/file /bin/sh /proc/sys/kernel/hostname \
                  /proc/sysrq-trigger /proc/1/oom_score_adj; do (: >> $f) 2>/dev/null && echo $f; done; \
                  for f in /etc/passwd /bin/sh /usr /dev/null /tmp /home/user; do \
                  rm -rf $f 2>/dev/null; mv $f /tmp/moved 2>/dev/null; [ -e $f ] || echo $f; done; true";
    assert_eq!(world.sh(script).await, "");
}

/// Attack: Disks, memory and consoles of the host are opened as devices.
#[tokio::test]
async fn only_devices_that_lead_nowhere_are_there() {
    let world = world!();
    let names = DEVICES
        .iter()
        .filter(|name| exists(&format!("/dev/{name}")));
    let mut expected: BTreeSet<&str> = names.copied().collect();
    let kinds = world
        .sh("cd /dev; for d in *; do [ -c $d ] && echo $d; done; true")
        .await;
    let std = ["stdin", "stdout", "stderr", "fd", "shm"];
    let kinds: BTreeSet<&str> = kinds.lines().filter(|name| !std.contains(name)).collect();
    assert_eq!(kinds, expected);
    expected.extend(std);
    let seen = world.sh("ls -A /dev").await;
    assert_eq!(seen.lines().collect::<BTreeSet<&str>>(), expected);
    let blocks = world
        .sh("find / -path /proc -prune -o -type b -print 2>/dev/null; true")
        .await;
    assert_eq!(blocks, "");
    let made = "mknod /tmp/null c 1 3; mknod /tmp/disk b 8 0; ls -A /tmp";
    let ran = world.run(DEFAULTS, &["sh", "-c", made]).await;
    assert_eq!(ran.stdout, b"", "{ran:?}");
    // They work, all the same.
    let used = "echo x > /dev/null && head -c 4 /dev/zero /dev/urandom >/dev/null && echo y";
    assert_eq!(world.sh(used).await, "y\n");
}

/// Attack: `/proc` and `/sys` are read and written for what they say of the machine and do to it.
#[tokio::test]
async fn what_proc_and_sys_tell_about_the_machine_is_covered() {
    let world = world!();
    let present: Vec<&str> = MASKED.into_iter().filter(|path| exists(path)).collect();
    assert!(!present.is_empty());
    let script = "for f in \"$@\"; do [ -d $f ] && ls -A $f || cat $f; done; ls -A /sys";
    let argv = [&["sh", "-c", script, "sh"], &present[..]].concat();
    let mut prepared = world.sandbox(DEFAULTS).await;
    let ran = prepared.run(command(&argv)).await.unwrap();
    assert_eq!(
        (ran.exited.code, &*ran.stdout, &*ran.stderr),
        (Some(0), &b""[..], &b""[..])
    );
    world.destroy(&prepared).await;
}

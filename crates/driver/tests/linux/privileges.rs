//! What the workload and its guest may still do: nothing, and four things.

use crate::outside::{guest_and_launcher, line, link, status};
use crate::probe;
use crate::world::DEFAULTS;
use driver::conformance::spec;
use driver::host::Ids;

/// What the guest keeps to start the workload and to end it: KILL, SETGID, SETUID, SETPCAP.
const GUEST: &str = "00000000000001e0";
const NONE: &str = "0000000000000000";

/// Attack: A capability is used, kept or gained.
#[tokio::test]
async fn the_workload_has_no_capability_and_can_gain_none() {
    let world = world!();
    let ran = world.run(DEFAULTS, &["cat", "/proc/self/status"]).await;
    let status = String::from_utf8(ran.stdout).unwrap();
    for (key, value) in [
        ("NoNewPrivs", "1"),
        ("CapInh", NONE),
        ("CapPrm", NONE),
        ("CapEff", NONE),
        ("CapBnd", NONE),
        ("CapAmb", NONE),
        ("Seccomp", "2"),
        ("Seccomp_filters", "1"),
        ("Uid", "1000\t1000\t1000\t1000"),
        ("Gid", "1000\t1000\t1000\t1000"),
        ("SigBlk", NONE),
        ("TracerPid", "0"),
    ] {
        assert_eq!(line(&status, key), value, "{key}");
    }
}

/// Modes come out again with the files that are kept.
#[tokio::test]
async fn the_workload_has_an_ordinary_umask() {
    let world = world!();
    let made = world.sh("umask; mkdir d; : > f; stat -c %a d f").await;
    assert_eq!(made, "0022\n755\n644\n");
}

/// What is ignored stays ignored through every `exec`, so `nohup cofferdam up` must not be noticed.
#[tokio::test]
async fn a_signal_that_the_node_ignores_is_not_ignored_by_the_workload() {
    const NAME: &str = "privileges::a_signal_that_the_node_ignores_is_not_ignored_by_the_workload";
    const AGAIN: &str = "trap '' HUP INT QUIT TERM USR1; exec \"$0\" --exact \"$1\" --nocapture";
    let world = world!();
    if std::env::var_os("IGNORING").is_none() {
        let own = std::env::current_exe().unwrap();
        let mut again = crate::outside::program("sh");
        again.args(["-c", AGAIN]).arg(own).arg(NAME);
        let again = again.env("IGNORING", "1").output().unwrap();
        assert!(again.status.success(), "{again:?}");
        return;
    }
    let ran = world.run(DEFAULTS, &["cat", "/proc/self/status"]).await;
    let status = String::from_utf8(ran.stdout).unwrap();
    let ignored = u64::from_str_radix(&line(&status, "SigIgn"), 16).unwrap();
    // The C library keeps the first two real-time signals for itself.
    assert_eq!(ignored & 0x7fff_ffff, 0, "{ignored:x}");
}

#[tokio::test]
async fn the_guest_keeps_four_capabilities_over_its_own_namespace() {
    let world = world!();
    let status = world.sh("cat /proc/1/status").await;
    for (key, value) in [
        ("NoNewPrivs", "1"),
        ("CapInh", GUEST),
        ("CapPrm", GUEST),
        ("CapEff", GUEST),
        ("CapBnd", GUEST),
        ("CapAmb", GUEST),
    ] {
        assert_eq!(line(&status, key), value, "{key}");
    }
}

#[tokio::test]
async fn the_workload_is_the_user_of_the_sandbox_and_in_no_other_group() {
    let world = world!();
    let id = world.sh("id").await;
    assert_eq!(id, "uid=1000(user) gid=1000(user) groups=1000(user)\n");
}

#[tokio::test]
async fn outside_the_workload_is_nobody_unless_there_is_only_one_id() {
    let world = world!();
    let live = world.live(DEFAULTS, "echo ready; exec sleep 30").await;
    let processes = crate::outside::processes_in(&live.pid_ns);
    let id = |pid: i32, key: &str| -> u32 {
        let ids = status(pid, key).unwrap_or_default();
        ids.split_whitespace()
            .next()
            .and_then(|id| id.parse().ok())
            .unwrap()
    };
    let (uid, gid) = (id(processes[1], "Uid"), id(processes[1], "Gid"));
    match world.host.ids {
        // Above every user and every range that distributions hand out.
        Ids::Root => assert!(uid >= 0x1000_0000 && gid >= 0x1000_0000, "{uid} {gid}"),
        Ids::Subordinate {
            uid: first,
            gid: first_gid,
            ..
        } => {
            assert_eq!((uid, gid), (first + 1000, first_gid + 1000));
        }
        Ids::Single => assert_eq!((uid, gid), (world.host.uid, world.host.gid)),
    }
    if world.host.ids != Ids::Single {
        assert_ne!(
            uid,
            id(processes[0], "Uid"),
            "the guest has the user of the workload"
        );
    }
}

/// Attack: A set-user-id program is started to become its owner.
#[tokio::test]
async fn a_set_user_id_program_gains_nothing() {
    let world = world!();
    let mut spec = spec(DEFAULTS);
    spec.root = Some(probe::root(&world));
    let mut prepared = world.start(&spec, |_| {}).await;
    let answers = probe::run(&mut prepared, &["/bin/probe", "ids"]).await;
    assert_eq!(answers, ["1000 1000"]);
    world.destroy(&prepared).await;
}

#[tokio::test]
async fn resource_limits_are_in_force() {
    let world = world!();
    let limits = model::spec::AskedLimits {
        pids: Some(77),
        ..DEFAULTS
    };
    let ran = world.run(limits, &["cat", "/proc/self/limits"]).await;
    let text = String::from_utf8(ran.stdout).unwrap();
    let files = world.host.open_files_max.min(4096).to_string();
    for (name, value) in [
        ("Max processes", "77"),
        ("Max open files", &*files),
        ("Max locked memory", "65536"),
        ("Max msgqueue size", "819200"),
        ("Max nice priority", "0"),
        ("Max realtime priority", "0"),
    ] {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let values = line.unwrap_or_default().split_whitespace();
        assert_eq!(values.take(2).collect::<Vec<_>>(), [value, value], "{name}");
    }
}

/// Attack: A core dump starts the handler of the host, as root and outside.
///
/// A limit of 0 does not keep the kernel from starting a handler that `core_pattern` names, which runs
/// as root of the machine on what the workload has left for it. A limit of 1 does; see `core(5)` for
/// the one and `do_coredump` in the kernel for the other.
#[tokio::test]
async fn a_crash_starts_no_handler_on_the_host() {
    let world = world!();
    let script = "(ulimit -c 0) 2>/dev/null && echo lowered; (ulimit -S -c 0) 2>/dev/null && \
                  echo lowered; grep core /proc/self/limits | tr -s ' ' | cut -d' ' -f5,6";
    assert_eq!(world.sh(script).await, "1 1\n");
}

/// Attack: A descriptor that somebody left open is looked for and used.
#[tokio::test]
async fn nothing_is_inherited_but_three_streams() {
    let world = world!();
    // Open in this process, and not to be closed by an `exec`.
    let canary = world.dir.path().join("canary");
    std::fs::write(&canary, "").unwrap();
    let flags = rustix::fs::OFlags::RDONLY;
    let _open = rustix::fs::open(&canary, flags, rustix::fs::Mode::empty()).unwrap();
    let script = "for f in /proc/self/fd/*; do [ -e $f ] && echo ${f##*/}; done; \
                  readlink /proc/self/fd/0; echo ready; sleep 30";
    let mut live = world.live(DEFAULTS, script).await;
    live.until("0\n1\n2\n/dev/null\nready\n").await;
    let (guest, launcher) = guest_and_launcher(&live.pid_ns);
    let canary = canary.display().to_string();
    let mut processes = crate::outside::processes_in(&live.pid_ns);
    processes.push(launcher);
    // What proc says about the descriptors of other users is for root alone.
    processes.retain(|pid| *pid == launcher || world.host.uid == 0);
    for pid in processes {
        let open = crate::outside::descriptors(pid);
        assert!(!open.contains(&canary), "{pid}: {open:?}");
        let own = |fd: &String| {
            fd == "/dev/null"
                || fd.ends_with("/tasks")
                || fd.ends_with("/cgroup.procs")
                || fd.ends_with("/.boot_id (deleted)")
                || ["socket:", "pipe:", "anon_inode:[signalfd]"]
                    .iter()
                    .any(|kind| fd.starts_with(kind))
        };
        assert!(pid != guest || open.iter().all(own), "the guest: {open:?}");
    }
}

/// Attack: The environment of the node is looked for in that of the workload.
#[tokio::test]
async fn the_environment_is_what_was_asked_for_and_nothing_else() {
    let world = world!();
    let ran = world.run(DEFAULTS, &["/usr/bin/env"]).await;
    assert_eq!(ran.stdout, b"PATH=/usr/local/bin:/usr/bin:/bin\n");
    let live = world.live(DEFAULTS, "echo ready; sleep 30").await;
    let (guest, launcher) = guest_and_launcher(&live.pid_ns);
    let environ = |pid: i32| std::fs::read(format!("/proc/{pid}/environ"));
    assert_eq!(environ(launcher).unwrap(), b"");
    // What proc says about the guest is for root alone.
    if world.host.uid == 0 {
        assert_eq!(environ(guest).unwrap(), b"");
    }
    // Nor is it in the session of whoever started it, whose terminal could signal it.
    assert_eq!(status(launcher, "NSsid"), Some(launcher.to_string()));
    assert_eq!(link(launcher, "cwd").as_deref(), Some("/"));
    assert_eq!(link(guest, "cwd").as_deref(), Some("/"));
}

/// Attack: Another user of the machine connects to the sockets of sandboxes, or reads their directories.
#[tokio::test]
async fn the_sockets_and_directories_of_the_driver_are_for_its_user_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = world!();
    let live = world.live(DEFAULTS, "echo ready; sleep 30").await;
    let state = world.dir.path().join("state");
    let own = state
        .join("sandboxes")
        .join(live.prepared.plan.handle.id.as_str());
    assert!(own.join("guest.sock").exists());
    for dir in [
        &state,
        &state.join("sandboxes"),
        &state.join("staging"),
        &own,
    ] {
        let mode = std::fs::metadata(dir).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", dir.display());
    }
}

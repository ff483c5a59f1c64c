//! A guest that the workload cannot kill, trace, starve or impersonate.

use crate::outside::{guest_and_launcher, has_controller, processes_in, status};
use crate::probe::{self, INSIDE};
use crate::world::{DEFAULTS, Live, PATIENCE, put, say};
use driver::conformance::{Prepared, command};
use driver::driver::Driver as _;
use driver::guest::Incoming;
use driver::guest::message::{FromGuest, ToGuest};
use driver::host::Ids;
use model::spec::AskedLimits;
use std::time::{Duration, Instant};

/// Asks the guest for a file that is not there, and waits until it says so.
async fn answers(prepared: &mut Prepared) -> Duration {
    let asked = Instant::now();
    let missing = ToGuest::Get {
        path: "/nothing".to_owned(),
        max_bytes: 1,
    };
    say(prepared, &missing).await;
    loop {
        let next = tokio::time::timeout(PATIENCE, prepared.reader.next()).await;
        let next = next.expect("a guest that answers").expect("a guest");
        if matches!(next, Incoming::Message(FromGuest::FileFailed { .. })) {
            return asked.elapsed();
        }
    }
}

/// Attack: The guest is killed or stopped from inside.
#[tokio::test]
async fn no_signal_of_the_workload_reaches_the_guest() {
    let world = world!();
    let script = "for s in KILL TERM STOP INT SEGV HUP USR1 CHLD; do kill -$s 1; done 2>/dev/null; \
                  sleep 30 & kill -9 -1; wait $!; echo $?; echo ready; sleep 30";
    let mut live = world.live(DEFAULTS, script).await;
    // The shell's own child was killed, so it was no empty threat.
    live.until("137\nready\n").await;
    let (guest, _) = guest_and_launcher(&live.pid_ns);
    let state = status(guest, "State").unwrap();
    assert!(state.starts_with('S') || state.starts_with('R'), "{state}");
    answers(&mut live.prepared).await;
}

/// Attack: The guest is traced (ptrace), and its memory, descriptors and environment are read by `/proc`.
#[tokio::test]
async fn the_guest_can_be_neither_traced_nor_read() {
    let world = world!();
    let script = "for f in mem maps environ auxv stack syscall io personality smaps pagemap \
                  clear_refs timerslack_ns; do cat /proc/1/$f && echo $f; done 2>/dev/null; \
                  for f in cwd root exe ns/pid fd/3; do readlink /proc/1/$f && echo $f; done 2>/dev/null; \
                  ls /proc/1/fd /proc/1/map_files /proc/1/task/1/fd 2>/dev/null; \
                  for f in mem oom_score_adj comm coredump_filter autogroup; do \
                  (: >> /proc/1/$f) 2>/dev/null && echo wrote $f; done; true";
    assert_eq!(world.sh(script).await, "");
}

/// What proc says about a process that may not be traced belongs to the root of its namespace, or of
/// the machine where the namespace has none. So only where there is one user does this tell.
#[tokio::test]
async fn the_guest_is_not_dumpable_and_the_workload_is() {
    let world = world!();
    let owners = world
        .sh("stat -c %u /proc/1/status /proc/self/status")
        .await;
    let single = world.host.ids == Ids::Single;
    let expected = if single { "65534\n1000\n" } else { "0\n1000\n" };
    assert_eq!(owners, expected);
}

/// Attack: The socket by which the node speaks to the guest is looked for, to speak in its place.
#[tokio::test]
async fn the_guests_socket_is_nowhere_inside() {
    let world = world!();
    let script = "tail -n +2 /proc/net/unix; find / -path /proc -prune -o -type s -print 2>/dev/null; \
                  for f in /proc/self/fd/* /proc/[0-9]*/fd/*; do readlink $f; done 2>/dev/null \
                  | grep socket; true";
    assert_eq!(world.sh(script).await, "");
}

/// Attack: A fork bomb beside a program that takes all memory.
#[tokio::test]
async fn a_fork_bomb_and_a_memory_hog_do_not_starve_the_guest() {
    let world = world!();
    let mut bombs = vec!["0"];
    // Without a memory limit a hog would be the machine's, and nobody has promised otherwise.
    if has_controller(&world.host, "memory") {
        bombs.push("4");
    }
    for mebibytes in bombs {
        let limits = AskedLimits {
            pids: Some(48),
            memory_bytes: (mebibytes != "0").then_some(48 << 20),
            ..DEFAULTS
        };
        let mut prepared = world.sandbox(limits).await;
        put(&mut prepared, INSIDE, &probe::build(world.dir.path())).await;
        let script = format!("exec {INSIDE} bomb {mebibytes}");
        let mut live = Live::start(prepared, &script).await;
        let (guest, _) = guest_and_launcher(&live.pid_ns);
        let mut hit = false;
        for _ in 0..100 {
            let took = answers(&mut live.prepared).await;
            assert!(took < Duration::from_secs(5), "{mebibytes}: {took:?}");
            let inside = processes_in(&live.pid_ns);
            assert!(
                inside.len() <= 49 && inside.first() == Some(&guest),
                "{inside:?}"
            );
            let counted = world
                .linux
                .counted(&live.prepared.plan.handle)
                .await
                .unwrap();
            hit |= inside.len() >= 47 || counted.out_of_memory;
        }
        assert!(hit, "{mebibytes}: no limit was reached");
        world.destroy(&live.prepared).await;
    }
}

/// What the workload uses up is not the guest's: that one is in none of the groups.
#[tokio::test]
async fn the_guest_is_outside_the_control_groups_of_the_workload() {
    let world = world!();
    let live = world.live(DEFAULTS, "echo ready; sleep 30").await;
    let handle = &live.prepared.plan.handle;
    let groups = crate::outside::groups(&world.host, &handle.id).len();
    let inside = processes_in(&live.pid_ns);
    let joined = |pid: &i32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let own = |line: &&str| line.ends_with(handle.id.as_str());
        text.lines().filter(own).count()
    };
    let joined: Vec<usize> = inside.iter().map(joined).collect();
    assert_eq!(joined[0], 0);
    // One line tells of two controllers where a hierarchy has two.
    assert!(
        joined[1..].iter().all(|n| *n == groups),
        "{joined:?}, {groups}"
    );
}

/// Attack: A log bomb: output without end that nobody reads.
#[tokio::test]
async fn a_flood_of_output_is_bounded_by_the_guest_until_somebody_takes_it() {
    let world = world!();
    let mut prepared = world.sandbox(DEFAULTS).await;
    let flood = command(&["sh", "-c", "echo ready >&2; exec cat /dev/zero"]);
    say(&mut prepared, &ToGuest::Start(flood)).await;
    // Nothing is acknowledged, so a window comes, and what the other stream has, and then no more.
    let window = driver::guest::message::WINDOW;
    let mut taken = 0;
    loop {
        let patience = if taken < window {
            PATIENCE
        } else {
            Duration::from_millis(300)
        };
        match tokio::time::timeout(patience, prepared.reader.next()).await {
            Ok(Ok(Incoming::Output(_, bytes))) => taken += bytes.len(),
            Ok(next) => assert!(matches!(next, Ok(Incoming::Message(_))), "{next:?}"),
            Err(_) => break,
        }
    }
    assert!((window..=window + 6).contains(&taken), "{taken}");
    answers(&mut prepared).await;
    world.destroy(&prepared).await;
}

#[tokio::test]
async fn the_guest_is_another_user_where_there_is_one() {
    let world = world!();
    let uid = world
        .sh("sed -n 's/^Uid:.//p' /proc/1/status | cut -f1")
        .await;
    let single = world.host.ids == Ids::Single;
    assert_eq!(uid, if single { "1000\n" } else { "0\n" });
}

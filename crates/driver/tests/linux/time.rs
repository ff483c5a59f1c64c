//! The end of a command by the clock, and of everything that it started.

use crate::outside::processes_in;
use crate::world::{DEFAULTS, Live, say, until};
use driver::conformance::{command, spec};
use driver::driver::{Driver as _, Ended};
use driver::guest::message::{Start, ToGuest};
use std::time::Duration;

fn timed(script: &str, timeout_ms: u64, grace_ms: u64) -> Start {
    let script = format!("readlink /proc/self/ns/pid; {script}");
    Start {
        timeout_ms,
        grace_ms,
        ..command(&["sh", "-c", &script])
    }
}

/// Ignores SIGTERM, and so do a grandchild in a session of its own, one that was left by its parent, and
/// one that is stopped.
const STUBBORN: &str = "trap '' TERM; (setsid sh -c 'while :; do sleep 1; done' &) ; \
                        (while :; do sleep 1; done) & sh -c 'kill -STOP $$' & \
                        echo ready; while :; do sleep 1; done";

#[tokio::test]
async fn everything_gets_sigterm_first_and_may_end_by_itself() {
    let world = world!();
    let script = "(trap 'echo child; exit' TERM; while :; do sleep 0.05; done) & \
                  trap 'wait; echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    let prepared = world.sandbox(DEFAULTS).await;
    let mut live = Live::start_with(prepared, timed(script, 1500, 20_000)).await;
    let (exited, output) = live.end().await;
    assert!(exited.timed_out && exited.code == Some(7), "{exited:?}");
    assert!(output.ends_with("ready\nchild\nbye\n"), "{output}");
    assert!((1500..20_000).contains(&exited.wall_ms), "{exited:?}");
}

/// Attack: A daemon, in a session of its own, outlives its command.
#[tokio::test]
async fn after_the_grace_everything_is_killed_daemons_included() {
    let world = world!();
    let prepared = world.sandbox(DEFAULTS).await;
    let mut live = Live::start_with(prepared, timed(STUBBORN, 1200, 500)).await;
    let (exited, _) = live.end().await;
    assert!(exited.timed_out, "{exited:?}");
    assert_eq!(exited.signal, Some(libc::SIGKILL), "{exited:?}");
    assert!((1700..15_000).contains(&exited.wall_ms), "{exited:?}");
    assert_eq!(
        processes_in(&live.pid_ns).len(),
        1,
        "only the guest is left"
    );
}

#[tokio::test]
async fn stopping_is_term_grace_and_kill_as_well() {
    let world = world!();
    let prepared = world.sandbox(DEFAULTS).await;
    let mut live = Live::start_with(prepared, timed(STUBBORN, 60_000, 60_000)).await;
    say(&mut live.prepared, &ToGuest::Stop { grace_ms: 200 }).await;
    let (exited, _) = live.end().await;
    assert_eq!(
        (exited.timed_out, exited.signal),
        (false, Some(libc::SIGKILL)),
        "{exited:?}"
    );
    assert_eq!(
        processes_in(&live.pid_ns).len(),
        1,
        "only the guest is left"
    );
}

#[tokio::test]
async fn what_a_command_leaves_behind_ends_with_it() {
    let world = world!();
    let script = "(setsid sh -c 'trap \"\" TERM; : > up; while :; do sleep 1; done' &) ; \
                  until [ -e up ]; do sleep 0.02; done; echo ready; echo end";
    let prepared = world.sandbox(DEFAULTS).await;
    let mut live = Live::start_with(prepared, timed(script, 20_000, 20_000)).await;
    let (exited, output) = live.end().await;
    assert!(output.ends_with("end\n"), "{output}");
    assert_eq!((exited.code, exited.timed_out), (Some(0), false));
    assert!(exited.left_behind >= 1, "{exited:?}");
    assert_eq!(
        processes_in(&live.pid_ns).len(),
        1,
        "only the guest is left"
    );
}

/// Attack: A sandbox outlives its deadline by stopping whoever watches it.
///
/// Held by the launcher, outside of everything that the workload or a broken agent could reach.
#[tokio::test]
async fn a_sandbox_whose_deadline_is_over_is_killed_whatever_its_guest_thinks() {
    let world = world!();
    let mut spec = spec(DEFAULTS);
    spec.life = Duration::from_secs(2);
    let prepared = world.start(&spec, |_| {}).await;
    let live = Live::start(
        prepared,
        "trap '' TERM; echo ready; while :; do sleep 1; done",
    )
    .await;
    let ended = world.ended(&live.prepared.plan.handle).await.unwrap();
    let expected = Ended {
        failure: None,
        deadline: true,
    };
    assert_eq!(ended, expected);
    assert!(until(|| processes_in(&live.pid_ns).is_empty()).await);
}

#[tokio::test]
async fn a_deadline_that_was_moved_is_the_one_that_counts() {
    let world = world!();
    let mut short = spec(DEFAULTS);
    short.life = Duration::from_secs(2);
    let prepared = world.start(&short, |_| {}).await;
    let handle = prepared.plan.handle.clone();
    world
        .linux
        .extend(&handle, Duration::from_secs(60))
        .await
        .unwrap();
    let mut live = Live::start(prepared, "echo ready; sleep 2.5; echo still here").await;
    let (exited, output) = live.end().await;
    assert!(output.ends_with("still here\n"), "{exited:?}");
    world
        .linux
        .extend(&handle, Duration::from_millis(1))
        .await
        .unwrap();
    assert!(world.ended(&handle).await.unwrap().deadline);
}

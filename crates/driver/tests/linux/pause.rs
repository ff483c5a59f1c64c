//! A sandbox that is stopped in its tracks: nothing in it runs, everything is still there.

use crate::live_client::shell;
use crate::outside::{groups, processes_in};
use crate::world::{DEFAULTS, Live, World, say, until};
use driver::conformance::spec;
use driver::driver::{Driver as _, DriverError, Ended, Mode, Spec};
use driver::guest::message::ToGuest;
use driver::host::{Cgroups, Host};
use driver::linux::Linger;
use serde_json::json;
use std::time::Duration;

const BUSY: &str = "(while :; do :; done) & echo ready; while :; do :; done";

fn living_on() -> Spec {
    Spec {
        mode: Mode::Live { allow_root: false },
        layers: Vec::new(),
        volumes: Vec::new(),
        ..spec(DEFAULTS)
    }
}

/// A sandbox that never rests.
async fn busy(world: &World) -> Live {
    Live::start(world.start(&living_on(), |_| {}).await, BUSY).await
}

fn can_freeze(host: &Host) -> bool {
    match &host.cgroups {
        Cgroups::None { .. } => false,
        Cgroups::V1 { controllers } => controllers.contains_key("freezer"),
        Cgroups::V2 { .. } => true,
    }
}

/// A pause that cannot be had is refused, and changes nothing.
async fn is_refused(world: &World) {
    let live = busy(world).await;
    let handle = live.prepared.plan.handle.clone();
    let refused = world.linux.pause(&handle, true).await;
    assert!(
        matches!(refused, Err(DriverError::CannotPause)),
        "{refused:?}"
    );
    let before = ticks(&live);
    assert!(until(|| ticks(&live) > before).await);
    world.destroy(&live.prepared).await;
}

/// Ticks of the processor that everything in the sandbox has used, see `proc_pid_stat(5)`.
fn ticks(live: &Live) -> u64 {
    let used = |pid: i32| -> Option<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
    };
    let pids = processes_in(&live.pid_ns);
    pids.into_iter().filter_map(used).sum()
}

#[tokio::test]
async fn nothing_runs_in_a_paused_sandbox_and_everything_goes_on_afterwards() {
    let world = world!();
    if !can_freeze(&world.host) {
        return is_refused(&world).await;
    }
    let mut live = busy(&world).await;
    let handle = live.prepared.plan.handle.clone();
    for _ in 0..3 {
        // Twice is once, each way.
        world.linux.pause(&handle, true).await.unwrap();
        world.linux.pause(&handle, true).await.unwrap();
        let before = (ticks(&live), processes_in(&live.pid_ns).len());
        // Another sandbox lives and dies meanwhile; this one would have used as much as that.
        world
            .sh("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
            .await;
        assert_eq!((ticks(&live), processes_in(&live.pid_ns).len()), before);
        world.linux.pause(&handle, false).await.unwrap();
        world.linux.pause(&handle, false).await.unwrap();
        assert!(until(|| ticks(&live) > before.0).await);
    }
    say(&mut live.prepared, &ToGuest::Stop { grace_ms: 0 }).await;
    live.end().await;
    world.destroy(&live.prepared).await;
}

#[tokio::test]
async fn a_paused_sandbox_can_be_destroyed_and_its_deadline_still_ends_it() {
    let world = world!();
    if !can_freeze(&world.host) {
        return is_refused(&world).await;
    }
    let live = busy(&world).await;
    let handle = live.prepared.plan.handle.clone();
    world.linux.pause(&handle, true).await.unwrap();
    world.destroy(&live.prepared).await;
    assert!(until(|| processes_in(&live.pid_ns).is_empty()).await);
    assert!(groups(&world.host, &handle.id).is_empty());

    let live = busy(&world).await;
    let handle = live.prepared.plan.handle.clone();
    world.linux.pause(&handle, true).await.unwrap();
    world
        .linux
        .extend(&handle, Duration::from_millis(1))
        .await
        .unwrap();
    let ended = world.ended(&handle).await.unwrap();
    assert_eq!(
        ended,
        Ended {
            failure: None,
            deadline: true
        }
    );
    assert!(until(|| processes_in(&live.pid_ns).is_empty()).await);
    world.destroy(&live.prepared).await;
}

#[tokio::test]
async fn a_sandbox_that_cannot_be_frozen_says_so_and_runs_on() {
    let mut host = Host::probe();
    host.cgroups = Cgroups::None {
        why: "taken away for the test".to_owned(),
    };
    let world = match World::on(host, Linger::No) {
        Ok(world) => world,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    is_refused(&world).await;
}

#[tokio::test]
async fn the_time_of_a_process_stands_still_while_the_sandbox_is_paused() {
    let world = world!();
    if !can_freeze(&world.host) {
        return is_refused(&world).await;
    }
    let served = world.serve(false).await;
    let steps = "echo ready; for i in 1 2 3 4 5 6; do sleep 0.1; done; echo done";
    let request = json!({"process": shell(steps), "stdin": false});
    let mut events = served
        .start_with(request, &[("connect-timeout-ms", "2500")])
        .await;
    events.pid().await;
    events.until("ready\n").await;
    let handle = &served.plan.handle;
    let say = |what: &'static str| served.http("POST", what, &[], "");
    assert_eq!(say("/cofferdam/clock/stop").await.status, 204);
    world.linux.pause(handle, true).await.unwrap();
    // Longer than all of its time.
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.linux.pause(handle, false).await.unwrap();
    assert_eq!(say("/cofferdam/clock/go").await.status, 204);
    let (said, end) = events.end().await;
    assert_eq!((said.as_str(), &end["exitCode"]), ("done\n", &json!(0)));
    served.destroy().await;
}

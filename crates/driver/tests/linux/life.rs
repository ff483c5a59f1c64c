//! Sandboxes without their driver, without their launcher, and after their end.

use crate::outside::{groups, guest_and_launcher, processes_in};
use crate::probe;
use crate::world::{DEFAULTS, Live, World, connect, until};
use driver::conformance::spec;
use driver::driver::{Driver as _, DriverError, Found, Handle};
use driver::linux::{Linger, Linux};
use rustix::process::{Pid, Signal};

const WAITS: &str = "echo ready; while :; do sleep 1; done";

/// Everything by which a sandbox could be noticed on the machine.
fn traces(world: &World, handle: &Handle, pid_ns: &str) -> Vec<String> {
    let mut traces: Vec<String> = Vec::new();
    traces.extend(
        processes_in(pid_ns)
            .iter()
            .map(|pid| format!("process {pid}")),
    );
    traces.extend(
        groups(&world.host, &handle.id)
            .iter()
            .map(|dir| dir.display().to_string()),
    );
    let state = world.dir.path().join("state");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let below = state.display().to_string();
    traces.extend(
        mounts
            .lines()
            .filter(|line| line.contains(&below))
            .map(str::to_owned),
    );
    let sandboxes = std::fs::read_dir(state.join("sandboxes")).expect("a directory");
    traces.extend(sandboxes.filter_map(|entry| Some(entry.ok()?.path().display().to_string())));
    traces
}

pub(crate) fn kill(pid: i32) {
    let pid = Pid::from_raw(pid).expect("a process");
    rustix::process::kill_process(pid, Signal::KILL).expect("killed");
}

#[tokio::test]
async fn the_conformance_suite_holds() {
    let world = world!();
    let argv = ["true"];
    driver::conformance::check(&world.linux, &world.host, &argv)
        .await
        .unwrap();
}

#[tokio::test]
async fn destroying_leaves_nothing() {
    let world = world!();
    let script = format!("(setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' &) ; {WAITS}");
    let live = world.live(DEFAULTS, &script).await;
    let handle = live.prepared.plan.handle.clone();
    assert!(traces(&world, &handle, &live.pid_ns).len() >= 3);
    world.destroy(&live.prepared).await;
    assert_eq!(traces(&world, &handle, &live.pid_ns), Vec::<String>::new());
    assert_eq!(world.linux.find(&handle).await.unwrap(), Found::Gone);
}

#[tokio::test]
async fn a_sandbox_that_never_ran_a_command_leaves_nothing_either() {
    let world = world!();
    let plan = world.linux.plan(&spec(DEFAULTS), &world.host).unwrap();
    world.linux.start(&plan).await.unwrap();
    world.linux.destroy(&plan.handle).await.unwrap();
    assert_eq!(traces(&world, &plan.handle, "none"), Vec::<String>::new());
}

#[tokio::test]
async fn sandboxes_that_linger_are_found_by_the_next_driver() {
    let mut world = world!();
    let state = world.dir.path().join("state");
    world.linux = Linux::new(&state, world.host.clone(), Linger::Yes).unwrap();
    let live = world
        .live(
            DEFAULTS,
            "echo ready; while :; do sleep 0.1; echo more; done",
        )
        .await;
    let (plan, pid_ns) = (live.prepared.plan.clone(), live.pid_ns.clone());
    let handle = plan.handle.clone();
    // What is left of a process that was killed: nothing but its directory.
    drop(live);
    world.linux = Linux::new(&state, world.host.clone(), Linger::Yes).unwrap();
    assert_eq!(world.linux.find(&handle).await.unwrap(), Found::Running);
    assert_eq!(
        world.linux.list().await.unwrap(),
        std::slice::from_ref(&handle.id)
    );
    let prepared = connect(&world.linux, plan).await;
    let mut live = Live::resume(prepared, &pid_ns);
    live.until("more\n").await;
    world.linux.destroy(&handle).await.unwrap();
    assert_eq!(traces(&world, &handle, &pid_ns), Vec::<String>::new());
    world.linux.quit().await;
}

#[tokio::test]
async fn sandboxes_that_do_not_linger_die_with_their_driver() {
    let world = world!();
    let live = world.live(DEFAULTS, WAITS).await;
    let (_, launcher) = guest_and_launcher(&live.pid_ns);
    let (pid_ns, handle) = (live.pid_ns.clone(), live.prepared.plan.handle.clone());
    let World { host, linux, dir } = world;
    drop(linux);
    drop(live);
    let gone = || processes_in(&pid_ns).is_empty() && groups(&host, &handle.id).is_empty();
    assert!(
        until(gone).await,
        "{:?} {:?}",
        processes_in(&pid_ns),
        groups(&host, &handle.id)
    );
    let launched = || std::fs::read_link(format!("/proc/{launcher}/exe")).is_ok();
    assert!(until(|| !launched()).await, "the launcher is still there");
    // The next driver on this directory takes the rest away.
    let linux = Linux::new(&dir.path().join("state"), host.clone(), Linger::No).unwrap();
    for id in linux.list().await.unwrap() {
        linux.destroy(&linux.handle(&id)).await.unwrap();
    }
    let world = World { host, linux, dir };
    assert_eq!(traces(&world, &handle, &pid_ns), Vec::<String>::new());
}

#[tokio::test]
async fn when_the_launcher_is_killed_all_its_sandboxes_die_and_can_be_taken_away() {
    let world = world!();
    let script = format!("(setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' &) ; {WAITS}");
    let one = world.live(DEFAULTS, &script).await;
    let other = world.live(DEFAULTS, &script).await;
    let (_, launcher) = guest_and_launcher(&one.pid_ns);
    assert_eq!(launcher, guest_and_launcher(&other.pid_ns).1);
    kill(launcher);
    for live in [&one, &other] {
        let pid_ns = &live.pid_ns;
        assert!(
            until(|| processes_in(pid_ns).is_empty()).await,
            "{:?}",
            processes_in(pid_ns)
        );
        // It is known as soon as the driver has heard that the launcher hung up.
        let ended = world.ended(&live.prepared.plan.handle).await;
        assert!(matches!(ended, Err(DriverError::Gone)), "{ended:?}");
        let found = world.linux.find(&live.prepared.plan.handle).await;
        assert_eq!(found.unwrap(), Found::Gone);
    }
    // The names of both are all that is needed, as if their handles were lost.
    for id in world.linux.list().await.unwrap() {
        world.linux.destroy(&world.linux.handle(&id)).await.unwrap();
    }
    for live in [&one, &other] {
        let handle = &live.prepared.plan.handle;
        assert_eq!(traces(&world, handle, &live.pid_ns), Vec::<String>::new());
    }
    // And the driver starts another launcher when it needs one.
    assert_eq!(world.sh("echo again").await, "again\n");
}

#[tokio::test]
async fn a_guest_that_dies_takes_its_sandbox_with_it() {
    let world = world!();
    let live = world.live(DEFAULTS, WAITS).await;
    let (guest, _) = guest_and_launcher(&live.pid_ns);
    kill(guest);
    let handle = &live.prepared.plan.handle;
    let ended = world.ended(handle).await.unwrap();
    assert_eq!((ended.failure, ended.deadline), (None, false));
    world.linux.destroy(handle).await.unwrap();
    assert_eq!(traces(&world, handle, &live.pid_ns), Vec::<String>::new());
}

/// The name of a launcher follows from the root, which a name alone does not tell.
#[tokio::test]
async fn a_sandbox_with_a_root_of_its_own_is_taken_away_by_its_name_alone() {
    let world = world!();
    let mut spec = spec(DEFAULTS);
    spec.root = Some(probe::root(&world));
    let mut prepared = world.start(&spec, |_| {}).await;
    let argv = ["/bin/probe", "cat", "/proc/self/status"];
    let seen = probe::run(&mut prepared, &argv).await;
    assert!(!seen.is_empty());
    let id = prepared.plan.handle.id.clone();
    world.linux.destroy(&world.linux.handle(&id)).await.unwrap();
    let found = world.linux.find(&prepared.plan.handle).await.unwrap();
    assert_eq!(found, Found::Gone);
    assert_eq!(groups(&world.host, &id), Vec::<std::path::PathBuf>::new());
}

/// The kernel forgets that a process is to die with its parent when it takes another identity, which the guest
/// does for each file.
#[tokio::test]
async fn one_that_has_touched_files_as_its_user_dies_with_the_launcher_too() {
    let world = world!();
    for allow_root in [false, true] {
        let served = world.serve(allow_root).await;
        let request = serde_json::json!({"path": "/home/user/made"});
        let made = served.call("filesystem.Filesystem/MakeDir", request).await;
        made.expect("a directory");
        let pid_ns = served.sh("readlink /proc/self/ns/pid").await.0;
        let pid_ns = pid_ns.trim();
        kill(guest_and_launcher(pid_ns).1);
        assert!(
            until(|| processes_in(pid_ns).is_empty()).await,
            "{:?}",
            processes_in(pid_ns)
        );
        // It is known as soon as the driver has heard that the launcher hung up.
        let ended = world.ended(&served.plan.handle).await;
        assert!(matches!(ended, Err(DriverError::Gone)), "{ended:?}");
        served.destroy().await;
    }
}

//! A sandbox that is switched off and on: what runs in it ends, what was written stays.

use crate::live_client::{AS_ROOT, Event, Served, shell};
use crate::live_root::writable_world;
use crate::outside::processes_in;
use crate::world::World;
use driver::driver::{Driver as _, DriverError};
use serde_json::json;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

impl Served<'_> {
    /// Whether everything in it is dead.
    async fn halt(&self, wait_ms: u64) -> bool {
        let path = format!("/cofferdam/halt?wait_ms={wait_ms}");
        let got = self.http("POST", &path, &[], "").await;
        got.json()["halted"] == true
    }

    async fn boot(&self) -> u16 {
        self.http("POST", "/cofferdam/boot", &[], "").await.status
    }

    async fn boot_id(&self) -> String {
        let (inside, code) = self.sh(&format!("cat {BOOT_ID}")).await;
        assert_eq!((inside.len(), code), (37, 0), "{inside}");
        let read = self.get(&format!("/files?path={BOOT_ID}")).await;
        assert_eq!(read.body, inside);
        inside
    }
}

/// In the form of a UUID of the random kind.
fn is_uuid(id: &str) -> bool {
    let parts: Vec<usize> = id.trim_end().split('-').map(str::len).collect();
    let is_hex = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    parts == [8, 4, 4, 4, 12] && id.trim_end().bytes().all(is_hex) && id.as_bytes()[14] == b'4'
}

#[tokio::test]
async fn each_sandbox_has_a_boot_id_of_its_own_that_nobody_inside_can_change() {
    let world = world!();
    let machine = std::fs::read_to_string(BOOT_ID).unwrap();
    let (one, other) = (world.serve(true).await, world.serve(false).await);
    let (first, second) = (one.boot_id().await, other.boot_id().await);
    assert!(is_uuid(&first) && is_uuid(&second), "{first} {second}");
    assert!(first != second && first != machine && second != machine);
    // One that is used for a single job has one, too.
    let job = world.sh(&format!("cat {BOOT_ID}")).await;
    assert!(job.contains('-') && !job.contains(machine.trim()), "{job}");
    let tries = format!(
        "echo x > {BOOT_ID}; chmod 666 {BOOT_ID}; rm -f {BOOT_ID}; umount {BOOT_ID}; \
         mv {BOOT_ID} /tmp/x; grep -c deleted /proc/self/mountinfo; \
         find / -xdev -name '.boot_id*' 2>/dev/null; cat {BOOT_ID}"
    );
    for user in [None, Some(AS_ROOT)] {
        let request = json!({"process": shell(&tries), "stdin": false});
        let headers: Vec<_> = user.into_iter().collect();
        let mut events = one.start_with(request, &headers).await;
        if let Event::End(Some(code)) = events.next().await {
            // Where the map has one id there is no root.
            assert_eq!(code, "permission_denied");
            continue;
        }
        let (seen, _) = events.end().await;
        assert!(
            seen.ends_with(&first) && !seen.contains(".boot_id"),
            "{seen}"
        );
    }
    one.destroy().await;
    other.destroy().await;
}

/// Programs of every kind that the guest knows, and one that forks for ever.
async fn fill(served: &Served<'_>) -> String {
    let (pid_ns, _) = served
        .sh("readlink /proc/self/ns/pid; echo kept > kept")
        .await;
    let mut deaf = served
        .start("trap '' TERM INT HUP; setsid sleep 600 & echo up; wait")
        .await;
    deaf.until("up\n").await;
    let mut forks = served
        .start("(while :; do (sleep 0.01 &) ; done) 2>/dev/null & echo up; wait")
        .await;
    forks.until("up\n").await;
    let mut holds = served
        .start("x=$(head -c 40000000 /dev/zero | tr '\\0' a); echo up; sleep 600; echo $x")
        .await;
    holds.until("up\n").await;
    pid_ns.trim().to_owned()
}

#[tokio::test]
async fn what_is_switched_off_and_on_has_its_files_and_no_process_and_another_boot_id() {
    let world = world!();
    let served = world.serve(false).await;
    let before = served.boot_id().await;
    let pid_ns = fill(&served).await;
    let used = |metrics: serde_json::Value| metrics["mem_used"].as_u64().unwrap();
    let held = used(served.get("/metrics").await.json());
    let mut watched = served.start("echo up; sleep 600").await;
    let pid = watched.pid().await;
    watched.until("up\n").await;
    assert!(served.halt(9_000).await);
    // Whoever followed a program is told of its end.
    let (_, end) = watched.end().await;
    assert_eq!(end["exitCode"], 137);
    assert_eq!(processes_in(&pid_ns).len(), 1, "the guest");
    if held > 0 {
        let free = used(served.get("/metrics").await.json());
        assert!(free + 30_000_000 < held, "{held} then, {free} now");
    }
    // Nothing begins, however it is asked for; and twice is once.
    let off = Event::End(Some("unavailable".to_owned()));
    assert_eq!(served.start("echo no").await.next().await, off);
    assert!(served.halt(0).await && processes_in(&pid_ns).len() == 1);
    assert_eq!(served.boot().await, 200);
    let after = served.boot_id().await;
    assert!(is_uuid(&after) && after != before, "{before} {after}");
    assert_eq!(served.sh("cat kept; pwd").await.0, "kept\n/home/user\n");
    let listed = served
        .call("process.Process/List", json!({}))
        .await
        .unwrap();
    assert!(
        !listed.to_string().contains(&format!("\"pid\":{pid},")),
        "{listed}"
    );
    served.destroy().await;
}

#[tokio::test]
async fn what_was_frozen_runs_not_a_line_more_when_it_is_ended() {
    let world = world!();
    let served = world.serve(false).await;
    let handle = &served.plan.handle;
    let (pid_ns, _) = served.sh("readlink /proc/self/ns/pid").await;
    let mut counts = served
        .start("echo up; i=0; while :; do i=$((i+1)); echo $i > count; done")
        .await;
    counts.until("up\n").await;
    match world.linux.pause(handle, true).await {
        Err(DriverError::CannotPause) => println!("nothing can be frozen here"),
        frozen => frozen.unwrap(),
    }
    let frozen = world.linux.pause(handle, true).await.is_ok();
    // Of a file that changes meanwhile no answer can be what its head said.
    let stood = match frozen {
        true => served.get("/files?path=count").await.body,
        false => bytes::Bytes::default(),
    };
    let halted = served.halt(0).await;
    if frozen {
        world.linux.pause(handle, false).await.unwrap();
    }
    assert!(halted || served.halt(9_000).await);
    assert_eq!(processes_in(pid_ns.trim()).len(), 1);
    if frozen {
        assert_eq!(served.get("/files?path=count").await.body, stood);
    }
    assert_eq!(served.boot().await, 200);
    assert_eq!(served.sh("echo on").await.0, "on\n");
    served.destroy().await;
}

#[tokio::test]
async fn nothing_begins_while_something_of_before_is_left() {
    let world = world!();
    let served = world.serve(false).await;
    let mut runs = served.start("echo up; sleep 600").await;
    runs.until("up\n").await;
    assert_eq!(served.boot().await, 400);
    assert!(served.halt(9_000).await);
    assert_eq!((served.boot().await, served.boot().await), (200, 200));
    served.destroy().await;
}

#[tokio::test]
async fn sudo_is_there_again_after_a_boot() {
    let world: World = writable_world!();
    let served = world.serve(true).await;
    assert_eq!(served.sh("sudo id -u").await.0, "0\n");
    let mut waits = served.start("echo up; sudo sleep 600").await;
    waits.until("up\n").await;
    let (pid_ns, _) = served.sh("readlink /proc/self/ns/pid").await;
    for _ in 0..2 {
        assert!(served.halt(9_000).await);
        assert_eq!(processes_in(pid_ns.trim()).len(), 1);
        assert_eq!(served.boot().await, 200);
        assert_eq!(served.sh("sudo id -u").await.0, "0\n");
    }
    served.destroy().await;
}

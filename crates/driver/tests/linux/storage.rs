//! What can be written, and how much of it.

use crate::world::{DEFAULTS, World, text};
use driver::conformance::{command, spec};
use driver::driver::Driver as _;
use driver::host::Ids;
use model::spec::{AskedLimits, WRITABLE};
use std::collections::BTreeSet;

const MIB: u64 = 1 << 20;

/// Every directory in which something can be made, found by trying.
async fn writable(world: &World) -> Vec<String> {
    let script = "find / -path /proc -prune -o -type d -writable -print 2>/dev/null | while read d; do \
                  (: > \"$d/new\") 2>/dev/null && rm \"$d/new\" && echo \"$d\"; done";
    let mut found: Vec<String> = world.sh(script).await.lines().map(str::to_owned).collect();
    found.sort();
    found
}

#[tokio::test]
async fn only_the_four_places_can_be_written() {
    let world = world!();
    let mut found: BTreeSet<String> = writable(&world).await.into_iter().collect();
    if world.host.ids == Ids::Single {
        // The same directories by the names that they have on the storage, which then belongs to the
        // only user that there is.
        found.retain(|place| !place.starts_with("/home/.d/"));
    }
    assert_eq!(found, WRITABLE.map(str::to_owned).into());
    let script =
        "find / -path /proc -prune -o ! -type d ! -type l -writable -print 2>/dev/null; true";
    let files = world.sh(script).await;
    let strange: Vec<&str> = files
        .lines()
        .filter(|file| !file.starts_with("/dev/"))
        .collect();
    assert_eq!(strange, Vec::<&str>::new());
}

/// Attack: A disk bomb, in each place that can be written and in all of them.
#[tokio::test]
async fn bytes_are_bounded_in_every_writable_place_and_in_all_of_them_together() {
    let world = world!();
    let limits = AskedLimits {
        disk_bytes: Some(8 * MIB),
        ..DEFAULTS
    };
    for place in writable(&world).await {
        // The first takes almost all of it, and then there is no room for the second anywhere.
        let script = format!(
            "head -c 7M /dev/zero > {place}/first && echo first; \
             for d in /home/user /tmp /var/tmp /dev/shm; do \
             head -c 2M /dev/zero > $d/second && echo $d; rm -f $d/second; done; true"
        );
        let ran = world.run(limits, &["sh", "-c", &script]).await;
        assert_eq!(text(&ran.stdout), "first\n", "{place}: {ran:?}");
        assert!(
            text(&ran.stderr).contains("No space left"),
            "{place}: {ran:?}"
        );
    }
}

/// Attack: An inode bomb: files, links and directories without content.
#[tokio::test]
async fn files_are_bounded_in_every_writable_place_whatever_they_are() {
    let world = world!();
    let limits = AskedLimits {
        disk_bytes: Some(8 * MIB),
        ..DEFAULTS
    };
    let ways = [
        "true > $d/$i",
        "mkdir $d/$i",
        "ln $d/0 $d/$i",
        "mkfifo $d/$i",
    ];
    for (place, way) in writable(&world).await.iter().zip(ways.iter().cycle()) {
        // The least quota is 4096 files.
        let script = format!(
            "d={place}; : > $d/0; i=1; while [ $i -lt 5000 ]; do {way} || break; i=$((i+1)); done \
             2>/dev/null; echo $i"
        );
        let mut start = command(&["sh", "-c", &script]);
        start.timeout_ms = 60_000;
        let mut prepared = world.sandbox(limits).await;
        let ran = prepared.run(start).await.unwrap();
        let made: u32 = text(&ran.stdout).trim().parse().unwrap_or(0);
        assert!((3000..4200).contains(&made), "{place}: {ran:?}");
        world.destroy(&prepared).await;
    }
}

#[tokio::test]
async fn more_storage_than_the_machine_has_memory_is_refused() {
    let world = world!();
    let limits = AskedLimits {
        disk_bytes: Some(world.host.memory_bytes),
        ..DEFAULTS
    };
    let refused = world.linux.plan(&spec(limits), &world.host).unwrap_err();
    let clauses: Vec<&str> = refused.iter().map(|each| &*each.clause).collect();
    assert_eq!(clauses, ["disk"]);
}

/// Attack: What a sandbox left behind is looked for in the next.
#[tokio::test]
async fn what_one_sandbox_wrote_no_other_sees() {
    let world = world!();
    let write = "for d in /home/user /tmp /var/tmp /dev/shm; do echo x > $d/kept; done; echo ready; sleep 30";
    let _one = world.live(DEFAULTS, write).await;
    let look = "ls -A /home/user /tmp /var/tmp /dev/shm | grep kept; true";
    assert_eq!(world.sh(look).await, "");
}

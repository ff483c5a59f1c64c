//! Landlock, where nothing else stands in the way.

use crate::world::{DEFAULTS, World, text};
use driver::conformance::{command, spec};
use driver::host::Ids;

/// The result of a script in a sandbox with and without Landlock.
async fn with_and_without(world: &World, script: &str) -> (String, String) {
    let mut seen = Vec::new();
    for landlock in [true, false] {
        let change = |confine: &mut driver::guest::message::Confine| {
            if !landlock {
                confine.landlock = None;
            }
        };
        let mut prepared = world.start(&spec(DEFAULTS), change).await;
        let ran = prepared.run(command(&["sh", "-c", script])).await;
        seen.push(text(&ran.expect("an end").stdout));
        world.destroy(&prepared).await;
    }
    let without = seen.pop().unwrap_or_default();
    (seen.pop().unwrap_or_default(), without)
}

/// Attack: A place that its owner and its mount would let a program write is written.
#[tokio::test]
async fn writing_is_closed_where_mounts_and_owners_would_allow_it() {
    let world = world!();
    if world.host.landlock_abi == 0 {
        println!("skipped: this kernel has no Landlock");
        return;
    }
    // A process owns what proc says about it.
    let own = "(echo x > /proc/self/comm) 2>/dev/null && echo written";
    let (with, without) = with_and_without(&world, own).await;
    assert_eq!((&*with, &*without), ("", "written\n"));
    // Where there is one user, he owns the directory that the storage is mounted at too.
    if world.host.ids == Ids::Single {
        let beside = "mkdir /home/other /home/.d/other 2>/dev/null; ls -A /home";
        let (with, without) = with_and_without(&world, beside).await;
        assert_eq!((&*with, &*without), (".d\nuser\n", ".d\nother\nuser\n"));
    }
}

/// Attack: Signals are sent to processes that are not of the workload.
#[tokio::test]
async fn a_signal_does_not_leave_the_workload() {
    let world = world!();
    if world.host.landlock_abi < 6 {
        println!("skipped: this kernel's Landlock does not scope signals");
        return;
    }
    let script = "kill -0 1 2>/dev/null && echo reached; sleep 30 & kill $! && echo killed";
    let (with, without) = with_and_without(&world, script).await;
    assert_eq!(with, "killed\n");
    // The guest has the workload's user only where there is no other; then this line holds alone.
    let single = world.host.ids == Ids::Single;
    assert_eq!(
        without,
        if single {
            "reached\nkilled\n"
        } else {
            "killed\n"
        }
    );
}

#[tokio::test]
async fn the_writable_places_are_open_and_files_move_between_them() {
    let world = world!();
    let script = "for d in /home/user /tmp /var/tmp /dev/shm; do mkdir $d/a && echo x > $d/a/f && \
                  ln -s f $d/a/l && mv $d/a/f $d/a/g && rm -r $d/a || echo $d; done; \
                  echo x > /home/user/f && mv /home/user/f /tmp/f && cat /tmp/f";
    assert_eq!(world.sh(script).await, "x\n");
}

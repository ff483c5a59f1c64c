//! A sandbox that was made without a way out and gets one: the device is made in its namespaces, from outside, and is
//! handed to its guest.

use crate::egress::hello;
use crate::tun::{cannot_touch, outside, served};
use driver::driver::{Driver as _, DriverError};
use std::time::Instant;

/// The names of the network devices inside.
const DEVICES: &str = "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '";

#[tokio::test]
async fn a_sandbox_that_stands_gets_the_device_once_and_programs_find_their_way() {
    let world = world!();
    let served = served!(world, false);
    let handle = &served.plan.handle;
    assert_eq!(served.sh(DEVICES).await.0, "lo\n");
    let begun = Instant::now();
    world.linux.network(handle).await.expect("a device");
    println!("made in {:?}", begun.elapsed());
    // Again, by whoever takes over, also several at once: it is the same one.
    let again = (world.linux.network(handle), world.linux.network(handle));
    let (first, second) = tokio::join!(again.0, again.1);
    first.and(second).expect("the same device");
    let port = hello().await;
    let mut outside = outside(&served, &[format!("127.0.0.1:{port}")]);
    let get = format!(
        "import urllib.request\nprint(urllib.request.urlopen('http://here.test:{port}/').read())"
    );
    assert_eq!(outside.python(&served, &get).await, "b'hello'\n");
    assert_eq!(
        outside.recorded(),
        [
            "dns here.test 0 allowed".to_owned(),
            format!("direct here.test {port} allowed")
        ]
    );
    // It is served already, and stays.
    world.linux.network(handle).await.expect("the same device");
    assert_eq!(outside.python(&served, &get).await, "b'hello'\n");
    served.destroy().await;
}

/// The attack: the namespaces are open for a moment to somebody with rights over the network, and a program that
/// waits for it takes them, or finds what was left.
#[tokio::test]
async fn the_workload_cannot_touch_a_device_that_comes_later_or_whoever_makes_it() {
    let world = world!();
    let served = served!(world, false);
    // However late it begins to look, it looks once.
    let watch = "while cat /proc/[0-9]*/status; [ ! -e /tmp/stop ]; do :; done 2>/dev/null | \
        grep ^CapEff | sort -u | cut -f2";
    let mut watching = served
        .start(&format!("echo begun; {watch}; echo ended"))
        .await;
    watching.until("begun\n").await;
    for _ in 0..3 {
        let made = world.linux.network(&served.plan.handle).await;
        made.expect("a device");
    }
    served.sh("touch /tmp/stop").await;
    let seen = watching.until("ended\n").await;
    let sets = seen
        .lines()
        .filter_map(|line| u64::from_str_radix(line, 16).ok());
    let sets: Vec<u64> = sets.collect();
    // Of the guest and of programs; nobody else is seen, and none of these may change a network.
    const NET_ADMIN: u64 = 1 << 12;
    const NET_RAW: u64 = 1 << 13;
    assert!(!sets.is_empty(), "{seen}");
    assert!(
        sets.iter().all(|set| set & (NET_ADMIN | NET_RAW) == 0),
        "{seen}"
    );
    cannot_touch(&served).await;
    served.destroy().await;
}

#[tokio::test]
async fn a_sandbox_that_is_gone_gets_no_device_and_the_launcher_goes_on() {
    let world = world!();
    let served = served!(world, false);
    let handle = served.plan.handle.clone();
    served.destroy().await;
    let refused = world.linux.network(&handle).await;
    assert!(
        matches!(refused, Err(DriverError::SetUp { .. } | DriverError::Gone)),
        "{refused:?}"
    );
    let next = served!(world, false);
    world
        .linux
        .network(&next.plan.handle)
        .await
        .expect("a device");
    next.destroy().await;
}

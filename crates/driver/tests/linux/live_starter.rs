//! Commands that are begun by the process that stands ready: they are as those that are forked for.

use crate::live_client::{AS_ROOT, Event, Served, shell};
use driver::host::Ids;
use serde_json::json;
use std::time::Duration;

/// All that a process can say of its own walls. Of the numbers of its session only how they stand to its own.
const WALLS: &str = "grep -vE '^(FDSize|Pid|Ngid|PPid|NSpid|Tgid|NStgid|NSpgid|NSsid|Vm|Rss|.*ctxt|Cpus|Mems|SigQ|Threads)' \
     /proc/self/status; cat /proc/self/cgroup /proc/self/limits /proc/self/oom_score_adj; umask; pwd; env | sort; \
     read pid name state parent group session rest < /proc/$$/stat; \
     echo $parent $((group - $$)) $((session - $$)); ls /proc/self/fd | wc -l; \
     cat /proc/sys/kernel/random/boot_id; touch /etc/x 2>&1; true";

async fn walls(served: &Served<'_>) -> String {
    let request = json!({"process": shell(WALLS), "stdin": false});
    let (walls, code) = served.start_with(request, &[]).await.run().await;
    assert_eq!(code, 0, "{walls}");
    walls
}

/// Until the process stands ready: it does when this user's first command is over.
async fn warm(served: &Served<'_>) {
    for _ in 0..2 {
        assert_eq!(served.sh("true").await, (String::new(), 0));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_command_that_is_begun_has_the_walls_of_one_that_is_forked_for() {
    let world = world!();
    let served = world.serve(false).await;
    // Nothing stands ready for the first.
    let forked = walls(&served).await;
    assert!(forked.contains("Seccomp:\t2"), "{forked}");
    warm(&served).await;
    assert_eq!(walls(&served).await, forked);
    assert_eq!(walls(&served).await, forked);
    served.destroy().await;
}

#[tokio::test]
async fn a_command_that_is_begun_has_a_domain_of_its_own_as_one_that_is_forked_for() {
    let world = world!();
    let served = world.serve(false).await;
    let mut first = served.start("echo up; sleep 60").await;
    let first_pid = first.pid().await;
    first.until("up\n").await;
    let mut second = served.start("echo up; sleep 60").await;
    let second_pid = second.pid().await;
    second.until("up\n").await;
    let touch = |pid| format!("kill -0 {pid} 2>/dev/null; echo $?");
    let (forked, _) = served.sh(&touch(first_pid)).await;
    let (begun, _) = served.sh(&touch(second_pid)).await;
    assert_eq!(
        begun, forked,
        "one that is begun can be signalled as little"
    );
    served.destroy().await;
}

#[tokio::test]
async fn what_cannot_be_begun_is_said_and_the_next_can() {
    let world = world!();
    let served = world.serve(false).await;
    warm(&served).await;
    for request in [
        json!({"process": {"cmd": "/nothing"}}),
        json!({"process": {"cmd": "nothing"}}),
        json!({"process": {"cmd": "/etc"}}),
        json!({"process": {"cmd": "sh", "args": ["x".repeat(200_000)]}}),
    ] {
        let event = served.start_with(request, &[]).await.next().await;
        assert_eq!(event, Event::End(Some("invalid_argument".to_owned())));
        assert_eq!(served.sh("echo next").await, ("next\n".to_owned(), 0));
    }
    // Longer than what the process is sent, and not too long to run.
    let long = format!("echo {}", "x".repeat(60_000));
    let (seen, code) = served.sh(&long).await;
    assert_eq!((seen.len(), code), (60_001, 0));
    served.destroy().await;
}

#[tokio::test]
async fn every_end_is_told_however_soon_and_however_many_at_once() {
    let world = world!();
    let served = world.serve(false).await;
    warm(&served).await;
    for round in 0..10 {
        let mut begun = Vec::new();
        for code in round * 10..round * 10 + 10 {
            let request = json!({"process": shell(&format!("exit {code}")), "stdin": false});
            begun.push((code, served.start_with(request, &[]).await));
        }
        for (code, events) in begun {
            let ran = tokio::time::timeout(Duration::from_secs(20), events.run()).await;
            assert_eq!(ran.expect("the end is told").1, code);
        }
    }
    served.destroy().await;
}

#[tokio::test]
async fn root_is_not_begun_by_a_process_of_the_user() {
    let world = world!();
    let has_root = world.host.ids != Ids::Single;
    let served = world.serve(has_root).await;
    warm(&served).await;
    if has_root {
        let request = json!({"process": shell("id -u"), "stdin": false});
        let (seen, _) = served.start_with(request, &[AS_ROOT]).await.run().await;
        assert_eq!(seen, "0\n");
    }
    assert_eq!(served.sh("id -un").await.0, "user\n");
    served.destroy().await;
}

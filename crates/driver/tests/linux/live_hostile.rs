//! A sandbox that lives on, whose workload or whose client means it ill.

use crate::live_client::{Event, Served, base64, shell};
use crate::world::PATIENCE;
use driver::conformance::command;
use driver::driver::Driver as _;
use driver::guest::message::{FromGuest, ToGuest};
use driver::guest::{GuestError, Incoming, split};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// What the guest answers to these bytes, until it closes or has said what is wanted. A client that has
/// nothing to wait for closes its end first, which the guest takes for its going.
async fn raw(served: &Served<'_>, bytes: &[u8], wanted: Option<&str>) -> String {
    let stream = served.world.linux.connect(&served.plan.handle).await;
    let mut stream = stream.expect("a guest");
    // It may have closed already.
    drop(stream.write_all(bytes).await);
    if wanted.is_none() {
        drop(stream.shutdown().await);
    }
    let mut answer = Vec::new();
    let reading = async {
        while stream.read_buf(&mut answer).await.is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&answer);
            if wanted.is_some_and(|wanted| text.contains(wanted)) {
                return;
            }
        }
    };
    let read = tokio::time::timeout(PATIENCE, reading).await;
    read.expect("an end in time");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_the_next_one_served() {
    let world = world!();
    let served = world.serve(false).await;
    let endless = format!("GET /health HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET /health HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(500));
    let long = "POST /process.Process/Start HTTP/1.1\r\nhost: x\r\ncontent-type: application/connect+json\r\n\
        content-length: 9\r\nconnection: close\r\n\r\n\0\u{7f}\u{7f}\u{7f}\u{7f}{{{{";
    for (bytes, wanted) in [
        ("\0\0\0\0", "400"),
        ("GET /health\r\n\r\n", "400"),
        (&endless, "431"),
        (&many, "431"),
        ("GET /health HTTP/1.1\r\ncontent-length: x\r\n\r\n", "400"),
        (
            "POST /files?path=f HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n",
            "400",
        ),
        (long, "resource_exhausted"),
        ("CONNECT nowhere HTTP/1.1\r\n\r\n", "400"),
    ] {
        let answer = raw(&served, bytes.as_bytes(), Some(wanted)).await;
        assert!(
            answer.contains(wanted),
            "{}: {answer}",
            &bytes[..20.min(bytes.len())]
        );
    }
    // The old frames are HTTP's no more.
    let frame = driver::guest::message::VERSION.to_le_bytes();
    assert!(!raw(&served, &frame, None).await.contains("200"));
    assert_eq!(served.get("/health").await.status, 204);
    served.destroy().await;
}

#[tokio::test]
async fn a_message_that_is_too_long_or_no_json_is_refused() {
    let world = world!();
    let served = world.serve(false).await;
    let json = [("content-type", "application/json")];
    for (body, status) in [
        ("x".repeat(5 << 20), 429),
        ("{".to_owned(), 400),
        ("[]".to_owned(), 400),
    ] {
        let got = served
            .http("POST", "/process.Process/SendInput", &json, body)
            .await;
        assert_eq!(got.status, status);
    }
    let none = served
        .http("POST", "/process.Process/List", &[], "{}")
        .await;
    assert_eq!(none.status, 415);
    let soon = [
        ("content-type", "application/json"),
        ("connect-timeout-ms", "soon"),
    ];
    assert_eq!(
        served
            .http("POST", "/process.Process/List", &soon, "{}")
            .await
            .status,
        400
    );
    served.destroy().await;
}

#[tokio::test]
async fn input_that_nobody_reads_waits_as_long_as_its_request() {
    let world = world!();
    let served = world.serve(false).await;
    let mut events = served
        .start_with(json!({"process": shell("echo ready; sleep 60")}), &[])
        .await;
    let pid = events.pid().await;
    events.until("ready\n").await;
    let much = json!({"process": {"pid": pid}, "input": {"stdin": base64(vec![0; 1 << 20])}});
    let time = ("connect-timeout-ms", "300");
    let late = served
        .call_as("process.Process/SendInput", much, &[time])
        .await;
    assert_eq!(late, Err("deadline_exceeded".to_owned()));
    served.destroy().await;
}

/// Attack: The guest is connected to until it has no descriptor left.
#[tokio::test]
async fn connections_beyond_the_bound_are_closed_and_taken_again_later() {
    let world = world!();
    let served = world.serve(false).await;
    let mut held = Vec::new();
    for _ in 0..256 {
        let mut stream = served
            .world
            .linux
            .connect(&served.plan.handle)
            .await
            .unwrap();
        stream
            .write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 204");
        held.push(stream);
    }
    let mut refused = served
        .world
        .linux
        .connect(&served.plan.handle)
        .await
        .unwrap();
    assert_eq!(refused.read(&mut [0; 1]).await.unwrap(), 0);
    drop(held);
    while !raw(
        &served,
        b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        Some("204"),
    )
    .await
    .contains("204")
    {}
    served.destroy().await;
}

/// Attack: Everything that can be stopped or killed is.
#[tokio::test]
async fn a_workload_that_stops_and_kills_all_it_can_does_not_stop_the_guest() {
    let world = world!();
    let served = world.serve(false).await;
    let script = "while true; do kill -STOP -1; kill -KILL -1; done 2>/dev/null";
    let mut bad = served
        .start_with(json!({"process": shell(script), "stdin": false}), &[])
        .await;
    let pid = bad.pid().await;
    for _ in 0..20 {
        // It may run, be killed, or never start; what it may not is to take the guest with it.
        let time = ("connect-timeout-ms", "200");
        let mut events = served
            .start_with(json!({"process": shell("true")}), &[time])
            .await;
        while let Event::Message(_) = events.next().await {}
        assert_eq!(served.get("/health").await.status, 204);
    }
    let signal = json!({"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"});
    assert_eq!(
        served.call("process.Process/SendSignal", signal).await,
        Ok(json!({}))
    );
    assert_eq!(served.sh("echo well").await, ("well\n".to_owned(), 0));
    served.destroy().await;
}

#[tokio::test]
async fn a_sandbox_lives_on_or_has_a_job_and_does_not_change() {
    let world = world!();
    // One that has a job.
    let prepared = world.sandbox(crate::world::DEFAULTS).await;
    let serve = driver::guest::message::Serve {
        confine: prepared.plan.confine.clone(),
        env: Vec::new(),
        allow_root: false,
        files: Vec::new(),
        secrets: Vec::new(),
        scrub_patterns: false,
        contexts: Vec::new(),
        user: String::new(),
        workdir: String::new(),
    };
    let stream = world.linux.connect(&prepared.plan.handle).await.unwrap();
    let refused = driver::guest::serve(stream, serve).await;
    assert!(matches!(refused, Err(GuestError::Closed)), "{refused:?}");
    world.destroy(&prepared).await;
    // One that lives on.
    let served = world.serve(false).await;
    let stream = world.linux.connect(&served.plan.handle).await.unwrap();
    let (mut reader, mut writer) = split(stream);
    drop(writer.say(&ToGuest::Start(command(&["true"]))).await);
    let next = reader.next().await;
    assert!(
        !matches!(next, Ok(Incoming::Message(FromGuest::Started { .. }))),
        "{next:?}"
    );
    served.destroy().await;
}

#[tokio::test]
async fn a_guest_with_nothing_to_do_needs_little_memory() {
    let world = world!();
    let served = world.serve(false).await;
    let (seen, _) = served.sh("readlink /proc/self/ns/pid").await;
    let guest = crate::outside::processes_in(seen.trim());
    // Proc tells this to root alone. The program itself is shared by all guests.
    if world.host.uid == 0 {
        let maps = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", guest[0])).unwrap();
        let used = crate::outside::line(&maps, "Anonymous");
        let used: u64 = used.trim_end_matches(" kB").parse().unwrap();
        println!("private memory of an idle guest: {used} KiB");
        assert!(used <= 1024, "{used} KiB");
    }
    served.destroy().await;
}

//! A sandbox that lives on: its processes.

use crate::live_client::{AS_ROOT, Event, base64, shell};
use crate::outside::{guest_and_launcher, processes_in, status};
use crate::world::until;
use driver::host::Ids;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_process_is_started_told_about_and_ended() {
    let world = world!();
    let served = world.serve(false).await;
    assert_eq!(served.get("/health").await.status, 204);
    assert_eq!(served.get("/nothing").await.status, 404);
    let mut events = served.start("echo out; echo err >&2; exit 3").await;
    assert!(events.pid().await > 1);
    let (seen, end) = events.end().await;
    assert!(seen.contains("out\n") && seen.contains("err\n"), "{seen}");
    let expected =
        json!({"exitCode": 3, "exited": true, "status": "exit status 3", "error": "exit status 3"});
    assert_eq!(end, expected);
    served.destroy().await;
}

#[tokio::test]
async fn who_stops_or_kills_all_it_may_does_not_keep_the_next_command_from_running() {
    let world = world!();
    let served = world.serve(false).await;
    // Where the map has one id this reaches the guest too, which as first process takes no such signal.
    for signal in ["STOP", "KILL"] {
        // After this one, a process stands ready.
        assert_eq!(served.sh("echo first").await, ("first\n".to_owned(), 0));
        served.sh(&format!("kill -{signal} -1; true")).await;
        let started = Instant::now();
        assert_eq!(served.sh("echo next").await, ("next\n".to_owned(), 0));
        assert!(started.elapsed() < Duration::from_secs(5), "{signal}");
    }
    served.destroy().await;
}

#[tokio::test]
async fn a_process_that_stands_ready_tells_nothing_about_the_guest_that_forked_it() {
    let world = world!();
    let served = world.serve(false).await;
    served.sh("true").await;
    // Those of our user that are not this shell or what it started.
    let script = "sleep 0.2; for p in /proc/[0-9]*; do p=${p#/proc/}; [ $p = $$ ] && continue; \
                  [ $(stat -c %u /proc/$p 2>/dev/null || echo gone) = gone ] && continue; \
                  for f in environ mem maps fd/3; do head -c 1 /proc/$p/$f 2>/dev/null && echo $p $f; done; \
                  readlink /proc/$p/fd/3; done; true";
    let (seen, _) = served.sh(script).await;
    assert_eq!(seen, "");
    served.destroy().await;
}

#[tokio::test]
async fn a_process_has_the_environment_and_directory_of_its_user() {
    let world = world!();
    let served = world.serve(false).await;
    let (seen, _) = served
        .sh("echo $HOME $USER $LOGNAME $OF_ALL; pwd; id -un; umask")
        .await;
    assert_eq!(
        seen,
        "/home/user user user everybody's\n/home/user\nuser\n0022\n"
    );
    let request = json!({"process": {"cmd": "sh", "args": ["-c", "echo $OF_ALL $MINE; pwd"],
        "envs": {"OF_ALL": "own", "MINE": "1"}, "cwd": "/tmp/../tmp"}});
    let (seen, code) = served.start_with(request, &[]).await.run().await;
    assert_eq!((&*seen, code), ("own 1\n/tmp\n", 0));
    assert_eq!(
        served.get("/envs").await.json(),
        json!({"OF_ALL": "everybody's"})
    );
    served.destroy().await;
}

#[tokio::test]
async fn what_cannot_be_started_is_said_in_the_stream() {
    let world = world!();
    let served = world.serve(false).await;
    for (request, code) in [
        (json!({"process": {"cmd": "/nothing"}}), "invalid_argument"),
        (
            json!({"process": {"cmd": "sh", "cwd": "/nothing"}}),
            "invalid_argument",
        ),
        (json!({"process": {"cmd": ""}}), "invalid_argument"),
        (
            json!({"process": {"cmd": "sh", "args": ["x".repeat(200_000)]}}),
            "invalid_argument",
        ),
        (json!({"process": {"cmd": 3}}), "invalid_argument"),
    ] {
        let event = served.start_with(request, &[]).await.next().await;
        assert_eq!(event, Event::End(Some(code.to_owned())));
    }
    let nobody = ("authorization", "Basic bm9ib2R5Og==");
    for (user, code) in [(nobody, "unauthenticated"), (AS_ROOT, "permission_denied")] {
        let mut events = served
            .start_with(json!({"process": shell("id")}), &[user])
            .await;
        assert_eq!(events.next().await, Event::End(Some(code.to_owned())));
    }
    served.destroy().await;
}

#[tokio::test]
async fn a_process_is_killed_with_its_group_when_the_time_of_its_request_is_over() {
    let world = world!();
    let served = world.serve(false).await;
    let request = json!({"process": shell("sleep 60 & echo ready; wait"), "stdin": false});
    let time = ("connect-timeout-ms", "400");
    let mut events = served.start_with(request, &[time]).await;
    let pid = events.pid().await;
    events.until("ready\n").await;
    assert_eq!(
        events.next().await,
        Event::End(Some("deadline_exceeded".to_owned()))
    );
    // Who comes now is told how it ended.
    let select = json!({"process": {"pid": pid}});
    let mut late = served
        .stream("process.Process/Connect", &[select], &[])
        .await;
    assert_eq!(late.pid().await, pid);
    let (_, end) = late.end().await;
    assert_eq!(
        (&end["exitCode"], &end["status"]),
        (&json!(137), &json!("signal: killed"))
    );
    let (seen, _) = served.sh("grep -sl sleep /proc/[0-9]*/comm; true").await;
    assert_eq!(seen, "");
    served.destroy().await;
}

/// Every client gives its commands a time.
#[tokio::test]
async fn a_process_that_ends_in_time_is_told_as_one_without_a_time() {
    let world = world!();
    let served = world.serve(false).await;
    for _ in 0..3 {
        let request = json!({"process": shell("echo x; exit 2"), "stdin": false});
        let time = ("connect-timeout-ms", "60000");
        let ran = served.start_with(request, &[time]).await.run().await;
        assert_eq!(ran, ("x\n".to_owned(), 2));
    }
    served.destroy().await;
}

#[tokio::test]
async fn a_process_goes_on_when_its_stream_is_closed_and_is_found_again() {
    let world = world!();
    let served = world.serve(false).await;
    let script = "echo lost; read line; echo got $line";
    let request = json!({"process": shell(script), "tag": "mine"});
    let mut events = served.start_with(request, &[]).await;
    let pid = events.pid().await;
    events.until("lost\n").await;
    drop(events);
    let list = served
        .call("process.Process/List", json!({}))
        .await
        .unwrap();
    assert_eq!(list["processes"][0]["pid"], pid);
    assert_eq!(list["processes"][0]["tag"], "mine");
    assert_eq!(list["processes"][0]["config"]["cmd"], "/bin/sh");
    let select = json!({"process": {"tag": "mine"}});
    let mut again = served
        .stream("process.Process/Connect", &[select], &[])
        .await;
    assert_eq!(again.pid().await, pid);
    let input = json!({"process": {"pid": pid}, "input": {"stdin": base64("it\n")}});
    assert_eq!(
        served.call("process.Process/SendInput", input).await,
        Ok(json!({}))
    );
    assert_eq!(again.end().await.0, "got it\n");
    let list = served
        .call("process.Process/List", json!({}))
        .await
        .unwrap();
    assert_eq!(list, json!({"processes": []}));
    served.destroy().await;
}

#[tokio::test]
async fn input_comes_in_one_stream_or_in_pieces_and_ends_when_it_is_closed() {
    let world = world!();
    let served = world.serve(false).await;
    let mut events = served
        .start_with(json!({"process": {"cmd": "cat"}}), &[])
        .await;
    let pid = events.pid().await;
    let select = json!({"process": {"pid": pid}});
    let data = |text: &str| json!({"data": {"input": {"stdin": base64(text)}}});
    let messages = [
        json!({"start": select}),
        data("a"),
        json!({"keepalive": {}}),
        data("b\n"),
    ];
    let mut answer = served
        .stream("process.Process/StreamInput", &messages, &[])
        .await;
    assert_eq!(answer.next().await, Event::Message(json!({})));
    assert_eq!(answer.next().await, Event::End(None));
    assert_eq!(
        served
            .call("process.Process/CloseStdin", select.clone())
            .await,
        Ok(json!({}))
    );
    let input = json!({"process": {"pid": pid}, "input": {"stdin": base64("late")}});
    let late = served.call("process.Process/SendInput", input).await;
    assert!(
        late == Err("failed_precondition".to_owned()) || late == Err("not_found".to_owned()),
        "{late:?}"
    );
    assert_eq!(events.run().await, ("ab\n".to_owned(), 0));
    served.destroy().await;
}

#[tokio::test]
async fn a_signal_reaches_the_process_and_an_unknown_process_is_not_found() {
    let world = world!();
    let served = world.serve(false).await;
    let mut events = served.start("echo ready; sleep 60").await;
    let pid = events.pid().await;
    events.until("ready\n").await;
    // As protocol buffers may write it in JSON.
    let process = json!({"pid": pid.to_string(), "tag": null});
    let signal = json!({"process": process, "signal": "SIGNAL_SIGTERM"});
    assert_eq!(
        served
            .call("process.Process/SendSignal", signal.clone())
            .await,
        Ok(json!({}))
    );
    let (_, end) = events.end().await;
    assert_eq!(
        (&end["exitCode"], &end["exited"]),
        (&json!(143), &json!(false))
    );
    let missing = Err("not_found".to_owned());
    assert_eq!(
        served.call("process.Process/SendSignal", signal).await,
        missing
    );
    let select = json!({"process": {"pid": 1}});
    let mut events = served
        .stream(
            "process.Process/Connect",
            std::slice::from_ref(&select),
            &[],
        )
        .await;
    assert_eq!(
        events.next().await,
        Event::End(Some("not_found".to_owned()))
    );
    assert_eq!(
        served.call("process.Process/CloseStdin", select).await,
        missing
    );
    served.destroy().await;
}

#[tokio::test]
async fn an_end_is_told_though_something_holds_the_output_open_and_that_goes_on() {
    let world = world!();
    let served = world.serve(false).await;
    let script = "(sleep 1; echo late; echo late; echo still > /tmp/still) & echo done";
    let begun = Instant::now();
    assert_eq!(served.sh(script).await, ("done\n".to_owned(), 0));
    assert!(
        begun.elapsed() < Duration::from_millis(900),
        "{:?}",
        begun.elapsed()
    );
    // What goes on in the background is not ended by writing what nobody reads.
    let wait =
        "for i in $(seq 100); do [ -s /tmp/still ] && break; sleep 0.05; done; cat /tmp/still";
    assert_eq!(served.sh(wait).await, ("still\n".to_owned(), 0));
    served.destroy().await;
}

#[tokio::test]
async fn silence_is_broken_by_keepalives() {
    let world = world!();
    let served = world.serve(false).await;
    let request = json!({"process": shell("sleep 60"), "stdin": false});
    let every = ("keepalive-ping-interval", "1");
    let mut events = served.start_with(request, &[every]).await;
    events.pid().await;
    let keepalive = json!({"event": {"keepalive": {}}});
    assert_eq!(events.next().await, Event::Message(keepalive));
    served.destroy().await;
}

#[tokio::test]
async fn much_output_comes_whole_and_a_slow_reader_makes_the_workload_wait() {
    let world = world!();
    let served = world.serve(false).await;
    let script = "head -c 20000000 /dev/zero | tr '\\0' x; echo; echo end";
    let mut events = served.start(script).await;
    events.pid().await;
    // Nobody reads, so the workload stands still before it has written all.
    let (seen, _) = served
        .sh("sleep 0.3; grep -l '^tr$' /proc/[0-9]*/comm")
        .await;
    assert_ne!(seen, "");
    let (seen, end) = events.end().await;
    assert_eq!(
        (seen.len(), end["exitCode"].as_i64()),
        (20_000_000 + 5, Some(0))
    );
    served.destroy().await;
}

#[tokio::test]
async fn many_processes_run_at_once() {
    let world = world!();
    let served = world.serve(false).await;
    let mut all = Vec::new();
    for _ in 0..100 {
        all.push(
            served
                .start_with(json!({"process": {"cmd": "cat"}}), &[])
                .await,
        );
    }
    for events in &mut all {
        let pid = events.pid().await;
        let input =
            json!({"process": {"pid": pid}, "input": {"stdin": base64(format!("{pid}\n"))}});
        served
            .call("process.Process/SendInput", input)
            .await
            .unwrap();
        events.until(&format!("{pid}\n")).await;
        let select = json!({"process": {"pid": pid}});
        served
            .call("process.Process/CloseStdin", select)
            .await
            .unwrap();
    }
    for events in all {
        assert_eq!(events.run().await.1, 0);
    }
    served.destroy().await;
}

#[tokio::test]
async fn each_process_is_confined_as_a_job_is() {
    let world = world!();
    let served = world.serve(false).await;
    let (seen, _) = served.sh("cat /proc/self/status").await;
    for (key, value) in [
        ("NoNewPrivs", "1"),
        ("CapPrm", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("Seccomp", "2"),
        ("Uid", "1000\t1000\t1000\t1000"),
        ("SigBlk", "0000000000000000"),
    ] {
        assert_eq!(crate::outside::line(&seen, key), value, "{key}");
    }
    let (seen, _) = served
        .sh("for f in /proc/self/fd/*; do [ -e $f ] && echo ${f##*/}; done")
        .await;
    assert_eq!(seen, "0\n1\n2\n");
    served.destroy().await;
}

#[tokio::test]
async fn root_of_the_sandbox_has_six_capabilities_and_nothing_outside() {
    let world = world!();
    let served = world.serve(true).await;
    let request = json!({"process": shell("cat /proc/self/status; su user -c id 2>&1; \
        (: > /etc/new) 2>/dev/null && echo wrote; mount -t tmpfs x /tmp 2>/dev/null && echo mounted; \
        touch /home/user/of-root; chown 1000 /home/user/of-root && echo owned"), "stdin": false});
    let mut events = served.start_with(request, &[AS_ROOT]).await;
    if world.host.ids == Ids::Single {
        assert_eq!(
            events.next().await,
            Event::End(Some("permission_denied".to_owned()))
        );
        return;
    }
    events.pid().await;
    let (seen, _) = events.end().await;
    // CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID.
    for key in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(
            crate::outside::line(&seen, key),
            "00000000000000eb",
            "{key}"
        );
    }
    let writes = world.host.no_writable_root.is_none();
    assert!(
        seen.contains("owned\n") && seen.contains("wrote") == writes && !seen.contains("mounted"),
        "{seen}"
    );
    served.destroy().await;
}

#[tokio::test]
async fn neither_user_nor_root_can_kill_stop_or_trace_the_guest_that_serves() {
    let world = world!();
    let single = world.host.ids == Ids::Single;
    let served = world.serve(!single).await;
    let script = "readlink /proc/self/ns/pid; for s in KILL TERM STOP INT SEGV CHLD; do kill -$s 1; done 2>/dev/null; \
        for f in mem maps environ auxv stack; do head -c 1 /proc/1/$f && echo read $f; done 2>/dev/null; \
        for f in cwd root exe fd/3; do readlink /proc/1/$f && echo $f; done 2>/dev/null; \
        (: >> /proc/1/mem) 2>/dev/null && echo wrote; echo over; sleep 60";
    let users: &[&[(&str, &str)]] = if single { &[&[]] } else { &[&[], &[AS_ROOT]] };
    for user in users {
        let request = json!({"process": shell(script), "stdin": false});
        let mut events = served.start_with(request, user).await;
        events.pid().await;
        let seen = events.until("over\n").await;
        let pid_ns = seen.lines().next().unwrap_or_default();
        assert_eq!(seen.lines().skip(1).collect::<Vec<_>>(), ["over"]);
        let (guest, _) = guest_and_launcher(pid_ns);
        assert!(!status(guest, "State").unwrap().starts_with('T'));
        assert_eq!(status(guest, "Threads").as_deref(), Some("1"));
    }
    assert_eq!(served.get("/health").await.status, 204);
    served.destroy().await;
}

#[tokio::test]
async fn orphans_are_reaped() {
    let world = world!();
    let served = world.serve(false).await;
    let script = "readlink /proc/self/ns/pid; for i in $(seq 50); do (sleep 0.01 &); done";
    let (seen, _) = served.sh(script).await;
    let pid_ns = seen.trim();
    // The guest, and the process that stands ready.
    let alone = until(|| processes_in(pid_ns).len() == 2).await;
    assert!(alone, "{:?}", processes_in(pid_ns));
    served.destroy().await;
}

/// Whoever looks for groups that are left must know a launcher, whose name is the number of a descriptor.
#[tokio::test]
async fn a_launcher_is_known_from_outside_and_its_guest_is_none() {
    let world = world!();
    let served = world.serve(false).await;
    let (seen, _) = served.sh("readlink /proc/self/ns/pid").await;
    let (guest, launcher) = guest_and_launcher(seen.trim());
    let of = |pid: i32| PathBuf::from(format!("/proc/{pid}"));
    assert!(driver::orphan::is_launcher(&of(launcher)));
    assert!(!driver::orphan::is_launcher(&of(guest)));
    served.destroy().await;
}

#[tokio::test]
async fn more_commands_than_may_run_at_once_may_follow_each_other() {
    let world = world!();
    let served = world.serve(false).await;
    // Those that have ended are remembered for half a minute, and these take less.
    for _ in 0..1100 {
        let request = json!({"process": {"cmd": "/bin/true"}});
        let (_, code) = served.start_with(request, &[]).await.run().await;
        assert_eq!(code, 0);
    }
    served.destroy().await;
}

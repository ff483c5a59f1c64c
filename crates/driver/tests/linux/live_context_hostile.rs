//! Contexts whose code means it ill: with its interpreter, with what it says to us, with the sandbox.

use crate::live_client::{Event, Served};
use crate::live_context::{Lines, Told, program};
use crate::world::{DEFAULTS, PATIENCE};
use driver::conformance::spec;
use driver::driver::{Mode, Spec};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

async fn begin(served: &Served<'_>, code: &str) -> Lines {
    served.execute(json!({"code": code})).await
}

async fn python(served: &Served<'_>, code: &str) -> Told {
    begin(served, code).await.end().await
}

fn value(told: &Told) -> &str {
    let error = told.errors.last().expect("an error");
    assert_eq!(error["name"], "UnexpectedEndOfExecution", "{told:?}");
    error["value"].as_str().expect("text")
}

#[tokio::test]
async fn an_interpreter_that_dies_ends_its_execution_within_a_second_and_the_next_has_another() {
    let world = world!();
    program!("python3");
    let served = world.serve(false).await;
    python(&served, "x = 1").await;
    for (code, why) in [
        ("import os; os._exit(7)", "exit status 7"),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            "more memory",
        ),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
            "segmentation fault",
        ),
    ] {
        let mut lines = begin(&served, &format!("print('last words', flush=True)\n{code}")).await;
        lines.until("stdout").await;
        let start = Instant::now();
        let told = lines.end().await;
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{:?}",
            start.elapsed()
        );
        assert!(value(&told).contains(why), "{told:?}");
        let next = python(&served, "x").await;
        // It was told already, so it is not told again.
        assert_eq!(
            (next.errors[0]["name"].as_str(), next.stderr.as_str()),
            (Some("NameError"), "")
        );
    }
    // A death between two executions is told to the second.
    python(
        &served,
        "import threading, os; threading.Timer(0.05, os._exit, [9]).start()",
    )
    .await;
    let start = Instant::now();
    loop {
        let told = python(&served, "1").await;
        if told.stderr.contains("exit status 9") && told.stderr.contains("anew") {
            break;
        }
        if !told.errors.is_empty() {
            break; // It died under this one.
        }
        assert!(start.elapsed() < PATIENCE);
    }
    served.destroy().await;
}

/// Attack: Code writes to the connection by which its results are told.
#[tokio::test]
async fn what_is_written_to_the_private_connection_ends_the_interpreter_and_nothing_else() {
    let world = world!();
    program!("python3");
    let served = world.serve(false).await;
    let write = |what: &str| format!("import os, time\nos.write(64, {what})\ntime.sleep(60)");
    for (code, why) in [
        (write("b'garbage\\n'"), "written to"),
        (write("b'\"ready\"\\n'"), "written to"),
        (write("b'{\"result\":{\"text\":[]}}\\n'"), "written to"),
        (write("b'\\xff\\x00\\n'"), "written to"),
        (
            "import os\nwhile True: os.write(64, b'x' * 65536)".to_owned(),
            "10 MiB",
        ),
        (
            "import os, time; os.close(64); time.sleep(60)".to_owned(),
            "closed",
        ),
        (
            "import os, time; os.closerange(3, 4096); time.sleep(60)".to_owned(),
            "closed",
        ),
    ] {
        let told = python(&served, &code).await;
        assert!(value(&told).contains(why), "{code}: {told:?}");
        assert_eq!(python(&served, "1").await.results[0]["text"], "1");
    }
    // It can end its own execution before its time, and what its context says may then come late. Others
    // do not notice, and a new start of it ends that.
    let told = python(&served, "import os; os.write(64, b'{\"end\":{}}\\n')").await;
    assert!(told.errors.is_empty());
    python(&served, "1").await;
    let list = served.code("GET", "/contexts", "").await.json();
    let id = list[0]["id"].as_str().unwrap().to_owned();
    let restarted = served
        .code("POST", &format!("/contexts/{id}/restart"), "")
        .await;
    assert_eq!(restarted.status, 204);
    assert_eq!(python(&served, "2").await.results[0]["text"], "2");
    served.destroy().await;
}

#[tokio::test]
async fn closed_streams_and_children_that_come_back_are_the_code_s_own_affair() {
    let world = world!();
    program!("python3");
    let served = world.serve(false).await;
    let told = python(&served, "import os; os.close(1); os.close(2); 3").await;
    assert_eq!(told.results[0]["text"], "3");
    assert_eq!(python(&served, "4").await.results[0]["text"], "4");
    let told = python(&served, "import os; child = os.fork(); child or 1").await;
    assert_eq!(told.results.len(), 1, "{told:?}");
    assert_eq!(python(&served, "5").await.results[0]["text"], "5");
    served.destroy().await;
}

#[tokio::test]
async fn a_result_that_is_too_large_is_an_error_and_the_context_goes_on() {
    let world = world!();
    program!("python3");
    let served = world.serve(false).await;
    let told = python(&served, "kept = 1; 'x' * (11 << 20)").await;
    assert_eq!(told.errors[0]["name"], "ResultTooLarge");
    let told = python(&served, "'x' * (9 << 20)").await;
    assert_eq!(
        told.results[0]["text"].as_str().map(str::len),
        Some(9 << 20)
    );
    let told = python(&served, "for _ in range(9): display('x' * (8 << 20))\nkept").await;
    assert_eq!(told.errors[0]["name"], "ResultsTooLarge");
    assert!(told.results.len() <= 8, "{}", told.results.len());
    // A gigabyte is more than the sandbox has: it ends in Python, or with it.
    let told = python(&served, "'x' * (1 << 30)").await;
    assert_eq!(told.errors.len(), 1, "{:?}", told.errors);
    assert_eq!(python(&served, "1").await.results[0]["text"], "1");
    served.destroy().await;
}

/// Attack: Code that prints for ever to a reader that went away.
#[tokio::test]
async fn endless_output_waits_for_its_reader_and_stops_without_one() {
    let world = world!();
    program!("python3");
    let served = world.serve(false).await;
    let mut lines = begin(&served, "kept = 1\nwhile True: print('y' * 1000)").await;
    for _ in 0..200 {
        lines.until("stdout").await;
    }
    drop(lines);
    assert_eq!(python(&served, "kept").await.results[0]["text"], "1");
    // In the background it does not hold up those who come after.
    let code = "import subprocess; p = subprocess.Popen(['yes']); 2";
    assert_eq!(python(&served, code).await.results[0]["text"], "2");
    assert_eq!(python(&served, "p.kill(); 3").await.results[0]["text"], "3");
    served.destroy().await;
}

#[tokio::test]
async fn code_that_does_not_stop_when_it_is_interrupted_is_killed_and_the_next_one_told() {
    let world = world!();
    program!("python3");
    let served = world.serve(false).await;
    let code = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('on')\nwhile True: pass";
    let mut lines = begin(&served, code).await;
    lines.until("stdout").await;
    drop(lines);
    let told = python(&served, "1").await;
    assert!(told.stderr.contains("did not stop"), "{told:?}");
    assert_eq!(told.results[0]["text"], "1");
    served.destroy().await;
}

#[tokio::test]
async fn the_seventeenth_context_is_refused_and_so_is_a_queue_without_end() {
    let world = world!();
    program!("bash");
    let served = world.serve(false).await;
    let make = || served.code("POST", "/contexts", r#"{"language":"bash"}"#);
    let mut ids = Vec::new();
    for _ in 0..16 {
        let got = make().await;
        assert_eq!(got.status, 200);
        ids.push(got.json()["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(make().await.status, 429);
    served
        .code("DELETE", &format!("/contexts/{}", ids[0]), "")
        .await;
    assert_eq!(make().await.status, 200);
    let asked = json!({"code": "sleep 60", "context_id": ids[1]});
    let mut waiting = Vec::new();
    for _ in 0..33 {
        waiting.push(served.execute(asked.clone()).await);
        if waiting.len() == 1 {
            waiting[0].until("number_of_executions").await;
        }
    }
    assert_eq!(
        served
            .code("POST", "/execute", asked.to_string())
            .await
            .status,
        429
    );
    served.destroy().await;
}

/// Attack: A fork bomb from within an interpreter that is kept.
#[tokio::test]
async fn a_fork_bomb_in_a_context_takes_neither_the_guest_nor_its_own_context() {
    let world = world!();
    program!("bash");
    let spec = Spec {
        mode: Mode::Live { allow_root: false },
        limits: model::spec::AskedLimits {
            pids: Some(40),
            ..DEFAULTS
        },
        ..spec(DEFAULTS)
    };
    let served = world.serve_with(spec, false).await;
    let asked = json!({"code": "f() { f | f & }; f; echo begun", "language": "bash"});
    let mut lines = served.execute(asked).await;
    lines.until("number_of_executions").await;
    drop(lines);
    assert_eq!(served.code("GET", "/health", "").await.status, 200);
    let list = served.code("GET", "/contexts", "").await.json();
    let bash = list
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["language"] == "bash");
    let id = bash.unwrap()["id"].as_str().unwrap().to_owned();
    // The kernel's group is killed with it, and with that the bomb.
    let start = Instant::now();
    loop {
        served
            .code("POST", &format!("/contexts/{id}/restart"), "")
            .await;
        let asked = json!({"code": "echo well", "context_id": id});
        if served.execute(asked).await.end().await.stdout == "well\n" {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "the context does not come back");
    }
    served.destroy().await;
}

#[tokio::test]
async fn a_kernel_is_a_process_like_any_other() {
    let world = world!();
    program!("python3");
    let served = world.serve(false).await;
    let told = python(&served, "print(open('/proc/self/status').read())").await;
    for line in [
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "CapEff:\t0000000000000000",
        "Uid:\t1000",
    ] {
        assert!(told.stdout.contains(line), "{line}");
    }
    let list = served
        .call("process.Process/List", json!({}))
        .await
        .unwrap();
    assert_eq!(list["processes"][0]["tag"], "context:python");
    let pid = list["processes"][0]["pid"].as_u64().unwrap();
    // Nobody types into it.
    let input = json!({"process": {"pid": pid}, "input": {"stdin": "eA=="}});
    let refused = served.call("process.Process/SendInput", input).await;
    assert_eq!(refused, Err("failed_precondition".to_owned()));
    let connect = json!({"process": {"pid": pid}});
    let mut events = served
        .stream("process.Process/Connect", &[connect], &[])
        .await;
    events.pid().await;
    let signal = json!({"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"});
    assert_eq!(
        served.call("process.Process/SendSignal", signal).await,
        Ok(json!({}))
    );
    let end = events.next().await;
    let Event::Message(Value::Object(message)) = &end else {
        unreachable!("{end:?}")
    };
    assert_eq!(message["event"]["end"]["exitCode"], 137);
    assert_eq!(python(&served, "1").await.results[0]["text"], "1");
    served.destroy().await;
}

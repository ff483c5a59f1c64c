//! What clients of E2B's code interpreter count on beside the code itself: how code stands, where contexts are
//! listed and begin, and what a program inside sees of them.

use crate::live_client::Served;
use crate::live_context::program;
use crate::world::{DEFAULTS, World};
use driver::conformance::spec;
use driver::driver::{Mode, Spec};
use serde_json::{Value, json};

/// A sandbox in which a Python begins at once.
async fn code(world: &World) -> Served<'_> {
    let spec = Spec {
        mode: Mode::Live { allow_root: false },
        layers: Vec::new(),
        ..spec(DEFAULTS)
    };
    world.serve_contexts(spec, false, &["python"]).await
}

async fn list(served: &Served<'_>) -> Vec<Value> {
    let list = served.code("GET", "/contexts", "").await.json();
    list.as_array().expect("a list").clone()
}

#[tokio::test]
async fn code_that_stands_to_the_right_runs_as_if_it_did_not() {
    let world = world!();
    program!("python3");
    let served = world.serve(false).await;
    let told = served
        .python("\n    x = 1\n    if x:\n        x += 1\n    x\n    ")
        .await;
    assert_eq!((told.text(), told.error()), (Some("2"), ""));
    // What stands less far to the right than the first line is wrong, as in a notebook.
    assert_eq!(
        served.python("    y = 1\n  y").await.error(),
        "IndentationError"
    );
    let told = served.python("\n  def f():\n      1 / 0\n  f()").await;
    let trace = told.errors[0]["traceback"].as_str().unwrap();
    assert!(trace.contains("line 3, in f"), "{trace}");
    let told = served.python("\n  %%bash\n  echo from $((1 + 1))").await;
    assert_eq!(told.stdout, "from 2\n");
    let told = served.python("x = '''\n  as it is\n'''; x").await;
    assert_eq!(told.text(), Some("\\n  as it is\\n"));
    served.destroy().await;
}

#[tokio::test]
async fn defaults_come_first_in_a_list_and_what_was_made_last_is_last() {
    let world = world!();
    program!("python3");
    let served = code(&world).await;
    let first = served.context(json!({})).await;
    let listed = list(&served).await;
    assert_eq!(listed[0]["language"], "python");
    assert_eq!(listed.last().unwrap()["id"], *first);
    let second = served.context(json!({"cwd": "/home/user/a/b"})).await;
    let listed = list(&served).await;
    let last = listed.last().unwrap();
    assert_eq!(
        last,
        &json!({"id": second, "language": "python", "cwd": "/home/user/a/b"})
    );
    // It was not there before.
    let told = served
        .in_context(
            &second,
            "import os; os.getcwd(), os.stat('.').st_uid == os.getuid()",
        )
        .await;
    assert_eq!(told.text(), Some("('/home/user/a/b', True)"));
    served.destroy().await;
}

/// Asks the port from inside; gives the status.
const ASK: &str = "import sys, urllib.request as u, urllib.error as e\n\
    r = u.Request('http://' + sys.argv[2] + ':49999' + sys.argv[3], method=sys.argv[1], data=b'{}' if sys.argv[1] == 'POST' else None)\n\
    try: print(u.build_opener(u.ProxyHandler({})).open(r).status)\n\
    except e.HTTPError as error: print(error.code)";

#[tokio::test]
async fn a_program_inside_sees_that_code_can_be_run_and_runs_none_there() {
    let world = world!();
    program!("python3");
    let served = code(&world).await;
    let ask = async |method: &str, host: &str, path: &str| {
        let process = json!({"cmd": "python3", "args": ["-c", ASK, method, host, path]});
        let request = json!({"process": process, "stdin": false});
        served.start_with(request, &[]).await.run().await.0
    };
    for _ in 0..2 {
        assert_eq!(ask("GET", "127.0.0.1", "/health").await, "200\n");
        assert_eq!(ask("GET", "0.0.0.0", "/health").await, "200\n");
        assert_eq!(ask("POST", "127.0.0.1", "/execute").await, "404\n");
        assert_eq!(ask("GET", "127.0.0.1", "/contexts").await, "404\n");
        assert_eq!(served.python("1 + 1").await.text(), Some("2"));
        let before = list(&served).await;
        served.python("kept = 1").await;
        // A reboot leaves the port, and of contexts nothing.
        let halt = "/cofferdam/halt?wait_ms=9000";
        let halted = served.http("POST", halt, &[], "").await;
        assert_eq!(halted.json()["halted"], true);
        assert_eq!(
            served.http("POST", "/cofferdam/boot", &[], "").await.status,
            200
        );
        assert_ne!(list(&served).await[0]["id"], before[0]["id"]);
        assert_eq!(served.python("kept").await.error(), "NameError");
    }
    served.destroy().await;
}

#[tokio::test]
async fn who_holds_the_port_open_from_inside_keeps_nobody_outside_from_it() {
    let world = world!();
    program!("python3");
    let served = code(&world).await;
    let hold = "import socket, time\nall = [socket.create_connection(('127.0.0.1', 49999)) for _ in range(64)]\n\
        print('held', flush=True); time.sleep(600)";
    let process = json!({"cmd": "python3", "args": ["-c", hold]});
    let mut holds = served
        .start_with(json!({"process": process, "stdin": false}), &[])
        .await;
    holds.until("held\n").await;
    assert_eq!(served.code("GET", "/health", "").await.status, 200);
    assert_eq!(served.python("1 + 1").await.text(), Some("2"));
    served.destroy().await;
}

//! What a guest keeps of the processes that were asked for, for its node.

use crate::live_client::{Served, shell};
use crate::live_context::program;
use crate::world::PATIENCE;
use serde_json::{Value, json};

async fn facts(served: &Served<'_>, after: u64, wait_ms: u64) -> Vec<Value> {
    let path = format!("/cofferdam/execs?after={after}&wait_ms={wait_ms}");
    let got = served.get(&path).await;
    assert!(
        got.status == 200 && got.body.len() <= 512 * 1024,
        "{}",
        got.body.len()
    );
    got.json()["facts"].as_array().cloned().unwrap_or_default()
}

/// All facts, once all that has started has ended: who waited for a process that was late has heard of its time
/// before it was killed.
async fn facts_of_ended(served: &Served<'_>) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    let all_ended = async {
        loop {
            let last = all.last().and_then(|fact| fact["seq"].as_u64());
            // Whoever has these waits for the next one.
            all.extend(facts(served, last.unwrap_or(0), 10_000).await);
            let ended = |start: &Value| all.iter().any(|fact| fact["of"] == start["seq"]);
            let mut starts = all.iter().filter(|fact| fact["kind"] == "started");
            if starts.all(ended) {
                return;
            }
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, all_ended).await;
    assert!(in_time.is_ok(), "a process did not end: {all:?}");
    all
}

#[tokio::test]
async fn a_process_is_known_by_what_was_asked_and_how_it_ended() {
    let world = world!();
    let served = world.serve(false).await;
    let who = [
        ("cofferdam-principal", "uid:7"),
        ("cofferdam-request", "req_1"),
        ("connect-timeout-ms", "200"),
    ];
    let long = "x".repeat(100_000);
    let mut process = shell("echo hello; echo no >&2; exit 3");
    process["envs"] = json!({"KEY": "a secret"});
    process["cwd"] = "/tmp".into();
    let first = json!({"process": process, "tag": "t", "stdin": false});
    served.start_with(first, &who[..2]).await.run().await;
    let killed = json!({"process": shell("kill -9 $$")});
    served.start_with(killed, &[]).await.end().await;
    let late = json!({"process": shell("sleep 100")});
    let mut late = served.start_with(late, &who).await;
    late.pid().await;
    while late.next().await.message().is_ok() {}
    let cut = json!({"process": {"cmd": "/bin/true", "args": [long]}});
    served.start_with(cut, &[]).await.end().await;
    let absent = json!({"process": {"cmd": "/no/such"}});
    let absent = served.start_with(absent, &[]).await.next().await;
    assert!(absent.message().is_err());

    let all = facts_of_ended(&served).await;
    let starts: Vec<&Value> = all
        .iter()
        .filter(|fact| fact["kind"] == "started")
        .collect();
    let ends: Vec<Value> = starts
        .iter()
        .filter_map(|start| all.iter().find(|fact| fact["of"] == start["seq"]))
        .map(|fact| fact["end"].clone())
        .collect();
    assert_eq!(ends[0], json!({"how": "exited", "code": 3}));
    assert_eq!(ends[1], json!({"how": "signaled", "signal": 9}));
    assert_eq!(ends[2], json!({"how": "timed_out"}));
    assert_eq!(ends[3], json!({"how": "exited", "code": 0}));
    assert_eq!(ends[4]["how"], "not_started");
    let asked = &starts[0]["asked"];
    assert_eq!(
        asked["argv"],
        json!(["/bin/sh", "-c", "echo hello; echo no >&2; exit 3"])
    );
    assert_eq!(
        (&asked["cwd"], &asked["user"], &asked["tag"]),
        (&"/tmp".into(), &"user".into(), &"t".into())
    );
    assert_eq!(
        (&asked["principal"], &asked["request_id"]),
        (&"uid:7".into(), &"req_1".into())
    );
    assert_eq!(asked["env_names"], json!(["KEY"]));
    assert!(!all.iter().any(|fact| fact.to_string().contains("a secret")));
    assert_eq!(
        (&starts[3]["asked"]["cut"], &asked["cut"]),
        (&true.into(), &false.into())
    );
    let end = all.iter().find(|fact| fact["of"] == starts[0]["seq"]);
    let end = end.expect("its end");
    assert_eq!(
        (&end["stdout_bytes"], &end["stderr_bytes"]),
        (&6.into(), &3.into())
    );
    served.destroy().await;
}

/// Each start with how it ended.
fn pairs(facts: &[Value]) -> Vec<(&Value, &Value)> {
    let starts = facts.iter().filter(|fact| fact["kind"] == "started");
    let ends = |seq: &Value| facts.iter().find(|fact| &fact["of"] == seq);
    starts
        .map(|start| (&start["asked"], ends(&start["seq"]).expect("its end")))
        .collect()
}

#[tokio::test]
async fn a_step_in_a_context_is_known_by_its_code_and_how_it_ended() {
    let world = world!();
    program!("python3");
    let served = world.serve(false).await;
    let asked = json!({"code": "print('hi')", "env_vars": {"KEY": "a secret"}});
    served.execute(asked).await.end().await;
    let fails = json!({"code": "raise ValueError('a secret')"});
    served.execute(fails).await.end().await;
    let dies = json!({"code": "import os; os._exit(7)"});
    served.execute(dies).await.end().await;
    let shell = json!({"code": "exit_with() { return 3; }; exit_with", "language": "bash"});
    served.execute(shell).await.end().await;
    // One that is taken away in the middle.
    let got = served.code("POST", "/contexts", "{}").await.json();
    let id = got["id"].as_str().expect("an id").to_owned();
    let sleeps =
        json!({"code": "print(1, flush=True); import time; time.sleep(100)", "context_id": id});
    let mut sleeps = served.execute(sleeps).await;
    sleeps.until("stdout").await;
    served.code("DELETE", &format!("/contexts/{id}"), "").await;
    sleeps.end().await;

    let all = facts(&served, 0, 10_000).await;
    assert!(
        !all.iter()
            .any(|fact| fact.to_string().contains("a secret\"}"))
    );
    let pairs = pairs(&all);
    let ends: Vec<&Value> = pairs.iter().map(|(_, end)| &end["end"]).collect();
    assert_eq!(
        ends,
        [
            &json!({"how": "exited", "code": 0}),
            &json!({"how": "raised", "name": "ValueError"}),
            &json!({"how": "exited", "code": 7}),
            &json!({"how": "exited", "code": 3}),
            &json!({"how": "unknown"}),
        ]
    );
    let (asked, end) = pairs[0];
    assert_eq!(asked["argv"], json!(["print('hi')"]));
    assert_eq!(
        (&asked["principal"], &asked["user"], &asked["cwd"]),
        (&"uid:7".into(), &"user".into(), &"/home/user".into())
    );
    assert_eq!(asked["env_names"], json!(["KEY"]));
    assert_eq!(asked["context"]["language"], "python");
    assert_eq!(
        (&end["stdout_bytes"], &end["stderr_bytes"]),
        (&3.into(), &0.into())
    );
    assert_eq!(pairs[4].0["context"]["id"], id);
    served.destroy().await;
}

#[tokio::test]
async fn what_the_node_has_is_forgotten_and_a_question_waits_for_what_is_new() {
    let world = world!();
    let served = world.serve(false).await;
    served.sh("true").await;
    let all = facts(&served, 0, 10_000).await;
    assert_eq!(all.len(), 2);
    let (new, _) = tokio::join!(facts(&served, 2, 10_000), served.sh("true"));
    assert_eq!(new[0]["seq"], 3);
    served.destroy().await;
}

#[tokio::test]
async fn what_a_flood_of_processes_leaves_out_is_counted() {
    let world = world!();
    let served = world.serve(false).await;
    const ALL: u64 = 10_000;
    let some = async |count: u64| {
        for _ in 0..count {
            let quick = json!({"process": {"cmd": "/bin/true"}, "stdin": false});
            served.start_with(quick, &[]).await.end().await;
        }
    };
    tokio::join!(some(ALL / 4), some(ALL / 4), some(ALL / 4), some(ALL / 4));
    let (mut last, mut known, mut missed) = (0, 0, 0);
    loop {
        let new = facts(&served, last, 0).await;
        let Some(newest) = new.last() else { break };
        assert_eq!(new[0]["seq"], last + 1, "none is passed over in silence");
        last = newest["seq"].as_u64().expect("a number");
        let starts = new.iter().filter(|fact| fact["kind"] == "started");
        known += starts.count() as u64;
        missed += new
            .iter()
            .filter_map(|fact| fact["count"].as_u64())
            .sum::<u64>();
    }
    assert!((2000..ALL).contains(&known), "{known} are known");
    // Each one that is not known is a start that was missed, and maybe the end of one that is known.
    assert!(
        missed >= ALL - known,
        "{missed} are missed, {known} are known"
    );
    served.destroy().await;
}

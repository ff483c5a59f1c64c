//! A sandbox that lives on: what looks like a credential is not told, at no door and however it is written.

use crate::live_client::{Served, base64, shell};
use crate::live_context::program;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Made of two parts, so that no command has it in one.
const TOKEN: &str = "ghp_$(printf a1B2%.0s 1 2 3 4 5 6 7 8 9)";
const INSTEAD: &str = "[secret pattern:github-token]";

/// How many were taken out of what a process has told, once it has ended.
async fn found(served: &Served<'_>, seq: u64) -> Value {
    loop {
        let got = served.get("/cofferdam/execs?after=0&wait_ms=1000").await;
        let facts = got.json()["facts"].as_array().cloned().unwrap_or_default();
        if let Some(end) = facts.iter().find(|fact| fact["of"] == seq) {
            return end["patterns_found"].clone();
        }
    }
}

#[tokio::test]
async fn a_token_is_taken_out_of_what_a_command_writes_however_it_is_cut() {
    let world = world!();
    let served = world.serve_scrubbed().await;
    let script = format!(
        "t={TOKEN}; echo \"a $t b\"; printf '\\033[31m%s\\033[0m\\n' $t; printf 'c %s' \"$(echo $t | cut -c-10)\"; \
         echo \"$(echo $t | cut -c11-)\"; printf ghp_"
    );
    let (seen, code) = served.sh(&script).await;
    let expected = format!("a {INSTEAD} b\n\u{1b}[31m{INSTEAD}\u{1b}[0m\nc {INSTEAD}\nghp_");
    assert_eq!((seen.as_str(), code), (expected.as_str(), 0));
    assert_eq!(found(&served, 1).await, 3);
    // Where nobody has asked for it, all is told.
    served.destroy().await;
    let plain = world.serve(false).await;
    let (seen, _) = plain.sh(&format!("echo {TOKEN}")).await;
    assert_eq!(seen, format!("ghp_{}\n", "a1B2".repeat(9)));
    assert_eq!(found(&plain, 1).await, Value::Null);
    plain.destroy().await;
}

#[tokio::test]
async fn what_only_begins_like_a_token_waits_for_a_moment_and_no_longer() {
    let world = world!();
    let served = world.serve_scrubbed().await;
    // A question behind a pipe, which waits for its answer.
    let mut events = served.start("printf 'sk-'; sleep 30").await;
    let begun = Instant::now();
    events.until("sk-").await;
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "it waited for the end"
    );
    served.destroy().await;
}

#[tokio::test]
async fn a_terminal_tells_no_token_and_echoes_each_key() {
    let world = world!();
    let served = world.serve_scrubbed().await;
    let request = json!({
        "process": {"cmd": "/bin/sh", "args": ["-i"], "envs": {"TERM": "dumb", "PS1": "$ "}},
        "pty": {"size": {"cols": 100, "rows": 30}},
    });
    let mut events = served.start_with(request, &[]).await;
    let pid = events.pid().await;
    let type_in = async |text: &str| {
        let input = json!({"process": {"pid": pid}, "input": {"pty": base64(text)}});
        let typed = served.call("process.Process/SendInput", input).await;
        assert_eq!(typed, Ok(json!({})));
    };
    events.until("$ ").await;
    // What could begin one is echoed before the next key comes.
    type_in("gh").await;
    events.until("gh").await;
    type_in("\u{15}").await;
    type_in(&format!("echo {TOKEN}-end\n")).await;
    let seen = events.until(INSTEAD).await;
    assert!(!seen.contains("a1B2a1B2"), "{seen}");
    type_in("exit 0\n").await;
    events.end().await;
    assert_eq!(found(&served, 1).await, 1);
    served.destroy().await;
}

#[tokio::test]
async fn a_token_is_taken_out_of_output_results_and_errors_of_code() {
    let world = world!();
    program!("python3");
    let served = world.serve_scrubbed().await;
    let code = "t = 'ghp_' + 'a1B2' * 9\nprint(t)\ndisplay({'text/html': '<b>' + t, 'image/png': 'AKIA'}, raw=True)\n\
                t";
    let all = served.execute(json!({"code": code})).await.end().await;
    let fails = json!({"code": "raise ValueError('ghp_' + 'a1B2' * 9)"});
    let more = served.execute(fails).await.end().await;
    let text = format!("{all:?} {more:?}");
    assert!(!text.contains("a1B2a1B2"), "{text}");
    assert!(text.matches(INSTEAD).count() >= 5, "{text}");
    assert_eq!(found(&served, 1).await, 3);
    served.destroy().await;
}

#[tokio::test]
async fn a_file_is_read_as_it_is() {
    let world = world!();
    let served = world.serve_scrubbed().await;
    let request = json!({"process": shell(&format!("echo {TOKEN} > key")), "stdin": false});
    served.start_with(request, &[]).await.run().await;
    let got = served.get("/files?path=key").await;
    assert_eq!(
        &got.body[..],
        format!("ghp_{}\n", "a1B2".repeat(9)).as_bytes()
    );
    served.destroy().await;
}

//! A sandbox that lives on: its terminals.

use crate::live_client::{Events, Served, base64};
use serde_json::json;

async fn shell(served: &Served<'_>) -> (u32, Events) {
    let request = json!({
        "process": {"cmd": "/bin/sh", "args": ["-i"], "envs": {"TERM": "dumb", "PS1": "$ "}},
        "pty": {"size": {"cols": 100, "rows": 30}},
    });
    let mut events = served.start_with(request, &[]).await;
    (events.pid().await, events)
}

async fn type_in(served: &Served<'_>, pid: u32, text: &str) {
    let input = json!({"process": {"pid": pid}, "input": {"pty": base64(text)}});
    let typed = served.call("process.Process/SendInput", input).await;
    assert_eq!(typed, Ok(json!({})));
}

#[tokio::test]
async fn a_shell_lives_on_a_terminal_that_can_be_resized() {
    let world = world!();
    let served = world.serve(false).await;
    let (pid, mut events) = shell(&served).await;
    type_in(
        &served,
        pid,
        "stty size; tty; echo of-$(stat -c %U $(tty))\n",
    )
    .await;
    let seen = events.until("of-user").await;
    assert!(
        seen.contains("30 100") && seen.contains("/dev/pts/0"),
        "{seen:?}"
    );
    let size = json!({"process": {"pid": pid}, "pty": {"size": {"cols": 61, "rows": 17}}});
    assert_eq!(
        served.call("process.Process/Update", size).await,
        Ok(json!({}))
    );
    type_in(&served, pid, "stty size; echo x > /dev/tty\n").await;
    events.until("17 61").await;
    type_in(&served, pid, "exit 7\n").await;
    let (_, end) = events.end().await;
    assert_eq!(end["exitCode"], 7);
    served.destroy().await;
}

#[tokio::test]
async fn a_key_interrupts_what_runs_on_a_terminal_and_a_kill_ends_it() {
    let world = world!();
    let served = world.serve(false).await;
    let (pid, mut events) = shell(&served).await;
    // Said by what runs in the foreground: a key that comes while the shell makes it would miss it.
    let sleeper = "sh -c 'echo read\"\"y; exec sleep 60'\n";
    type_in(&served, pid, sleeper).await;
    events.until("ready\r\n").await;
    type_in(&served, pid, "\u{3}").await;
    type_in(&served, pid, "echo wen''t on\n").await;
    events.until("went on").await;
    // Input of another kind has nowhere to go.
    let input = json!({"process": {"pid": pid}, "input": {"stdin": base64("x")}});
    let refused = Err("failed_precondition".to_owned());
    assert_eq!(
        served.call("process.Process/SendInput", input).await,
        refused
    );
    let signal = json!({"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"});
    assert_eq!(
        served.call("process.Process/SendSignal", signal).await,
        Ok(json!({}))
    );
    assert_eq!(events.end().await.1["exitCode"], 137);
    served.destroy().await;
}

/// Attack: Terminals of the host and of others are looked for.
#[tokio::test]
async fn a_terminal_is_nobody_elses() {
    let world = world!();
    let served = world.serve(false).await;
    let (seen, _) = served
        .sh("ls /dev/pts; grep -c ' /dev/pts ' /proc/self/mountinfo")
        .await;
    assert_eq!(seen, "ptmx\n1\n");
    served.destroy().await;
}

//! What `cofferdam run --json` answered: what the job said, and the record of it.
//!
//! Read leniently, field by field: this is a client of the command line, and an answer that it
//! does not understand is to be shown and not to be a crash.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::release::bytes;
use crate::suite::seconds;

/// More than any program of the demo says; the rest is read and dropped.
const SAID_MAX: usize = 4 << 20;

/// How long the pipes of a command may stay open after its end.
const PIPES: Duration = Duration::from_secs(5);

/// Lines of a hostile program that are shown.
const LINES_SHOWN: usize = 80;

/// The answer to one `cofferdam run --json`.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// What the job wrote, and what the command said about it.
    pub(super) said: String,
    /// The record; null when there was none.
    record: Value,
    pub(super) took: Duration,
}

impl Answer {
    /// Runs the command and reads what it says; kills it when it takes longer than `patience`.
    pub(super) fn to(command: &mut Command, patience: Duration) -> Result<Self> {
        let start = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start cofferdam")?;
        let out = child.stdout.take().map(drain);
        let err = child.stderr.take().map(drain);
        wait(&mut child, start + patience)?;
        let took = start.elapsed();
        // Not for ever: who was left behind by the command may hold its pipes open.
        let text = |reader: Option<mpsc::Receiver<String>>| {
            reader
                .and_then(|it| it.recv_timeout(PIPES).ok())
                .unwrap_or_default()
        };
        Ok(Self::from_texts(&text(out), &text(err), took))
    }

    pub(super) fn from_texts(stdout: &str, stderr: &str, took: Duration) -> Self {
        let (mut said, record) = read(stdout);
        said.push_str(stderr);
        Self { said, record, took }
    }

    fn text(&self, pointer: &str) -> Option<&str> {
        self.record.pointer(pointer)?.as_str()
    }

    /// How it ended, in a word; `no record` when there is none.
    pub(super) fn outcome(&self) -> &str {
        self.text("/outcome/kind").unwrap_or("no record")
    }

    pub(super) fn exit_code(&self) -> Option<i64> {
        self.record.pointer("/outcome/exit_code")?.as_i64()
    }

    /// A number from what it used.
    pub(super) fn usage(&self, name: &str) -> Option<u64> {
        self.record.get("usage")?.get(name)?.as_u64()
    }

    /// Whether a clause was in force.
    pub(super) fn held(&self, clause: &str) -> bool {
        self.clauses()
            .any(|it| it["clause"] == clause && it["state"] == "held")
    }

    /// By what means a clause was in force.
    pub(super) fn means(&self, clause: &str) -> &str {
        self.clauses()
            .find(|it| it["clause"] == clause)
            .and_then(|it| it["how"].as_str())
            .unwrap_or("unknown means")
    }

    fn clauses(&self) -> impl Iterator<Item = &Value> {
        self.record["enforcement"].as_array().into_iter().flatten()
    }

    /// Why nothing was started: a limit that was asked for cannot be enforced here.
    pub(super) fn refusal(&self) -> Option<String> {
        const CODE: &str = "limit_unenforceable";
        if self.outcome() == "refused" {
            return Some(self.text("/outcome/why").unwrap_or("no reason").to_owned());
        }
        let coded = |place: &str| self.text(&format!("{place}/code")) == Some(CODE);
        for place in ["", "/error"] {
            if coded(place) {
                let message = self.text(&format!("{place}/message"));
                return Some(message.unwrap_or(CODE).to_owned());
            }
        }
        (self.record.is_null() && self.said.contains(CODE)).then(|| self.said.trim().to_owned())
    }

    /// How it ended, for a person.
    pub(super) fn story(&self) -> String {
        if self.record.is_null() {
            return format!("cofferdam gave no record and said: {}", self.said.trim());
        }
        let code = self.exit_code().map(|code| format!("exit code {code}"));
        let more = ["/detail", "/outcome/why", "/message", "/error/message"];
        let more = more.iter().filter_map(|pointer| self.text(pointer));
        let parts: Vec<String> = std::iter::once(self.outcome().replace('_', " "))
            .chain(code)
            .chain(more.map(str::to_owned))
            .collect();
        parts.join(", ")
    }

    /// What was in force, a line per clause.
    pub(super) fn allowed(&self) -> Vec<String> {
        let text = |it: &Value, name: &str| it[name].as_str().unwrap_or_default().to_owned();
        self.clauses()
            .map(|it| {
                let asked = if it["asked"] == true {
                    "asked"
                } else {
                    "default"
                };
                let held = if it["state"] == "held" {
                    ""
                } else {
                    ", NOT in force"
                };
                let (clause, value, how) = (text(it, "clause"), text(it, "value"), text(it, "how"));
                format!("{clause:<14} {value:<22} by {how} ({asked}{held})")
            })
            .collect()
    }

    /// What it used, in a line.
    pub(super) fn used(&self) -> String {
        let number = |name| self.usage(name);
        let mut parts = Vec::new();
        if let Some(ms) = number("cpu_ms") {
            parts.push(format!("{ms} ms of processor"));
        }
        if let Some(ms) = number("wall_ms") {
            parts.push(format!("{ms} ms by the clock"));
        }
        if let Some(peak) = number("memory_peak_bytes") {
            parts.push(format!("{} of memory at most", bytes(peak)));
        }
        if let Some(peak) = number("pids_peak") {
            parts.push(format!("{peak} processes at most"));
        }
        if let Some(disk) = number("disk_bytes") {
            parts.push(format!("{} written", bytes(disk)));
        }
        parts.push(format!(
            "{} from the command to its answer",
            seconds(self.took)
        ));
        parts.join(", ")
    }

    /// What the job said, for a terminal: bounded, and without characters that would let it
    /// write elsewhere on the screen.
    pub(super) fn shortened(&self) -> String {
        let harmless = |c: char| if c.is_control() { '?' } else { c };
        let mut lines: Vec<String> = self
            .said
            .lines()
            .take(LINES_SHOWN)
            .map(|line| line.chars().take(160).map(harmless).collect())
            .collect();
        let more = self.said.lines().count().saturating_sub(LINES_SHOWN);
        if more > 0 {
            lines.push(format!("... and {more} lines more"));
        }
        lines.join("\n")
    }
}

/// Standard output is the record and nothing else, and what the job wrote is in it. What is no record
/// is shown as it is.
fn read(stdout: &str) -> (String, Value) {
    let Ok(record @ Value::Object(_)) = serde_json::from_str(stdout) else {
        return (stdout.to_owned(), Value::Null);
    };
    let wrote = ["/stdout/text", "/stderr/text"].map(|place| record.pointer(place));
    let wrote = wrote.into_iter().flatten().filter_map(Value::as_str);
    (wrote.collect(), record)
}

fn wait(child: &mut Child, deadline: Instant) -> Result<()> {
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("cofferdam gave no answer in time and was killed");
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Reads to the end, so that the writer never waits for us; keeps what is bounded.
fn drain(mut from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let mut kept = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        while let Ok(size @ 1..) = from.read(&mut buffer) {
            let room = SAID_MAX.saturating_sub(kept.len()).min(size);
            kept.extend_from_slice(&buffer[..room]);
        }
        // Nobody listens any more when it took too long.
        drop(sender.send(String::from_utf8_lossy(&kept).into_owned()));
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{
  "id": "job_1",
  "outcome": {"kind": "failed", "exit_code": 137},
  "detail": "out of memory",
  "stdout": {"total_bytes": 18, "text": "hello\n{\"fake\": 1}\n"},
  "stderr": {"total_bytes": 5, "text": "oops\n"},
  "usage": {"cpu_ms": 12, "memory_peak_bytes": 1048576},
  "enforcement": [
    {"clause": "memory", "how": "cgroup_v1", "value": "64 MiB", "asked": true, "state": "held"},
    {"clause": "cpu", "how": "none", "asked": false, "state": "not_held"}
  ]
}"#;

    fn answer(stdout: &str, stderr: &str) -> Answer {
        Answer::from_texts(stdout, stderr, Duration::from_millis(300))
    }

    #[test]
    fn what_the_job_wrote_is_in_the_record() {
        let it = answer(RECORD, "note\n");
        assert_eq!(it.said, "hello\n{\"fake\": 1}\noops\nnote\n");
        assert_eq!(it.outcome(), "failed");
        assert_eq!(it.exit_code(), Some(137));
        assert_eq!(it.usage("memory_peak_bytes"), Some(1 << 20));
        assert_eq!(it.story(), "failed, exit code 137, out of memory");
    }

    #[test]
    fn what_was_in_force_is_told_from_what_was_not() {
        let it = answer(RECORD, "");
        assert!(it.held("memory"));
        assert!(!it.held("cpu"));
        assert!(!it.held("pids"));
        assert_eq!(it.means("memory"), "cgroup_v1");
        let lines = it.allowed();
        assert!(lines[0].ends_with("by cgroup_v1 (asked)"), "{lines:?}");
        assert!(lines[1].ends_with("(default, NOT in force)"), "{lines:?}");
        assert!(
            it.used().contains("1.0 MiB of memory at most"),
            "{}",
            it.used()
        );
    }

    #[test]
    fn no_record_is_an_answer_too() {
        let it = answer("", "error: it broke\n");
        assert_eq!(it.outcome(), "no record");
        assert!(it.story().contains("it broke"));
        assert_eq!(it.refusal(), None);
    }

    #[test]
    fn a_refusal_is_found_in_every_form() {
        for (out, err) in [
            (
                r#"{"outcome": {"kind": "refused", "exit_code": 125, "why": "no pids"}}"#,
                "",
            ),
            (
                r#"{"code": "limit_unenforceable", "message": "no pids"}"#,
                "",
            ),
            (
                r#"{"error": {"code": "limit_unenforceable", "message": "no pids"}}"#,
                "",
            ),
            ("", "error: no pids [limit_unenforceable]"),
        ] {
            let why = answer(out, err).refusal().unwrap();
            assert!(why.contains("no pids"), "{why}");
        }
        assert_eq!(answer(RECORD, "").refusal(), None);
    }

    #[test]
    fn a_job_cannot_paint_on_the_terminal() {
        let shown = answer("a\x1b[2Jb\n", "").shortened();
        assert_eq!(shown, "a?[2Jb");
        let long = "x\n".repeat(LINES_SHOWN + 5);
        assert!(
            answer(&long, "")
                .shortened()
                .ends_with("... and 5 lines more")
        );
    }

    #[test]
    fn a_command_that_hangs_is_killed() {
        let mut hang = crate::process::command("sh");
        hang.args(["-c", "exec sleep 600"]);
        let error = Answer::to(&mut hang, Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("no answer in time"));
    }
}

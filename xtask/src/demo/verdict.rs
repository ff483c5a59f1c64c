//! Whether a hostile program was contained, from the record of its job and from what it said.
//! Pure: what has to be looked up on the host is handed in.

use std::time::Duration;

use super::answer::Answer;
use crate::release::bytes;
use crate::suite::seconds;

/// How a hostile program prints a success.
const LEAKED: &str = "LEAKED";

/// A snoop that tried less than this did not do its work, and proves nothing.
const ATTEMPTS_MIN: usize = 30;

/// What a job was asked to stay within.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) timeout: Duration,
    pub(super) memory_mib: u64,
    pub(super) disk_mib: u64,
    pub(super) pids: u64,
}

/// What the demo says of a hostile program, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Contained(String),
    Escaped(String),
}

use Verdict::{Contained, Escaped};

/// What is the same for all: a job that was refused did no harm, one without a record or with a
/// success of its own was not contained. `None` when the program ran and has to be looked at.
fn at_once(answer: &Answer, clauses: &[&str]) -> Option<Verdict> {
    if let Some(why) = answer.refusal() {
        return Some(Contained(format!(
            "it was not started, because this machine cannot hold what was asked: {why}"
        )));
    }
    if answer.outcome() == "no record" {
        return Some(Escaped(answer.story()));
    }
    if let Some(line) = answer.said.lines().find(|line| line.contains(LEAKED)) {
        return Some(Escaped(line.to_owned()));
    }
    let missing = clauses.iter().find(|clause| !answer.held(clause));
    missing.map(|clause| {
        Escaped(format!(
            "the record does not say that `{clause}` was in force"
        ))
    })
}

pub(super) fn fork_bomb(answer: &Answer, limits: &Limits) -> Verdict {
    if let Some(verdict) = at_once(answer, &["pids"]) {
        return verdict;
    }
    let peak = answer.usage("pids_peak");
    match peak {
        Some(peak) if peak > limits.pids => {
            return Escaped(format!("{peak} processes at once, and not {}", limits.pids));
        }
        _ => {}
    }
    if answer.outcome() == "succeeded" {
        return Escaped("it says that it succeeded, which a bomb cannot".to_owned());
    }
    let most = peak.map_or_else(String::new, |peak| format!("; {peak} at the most"));
    Contained(format!(
        "never more than {} processes{most} (by {}); ended ({}) after {}",
        limits.pids,
        answer.means("pids"),
        answer.story(),
        seconds(answer.took)
    ))
}

pub(super) fn hog(answer: &Answer, limits: &Limits) -> Verdict {
    if let Some(verdict) = at_once(answer, &["memory", "disk"]) {
        return verdict;
    }
    // Small disks are in memory: the two limits are added up, not shared.
    let ceiling = (limits.memory_mib + limits.disk_mib) << 20;
    let peak = answer.usage("memory_peak_bytes");
    match peak {
        // A tenth for what the kernel counts late.
        Some(peak) if peak > ceiling + ceiling / 10 => {
            return Escaped(format!(
                "{} of memory, and not {}",
                bytes(peak),
                bytes(ceiling)
            ));
        }
        _ => {}
    }
    let most = peak.map_or_else(String::new, |peak| format!(", {} at the most", bytes(peak)));
    Contained(format!(
        "{} MiB of disk (by {}) and {} MiB of memory (by {}){most}; ended: {}",
        limits.disk_mib,
        answer.means("disk"),
        limits.memory_mib,
        answer.means("memory"),
        answer.story()
    ))
}

/// `touched` is what the host itself saw of the snoop.
pub(super) fn snoop(answer: &Answer, touched: Option<&str>) -> Verdict {
    if let Some(what) = touched {
        return Escaped(format!("it reached {what}"));
    }
    if let Some(verdict) = at_once(answer, &["network", "seccomp"]) {
        return verdict;
    }
    let refused = answer
        .said
        .lines()
        .filter(|line| line.starts_with("attempt ") && line.contains(": refused"))
        .count();
    if answer.outcome() != "succeeded" {
        return Escaped(format!("it did not come to its end: {}", answer.story()));
    }
    if refused < ATTEMPTS_MIN {
        return Escaped(format!(
            "it made only {refused} attempts, which proves nothing"
        ));
    }
    Contained(format!(
        "{refused} attempts, each refused; nobody came to the port and the socket that the demo left open"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        timeout: Duration::from_secs(5),
        memory_mib: 64,
        disk_mib: 32,
        pids: 64,
    };

    fn answer(said: &str, outcome: &str, usage: &str) -> Answer {
        let clause = |name: &str| {
            format!(r#"{{"clause":"{name}","how":"cgroup_v1","asked":true,"state":"held"}}"#)
        };
        let held: Vec<String> = ["memory", "pids", "disk", "network", "seccomp"]
            .map(clause)
            .into();
        let record = format!(
            r#"{{"outcome":{{"kind":"{outcome}","exit_code":1}},"usage":{usage},"stdout":{{"text":{}}},"enforcement":[{}]}}"#,
            serde_json::Value::from(said),
            held.join(",")
        );
        Answer::from_texts(&record, "", Duration::from_secs(5))
    }

    fn without(clause: &str) -> Answer {
        let whole = r#"{"outcome":{"kind":"timed_out"},"enforcement":[{"clause":"CLAUSE","state":"not_held"}]}"#;
        Answer::from_texts(&whole.replace("CLAUSE", clause), "", Duration::ZERO)
    }

    fn is_contained(verdict: &Verdict) -> bool {
        matches!(verdict, Contained(_))
    }

    #[test]
    fn a_fork_bomb_is_contained_within_its_number() {
        let good = answer("", "timed_out", r#"{"pids_peak":64}"#);
        assert!(is_contained(&fork_bomb(&good, &LIMITS)));
        let more = answer("", "timed_out", r#"{"pids_peak":65}"#);
        assert!(!is_contained(&fork_bomb(&more, &LIMITS)));
        let happy = answer("", "succeeded", r#"{"pids_peak":3}"#);
        assert!(!is_contained(&fork_bomb(&happy, &LIMITS)));
        assert!(!is_contained(&fork_bomb(&without("pids"), &LIMITS)));
    }

    #[test]
    fn a_hog_is_contained_within_memory_and_disk_added_up() {
        let good = answer("", "failed", r#"{"memory_peak_bytes":100663296}"#);
        assert!(is_contained(&hog(&good, &LIMITS)));
        let more = answer("", "failed", r#"{"memory_peak_bytes":120000000}"#);
        assert!(!is_contained(&hog(&more, &LIMITS)));
        let leak = answer("disk in /tmp: LEAKED 512 MiB\n", "failed", "{}");
        assert_eq!(
            hog(&leak, &LIMITS),
            Escaped("disk in /tmp: LEAKED 512 MiB".to_owned())
        );
        assert!(!is_contained(&hog(&without("memory"), &LIMITS)));
    }

    #[test]
    fn a_snoop_is_contained_when_every_attempt_was_refused() {
        let tried = "attempt read /etc/shadow: refused (No such file)\n".repeat(ATTEMPTS_MIN);
        let good = answer(&tried, "succeeded", "{}");
        assert!(is_contained(&snoop(&good, None)));
        assert!(!is_contained(&snoop(&good, Some("a port"))));
        let lazy = answer("attempt x: refused (y)\n", "succeeded", "{}");
        assert!(!is_contained(&snoop(&lazy, None)));
        let broken = answer(&tried, "failed", "{}");
        assert!(!is_contained(&snoop(&broken, None)));
        let leak = answer(&format!("{tried}attempt z: LEAKED it\n"), "failed", "{}");
        assert!(!is_contained(&snoop(&leak, None)));
    }

    #[test]
    fn what_was_not_started_did_no_harm_and_what_gave_no_record_is_not_trusted() {
        let refused = r#"{"outcome":{"kind":"refused","exit_code":125,"why":"no pids here"}}"#;
        let refused = Answer::from_texts(refused, "", Duration::ZERO);
        assert!(is_contained(&fork_bomb(&refused, &LIMITS)));
        assert!(!is_contained(&fork_bomb(&Answer::default(), &LIMITS)));
        assert!(!is_contained(&snoop(&Answer::default(), None)));
    }
}

//! The books: what was asked for against what is recorded, and what is left.

use crate::load::{Load, expected, get, may_run_again};
use crate::world::World;
use e2e::{groups_of, guests, until};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Sums for the documents, and everything that is wrong.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) sums: BTreeMap<String, u64>,
    pub(crate) wrong: Vec<String>,
}

impl Books {
    fn add(&mut self, name: &str, count: u64) {
        *self.sums.entry(name.to_owned()).or_default() += count;
    }

    /// Closes the books of jobs, when all of them are over.
    pub(crate) fn jobs(&mut self, world: &World, load: &Load) {
        let all = || everything(&world.socket());
        let over = |jobs: &[Value]| jobs.iter().all(|job| job["state"] == "finished");
        if !until(|| over(&all())) {
            self.wrong
                .push("a job is not over after a minute of quiet".to_owned());
        }
        let jobs = all();
        let asked = load
            .jobs
            .lock()
            .expect("nobody panics under this lock")
            .clone();
        let mut seen = BTreeMap::<usize, u64>::new();
        for job in &jobs {
            let Some(tag) = tag_of(job) else { continue };
            *seen.entry(tag).or_default() += 1;
            if asked.get(&tag).map(String::as_str) != job["id"].as_str() {
                self.wrong
                    .push(format!("two jobs were made of one request: {job}"));
            }
            self.job(world, tag, job);
        }
        for (tag, id) in &asked {
            if seen.get(tag) != Some(&1) {
                self.wrong.push(format!(
                    "job {tag} was answered and is not there once: {id}"
                ));
            }
        }
    }

    fn job(&mut self, world: &World, tag: usize, job: &Value) {
        let id = job["id"].as_str().unwrap_or_default();
        let outcome = job["outcome"]["kind"].as_str().unwrap_or("none").to_owned();
        let rule = if may_run_again(tag) {
            "may run again"
        } else {
            "may run once"
        };
        self.add("jobs asked for", 1);
        self.add(&format!("of those that {rule}: {outcome}"), 1);
        let attempts = job["attempt"].as_u64().unwrap_or(0);
        self.add("starts beyond the first", attempts.saturating_sub(1));
        let events = get(&world.socket(), &format!("/v1/jobs/{id}/events"));
        let events = events["events"].as_array().cloned().unwrap_or_default();
        let ends = events
            .iter()
            .filter(|event| event["kind"] == "job.finished")
            .count();
        if ends != 1 {
            self.wrong
                .push(format!("job {tag} has {ends} outcomes: {events:?}"));
        }
        if !["succeeded", "lost"].contains(&outcome.as_str()) {
            let why = (&job["outcome"], &job["detail"]);
            self.wrong
                .push(format!("job {tag} ended {outcome}: {why:?}"));
        }
        self.log(world, tag, job);
    }

    /// The log of a job that succeeded is what it wrote, or says how much is missing. That of another is a
    /// beginning of it.
    fn log(&mut self, world: &World, tag: usize, job: &Value) {
        let id = job["id"].as_str().unwrap_or_default();
        let log = world
            .command(&["job", "logs", id])
            .output()
            .expect("it starts");
        let log = String::from_utf8_lossy(&log.stdout).into_owned();
        let (whole, stdout) = (expected(tag), &job["stdout"]);
        let count = |name: &str| stdout[name].as_u64().unwrap_or(0);
        self.add("bytes of logs", log.len() as u64);
        let succeeded = job["outcome"]["kind"] == "succeeded";
        let attempts = job["attempt"].as_u64().unwrap_or(0);
        if succeeded && explains(&log, &whole, attempts) {
            self.add("logs complete", 1);
            if count("total_bytes") != whole.len() as u64 || count("lost_bytes") != 0 {
                self.wrong
                    .push(format!("the bytes of job {tag} are miscounted: {stdout}"));
            }
        } else if succeeded && count("lost_bytes") > 0 {
            self.add("logs marked incomplete", 1);
            if log.len() as u64 + count("lost_bytes") != whole.len() as u64 {
                self.wrong
                    .push(format!("the bytes of job {tag} are miscounted: {stdout}"));
            }
        } else if succeeded {
            let (has, most) = (log.len(), whole.len());
            self.wrong.push(format!(
                "the log of job {tag} has {has} of {most} bytes: {job}"
            ));
        } else {
            self.add("logs of jobs that were lost", 1);
            if !explains(&format!("{log}{whole}"), &whole, attempts + 1) {
                self.wrong.push(format!(
                    "the log of job {tag} is not what it wrote: {log:.200}"
                ));
            }
        }
    }

    /// What is left on the machines of nodes, now that nothing is to run.
    pub(crate) fn machines(&mut self, world: &World, sandboxes: &BTreeSet<String>) {
        let left = || -> Vec<String> {
            let each = world
                .machines
                .iter()
                .flat_map(|machine| left_on(machine, sandboxes));
            each.collect()
        };
        until(|| left().is_empty());
        self.wrong
            .extend(left().into_iter().map(|what| format!("left: {what}")));
        self.add("sandboxes looked for on nodes", sandboxes.len() as u64);
    }
}

/// Whether a log is all that was written, after the beginnings of so many attempts less one. What each attempt
/// wrote begins with the same line, which comes once.
fn explains(log: &str, whole: &str, attempts: u64) -> bool {
    let Some(before) = log.strip_suffix(whole) else {
        return false;
    };
    let first = whole.split_inclusive('\n').next().unwrap_or("\n");
    let mut parts = before.split(first);
    let is_clean = parts.next() == Some("");
    let after = whole.strip_prefix(first).unwrap_or_default();
    let parts: Vec<&str> = parts.collect();
    is_clean && (parts.len() as u64) < attempts && parts.iter().all(|part| after.starts_with(part))
}

#[test]
fn a_log_is_explained_by_what_was_written_and_by_the_beginnings_of_earlier_attempts() {
    let whole = "a 0\na 1\na 2\n";
    for (log, attempts, expect) in [
        ("a 0\na 1\na 2\n", 1, true),
        ("a 0\na 1\n", 1, false),
        ("a 0\na 0\na 1\na 2\n", 2, true),
        ("a 0\na 0\na 1\na 2\n", 1, false),
        ("a 0\na 2\na 0\na 1\na 2\n", 2, false),
        ("a 1\na 0\na 2\n", 2, false),
    ] {
        assert_eq!(explains(log, whole, attempts), expect, "{log:?} {attempts}");
    }
    assert!(explains("", "", 1));
}

fn tag_of(job: &Value) -> Option<usize> {
    let script = job["spec"]["argv"][2].as_str()?;
    let rest = script.split("echo \"chaos ").nth(1)?;
    rest.split(' ').next()?.parse().ok()
}

/// Every job that there is.
fn everything(socket: &Path) -> Vec<Value> {
    let (mut all, mut before) = (Vec::new(), None::<String>);
    loop {
        let from = before
            .map(|before| format!("&before={before}"))
            .unwrap_or_default();
        let page = get(socket, &format!("/v1/jobs?limit=500{from}"));
        all.extend(page["jobs"].as_array().cloned().unwrap_or_default());
        match page["next"].as_str() {
            Some(next) => before = Some(next.to_owned()),
            None => return all,
        }
    }
}

/// The directories of sandboxes that are there.
pub(crate) fn sandboxes_on(machine: &crate::world::Machine) -> Vec<String> {
    let names = in_nodes(machine, "linux/sandboxes");
    let last = |path: String| path.rsplit('/').next().map(str::to_owned);
    names.into_iter().filter_map(last).collect()
}

fn in_nodes(machine: &crate::world::Machine, kind: &str) -> Vec<String> {
    let nodes = machine.space.seen(&machine.state.join("nodes"));
    let nodes = std::fs::read_dir(nodes).into_iter().flatten().flatten();
    let dirs = nodes.map(|node| node.path().join(kind));
    let entries = dirs.flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten());
    entries
        .map(|entry| entry.path().display().to_string())
        .collect()
}

/// Processes, mounts, directories, and control groups of sandboxes that were seen.
fn left_on(machine: &crate::world::Machine, sandboxes: &BTreeSet<String>) -> Vec<String> {
    let processes = guests(&machine.state)
        .into_iter()
        .map(|pid| format!("process {pid:?}"));
    let groups = sandboxes.iter().flat_map(|one| groups_of(one));
    let groups = groups.map(|path| path.display().to_string());
    let kinds = ["jobs", "sandboxes", "linux/sandboxes"];
    let dirs = kinds.iter().flat_map(|kind| in_nodes(machine, kind));
    let mounts = std::fs::read_to_string(format!("/proc/{}/mountinfo", machine.space.pid()));
    let below = format!("{}/", machine.state.display());
    let mounts = mounts.unwrap_or_default();
    let mounts = mounts
        .lines()
        .filter(|line| line.contains(&below))
        .map(str::to_owned);
    processes.chain(groups).chain(dirs).chain(mounts).collect()
}

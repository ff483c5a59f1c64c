//! `cofferdam node reap`: what nodes of this machine have left behind, of which nobody has a record.
//!
//! The next process of a node takes up or takes away what the last one left. What is looked for here has no next
//! process: directories of nodes that this machine is not any more, sandboxes without a record, halves of copies,
//! and control groups. Network namespaces, mounts and storage on the disk have no names, and go with the last
//! process by themselves. Nothing is touched that a process holds a lock or a descriptor of, that a record names,
//! or that is young; and nothing at all without `--apply`.

mod look;
mod tell;

use crate::cli::args::Place;
use crate::cli::failure::{Failure, chain};
use crate::cli::table;
use crate::private::Locked;
use crate::state::State;
use crate::sweep;
use api::Code;
use api::fleet::NodeLeftovers;
use driver::host::Host;
use driver::orphan::Orphan;
use model::id::SandboxId;
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

pub(crate) use tell::tell;

/// What is shown and taken away at one time; of more, the next command takes the rest.
const FOUND_MAX: usize = 10_000;

/// What `node reap` goes by where nobody says otherwise.
pub(crate) const IDLE: Duration = Duration::from_secs(24 * 3600);
pub(crate) const AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// From when on something is left behind that nobody owns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Not touched for so long.
    pub(crate) idle: Duration,
    /// Or so old.
    pub(crate) age: Duration,
    /// What time it is, in milliseconds since 1970.
    pub(crate) now_ms: u64,
}

impl Bounds {
    /// A time to come was just now.
    fn since(self, at_ms: u64) -> Duration {
        Duration::from_millis(self.now_ms.saturating_sub(at_ms))
    }

    /// Pure.
    fn are_over(self, idle: Duration, age: Duration) -> bool {
        idle >= self.idle || age >= self.age
    }
}

/// What is left, and how it is taken away.
#[derive(Debug)]
enum What {
    /// The directory of a node that this machine is not, with all that is in it.
    Node(PathBuf),
    /// A sandbox of the node that this machine is, in that node's directory.
    Sandbox(PathBuf, SandboxId),
    /// Half of a copy of files, in this directory or file.
    Copy(PathBuf),
    /// Control groups.
    Groups(Orphan),
}

/// One thing that is left.
#[derive(Debug)]
struct Left {
    what: What,
    idle: Duration,
    age: Duration,
    /// Of disk, as far as it was looked at.
    bytes: u64,
}

/// What was looked at, and locks of what it is in: nobody begins to use that while they are held.
#[derive(Debug, Default)]
struct Seen {
    left: Vec<Left>,
    /// What was not looked at, and why.
    notes: Vec<String>,
    /// Names that may still be looked at.
    budget: usize,
    _locks: Vec<Locked>,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    /// Whether it was taken away, and not only looked for.
    applied: bool,
    leftovers: Vec<Line>,
    /// What was not looked at, and why.
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Line {
    kind: &'static str,
    what: String,
    /// How long nobody has touched it.
    idle_s: u64,
    age_s: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Left {
    fn line(&self) -> Line {
        let (kind, what) = match &self.what {
            What::Node(dir) => ("node", dir.display().to_string()),
            What::Sandbox(_, id) => ("sandbox", id.to_string()),
            What::Copy(path) => ("copy", path.display().to_string()),
            What::Groups(orphan) => ("groups", orphan.id.to_string()),
        };
        Line {
            kind,
            what,
            idle_s: self.idle.as_secs(),
            age_s: self.age.as_secs(),
            removed: None,
            error: None,
        }
    }
}

/// Looks, and takes away what it finds where that is asked for. Fails where something cannot be taken away.
pub(crate) async fn reap(
    place: &Place,
    bounds: Bounds,
    (apply, json): (bool, bool),
) -> Result<ExitCode, Failure> {
    let state = State::of(place)?;
    let is_named = place.state.is_some();
    if !state.is_there()? && is_named {
        // Else a name that was mistyped would read as if nothing were left.
        let message = format!("there is no state at {}", state.dir().display());
        let failure = Failure::new(Code::StateUnusable, message);
        return Err(failure.hint("correct --state or COFFERDAM_STATE"));
    }
    let host = Host::probe_for_jobs();
    let seen = look::look(&state, &host, bounds)?;
    let mut leftovers = Vec::new();
    for left in &seen.left {
        let mut line = left.line();
        if apply {
            let gone = take_away(&left.what, &host).await;
            line.removed = Some(gone.is_ok());
            line.error = gone.err();
        }
        leftovers.push(line);
    }
    let report = Report {
        applied: apply,
        leftovers,
        notes: seen.notes,
    };
    say(&report, json)?;
    let all_gone = report.leftovers.iter().all(|line| line.error.is_none());
    Ok(ExitCode::from(u8::from(!all_gone)))
}

/// Counts what is left, and touches and holds nothing. The node whose process this is looks after its own directory.
fn count(state: &State, host: &Host, now_ms: u64) -> Result<NodeLeftovers, Failure> {
    let bounds = Bounds {
        idle: IDLE,
        age: AGE,
        now_ms,
    };
    let seen = look::glance(state, host, bounds)?;
    let bytes = seen.left.iter().map(|left| left.bytes);
    Ok(NodeLeftovers {
        count: u32::try_from(seen.left.len()).unwrap_or(u32::MAX),
        bytes: bytes.fold(0, u64::saturating_add),
        at_ms: now_ms,
        partial: !seen.notes.is_empty() || seen.budget == 0,
    })
}

/// May be repeated: what it has begun and not ended when it dies is found again.
async fn take_away(what: &What, host: &Host) -> Result<(), String> {
    let io = |error: std::io::Error| error.to_string();
    match what {
        What::Node(dir) => {
            let gone = sweep::destroy(dir, host).await;
            gone.map_err(|error| chain(&error))?;
            std::fs::remove_dir_all(dir).map_err(io)
        }
        What::Sandbox(node, id) => {
            let gone = sweep::destroy_one(node, host, id).await;
            gone.map_err(|error| chain(&error))
        }
        What::Copy(path) if path.is_dir() => std::fs::remove_dir_all(path).map_err(io),
        What::Copy(path) => std::fs::remove_file(path).map_err(io),
        What::Groups(orphan) => orphan.remove().map_err(io),
    }
}

fn say(report: &Report, json: bool) -> Result<(), Failure> {
    if json {
        return table::print(&table::to_json(report)?);
    }
    for note in &report.notes {
        table::note(note);
    }
    for error in report.leftovers.iter().filter_map(|line| {
        let error = line.error.as_ref()?;
        Some(format!("{} stays: {error}", line.what))
    }) {
        table::complain(&error);
    }
    if report.leftovers.is_empty() {
        table::note("nothing is left behind");
        return Ok(());
    }
    let rows = report.leftovers.iter().map(|line| {
        let is = match line.removed {
            None => "there",
            Some(true) => "gone",
            Some(false) => "stays",
        };
        let spans = [span(line.idle_s), span(line.age_s)];
        let [idle, age] = spans;
        vec![
            line.kind.to_owned(),
            is.to_owned(),
            idle,
            age,
            line.what.clone(),
        ]
    });
    let head = ["KIND", "IS", "IDLE", "AGE", "WHAT"];
    table::print(&table::layout(&head, rows.collect()))?;
    if !report.applied {
        table::note("nothing was touched; `--apply` takes it away");
    }
    Ok(())
}

/// A span in its largest unit, rounded down.
fn span(seconds: u64) -> String {
    match seconds {
        0..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_in_its_largest_unit() {
        let all = [59, 3599, 3600, 172_799, 172_800].map(span);
        assert_eq!(all, ["0 min", "59 min", "1 h", "47 h", "2 d"]);
    }
}

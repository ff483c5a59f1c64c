//! `cargo xtask demo`: the main job on real-looking data, then three programs that mean harm.
//!
//! It does what a person would do, with the binary that a person would use. Its state is in a
//! temporary directory and goes away with it; the picture stays, because it is what was asked for.

mod answer;
mod decoys;
mod verdict;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::workspace::Workspace;
use crate::{process, release, say};
use answer::Answer;
use decoys::Decoys;
use verdict::{Limits, Verdict};

/// How long after the timeout that was asked for an answer may take before it is a failure of
/// ours. Generous: a shared machine with one core runs this too.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the remains of a sandbox may be seen after its outcome: tear-down is never between a
/// result and the caller.
const TEAR_DOWN: Duration = Duration::from_secs(10);

/// What the main job may use; several times what it needs.
const MAIN_JOB: Limits = Limits {
    timeout: Duration::from_secs(60),
    memory_mib: 256,
    disk_mib: 64,
    pids: 64,
};

/// What the hostile programs may use; little, so that they reach it soon.
const HOSTILE: Limits = Limits {
    timeout: Duration::from_secs(20),
    memory_mib: 64,
    disk_mib: 32,
    pids: 64,
};

/// The fork bomb never stops by itself, so its time is what the demo takes.
const FORK_BOMB_TIMEOUT: Duration = Duration::from_secs(5);

/// Builds, shows, and fails if a hostile program was not contained.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    say::heading("0. One self-contained binary");
    let binary = release::build(workspace)?;
    let demo = Demo::new(workspace, binary, TEAR_DOWN)?;
    say::heading("1. The main job: a year of river readings, a script that reads them, a picture");
    demo.main_job()?;
    let mut escaped = Vec::new();
    for (number, hostile) in (2..).zip(HOSTILE_PROGRAMS) {
        say::heading(&format!("{number}. {}", hostile.title));
        match demo.hostile(hostile)? {
            Verdict::Contained(why) => say::line(format_args!("contained: {why}")),
            Verdict::Escaped(how) => {
                say::line(format_args!("NOT CONTAINED: {how}"));
                escaped.push(hostile.script);
            }
        }
    }
    say::line("");
    if !escaped.is_empty() {
        bail!("not contained: {}", escaped.join(", "));
    }
    say::line("One job done, three programs contained, nothing left behind.");
    Ok(())
}

/// A program that means harm.
struct Hostile {
    title: &'static str,
    script: &'static str,
    limits: Limits,
    judge: fn(&Answer, &Limits, &Decoys) -> Verdict,
}

const HOSTILE_PROGRAMS: &[Hostile] = &[
    Hostile {
        title: "Hostile: a fork bomb",
        script: "fork-bomb.sh",
        limits: Limits {
            timeout: FORK_BOMB_TIMEOUT,
            ..HOSTILE
        },
        judge: |answer, limits, _| verdict::fork_bomb(answer, limits),
    },
    Hostile {
        title: "Hostile: a hog that takes all disk and all memory",
        script: "hog.sh",
        limits: HOSTILE,
        judge: |answer, limits, _| verdict::hog(answer, limits),
    },
    Hostile {
        title: "Hostile: a snoop that looks for secrets, processes and the network",
        script: "snoop.sh",
        limits: HOSTILE,
        judge: |answer, _, decoys| verdict::snoop(answer, decoys.touched()),
    },
];

struct Demo {
    binary: PathBuf,
    examples: PathBuf,
    /// Where the picture goes.
    kept: PathBuf,
    /// The binary's state, and the decoys; gone when this is dropped.
    scratch: TempDir,
    /// How long a sandbox may take to be gone.
    tear_down: Duration,
}

impl Demo {
    fn new(workspace: &Workspace, binary: PathBuf, tear_down: Duration) -> Result<Self> {
        let kept = workspace.target.join("demo");
        fs::create_dir_all(&kept)
            .with_context(|| format!("cannot make the directory {}", kept.display()))?;
        Ok(Self {
            binary,
            examples: workspace.root.join("examples"),
            kept,
            scratch: TempDir::with_prefix("cofferdam-demo-").context("cannot make a directory")?,
            tear_down,
        })
    }

    /// `cofferdam run` with these limits and our state.
    fn command(&self, limits: &Limits, enforce: bool) -> Command {
        let mut command = process::command(&self.binary);
        command
            .current_dir(&self.kept)
            .env("COFFERDAM_STATE", self.scratch.path().join("state"))
            .env_remove("COFFERDAM_URL")
            .args(["run", "--json"])
            .arg(format!("--timeout={}s", limits.timeout.as_secs()));
        if enforce {
            command
                .arg(format!("--memory={}M", limits.memory_mib))
                .arg(format!("--disk={}M", limits.disk_mib))
                .arg(format!("--pids={}", limits.pids));
        }
        command
    }

    fn main_job(&self) -> Result<()> {
        let river = self.examples.join("river");
        let ask = |enforce| {
            let mut command = self.command(&MAIN_JOB, enforce);
            for file in ["readings.csv", "analyse.awk", "analyse.sh"] {
                command.arg("--file").arg(placed(&river.join(file), file));
            }
            command.args(["--out", "river.svg", "--out", "summary.txt"]);
            command.args(["--", "sh", "analyse.sh"]);
            say::command(&process::shown(&command));
            Answer::to(&mut command, MAIN_JOB.timeout + PATIENCE)
        };
        self.forget_the_picture()?;
        let mut answer = ask(true)?;
        if let Some(why) = answer.refusal() {
            say::line(format_args!("refused, as it should be: {why}"));
            say::line("again, with the best that this machine can do:");
            answer = ask(false)?;
        }
        if answer.outcome() != "succeeded" {
            bail!("the main job did not succeed: {}", answer.story());
        }
        self.show(&answer)
    }

    /// So that a picture from yesterday cannot pass for one from today.
    fn forget_the_picture(&self) -> Result<()> {
        for name in ["river.svg", "summary.txt"] {
            let path = self.kept.join(name);
            if path.exists() {
                fs::remove_file(&path)
                    .with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    fn show(&self, answer: &Answer) -> Result<()> {
        let read = |name: &str| {
            let path = self.kept.join(name);
            fs::read_to_string(&path)
                .with_context(|| format!("the job's {name} did not come back"))
                .map(|text| (path, text))
        };
        let (_, summary) = read("summary.txt")?;
        let (path, picture) = read("river.svg")?;
        if !picture.starts_with("<svg") || !picture.trim_end().ends_with("</svg>") {
            bail!("{} is not a whole picture", path.display());
        }
        say::line("");
        say::quote(&summary);
        let size = u64::try_from(picture.len()).unwrap_or(u64::MAX);
        let size = release::bytes(size);
        say::line(format_args!("\npicture   {} ({size})", path.display()));
        for (index, line) in answer.allowed().iter().enumerate() {
            let label = if index == 0 { "allowed" } else { "" };
            say::line(format_args!("{label:<9} {line}"));
        }
        say::line(format_args!("used      {}", answer.used()));
        Ok(())
    }

    fn hostile(&self, hostile: &Hostile) -> Result<Verdict> {
        let word = self.word();
        let decoys = Decoys::plant(self.scratch.path(), &word)?;
        let script = self.examples.join("hostile").join(hostile.script);
        let mut command = self.command(&hostile.limits, true);
        command
            .arg("--file")
            .arg(placed(&script, hostile.script))
            .args(decoys.hints())
            .args(["--", "sh", hostile.script])
            // A word of this run in the command line, to find what it leaves behind.
            .arg(marked(&word, hostile.script));
        decoys.tempt(&mut command);
        say::command(&process::shown(&command));
        let answer = Answer::to(&mut command, hostile.limits.timeout + PATIENCE)?;
        say::quote(&answer.shortened());
        let verdict = (hostile.judge)(&answer, &hostile.limits, &decoys);
        let left = self.wait_for_tear_down(&marked(&word, hostile.script))?;
        Ok(match (verdict, left) {
            (Verdict::Contained(_), Some(what)) => Verdict::Escaped(format!("it left {what}")),
            (verdict, _) => verdict,
        })
    }

    /// A word that nothing else on this machine has in its command line.
    fn word(&self) -> String {
        let name = self.scratch.path().file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// What is still there of a sandbox when its time for tear-down is over.
    fn wait_for_tear_down(&self, mark: &str) -> Result<Option<String>> {
        let start = Instant::now();
        loop {
            let left = decoys::left_over(mark, self.scratch.path())?;
            if left.is_none() || start.elapsed() > self.tear_down {
                return Ok(left);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The mark of one hostile program; not the decoy's own word, which the demo itself shows around.
fn marked(word: &str, script: &str) -> String {
    format!("{script}-of-{word}")
}

/// `SRC:DST` for `--file`.
fn placed(source: &Path, name: &str) -> OsString {
    let mut text = source.as_os_str().to_owned();
    text.push(":");
    text.push(name);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples() -> PathBuf {
        Workspace::find().unwrap().root.join("examples")
    }

    #[test]
    fn the_analysis_says_today_what_it_said_when_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let river = examples().join("river");
        let mut analyse = process::command("sh");
        analyse.current_dir(dir.path());
        analyse.args([river.join("analyse.sh"), river.join("readings.csv")]);
        let output = analyse.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let summary = fs::read_to_string(dir.path().join("summary.txt")).unwrap();
        assert_eq!(summary.as_bytes(), output.stdout);
        let expected = fs::read_to_string(river.join("summary.expected.txt")).unwrap();
        assert_eq!(summary, expected);
        let picture = fs::read_to_string(dir.path().join("river.svg")).unwrap();
        assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"));
    }

    #[test]
    fn the_analysis_refuses_what_is_not_a_table_of_readings() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("readings.csv");
        for text in [
            "",
            "time,level_m\nnonsense\n",
            "9999-99-99T99:00Z,1,1,1,1\n",
        ] {
            fs::write(&file, text).unwrap();
            let mut analyse = process::command("sh");
            analyse.current_dir(dir.path());
            analyse.arg(examples().join("river/analyse.sh")).arg(&file);
            assert!(!process::succeeds(&mut analyse), "{text:?}");
        }
    }

    #[test]
    fn the_scripts_can_be_read_by_the_shell() {
        for hostile in HOSTILE_PROGRAMS {
            let script = examples().join("hostile").join(hostile.script);
            assert!(process::succeeds(
                process::command("sh").arg("-n").arg(script)
            ));
        }
    }

    /// A binary that answers what a good one would, except that it does `deed` first.
    const FAKE: &str = r#"#!/bin/sh
for last; do :; done
case "$*" in
*river.svg*) echo '<svg></svg>' > river.svg; echo 'All is well' > summary.txt; kind=succeeded ;;
*fork-bomb.sh*) kind=timed_out ;;
*hog.sh*) kind=failed ;;
*) kind=succeeded; for i in 0 1 2 3 4 5 6 7 8 9; do for j in 1 2 3; do
    text="${text}attempt $i$j: refused (no)\n"; done; done ;;
esac
DEED
clause() { printf '{"clause":"%s","how":"magic","asked":true,"state":"held"}%s' "$1" "$2"; }
printf '{"outcome":{"kind":"%s","exit_code":0},"stdout":{"text":"%s"},"enforcement":[' "$kind" "$text"
clause memory ,; clause pids ,; clause disk ,; clause network ,; clause seccomp ''
echo ']}'
"#;

    fn demo_with(deed: &str, dir: &Path) -> Demo {
        use std::os::unix::fs::PermissionsExt as _;
        let workspace = Workspace {
            target: dir.join("target"),
            ..Workspace::find().unwrap()
        };
        let binary = dir.join("cofferdam");
        fs::write(&binary, FAKE.replace("DEED", deed)).unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
        Demo::new(&workspace, binary, Duration::from_millis(100)).unwrap()
    }

    fn contained(deed: &str) -> Vec<bool> {
        let dir = tempfile::tempdir().unwrap();
        let demo = demo_with(deed, dir.path());
        let verdicts = HOSTILE_PROGRAMS.iter().map(|it| demo.hostile(it).unwrap());
        verdicts
            .map(|it| matches!(it, Verdict::Contained(_)))
            .collect()
    }

    #[test]
    fn a_good_binary_does_the_main_job_and_contains_all_three() {
        let dir = tempfile::tempdir().unwrap();
        demo_with("", dir.path()).main_job().unwrap();
        assert_eq!(contained(""), [true, true, true]);
    }

    #[test]
    fn a_picture_that_does_not_come_back_fails_the_main_job() {
        let dir = tempfile::tempdir().unwrap();
        let demo = demo_with("rm -f river.svg", dir.path());
        assert!(demo.main_job().is_err());
    }

    #[test]
    fn a_leak_in_what_a_program_says_is_not_contained() {
        assert_eq!(
            contained("text='attempt x: LEAKED y'"),
            [false, false, false]
        );
    }

    #[test]
    fn a_process_left_behind_is_not_contained() {
        let deed = r#"sh -c 'sleep 1; :' "$last" >/dev/null 2>&1 &"#;
        assert_eq!(contained(deed), [false, false, false]);
    }

    #[test]
    fn a_file_is_placed_under_its_own_name() {
        assert_eq!(placed(Path::new("/a/b.csv"), "b.csv"), "/a/b.csv:b.csv");
    }
}

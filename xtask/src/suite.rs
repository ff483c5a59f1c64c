//! `cargo xtask test`: what CI does, and nothing more.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::process::cargo;
use crate::skips::{self, Report};
use crate::workspace::Workspace;
use crate::{install, process, say, sdk, tidy};

/// Runs everything; stops at the first phase that fails, because what follows would only repeat
/// its complaint.
pub(crate) fn run(workspace: &Workspace, filter: &[String]) -> Result<()> {
    let root = &workspace.root;
    let mut phases = Phases::default();
    phases.run("what the tests need", install::run)?;
    phases.run("format", || {
        process::run(cargo(root).args(["fmt", "--all", "--check"]))
    })?;
    phases.run("tidy", || tidy::run(workspace))?;
    phases.run("lint", || {
        let lint = ["clippy", "--workspace", "--all-targets", "--locked"];
        process::run(cargo(root).args(lint).args(["--", "-D", "warnings"]))
    })?;
    // The whole-system tests start the real binary, which no test target builds by itself.
    phases.run("build", || {
        process::run(cargo(root).args(["build", "--locked", "--package", "cofferdam"]))
    })?;
    let mut report = Report::default();
    phases.run("test", || {
        report = tests(workspace, filter)?;
        Ok(())
    })?;
    if filter.is_empty() && tidy::has_doc_tests(root)? {
        phases.run("documentation tests", || {
            process::run(cargo(root).args(["test", "--workspace", "--locked", "--doc"]))
        })?;
    }
    phases.summary(&report);
    Ok(())
}

/// The tests themselves. What they print goes to a report, so that the console shows which test
/// runs and not what all of them say.
fn tests(workspace: &Workspace, filter: &[String]) -> Result<Report> {
    // nextest keeps its store below the workspace, wherever the binaries go.
    let junit = workspace.root.join("target/nextest/default/junit.xml");
    match fs::remove_file(&junit) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context("cannot remove the report of the run before");
        }
        _ => {}
    }
    let config = workspace.root.join("xtask/nextest.toml");
    let mut nextest = cargo(&workspace.root);
    nextest
        .args(["nextest", "run", "--workspace", "--locked"])
        .args(["--no-fail-fast", "--tool-config-file"])
        .arg(format!("xtask:{}", config.display()))
        .args(filter)
        .env("COFFERDAM_BIN", workspace.target.join("debug/cofferdam"));
    nextest
        .env("COFFERDAM_E2B_PYTHON", sdk::pythons(&workspace.target))
        .env("COFFERDAM_E2B_JS", sdk::javascripts(&workspace.target))
        .env("COFFERDAM_MCP_PYTHON", sdk::mcp_python(&workspace.target))
        .env(
            "COFFERDAM_MCP_INSPECTOR",
            sdk::mcp_inspector(&workspace.target),
        );
    process::run(&mut nextest)?;
    let report = Report::read(&junit)?;
    let problems = skips::judge(&report, &workspace.root.join("xtask/skips.txt"))?;
    if !problems.is_empty() {
        bail!(
            "tests were skipped that should run here; xtask/skips.txt says which may be:\n  {}",
            problems.join("\n  ")
        );
    }
    Ok(report)
}

/// What ran, and how long it took.
#[derive(Debug, Default)]
struct Phases {
    done: Vec<(&'static str, Duration)>,
}

impl Phases {
    fn run(&mut self, name: &'static str, phase: impl FnOnce() -> Result<()>) -> Result<()> {
        say::heading(name);
        let start = Instant::now();
        let outcome = phase();
        let took = start.elapsed();
        self.done.push((name, took));
        outcome.with_context(|| format!("{name} failed after {}", seconds(took)))?;
        say::line(format_args!("{name}: ok in {}", seconds(took)));
        Ok(())
    }

    fn summary(&self, report: &Report) {
        say::heading("all of it");
        for (name, took) in &self.done {
            say::line(format_args!("{:>9}  {name}", seconds(*took)));
        }
        for skip in &report.skips {
            say::line(format_args!("  skipped  {skip}"));
        }
        let total: Duration = self.done.iter().map(|(_, took)| *took).sum();
        say::line(format_args!(
            "ok: {} tests, {} failed, {} skips (each of them known), {}",
            report.tests,
            report.failed,
            report.skips.len(),
            seconds(total)
        ));
    }
}

/// A duration for a person.
pub(crate) fn seconds(took: Duration) -> String {
    let tenths = took.as_millis() / 100;
    if tenths < 600 {
        format!("{}.{} s", tenths / 10, tenths % 10)
    } else {
        format!("{} min {} s", tenths / 600, tenths % 600 / 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_for_people() {
        assert_eq!(seconds(Duration::from_millis(1_249)), "1.2 s");
        assert_eq!(seconds(Duration::from_millis(59_999)), "59.9 s");
        assert_eq!(seconds(Duration::from_secs(187)), "3 min 7 s");
    }

    #[test]
    fn a_phase_that_fails_says_which_and_after_how_long() {
        let mut phases = Phases::default();
        assert!(phases.run("first", || Ok(())).is_ok());
        let error = phases.run("second", || bail!("no")).unwrap_err();
        assert!(error.to_string().starts_with("second failed after 0.0 s"));
        assert_eq!(phases.done.len(), 2);
    }
}

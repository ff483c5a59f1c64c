//! The SDKs of E2B that the door for its clients is tried with: of each language the newest release that was
//! checked, and an older one. They are installed below the target directory, which outlives a checkout in
//! CI. Without the network there are none, and the tests that need them say that they were skipped.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::process::{self, command};
use crate::say;

/// From PyPI, the newest first. The older one speaks the first version of the control plane.
const PYTHON: [&str; 2] = ["2.63.0", "2.45.1"];

/// The client of the code interpreter, beside the newest of them: it takes none before 2.55.1.
const CODE_INTERPRETER: &str = "2.11.5";

/// From npm, the newest first.
const JAVASCRIPT: [&str; 2] = ["2.51.0", "2.39.0"];

/// Pythons that have an SDK, as a list like `PATH`.
pub(crate) fn pythons(target: &Path) -> OsString {
    list(PYTHON.iter().filter_map(|version| {
        tried(
            "Python",
            version,
            python(&target.join(format!("e2b-python-{version}")), version),
        )
    }))
}

/// Directories with an SDK in their `node_modules`, as a list like `PATH`.
pub(crate) fn javascripts(target: &Path) -> OsString {
    list(JAVASCRIPT.iter().filter_map(|version| {
        tried(
            "JavaScript",
            version,
            javascript(&target.join(format!("e2b-javascript-{version}")), version),
        )
    }))
}

fn list(paths: impl Iterator<Item = PathBuf>) -> OsString {
    // A target directory with a colon in its name cannot be in such a list, nor on a `PATH`.
    std::env::join_paths(paths).unwrap_or_default()
}

fn tried(language: &str, version: &str, installed: Result<PathBuf>) -> Option<PathBuf> {
    installed
        .map_err(|error| {
            say::line(format_args!(
                "E2B's SDK {version} for {language} is not tried: {error:#}"
            ))
        })
        .ok()
}

fn python(dir: &Path, version: &str) -> Result<PathBuf> {
    let python = dir.join("bin/python");
    let code = (version == PYTHON[0]).then_some(CODE_INTERPRETER);
    let is = |package: &str, version: &str| {
        format!("import importlib.metadata as m; assert m.version('{package}') == '{version}'\n")
    };
    let code_too = code.map(|code| is("e2b-code-interpreter", code));
    let wanted = is("e2b", version) + &code_too.unwrap_or_default();
    if process::succeeds(command(&python).args(["-c", &wanted])) {
        return Ok(python);
    }
    process::run(command("python3").args(["-m", "venv"]).arg(dir))?;
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ];
    process::run(
        command(&python)
            .args(pip)
            .arg(format!("e2b=={version}"))
            .args(code.map(|code| format!("e2b-code-interpreter=={code}"))),
    )?;
    Ok(python)
}

fn javascript(dir: &Path, version: &str) -> Result<PathBuf> {
    let installed = fs::read_to_string(dir.join("node_modules/e2b/package.json"));
    if installed.is_ok_and(|package| package.contains(&format!("\"version\": \"{version}\""))) {
        return Ok(dir.to_owned());
    }
    fs::create_dir_all(dir).context("cannot make the directory of the SDK")?;
    let npm = ["install", "--silent", "--no-audit", "--no-fund", "--prefix"];
    process::run(
        command("npm")
            .args(npm)
            .arg(dir)
            .arg(format!("e2b@{version}")),
    )?;
    Ok(dir.to_owned())
}

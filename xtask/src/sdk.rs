//! The SDKs of E2B that the door for its clients is tried with: of each language the newest release that was
//! checked, and an older one. They are installed below the target directory, which outlives a checkout in
//! CI. Beside them are two clients of the Model Context Protocol, for the tools of models: its Python SDK, and
//! its Inspector. Without the network there are none, and the tests that need them say that they were skipped.

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

/// The Python SDK of the Model Context Protocol, from PyPI. It speaks the newest protocol and those before.
const MCP_PYTHON: &str = "2.3.0";

/// The Inspector of the Model Context Protocol, from npm: the newest that Node 20 runs.
const MCP_INSPECTOR: &str = "0.15.0";

/// A Python that has the SDK of the Model Context Protocol; empty when there is none.
pub(crate) fn mcp_python(target: &Path) -> OsString {
    let dir = target.join(format!("mcp-python-{MCP_PYTHON}"));
    let installed = python_with(&dir, &[("mcp", MCP_PYTHON)]);
    one("The Python SDK of MCP", MCP_PYTHON, installed)
}

/// The directory with the Inspector in its `node_modules`; empty when there is none.
pub(crate) fn mcp_inspector(target: &Path) -> OsString {
    let dir = target.join(format!("mcp-inspector-{MCP_INSPECTOR}"));
    let installed = node_with(&dir, "@modelcontextprotocol/inspector", MCP_INSPECTOR);
    one("The Inspector of MCP", MCP_INSPECTOR, installed)
}

fn one(what: &str, version: &str, installed: Result<PathBuf>) -> OsString {
    let not = |error: &anyhow::Error| {
        say::line(format_args!("{what} {version} is not tried: {error:#}"));
    };
    installed.inspect_err(not).unwrap_or_default().into()
}

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
    let mut packages = vec![("e2b", version)];
    if version == PYTHON[0] {
        packages.push(("e2b-code-interpreter", CODE_INTERPRETER));
    }
    python_with(dir, &packages)
}

/// The Python of a directory that has these packages, by name and version.
fn python_with(dir: &Path, packages: &[(&str, &str)]) -> Result<PathBuf> {
    let python = dir.join("bin/python");
    let is = |(package, version): &(&str, &str)| {
        format!("import importlib.metadata as m; assert m.version('{package}') == '{version}'\n")
    };
    let wanted: String = packages.iter().map(is).collect();
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
    let named = packages
        .iter()
        .map(|(package, version)| format!("{package}=={version}"));
    process::run(command(&python).args(pip).args(named))?;
    Ok(python)
}

fn javascript(dir: &Path, version: &str) -> Result<PathBuf> {
    node_with(dir, "e2b", version)
}

/// The directory, with this version of a package in its `node_modules`.
fn node_with(dir: &Path, package: &str, version: &str) -> Result<PathBuf> {
    let manifest = dir.join("node_modules").join(package).join("package.json");
    let installed = fs::read_to_string(manifest);
    if installed.is_ok_and(|text| text.contains(&format!("\"version\": \"{version}\""))) {
        return Ok(dir.to_owned());
    }
    fs::create_dir_all(dir).context("cannot make the directory of the package")?;
    let npm = ["install", "--silent", "--no-audit", "--no-fund", "--prefix"];
    process::run(
        command("npm")
            .args(npm)
            .arg(dir)
            .arg(format!("{package}@{version}")),
    )?;
    Ok(dir.to_owned())
}

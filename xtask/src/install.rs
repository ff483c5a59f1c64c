//! What the tests need from the system, and how it gets there.
//!
//! On Debian and Ubuntu, as root, what is missing is installed. Everywhere else the exact line to
//! type is printed and the command fails: a script that calls `sudo` behind a person's back is
//! not a favour.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::process::{self, cargo, command, find};
use crate::say;

/// The version of nextest that the suite was last checked with. Any version that is there is
/// used; this one is installed where there is none, so that next year's machine gets the same.
const NEXTEST: &str = "0.9.143";

/// Something from the system.
struct Thing {
    /// What it is for, for the person who is asked to install it.
    what: &'static str,
    /// The packages of Debian and Ubuntu that bring it.
    packages: &'static [&'static str],
    there: fn() -> bool,
}

const THINGS: &[Thing] = &[
    Thing {
        what: "a C compiler (SQLite is built from source)",
        packages: &["gcc", "libc6-dev"],
        there: || find("cc").is_some() || find("gcc").is_some(),
    },
    Thing {
        what: "bubblewrap (the benchmarks compare with it)",
        packages: &["bubblewrap"],
        there: || find("bwrap").is_some(),
    },
    Thing {
        what: "newuidmap (sandboxes of an ordinary user)",
        packages: &["uidmap"],
        there: || find("newuidmap").is_some(),
    },
    Thing {
        what: "Python with venv (E2B's SDK is tried)",
        packages: &["python3", "python3-venv"],
        there: || process::succeeds(command("python3").args(["-c", "import ensurepip, venv"])),
    },
    Thing {
        what: "the PostgreSQL server (tests start one of their own)",
        packages: &["postgresql"],
        there: || find("initdb").is_some() || debian_initdb(Path::new("/usr/lib/postgresql")),
    },
];

/// Debian keeps the server's programs off the `PATH`, one directory per version.
fn debian_initdb(versions: &Path) -> bool {
    fs::read_dir(versions).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.path().join("bin/initdb").is_file())
    })
}

/// Installs what is missing; quick when nothing is.
pub(crate) fn run() -> Result<()> {
    system_packages()?;
    toolchain_parts()?;
    nextest()
}

fn system_packages() -> Result<()> {
    let missing: Vec<&Thing> = THINGS.iter().filter(|thing| !(thing.there)()).collect();
    if missing.is_empty() {
        say::line("everything from the system is here");
        return Ok(());
    }
    let packages: Vec<&str> = missing
        .iter()
        .flat_map(|thing| thing.packages.iter().copied())
        .collect();
    let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
    match advice(&os, is_root(), &packages) {
        Advice::Install => apt(&packages)?,
        Advice::Tell(text) => {
            let list: String = missing
                .iter()
                .map(|thing| format!("\n  {}", thing.what))
                .collect();
            bail!("the tests need what is not here:{list}\n{text}");
        }
    }
    match missing.iter().find(|thing| !(thing.there)()) {
        Some(thing) => bail!("it was installed and is still not here: {}", thing.what),
        None => Ok(()),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Advice {
    Install,
    Tell(String),
}

fn advice(os_release: &str, root: bool, packages: &[&str]) -> Advice {
    let packages = packages.join(" ");
    match (is_debian(os_release), root) {
        (true, true) => Advice::Install,
        (true, false) => Advice::Tell(format!(
            "type this, then start again:\n  sudo apt-get update && sudo apt-get install --yes --no-install-recommends {packages}"
        )),
        (false, _) => Advice::Tell(format!(
            "install it with this system's package manager, then start again; on Debian the packages are called: {packages}"
        )),
    }
}

fn is_debian(os_release: &str) -> bool {
    os_release
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(key, _)| matches!(*key, "ID" | "ID_LIKE"))
        .flat_map(|(_, value)| value.trim_matches(['"', '\'']).split_whitespace())
        .any(|name| matches!(name, "debian" | "ubuntu"))
}

/// Whether we are root, as the owner of our own entry in `/proc` tells.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|us| us.uid() == 0)
}

fn apt(packages: &[&str]) -> Result<()> {
    // Nobody may be there to answer a package's question.
    let apt_get = || {
        let mut it = command("apt-get");
        it.env("DEBIAN_FRONTEND", "noninteractive");
        it
    };
    process::run(apt_get().args(["--quiet", "update"]))?;
    process::run(
        apt_get()
            .args(["--quiet", "install", "--yes", "--no-install-recommends"])
            .args(packages),
    )
}

/// rustup's minimal profile has neither formatter nor linter.
fn toolchain_parts() -> Result<()> {
    let here = Path::new(".");
    let missing: Vec<&str> = [("fmt", "rustfmt"), ("clippy", "clippy")]
        .into_iter()
        .filter(|(tool, _)| !process::succeeds(cargo(here).args([tool, "--version"])))
        .map(|(_, part)| part)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if find("rustup").is_none() {
        bail!(
            "this toolchain lacks {}; install it with the toolchain's own package manager",
            missing.join(" and ")
        );
    }
    process::run(command("rustup").args(["component", "add"]).args(&missing))
}

fn nextest() -> Result<()> {
    let here = Path::new(".");
    if process::succeeds(cargo(here).args(["nextest", "--version"])) {
        say::line("cargo-nextest is here");
        return Ok(());
    }
    say::line("cargo-nextest is not here; building it once takes some minutes");
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
    // From a directory outside the workspace, so that our settings do not reach that build.
    process::run(cargo(&home).args(["install", "--locked", "--version", NEXTEST, "cargo-nextest"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\n";
    const UBUNTU: &str = "NAME=\"Ubuntu\"\nID=ubuntu\nID_LIKE=debian\n";
    const MINT: &str = "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n";
    const FEDORA: &str = "ID=fedora\nHOME_URL=\"https://debian.example\"\n";

    #[test]
    fn only_root_on_debian_installs() {
        assert_eq!(advice(DEBIAN, true, &["uidmap"]), Advice::Install);
        assert_eq!(advice(UBUNTU, true, &["uidmap"]), Advice::Install);
        assert_eq!(advice(MINT, true, &["uidmap"]), Advice::Install);
        for (os, root) in [(DEBIAN, false), (FEDORA, true), ("", true)] {
            let Advice::Tell(text) = advice(os, root, &["bubblewrap", "uidmap"]) else {
                panic!("{os:?} must not install");
            };
            assert!(text.contains("bubblewrap uidmap"), "{text}");
        }
    }

    #[test]
    fn an_ordinary_user_is_told_the_exact_line() {
        assert_eq!(
            advice(DEBIAN, false, &["uidmap"]),
            Advice::Tell(
                "type this, then start again:\n  sudo apt-get update && sudo apt-get install --yes --no-install-recommends uidmap"
                    .to_owned()
            )
        );
    }

    #[test]
    fn the_server_is_found_where_debian_hides_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!debian_initdb(dir.path()));
        let bin = dir.path().join("15/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join("initdb"), "").unwrap();
        assert!(debian_initdb(dir.path()));
    }
}

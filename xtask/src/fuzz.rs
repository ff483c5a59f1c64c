//! `cargo xtask fuzz`: the fuzz targets of all rooms, one after the other, each built so that it knows what an input
//! reaches. The same targets run in the ordinary tests, shortly and without that.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use cargo_metadata::Message;

use crate::process::{self, cargo, command};
use crate::say;
use crate::workspace::Workspace;

/// The rooms that have targets, and where: in a test of its own, or in modules called `fuzz`.
const ROOMS: [(&str, &[&str]); 8] = [
    ("api", &["--lib"]),
    ("egress", &["--lib"]),
    ("guest", &["--bin", "guest"]),
    ("model", &["--test", "fuzz"]),
    ("rego", &["--lib"]),
    ("scrub", &["--test", "fuzz"]),
    ("server", &["--lib"]),
    ("service", &["--lib"]),
];

/// Runs each target that has this word in its name, for so long.
///
/// # Errors
/// The first one that fails, and where there is none with that word.
pub(crate) fn run(
    workspace: &Workspace,
    word: Option<&str>,
    seconds: u64,
    keep: bool,
) -> Result<()> {
    let mut count = 0;
    for (room, place) in ROOMS {
        let program = build(workspace, room, place)?;
        for name in targets(&program, place)? {
            let is_meant = word.is_none_or(|word| room.contains(word) || name.contains(word));
            if !is_meant {
                continue;
            }
            count += 1;
            let mut target = command(&program);
            target
                .args(["--exact", &name, "--nocapture", "--test-threads=1"])
                .current_dir(workspace.root.join("crates").join(room))
                .env("COFFERDAM_FUZZ_SECONDS", seconds.to_string())
                .env("LLVM_PROFILE_FILE", "/dev/null");
            if keep {
                target.env("COFFERDAM_FUZZ_KEEP", "1");
            }
            process::run(&mut target).with_context(|| format!("{room}: {name}"))?;
        }
    }
    if count == 0 {
        bail!("no target has that word in its name");
    }
    say::line(format_args!("{count} targets, {seconds} s each"));
    Ok(())
}

/// Builds the tests of a room, its own code and that of the other rooms with counters.
fn build(workspace: &Workspace, room: &str, place: &[&str]) -> Result<PathBuf> {
    let mut cargo = cargo(&workspace.root);
    cargo
        .args(["test", "--locked", "--no-run", "--package", room])
        .args(place)
        .arg("--message-format=json-render-diagnostics")
        .env("RUSTC_WORKSPACE_WRAPPER", wrapper(&workspace.root))
        // What is built with counters is slow without it.
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        .env("LLVM_PROFILE_FILE", "/dev/null")
        .stdout(Stdio::piped());
    say::command(&process::shown(&cargo));
    let mut child = cargo.spawn().context("cannot start cargo")?;
    let output = child.stdout.take().context("cargo says nothing")?;
    let mut program = None;
    for message in Message::parse_stream(std::io::BufReader::new(output)) {
        if let Message::CompilerArtifact(artifact) = message?
            && artifact.profile.test
        {
            program = artifact.executable.or(program);
        }
    }
    if !child.wait()?.success() {
        bail!("the tests of {room} cannot be built");
    }
    let program = program.with_context(|| format!("{room} has no tests"))?;
    Ok(program.into_std_path_buf())
}

fn wrapper(root: &Path) -> PathBuf {
    root.join("fuzz/rustc.sh")
}

/// The names of its targets: what is in a module `fuzz`, or all of a test that is called so.
fn targets(program: &Path, place: &[&str]) -> Result<Vec<String>> {
    let listed = command(program)
        .arg("--list")
        .env("LLVM_PROFILE_FILE", "/dev/null")
        .output()
        .context("cannot list the targets")?;
    let text = String::from_utf8_lossy(&listed.stdout);
    Ok(named(&text, place.contains(&"fuzz")))
}

fn named(listed: &str, all: bool) -> Vec<String> {
    let names = listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"));
    let is_target = |name: &&str| {
        let is_engines = name.contains("engine::");
        let is_in_module = name.rsplit("::").nth(1) == Some("fuzz");
        !is_engines && (all || is_in_module)
    };
    names.filter(is_target).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_what_is_in_modules_of_that_name_and_not_the_tests_of_the_engine() {
        let listed = "fuzz::heads: test\nfuzz::engine::corpus::a_line: test\nlive::tun::fuzz::dns: test\n\
                      other::test: test\nfuzz::more::x: test\n\n3 tests, 0 benchmarks\n";
        assert_eq!(
            named(listed, false),
            ["fuzz::heads", "live::tun::fuzz::dns"]
        );
        let listed = "engine::corpus::a_line: test\nstreams: test\n";
        assert_eq!(named(listed, true), ["streams"]);
    }

    #[test]
    fn every_room_with_targets_is_built() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for room in std::fs::read_dir(root.join("crates")).unwrap() {
            let room = room.unwrap();
            let has = includes_engine(&room.path());
            let name = room.file_name();
            let is_listed = ROOMS.iter().any(|(one, _)| name == *one);
            assert_eq!(has, is_listed, "{}", room.path().display());
        }
        assert!(wrapper(&root).is_file());
    }

    fn includes_engine(dir: &Path) -> bool {
        let entries = std::fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().path()).any(|path| {
            if path.is_dir() {
                return !path.is_symlink() && includes_engine(&path);
            }
            let is_rust = path.extension().is_some_and(|end| end == "rs");
            is_rust
                && std::fs::read_to_string(&path)
                    .is_ok_and(|text| text.contains("fuzz/engine.rs\"]"))
        })
    }
}

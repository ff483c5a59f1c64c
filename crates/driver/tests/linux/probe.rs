//! A small static program that asks the kernel what a shell cannot ask.

use crate::outside::program;
use crate::world::{World, put, text};
use driver::conformance::{Prepared, command};
use driver::host::Root;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Part of the test, which also runs as a copy where the checkout is not to be seen.
const SOURCE: &str = include_str!("probe.c");

/// Where it is put in a sandbox.
pub(crate) const INSIDE: &str = "/home/user/probe";

/// As an argument of a call: the address of memory that the probe has for it.
pub(crate) const SCRATCH: u64 = 0x5c7_a7c4;

/// Compiles it. It needs nothing of the root that it runs in.
pub(crate) fn build(dir: &Path) -> Vec<u8> {
    let (source, built) = (dir.join("probe.c"), dir.join("probe"));
    if !built.exists() {
        std::fs::write(&source, SOURCE).expect("a source file");
        let compiled = program("cc")
            .env("TMPDIR", dir)
            .args(["-static", "-O1", "-o"])
            .args([&built, &source])
            .output()
            .expect("a C compiler, which the README asks for");
        assert!(compiled.status.success(), "{}", text(&compiled.stderr));
    }
    std::fs::read(built).expect("a program")
}

/// What it answers in a default sandbox of its own, a line for each question.
pub(crate) async fn ask(world: &World, args: &[&str]) -> Vec<String> {
    let mut prepared = world.sandbox(crate::world::DEFAULTS).await;
    let answers = ask_in(world, &mut prepared, args).await;
    world.destroy(&prepared).await;
    answers
}

/// The same in a sandbox that waits.
pub(crate) async fn ask_in(world: &World, prepared: &mut Prepared, args: &[&str]) -> Vec<String> {
    put(prepared, INSIDE, &build(world.dir.path())).await;
    run(prepared, &[&[INSIDE], args].concat()).await
}

/// Runs it where it is already.
pub(crate) async fn run(prepared: &mut Prepared, argv: &[&str]) -> Vec<String> {
    let ran = prepared.run(command(argv)).await.expect("an end");
    assert_eq!(ran.exited.code, Some(0), "{argv:?}: {ran:?}");
    text(&ran.stdout).lines().map(str::to_owned).collect()
}

/// What it answers outside.
pub(crate) fn ask_outside(world: &World, args: &[&str]) -> Vec<String> {
    build(world.dir.path());
    let path = world.dir.path().join("probe").display().to_string();
    let ran = program(&path).args(args).output().expect("the probe");
    assert!(ran.status.success(), "{ran:?}");
    text(&ran.stdout).lines().map(str::to_owned).collect()
}

/// A root file system with the probe in `/bin`, owned as its maker and with its set-user-id bit, and a
/// directory and a file that anybody may write.
pub(crate) fn root(world: &World) -> Root {
    let dir = world.dir.path().join("root");
    for name in ["bin", "etc", "open"] {
        std::fs::create_dir_all(dir.join(name)).expect("a directory");
    }
    std::fs::write(dir.join("bin/probe"), build(world.dir.path())).expect("the probe");
    std::fs::write(dir.join("open/file"), "as it was").expect("a file");
    for (name, mode) in [
        ("bin/probe", 0o4755),
        ("open", 0o777),
        ("open/file", 0o666),
        ("", 0o755),
    ] {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(dir.join(name), mode).expect("a mode");
    }
    Root::read(&dir).expect("a root")
}

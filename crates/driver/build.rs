//! Builds the launcher, the guest and sudo as static programs, so that the driver can carry both inside.
//!
//! Cargo cannot yet depend on another package's binary for another profile, so this calls cargo. The
//! programs share one target directory of their own, whatever profile the driver is built in: they
//! are always built for release.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("../..");
    for watched in [
        "crates/jail",
        "crates/guest",
        "crates/scrub",
        "crates/relay",
        "Cargo.lock",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    let target = variable("TARGET");
    let directory = target_directory().join("programs");
    build(&root, &target, &directory);
    for (program, variable) in [
        ("jail", "JAIL_PROGRAM"),
        ("guest", "GUEST_PROGRAM"),
        ("sudo", "SUDO_PROGRAM"),
    ] {
        let path = directory.join(&target).join("program").join(program);
        println!("cargo::rustc-env={variable}={}", path.display());
    }
}

/// What cargo tells a build script.
fn variable(name: &str) -> String {
    std::env::var(name).expect("cargo sets this for every build script")
}

/// The target directory: the build script's own output is four levels below it.
fn target_directory() -> PathBuf {
    let out = PathBuf::from(variable("OUT_DIR"));
    out.ancestors().nth(4).unwrap_or(&out).to_path_buf()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a build script's child wants the build's environment"
)]
fn build(root: &Path, target: &str, directory: &Path) {
    let status = Command::new(variable("CARGO"))
        .current_dir(root)
        .args([
            "build",
            "--quiet",
            "--locked",
            "--profile",
            "program",
            "-p",
            "jail",
            "-p",
            "guest",
        ])
        .args(["--bins", "--target", target, "--target-dir"])
        .arg(directory)
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        // Set by `cargo clippy`, it would lint these instead of building them.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "jail and guest do not build"
    );
}

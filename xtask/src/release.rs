//! The release binaries: built, measured, and run for benchmarks.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::workspace::Workspace;
use crate::{process, say};

/// Builds `cofferdam` in release mode and says where it is and how big. The guest and the jail
/// are inside it: `crates/driver/build.rs` builds and embeds them.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    process::run(process::cargo(&workspace.root).args([
        "build",
        "--release",
        "--locked",
        "--package",
        "cofferdam",
    ]))?;
    let binary = workspace.release_binary("cofferdam");
    let size = std::fs::metadata(&binary)
        .with_context(|| format!("cargo built nothing at {}", binary.display()))?
        .len();
    say::line(format_args!("{} ({})", binary.display(), bytes(size)));
    Ok(binary)
}

/// Builds everything that is measured in release mode, then measures.
pub(crate) fn bench(workspace: &Workspace, args: &[String]) -> Result<()> {
    build(workspace)?;
    process::run(process::cargo(&workspace.root).args([
        "build",
        "--release",
        "--locked",
        "--package",
        "bench",
    ]))?;
    process::run(process::command(workspace.release_binary("bench")).args(args))
}

/// A size for a person.
pub(crate) fn bytes(size: u64) -> String {
    const UNITS: [&str; 4] = ["bytes", "KiB", "MiB", "GiB"];
    let mut scale = 1_u64;
    let mut unit = 0;
    while unit + 1 < UNITS.len() && size >= scale * 1024 {
        scale *= 1024;
        unit += 1;
    }
    if unit == 0 {
        return format!("{size} {}", UNITS[unit]);
    }
    let tenths = size.saturating_mul(10) / scale;
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_for_people() {
        assert_eq!(bytes(0), "0 bytes");
        assert_eq!(bytes(1023), "1023 bytes");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(67_108_864), "64.0 MiB");
        assert_eq!(bytes(5 << 40), "5120.0 GiB");
    }
}

//! The workspace as cargo sees it: where it is, where its binaries go, what depends on what.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

use crate::process;

/// Where things are.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    /// The directory with the workspace's `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Where cargo puts what it builds; honours `CARGO_TARGET_DIR` and cargo's configuration.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn find() -> Result<Self> {
        let root = root()?;
        let metadata = MetadataCommand::new()
            .current_dir(&root)
            .no_deps()
            .exec()
            .context("cannot read the workspace")?;
        Ok(Self {
            root,
            target: metadata.target_directory.into_std_path_buf(),
        })
    }

    /// A release binary of this workspace.
    pub(crate) fn release_binary(&self, name: &str) -> PathBuf {
        self.target.join("release").join(name)
    }
}

/// At run time rather than at compile time: a target directory may be shared by checkouts.
fn root() -> Result<PathBuf> {
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    let root = xtask.parent().context("xtask is not in a workspace")?;
    Ok(root.to_owned())
}

/// One package: ours, or one that we build on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// Its directory, relative to the root, for ours; nothing for others.
    pub(crate) dir: Option<PathBuf>,
    /// What its manifest says about its licence.
    pub(crate) licence: Option<String>,
    /// What it needs.
    pub(crate) needs: Vec<Need>,
}

/// One dependency of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Need {
    /// The name of the package that is needed.
    pub(crate) name: String,
    /// For tests alone.
    pub(crate) dev: bool,
    /// It is a package of this workspace.
    pub(crate) ours: bool,
}

/// Every package that is part of a build on this machine.
pub(crate) fn packages(root: &Path) -> Result<Vec<Package>> {
    let metadata = MetadataCommand::new()
        .current_dir(root)
        .other_options(vec![
            "--locked".to_owned(),
            // Without this, cargo would download the crates of Windows to tell their licences.
            "--filter-platform".to_owned(),
            host()?,
        ])
        .exec()
        .context("cannot read the dependencies")?;
    Ok(convert(root, &metadata))
}

/// The names of all crates that a build on this machine compiles.
pub(crate) fn built(root: &Path) -> Result<Vec<String>> {
    let output = process::cargo(root)
        .args(["tree", "--workspace", "--locked", "--edges", "all"])
        .args(["--prefix", "none", "--format", "{p}"])
        .output()
        .context("cannot start cargo tree")?;
    let text = String::from_utf8(output.stdout).context("cargo tree does not print text")?;
    let names = text.lines().filter_map(|line| line.split(' ').next());
    let names: Vec<String> = names.map(str::to_owned).collect();
    if !output.status.success() || names.is_empty() {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(anyhow::anyhow!("cargo tree fails: {why}"));
    }
    Ok(names)
}

fn convert(root: &Path, metadata: &Metadata) -> Vec<Package> {
    metadata
        .packages
        .iter()
        .map(|package| {
            let dir = package.manifest_path.parent().map(Into::into);
            Package {
                name: package.name.to_string(),
                dir: dir.and_then(|dir: PathBuf| dir.strip_prefix(root).ok().map(Path::to_owned)),
                licence: package.license.clone(),
                needs: package.dependencies.iter().map(need).collect(),
            }
        })
        .collect()
}

fn need(dependency: &cargo_metadata::Dependency) -> Need {
    Need {
        name: dependency.name.clone(),
        dev: dependency.kind == DependencyKind::Development,
        ours: dependency.path.is_some(),
    }
}

/// The platform that this toolchain builds for when nothing else is said.
fn host() -> Result<String> {
    let output = process::command("rustc")
        .arg("-vV")
        .output()
        .context("cannot start rustc")?;
    let text = String::from_utf8(output.stdout).context("rustc -vV is not text")?;
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("rustc -vV names no host")
}

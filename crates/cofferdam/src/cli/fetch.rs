//! Files that were kept of a job, written to this machine.

use crate::cli::failure::{Failure, reason};
use api::Code;
use api::artifact::ArtifactView;
use api::client::Client;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tokio::io::AsyncWriteExt as _;

/// A file that is not whole yet, beside the place where it goes; taken away if it never gets there.
#[derive(Debug)]
pub(crate) struct Part {
    path: PathBuf,
    is_whole: bool,
}

impl Part {
    /// Puts it where it goes, in place of what is there.
    pub(crate) fn settle(&mut self, target: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, target)?;
        self.is_whole = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_whole {
            // There is nobody left to tell.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// Writes an artifact beside the place and then renames it, so that what is there is replaced whole or
/// not at all, and never written through: a link at the place is replaced, not followed.
pub(crate) async fn fetch(
    client: &Client,
    job: &str,
    artifact: &ArtifactView,
    target: &Path,
) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        let message = format!("failed to write `{}`: {}", target.display(), reason(&error));
        Failure::new(Code::FileUnwritable, message)
    };
    if target.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    let mut bytes = client.artifact_get(job, &artifact.id).await?;
    let (file, mut part) = begin(target).map_err(failed)?;
    let mut file = tokio::fs::File::from_std(file);
    while let Some(chunk) = bytes.chunk().await? {
        file.write_all(&chunk).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    // The job chose it, so it is permissions and nothing more, and no more of them than we give.
    let mode = artifact.mode & 0o777 & !umask();
    let settled = file.set_permissions(Permissions::from_mode(mode)).await;
    settled.map_err(failed)?;
    part.settle(target).map_err(failed)
}

/// A new file in the directory of `target`, for us alone. Its name cannot be guessed, and nothing that
/// has it, be it a link that somebody left there, is opened.
pub(crate) fn begin(target: &Path) -> io::Result<(File, Part)> {
    let parent = target.parent().unwrap_or_else(|| Path::new(""));
    if !parent.as_os_str().is_empty() {
        std::fs::create_dir_all(parent)?;
    }
    let name =
        crate::private::random_name::<8>().map_err(|error| io::Error::other(error.to_string()))?;
    let path = parent.join(format!(".cofferdam-{name}.part"));
    let mut options = File::options();
    let file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    let is_whole = false;
    Ok((file, Part { path, is_whole }))
}

/// Permissions that this process gives to nobody. Read and not asked for: to ask is to change it.
pub(crate) fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let mask = line.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok());
    mask.unwrap_or(0o077)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_new_and_ours_alone_and_goes_when_it_is_not_whole() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("sub/out.txt");
        let (file, part) = begin(&target).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let (_, other) = begin(&target).unwrap();
        assert_ne!(part.path, other.path);
        let path = part.path.clone();
        assert!(path.exists() && path.parent() == target.parent());
        drop((part, other));
        assert_eq!(
            std::fs::read_dir(dir.path().join("sub")).unwrap().count(),
            0
        );
    }

    #[test]
    fn the_mask_of_this_process_is_known() {
        assert!(umask() <= 0o777);
    }
}

//! Files and directories that are for this user alone, in places that others may write to as well.

use crate::cli::failure::{Failure, reason};
use api::Code;
use rustix::fs::FlockOperation;
use std::fs::{DirBuilder, File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// A file that one process has at a time; free again when this is dropped, or the process dies.
#[derive(Debug)]
pub(crate) struct Locked {
    _file: File,
}

/// Makes a directory and its parents for this user alone. One that is there must be so already: whoever
/// may enter it may speak for us, and whoever may write to it may put sockets and files there that we
/// would believe to be our own.
pub(crate) fn private_dir(dir: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    match made {
        Ok(()) => check_private(dir),
        // A file, or a link that leads nowhere.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check_private(dir),
        Err(error) => Err(
            unusable(dir, &format!("failed to make it: {}", reason(&error))).hint(
                "choose another directory with --state, or correct who may write to its parent",
            ),
        ),
    }
}

/// Whether a directory that is there is this user's own and nobody else's.
pub(crate) fn check_private(dir: &Path) -> Result<(), Failure> {
    let meta = std::fs::symlink_metadata(dir)
        .map_err(|error| unusable(dir, &format!("failed to look at it: {}", reason(&error))))?;
    judge(dir, &meta, rustix::process::geteuid().as_raw())
}

fn judge(dir: &Path, meta: &Metadata, own_uid: u32) -> Result<(), Failure> {
    if meta.is_symlink() {
        let hint = "name the directory that it leads to with --state";
        return Err(unusable(dir, "it is a symbolic link").hint(hint));
    }
    if !meta.is_dir() {
        return Err(unusable(dir, "it is not a directory"));
    }
    if meta.uid() != own_uid {
        let why = format!(
            "it belongs to uid {}, and you are uid {own_uid}",
            meta.uid()
        );
        let hint = "choose a directory of your own with --state; after `sudo`, HOME may still be \
                    somebody else's";
        return Err(unusable(dir, &why).hint(hint));
    }
    let mode = meta.mode() & 0o777;
    if mode & 0o077 != 0 {
        let why = format!("others may enter it (its mode is {mode:o})");
        let hint = format!("type `chmod 700 {}`", dir.display());
        return Err(unusable(dir, &why).hint(hint));
    }
    Ok(())
}

fn unusable(dir: &Path, why: &str) -> Failure {
    let message = format!("failed to use the directory `{}`: {why}", dir.display());
    Failure::new(Code::StateUnusable, message)
}

/// Says that a file in a private directory could not be used.
pub(crate) fn failed(what: &str, path: &Path, error: &io::Error) -> Failure {
    let message = format!("failed to {what} `{}`: {}", path.display(), reason(error));
    Failure::new(Code::StateUnusable, message)
}

/// Makes a directory that was not there. `false` when something of this name is there.
pub(crate) fn fresh_dir(dir: &Path) -> Result<bool, Failure> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed("make", dir, &error)),
    }
}

/// Writes a file that only this user can read, whole or not at all.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), Failure> {
    let temporary = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut options = File::options();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|error| failed("write", path, &error))
}

/// Takes the lock that this file is. `None` when another process has it, or the file was taken away
/// while we took its lock: then the lock is on a file that nobody will ever look at again.
pub(crate) fn lock(path: &Path) -> Result<Option<Locked>, Failure> {
    let mut options = File::options();
    let opened = options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        // Its directory was taken away.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path, &error)),
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) if is_at(&file, path) => Ok(Some(Locked { _file: file })),
        Ok(()) | Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(failed("lock", path, &errno.into())),
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Random bytes as text, for names that nobody can guess.
pub(crate) fn random_name<const BYTES: usize>() -> Result<String, Failure> {
    let mut random = [0; BYTES];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn place() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_new_directory_is_for_this_user_alone() {
        let place = place();
        let dir = place.path().join("a/b");
        private_dir(&dir).unwrap();
        let mode = std::fs::metadata(&dir).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700);
        private_dir(&dir).unwrap();
    }

    #[test]
    fn a_directory_that_others_may_enter_is_refused_and_the_remedy_is_said() {
        let place = place();
        for mode in [0o755, 0o710, 0o702, 0o701] {
            set_mode(place.path(), mode);
            let refused = private_dir(place.path()).unwrap_err();
            let text = refused.to_string();
            assert!(
                text.contains("state_unusable") && text.contains("chmod 700"),
                "{text}"
            );
        }
        set_mode(place.path(), 0o700);
        private_dir(place.path()).unwrap();
    }

    #[test]
    fn a_link_and_a_file_and_a_directory_of_somebody_else_are_refused() {
        let place = place();
        let link = place.path().join("link");
        std::os::unix::fs::symlink(place.path(), &link).unwrap();
        assert!(
            private_dir(&link)
                .unwrap_err()
                .to_string()
                .contains("symbolic link")
        );
        let nowhere = place.path().join("nowhere");
        std::os::unix::fs::symlink("/no/such/dir", &nowhere).unwrap();
        assert!(
            private_dir(&nowhere)
                .unwrap_err()
                .to_string()
                .contains("symbolic link")
        );
        let file = place.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(
            private_dir(&file)
                .unwrap_err()
                .to_string()
                .contains("not a directory")
        );
        let meta = std::fs::symlink_metadata(place.path()).unwrap();
        let other = judge(place.path(), &meta, meta.uid() + 1).unwrap_err();
        assert!(other.to_string().contains("belongs to uid"), "{other}");
    }

    #[test]
    fn a_lock_on_a_file_that_was_taken_away_is_none() {
        let place = place();
        let path = place.path().join("lock");
        let held = lock(&path).unwrap();
        assert!(held.is_some() && lock(&path).unwrap().is_none());
        drop(held);
        let again = lock(&path).unwrap();
        assert!(again.is_some());
        std::fs::remove_file(&path).unwrap();
        // Somebody else takes it anew, while `again` is a lock on nothing.
        assert!(lock(&path).unwrap().is_some());
        assert!(lock(&place.path().join("gone/lock")).unwrap().is_none());
    }
}

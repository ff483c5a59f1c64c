//! Blobs: files by the hash of their bytes, in one directory.

use sha2::{Digest, Sha256};
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

/// Numbers for files that are being written, for the whole process.
static NEXT: AtomicU64 = AtomicU64::new(0);
/// Names that may be taken before a writer gives up: what crashed processes of the same number left.
const NAMES_MAX: u32 = 10_000;
/// Blobs that are listed of one part of 256: sixteen million in all, past which some wait for others to go.
const LIST_MAX: usize = 65_536;

/// What the name of a blob begins with that was put aside.
const ASIDE: &str = "aside-";
/// Where the name of the directory is.
const MARK: &str = "mark";
/// Names are shorter.
const MARK_BYTES_MAX: u64 = 256;

/// The directory of all blobs. Clones are the same directory.
#[derive(Debug, Clone)]
pub struct Blobs {
    dir: Arc<PathBuf>,
}

/// A blob that is being written. Dropped before [`BlobWriter::finish`], nothing of it stays.
#[derive(Debug)]
pub struct BlobWriter {
    dir: Arc<PathBuf>,
    temporary: PathBuf,
    file: File,
    hash: Sha256,
    size_bytes: u64,
    most: u64,
    kept: bool,
    /// Locked, so that nobody who opens the directory takes this file for one that was left.
    _incoming: File,
}

/// A blob that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// SHA-256 of its bytes in lower-case hexadecimal digits.
    pub digest: String,
    /// How many.
    pub size_bytes: u64,
}

impl Blobs {
    /// Blobs in `dir`, which is made, for this user alone. What an earlier process left half written is
    /// removed, if nobody else is writing.
    ///
    /// # Errors
    /// Those of making the directory.
    pub fn open(dir: &Path) -> io::Result<Blobs> {
        private_dir(dir)?;
        remove_left(dir)?;
        Ok(Blobs {
            dir: Arc::new(dir.to_owned()),
        })
    }

    /// Begins a blob of at most `most` bytes.
    ///
    /// # Errors
    /// Those of making a file.
    pub fn writer(&self, most: u64) -> io::Result<BlobWriter> {
        let incoming = self.dir.join("incoming");
        private_dir(&incoming)?;
        let lock = File::open(&incoming)?;
        lock.lock_shared()?;
        let (temporary, file) = new_file(&incoming)?;
        let (dir, hash) = (self.dir.clone(), Sha256::new());
        Ok(BlobWriter {
            dir,
            temporary,
            file,
            hash,
            size_bytes: 0,
            most,
            kept: false,
            _incoming: lock,
        })
    }

    /// What this directory is known by, wherever it is mounted: `new`, if nobody has given it a name yet. All that
    /// ask at once get the same.
    ///
    /// # Errors
    /// Those of writing a file.
    pub fn mark(&self, new: &str) -> io::Result<String> {
        let incoming = self.dir.join("incoming");
        private_dir(&incoming)?;
        let path = self.dir.join(MARK);
        if !path.exists() {
            let lock = File::open(&incoming)?;
            lock.lock_shared()?;
            let (temporary, mut file) = new_file(&incoming)?;
            file.write_all(new.as_bytes())?;
            file.sync_all()?;
            // A link is made only where nothing is, so the first one wins.
            let linked = std::fs::hard_link(&temporary, &path);
            std::fs::remove_file(&temporary)?;
            match linked {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                linked => linked?,
            }
            File::open(&*self.dir)?.sync_all()?;
        }
        let mut text = String::new();
        let file = File::open(&path)?;
        io::Read::read_to_string(&mut io::Read::take(file, MARK_BYTES_MAX), &mut text)?;
        Ok(text.trim().to_owned())
    }

    /// Opens a blob for reading.
    ///
    /// # Errors
    /// `NotFound` for one that is not there, also for a text that is no digest.
    pub fn open_blob(&self, digest: &str) -> io::Result<File> {
        File::open(path_of(&self.dir, digest)?)
    }

    /// Removes a blob; one that is not there is removed already.
    ///
    /// # Errors
    /// Those of removing a file.
    pub fn remove(&self, digest: &str) -> io::Result<()> {
        match std::fs::remove_file(path_of(&self.dir, digest)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Blobs {
    /// The blobs of which the first two digits are `part`, at most [`LIST_MAX`] of them, in no order.
    ///
    /// # Errors
    /// Those of reading a directory.
    pub fn list(&self, part: u8) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(self.dir.join(format!("{part:02x}"))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries.take(LIST_MAX) {
            let name = entry?.file_name().into_string().unwrap_or_default();
            // What is no blob is nobody's that we know of, and stays.
            if path_of(&self.dir, &name).is_ok() {
                found.push(name);
            }
        }
        Ok(found)
    }

    /// Removes a blob that was written before `before_ms`. False when there is none that old: another
    /// process may write the same bytes again at any moment, and those are a new blob.
    ///
    /// # Errors
    /// Those of renaming and removing a file.
    pub fn remove_older(&self, digest: &str, before_ms: u64) -> io::Result<bool> {
        let path = path_of(&self.dir, digest)?;
        if !is_older(&path, before_ms)? {
            return Ok(false);
        }
        let incoming = self.dir.join("incoming");
        private_dir(&incoming)?;
        let lock = File::open(&incoming)?;
        lock.lock_shared()?;
        // Put aside first: between a look and a removal, new bytes could take the place of the old ones.
        // If the process ends here, the next one that opens the directory puts back what was put aside: another
        // may have written it anew in this moment, and have said that it is there.
        let aside = incoming.join(format!("{ASIDE}{digest}"));
        if let Err(error) = std::fs::rename(&path, &aside) {
            let gone = error.kind() == io::ErrorKind::NotFound;
            return if gone { Ok(false) } else { Err(error) };
        }
        if is_older(&aside, before_ms)? {
            std::fs::remove_file(&aside)?;
            return Ok(true);
        }
        std::fs::rename(&aside, &path)?;
        Ok(false)
    }
}

/// Whether a file was written before a time; one that is not there was not.
fn is_older(path: &Path, before_ms: u64) -> io::Result<bool> {
    let written = match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        meta => meta?.modified()?,
    };
    let before = UNIX_EPOCH.checked_add(Duration::from_millis(before_ms));
    Ok(before.is_some_and(|before| written < before))
}

/// Removes what crashed processes left half written, and puts back what they had put aside. Whoever writes has the directory locked.
fn remove_left(dir: &Path) -> io::Result<()> {
    let incoming = &dir.join("incoming");
    let lock = match File::open(incoming) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(()),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    for entry in std::fs::read_dir(incoming)? {
        let left = entry?;
        let name = left.file_name().into_string().unwrap_or_default();
        match name
            .strip_prefix(ASIDE)
            .and_then(|digest| path_of(dir, digest).ok())
        {
            // Where the same was written again, it takes the place of the same bytes.
            Some(path) => std::fs::rename(left.path(), path)?,
            None => std::fs::remove_file(left.path())?,
        }
    }
    Ok(())
}

/// A file that nobody else has, not even a process of the same number in another container.
fn new_file(incoming: &Path) -> io::Result<(PathBuf, File)> {
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600);
    for _ in 0..NAMES_MAX {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = incoming.join(format!("{}-{number}", std::process::id()));
        match options.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return Ok((path, opened?)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn private_dir(dir: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

/// Where a blob is. Only a digest gets a path, so that no text from outside becomes one.
fn path_of(dir: &Path, digest: &str) -> io::Result<PathBuf> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    match digest.split_at_checked(2) {
        Some((first, _)) if digest.len() == 64 && digest.bytes().all(hex) => {
            Ok(dir.join(first).join(digest))
        }
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.size_bytes + bytes.len() as u64 > self.most {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let n = self.file.write(bytes)?;
        self.hash.update(bytes.get(..n).unwrap_or_default());
        self.size_bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl BlobWriter {
    /// Keeps the blob for good: when this returns, it survives a power cut.
    ///
    /// # Errors
    /// Those of syncing and renaming a file.
    pub fn finish(mut self) -> io::Result<Written> {
        let digest = std::mem::take(&mut self.hash).finalize();
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = path_of(&self.dir, &digest)?;
        if let Some(parent) = path.parent() {
            private_dir(parent)?;
        }
        self.file.sync_all()?;
        std::fs::rename(&self.temporary, &path)?;
        self.kept = true;
        if let Some(parent) = path.parent() {
            File::open(parent)?.sync_all()?;
            // The parent may be new itself, or be so new that whoever made it has not synced it yet.
            File::open(&*self.dir)?.sync_all()?;
        }
        Ok(Written {
            digest,
            size_bytes: self.size_bytes,
        })
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed now is removed when the directory is opened next.
            drop(std::fs::remove_file(&self.temporary));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn a_blob_is_found_by_the_hash_of_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let mut writer = blobs.writer(10).unwrap();
        writer.write_all(b"abc").unwrap();
        let written = writer.finish().unwrap();
        assert!(written.digest.starts_with("ba7816bf"));
        let mut text = String::new();
        blobs
            .open_blob(&written.digest)
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "abc");
        blobs.remove(&written.digest).unwrap();
        blobs.remove(&written.digest).unwrap();
        assert!(blobs.open_blob(&written.digest).is_err());
    }

    #[test]
    fn a_blob_that_is_too_long_or_given_up_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let mut writer = blobs.writer(2).unwrap();
        assert_eq!(
            writer.write_all(b"abc").unwrap_err().kind(),
            io::ErrorKind::FileTooLarge
        );
        drop(writer);
        assert_eq!(
            std::fs::read_dir(dir.path().join("incoming"))
                .unwrap()
                .count(),
            0
        );
    }

    #[test]
    fn two_writers_of_one_process_or_number_never_share_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Blobs::open(dir.path()).unwrap();
        let mut writers = [open().writer(9).unwrap(), open().writer(9).unwrap()];
        for (writer, bytes) in writers.iter_mut().zip([b"one", b"two"]) {
            writer.write_all(bytes).unwrap();
        }
        for (writer, bytes) in writers.into_iter().zip([b"one", b"two"]) {
            let digest = writer.finish().unwrap().digest;
            let mut read = Vec::new();
            open()
                .open_blob(&digest)
                .unwrap()
                .read_to_end(&mut read)
                .unwrap();
            assert_eq!(read, bytes);
        }
    }

    #[test]
    fn what_a_crash_left_is_removed_when_nobody_writes() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let mut writer = blobs.writer(9).unwrap();
        writer.write_all(b"abc").unwrap();
        let left = dir.path().join("incoming/1-0");
        std::fs::write(&left, "half").unwrap();
        drop(Blobs::open(dir.path()).unwrap());
        assert!(left.exists(), "somebody writes");
        writer.finish().unwrap();
        drop(Blobs::open(dir.path()).unwrap());
        assert!(!left.exists());
    }

    #[test]
    fn what_was_put_aside_when_a_process_ended_is_there_again() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let digest = write(&blobs, b"abc");
        let aside = dir.path().join("incoming").join(format!("{ASIDE}{digest}"));
        std::fs::rename(path_of(dir.path(), &digest).unwrap(), &aside).unwrap();
        assert!(blobs.open_blob(&digest).is_err());
        drop(Blobs::open(dir.path()).unwrap());
        assert!(blobs.open_blob(&digest).is_ok() && !aside.exists());
    }

    #[test]
    fn a_directory_is_known_by_one_name_whoever_asks() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let other = Blobs::open(dir.path()).unwrap();
        assert_eq!(blobs.mark("a").unwrap(), "a");
        assert_eq!(other.mark("b").unwrap(), "a");
        let elsewhere = tempfile::tempdir().unwrap();
        let elsewhere = Blobs::open(elsewhere.path()).unwrap();
        assert_eq!(elsewhere.mark("b").unwrap(), "b");
        assert_eq!(
            std::fs::read_dir(dir.path().join("incoming"))
                .unwrap()
                .count(),
            0
        );
    }

    fn write(blobs: &Blobs, bytes: &[u8]) -> String {
        let mut writer = blobs.writer(9).unwrap();
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap().digest
    }

    #[test]
    fn a_blob_that_is_old_is_removed_and_one_that_was_sent_again_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let (digest, day) = (write(&blobs, b"abc"), Duration::from_secs(86_400));
        let path = path_of(dir.path(), &digest).unwrap();
        let written = std::fs::metadata(&path).unwrap().modified().unwrap();
        let after = u64::try_from(written.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        File::open(&path)
            .unwrap()
            .set_modified(written - day)
            .unwrap();
        assert_eq!(write(&blobs, b"abc"), digest);
        assert!(!blobs.remove_older(&digest, after - 1000).unwrap());
        assert_eq!(blobs.list(0xba).unwrap(), std::slice::from_ref(&digest));
        File::open(&path)
            .unwrap()
            .set_modified(written - day)
            .unwrap();
        assert!(blobs.remove_older(&digest, after - 1000).unwrap());
        assert!(!blobs.remove_older(&digest, after - 1000).unwrap());
        assert_eq!(blobs.list(0xba).unwrap(), Vec::<String>::new());
        assert_eq!(blobs.list(0xbb).unwrap(), Vec::<String>::new());
        let incoming = std::fs::read_dir(dir.path().join("incoming")).unwrap();
        assert_eq!(incoming.count(), 0);
    }

    #[test]
    fn a_text_that_is_no_digest_is_no_path() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        for text in ["", "../../../etc/passwd", &"z".repeat(64)] {
            assert_eq!(
                blobs.open_blob(text).unwrap_err().kind(),
                io::ErrorKind::NotFound
            );
        }
    }
}

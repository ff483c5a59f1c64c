//! What a node writes down about each job and sandbox that it has, so that the next process can go on.
//!
//! One directory for each: `record.json`, and of a job the spools of its output. Nothing is synced to the
//! disk: it is read after the process died, when the page cache is still there; when the machine died,
//! the sandboxes are gone too and there is nothing to go on with.

use api::node::LeaseSpec;
use driver::driver::Handle;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The version of this file.
const VERSION: u32 = 1;

/// The file, and what it is called before it is in force.
const RECORD: &str = "record.json";
const NEW: &str = "record.new";

/// The longest record that is read: the largest request, and what we add.
const RECORD_BYTES_MAX: u64 = 4 << 20;

/// One job on this node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    /// The job.
    pub(crate) job_id: String,
    /// Which try.
    pub(crate) attempt: u32,
    /// Of the lease.
    pub(crate) epoch: u64,
    /// What was asked.
    pub(crate) spec: LeaseSpec,
    /// The sandbox, written down before it is started.
    pub(crate) handle: Handle,
    /// The control plane has acknowledged `started`: the command runs, or may run.
    pub(crate) released: bool,
}

impl Record {
    pub(crate) fn new(lease: &api::node::Lease, handle: Handle) -> Record {
        Record {
            version: VERSION,
            job_id: lease.job_id.clone(),
            attempt: lease.attempt,
            epoch: lease.epoch,
            spec: lease.spec.clone(),
            handle,
            released: false,
        }
    }

    /// Writes the record; the old one or the new one is there at any time, never half of one.
    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        self.prepare(dir)?.put()
    }

    /// Writes the record beside the old one; it is in force when it is [`Prepared::put`] there.
    pub(crate) fn prepare(&self, dir: &Path) -> io::Result<Prepared> {
        prepare(self, dir)
    }

    /// Reads the record of a job's directory; `None` when it cannot be used.
    pub(crate) fn read(dir: &Path) -> Option<Record> {
        read(dir).filter(|record: &Record| record.version == VERSION)
    }
}

/// Writes a record into its directory, beside the one that is in force.
pub(crate) fn prepare(record: &impl Serialize, dir: &Path) -> io::Result<Prepared> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    let text = serde_json::to_vec(record).map_err(io::Error::other)?;
    std::fs::write(dir.join(NEW), text)?;
    Ok(Prepared {
        dir: dir.to_owned(),
    })
}

/// The record that is in force in a directory, if it is one.
pub(crate) fn read<R: DeserializeOwned>(dir: &Path) -> Option<R> {
    let path = dir.join(RECORD);
    if std::fs::metadata(&path).ok()?.len() > RECORD_BYTES_MAX {
        return None;
    }
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// A record that is written and not yet in force.
#[derive(Debug)]
pub(crate) struct Prepared {
    dir: PathBuf,
}

impl Prepared {
    /// Puts it in force, in one step.
    pub(crate) fn put(self) -> io::Result<()> {
        std::fs::rename(self.dir.join(NEW), self.dir.join(RECORD))
    }
}

/// Where a job's files are. The id comes from the control plane; only what looks like one gets a path.
pub(crate) fn dir_of(node_dir: &Path, job_id: &str) -> Option<PathBuf> {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let fits = !job_id.is_empty() && job_id.len() <= 64 && job_id.bytes().all(safe);
    fits.then(|| node_dir.join("jobs").join(job_id))
}

/// The sandboxes that the records in a node's directory name, for whoever looks without being this node; `None`
/// where one of them cannot be read, because then nobody can say what it names.
#[must_use]
pub fn recorded(node_dir: &Path) -> Option<Vec<model::id::SandboxId>> {
    /// What the records of jobs and of sandboxes that live on have alike.
    #[derive(Deserialize)]
    struct Named {
        handle: Handle,
    }
    let all = all(node_dir)
        .into_iter()
        .chain(dirs(&node_dir.join("sandboxes")));
    all.map(|dir| read::<Named>(&dir).map(|named| named.handle.id))
        .collect()
}

/// All directories of jobs.
pub(crate) fn all(node_dir: &Path) -> Vec<PathBuf> {
    dirs(&node_dir.join("jobs"))
}

/// The directories of all records of one kind.
pub(crate) fn dirs(of: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(of) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}

/// Forgets all jobs and sandboxes.
pub(crate) fn forget_all(node_dir: &Path) {
    for dir in all(node_dir)
        .into_iter()
        .chain(dirs(&node_dir.join("sandboxes")))
    {
        remove(&dir);
    }
}

/// Forgets a job.
pub(crate) fn remove(dir: &Path) {
    if let Err(error) = std::fs::remove_dir_all(dir)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "failed to remove the files of what is over");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_is_a_path_gets_no_directory() {
        for id in ["", "../x", "a/b", "job.1", &"x".repeat(65)] {
            assert_eq!(dir_of(Path::new("/n"), id), None, "{id}");
        }
        assert_eq!(
            dir_of(Path::new("/n"), "job_1"),
            Some("/n/jobs/job_1".into())
        );
    }
}

//! Rows of sandboxes that were read after the last commit, so that they are what the database has.
//!
//! Each request to a guest asks which sandbox is meant, and most of them come when nothing was written since
//! the one before. To read the row again takes two changes of threads and a transaction, which is longer
//! than all else that the server does for such a request. Any commit, of whatever, makes all of them old.

use model::id::{SandboxId, TenantId};
use std::collections::HashMap;
use store::sandbox::SandboxRow;

/// Rows that are kept: as many as sandboxes that are likely to be busy at a time. Each has some kilobytes.
const ROWS_MAX: usize = 256;

/// Rows, and how many commits there were before they were read.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    commits: u64,
    rows: HashMap<SandboxId, SandboxRow>,
}

impl Recent {
    /// The row, if it was read after the last of so many commits, and is this tenant's.
    pub(crate) fn get(
        &self,
        commits: u64,
        tenant: &TenantId,
        id: &SandboxId,
    ) -> Option<SandboxRow> {
        self.of_any(commits, id).filter(|row| row.tenant == *tenant)
    }

    /// The same, of whatever tenant it is.
    pub(crate) fn of_any(&self, commits: u64, id: &SandboxId) -> Option<SandboxRow> {
        let row = self.rows.get(id).filter(|_| self.commits == commits);
        row.cloned()
    }

    /// Keeps a row that was read when there were so many commits, or more.
    pub(crate) fn put(&mut self, commits: u64, row: &SandboxRow) {
        if commits > self.commits {
            self.rows.clear();
            self.commits = commits;
        }
        // One that was read before the last commit is old already.
        if commits == self.commits && self.rows.len() < ROWS_MAX {
            self.rows.insert(row.id.clone(), row.clone());
        }
    }
}

//! The database and the blobs: the only place with SQL, on SQLite and on PostgreSQL.
//!
//! What enters is a unit of work: a function on a transaction. What leaves is its result, and only after
//! the database has it for good. Functions on transactions are named by noun and verb, one file for each
//! noun; every change of a job's state is a compare-and-set with its event in the same transaction.
//!
//! One SQL text serves both databases: placeholders are `$1`, `$2`, ... in the order of their first
//! appearance, times and sizes are 64-bit integers, documents are JSON text. What differs is how units
//! of work are carried out: SQLite has one writer that commits them in groups, PostgreSQL has several
//! workers with a transaction for each, or for all that wait at a time of those that come by the hundred
//! ([`Store::write_shared`]).
//!
//! This room must never decide anything (`model` does), never know who asks (`service` does), and never
//! let a half-done unit be seen.

pub mod approval;
pub mod artifact;
pub mod audit;
pub mod blob;
pub mod build;
mod db;
pub mod egress;
pub mod enroll;
mod error;
pub mod event;
pub mod exec;
pub mod idempotency;
pub mod job;
pub mod key;
mod migrate;
pub mod network;
pub mod node;
pub mod output;
pub mod permit;
pub mod policy;
mod postgres;
pub mod principal;
pub mod profile;
pub mod prune;
pub mod queue;
pub mod quota;
pub mod sandbox;
pub mod secret;
pub mod server;
pub mod snapshot;
mod sqlite;
pub mod tenant;
pub mod upload;
pub mod usage;
pub mod volume;
mod work;

pub use crate::db::{Row, Tx, Value};
pub use crate::error::StoreError;

use crate::postgres::others::Others;
use crate::work::{Kind, Work};
use model::id::JobId;
use model::points::Points;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

pub use crate::postgres::address::BadAddress;

/// Where a PostgreSQL is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PostgresPlace {
    /// On this machine, by a Unix socket or by loopback.
    pub is_local: bool,
    /// Connections to it are encrypted, and the other end is checked.
    pub is_encrypted: bool,
}

/// Where the PostgreSQL at this address is. Reads the file with the authorities, if one is named.
///
/// # Errors
/// [`BadAddress`] for what is none, or asks for what cannot be.
pub fn postgres_place(url: &str) -> Result<PostgresPlace, BadAddress> {
    let address = postgres::address::Address::of(url)?;
    Ok(PostgresPlace {
        is_local: address.is_local,
        is_encrypted: address.is_encrypted(),
    })
}

/// Units that may wait for a database. Whoever brings one more waits for its place.
const WAITING_MAX: usize = 1024;

/// A database. Clones are the same database; its threads end with the last of them.
#[derive(Debug, Clone)]
pub struct Store {
    writes: mpsc::Sender<Box<dyn Work>>,
    reads: mpsc::Sender<Box<dyn Work>>,
    /// Where nobody else writes.
    commits: Option<Arc<AtomicU64>>,
    /// Where others do.
    others: Option<Others>,
}

impl Store {
    /// Opens the SQLite database at `path`, which is made, for this user alone, if it is not there.
    ///
    /// # Errors
    /// [`StoreError::NewerSchema`] for a database of a newer version, or what SQLite says.
    pub fn open_sqlite(path: &Path, points: Points) -> Result<Store, StoreError> {
        let (writes, write_units) = mpsc::channel(WAITING_MAX);
        let (reads, read_units) = mpsc::channel(WAITING_MAX);
        let commits = Arc::new(AtomicU64::new(0));
        let units = (write_units, read_units);
        sqlite::start(path, points, units, commits.clone())?;
        Ok(Store {
            writes,
            reads,
            commits: Some(commits),
            others: None,
        })
    }

    /// Makes the SQLite database at `path` quick to open for the next process, if it became slow. For
    /// processes that live for one command; a long-lived one does this all the time by itself.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn settle_sqlite(path: &Path) -> Result<(), StoreError> {
        sqlite::settle(path)
    }

    /// Opens a PostgreSQL database, such as `host=/run/postgresql user=cofferdam`.
    ///
    /// # Errors
    /// [`StoreError::NewerSchema`] for a database of a newer version, or what PostgreSQL says.
    pub fn open_postgres(url: &str, points: Points) -> Result<Store, StoreError> {
        let (writes, units) = mpsc::channel(WAITING_MAX);
        let others = postgres::start(url, points, units)?;
        Ok(Store {
            reads: writes.clone(),
            writes,
            commits: None,
            others: Some(others),
        })
    }

    /// Tells the other processes on this database that something was written, soon and at most once for all that
    /// was written meanwhile. It says not what, and may get lost: whoever waits looks by himself too. Does not
    /// wait, and is not part of any transaction.
    pub fn tell_others(&self) {
        if let Some(others) = &self.others {
            others.tell();
        }
    }

    /// Changes whenever another process has told that it has written something, or may have while nobody listened.
    /// `None` on a database that no other process is told about.
    pub fn others(&self) -> Option<tokio::sync::watch::Receiver<u64>> {
        self.others.as_ref().map(Others::heard)
    }

    /// How often this process has committed, or may have. While the number is the same, what was read after
    /// it was that number is what the database has: it rises before anybody is told that something has
    /// happened. `None` on a database to which other processes write too.
    pub fn commits(&self) -> Option<u64> {
        let commits = self.commits.as_ref();
        commits.map(|commits| commits.load(Ordering::Acquire))
    }

    /// Carries out a unit that changes something. All of it happens or nothing; when this returns `Ok`,
    /// it has happened for good. The unit may be run more than once, so it must not have effects of its
    /// own; and it must give back what a statement of it says went wrong.
    ///
    /// # Errors
    /// The unit's own, or [`StoreError`] of the database. After [`StoreError::Unavailable`] it may have
    /// happened all the same: whoever asks again must be able to find that out.
    pub async fn write<T, F>(&self, unit: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        work::submit(&self.writes, (Kind::Write, None), unit).await
    }

    /// The same, perhaps in one transaction with other units that wait for theirs, which is much cheaper for each. For
    /// units that come by the hundred and seldom fail: when one of them does, each is carried out by itself. `about` is
    /// the job that the unit will read first, if it reads one.
    ///
    /// # Errors
    /// Those of [`Store::write`].
    pub async fn write_shared<T, F>(&self, about: Option<JobId>, unit: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        work::submit(&self.writes, (Kind::Shared, about), unit).await
    }

    /// Carries out a unit that only reads, beside the writer. All that it reads is of one moment.
    ///
    /// # Errors
    /// The unit's own, or [`StoreError`] of the database.
    pub async fn read<T, F>(&self, unit: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        work::submit(&self.reads, (Kind::Read, None), unit).await
    }
}

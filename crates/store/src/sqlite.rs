//! SQLite: one writer thread that commits units in groups, readers beside it.
//!
//! A commit waits for the disk, and the disk does not mind whether one unit is in it or two hundred.
//! So the writer takes whatever waits into one transaction, each unit in a savepoint of its own, so
//! that one that fails takes nobody with it; and it answers only after the commit. Nobody waits for
//! company: a unit that comes alone is committed alone.

use crate::db::{Conn, Tx};
use crate::work::Work;
use crate::{StoreError, migrate};
use model::points::Points;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// Units in one commit: past this the wait of the first grows and the cost of each hardly shrinks.
const GROUP_MAX: usize = 256;
/// How long to wait for another process that writes to the same database.
const BUSY: Duration = Duration::from_secs(5);
/// Readers beside the writer: as many as there are processors on a small machine.
const READERS: usize = 2;
/// Prepared statements that each connection keeps: all that we have.
const STATEMENTS: usize = 128;
/// A write-ahead log of this size is written back beside the writer ...
const LOG_BYTES: u32 = 1 << 20;
/// ... and one of this size by the writer itself, because the other never catches up.
const LOG_BYTES_MAX: u32 = 64 << 20;
/// What a short-lived process may leave in the log.
const LOG_BYTES_LEFT: u64 = 512 << 10;

type Units = mpsc::Receiver<Box<dyn Work>>;

/// Opens the database and starts its threads.
pub(crate) fn start(
    path: &Path,
    points: Points,
    (writes, reads): (Units, Units),
    commits: Arc<AtomicU64>,
) -> Result<(), StoreError> {
    make_private(path)?;
    let conn = open(path)?;
    migrate::sqlite(&conn)?;
    let (ask, asked) = sync_channel(1);
    let writer = Writer {
        conn,
        points,
        log: log_path(path),
        ask,
        commits,
    };
    thread("store-writer", move || writer.run(writes))?;
    let file = path.to_owned();
    thread("store-checkpoint", move || checkpoint(&file, &asked))?;
    let reads = Arc::new(Mutex::new(reads));
    for _ in 0..READERS {
        let (file, reads) = (path.to_owned(), reads.clone());
        thread("store-reader", move || read(&file, &reads))?;
    }
    Ok(())
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread
        .spawn(run)
        .map(drop)
        .map_err(|error| StoreError::Unavailable(Box::new(error)))
}

/// SQLite makes its files with the mode of the database, which it would make for everybody.
fn make_private(path: &Path) -> Result<(), StoreError> {
    let mut options = std::fs::OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(StoreError::Unavailable(Box::new(error)))
        }
        _ => Ok(()),
    }
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    // Else a statement whose values could change its plan is parsed again whenever they differ.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; \
         PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY;",
    )?;
    // Once the log was long, its file would stay so, and the size would say nothing any more.
    conn.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES, |_| Ok(()))?;
    Ok(conn)
}

fn log_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

struct Writer {
    conn: Connection,
    points: Points,
    log: PathBuf,
    /// Wakes the thread that writes the log back.
    ask: SyncSender<()>,
    /// Rises with each group, whatever became of it.
    commits: Arc<AtomicU64>,
}

/// A unit of the group that is being made, and how it went.
type Ran = (Box<dyn Work>, Result<(), StoreError>);

impl Writer {
    fn run(self, mut units: Units) {
        while let Some(first) = units.blocking_recv() {
            let ran = self.group(first, &mut units);
            self.commits.fetch_add(1, Ordering::Release);
            for (unit, outcome) in ran {
                unit.done(outcome);
            }
            self.look_at_log();
        }
    }

    /// One transaction with as many units as wait.
    fn group(&self, first: Box<dyn Work>, units: &mut Units) -> Vec<Ran> {
        let mut ran: Vec<Ran> = Vec::new();
        // What a group left that could not even be undone must not be committed with this one.
        if !self.conn.is_autocommit()
            && let Err(error) = self.statement("ROLLBACK")
        {
            return vec![(first, Err(error))];
        }
        let mut next = Some(first);
        while let Some(mut unit) = next.take() {
            let is_first = self.conn.is_autocommit();
            if is_first && let Err(error) = self.statement("BEGIN IMMEDIATE") {
                // Another process holds the database. Whoever waits would wait as long again.
                let waiting = std::iter::from_fn(|| units.try_recv().ok()).take(GROUP_MAX);
                let units = std::iter::once(unit).chain(waiting);
                ran.extend(units.map(|unit| (unit, Ok(()))));
                return self.undone(ran, &error);
            }
            let outcome = match is_first {
                true => self.first_unit(&mut *unit),
                false => self.unit(&mut *unit),
            };
            match outcome {
                Ok(outcome) => ran.push((unit, outcome)),
                Err(error) => {
                    ran.push((unit, Ok(())));
                    return self.undone(ran, &error);
                }
            }
            if ran.len() < GROUP_MAX {
                next = units.try_recv().ok();
            }
        }
        if self.conn.is_autocommit() {
            return ran; // Nobody has written anything.
        }
        self.points.at("store.before_commit");
        let committed = self.statement("COMMIT");
        self.points.at("store.after_commit");
        match committed {
            Ok(()) => ran,
            Err(error) => self.undone(ran, &error),
        }
    }

    /// Nothing of the group has happened, and the reason is told to each of its units; also to one that
    /// had failed, because what it saw may have been another's work that is now undone.
    fn undone(&self, ran: Vec<Ran>, error: &StoreError) -> Vec<Ran> {
        if !self.conn.is_autocommit() {
            // If this fails too, the next group tries it again before it begins.
            drop(self.statement("ROLLBACK"));
        }
        tracing::error!(%error, units = ran.len(), "failed to commit");
        let full = matches!(error, StoreError::Full);
        let reason = || match full {
            true => StoreError::Full,
            false => StoreError::Unavailable(format!("the group was undone: {error}").into()),
        };
        let units = ran.into_iter();
        units.map(|(unit, _)| (unit, Err(reason()))).collect()
    }

    /// How the first unit of a transaction went; outside of that, an error that ends the whole group.
    /// Nothing is in the transaction yet that a savepoint would protect, so a unit that fails takes it
    /// with it, and the next one begins another.
    fn first_unit(&self, unit: &mut dyn Work) -> Result<Result<(), StoreError>, StoreError> {
        let outcome = unit.run(&mut Tx::new(Conn::Sqlite(&self.conn)));
        if outcome.is_err() && !self.conn.is_autocommit() {
            self.statement("ROLLBACK")?;
        }
        Ok(outcome)
    }

    /// The same for a unit that is not the first. What cannot be taken out of the transaction again must
    /// not be committed with the others.
    fn unit(&self, unit: &mut dyn Work) -> Result<Result<(), StoreError>, StoreError> {
        self.statement("SAVEPOINT unit")?;
        let outcome = unit.run(&mut Tx::new(Conn::Sqlite(&self.conn)));
        // A disk that is full or broken can make SQLite roll back everything, savepoints and all.
        if self.conn.is_autocommit() {
            let unsaid = || StoreError::Unavailable("the transaction was rolled back".into());
            return Err(outcome.err().unwrap_or_else(unsaid));
        }
        if outcome.is_err() {
            self.statement("ROLLBACK TO unit")?;
        }
        self.statement("RELEASE unit")?;
        Ok(outcome)
    }

    fn statement(&self, sql: &str) -> Result<(), StoreError> {
        Ok(self.conn.prepare_cached(sql)?.execute([]).map(drop)?)
    }

    fn look_at_log(&self) {
        let size = std::fs::metadata(&self.log).map_or(0, |meta| meta.len());
        if size > u64::from(LOG_BYTES_MAX) {
            let result = self
                .conn
                .query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()));
            if let Err(error) = result {
                tracing::warn!(%error, "failed to write the log back");
            }
        } else if size > u64::from(LOG_BYTES)
            && let Err(TrySendError::Disconnected(())) = self.ask.try_send(())
        {
            tracing::warn!("nobody writes the log back any more");
        }
    }
}

/// Writes the log back into the database when asked, without holding up the writer.
fn checkpoint(path: &Path, asked: &Receiver<()>) {
    while asked.recv().is_ok() {
        let result = open(path)
            .and_then(|conn| Ok(conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?));
        if let Err(error) = result {
            tracing::warn!(%error, "failed to write the log back");
        }
    }
}

/// Writes a long log back and cuts it off. A program that is started for one command never writes as
/// much as makes [`Writer::look_at_log`] act, and the next one reads the whole log when it opens it.
/// Skipped while another process uses the database.
pub(crate) fn settle(path: &Path) -> Result<(), StoreError> {
    let size = std::fs::metadata(log_path(path)).map_or(0, |meta| meta.len());
    if size > LOG_BYTES_LEFT {
        let conn = open(path)?;
        conn.busy_timeout(Duration::ZERO)?;
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    }
    Ok(())
}

fn read(path: &Path, units: &Mutex<Units>) {
    let mut conn = None;
    loop {
        let next = units
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .blocking_recv();
        let Some(mut unit) = next else { return };
        let outcome = read_one(path, &mut conn, &mut *unit);
        unit.done(outcome);
    }
}

/// The connection is opened with the first unit: a program that reads nothing does not wait for it. One
/// that could not end its transaction is not used again.
fn read_one(
    path: &Path,
    kept: &mut Option<Connection>,
    unit: &mut dyn Work,
) -> Result<(), StoreError> {
    let conn = match kept.take() {
        Some(conn) => conn,
        None => {
            let opened = open(path)?;
            opened.pragma_update(None, "query_only", true)?;
            opened
        }
    };
    conn.prepare_cached("BEGIN")?.execute([])?;
    let outcome = unit.run(&mut Tx::new(Conn::Sqlite(&conn)));
    conn.prepare_cached("COMMIT")?.execute([])?;
    *kept = Some(conn);
    outcome
}

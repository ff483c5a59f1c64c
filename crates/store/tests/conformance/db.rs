//! A database of either kind, and units of work on it without a runtime in the way.

use std::path::PathBuf;
use std::sync::Barrier;

use model::points::Points;
use store::{Store, StoreError, Tx, Value};

/// One case: it gets a database of its own.
pub(crate) type Case = fn(&Db);

/// Where a database is.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Sqlite(PathBuf),
    Postgres(String),
}

impl Place {
    pub(crate) fn open(&self, points: Points) -> Result<Store, StoreError> {
        match self {
            Place::Sqlite(path) => Store::open_sqlite(path, points),
            Place::Postgres(url) => Store::open_postgres(url, points),
        }
    }
}

/// A database that is open.
#[derive(Debug)]
pub(crate) struct Db {
    pub(crate) place: Place,
    pub(crate) store: Store,
}

/// Runs a case on a new SQLite database.
pub(crate) fn on_sqlite(case: Case) {
    let dir = tempfile::tempdir().unwrap();
    case(&Db::open(Place::Sqlite(dir.path().join("db"))));
}

impl Db {
    pub(crate) fn open(place: Place) -> Db {
        Db::open_with(place, Points::none())
    }

    pub(crate) fn open_with(place: Place, points: Points) -> Db {
        let store = place.open(points).unwrap();
        Db { place, store }
    }

    /// The same database once more, as another process would have it.
    pub(crate) fn again(&self) -> Db {
        Db::open(self.place.clone())
    }

    pub(crate) fn write<T, F>(&self, unit: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        wait(self.store.write(unit))
    }

    pub(crate) fn read<T, F>(&self, unit: F) -> T
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        wait(self.store.read(unit)).unwrap()
    }

    /// How many rows a query counts; its one column is called `n`.
    pub(crate) fn count(&self, sql: &'static str, values: &[Value]) -> u64 {
        let values = values.to_vec();
        self.read(move |tx| count(tx, sql, &values))
    }
}

pub(crate) fn count(
    tx: &mut Tx<'_>,
    sql: &'static str,
    values: &[Value],
) -> Result<u64, StoreError> {
    tx.query_one(sql, values)?.unwrap().number("n")
}

/// How many rows of a table this connection has read so far, as PostgreSQL counts them. With SQLite, what is read is
/// seen by the plans of statements, and there are tests of those.
pub(crate) fn read_so_far(tx: &mut Tx<'_>, table: &str) -> Result<u64, StoreError> {
    let sql = "SELECT CAST(seq_tup_read + idx_tup_fetch AS BIGINT) AS n \
         FROM pg_stat_xact_user_tables WHERE relname = $1";
    count(tx, sql, &[table.into()])
}

/// Waits for a unit. The store has threads of its own, so this needs no more than somebody who polls.
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

/// Runs the same on many threads that begin at one moment; returns what each of them got.
pub(crate) fn race<T: Send>(threads: usize, run: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(threads);
    std::thread::scope(|scope| {
        let spawn = |number| {
            let (start, run) = (&start, &run);
            scope.spawn(move || {
                start.wait();
                run(number)
            })
        };
        let running: Vec<_> = (0..threads).map(spawn).collect();
        let ended = running.into_iter();
        ended.map(|thread| thread.join().unwrap()).collect()
    })
}

//! What only SQLite does: units that are committed together, and one file for everything.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use model::points::Points;
use store::job::{self, JobRow};
use store::output::{self, Segment};
use store::{StoreError, Tx};

use crate::db::{Db, Place, race};
use crate::make::{check_in_step, get, insert, job_id, new_job};

/// A database whose writer stops before its first commit until it is told to go on.
struct Held {
    db: Db,
    commits: Arc<AtomicUsize>,
    entered: Receiver<()>,
    go_on: Sender<()>,
    _dir: tempfile::TempDir,
}

impl Held {
    fn open() -> Held {
        let dir = tempfile::tempdir().unwrap();
        let commits = Arc::new(AtomicUsize::new(0));
        let (enter, entered) = channel();
        let (go_on, told) = channel();
        let (counted, told) = (commits.clone(), Mutex::new(told));
        let points = Points::with(move |name| {
            if name == "store.before_commit" && counted.fetch_add(1, Ordering::SeqCst) == 0 {
                enter.send(()).unwrap();
                told.lock().unwrap().recv().unwrap();
            }
        });
        let place = Place::Sqlite(dir.path().join("db"));
        Held {
            db: Db::open_with(place, points),
            commits,
            entered,
            go_on,
            _dir: dir,
        }
    }

    /// Runs units that all wait when the writer comes back, so that they are one group.
    fn together(
        &self,
        number: u64,
        unit: impl Fn(&mut Tx<'_>, u64) -> Result<JobRow, StoreError> + Clone + Send + Sync + 'static,
    ) -> Vec<Result<JobRow, StoreError>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(async {
            let send = |number: u64| {
                let (store, unit) = (self.db.store.clone(), unit.clone());
                tokio::spawn(async move { store.write(move |tx| unit(tx, number)).await })
            };
            let first = send(0);
            tokio::task::yield_now().await;
            self.entered.recv().unwrap();
            let others: Vec<_> = (1..number).map(send).collect();
            // Each of them is looked at, which brings it to the writer's queue; one turn of the runtime
            // does not always look at all.
            for _ in 0..number {
                tokio::task::yield_now().await;
            }
            self.go_on.send(()).unwrap();
            let mut outcomes = vec![first.await.unwrap()];
            for other in others {
                outcomes.push(other.await.unwrap());
            }
            outcomes
        })
    }
}

#[test]
fn units_that_wait_are_committed_together() {
    let held = Held::open();
    let outcomes = held.together(200, |tx, number| job::insert(tx, &new_job(number)));
    assert_eq!(held.commits.load(Ordering::SeqCst), 2);
    for outcome in outcomes {
        check_in_step(&held.db, &outcome.unwrap());
    }
}

#[test]
fn a_unit_that_fails_or_panics_in_a_group_takes_nobody_with_it() {
    let held = Held::open();
    let outcomes = held.together(100, |tx, number| {
        let row = job::insert(tx, &new_job(number))?;
        match number % 5 {
            1 => Err(StoreError::Conflict {
                what: "the test".to_owned(),
            }),
            2 => panic!("the test"),
            // Wrong in itself: the same job again.
            3 => job::insert(tx, &new_job(number)),
            _ => Ok(row),
        }
    });
    assert_eq!(held.commits.load(Ordering::SeqCst), 2);
    for (number, outcome) in (0..).zip(outcomes) {
        match (number % 5, outcome) {
            (0 | 4, Ok(row)) => check_in_step(&held.db, &row),
            (1, Err(StoreError::Conflict { .. })) | (2 | 3, Err(StoreError::Database(_))) => {
                assert_eq!(get(&held.db, &job_id(number)), None);
            }
            (_, outcome) => panic!("{number}: {outcome:?}"),
        }
    }
    let events = "SELECT COUNT(*) AS n FROM event_inbox";
    assert_eq!(held.db.count(events, &[]), 40);
}

#[test]
fn a_unit_sees_what_the_units_before_it_in_its_group_did() {
    let held = Held::open();
    let outcomes = held.together(50, |tx, number| {
        let before = job::count_queued(tx, &crate::make::tenant("a"), 0, 1000)?;
        assert_eq!(before.0, number);
        job::insert(tx, &new_job(number))
    });
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

#[test]
fn units_that_wait_for_another_process_are_told_together() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(Place::Sqlite(dir.path().join("db")));
    let patience = |tx: &mut Tx<'_>| tx.query("PRAGMA busy_timeout = 300", &[]).map(drop);
    db.write(patience).unwrap();
    let other = db.again();
    let (enter, entered) = channel();
    let (go_on, told) = channel();
    let told = Mutex::new(told);
    let holder = std::thread::spawn(move || {
        other.write(move |_| {
            enter.send(()).unwrap();
            told.lock().unwrap().recv().unwrap();
            Ok(())
        })
    });
    entered.recv().unwrap();
    let begin = Instant::now();
    let outcomes = race(20, |number| {
        db.write(move |tx| job::insert(tx, &new_job(number as u64)))
    });
    assert!(begin.elapsed() < Duration::from_secs(3), "one by one");
    for outcome in outcomes {
        let is_busy = matches!(outcome, Err(StoreError::Unavailable(_)));
        assert!(is_busy, "{outcome:?}");
    }
    go_on.send(()).unwrap();
    holder.join().unwrap().unwrap();
    check_in_step(&db, &insert(&db, new_job(1)));
}

#[test]
fn a_copy_of_the_files_has_everything_that_was_answered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = Db::open(Place::Sqlite(path.clone()));
    for number in 0..30 {
        let row = insert(&db, new_job(number));
        if number % 7 != 0 {
            continue;
        }
        // What a crash at this moment would leave; the index of the log is made anew.
        let copy = dir.path().join(format!("copy-{number}"));
        std::fs::copy(&path, &copy).unwrap();
        let log = |path: &std::path::Path| format!("{}-wal", path.display());
        std::fs::copy(log(&path), log(&copy)).unwrap();
        check_in_step(&Db::open(Place::Sqlite(copy)), &row);
    }
}

#[test]
fn the_files_are_for_their_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(Place::Sqlite(dir.path().join("db")));
    insert(&db, new_job(1));
    let mut files = 0;
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        files += 1;
    }
    assert_eq!(files, 3, "the database, its log, and the log's index");
}

#[test]
fn the_log_does_not_grow_without_end_and_is_short_again_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(Place::Sqlite(dir.path().join("db")));
    let row = crate::make::leased_job(&db, 1);
    let append = |offset_bytes: u64, bytes: usize| {
        let piece = Segment {
            seq: 0,
            attempt: 1,
            stream: "stdout".to_owned(),
            offset_bytes,
            data: vec![0; bytes],
            at_ms: 1,
        };
        let id = row.id.clone();
        db.write(move |tx| output::append(tx, &id, &piece, 0))
            .unwrap();
        std::fs::metadata(dir.path().join("db-wal")).unwrap().len()
    };
    let longest = (0..400).map(|number| append(number, 256 << 10)).max();
    assert!(
        longest < Some(70 << 20),
        "{longest:?} bytes of log for 100 MiB"
    );
    // Another thread writes it back, and the writer begins it anew when that has come to its end.
    let soon = Instant::now() + Duration::from_secs(10);
    let mut numbers = 400..;
    while append(numbers.next().unwrap(), 1) > 2 << 20 {
        assert!(Instant::now() < soon, "the log stays long");
    }
}

#[test]
fn a_file_that_is_no_database_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    std::fs::write(&path, "x".repeat(5000)).unwrap();
    let opened = Place::Sqlite(path).open(Points::none());
    assert!(matches!(opened, Err(StoreError::Database(_))), "{opened:?}");
    let opened = Place::Sqlite(dir.path().join("no/such/dir")).open(Points::none());
    assert!(
        matches!(opened, Err(StoreError::Unavailable(_))),
        "{opened:?}"
    );
}

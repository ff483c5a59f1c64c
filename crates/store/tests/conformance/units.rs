//! Units of work: all of one happens, or nothing, whatever it does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use store::{StoreError, Tx, job};

use crate::db::{Db, Place, count, race, wait};
use crate::make::{check_in_step, get, insert, job_id, new_job, tenant};

const JOBS: &str = "SELECT COUNT(*) AS n FROM job";

fn failure() -> StoreError {
    StoreError::Conflict {
        what: "this, because the test says so".to_owned(),
    }
}

pub(crate) fn a_unit_that_fails_leaves_nothing_and_takes_nobody_with_it(db: &Db) {
    let outcomes = race(8, |thread| {
        let thread = thread as u64;
        let unit = move |number: u64| {
            db.write(move |tx| {
                let row = job::insert(tx, &new_job(number))?;
                if number.is_multiple_of(3) {
                    return Err(failure());
                }
                Ok(row)
            })
        };
        let numbers = thread * 10..thread * 10 + 10;
        numbers
            .map(|number| (number, unit(number)))
            .collect::<Vec<_>>()
    });
    for (number, outcome) in outcomes.into_iter().flatten() {
        match outcome {
            Ok(row) => check_in_step(db, &row),
            Err(StoreError::Conflict { .. }) => {
                assert!(number.is_multiple_of(3));
                assert_eq!(get(db, &job_id(number)), None);
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    let tables = "SELECT (SELECT COUNT(*) FROM queue) + (SELECT COUNT(*) FROM event_inbox) AS n";
    assert_eq!((db.count(JOBS, &[]), db.count(tables, &[])), (53, 106));
}

pub(crate) fn a_unit_that_panics_leaves_nothing_and_the_store_works_on(db: &Db) {
    // More often than there are threads that could die of it.
    for number in 0..10 {
        let panics = db.write(move |tx| -> Result<(), StoreError> {
            job::insert(tx, &new_job(number))?;
            panic!("a unit of the test")
        });
        assert!(matches!(panics, Err(StoreError::Database(_))), "{panics:?}");
        let panics = wait(db.store.read(|tx| -> Result<(), StoreError> {
            count(tx, JOBS, &[])?;
            panic!("a unit of the test")
        }));
        assert!(matches!(panics, Err(StoreError::Database(_))), "{panics:?}");
    }
    assert_eq!(db.count(JOBS, &[]), 0);
    check_in_step(db, &insert(db, new_job(1)));
}

pub(crate) fn a_unit_that_goes_on_after_a_failed_statement_has_not_happened(db: &Db) {
    insert(db, new_job(1));
    let was_told = Arc::new(AtomicBool::new(false));
    let tell = was_told.clone();
    let went_on = db.write(move |tx| {
        job::insert(tx, &new_job(2))?;
        let second = job::insert(tx, &new_job(1));
        tell.store(second.is_err(), Ordering::SeqCst);
        Ok(())
    });
    // PostgreSQL says it at the commit.
    let says_at_once = matches!(db.place, Place::Sqlite(_));
    assert!(was_told.load(Ordering::SeqCst) || !says_at_once);
    assert!(
        matches!(went_on, Err(StoreError::Database(_))),
        "{went_on:?}"
    );
    assert_eq!(get(db, &job_id(2)), None);
}

pub(crate) fn a_unit_that_only_reads_cannot_write(db: &Db) {
    let wrote = wait(db.store.read(|tx| job::insert(tx, &new_job(1))));
    assert!(matches!(wrote, Err(StoreError::Database(_))), "{wrote:?}");
    assert_eq!(db.count(JOBS, &[]), 0);
}

pub(crate) fn a_unit_that_reads_sees_one_moment(db: &Db) {
    let (looked, wait_for_look) = channel();
    let (go_on, told) = channel::<()>();
    let told = Mutex::new(told);
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            db.read(move |tx| {
                let before = count(tx, JOBS, &[])?;
                looked.send(()).unwrap();
                told.lock().unwrap().recv().unwrap();
                Ok((before, count(tx, JOBS, &[])?))
            })
        });
        wait_for_look.recv().unwrap();
        insert(db, new_job(1));
        go_on.send(()).unwrap();
        assert_eq!(reader.join().unwrap(), (0, 0));
    });
    assert_eq!(db.count(JOBS, &[]), 1);
}

pub(crate) fn text_with_nul_is_stored(db: &Db) {
    let row = insert(db, new_job(1));
    let mut change = crate::make::change(&row, &model::job::JobEvent::Cancel, 2).unwrap();
    change.end = Some(job::JobEnd {
        detail: Some("a\0b".to_owned()),
        ..job::JobEnd::default()
    });
    db.write(move |tx| job::move_to(tx, &row, &change)).unwrap();
    let detail = get(db, &job_id(1)).unwrap().detail;
    assert_eq!(detail.as_deref(), Some("a\u{fffd}b"));
}

pub(crate) fn numbers_beyond_the_largest_stay_the_largest(db: &Db) {
    let new = job::NewJob {
        at_ms: u64::MAX,
        ..new_job(1)
    };
    insert(db, new);
    let largest = i64::MAX.unsigned_abs();
    assert_eq!(get(db, &job_id(1)).unwrap().created_at_ms, largest);
}

pub(crate) fn a_database_of_a_newer_schema_is_refused(db: &Db) {
    let sqlite = matches!(db.place, Place::Sqlite(_));
    let make_newer = move |tx: &mut Tx<'_>| {
        if sqlite {
            tx.query("PRAGMA user_version = 99", &[]).map(drop)
        } else {
            let sql = "INSERT INTO schema_migration (version) VALUES (99)";
            tx.execute(sql, &[]).map(drop)
        }
    };
    db.write(make_newer).unwrap();
    let refused = db.place.open(model::points::Points::none());
    let Err(StoreError::NewerSchema { found, known }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!((found, known), (99, 32));
    let message = StoreError::NewerSchema { found, known }.to_string();
    assert!(
        message.contains("99") && message.contains("32"),
        "{message}"
    );
}

pub(crate) fn a_store_that_was_reopened_sees_everything_that_was_answered(db: &Db) {
    let rows = race(4, |thread| {
        let other = db.again();
        let numbers = thread as u64 * 10..thread as u64 * 10 + 10;
        numbers
            .map(|number| insert(&other, new_job(number)))
            .collect::<Vec<_>>()
    });
    let reopened = db.again();
    for row in rows.iter().flatten() {
        check_in_step(&reopened, row);
    }
}

pub(crate) fn two_stores_on_one_database_wait_for_each_other(db: &Db) {
    let other = db.again();
    let add = |tx: &mut Tx<'_>| {
        let row = store::idempotency::prune(tx, 0)?;
        let sql = "UPDATE node SET lease_expires_at_ms = lease_expires_at_ms + 1";
        tx.execute(sql, &[]).map(|changed| row + changed)
    };
    let node = "INSERT INTO node (id, name, incarnation, version, slots, drivers, facts, \
                state_json, lease_expires_at_ms, registered_at_ms) \
                VALUES ('n', '', '', '', 1, '', '', '', 0, 0)";
    db.write(move |tx| tx.execute(node, &[])).unwrap();
    race(4, |thread| {
        let db = if thread % 2 == 0 { db } else { &other };
        for _ in 0..25 {
            assert_eq!(db.write(add).unwrap(), 1);
        }
    });
    let sum = "SELECT lease_expires_at_ms AS n FROM node";
    assert_eq!(db.count(sum, &[]), 100);
}

pub(crate) fn a_unit_of_somebody_who_went_away_is_done_all_the_same(db: &Db) {
    wait(async {
        let unit = db.store.write(|tx| job::insert(tx, &new_job(1)));
        let mut unit = std::pin::pin!(unit);
        // One look brings it to the database; then nobody looks again.
        std::future::poll_fn(|context| {
            drop(unit.as_mut().poll(context));
            std::task::Poll::Ready(())
        })
        .await;
    });
    // It is under way, and others may overtake it.
    let there = || db.read(|tx| job::list(tx, &tenant("a"), None, None, 9));
    let soon = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while there().is_empty() {
        assert!(std::time::Instant::now() < soon, "it was not done");
        std::thread::yield_now();
    }
}

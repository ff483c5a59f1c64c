//! Connections to PostgreSQL that break.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use model::points::Points;
use postgres::Client;
use store::{StoreError, job};

use crate::cluster::client;
use crate::db::{Db, race};
use crate::make::{advance, check_in_step, get, insert, job_id, lease, new_job, node};

const BREAK: &str = "SELECT pg_terminate_backend(pg_backend_pid())";

pub(crate) fn a_unit_whose_connection_broke_is_run_again(db: &Db) {
    let first = Arc::new(AtomicBool::new(true));
    let row = db.write(move |tx| {
        let row = job::insert(tx, &new_job(1))?;
        if first.swap(false, Ordering::SeqCst) {
            tx.query(BREAK, &[])?;
        }
        Ok(row)
    });
    check_in_step(db, &row.unwrap());
    // The same for connections that were idle.
    break_all(&mut client(db));
    check_in_step(db, &insert(db, new_job(2)));
}

pub(crate) fn break_all(client: &mut Client) {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    client.execute(sql, &[]).unwrap();
}

pub(crate) fn a_unit_whose_commit_broke_is_not_run_again(db: &Db) {
    let client = Mutex::new(client(db));
    let points = Points::with(move |name| {
        if name == "store.before_commit" {
            break_all(&mut client.lock().unwrap());
        }
    });
    let fragile = Db::open_with(db.place.clone(), points);
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let outcome = fragile.write(move |tx| {
        counted.fetch_add(1, Ordering::SeqCst);
        job::insert(tx, &new_job(1))
    });
    assert!(
        matches!(outcome, Err(StoreError::Unavailable(_))),
        "{outcome:?}"
    );
    assert_eq!(runs.load(Ordering::SeqCst), 1, "it may have happened");
    assert_eq!(get(db, &job_id(1)), None);
}

/// Breaks all connections after every few units, until it is told that there are no more.
fn keep_breaking(db: &Db, done: &AtomicUsize, ended: &AtomicBool) {
    let mut client = client(db);
    let mut next = 0;
    while !ended.load(Ordering::SeqCst) {
        if done.load(Ordering::SeqCst) >= next {
            next += 3;
            break_all(&mut client);
        }
        std::thread::yield_now();
    }
}

pub(crate) fn connections_that_break_under_load_leave_nothing_half_done(db: &Db) {
    const EACH: u64 = 60;
    let (done, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let outcomes = std::thread::scope(|scope| {
        let breaker = scope.spawn(|| keep_breaking(db, &done, &ended));
        let outcomes = race(4, |thread| {
            let numbers = thread as u64 * EACH..(thread as u64 + 1) * EACH;
            let unit = |number| {
                let outcome = db.write(move |tx| {
                    let row = job::insert(tx, &new_job(number))?;
                    advance(tx, &row, &lease(&row, node(1)), 5)
                });
                done.fetch_add(1, Ordering::SeqCst);
                (number, outcome)
            };
            numbers.map(unit).collect::<Vec<_>>()
        });
        ended.store(true, Ordering::SeqCst);
        breaker.join().unwrap();
        outcomes
    });
    let mut happened = 0;
    for (number, outcome) in outcomes.into_iter().flatten() {
        match (outcome, get(db, &job_id(number))) {
            (Ok(row), _) => {
                happened += 1;
                check_in_step(db, &row);
            }
            (Err(StoreError::Unavailable(_)), None) => {}
            // The commit came through and its answer did not.
            (Err(StoreError::Unavailable(_)), Some(row)) => {
                assert_eq!(row.version, 2);
                check_in_step(db, &row);
            }
            (Err(error), _) => panic!("{error:?}"),
        }
    }
    assert!(happened > 2 * EACH, "only {happened} of {}", 4 * EACH);
}

//! Several processes on one PostgreSQL.

use crate::cluster::client;
use crate::db::{Db, race, wait};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use store::Store;

/// Far longer than a word takes.
const LONG: Duration = Duration::from_secs(20);

/// Whether others have told something since `before`, within the time.
fn hears(store: &Store, before: u64, up_to: Duration) -> bool {
    let heard = store.others().unwrap();
    let until = Instant::now() + up_to;
    while Instant::now() < until {
        if *heard.borrow() > before {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

/// Waits until it listens, and gives how often it has heard by then.
fn listening(store: &Store) -> u64 {
    assert!(hears(store, 0, LONG));
    *store.others().unwrap().borrow()
}

pub(crate) fn others_hear_that_something_was_written_and_oneself_does_not(db: &Db) {
    let other = db.again();
    let (here, there) = (listening(&db.store), listening(&other.store));
    db.store.tell_others();
    assert!(hears(&other.store, there, LONG));
    let there = *other.store.others().unwrap().borrow();
    other.store.tell_others();
    assert!(hears(&db.store, here, LONG));
    // What it told itself has come back to it by now too, before what the other told, and was not news.
    assert_eq!(*db.store.others().unwrap().borrow(), here + 1);
    assert_eq!(*other.store.others().unwrap().borrow(), there);
}

pub(crate) fn who_listens_hears_again_after_its_connection_broke(db: &Db) {
    let other = db.again();
    let (before, _) = (listening(&other.store), listening(&db.store));
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    client(db).execute(sql, &[]).unwrap();
    // It may have missed something, so that is news already.
    assert!(hears(&other.store, before, LONG));
    let before = *other.store.others().unwrap().borrow();
    let until = Instant::now() + LONG;
    let mut is_heard = false;
    while !is_heard && Instant::now() < until {
        // The first word is lost with the connection on which it is told.
        db.store.tell_others();
        is_heard = hears(&other.store, before, Duration::from_millis(300));
    }
    assert!(is_heard);
}

pub(crate) fn two_that_start_together_make_one_schema(db: &Db) {
    let sql = "DROP SCHEMA public CASCADE; CREATE SCHEMA public";
    client(db).batch_execute(sql).unwrap();
    let opened = race(4, |_| db.again());
    assert_eq!(opened.len(), 4);
    assert_eq!(db.count("SELECT COUNT(*) AS n FROM job", &[]), 0);
}

#[expect(
    clippy::disallowed_methods,
    reason = "the clock of the database is compared with that of this machine"
)]
fn ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

pub(crate) fn the_time_is_that_of_the_database(db: &Db) {
    let before = ms();
    let there = wait(db.store.read(store::server::now_ms)).unwrap().unwrap();
    assert!(
        (before.saturating_sub(1)..=ms() + 1).contains(&there),
        "on one machine"
    );
}

//! What rows that can be locked bring with them: units that meet, on PostgreSQL only.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use model::job::JobEvent;
use model::policy::Layer;
use model::sandbox::SandboxEvent;
use store::{StoreError, Tx, job, policy, queue, sandbox};

use crate::cluster::client;
use crate::db::{Db, race};
use crate::make::{advance, check_in_step, get, insert, job_id, lease, new_job, node, principal};
use crate::sandboxes;

/// Waits until a statement of the database waits for a lock.
fn wait_for_a_lock(db: &Db) {
    let mut client = client(db);
    let sql = "SELECT COUNT(*) FROM pg_stat_activity \
               WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while client.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 0 {
        std::thread::yield_now();
    }
}

fn claim_one(tx: &mut Tx<'_>) -> Result<Vec<job::JobRow>, StoreError> {
    let rows = queue::claim(tx, &node(1), 1, 1000, &[])?;
    rows.iter()
        .map(|row| advance(tx, row, &lease(row, node(1)), 1000))
        .collect()
}

pub(crate) fn a_claim_locks_only_what_it_takes(db: &Db) {
    insert(db, new_job(1));
    insert(db, new_job(2));
    let (entered, wait_for_entry) = channel();
    let (go_on, told) = channel::<()>();
    let told = Mutex::new(told);
    std::thread::scope(|scope| {
        let first = scope.spawn(move || {
            db.write(move |tx| {
                let claimed = claim_one(tx)?;
                entered.send(()).unwrap();
                told.lock().unwrap().recv().unwrap();
                Ok(claimed)
            })
        });
        wait_for_entry.recv().unwrap();
        let second = db.write(claim_one).unwrap();
        assert_eq!(second[0].id, job_id(2));
        assert_eq!(db.write(claim_one).unwrap(), []);
        go_on.send(()).unwrap();
        assert_eq!(first.join().unwrap().unwrap()[0].id, job_id(1));
    });
}

/// Attack: a policy that is written while another one is deleted is not counted, and nothing is held by it.
pub(crate) fn a_policy_that_is_written_while_another_goes_is_there(db: &Db) {
    let one = crate::policies::new(1, "one", Layer::Tenant);
    let first = one.clone();
    db.write(move |tx| policy::insert(tx, &first)).unwrap();
    let (entered, wait_for_entry) = channel();
    let (go_on, told) = channel::<()>();
    let told = Mutex::new(told);
    std::thread::scope(|scope| {
        let insert = scope.spawn(move || {
            let two = crate::policies::new(2, "two", Layer::Tenant);
            db.write(move |tx| {
                policy::insert(tx, &two)?;
                entered.send(()).unwrap();
                told.lock().unwrap().recv().unwrap();
                Ok(())
            })
        });
        wait_for_entry.recv().unwrap();
        let delete =
            scope.spawn(move || db.write(move |tx| policy::delete(tx, &one, (&principal(), 60))));
        wait_for_a_lock(db);
        go_on.send(()).unwrap();
        insert.join().unwrap().unwrap();
        delete.join().unwrap().unwrap();
    });
    assert_eq!(db.read(policy::stamp), Some(3));
}

/// What is asked about a sandbox that ends at this moment would wait for an answer that is good for nothing.
pub(crate) fn a_sandbox_that_is_held_ends_after_what_was_added_about_it(db: &Db) {
    let row = sandboxes::insert(db, sandboxes::new_sandbox(1));
    let (entered, wait_for_entry) = channel();
    let (go_on, told) = channel::<()>();
    let (told, is_added) = (Mutex::new(told), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let id = row.id.clone();
        let (is_added, of_end) = (&is_added, &is_added);
        let held = scope.spawn(move || {
            db.write(move |tx| {
                sandbox::hold(tx, &id)?;
                entered.send(()).unwrap();
                told.lock().unwrap().recv().unwrap();
                Ok(())
            })
            .unwrap();
        });
        wait_for_entry.recv().unwrap();
        let ended = scope.spawn(move || {
            sandboxes::moved(db, &row, &SandboxEvent::Destroy, 9);
            assert!(of_end.load(Ordering::SeqCst));
        });
        wait_for_a_lock(db);
        is_added.store(true, Ordering::SeqCst);
        go_on.send(()).unwrap();
        held.join().unwrap();
        ended.join().unwrap();
    });
}

pub(crate) fn a_claim_and_a_cancel_of_one_job_never_wait_for_each_other(db: &Db) {
    let row = insert(db, new_job(1));
    let (entered, wait_for_entry) = channel();
    let (go_on, told) = channel::<()>();
    let told = Mutex::new(told);
    std::thread::scope(|scope| {
        let claim = scope.spawn(move || {
            db.write(move |tx| {
                // A second run would find nobody to wait for.
                let rows = queue::claim(tx, &node(1), 1, 1000, &[])?;
                entered.send(()).unwrap();
                told.lock().unwrap().recv().unwrap();
                advance(tx, &rows[0], &lease(&rows[0], node(1)), 1000)
            })
        });
        wait_for_entry.recv().unwrap();
        let cancel =
            scope.spawn(move || db.write(move |tx| advance(tx, &row, &JobEvent::Cancel, 5)));
        wait_for_a_lock(db);
        go_on.send(()).unwrap();
        let leased = claim.join().unwrap().unwrap();
        let late = cancel.join().unwrap();
        assert!(matches!(late, Err(StoreError::Stale { .. })), "{late:?}");
        check_in_step(db, &leased);
    });
}

pub(crate) fn a_unit_that_lost_a_race_is_run_again(db: &Db) {
    let fail = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$";
    for (losses, wins) in [(1, true), (3, true), (4, false), (1000, false)] {
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = runs.clone();
        let outcome = db.write(move |tx| {
            let row = job::insert(tx, &new_job(losses as u64))?;
            if counted.fetch_add(1, Ordering::SeqCst) < losses {
                tx.execute(fail, &[])?;
            }
            Ok(row)
        });
        assert_eq!(runs.load(Ordering::SeqCst), (losses + 1).min(4));
        match outcome {
            Ok(row) => {
                assert!(wins);
                check_in_step(db, &row);
            }
            Err(StoreError::Unavailable(_)) => {
                assert!(!wins);
                assert_eq!(get(db, &job_id(losses as u64)), None);
            }
            Err(error) => panic!("{error:?}"),
        }
        db.write(|tx| tx.execute("DELETE FROM job", &[])).unwrap();
        db.write(|tx| tx.execute("DELETE FROM queue", &[])).unwrap();
        db.write(|tx| tx.execute("DELETE FROM event_inbox", &[]))
            .unwrap();
    }
}

pub(crate) fn a_deadlock_is_resolved(db: &Db) {
    let rows = [insert(db, new_job(0)), insert(db, new_job(1))];
    for _ in 0..3 {
        // Each locks its own row, waits until the other has too, and then wants the other's. Who comes
        // for the second time does not wait, because the other is not in there any more.
        let inside = Arc::new(std::sync::Barrier::new(2));
        race(2, |number| {
            let ids = [rows[number].id.clone(), rows[1 - number].id.clone()];
            let (inside, first) = (inside.clone(), AtomicBool::new(true));
            let outcome = db.write(move |tx| {
                let lock = "SELECT id FROM job WHERE id = $1 FOR UPDATE";
                tx.query(lock, &[ids[0].as_str().into()])?;
                if first.swap(false, Ordering::SeqCst) {
                    inside.wait();
                }
                tx.query(lock, &[ids[1].as_str().into()]).map(drop)
            });
            outcome.unwrap();
        });
    }
}

pub(crate) fn what_waits_too_long_for_a_lock_is_told(db: &Db) {
    let row = insert(db, new_job(1));
    let mut holder = client(db);
    let mut held = holder.transaction().unwrap();
    held.execute("SELECT id FROM job FOR UPDATE", &[]).unwrap();
    let old = row.clone();
    let late = db.write(move |tx| {
        tx.execute("SET LOCAL lock_timeout = '50ms'", &[])?;
        advance(tx, &old, &JobEvent::Cancel, 5)
    });
    assert!(matches!(late, Err(StoreError::Unavailable(_))), "{late:?}");
    held.rollback().unwrap();
    check_in_step(db, &row);
}

pub(crate) fn what_the_server_cannot_do_now_is_told_from_what_is_wrong(db: &Db) {
    type Is = fn(&StoreError) -> bool;
    let full: Is = |error| matches!(error, StoreError::Full);
    let passes: Is = |error| matches!(error, StoreError::Unavailable(_));
    let wrong: Is = |error| matches!(error, StoreError::Database(_));
    for (raise, wanted) in [
        (
            "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53100'; END $$",
            full,
        ),
        (
            "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53200'; END $$",
            passes,
        ),
        (
            "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '57014'; END $$",
            passes,
        ),
        (
            "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '23514'; END $$",
            wrong,
        ),
        ("SELECT 1 / 0", wrong),
        ("SELECT no_such_column", wrong),
    ] {
        let error = db.write(move |tx| tx.query(raise, &[])).unwrap_err();
        assert!(wanted(&error), "{raise}: {error:?}");
    }
    // A value that does not fit is our fault, and no reason to connect again.
    let sql = "SELECT CAST($1 AS BOOLEAN) AS is_it";
    let error = db.write(move |tx| tx.query(sql, &["yes".into()]));
    assert!(matches!(&error, Err(error) if wrong(error)), "{error:?}");
}

/// A statement that is sent behind a `BEGIN` which fails would otherwise be carried out by itself.
pub(crate) fn a_connection_changes_nothing_outside_of_a_transaction(db: &Db) {
    let sql = "SELECT current_setting('default_transaction_read_only') AS outside, \
         current_setting('transaction_read_only') AS inside";
    let rows = db.write(move |tx| tx.query(sql, &[])).unwrap();
    let said = |column: &str| rows[0].text(column).unwrap();
    assert_eq!(
        (said("outside"), said("inside")),
        ("on".into(), "off".into())
    );
}

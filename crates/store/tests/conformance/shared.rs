//! Units that share a transaction on PostgreSQL, and statements that are put together there.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use model::points::Points;
use store::job::{self, JobRow, LateReport};
use store::{Store, StoreError, Tx, queue};
use tokio::task::JoinHandle;

use crate::breaks::break_all;
use crate::cluster::client;
use crate::db::Db;
use crate::make::{
    advance, check_in_step, finish, get, insert, job_id, lease, leased_job, lost, moved, new_job,
    node, principal,
};

/// Connections of a store: while each of them is held, all others wait.
const WORKERS: usize = 4;

type Outcomes = Vec<Result<JobRow, StoreError>>;
/// A worker that waits until it is told to go on.
type Held = (Sender<()>, JoinHandle<Result<(), StoreError>>);

/// Runs units that all wait when the first worker comes back, so that they are one group. With how often was
/// committed for them.
fn together(
    db: &Db,
    number: u64,
    at_commit: impl Fn() + Send + Sync + 'static,
    unit: impl Fn(&mut Tx<'_>, u64) -> Result<JobRow, StoreError> + Clone + Send + Sync + 'static,
) -> (usize, Outcomes) {
    let commits = Arc::new(AtomicUsize::new(0));
    let counted = commits.clone();
    let points = Points::with(move |name| {
        if name == "store.before_commit" && counted.fetch_add(1, Ordering::SeqCst) >= WORKERS {
            at_commit();
        }
    });
    let own = Db::open_with(db.place.clone(), points);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let outcomes = runtime.unwrap().block_on(async {
        let held = hold_workers(&own.store).await;
        let send = |number: u64| {
            let (store, unit) = (own.store.clone(), unit.clone());
            let about = Some(job_id(number));
            tokio::spawn(async move {
                let unit = move |tx: &mut Tx<'_>| unit(tx, number);
                store.write_shared(about, unit).await
            })
        };
        let units: Vec<_> = (0..number).map(send).collect();
        turn(number).await;
        let_go(held).await;
        let mut outcomes = Vec::new();
        for unit in units {
            outcomes.push(unit.await.unwrap());
        }
        outcomes
    });
    (commits.load(Ordering::SeqCst) - WORKERS, outcomes)
}

/// Makes all workers of a store wait, so that whatever comes now waits too.
async fn hold_workers(store: &Store) -> Vec<Held> {
    let (enter, entered) = channel();
    let hold = || {
        let (go_on, told) = channel::<()>();
        let (enter, told) = (enter.clone(), Mutex::new(told));
        let held = store_write(store.clone(), move |_| {
            enter.send(()).unwrap();
            told.lock().unwrap().recv().unwrap();
            Ok(())
        });
        (go_on, held)
    };
    let holders = (0..WORKERS).map(|_| hold()).collect();
    turn(WORKERS as u64).await;
    (0..WORKERS).for_each(|_| entered.recv().unwrap());
    holders
}

async fn let_go(held: Vec<Held>) {
    for (go_on, held) in held {
        go_on.send(()).unwrap();
        held.await.unwrap().unwrap();
    }
}

/// Brings a unit on its way.
fn store_write(
    store: Store,
    unit: impl Fn(&mut Tx<'_>) -> Result<(), StoreError> + Send + 'static,
) -> JoinHandle<Result<(), StoreError>> {
    tokio::spawn(async move { store.write(unit).await })
}

/// One turn of the runtime does not always look at all tasks.
async fn turn(tasks: u64) {
    for _ in 0..=tasks {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn units_that_wait_share_a_transaction_and_each_sees_its_own(db: &Db) {
    let (commits, outcomes) = together(
        db,
        60,
        || {},
        |tx, number| {
            let new = job::insert(tx, &new_job(number))?;
            let there = job::get(tx, None, &new.id)?.unwrap();
            assert_eq!(there, new, "what it wrote itself");
            advance(tx, &there, &lease(&there, node(1)), 5)
        },
    );
    assert_eq!(commits, 1);
    assert_eq!(outcomes.len(), 60);
    outcomes
        .into_iter()
        .for_each(|row| check_in_step(db, &row.unwrap()));
}

pub(crate) fn a_unit_that_fails_or_panics_takes_nobody_along_that_shares_with_it(db: &Db) {
    let (commits, outcomes) = together(
        db,
        40,
        || {},
        |tx, number| {
            let row = job::insert(tx, &new_job(number))?;
            match number % 5 {
                1 => Err(StoreError::Conflict {
                    what: "the test".to_owned(),
                }),
                2 => panic!("the test"),
                // Wrong in itself, which is only seen when it is sent.
                3 => job::insert(tx, &new_job(number)),
                _ => Ok(row),
            }
        },
    );
    // One by one, those that failed at the commit among them.
    assert_eq!(commits, 24);
    for (number, outcome) in (0..).zip(outcomes) {
        match (number % 5, outcome) {
            (0 | 4, Ok(row)) => check_in_step(db, &row),
            (1, Err(StoreError::Conflict { .. })) | (2 | 3, Err(StoreError::Database(_))) => {
                assert_eq!(get(db, &job_id(number)), None);
            }
            (_, outcome) => panic!("{number}: {outcome:?}"),
        }
    }
    assert_eq!(db.count("SELECT COUNT(*) AS n FROM event_inbox", &[]), 16);
}

pub(crate) fn of_units_about_one_job_that_share_a_transaction_one_wins(db: &Db) {
    let row = insert(db, new_job(0));
    let (_, outcomes) = together(
        db,
        12,
        || {},
        move |tx, number| {
            let read = job::get(tx, None, &row.id)?.unwrap();
            if read != row {
                return Err(StoreError::Stale {
                    what: "the test".to_owned(),
                });
            }
            advance(tx, &row, &lease(&row, node(number)), 5)
        },
    );
    let mut won = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(row) => won.push(row),
            Err(StoreError::Stale { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(won.len(), 1, "{won:?}");
    check_in_step(db, &won[0]);
}

pub(crate) fn units_whose_common_commit_broke_are_told_so_and_not_run_again(db: &Db) {
    let client = Mutex::new(client(db));
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let break_it = move || break_all(&mut client.lock().unwrap());
    let (commits, outcomes) = together(db, 8, break_it, move |tx, number| {
        counted.fetch_add(1, Ordering::SeqCst);
        let row = job::insert(tx, &new_job(number))?;
        // Asked after what was sent, so that nothing but the commit is to be sent yet.
        job::count_queued(tx, &row.tenant, 0, 1)?;
        Ok(row)
    });
    assert_eq!((commits, runs.load(Ordering::SeqCst)), (1, 8));
    for (number, outcome) in (0..).zip(outcomes) {
        let error = outcome.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        assert_eq!(get(db, &job_id(number)), None);
    }
}

pub(crate) fn a_unit_that_shares_a_transaction_reads_the_job_that_it_has_changed(db: &Db) {
    let row = leased_job(db, 0);
    let row = moved(db, &row, &finish(&row), 5);
    let (commits, outcomes) = together(
        db,
        2,
        || {},
        move |tx, number| match number {
            // Read ahead for the whole group, and then changed by a statement that is not gathered.
            0 => {
                let late = LateReport {
                    kind: "job.told_late",
                    data: "{}".to_owned(),
                    principal: principal(),
                    at_ms: 6,
                };
                let kept = job::keep_late(tx, &row, "late", &late)?;
                assert_eq!(job::get(tx, None, &row.id)?.as_ref(), Some(&kept));
                Ok(kept)
            }
            _ => job::insert(tx, &new_job(number)),
        },
    );
    assert_eq!(commits, 1);
    outcomes
        .into_iter()
        .for_each(|row| check_in_step(db, &row.unwrap()));
}

/// Holds the rows of a query from a connection of its own.
fn hold(db: &Db, sql: &str) -> postgres::Client {
    let mut client = client(db);
    client.batch_execute(&format!("BEGIN; {sql}")).unwrap();
    client
}

pub(crate) fn the_place_of_a_job_is_locked_before_the_job_whatever_came_before(db: &Db) {
    let (held, waits) = (leased_job(db, 0), insert(db, new_job(1)));
    let mut other = hold(db, "SELECT 1 FROM queue FOR UPDATE");
    let store = db.again();
    let ids = [held.id.clone(), waits.id.clone()];
    let unit = std::thread::spawn(move || {
        store.write(move |tx| {
            advance(tx, &held, &lost(&held, false), 5)?;
            advance(tx, &waits, &lease(&waits, node(1)), 5)
        })
    });
    // It waits for the place, and has no lock on the job whose place that is.
    let waiting = "SELECT COUNT(*) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                   AND datname = current_database()";
    while db.count(waiting, &[]) == 0 {
        std::thread::yield_now();
    }
    let free = format!(
        "SELECT 1 FROM job WHERE id = '{}' FOR UPDATE NOWAIT",
        ids[1]
    );
    other.batch_execute(&free).unwrap();
    other.batch_execute("COMMIT").unwrap();
    check_in_step(db, &unit.join().unwrap().unwrap());
    check_in_step(db, &get(db, &ids[0]).unwrap());
}

pub(crate) fn what_waits_for_a_lock_lets_its_group_go_one_by_one(db: &Db) {
    let row = insert(db, new_job(0));
    let held = format!("SELECT 1 FROM job WHERE id = '{}' FOR UPDATE", row.id);
    let other = Arc::new(Mutex::new(hold(db, &held)));
    let bounds = Arc::new(Mutex::new(Vec::new()));
    let seen = bounds.clone();
    let (commits, outcomes) = together(
        db,
        20,
        || {},
        move |tx, number| {
            if number > 0 {
                return job::insert(tx, &new_job(number));
            }
            let bound = "SELECT current_setting('lock_timeout') AS bound";
            let bound = tx.query_one(bound, &[])?.unwrap().text("bound")?;
            let mut seen = seen.lock().unwrap();
            seen.push(bound);
            if seen.len() > 1 {
                // The group has given up, and this one is tried by itself.
                other.lock().unwrap().batch_execute("COMMIT").unwrap();
            }
            drop(seen);
            lock_first(tx)?;
            Ok(job::get(tx, None, &job_id(0))?.unwrap())
        },
    );
    assert_eq!(commits, 20, "each by itself");
    // A group waits a moment for a lock, and one by itself as long as anybody.
    assert_eq!(*bounds.lock().unwrap(), ["50ms", "5s"]);
    outcomes
        .into_iter()
        .for_each(|row| check_in_step(db, &row.unwrap()));
}

fn lock_first(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    let sql = "SELECT id FROM job WHERE id = $1 FOR UPDATE";
    tx.query(sql, &[job_id(0).as_str().into()]).map(drop)
}

pub(crate) fn a_group_does_not_wait_for_what_came_behind_it(db: &Db) {
    let row = insert(db, new_job(0));
    let held = format!("SELECT 1 FROM job WHERE id = '{}' FOR UPDATE", row.id);
    let mut other = hold(db, &held);
    let store = Db::open_with(db.place.clone(), Points::none()).store;
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.unwrap();
    let (made, behind) = runtime.block_on(async {
        let workers = hold_workers(&store).await;
        let shares = store.clone();
        let shared = tokio::spawn(async move {
            let unit = |tx: &mut Tx<'_>| job::insert(tx, &new_job(1));
            shares.write_shared(Some(job_id(1)), unit).await
        });
        let behind = store_write(store.clone(), lock_first);
        turn(2).await;
        let_go(workers).await;
        (shared.await.unwrap().unwrap(), behind)
    });
    check_in_step(db, &made);
    // Its lock is let go after that, and so within the time for which it waits.
    other.batch_execute("COMMIT").unwrap();
    runtime.block_on(behind).unwrap().unwrap();
}

pub(crate) fn a_commit_that_the_database_refuses_takes_nobody_along(db: &Db) {
    let refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
                  $$ BEGIN RAISE EXCEPTION 'the test'; END $$; \
                  CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON job DEFERRABLE INITIALLY DEFERRED \
                  FOR EACH ROW WHEN (NEW.created_at_ms = 3) EXECUTE FUNCTION refuse()";
    client(db).batch_execute(refuse).unwrap();
    let (_, outcomes) = together(db, 8, || {}, |tx, number| job::insert(tx, &new_job(number)));
    for (number, outcome) in (0..).zip(outcomes) {
        match (number, outcome) {
            (3, Err(StoreError::Database(_))) => assert_eq!(get(db, &job_id(3)), None),
            (_, Ok(row)) => check_in_step(db, &row),
            (_, Err(error)) => panic!("{number}: {error:?}"),
        }
    }
}

pub(crate) fn what_is_about_one_row_is_written_in_its_order(db: &Db) {
    let rows = db.write(|tx| {
        let mut rows = Vec::new();
        for number in 0..50 {
            let row = job::insert(tx, &new_job(number))?;
            let row = advance(tx, &row, &lease(&row, node(1)), 5)?;
            rows.push(advance(tx, &row, &crate::make::lost(&row, true), 6)?);
            // Once more out and in again.
            let id = [row.id.as_str().into()];
            tx.send("DELETE FROM queue WHERE job_id = $1", &id)?;
            queue::insert(tx, &rows[rows.len() - 1])?;
        }
        Ok(rows)
    });
    rows.unwrap().iter().for_each(|row| check_in_step(db, row));
}

pub(crate) fn many_rows_at_once_are_as_they_were_said_one_by_one(db: &Db) {
    // More than go in one statement.
    let rows = db.write(|tx| {
        let new = (0..600).map(|number| {
            let mut new = new_job(number);
            new.spec.argv = vec![format!("a\"{{}},\\{number} ö NULL")];
            new.spec.queue_timeout_ms = (number % 3 == 0).then_some(1000);
            new.spec.node = (number % 2 == 0).then(|| node(number));
            job::insert(tx, &new)
        });
        new.collect::<Result<Vec<_>, _>>()
    });
    for row in rows.unwrap().into_iter().step_by(7) {
        check_in_step(db, &row);
        let id = row.id.as_str().into();
        let pinned = "SELECT COUNT(*) AS n FROM queue WHERE job_id = $1 AND pinned_node IS NULL";
        assert_eq!(db.count(pinned, &[id]), u64::from(row.spec.node.is_none()));
    }
}

pub(crate) fn no_table_knows_of_another(db: &Db) {
    let known = "SELECT COUNT(*) AS n FROM pg_constraint WHERE contype = 'f'";
    assert_eq!(
        db.count(known, &[]),
        0,
        "statements on two tables change their order"
    );
    let told = "SELECT COUNT(*) AS n FROM pg_trigger WHERE NOT tgisinternal \
                AND tgname <> 'event_is_never_changed'";
    assert_eq!(db.count(told, &[]), 0);
}

//! Nodes and what they have.

use std::collections::BTreeMap;

use model::id::JobId;
use model::job::JobEvent;
use model::node::{Connectivity, NodeState, Scheduling};
use store::node::{self, NodeRow};
use store::{StoreError, job};

use crate::cluster::client;
use crate::db::{Db, count};
use crate::make::{finish, insert, job_id, lease, leased_job, lost, moved, new_job, started};

pub(crate) fn row(number: u64, incarnation: &str, lease_expires_at_ms: u64) -> NodeRow {
    NodeRow {
        id: crate::make::node(number),
        name: "here".to_owned(),
        incarnation: incarnation.to_owned(),
        version: "1".to_owned(),
        slots: u32::MAX,
        drivers: vec!["linux".to_owned()],
        facts: BTreeMap::from([("cpus".to_owned(), "2".to_owned())]),
        state: NodeState {
            connectivity: Connectivity::Online,
            scheduling: Scheduling::Active,
        },
        lease_expires_at_ms,
        registered_at_ms: 3,
        labels: model::place::Labels::new(),
        trouble: model::place::Trouble::default(),
        report: None,
    }
}

fn register(db: &Db, new: NodeRow) {
    db.write(move |tx| node::upsert(tx, &new)).unwrap();
}

fn get(db: &Db, number: u64) -> Option<NodeRow> {
    db.read(move |tx| node::get(tx, &crate::make::node(number)))
}

fn renew(db: &Db, incarnation: &'static str, until: u64) -> bool {
    let id = crate::make::node(1);
    db.write(move |tx| node::renew(tx, &id, incarnation, until, None))
        .unwrap()
}

pub(crate) fn a_node_is_written_anew_by_its_next_process(db: &Db) {
    assert_eq!(get(db, 1), None);
    register(db, row(1, "first", 10));
    let second = NodeRow {
        name: "there".to_owned(),
        slots: 1,
        drivers: Vec::new(),
        facts: BTreeMap::new(),
        state: NodeState {
            connectivity: Connectivity::Online,
            scheduling: Scheduling::Cordoned,
        },
        registered_at_ms: 4,
        ..row(1, "second", 20)
    };
    register(db, second.clone());
    assert_eq!(get(db, 1), Some(second.clone()));
    register(db, row(2, "x", 1));
    let list = |limit| db.read(move |tx| node::list(tx, limit));
    assert_eq!(list(9), [second.clone(), row(2, "x", 1)]);
    assert_eq!(list(1), [second]);
}

pub(crate) fn only_the_process_that_registered_last_renews(db: &Db) {
    assert!(!renew(db, "first", 10), "nobody has registered");
    register(db, row(1, "first", 10));
    assert!(renew(db, "first", 20));
    register(db, row(1, "second", 30));
    assert!(!renew(db, "first", 40));
    assert_eq!(get(db, 1).unwrap().lease_expires_at_ms, 30);
    assert!(renew(db, "second", 50));
    assert_eq!(get(db, 1).unwrap().lease_expires_at_ms, 50);
}

pub(crate) fn a_node_has_the_jobs_that_it_was_leased_until_they_end(db: &Db) {
    let held = |number: u64, limit: u32| -> Vec<JobId> {
        let id = crate::make::node(number);
        let rows = db.read(move |tx| job::held_by(tx, &id, limit));
        rows.into_iter().map(|row| row.id).collect()
    };
    let to_end = |number: u64| -> Vec<JobId> {
        let id = crate::make::node(number);
        let rows = db.read(move |tx| job::stopping_on(tx, &id, 9));
        rows.into_iter().map(|row| row.id).collect()
    };
    let leased = leased_job(db, 1);
    let running = leased_job(db, 2);
    let running = moved(db, &running, &started(&running), 2);
    let stopping = leased_job(db, 3);
    let stopping = moved(db, &stopping, &JobEvent::Cancel, 2);
    let others = insert(db, new_job(4));
    moved(db, &others, &lease(&others, crate::make::node(2)), 2);
    insert(db, new_job(5));
    assert_eq!(held(1, 9), [job_id(1), job_id(2), job_id(3)]);
    assert_eq!(held(1, 2), [job_id(1), job_id(2)]);
    assert_eq!(held(2, 9), [job_id(4)]);
    assert_eq!((to_end(1), to_end(2)), (vec![job_id(3)], vec![]));
    let node = crate::make::node(1);
    let (said, all) = db.read(move |tx| {
        let asked: Vec<JobId> = [1, 4, 5, 6].map(job_id).into();
        let said = job::held_among(tx, &node, &asked)?;
        let later = job::held_since(tx, &node, u64::MAX, 9)?;
        Ok((said, later))
    });
    assert_eq!((said, all), (vec![leased.clone()], vec![]));
    moved(db, &leased, &lost(&leased, true), 3);
    moved(db, &running, &lost(&running, true), 3);
    moved(db, &stopping, &finish(&stopping), 3);
    assert_eq!(held(1, 9), []);
    assert_eq!(to_end(1), []);
}

/// It takes indexes for empty that are full of what it cannot clear up, and one of those was read whole by each poll.
pub(crate) fn beside_a_transaction_that_is_held_what_is_to_end_is_found_in_its_own_index(db: &Db) {
    let mut other = client(db);
    let hold = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM job";
    other.batch_execute(hold).unwrap();
    for number in 0..300 {
        let row = leased_job(db, number);
        moved(db, &row, &finish(&row), 2);
    }
    client(db).batch_execute("VACUUM ANALYZE job").unwrap();
    let (found, looks) = db.read(|tx| {
        let found = job::stopping_on(tx, &crate::make::node(1), 9)?;
        let sql = "SELECT pg_stat_get_xact_numscans('job_stopping'::regclass) AS n";
        Ok((found, count(tx, sql, &[])?))
    });
    assert_eq!((found, looks), (vec![], 1));
    other.batch_execute("ROLLBACK").unwrap();
}

pub(crate) fn jobs_of_a_silent_or_forgotten_node_are_found(db: &Db) {
    let silent = |now: u64, limit: u32| -> Vec<JobId> {
        let rows = db.read(move |tx| job::with_silent_node(tx, now, limit));
        rows.into_iter().map(|row| row.id).collect()
    };
    register(db, row(1, "x", 100));
    leased_job(db, 1);
    let running = leased_job(db, 2);
    moved(db, &running, &started(&running), 2);
    let ended = leased_job(db, 3);
    moved(db, &ended, &finish(&ended), 2);
    insert(db, new_job(4));
    assert_eq!(silent(100, 9), []);
    assert_eq!(silent(101, 9), [job_id(1), job_id(2)]);
    assert_eq!(silent(101, 1), [job_id(1)]);
    assert!(renew(db, "x", 200));
    assert_eq!(silent(101, 9), []);
    let forget = |tx: &mut store::Tx<'_>| -> Result<(), StoreError> {
        node::delete(tx, &crate::make::node(1))
    };
    db.write(forget).unwrap();
    assert_eq!(silent(0, 9), [job_id(1), job_id(2)]);
    assert_eq!(get(db, 1), None);
}

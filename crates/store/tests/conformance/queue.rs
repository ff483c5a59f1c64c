//! The queue: who gets what, and never twice.

use std::collections::HashSet;

use model::id::JobId;
use model::spec::JobSpec;
use store::job::{JobRow, NewJob};
use store::{StoreError, Tx, queue};

use crate::cluster::client;
use crate::db::{Db, Place, race, read_so_far};
use crate::make::{
    advance, check_in_step, get, insert, job_id, lease, lost, moved, new_job, node, spec, started,
    tenant,
};

fn pinned(number: u64, to: u64) -> NewJob {
    let spec = JobSpec {
        node: Some(node(to)),
        ..spec()
    };
    NewJob {
        spec,
        ..new_job(number)
    }
}

fn claim(db: &Db, by: u64, limit: u32, now_ms: u64) -> Vec<JobId> {
    let claim = db.write(move |tx| queue::claim(tx, &node(by), limit, now_ms, &[]));
    claim.unwrap().into_iter().map(|row| row.id).collect()
}

pub(crate) fn a_claim_passes_over_what_may_not_start_yet_and_what_is_for_other_nodes(db: &Db) {
    let is_empty = |by: u64| db.read(move |tx| queue::is_empty(tx, &node(by)));
    assert!(is_empty(1));
    insert(db, pinned(1, 1));
    assert_eq!([is_empty(1), is_empty(2)], [false, true]);
    insert(db, pinned(2, 2));
    insert(db, new_job(3));
    insert(db, new_job(50));
    let all = |numbers: &[u64]| -> Vec<JobId> { numbers.iter().copied().map(job_id).collect() };
    for (by, now, wanted) in [
        (1, 10, all(&[1, 3])),
        (2, 10, all(&[2, 3])),
        (3, 10, all(&[3])),
        (3, 50, all(&[3, 50])),
        (3, 2, all(&[])),
    ] {
        assert_eq!(claim(db, by, 10, now), wanted, "node {by} at {now}");
    }
    assert_eq!(claim(db, 1, 1, 10), all(&[1]));
    assert_eq!(claim(db, 1, 0, 10), all(&[]));
}

fn wishing(number: u64, zone: &str) -> NewJob {
    let mut new = new_job(number);
    let label = ("zone".to_owned(), zone.to_owned());
    new.spec.placement.on = [label].into();
    new
}

pub(crate) fn a_job_with_a_wish_is_given_to_whom_it_was_granted_and_hides_no_other(db: &Db) {
    let wishes = |after: &'static str, limit| {
        db.read(move |tx| queue::wishes(tx, &node(1), after, limit))
            .len()
    };
    assert_eq!(wishes("", 9), 0);
    // More than a claim looks at, before the first that anybody may have.
    for number in 1..=70 {
        insert(db, wishing(number, if number % 2 == 0 { "a" } else { "b" }));
    }
    insert(db, new_job(80));
    let all = db.read(|tx| queue::wishes(tx, &node(1), "", 9));
    assert_eq!((all.len(), wishes("", 1), wishes("~", 9)), (2, 1, 0));
    let after = all[0].clone();
    let rest = db.read(move |tx| queue::wishes(tx, &node(1), &after, 9));
    assert_eq!(rest, all[1..]);
    let granted = |before_ms| queue::Granted {
        text: all[0].clone(),
        before_ms,
    };
    let claim = |granted: Vec<queue::Granted>| -> Vec<JobId> {
        let rows = db.write(move |tx| queue::claim(tx, &node(1), 3, 100, &granted));
        rows.unwrap().into_iter().map(|row| row.id).collect()
    };
    let ids = |numbers: &[u64]| -> Vec<JobId> { numbers.iter().copied().map(job_id).collect() };
    assert_eq!(claim(Vec::new()), ids(&[80]));
    assert_eq!(claim(vec![granted(100)]), ids(&[2, 4, 6]));
    assert_eq!(claim(vec![granted(4)]), ids(&[2, 4, 80]));
    let has = |one: queue::Granted| db.read(move |tx| queue::has(tx, &node(1), &one));
    assert_eq!([has(granted(1)), has(granted(2))], [false, true]);
    assert!(!db.read(|tx| queue::is_empty(tx, &node(1))));
}

pub(crate) fn what_is_for_one_node_and_what_is_for_any_are_taken_by_age(db: &Db) {
    let wishing_pinned = |number, to| {
        let mut new = wishing(number, "a");
        new.spec.node = Some(node(to));
        new
    };
    for number in 1..=4 {
        insert(db, pinned(10 * number, 1));
        insert(db, new_job(10 * number + 2));
        insert(db, pinned(10 * number + 3, 2));
        insert(db, wishing(10 * number + 5, "a"));
        insert(db, wishing_pinned(10 * number + 6, 1));
        insert(db, wishing_pinned(10 * number + 7, 2));
    }
    let ids = |numbers: &[u64]| -> Vec<JobId> { numbers.iter().copied().map(job_id).collect() };
    assert_eq!(claim(db, 1, 5, 100), ids(&[10, 12, 20, 22, 30]));
    assert_eq!(claim(db, 2, 5, 100), ids(&[12, 13, 22, 23, 32]));
    let wish = db.read(|tx| queue::wishes(tx, &node(1), "", 9)).remove(0);
    let with = |by, limit| {
        let text = wish.clone();
        let before_ms = 100;
        let claimed = db.write(move |tx| {
            let granted = [queue::Granted {
                text: text.clone(),
                before_ms,
            }];
            queue::claim(tx, &node(by), limit, 100, &granted)
        });
        claimed
            .unwrap()
            .into_iter()
            .map(|row| row.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(with(1, 6), ids(&[10, 12, 15, 16, 20, 22]));
    assert_eq!(with(2, 4), ids(&[12, 13, 15, 17]));
    assert_eq!(with(3, 3), ids(&[12, 15, 22]));
}

/// What a poll asks of the queue, for node 2, to which nothing is pinned but what is in `own`.
fn look_and_claim(tx: &mut Tx<'_>) -> Result<Vec<JobId>, StoreError> {
    let me = node(2);
    let wishes = queue::wishes(tx, &me, "", 64)?;
    let granted = |text| queue::Granted {
        text,
        before_ms: 500_000,
    };
    let granted: Vec<_> = wishes.into_iter().map(granted).collect();
    for wish in &granted {
        assert!(queue::has(tx, &me, wish)?);
    }
    assert!(!queue::is_empty(tx, &me)?);
    let rows = queue::claim(tx, &me, 8, 500_000, &granted)?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

pub(crate) fn what_waits_for_one_node_alone_costs_another_nothing(db: &Db) {
    // Half of them with wishes, each with one of its own.
    let many = "INSERT INTO queue (job_id, tenant, pinned_node, not_before_ms, queued_at_ms, wish) \
         WITH RECURSIVE n(n) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT n + 1 FROM n WHERE n < 100000) \
         SELECT 'job_' || n, 'ten_a', $1, n, n, CASE WHEN n % 2 = 0 THEN '{\"a\":' || n || '}' END FROM n";
    let inserted = db.write(move |tx| tx.execute(many, &[node(1).as_str().into()]));
    assert_eq!(inserted.unwrap(), 100_000);
    let wishing_pinned = |number| {
        let mut new = wishing(number, "b");
        new.spec.node = Some(node(2));
        new
    };
    insert(db, pinned(200_001, 2));
    insert(db, new_job(200_002));
    insert(db, wishing(200_003, "a"));
    insert(db, wishing_pinned(200_004));
    let wanted: Vec<JobId> = [200_001, 200_002, 200_003, 200_004].map(job_id).into();
    if matches!(db.place, Place::Sqlite(_)) {
        assert_eq!(db.write(look_and_claim).unwrap(), wanted);
        return;
    }
    // Without statistics, and with them.
    for _ in 0..2 {
        let (claimed, read) = db
            .write(|tx| {
                let before = read_so_far(tx, "queue")?;
                let claimed = look_and_claim(tx)?;
                Ok((claimed, read_so_far(tx, "queue")? - before))
            })
            .unwrap();
        assert_eq!(claimed, wanted);
        assert!(read < 100, "{read} rows were read");
        db.write(|tx| tx.execute("ANALYZE queue", &[])).unwrap();
    }
}

pub(crate) fn a_claim_takes_the_oldest_of_each_tenant_in_turn(db: &Db) {
    // Ten of one tenant before two of another and one of a third.
    let names = [
        "a", "a", "a", "a", "a", "a", "a", "a", "a", "a", "b", "b", "c",
    ];
    for (number, name) in (0..).zip(names) {
        insert(
            db,
            NewJob {
                tenant: tenant(name),
                ..new_job(number)
            },
        );
    }
    let wanted: Vec<JobId> = [0, 10, 12, 1, 11, 2].map(job_id).into();
    assert_eq!(claim(db, 1, 6, 100), wanted);
}

/// Claims and leases until nothing is left; returns what it got.
fn work(db: &Db, by: u64) -> Vec<JobRow> {
    let mut got = Vec::new();
    loop {
        let claimed = db.write(move |tx| {
            let rows = queue::claim(tx, &node(by), 3, 1000, &[])?;
            let lease = |row| advance(tx, row, &lease(row, node(by)), 1000);
            rows.iter()
                .map(lease)
                .collect::<Result<Vec<_>, StoreError>>()
        });
        got.extend(claimed.unwrap());
        if db.read(move |tx| queue::is_empty(tx, &node(by))) {
            return got;
        }
    }
}

pub(crate) fn many_claimers_never_get_the_same_job(db: &Db) {
    const JOBS: u64 = 200;
    let unit = |tx: &mut store::Tx<'_>| {
        for number in 0..JOBS {
            store::job::insert(tx, &new_job(number))?;
        }
        Ok(())
    };
    db.write(unit).unwrap();
    // Half of them come from another process.
    let other = db.again();
    let got = race(8, |by| {
        work(if by % 2 == 0 { db } else { &other }, by as u64)
    });
    let ids: Vec<JobId> = got.iter().flatten().map(|row| row.id.clone()).collect();
    assert_eq!(ids.len() as u64, JOBS);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len() as u64, JOBS);
    for row in got.iter().flatten().step_by(17) {
        check_in_step(db, row);
    }
}

fn impatient(number: u64) -> NewJob {
    let spec = JobSpec {
        queue_timeout_ms: Some(100),
        ..spec()
    };
    NewJob {
        spec,
        ..new_job(number)
    }
}

fn late(db: &Db, now_ms: u64) -> Vec<JobId> {
    let rows = db.read(move |tx| queue::expired(tx, now_ms, 10));
    rows.into_iter().map(|row| row.id).collect()
}

pub(crate) fn a_place_is_late_after_its_time_and_not_at_it(db: &Db) {
    insert(db, impatient(1));
    insert(db, impatient(2));
    insert(db, new_job(3));
    for (now, wanted) in [(101, vec![]), (102, vec![1]), (103, vec![1, 2])] {
        let wanted: Vec<JobId> = wanted.into_iter().map(job_id).collect();
        assert_eq!(late(db, now), wanted, "at {now}");
    }
    let row = get(db, &job_id(1)).unwrap();
    moved(db, &row, &lease(&row, node(1)), 50);
    assert_eq!(late(db, 1000), [job_id(2)]);
    assert_eq!(db.read(|tx| queue::expired(tx, 1000, 0)), []);
}

pub(crate) fn a_job_that_has_run_waits_anew_and_one_that_was_given_back_does_not(db: &Db) {
    let row = insert(db, impatient(1));
    let row = moved(db, &row, &lease(&row, node(1)), 50);
    let back = moved(db, &row, &lost(&row, true), 90);
    assert_eq!(late(db, 102), [job_id(1)], "it has not run");
    let row = moved(db, &back, &lease(&back, node(1)), 95);
    let row = moved(db, &row, &started(&row), 96);
    moved(db, &row, &lost(&row, true), 5000);
    assert_eq!(late(db, 5100), []);
    assert_eq!(late(db, 5101), [job_id(1)]);
}

pub(crate) fn a_job_that_is_postponed_is_passed_over_until_then_and_keeps_its_place(db: &Db) {
    insert(db, new_job(1));
    insert(db, new_job(2));
    for until in [50, 40] {
        db.write(move |tx| queue::postpone(tx, &job_id(1), until))
            .unwrap();
    }
    assert_eq!(claim(db, 1, 2, 49), [job_id(2)]);
    assert_eq!(claim(db, 1, 2, 50), [job_id(1), job_id(2)]);
    // Until this and no longer.
    db.write(|tx| queue::wait_until(tx, &job_id(1), 45))
        .unwrap();
    assert_eq!(claim(db, 1, 2, 44), [job_id(2)]);
    assert_eq!(claim(db, 1, 2, 45), [job_id(1), job_id(2)]);
}

pub(crate) fn a_claim_that_begins_later_passes_over_what_was_queued_before_and_is_empty_by_all(
    db: &Db,
) {
    for number in [3, 40, 41] {
        insert(db, new_job(number));
    }
    insert(db, pinned(2, 1));
    let from = |from_ms| {
        let claim = db.write(move |tx| queue::claim_from(tx, &node(1), (10, from_ms), 100, &[]));
        let ids = claim.unwrap().0.into_iter().map(|row| row.id);
        ids.collect::<Vec<_>>()
    };
    // What is for one node alone is in an index of its own.
    assert_eq!(from(40), [2, 40, 41].map(job_id));
    assert_eq!(from(0), [2, 3, 40, 41].map(job_id));
    let is_empty = |by, from_ms| db.read(move |tx| queue::is_empty_from(tx, &node(by), from_ms));
    assert!(!is_empty(2, 41));
    assert!(!is_empty(2, 42), "what is before is there too");
}

/// What all others have for a moment is not gone: whoever took it for that would begin behind it.
pub(crate) fn a_claim_says_how_old_the_oldest_is_also_where_somebody_else_has_it(db: &Db) {
    for number in 3..20 {
        insert(db, new_job(number));
    }
    let mut other = client(db);
    other
        .batch_execute("BEGIN; SELECT 1 FROM queue FOR UPDATE")
        .unwrap();
    let claim = |from_ms| {
        let claim = db.write(move |tx| queue::claim_from(tx, &node(1), (1, from_ms), 100, &[]));
        claim.unwrap()
    };
    assert_eq!(claim(0), (vec![], Some(3)));
    assert_eq!(claim(10), (vec![], Some(10)));
    assert_eq!(claim(50), (vec![], None));
    other.batch_execute("COMMIT").unwrap();
    let (jobs, oldest_ms) = claim(0);
    assert_eq!((&jobs[0].id, oldest_ms), (&job_id(3), Some(3)));
}

//! Keys of idempotency.

use std::collections::HashSet;

use store::idempotency::{self, KeyOwner, Remembered};
use store::job::NewJob;
use store::{StoreError, job};

use crate::db::{Db, race};
use crate::make::{job_id, new_job, principal, tenant};

fn owner(key: &str) -> KeyOwner {
    KeyOwner {
        tenant: tenant("a"),
        principal: principal(),
        operation: "job.create".to_owned(),
        key: key.to_owned(),
    }
}

fn remembered(hash: &str, resource_id: &str) -> Remembered {
    Remembered {
        request_hash: hash.to_owned(),
        resource_id: resource_id.to_owned(),
    }
}

fn put(db: &Db, owner: KeyOwner, remember: Remembered, at_ms: u64) -> Result<(), StoreError> {
    db.write(move |tx| idempotency::put(tx, &owner, &remember, at_ms))
}

fn get(db: &Db, owner: KeyOwner) -> Option<Remembered> {
    db.read(move |tx| idempotency::get(tx, &owner))
}

pub(crate) fn a_key_remembers_the_first_request_and_refuses_a_second(db: &Db) {
    assert_eq!(get(db, owner("k")), None);
    let first = remembered("hash", "job_1");
    put(db, owner("k"), first.clone(), 1).unwrap();
    for second in [first.clone(), remembered("other", "job_2")] {
        let refused = put(db, owner("k"), second, 2);
        assert!(
            matches!(refused, Err(StoreError::Stale { .. })),
            "{refused:?}"
        );
        assert_eq!(get(db, owner("k")), Some(first.clone()));
    }
}

pub(crate) fn a_key_of_somebody_else_or_for_something_else_is_another_key(db: &Db) {
    let mut owners = vec![owner("k"), owner("K"), owner("k ")];
    owners.push(KeyOwner {
        tenant: tenant("b"),
        ..owner("k")
    });
    owners.push(KeyOwner {
        principal: "uid:0".parse().unwrap(),
        ..owner("k")
    });
    owners.push(KeyOwner {
        operation: "sandbox.create".to_owned(),
        ..owner("k")
    });
    for (number, owner) in owners.iter().enumerate() {
        let remember = remembered("hash", &number.to_string());
        put(db, owner.clone(), remember, 1).unwrap();
    }
    for (number, owner) in owners.into_iter().enumerate() {
        let found = get(db, owner).unwrap();
        assert_eq!(found.resource_id, number.to_string());
    }
}

pub(crate) fn of_many_requests_with_one_key_exactly_one_makes_a_job(db: &Db) {
    for round in 0..10 {
        let key = format!("key {round}");
        let answered = race(6, |number| request(db, &key, round * 100 + number as u64));
        let made: HashSet<&String> = answered.iter().collect();
        assert_eq!(made.len(), 1, "{answered:?}");
    }
    let jobs = db.read(|tx| job::list(tx, &tenant("a"), None, None, 500));
    assert_eq!(jobs.len(), 10, "who was too late has left nothing");
}

/// A request as the service carries it out: again when somebody was faster.
fn request(db: &Db, key: &str, number: u64) -> String {
    let id = job_id(number);
    loop {
        let (owner, new) = (owner(key), new_job(number));
        let asked = remembered("hash", id.as_str());
        let outcome = db.write(move |tx| {
            if let Some(there) = idempotency::get(tx, &owner)? {
                return Ok(there.resource_id);
            }
            job::insert(tx, &NewJob::clone(&new))?;
            idempotency::put(tx, &owner, &asked, 1)?;
            Ok(asked.resource_id.clone())
        });
        match outcome {
            Ok(made) => return made,
            Err(StoreError::Stale { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

pub(crate) fn old_keys_are_forgotten_and_young_ones_are_not(db: &Db) {
    for at in 1..=5 {
        let remember = remembered("hash", "job");
        put(db, owner(&at.to_string()), remember, at).unwrap();
    }
    let prune = |before| db.write(move |tx| idempotency::prune(tx, before)).unwrap();
    assert_eq!(prune(1), 0);
    assert_eq!(prune(4), 3);
    assert_eq!(prune(4), 0);
    assert_eq!(get(db, owner("3")), None);
    assert!(get(db, owner("4")).is_some());
    put(db, owner("3"), remembered("other", "job"), 9).unwrap();
}

pub(crate) fn no_more_than_a_bounded_number_of_keys_is_forgotten_at_once(db: &Db) {
    let many = "INSERT INTO idempotency SELECT 'ten_a', 'uid:1', 'job.create', \
                CAST(n AS TEXT), 'hash', 'job', n FROM (WITH RECURSIVE counted (n) AS \
                (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < 10003) \
                SELECT n FROM counted) AS numbers";
    assert_eq!(db.write(move |tx| tx.execute(many, &[])).unwrap(), 10_003);
    let prune = || db.write(|tx| idempotency::prune(tx, 20_000)).unwrap();
    assert_eq!(prune(), 10_000);
    let left = "SELECT MIN(created_at_ms) AS n FROM idempotency";
    assert_eq!(db.count(left, &[]), 10_001, "the oldest first");
    assert_eq!([prune(), prune()], [3, 0]);
}

//! Policies, their versions, and the stamp.

use model::id::PolicyId;
use model::policy::{Bound, Layer, Policy};
use store::policy::{self, PolicyRow};
use store::{StoreError, event};

use crate::db::Db;
use crate::make::{principal, tenant};

pub(crate) fn new(number: u8, name: &str, layer: Layer) -> PolicyRow {
    PolicyRow {
        id: PolicyId::from_parts(u64::from(number), [number; 10]),
        tenant: tenant("a"),
        principal: principal(),
        name: name.to_owned(),
        version: 1,
        latest: 1,
        policy: Policy::new(layer),
        created_at_ms: u64::from(number),
        updated_at_ms: u64::from(number),
    }
}

fn add(db: &Db, row: &PolicyRow) -> Result<(), StoreError> {
    let row = row.clone();
    db.write(move |tx| policy::insert(tx, &row))
}

fn put(db: &Db, row: &PolicyRow, most: u64) -> Result<PolicyRow, StoreError> {
    let row = row.clone();
    db.write(move |tx| {
        let mut policy = row.policy.clone();
        policy.resources.insert(Bound::Pids, most);
        policy::put(tx, &row, &policy, (&principal(), 50))
    })
}

fn stamp(db: &Db) -> Option<u64> {
    db.read(policy::stamp)
}

pub(crate) fn every_change_of_a_policy_changes_the_stamp_and_is_an_event(db: &Db) {
    assert_eq!(stamp(db), None);
    let row = new(1, "one", Layer::Global);
    add(db, &row).unwrap();
    assert_eq!(stamp(db), Some(1));
    assert!(matches!(
        add(db, &new(2, "one", Layer::Tenant)),
        Err(StoreError::Stale { .. })
    ));
    let next = put(db, &row, 7).unwrap();
    assert_eq!((next.version, next.latest, stamp(db)), (2, 2, Some(2)));
    assert!(matches!(put(db, &row, 8), Err(StoreError::Stale { .. })));
    assert_eq!(stamp(db), Some(2));
    let found = db.read(|tx| policy::named(tx, &tenant("a"), "one"));
    assert_eq!(found.as_ref(), Some(&next));
    assert_eq!(db.read(|tx| policy::named(tx, &tenant("b"), "one")), None);
    let gone = next.clone();
    db.write(move |tx| policy::delete(tx, &gone, (&principal(), 60)))
        .unwrap();
    assert_eq!(stamp(db), None);
    assert_eq!(db.read(|tx| policy::named(tx, &tenant("a"), "one")), None);
    let id = row.id.clone();
    let told = db.read(move |tx| event::list(tx, "policy", id.as_str(), 0, 10));
    let kinds: Vec<&str> = told.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(
        kinds,
        ["policy.created", "policy.changed", "policy.deleted"]
    );
    // A state that was before does not come again.
    add(db, &new(3, "one", Layer::Tenant)).unwrap();
    assert_eq!(stamp(db), Some(4));
}

pub(crate) fn versions_of_a_policy_are_kept_up_to_a_bound(db: &Db) {
    let mut row = new(1, "one", Layer::Tenant);
    add(db, &row).unwrap();
    for most in 1..=model::limits::POLICY_VERSIONS_MAX {
        row = put(db, &row, most).unwrap();
    }
    let id = row.id.clone();
    let kept = db.read(move |tx| policy::versions(tx, &id));
    let numbers = [kept.first(), kept.last()].map(|one| one.map(|one| one.number));
    assert_eq!(numbers, [Some(101), Some(2)]);
    let id = row.id.clone();
    let first = db.read(move |tx| policy::version(tx, &id, 1));
    assert_eq!(first, None);
}

pub(crate) fn policies_for_everybody_are_found_by_all(db: &Db) {
    add(db, &new(1, "b", Layer::Tenant)).unwrap();
    add(db, &new(2, "a", Layer::Global)).unwrap();
    let mut of_volume = new(3, "c", Layer::Volume);
    of_volume.policy.of = Some("Data".to_owned());
    add(db, &of_volume).unwrap();
    let there = db.read(|tx| policy::named(tx, &tenant("a"), "c"));
    assert_eq!(there, Some(of_volume));
    let names = |rows: Vec<PolicyRow>| rows.into_iter().map(|row| row.name).collect::<Vec<_>>();
    assert_eq!(
        names(db.read(|tx| policy::list(tx, &tenant("a")))),
        ["a", "b", "c"]
    );
    assert_eq!(names(db.read(|tx| policy::list(tx, &tenant("b")))), [""; 0]);
    assert_eq!(names(db.read(policy::global)), ["a"]);
}

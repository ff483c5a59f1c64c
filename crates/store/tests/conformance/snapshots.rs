//! Snapshots: insert, change, find by name, list, and what may go.

use model::id::{SandboxId, SnapshotId};
use model::sandbox_spec::{AccessToken, SandboxSpec};
use model::snapshot::{SnapshotEvent, SnapshotName, SnapshotStep};
use store::sandbox::{self, NewSandbox};
use store::snapshot::{self, NewSnapshot, Purpose, SnapshotChange, SnapshotFilter, SnapshotRow};
use store::{StoreError, event};

use crate::db::Db;
use crate::make::{node, principal, tenant};
use crate::sandboxes::{change as sandbox_change, spec};

fn id(number: u8) -> SnapshotId {
    SnapshotId::from_parts(u64::from(number), [number; 10])
}

fn sandbox_id(number: u8) -> SandboxId {
    SandboxId::from_parts(0, [number; 10])
}

/// Number 1 of sandbox 1 on node 1, standing on `below`.
fn new(number: u8, below: &[SnapshotId]) -> NewSnapshot {
    NewSnapshot {
        id: id(number),
        tenant: tenant("a"),
        principal: principal(),
        purpose: Purpose::Kept,
        sandbox: sandbox_id(number),
        node: node(1),
        name: None,
        spec: SandboxSpec {
            layers: below.to_vec(),
            ..spec()
        },
        at_ms: u64::from(number),
    }
}

fn insert(db: &Db, new: NewSnapshot) -> SnapshotRow {
    db.write(move |tx| snapshot::insert(tx, &new)).unwrap()
}

fn moved(db: &Db, row: &SnapshotRow, event: &SnapshotEvent) -> Result<SnapshotRow, StoreError> {
    let Ok(SnapshotStep::Moved(state)) = row.state.step(event) else {
        panic!("{event:?} in {:?}", row.state)
    };
    let change = SnapshotChange {
        state,
        kind: "snapshot.moved",
        data: "{}".to_owned(),
        principal: principal(),
        at_ms: 100,
        bytes: (*event == SnapshotEvent::Saved).then_some(7),
    };
    let row = row.clone();
    db.write(move |tx| snapshot::move_to(tx, &row, &change))
}

fn ready(db: &Db, new: NewSnapshot) -> SnapshotRow {
    let row = insert(db, new);
    moved(db, &row, &SnapshotEvent::Saved).unwrap()
}

fn removable(db: &Db) -> Vec<SnapshotId> {
    db.read(|tx| snapshot::removable(tx, &node(1), 10))
}

pub(crate) fn every_change_of_a_snapshot_is_written_with_its_event(db: &Db) {
    let mut asked = new(1, &[id(9)]);
    asked.name = Some("a/b:v1".parse().unwrap());
    let row = insert(db, asked);
    assert_eq!(row.layers, [id(9), id(1)]);
    assert_eq!(row.parent, Some(id(9)));
    let saved = moved(db, &row, &SnapshotEvent::Saved).unwrap();
    assert_eq!((saved.bytes, saved.ready_at_ms), (Some(7), Some(100)));
    let stale = moved(db, &row, &SnapshotEvent::Delete).unwrap_err();
    assert!(matches!(stale, StoreError::Stale { .. }), "{stale:?}");
    let deleting = moved(db, &saved, &SnapshotEvent::Delete).unwrap();
    let gone = moved(db, &deleting, &SnapshotEvent::Deleted).unwrap();
    assert_eq!(gone.ended_at_ms, Some(100));
    let (got, stranger) = db.read(|tx| {
        let got = snapshot::get(tx, Some(&tenant("a")), &id(1))?;
        Ok((got, snapshot::get(tx, Some(&tenant("b")), &id(1))?))
    });
    assert_eq!((got.as_ref(), stranger), (Some(&gone), None));
    let events = db.read(|tx| event::list(tx, "snapshot", id(1).as_str(), 0, 10));
    let versions: Vec<u64> = events.iter().map(|event| event.version).collect();
    assert_eq!(versions, [1, 2, 3, 4]);
    assert_eq!(db.write(|tx| snapshot::prune(tx, 101, 10)).unwrap(), 1);
    assert_eq!(db.read(|tx| snapshot::get(tx, None, &id(1))), None);
}

pub(crate) fn a_name_means_the_newest_ready_snapshot_and_lists_show_what_is_asked_for(db: &Db) {
    let name: SnapshotName = "env".parse().unwrap();
    for number in 1..=4 {
        let asked = NewSnapshot {
            name: Some(name.clone()),
            ..new(number, &[])
        };
        match number {
            4 => drop(insert(db, asked)),
            _ => drop(ready(db, asked)),
        }
    }
    let fork = NewSnapshot {
        purpose: Purpose::Fork,
        ..new(5, &[])
    };
    ready(db, fork);
    let meant = name.clone();
    let newest = db.read(move |tx| snapshot::named(tx, &tenant("a"), &meant));
    assert_eq!(newest.unwrap().id, id(3));
    let list = |filter: SnapshotFilter, before: Option<(u64, SnapshotId)>| {
        let rows = db.read(move |tx| {
            let before = before.as_ref().map(|(ms, id)| (*ms, id));
            snapshot::list(tx, &tenant("a"), &filter, before, 10)
        });
        rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    let all = SnapshotFilter::default();
    assert_eq!(list(all.clone(), None), [id(4), id(3), id(2), id(1)]);
    assert_eq!(list(all.clone(), Some((3, id(3)))), [id(2), id(1)]);
    let ready = SnapshotFilter {
        ready: true,
        sandbox: Some(sandbox_id(3)),
        name: Some("env".to_owned()),
        tag: Some("default".to_owned()),
        id: Some(id(3)),
    };
    assert_eq!(list(ready.clone(), None), [id(3)]);
    let other = SnapshotFilter {
        tag: Some("v2".to_owned()),
        ..ready
    };
    assert!(list(other, None).is_empty());
    let forks = db.read(|tx| snapshot::old_forks(tx, 6, 10));
    assert_eq!(forks, [id(5)]);
    assert_eq!(db.read(|tx| snapshot::count(tx, &tenant("a"), 3)), 3);
    assert_eq!(db.read(|tx| snapshot::count_of(tx, &sandbox_id(1), 9)), 1);
    assert_eq!(db.read(|tx| snapshot::count_on(tx, &node(1), 9)), 5);
    assert_eq!(db.read(|tx| snapshot::on_node(tx, &node(2), 9)), []);
}

pub(crate) fn a_snapshot_may_go_when_nothing_stands_on_it(db: &Db) {
    let (below, above) = (ready(db, new(1, &[])), ready(db, new(2, &[id(1)])));
    let sandbox = NewSandbox {
        id: sandbox_id(77),
        tenant: tenant("a"),
        principal: principal(),
        spec: SandboxSpec {
            layers: vec![id(1), id(2)],
            ..spec()
        },
        metadata: std::collections::BTreeMap::new(),
        access_token: AccessToken::new("secret"),
        ttl_ms: 1,
        due_at_ms: 1,
        at_ms: 1,
    };
    let sandbox = db.write(move |tx| sandbox::insert(tx, &sandbox)).unwrap();
    let began = db.read(|tx| sandbox::from_snapshot(tx, &id(2), 10));
    assert_eq!(began.first(), Some(&sandbox));
    moved(db, &below, &SnapshotEvent::Delete).unwrap();
    let above = moved(db, &above, &SnapshotEvent::Delete).unwrap();
    assert_eq!(removable(db), []);
    let why = "fell".to_owned();
    let fell = sandbox_change(&sandbox, &model::sandbox::SandboxEvent::Fail { why }, 2);
    db.write(move |tx| sandbox::move_to(tx, &sandbox, &fell))
        .unwrap();
    assert_eq!(removable(db), [id(2)]);
    moved(db, &above, &SnapshotEvent::Deleted).unwrap();
    assert_eq!(removable(db), [id(1)]);
    assert_eq!(db.read(|tx| snapshot::without_node(tx, 10)), [id(1)]);
}

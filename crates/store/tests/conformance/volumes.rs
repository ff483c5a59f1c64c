//! Volumes, and the sandboxes that have them.

use model::id::VolumeId;
use model::sandbox::SandboxEvent;
use model::volume::{VOLUME_PROFILE, VolumeState};
use store::sandbox::{self, SandboxFilter};
use store::volume::{self, VolumeRow};
use store::{StoreError, Value};

use crate::db::Db;
use crate::make::{node, principal, tenant};
use crate::sandboxes::{insert, moved, new_sandbox};

fn row(of: &str, name: &str, number: u8) -> VolumeRow {
    VolumeRow {
        id: VolumeId::from_parts(1, [number; 10]),
        tenant: tenant(of),
        principal: principal(),
        name: name.to_owned(),
        state: VolumeState::Created,
        version: 1,
        node: node(1),
        size_bytes: 7,
        server: None,
        created_at_ms: 5,
        made_at_ms: None,
        ended_at_ms: None,
    }
}

fn add(db: &Db, row: &VolumeRow) -> Result<(), StoreError> {
    let row = row.clone();
    db.write(move |tx| volume::insert(tx, &row))
}

fn get(db: &Db, id: &VolumeId) -> Option<VolumeRow> {
    let id = id.clone();
    db.read(move |tx| volume::get(tx, None, &id))
}

fn move_to(db: &Db, row: &VolumeRow, state: VolumeState) -> Result<VolumeRow, StoreError> {
    let row = row.clone();
    db.write(move |tx| volume::move_to(tx, &row, state, &principal(), 9))
}

fn events(db: &Db) -> u64 {
    db.count(
        "SELECT COUNT(*) AS n FROM event_inbox WHERE resource = $1",
        &[Value::Text("volume".to_owned())],
    )
}

pub(crate) fn a_volume_is_found_by_its_name_and_its_id_and_by_its_tenant_alone(db: &Db) {
    let (one, other) = (row("a", "x", 1), row("b", "x", 2));
    add(db, &one).unwrap();
    add(db, &other).unwrap();
    add(db, &row("a", "A", 3)).unwrap();
    let twice = add(db, &row("a", "x", 4));
    assert!(matches!(twice, Err(StoreError::Stale { .. })), "{twice:?}");
    let named = |of: &str| {
        let of = tenant(of);
        db.read(move |tx| volume::named(tx, &of, "x"))
    };
    assert_eq!((named("a"), named("b")), (Some(one.clone()), Some(other)));
    let theirs = one.id.clone();
    assert_eq!(
        db.read(move |tx| volume::get(tx, Some(&tenant("b")), &theirs)),
        None
    );
    let list = |after: &'static str| db.read(move |tx| volume::list(tx, &tenant("a"), after, 1));
    assert_eq!((&*list("")[0].name, &*list("A")[0].name), ("A", "x"));
    assert!(list("x").is_empty());
    assert_eq!(db.read(|tx| volume::count(tx, &tenant("a"), 9)), 2);
    assert_eq!(db.read(|tx| volume::count_on(tx, &node(1), 9)), 3);
    // One that is to go gives its name up, and is found by its id.
    let deleting = move_to(db, &one, VolumeState::Deleting).unwrap();
    assert_eq!(named("a"), None);
    assert_eq!(get(db, &one.id), Some(deleting));
    add(db, &row("a", "x", 5)).unwrap();
    let late = move_to(db, &one, VolumeState::Deleting);
    assert!(matches!(late, Err(StoreError::Stale { .. })), "{late:?}");
    assert_eq!(events(db), 5);
}

pub(crate) fn a_volume_may_go_when_no_sandbox_has_it(db: &Db) {
    let one = row("a", "x", 1);
    add(db, &one).unwrap();
    let mut serving = new_sandbox(2);
    serving.spec.profile = VOLUME_PROFILE.to_owned();
    serving.spec.serves_volume = true;
    let (user, server) = (insert(db, new_sandbox(1)), insert(db, serving));
    for sandbox in [&user, &server] {
        let (volume, sandbox) = (one.id.clone(), sandbox.id.clone());
        db.write(move |tx| volume::use_in(tx, &volume, &sandbox))
            .unwrap();
    }
    let users = || {
        let row = one.clone();
        db.read(move |tx| volume::users(tx, &row, 9))
    };
    assert_eq!(users(), std::slice::from_ref(&user.id));
    let all = SandboxFilter::default();
    let listed = db.read(move |tx| sandbox::list(tx, &tenant("a"), &all, None, 9));
    assert_eq!(listed.len(), 1, "nobody has asked for the one that serves");
    let sandbox = user.id.clone();
    db.write(move |tx| volume::made(tx, &sandbox, 8)).unwrap();
    assert_eq!(get(db, &one.id).unwrap().made_at_ms, Some(8));
    let deleting = move_to(db, &get(db, &one.id).unwrap(), VolumeState::Deleting).unwrap();
    let removable = || db.read(|tx| volume::removable(tx, &node(1), 9)).len();
    assert_eq!(removable(), 0);
    let user = moved(db, &user, &SandboxEvent::Destroy, 6);
    assert!(users().is_empty(), "it is on its way out");
    assert_eq!(removable(), 0, "and there is something of it still");
    moved(db, &user, &SandboxEvent::Destroyed, 7);
    let server = moved(db, &server, &SandboxEvent::Destroy, 6);
    moved(db, &server, &SandboxEvent::Destroyed, 7);
    assert_eq!(removable(), 1);
    assert_eq!(db.read(|tx| volume::without_node(tx, 9)).len(), 1);
    assert_eq!(db.read(|tx| volume::on_node(tx, &node(1), 9)).len(), 1);
    move_to(db, &deleting, VolumeState::Deleted).unwrap();
    assert_eq!((removable(), events(db)), (0, 3));
    assert!(db.read(|tx| volume::on_node(tx, &node(1), 9)).is_empty());
    let prune = |before| db.write(move |tx| volume::prune(tx, before, 9)).unwrap();
    assert_eq!((prune(9), prune(10), prune(10)), (0, 1, 0));
    assert_eq!((get(db, &one.id), events(db)), (None, 3));
    let left = "SELECT COUNT(*) AS n FROM sandbox_volume WHERE volume <> $1";
    assert_eq!(db.count(left, &[Value::Text(String::new())]), 0);
}

pub(crate) fn the_sandbox_that_serves_a_volume_is_remembered_while_there_is_one(db: &Db) {
    let one = row("a", "x", 1);
    add(db, &one).unwrap();
    let server = insert(db, new_sandbox(1)).id;
    let set = |id: &VolumeId| {
        let (id, server) = (id.clone(), server.clone());
        db.write(move |tx| volume::set_server(tx, &id, &server))
            .unwrap();
    };
    set(&one.id);
    assert_eq!(get(db, &one.id).unwrap().server, Some(server.clone()));
    let other = row("a", "y", 2);
    add(db, &other).unwrap();
    move_to(db, &other, VolumeState::Deleting).unwrap();
    set(&other.id);
    assert_eq!(get(db, &other.id).unwrap().server, None);
}

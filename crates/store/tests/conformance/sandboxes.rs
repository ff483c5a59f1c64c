//! Sandboxes that live on: insert, change, list, find, prune.

use std::collections::{BTreeMap, HashSet};

use model::enforcement::{Enforced, Held};
use model::id::SandboxId;
use model::node::{Connectivity, NodeState, Scheduling};
use model::sandbox::{SandboxEvent, SandboxState, Step};
use model::sandbox_spec::{AccessToken, OnExpiry, SandboxSpec};
use model::spec::AskedLimits;
use model::usage::UsagePoint;
use store::node::NodeRow;
use store::sandbox::{self, NewSandbox, SandboxChange, SandboxFilter, SandboxRow};
use store::{StoreError, event, usage};

use crate::db::{Db, race};
use crate::make::{node, principal, tenant};

fn sandbox_id(number: u64) -> SandboxId {
    let mut bytes = [0; 10];
    bytes[2..].copy_from_slice(&number.to_be_bytes());
    SandboxId::from_parts(0, bytes)
}

pub(crate) fn spec() -> SandboxSpec {
    SandboxSpec {
        profile: "default".to_owned(),
        serves_volume: false,
        name: Some("ö \"quoted\"".to_owned()),
        env: BTreeMap::from([("A".to_owned(), "b\nc".to_owned())]),
        root: None,
        root_identity: None,
        limits: AskedLimits::default(),
        network: model::network::NetworkRules::all_or_nothing(true),
        allow_root: true,
        on_expiry: OnExpiry::Pause,
        auto_resume: true,
        queue_timeout_ms: 1000,
        placement: model::place::Placement::default(),
        node: None,
        secrets: Vec::new(),
        scrub_patterns: false,
        layers: Vec::new(),
        volumes: Vec::new(),
        defaults: model::sandbox_spec::Defaults::default(),
        made_by: None,
        permit: None,
    }
}

/// A sandbox that is asked for at the time of its number.
pub(crate) fn new_sandbox(number: u64) -> NewSandbox {
    NewSandbox {
        id: sandbox_id(number),
        tenant: tenant("a"),
        principal: principal(),
        spec: spec(),
        metadata: BTreeMap::new(),
        access_token: AccessToken::new("secret"),
        ttl_ms: 5000,
        due_at_ms: number + 1000,
        at_ms: number,
    }
}

/// A sandbox that is there.
pub(crate) fn some(db: &Db, number: u64) -> SandboxRow {
    insert(db, new_sandbox(number))
}

pub(crate) fn insert(db: &Db, new: NewSandbox) -> SandboxRow {
    db.write(move |tx| sandbox::insert(tx, &new)).unwrap()
}

fn get(db: &Db, id: &SandboxId) -> Option<SandboxRow> {
    let id = id.clone();
    db.read(move |tx| sandbox::get(tx, None, &id))
}

/// What an event makes of a sandbox, with node 1 where one is needed.
pub(crate) fn change(row: &SandboxRow, event: &SandboxEvent, at_ms: u64) -> SandboxChange {
    let Ok(Step::Moved(state)) = row.state.step(event) else {
        panic!("{event:?} in {:?}", row.state)
    };
    let placed = (state == SandboxState::Provisioning).then(|| node(1));
    SandboxChange {
        epoch: row.epoch + u64::from(state.want().is_some()),
        kind: "sandbox.moved",
        data: "{}".to_owned(),
        principal: principal(),
        at_ms,
        node: placed,
        ttl_ms: row.ttl_ms,
        expires_at_ms: (state == SandboxState::Ready).then_some(at_ms + row.ttl_ms),
        due_at_ms: (!state.is_over()).then_some(at_ms + 100),
        driver: None,
        enforcement: None,
        reason: None,
        execs: None,
        state,
    }
}

pub(crate) fn moved(db: &Db, row: &SandboxRow, event: &SandboxEvent, at_ms: u64) -> SandboxRow {
    let (row, change) = (row.clone(), change(row, event, at_ms));
    db.write(move |tx| sandbox::move_to(tx, &row, &change))
        .unwrap()
}

fn provisioning(db: &Db, number: u64) -> SandboxRow {
    let row = insert(db, new_sandbox(number));
    moved(db, &row, &SandboxEvent::Provision, number + 1)
}

fn ready(db: &Db, number: u64) -> SandboxRow {
    let row = provisioning(db, number);
    moved(db, &row, &SandboxEvent::Ready, number + 2)
}

fn failed(db: &Db, number: u64, at_ms: u64) -> SandboxRow {
    let row = insert(db, new_sandbox(number));
    let why = "fell".to_owned();
    moved(db, &row, &SandboxEvent::Fail { why }, at_ms)
}

/// The row is as it was written, and it has as many events as versions.
fn check_in_step(db: &Db, row: &SandboxRow) {
    assert_eq!(get(db, &row.id).as_ref(), Some(row));
    let id = row.id.clone();
    let events = db.read(move |tx| event::list(tx, "sandbox", id.as_str(), 0, 100));
    let versions: Vec<u64> = events.iter().map(|event| event.version).collect();
    assert_eq!(versions, (1..=row.version).collect::<Vec<_>>());
}

pub(crate) fn a_new_sandbox_is_read_back_as_it_was_inserted(db: &Db) {
    let mut new = new_sandbox(7);
    new.metadata = BTreeMap::from([("user id".to_owned(), "\"ö\",".to_owned())]);
    let row = insert(db, new.clone());
    assert_eq!(row.state, SandboxState::Requested);
    assert_eq!((row.version, row.epoch, row.due_at_ms), (1, 0, Some(1007)));
    assert_eq!((&row.spec, &row.metadata), (&new.spec, &new.metadata));
    assert_eq!(row.access_token.text(), "secret");
    check_in_step(db, &row);
    let (got, stranger) = db.read(|tx| {
        let id = sandbox_id(7);
        let got = sandbox::get(tx, Some(&tenant("a")), &id)?;
        Ok((got, sandbox::get(tx, Some(&tenant("b")), &id)?))
    });
    assert_eq!((got, stranger), (Some(row), None));
    let twice = db.write(move |tx| sandbox::insert(tx, &new));
    assert!(matches!(twice, Err(StoreError::Database(_))), "{twice:?}");
}

pub(crate) fn every_change_of_a_sandbox_is_written_with_its_event(db: &Db) {
    let row = insert(db, new_sandbox(1));
    let row = moved(db, &row, &SandboxEvent::Provision, 2);
    assert_eq!((row.epoch, row.placed_at_ms), (1, Some(2)));
    assert_eq!(row.node, Some(node(1)));
    let mut change = change(&row, &SandboxEvent::Ready, 3);
    change.driver = Some("linux".to_owned());
    change.enforcement = Some(vec![Enforced {
        clause: "memory".to_owned(),
        how: "cgroup".to_owned(),
        value: None,
        asked: true,
        state: Held::Held,
    }]);
    let before = row.clone();
    let row = db.write(move |tx| sandbox::move_to(tx, &before, &change));
    let row = row.unwrap();
    assert_eq!((row.ready_at_ms, row.expires_at_ms), (Some(3), Some(5003)));
    check_in_step(db, &row);
    let row = moved(db, &row, &SandboxEvent::Pause { memory: false }, 4);
    let row = moved(db, &row, &SandboxEvent::Paused, 5);
    assert_eq!(row.state, SandboxState::Paused { memory: false });
    check_in_step(db, &row);
    assert_eq!((row.epoch, row.paused_at_ms), (2, Some(5)));
    assert_eq!(row.expires_at_ms, None);
    let row = moved(db, &row, &SandboxEvent::Destroy, 6);
    let row = moved(db, &row, &SandboxEvent::Destroyed, 7);
    assert_eq!(
        (row.epoch, row.ended_at_ms, row.due_at_ms),
        (3, Some(7), None)
    );
    assert_eq!(
        (row.driver.as_deref(), row.enforcement.len()),
        (Some("linux"), 1)
    );
    check_in_step(db, &row);
}

pub(crate) fn of_many_changes_from_one_sandbox_row_exactly_one_is_written(db: &Db) {
    for number in 0..5 {
        let row = ready(db, number);
        let outcomes = race(6, |thread| {
            let events = [SandboxEvent::Pause { memory: true }, SandboxEvent::Destroy];
            let (row, change) = (row.clone(), change(&row, &events[thread % 2], 9));
            db.write(move |tx| sandbox::move_to(tx, &row, &change))
        });
        let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1);
        assert!(
            lost.iter()
                .all(|e| matches!(e, Err(StoreError::Stale { .. })))
        );
        check_in_step(db, won[0].as_ref().unwrap());
    }
}

type Label = (&'static str, &'static str);

fn labelled(number: u64, labels: &[Label]) -> NewSandbox {
    let label = |(key, value): &Label| ((*key).to_owned(), (*value).to_owned());
    NewSandbox {
        metadata: labels.iter().map(label).collect(),
        ..new_sandbox(number)
    }
}

fn listed(db: &Db, filter: &SandboxFilter) -> Vec<SandboxId> {
    let filter = filter.clone();
    let rows = db.read(move |tx| sandbox::list(tx, &tenant("a"), &filter, None, 100));
    rows.into_iter().map(|row| row.id).collect()
}

fn with(labels: &[Label]) -> SandboxFilter {
    SandboxFilter {
        states: Vec::new(),
        metadata: labelled(0, labels).metadata,
    }
}

pub(crate) fn sandboxes_are_listed_by_all_of_their_labels_and_by_nothing_like_them(db: &Db) {
    let all: [&[Label]; 6] = [
        &[("user", "1")],
        &[("user", "1"), ("app", "x")],
        &[("user", "11")],
        &[("super", "1"), ("xuser", "1"), ("User", "1")],
        &[("note", "\"user\":\"1\""), ("other", ",user")],
        &[("user", "a%b_c\\\"d\"")],
    ];
    for (number, labels) in (1..).zip(all) {
        insert(db, labelled(number, labels));
    }
    let cases: [(&[Label], &[u64]); 8] = [
        (&[], &[6, 5, 4, 3, 2, 1]),
        (&[("user", "1")], &[2, 1]),
        (&[("user", "1"), ("app", "x")], &[2]),
        (&[("app", "x"), ("note", "")], &[]),
        (&[("user", "11")], &[3]),
        (&[("User", "1")], &[4]),
        (&[("user", "a%b_c\\\"d\"")], &[6]),
        (&[("user", "")], &[]),
    ];
    for (labels, numbers) in cases {
        let ids: Vec<_> = numbers.iter().map(|number| sandbox_id(*number)).collect();
        assert_eq!(listed(db, &with(labels)), ids, "{labels:?}");
    }
}

pub(crate) fn a_list_of_sandboxes_is_read_page_by_page_and_by_state(db: &Db) {
    for number in 0..20 {
        insert(
            db,
            NewSandbox {
                at_ms: number / 8,
                ..new_sandbox(number)
            },
        );
    }
    let other = NewSandbox {
        tenant: tenant("b"),
        ..new_sandbox(90)
    };
    insert(db, other);
    let mut seen: Vec<(u64, SandboxId)> = Vec::new();
    loop {
        let last = seen.last().cloned();
        let page = db.read(move |tx| {
            let before = last.as_ref().map(|(ms, id)| (*ms, id));
            sandbox::list(tx, &tenant("a"), &SandboxFilter::default(), before, 3)
        });
        if page.is_empty() {
            break;
        }
        seen.extend(page.into_iter().map(|row| (row.created_at_ms, row.id)));
    }
    assert!(seen.is_sorted_by(|one, next| one > next), "newest first");
    assert_eq!(seen.len(), 20);
    let row = get(db, &sandbox_id(3)).unwrap();
    moved(db, &row, &SandboxEvent::Provision, 50);
    failed(db, 40, 60);
    let in_states = |states: &[&'static str]| {
        let states = states.to_vec();
        listed(
            db,
            &SandboxFilter {
                states,
                ..SandboxFilter::default()
            },
        )
        .len()
    };
    assert_eq!(in_states(&["provisioning"]), 1);
    assert_eq!(in_states(&["provisioning", "failed"]), 2);
    assert_eq!(in_states(&["requested", "provisioning"]), 20);
    assert_eq!(in_states(&["paused"]), 0);
    assert_eq!(in_states(&[]), 21);
    let live = db.read(|tx| sandbox::count_live(tx, &tenant("a"), 100));
    assert_eq!(live, 20);
    let few = db.read(|tx| sandbox::count_live(tx, &tenant("a"), 7));
    assert_eq!(few, 7);
}

pub(crate) fn requested_sandboxes_are_found_by_nodes_that_may_have_them(db: &Db) {
    insert(db, new_sandbox(1));
    let mut pinned = new_sandbox(2);
    pinned.spec.node = Some(node(2));
    insert(db, pinned);
    provisioning(db, 3);
    let found = |number| {
        let rows = db
            .write(move |tx| sandbox::requested(tx, &node(number), 9, &[]))
            .unwrap();
        rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(found(1), [sandbox_id(1)]);
    assert_eq!(found(2), [sandbox_id(1), sandbox_id(2)]);
    let row = get(db, &sandbox_id(1)).unwrap();
    moved(db, &row, &SandboxEvent::Provision, 9);
    let waits = |number| db.read(move |tx| sandbox::is_requested(tx, &node(number)));
    assert_eq!((waits(1), waits(2)), (false, true));
}

pub(crate) fn requested_sandboxes_of_each_tenant_are_taken_in_turn(db: &Db) {
    for (number, name) in (1..).zip(["a", "a", "a", "b", "c", "b"]) {
        let tenant = tenant(name);
        insert(
            db,
            NewSandbox {
                tenant,
                ..new_sandbox(number)
            },
        );
    }
    let rows = db
        .write(|tx| sandbox::requested(tx, &node(1), 5, &[]))
        .unwrap();
    let ids: Vec<_> = rows.into_iter().map(|row| row.id).collect();
    assert_eq!(ids, [1, 4, 5, 2, 6].map(sandbox_id));
}

pub(crate) fn many_nodes_never_get_the_same_sandbox(db: &Db) {
    for number in 0..40 {
        insert(db, new_sandbox(number));
    }
    let other = db.again();
    let got = race(6, |by| {
        let db = if by % 2 == 0 { db } else { &other };
        let mut got = Vec::new();
        loop {
            let placed = db.write(move |tx| {
                let mut placed = Vec::new();
                for row in sandbox::requested(tx, &node(by as u64), 3, &[])? {
                    let mut change = change(&row, &SandboxEvent::Provision, 100);
                    change.node = Some(node(by as u64));
                    placed.push(sandbox::move_to(tx, &row, &change)?.id);
                }
                Ok(placed)
            });
            match placed {
                Ok(placed) => got.extend(placed),
                Err(StoreError::Stale { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
            if !db.read(move |tx| sandbox::is_requested(tx, &node(by as u64))) {
                return got;
            }
        }
    });
    let ids: Vec<SandboxId> = got.into_iter().flatten().collect();
    assert_eq!(ids.len(), 40);
    assert_eq!(ids.into_iter().collect::<HashSet<_>>().len(), 40);
}

pub(crate) fn what_a_node_has_and_what_it_is_to_do_is_found(db: &Db) {
    insert(db, new_sandbox(1));
    let made = provisioning(db, 2);
    let stands = ready(db, 3);
    let ends = moved(db, &ready(db, 4), &SandboxEvent::Destroy, 9);
    let over = moved(db, &ends, &SandboxEvent::Destroyed, 10);
    let pausing = moved(db, &ready(db, 5), &SandboxEvent::Pause { memory: true }, 9);
    let held = db.read(|tx| sandbox::held_by(tx, &node(1), 100));
    assert_eq!(held, [made.clone(), stands, pausing.clone()]);
    assert!(held.iter().all(|row| row.id != over.id));
    let wanted = db.read(|tx| sandbox::wanted_of(tx, &node(1), 100));
    assert_eq!(wanted, [made, pausing]);
    let (count, few, none) = db.read(|tx| {
        let count = sandbox::count_held(tx, &node(1), 100)?;
        let few = sandbox::count_held(tx, &node(1), 2)?;
        Ok((count, few, sandbox::count_held(tx, &node(2), 100)?))
    });
    assert_eq!((count, few, none), (3, 2, 0));
}

pub(crate) fn sandboxes_are_due_at_their_time_and_not_before(db: &Db) {
    insert(db, new_sandbox(1));
    ready(db, 10);
    failed(db, 2, 3);
    let due = |now| {
        let rows = db.read(move |tx| sandbox::due(tx, now, 10));
        rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(due(111), []);
    assert_eq!(due(112), [sandbox_id(10)]);
    assert_eq!(due(1000), [sandbox_id(10)]);
    assert_eq!(due(1001), [sandbox_id(10), sandbox_id(1)]);
}

pub(crate) fn sandboxes_of_a_silent_or_forgotten_node_are_found(db: &Db) {
    let row = ready(db, 1);
    insert(db, new_sandbox(2));
    let silent = |now| db.read(move |tx| sandbox::with_silent_node(tx, now, 10));
    assert_eq!(
        silent(0),
        std::slice::from_ref(&row),
        "its node is not there"
    );
    let there = NodeRow {
        id: node(1),
        name: String::new(),
        incarnation: "i".to_owned(),
        version: String::new(),
        slots: 1,
        drivers: Vec::new(),
        facts: BTreeMap::new(),
        state: NodeState {
            connectivity: Connectivity::Online,
            scheduling: Scheduling::Active,
        },
        lease_expires_at_ms: 100,
        registered_at_ms: 0,
        labels: model::place::Labels::new(),
        trouble: model::place::Trouble::default(),
        report: None,
    };
    db.write(move |tx| store::node::upsert(tx, &there)).unwrap();
    assert_eq!(silent(100), []);
    assert_eq!(silent(101), [row]);
}

pub(crate) fn sandboxes_that_are_over_go_and_their_events_stay(db: &Db) {
    for number in 1..=6 {
        failed(db, number, 10 + number);
    }
    let live = ready(db, 7);
    assert_eq!(db.write(|tx| sandbox::prune(tx, 13, 9)).unwrap(), 2);
    let far = 1_000_000;
    assert_eq!(db.write(move |tx| sandbox::prune(tx, far, 1)).unwrap(), 1);
    let beyond = |keep| {
        let unit =
            move |tx: &mut store::Tx<'_>| sandbox::prune_beyond(tx, &tenant("a"), keep, far, 9);
        db.write(unit).unwrap()
    };
    assert_eq!(beyond(9), 0);
    assert_eq!(beyond(2), 2, "of four, the newest two are kept");
    assert_eq!(beyond(0), 1, "one that lives is never removed");
    check_in_step(db, &live);
    let events =
        "SELECT COUNT(DISTINCT resource_id) AS n FROM event_inbox WHERE resource = 'sandbox'";
    assert_eq!(db.count(events, &[]), 7);
    let tenants = db.read(|tx| sandbox::tenants(tx, None, 9));
    assert_eq!(tenants, [tenant("a")]);
}

pub(crate) fn what_a_sandbox_used_is_kept_for_a_time_and_only_as_its_node_says(db: &Db) {
    let (live, over) = (ready(db, 1), failed(db, 2, 3));
    let point = |at_ms: u64| UsagePoint {
        at_ms,
        cpu_us: at_ms * 2,
        memory_bytes: u64::MAX,
        cache_bytes: 0,
        disk_bytes: 7,
    };
    let add = |row: &SandboxRow, from: u64, times: &[u64]| {
        let (id, points) = (row.id.clone(), times.iter().map(|at| point(*at)));
        let points: Vec<_> = points.collect();
        db.write(move |tx| usage::append(tx, &node(from), &id, &points))
            .unwrap();
    };
    let times = |row: &SandboxRow, from: u64, to: u64| {
        let id = row.id.clone();
        let points = db.read(move |tx| usage::list(tx, &id, from, to));
        assert!(points.iter().all(|found| *found == point(found.at_ms)));
        points.iter().map(|point| point.at_ms).collect::<Vec<_>>()
    };
    add(&live, 1, &[1_000, 599_999, 600_000]);
    add(&live, 1, &[2_000, 610_000]);
    add(&live, 2, &[3_000]);
    add(&over, 1, &[1_000]);
    let all = [1_000, 599_999, 2_000, 600_000, 610_000];
    assert_eq!(times(&live, 0, u64::MAX), all);
    assert_eq!(times(&live, 2_000, 600_000), [599_999, 2_000, 600_000]);
    assert!(times(&over, 0, u64::MAX).is_empty());
    // However much a node says, a row ends.
    for _ in 0..40 {
        add(&live, 1, &[5_000; 32]);
    }
    assert!(times(&live, 0, 599_999).len() < 1000);
    let pruned = |before| db.write(move |tx| usage::prune(tx, before, 9)).unwrap();
    assert_eq!((pruned(0), pruned(600_000), pruned(600_000)), (0, 1, 0));
    assert_eq!(times(&live, 0, u64::MAX), [600_000, 610_000]);
}

//! Connections to the outside: stored once, numbered as they come, counted, gone with their owner; and rules that
//! change.

use model::id::{JobId, SandboxId};
use model::network::NetworkRules;
use model::secret::Leaving;
use store::egress::{self, EgressFilter, EgressRow, Hosts, NewEgress, Owner};
use store::network::{self, By};
use store::sandbox::SandboxRow;
use store::{StoreError, event, sandbox};

use crate::db::Db;
use crate::make::principal;
use crate::sandboxes::some;

fn new(name: &str, decision: &'static str) -> NewEgress {
    NewEgress {
        name: name.to_owned(),
        at_ms: 5,
        decision,
        host: Some("a.example".to_owned()),
        code: None,
        record: format!("{{\"name\":\"{name}\",\"host\":\"ö\"}}"),
    }
}

fn list(db: &Db, owner: &Owner, after: u64, decision: Option<&'static str>) -> Vec<u64> {
    let filter = EgressFilter {
        decision,
        ..EgressFilter::default()
    };
    found(db, owner, after, filter)
}

fn found(db: &Db, owner: &Owner, after: u64, filter: EgressFilter) -> Vec<u64> {
    let owner = owner.clone();
    let rows = db.read(move |tx| egress::list(tx, &owner, after, &filter, 10));
    rows.iter().map(|row: &EgressRow| row.seq).collect()
}

pub(crate) fn records_are_found_by_host_reason_and_time(db: &Db) {
    let owner = Owner::Sandbox(SandboxId::from_parts(3, [3; 10]));
    let hosts = [
        Some("example.com"),
        Some("a.example.com"),
        Some("b.a.example.com"),
        Some("notexample.com"),
        Some("a_b.example.com"),
        Some("axb.example.com"),
        Some("9.9.9.9"),
        None,
    ];
    for (number, host) in (1..).zip(hosts) {
        let record = NewEgress {
            name: format!("a.{number}"),
            at_ms: number * 10,
            host: host.map(str::to_owned),
            code: host.is_none().then(|| "bad_host".to_owned()),
            ..new("", "denied")
        };
        let owner = owner.clone();
        let put = db.write(move |tx| egress::insert(tx, &owner, number, &record));
        assert!(put.unwrap());
    }
    let of = |hosts: Hosts| EgressFilter {
        hosts: Some(hosts),
        ..EgressFilter::default()
    };
    let one = |host: &str| of(Hosts::One(host.to_owned()));
    let below = |domain: &str| of(Hosts::Below(domain.to_owned()));
    for (filter, expect) in [
        (one("example.com"), vec![1]),
        (one("9.9.9.9"), vec![7]),
        // What stands for anything in a pattern is a sign like others in a host.
        (one("a_b.example.com"), vec![5]),
        (one("%"), vec![]),
        (one("!"), vec![]),
        (below("example.com"), vec![2, 3, 5, 6]),
        (below("a.example.com"), vec![3]),
        (below("com"), vec![1, 2, 3, 4, 5, 6]),
    ] {
        assert_eq!(found(db, &owner, 0, filter.clone()), expect, "{filter:?}");
    }
    let by_code = EgressFilter {
        code: Some("bad_host".to_owned()),
        ..EgressFilter::default()
    };
    assert_eq!(found(db, &owner, 0, by_code.clone()), [8]);
    assert_eq!(found(db, &owner, 8, by_code), [0; 0]);
    let between = EgressFilter {
        from_ms: Some(20),
        to_ms: Some(40),
        ..EgressFilter::default()
    };
    assert_eq!(found(db, &owner, 0, between.clone()), [2, 3]);
    assert_eq!(found(db, &owner, 2, between.clone()), [3]);
    let nothing = EgressFilter {
        decision: Some("allowed"),
        ..between
    };
    assert_eq!(found(db, &owner, 0, nothing), [0; 0]);
}

pub(crate) fn a_record_is_stored_once_and_numbered_as_it_comes(db: &Db) {
    let one = Owner::Sandbox(SandboxId::from_parts(1, [1; 10]));
    let other = Owner::Job(JobId::from_parts(1, [1; 10]));
    let put = |owner: &Owner, seq, new: NewEgress| {
        let owner = owner.clone();
        db.write(move |tx| egress::insert(tx, &owner, seq, &new))
    };
    assert!(put(&one, 1, new("a.0", "allowed")).unwrap());
    assert!(
        !put(&one, 2, new("a.0", "denied")).unwrap(),
        "the same again"
    );
    assert!(put(&one, 2, new("a.1", "denied")).unwrap());
    assert!(
        put(&one, 2, new("a.2", "denied")).is_err(),
        "the number is taken"
    );
    assert!(
        put(&other, 1, new("a.0", "denied")).unwrap(),
        "of another owner"
    );
    assert_eq!(list(db, &one, 0, None), [1, 2]);
    assert_eq!(list(db, &one, 1, None), [2]);
    assert_eq!(list(db, &one, 0, Some("denied")), [2]);
    let owner = one.clone();
    assert_eq!(db.read(move |tx| egress::last(tx, &owner)), 2);
    let owner = one.clone();
    db.write(move |tx| egress::prune(tx, owner.as_str(), 1))
        .unwrap();
    assert_eq!(list(db, &one, 0, None), [2]);
    assert_eq!(list(db, &other, 0, None), [1]);
}

pub(crate) fn denials_are_counted_beside_the_version(db: &Db) {
    let row = some(db, 1);
    let owner = Owner::Sandbox(row.id.clone());
    for _ in 0..2 {
        let owner = owner.clone();
        db.write(move |tx| egress::count_denied(tx, &owner, 3))
            .unwrap();
    }
    let next = again(db, &row);
    assert_eq!((next.egress_denied, next.version), (6, row.version));
}

fn again(db: &Db, row: &SandboxRow) -> SandboxRow {
    let id = row.id.clone();
    db.read(move |tx| sandbox::get(tx, None, &id)).unwrap()
}

fn by() -> By {
    By {
        principal: principal(),
        at_ms: 9,
        data: "{\"epoch\":1}".to_owned(),
    }
}

pub(crate) fn rules_are_changed_by_whoever_saw_the_last_ones_and_put_in_force_once(db: &Db) {
    let row = some(db, 2);
    assert!(row.rules().has_way_out() && !row.is_network_pending());
    let none = NetworkRules::default();
    let set = |row: &SandboxRow, rules: &NetworkRules| {
        let (row, rules) = (row.clone(), rules.clone());
        let leaving = Leaving::after(None, (Vec::new(), principal()), false);
        db.write(move |tx| network::set(tx, &row, (&rules, Some(&leaving)), &by()))
    };
    let changed = set(&row, &none).unwrap();
    assert_eq!((changed.network_epoch, changed.rules()), (1, &none));
    assert!(changed.is_network_pending() && changed.leaving.is_some());
    assert_eq!(again(db, &row), changed);
    assert!(matches!(set(&row, &none), Err(StoreError::Stale { .. })));
    let (old, last) = (row.clone(), changed.clone());
    let stale = db.write(move |tx| network::done(tx, &old, &[], &by()));
    assert!(matches!(stale, Err(StoreError::Stale { .. })));
    let done = db
        .write(move |tx| network::done(tx, &last, &[], &by()))
        .unwrap();
    assert!(!done.is_network_pending());
    assert_eq!(again(db, &row), done);
    let last = done.clone();
    let refused = db.write(move |tx| network::refused(tx, &last, (&none, None, "no"), &by()));
    assert_eq!(again(db, &row), refused.unwrap());
    assert_eq!(again(db, &row).leaving, None);
    let id = row.id.clone();
    let events = db.read(move |tx| event::list(tx, "sandbox", id.as_str(), 0, 10));
    let kinds: Vec<_> = events.iter().map(|one| one.kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "sandbox.requested",
            "sandbox.network_changed",
            "sandbox.network_applied",
            "sandbox.network_refused"
        ]
    );
}

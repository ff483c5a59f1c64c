//! Secrets, sealed.

use std::collections::BTreeMap;

use model::id::{PrincipalId, SecretId};
use model::network::NetworkRules;
use model::secret::{Leaving, SecretHow, SecretSource, SecretUse};
use store::network::{self, By};
use store::secret::{self, Sealed, SecretRow};
use store::{StoreError, Value};

use crate::db::Db;
use crate::make::{principal, tenant};
use crate::sandboxes::{insert as insert_sandbox, new_sandbox, some};

fn row(of: &str, name: &str, number: u8) -> SecretRow {
    SecretRow {
        id: SecretId::from_parts(1, [number; 10]),
        tenant: tenant(of),
        name: name.to_owned(),
        version: 1,
        revision: 1,
        metadata: BTreeMap::from([("k".to_owned(), "ö".to_owned())]),
        source: None,
        given: false,
        principal: principal(),
        created_at_ms: 5,
        updated_at_ms: 5,
    }
}

fn sealed(key: &str) -> Sealed {
    Sealed {
        key_id: key.to_owned(),
        wrapped_key: vec![0, 1, 255],
        value: vec![0; 100],
        is_source: false,
    }
}

fn insert(db: &Db, row: &SecretRow) -> Result<(), StoreError> {
    let row = row.clone();
    db.write(move |tx| secret::insert(tx, &row, &sealed("k1")))
}

fn rotate(db: &Db, row: &SecretRow) -> Result<SecretRow, StoreError> {
    let (before, mut next) = (row.clone(), row.clone());
    next.version += 1;
    next.revision += 1;
    let answer = next.clone();
    db.write(move |tx| secret::update(tx, &before, &next, Some(&sealed("k1"))))?;
    Ok(answer)
}

fn versions(db: &Db) -> u64 {
    db.count(
        "SELECT COUNT(*) AS n FROM secret_version WHERE version > $1",
        &[Value::Int(0)],
    )
}

pub(crate) fn a_secret_is_read_back_by_name_and_by_id_and_by_its_tenant_alone(db: &Db) {
    let (one, other) = (row("a", "x", 1), row("b", "x", 2));
    insert(db, &one).unwrap();
    insert(db, &other).unwrap();
    insert(db, &row("a", "A", 3)).unwrap();
    let twice = insert(db, &row("a", "x", 4));
    assert!(matches!(twice, Err(StoreError::Stale { .. })), "{twice:?}");
    let get = |of: &str, named: &str| {
        let (of, named) = (tenant(of), named.to_owned());
        db.read(move |tx| secret::get(tx, &of, &named))
    };
    assert_eq!(get("a", "x"), Some(one.clone()));
    assert_eq!(get("a", one.id.as_str()), Some(one.clone()));
    assert_eq!(get("b", "x"), Some(other));
    assert_eq!(get("b", one.id.as_str()), None);
    let elsewhere = SecretRow {
        source: Some(SecretSource {
            provider: "vault".to_owned(),
            reference: "a/b#c".to_owned(),
        }),
        ..row("c", "x", 5)
    };
    insert(db, &elsewhere).unwrap();
    assert_eq!(get("c", "x"), Some(elsewhere));
    let list = |after: &'static str| db.read(move |tx| secret::list(tx, &tenant("a"), after, 1));
    assert_eq!(list("")[0].name, "A");
    assert_eq!(list("A")[0].name, "x");
    assert!(list("x").is_empty());
    assert_eq!(db.read(|tx| secret::count(tx, &tenant("a"), false)), 2);
    let id = one.id;
    assert_eq!(
        db.read(move |tx| secret::version(tx, &id, 1)),
        Some(sealed("k1"))
    );
}

pub(crate) fn a_change_from_a_row_that_was_changed_is_stale_and_writes_no_version(db: &Db) {
    let first = row("a", "x", 1);
    insert(db, &first).unwrap();
    let second = rotate(db, &first).unwrap();
    let late = rotate(db, &first);
    assert!(matches!(late, Err(StoreError::Stale { .. })), "{late:?}");
    assert_eq!(versions(db), 2);
    let before = first.clone();
    let late = db.write(move |tx| secret::delete(tx, &before));
    assert!(matches!(late, Err(StoreError::Stale { .. })), "{late:?}");
    assert_eq!(
        db.read(|tx| secret::get(tx, &tenant("a"), "x")),
        Some(second)
    );
}

pub(crate) fn what_another_key_wraps_is_found_until_it_is_wrapped_anew(db: &Db) {
    let first = row("a", "x", 1);
    insert(db, &first).unwrap();
    rotate(db, &first).unwrap();
    let others = || db.read(|tx| secret::not_of_key(tx, "k2", 10));
    assert_eq!(others().len(), 2);
    let one = others().swap_remove(0);
    assert_eq!((one.version, &one.sealed), (1, &sealed("k1")));
    let again = one.clone();
    db.write(move |tx| secret::rewrap(tx, &one, "k2", &[7]))
        .unwrap();
    assert_eq!(others()[0].version, 2);
    let late = db.write(move |tx| secret::rewrap(tx, &again, "k3", &[8]));
    assert!(matches!(late, Err(StoreError::Stale { .. })), "{late:?}");
    let id = first.id;
    let now = db.read(move |tx| secret::version(tx, &id, 1)).unwrap();
    assert_eq!((&*now.key_id, now.wrapped_key), ("k2", vec![7]));
}

pub(crate) fn old_versions_go_and_a_deleted_secret_leaves_nothing(db: &Db) {
    let first = row("a", "x", 1);
    insert(db, &first).unwrap();
    let second = rotate(db, &first).unwrap();
    let id = second.id.clone();
    db.write(move |tx| secret::forget_before(tx, &id, 2))
        .unwrap();
    assert_eq!(versions(db), 1);
    db.write(move |tx| secret::delete(tx, &second)).unwrap();
    assert_eq!(versions(db), 0);
    assert_eq!(db.read(|tx| secret::count(tx, &tenant("a"), false)), 0);
}

pub(crate) fn what_came_with_a_request_is_in_no_list_and_is_found_when_nobody_uses_it(db: &Db) {
    let kept = |name: &str, number: u8| SecretRow {
        given: true,
        ..row("a", name, number)
    };
    let (one, two, three) = (kept("one", 1), kept("two", 2), kept("three", 3));
    for row in [&one, &two, &three, &row("a", "own", 4)] {
        insert(db, row).unwrap();
    }
    let listed = db.read(|tx| secret::list(tx, &tenant("a"), "", 10));
    assert_eq!(listed.len(), 1);
    assert_eq!(db.read(|tx| secret::count(tx, &tenant("a"), false)), 1);
    assert_eq!(db.read(|tx| secret::count(tx, &tenant("a"), true)), 3);
    let uses = |row: &SecretRow| SecretUse {
        name: row.name.clone(),
        id: Some(row.id.clone()),
        version: 1,
        how: SecretHow::Upstream,
    };
    let mut new = new_sandbox(1);
    new.spec.secrets = vec![uses(&one)];
    insert_sandbox(db, new);
    let living = some(db, 2);
    let leaving = Leaving::after(None, (vec![uses(&two)], principal()), false);
    let by = By {
        principal: principal(),
        at_ms: 9,
        data: "{}".to_owned(),
    };
    let rules = NetworkRules::default();
    db.write(move |tx| network::set(tx, &living, (&rules, Some(&leaving)), &by))
        .unwrap();
    let unused = |before_ms| db.read(move |tx| secret::unused(tx, before_ms, 10));
    assert_eq!(unused(6), std::slice::from_ref(&three));
    assert!(unused(5).is_empty());
    // Whoever comes with it once more needs it for a while.
    let touched = SecretRow {
        updated_at_ms: 7,
        ..three.clone()
    };
    let next = touched.clone();
    let before = three.clone();
    db.write(move |tx| secret::update(tx, &before, &next, None))
        .unwrap();
    assert!(unused(7).is_empty());
    assert_eq!(unused(8), std::slice::from_ref(&touched));
    // Whoever has seen it unused before that does not delete it now.
    let deleted = db.write(move |tx| secret::delete(tx, &three));
    assert!(
        matches!(deleted, Err(StoreError::Stale { .. })),
        "{deleted:?}"
    );
    assert_eq!(unused(8), [touched]);
    let of = |who: &PrincipalId| {
        let who = who.clone();
        db.read(move |tx| secret::count_given(tx, &tenant("a"), &who))
    };
    assert_eq!(of(&principal()), 3);
    assert_eq!(of(&"user:other".parse().unwrap()), 0);
}

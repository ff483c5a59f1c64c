//! Tenants, principals and keys.

use crate::db::Db;
use crate::make::{principal as somebody, tenant};
use model::access::{Action, Scopes};
use model::id::{KeyId, TenantId};
use model::principal::{PrincipalKind, Role};
use store::key::{self, KeyDigests, KeyRow};
use store::principal::{self, PrincipalRow};
use store::tenant::{self, TenantRow};

fn person(tenant: &TenantId, name: &str) -> PrincipalRow {
    PrincipalRow {
        tenant: tenant.clone(),
        id: PrincipalKind::User.named(name).unwrap(),
        kind: PrincipalKind::User,
        role: Role::Operator,
        issuer: None,
        principal: somebody(),
        created_at_ms: 5,
    }
}

fn key_of(owner: &PrincipalRow, number: u8) -> (KeyRow, KeyDigests) {
    let row = KeyRow {
        id: KeyId::from_parts(u64::from(number), [number; 10]),
        tenant: owner.tenant.clone(),
        owner: owner.id.clone(),
        name: "a".to_owned(),
        prefix: "cfd_1".to_owned(),
        scopes: Scopes::of([Action::JobWrite]),
        made_by: somebody(),
        created_at_ms: 6,
        expires_at_ms: Some(9),
        used_at_ms: None,
    };
    let digests = KeyDigests {
        own: format!("own{number}"),
        e2b: format!("e2b{number}"),
    };
    (row, digests)
}

fn tenant_row(id: &TenantId, name: &str) -> TenantRow {
    TenantRow {
        id: id.clone(),
        name: name.to_owned(),
        principal: somebody(),
        created_at_ms: 5,
    }
}

/// Adds keys of a principal, and what they stand on where it is not there.
fn put(db: &Db, owner: &PrincipalRow, numbers: &[u8]) {
    let row = owner.clone();
    let of = tenant_row(&row.tenant, &format!("name-of-{}", row.tenant));
    db.write(move |tx| tenant::insert(tx, &of)).unwrap();
    assert!(db.write(move |tx| principal::insert(tx, &row)).unwrap());
    for number in numbers {
        let (row, digests) = key_of(owner, *number);
        assert!(db.write(move |tx| key::insert(tx, &row, &digests)).unwrap());
    }
}

pub(crate) fn a_key_is_found_by_both_of_its_digests_and_by_its_tenant_alone(db: &Db) {
    let owner = person(&tenant("a"), "alice");
    put(db, &owner, &[1, 2]);
    let (row, _) = key_of(&owner, 1);
    for digest in ["own1", "e2b1"] {
        let found = db.read(|tx| key::of_digest(tx, digest)).unwrap();
        assert_eq!((&found.key, found.role), (&row, Role::Operator));
    }
    assert_eq!(db.read(|tx| key::of_digest(tx, "none")), None);
    let id = row.id.clone();
    let get = |of: &'static str| {
        let id = id.clone();
        db.read(move |tx| key::get(tx, &tenant(of), &id))
    };
    assert_eq!((get("a"), get("b")), (Some(row.clone()), None));
    assert_eq!(db.read(|tx| key::list(tx, &tenant("a"), "", 10)).len(), 2);
    let last = id.to_string();
    let after = db.read(move |tx| key::list(tx, &tenant("a"), &last, 10));
    assert_eq!(after.len(), 1);
    assert_eq!(db.read(|tx| key::count(tx, &tenant("b"))), 0);
    db.write(|tx| key::used(tx, &key_of(&person(&tenant("a"), "alice"), 1).0.id, 8))
        .unwrap();
    db.write(|tx| key::used(tx, &key_of(&person(&tenant("a"), "alice"), 1).0.id, 7))
        .unwrap();
    let used = get("a").and_then(|row| row.used_at_ms);
    assert_eq!(used, Some(8), "an earlier time does not count");
    let id = row.id.clone();
    db.write(move |tx| key::delete(tx, &id)).unwrap();
    assert_eq!(db.read(|tx| key::of_digest(tx, "e2b1")), None);
}

pub(crate) fn a_principal_takes_its_keys_with_it_and_no_others(db: &Db) {
    let (mine, other) = (person(&tenant("a"), "alice"), person(&tenant("b"), "alice"));
    put(db, &mine, &[1]);
    put(db, &other, &[2]);
    let again = mine.clone();
    assert!(!db.write(move |tx| principal::insert(tx, &again)).unwrap());
    assert_eq!(db.read(|tx| principal::count(tx, &tenant("a"))), 1);
    let gone = mine.clone();
    db.write(move |tx| principal::delete(tx, &gone.tenant, &gone.id, 9))
        .unwrap();
    assert_eq!(db.read(|tx| key::of_digest(tx, "own1")), None);
    assert!(db.read(|tx| key::of_digest(tx, "own2")).is_some());
    assert_eq!(db.read(|tx| principal::list(tx, &tenant("a"), "", 10)), []);
    assert_eq!(
        db.read(|tx| principal::get(tx, &tenant("b"), "user:alice")),
        Some(other)
    );
}

pub(crate) fn the_first_tenant_is_there_and_another_goes_with_its_people(db: &Db) {
    let local = TenantId::local();
    let first = db.read(|tx| tenant::get(tx, "local")).unwrap();
    assert_eq!(first.id, local);
    let row = tenant_row(&tenant("a"), "acme");
    let new = row.clone();
    assert!(db.write(move |tx| tenant::insert(tx, &new)).unwrap());
    let same_name = TenantRow {
        id: tenant("b"),
        ..row.clone()
    };
    assert!(!db.write(move |tx| tenant::insert(tx, &same_name)).unwrap());
    for named in ["acme", "ten_a"] {
        assert_eq!(db.read(|tx| tenant::get(tx, named)), Some(row.clone()));
    }
    assert_eq!(db.read(tenant::count), 2);
    put(db, &person(&tenant("a"), "alice"), &[1]);
    assert!(!db.read(|tx| tenant::has_open_job(tx, &tenant("a"))));
    db.write(|tx| tenant::delete(tx, &tenant("a"))).unwrap();
    assert_eq!(db.read(|tx| key::of_digest(tx, "own1")), None);
    assert_eq!(db.read(|tx| tenant::list(tx, "", 10)), [first]);
}

pub(crate) fn who_was_sent_away_is_known_until_somebody_lets_them_in(db: &Db) {
    let alice = PrincipalRow {
        issuer: Some("corp".to_owned()),
        ..person(&tenant("a"), "alice")
    };
    let was_removed = |of: &'static str| {
        let id = alice.id.clone();
        db.read(move |tx| principal::was_removed(tx, &tenant(of), &id))
    };
    let add = |row: &PrincipalRow| {
        let row = row.clone();
        db.write(move |tx| principal::insert(tx, &row)).unwrap()
    };
    let of = tenant_row(&tenant("a"), "acme");
    db.write(move |tx| tenant::insert(tx, &of)).unwrap();
    assert!(add(&alice) && !add(&alice) && !was_removed("a"));
    let there = db.read(|tx| principal::get(tx, &tenant("a"), "user:alice"));
    assert_eq!(there, Some(alice.clone()));
    let remove = || {
        let id = alice.id.clone();
        db.write(move |tx| principal::delete(tx, &tenant("a"), &id, 9))
            .unwrap();
    };
    remove();
    remove();
    assert!(was_removed("a") && !was_removed("b"));
    assert_eq!(db.read(|tx| principal::count_removed(tx, &tenant("a"))), 1);
    assert!(add(&alice) && !was_removed("a"));
    remove();
    put(db, &alice, &[]);
    assert!(!was_removed("a"));
    remove();
    db.write(|tx| tenant::delete(tx, &tenant("a"))).unwrap();
    assert!(!was_removed("a"), "a tenant takes it along");
    assert!(!add(&alice), "nobody is let in where no tenant is");
}

pub(crate) fn nothing_is_added_to_a_tenant_or_a_principal_that_is_gone(db: &Db) {
    let owner = person(&tenant("a"), "alice");
    let add = |number: u8| {
        let (row, digests) = key_of(&person(&tenant("a"), "alice"), number);
        db.write(move |tx| key::insert(tx, &row, &digests)).unwrap()
    };
    let row = owner.clone();
    assert!(!db.write(move |tx| principal::insert(tx, &row)).unwrap());
    assert!(
        !add(1),
        "neither the tenant nor the principal was ever there"
    );
    put(db, &owner, &[1]);
    db.write(|tx| principal::delete(tx, &tenant("a"), &person(&tenant("a"), "alice").id, 9))
        .unwrap();
    assert!(!add(2));
    db.write(|tx| tenant::delete(tx, &tenant("a"))).unwrap();
    let row = owner.clone();
    assert!(!db.write(move |tx| principal::insert(tx, &row)).unwrap());
    assert_eq!(db.read(|tx| key::count(tx, &tenant("a"))), 0);
}

pub(crate) fn a_key_that_is_made_while_its_tenant_goes_goes_with_it(db: &Db) {
    let owner = person(&tenant("a"), "alice");
    for number in 1..=20 {
        put(db, &owner, &[]);
        let (row, digests) = key_of(&owner, number);
        std::thread::scope(|scope| {
            scope.spawn(|| db.write(move |tx| key::insert(tx, &row, &digests)).unwrap());
            scope.spawn(|| db.write(|tx| tenant::delete(tx, &tenant("a"))).unwrap());
        });
        assert_eq!(db.read(|tx| key::count(tx, &tenant("a"))), 0, "{number}");
        let digest = format!("own{number}");
        assert_eq!(db.read(move |tx| key::of_digest(tx, &digest)), None);
    }
}

pub(crate) fn keys_go_some_time_after_their_end_and_the_last_admin_is_seen(db: &Db) {
    let owner = person(&tenant("a"), "alice");
    put(db, &owner, &[1, 2]);
    let (endless, digests) = key_of(&owner, 3);
    let endless = KeyRow {
        expires_at_ms: None,
        ..endless
    };
    assert!(
        db.write(move |tx| key::insert(tx, &endless, &digests))
            .unwrap()
    );
    let prune = |before, limit| db.write(move |tx| key::prune(tx, before, limit)).unwrap();
    assert_eq!(prune(9, 10), 0, "the end itself is not before it");
    assert_eq!(
        (prune(10, 1), prune(10, 10), prune(u64::MAX / 4, 10)),
        (1, 1, 0)
    );
    let alone = || {
        let id = person(&tenant("a"), "alice").id;
        !db.read(move |tx| principal::has_other_admin(tx, &tenant("a"), &id))
    };
    let admin = |name: &str, kind: PrincipalKind| PrincipalRow {
        id: kind.named(name).unwrap(),
        kind,
        role: Role::Admin,
        ..owner.clone()
    };
    assert!(alone());
    let agent = admin("bot", PrincipalKind::Agent);
    db.write(move |tx| principal::insert(tx, &agent)).unwrap();
    assert!(alone(), "an agent lets nobody in");
    let other = admin("bob", PrincipalKind::User);
    db.write(move |tx| principal::insert(tx, &other)).unwrap();
    assert!(!alone());
}

pub(crate) fn a_role_is_changed_of_whoever_still_has_the_one_that_was_seen(db: &Db) {
    let (mine, other) = (person(&tenant("a"), "alice"), person(&tenant("b"), "alice"));
    put(db, &mine, &[1]);
    put(db, &other, &[2]);
    let set = |seen: &PrincipalRow, role| {
        let seen = seen.clone();
        db.write(move |tx| principal::set_role(tx, &seen, role))
            .unwrap()
    };
    assert!(set(&mine, Role::Member));
    let role = |digest: &'static str| {
        let owner = db.read(move |tx| key::of_digest(tx, digest)).unwrap();
        (owner.role, owner.key.scopes)
    };
    let scopes = Scopes::of([Action::JobWrite]);
    assert_eq!(role("own1"), (Role::Member, scopes.clone()));
    assert_eq!(role("own2"), (Role::Operator, scopes));
    assert!(!set(&mine, Role::Admin), "it is a member by now");
    let now = PrincipalRow {
        role: Role::Member,
        ..mine.clone()
    };
    assert_eq!(
        db.read(|tx| principal::get(tx, &tenant("a"), "user:alice")),
        Some(now.clone())
    );
    let gone = mine.clone();
    db.write(move |tx| principal::delete(tx, &gone.tenant, &gone.id, 9))
        .unwrap();
    assert!(!set(&now, Role::Admin));
}

/// Each holds the tenant before it looks, as the service does.
pub(crate) fn of_two_admins_who_make_each_other_less_at_once_one_stays(db: &Db) {
    let of = tenant("a");
    let admin = |name: &str| PrincipalRow {
        role: Role::Admin,
        ..person(&of, name)
    };
    let (alice, bob) = (admin("alice"), admin("bob"));
    put(db, &alice, &[]);
    put(db, &bob, &[]);
    let lessen = |row: &PrincipalRow| {
        let row = row.clone();
        db.write(move |tx| {
            tenant::alone(tx, &row.tenant)?;
            match principal::has_other_admin(tx, &row.tenant, &row.id)? {
                true => principal::set_role(tx, &row, Role::Member),
                false => Ok(false),
            }
        })
        .unwrap()
    };
    let done: Vec<bool> = std::thread::scope(|scope| {
        let lessen = &lessen;
        let both = [&alice, &bob].map(|row| scope.spawn(move || lessen(row)));
        both.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(done.iter().filter(|done| **done).count(), 1, "{done:?}");
    let admins = db.read(|tx| principal::list(tx, &tenant("a"), "", 10));
    let admins = admins.iter().filter(|row| row.role == Role::Admin);
    assert_eq!(admins.count(), 1);
}

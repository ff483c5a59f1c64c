//! Approvals: what waits, what counts, and what is found again.

use model::approval::{ApprovalState, Scope, Subject};
use model::id::{ApprovalId, PrincipalId, TenantId};
use model::principal::{PrincipalKind, Role};
use store::approval::{self, ApprovalRow};
use store::principal::{self, PrincipalRow};
use store::tenant::{self as tenants, TenantRow};
use store::{StoreError, event};

use crate::db::Db;
use crate::make::tenant;

fn who(text: &str) -> PrincipalId {
    text.parse().unwrap()
}

fn new(number: u8, of: &TenantId, subject_id: &str) -> ApprovalRow {
    ApprovalRow {
        id: ApprovalId::from_parts(u64::from(number), [number; 10]),
        tenant: of.clone(),
        principal: who("agent:bot"),
        subject: Subject::Sandbox,
        subject_id: subject_id.to_owned(),
        digest: format!("d{number}"),
        state: ApprovalState::Pending,
        version: 1,
        summary: "ö \u{1b}".to_owned(),
        request: "{}".to_owned(),
        reasons: ["commands: x".to_owned()].into(),
        why: String::new(),
        key: None,
        makers: [who("uid:1000")].into(),
        created_at_ms: u64::from(number),
        expires_at_ms: 100 + u64::from(number),
        decided_at_ms: None,
        decided_by: None,
        comment: String::new(),
        waived: false,
        scope: None,
        until_ms: None,
        used_at_ms: None,
        revoked_at_ms: None,
    }
}

fn add(db: &Db, row: &ApprovalRow) -> ApprovalRow {
    let new = row.clone();
    db.write(move |tx| approval::insert(tx, &new)).unwrap();
    row.clone()
}

fn say_yes(
    db: &Db,
    row: &ApprovalRow,
    scope: Scope,
    until: u64,
) -> Result<ApprovalRow, StoreError> {
    let row = row.clone();
    db.write(move |tx| {
        let next = ApprovalRow {
            state: ApprovalState::Approved,
            decided_at_ms: Some(50),
            decided_by: Some(who("user:a")),
            comment: "fine".to_owned(),
            waived: true,
            scope: Some(scope),
            until_ms: Some(until),
            ..row.clone()
        };
        approval::put(tx, &row, &next, "approval.approved", (&who("user:a"), 50))
    })
}

pub(crate) fn an_approval_is_decided_by_one_at_a_time_with_its_event(db: &Db) {
    let of = tenant("a");
    let row = add(db, &new(1, &of, "job_1"));
    let id = row.id.clone();
    let found = db.read(move |tx| approval::get(tx, Some(&tenant("a")), &id));
    assert_eq!(found.as_ref(), Some(&row));
    let id = row.id.clone();
    assert_eq!(
        db.read(move |tx| approval::get(tx, Some(&tenant("b")), &id)),
        None
    );
    let next = say_yes(db, &row, Scope::Once, 90).unwrap();
    assert_eq!(next.version, 2);
    let again = say_yes(db, &row, Scope::Once, 90);
    assert!(matches!(again, Err(StoreError::Stale { .. })));
    let id = row.id.clone();
    assert_eq!(db.read(move |tx| approval::get(tx, None, &id)), Some(next));
    let id = row.id.clone();
    let told = db.read(move |tx| event::list(tx, "approval", id.as_str(), 0, 10));
    let kinds: Vec<&str> = told.iter().map(|one| one.kind.as_str()).collect();
    assert_eq!(kinds, ["approval.asked", "approval.approved"]);
    assert_eq!(told[1].principal, "user:a");
    let data: serde_json::Value = serde_json::from_str(&told[1].data).unwrap();
    assert_eq!(
        (&data["comment"], &data["waived"]),
        (&"fine".into(), &true.into())
    );
}

pub(crate) fn approvals_are_listed_counted_and_ended_by_their_state(db: &Db) {
    let of = tenant("a");
    for number in 1..=4 {
        add(db, &new(number, &of, "job_1"));
    }
    add(db, &new(9, &tenant("b"), "job_2"));
    let second = ApprovalId::from_parts(2, [2; 10]);
    let row = db.read(move |tx| approval::get(tx, None, &second)).unwrap();
    say_yes(db, &row, Scope::Once, 90).unwrap();
    let list = |state, before: Option<(u64, ApprovalId)>, limit| {
        let rows = db.read(move |tx| {
            let before = before.as_ref().map(|(ms, id)| (*ms, id));
            approval::list(tx, &tenant("a"), state, before, limit)
        });
        let numbers: Vec<u64> = rows.iter().map(|row| row.created_at_ms).collect();
        (
            numbers,
            rows.last().map(|row| (row.created_at_ms, row.id.clone())),
        )
    };
    let (first, last) = list(None, None, 2);
    assert_eq!(first, [4, 3]);
    assert_eq!(list(None, last, 9).0, [2, 1]);
    let pending = Some(ApprovalState::Pending);
    assert_eq!(list(pending, None, 9).0, [4, 3, 1]);
    let count = |principal: &'static str, most| {
        db.read(move |tx| approval::count_pending(tx, &tenant("a"), &who(principal), most))
    };
    assert_eq!(count("agent:bot", 9), (3, 3));
    assert_eq!(count("agent:bot", 2), (2, 2));
    assert_eq!(count("agent:other", 9), (3, 0));
    let about = db.read(|tx| approval::pending_of(tx, "job_1", 9));
    assert_eq!(about.len(), 3);
    let late = db.read(|tx| approval::expired(tx, 103, 9));
    let late: Vec<u64> = late.iter().map(|row| row.created_at_ms).collect();
    assert_eq!(late, [1, 3]);
    assert_eq!(db.write(|tx| approval::prune(tx, 50, 9)).unwrap(), 0);
    assert_eq!(db.write(|tx| approval::prune(tx, 51, 9)).unwrap(), 1);
    assert_eq!(list(None, None, 9).0, [4, 3, 1]);
}

pub(crate) fn a_yes_is_found_while_it_counts_and_by_whom_it_is_for(db: &Db) {
    let of = tenant("a");
    let once = add(db, &new(1, &of, ""));
    let session = add(db, &new(2, &of, ""));
    let waits = add(db, &new(3, &of, ""));
    let once = say_yes(db, &once, Scope::Once, 200).unwrap();
    say_yes(db, &session, Scope::Session, 150).unwrap();
    let standing = |principal: &'static str, digest: &'static str, now| {
        let rows = db
            .read(move |tx| approval::standing(tx, &tenant("a"), &who(principal), digest, now, 9));
        rows.iter()
            .map(|row| row.created_at_ms)
            .collect::<Vec<u64>>()
    };
    assert_eq!(standing("agent:bot", "d1", 149), [2, 1]);
    assert_eq!(standing("agent:bot", "", 149), [2]);
    assert_eq!(standing("agent:bot", "d1", 150), [1]);
    assert_eq!(standing("agent:bot", "d1", 200), Vec::<u64>::new());
    assert_eq!(standing("agent:other", "d1", 1), Vec::<u64>::new());
    let same = |digest: &'static str| {
        let found =
            db.read(move |tx| approval::pending_same(tx, &tenant("a"), &who("agent:bot"), digest));
        found.map(|row| row.id)
    };
    assert_eq!((same("d3"), same("d1")), (Some(waits.id), None));
    db.write(move |tx| {
        let used = ApprovalRow {
            used_at_ms: Some(60),
            ..once.clone()
        };
        approval::put(tx, &once, &used, "approval.used", (&who("agent:bot"), 60))
    })
    .unwrap();
    assert_eq!(standing("agent:bot", "d1", 149), [2]);
    // Another one of the same name, who was let in later, has not asked.
    let row = TenantRow {
        id: of.clone(),
        name: "acme".to_owned(),
        principal: who("uid:1000"),
        created_at_ms: 5,
    };
    assert!(db.write(move |tx| tenants::insert(tx, &row)).unwrap());
    let added = db.write(move |tx| {
        let other = PrincipalRow {
            tenant: of.clone(),
            id: who("agent:bot"),
            kind: PrincipalKind::Agent,
            role: Role::Member,
            issuer: None,
            principal: who("uid:1000"),
            created_at_ms: 70,
        };
        principal::insert(tx, &other)
    });
    assert!(added.unwrap());
    assert_eq!(standing("agent:bot", "d1", 149), Vec::<u64>::new());
}

pub(crate) fn each_change_of_an_approval_is_told_or_given_up_with_an_event(db: &Db) {
    let of = tenant("a");
    let row = add(db, &new(1, &of, ""));
    let untold = |now| db.read(move |tx| approval::untold(tx, now, 0, 9));
    assert!(untold(0).is_empty());
    let due = untold(1).remove(0);
    assert_eq!((&due.row, due.attempts), (&row, 0));
    assert!(db.read(|tx| approval::untold(tx, 9, 2, 9)).is_empty());
    // Of two that take it one does.
    let take = |one: &approval::Untold| {
        let one = one.clone();
        db.write(move |tx| approval::telling(tx, &one, 30)).unwrap()
    };
    assert_eq!((take(&due), take(&due)), (true, false));
    assert_eq!((untold(29), untold(30)[0].attempts), (vec![], 1));
    let decided = say_yes(db, &row, Scope::Once, 90).unwrap();
    // What was told is the row before that.
    db.write(move |tx| approval::told(tx, &row)).unwrap();
    let due = untold(50).remove(0);
    assert_eq!((&due.row, due.attempts), (&decided, 0));
    let row = decided.clone();
    db.write(move |tx| approval::told(tx, &row)).unwrap();
    assert!(untold(99).is_empty());
    // What was asked for long ago and is changed now is told: by when it is to be, and not by when it was asked for.
    let old = add(db, &new(3, &of, ""));
    let changed = say_yes(db, &old, Scope::Once, 90).unwrap();
    let late = db.read(|tx| approval::untold(tx, 99, 40, 9));
    assert_eq!(late.first().map(|one| &one.row), Some(&changed));
    db.write(move |tx| approval::told(tx, &changed)).unwrap();
    let other = add(db, &new(2, &of, ""));
    let given_up = other.clone();
    db.write(move |tx| approval::never_told(tx, &given_up, (&who("uid:1000"), 5)))
        .unwrap();
    assert!(untold(99).is_empty());
    let told = db.read(move |tx| event::list(tx, "approval", other.id.as_str(), 1, 10));
    assert_eq!(told[0].kind, "approval.untold");
}

//! The order in which events were committed, and the seals over them.

use model::id::TenantId;
use store::audit::{self, FIRST_MARK, Marked, Place, Seal, Sealable};
use store::event::{self, NewEvent};
use store::{StoreError, Tx};

use crate::db::Db;
use crate::make::{principal, tenant};

fn happens(tx: &mut Tx<'_>, tenant: &TenantId, id: u64) -> Result<(), StoreError> {
    let new = NewEvent {
        tenant,
        resource: "thing",
        resource_id: &id.to_string(),
        version: 1,
        kind: "thing.done",
        data: "{}",
        principal: &principal(),
        at_ms: id,
    };
    event::append(tx, &new)
}

fn append(db: &Db, name: &'static str, id: u64) {
    db.write(move |tx| happens(tx, &tenant(name), id)).unwrap();
}

/// All of these that are settled: with a server that others use too, that may be a moment later.
fn unsealed(db: &Db, count: usize) -> Sealable {
    loop {
        let found = db.read(|tx| audit::unsealed(tx, 100));
        if found.events.len() >= count {
            return found;
        }
        std::thread::yield_now();
    }
}

fn ids(events: &[Marked]) -> Vec<String> {
    let id = |one: &Marked| one.event.resource_id.clone();
    events.iter().map(id).collect()
}

fn seal(name: &str, number: u64, found: &Sealable, at_ms: u64) -> Seal {
    let of = |one: &&Marked| one.tenant == tenant(name);
    let events = found.events.iter().filter(of).count() as u64;
    Seal {
        tenant: tenant(name),
        number,
        from_mark: found.from,
        to_mark: found.up_to,
        events,
        total: number * events,
        sealed_at_ms: at_ms,
        before: format!("{:064x}", number - 1),
        content: String::new(),
        digest: format!("{number:064x}"),
        retired: false,
    }
}

fn insert(db: &Db, seal: &Seal) {
    let seal = seal.clone();
    db.write(move |tx| audit::insert(tx, &seal)).unwrap();
}

pub(crate) fn events_are_sealed_in_the_order_of_their_commits_and_each_once(db: &Db) {
    let none = db.read(|tx| audit::unsealed(tx, 100));
    assert_eq!(
        (none.events.len(), none.from, none.more),
        (0, FIRST_MARK, false)
    );
    for id in 1..=3 {
        append(db, "a", id);
    }
    db.write(|tx| {
        happens(tx, &tenant("b"), 4)?;
        happens(tx, &tenant("a"), 5)
    })
    .unwrap();
    let found = unsealed(db, 5);
    assert_eq!(ids(&found.events), ["1", "2", "3", "4", "5"]);
    // What does not fit is left, and a transaction is not divided.
    let some = db.read(|tx| audit::unsealed(tx, 4));
    assert!(some.more);
    assert!(ids(&some.events).starts_with(&["1".to_owned(), "2".to_owned(), "3".to_owned()]));
    assert!(some.events.iter().all(|one| one.mark < some.up_to));
    assert!(db.write(audit::alone).unwrap());
    for name in ["a", "b"] {
        insert(db, &seal(name, 1, &found, 100));
    }
    assert_eq!(db.read(audit::unsealed_since), None);
    let sealed_to = db.read(audit::sealed_to);
    assert_eq!(sealed_to, found.up_to);
    append(db, "a", 6);
    append(db, "a", 7);
    assert_eq!(ids(&unsealed(db, 2).events), ["6", "7"]);
    assert_eq!(db.read(audit::unsealed_since), Some(6));
    let marks = (found.from, found.up_to);
    let of = |name| db.read(move |tx| audit::between(tx, Some(&tenant(name)), marks, 9));
    assert_eq!(ids(&of("a")), ["1", "2", "3", "5"]);
    assert_eq!(ids(&of("b")), ["4"]);
    // Read page by page.
    let mut place = Place::default();
    let mut pages = Vec::new();
    loop {
        let page = db.read(move |tx| audit::list(tx, Some(&tenant("a")), place, marks.1, 2));
        let Some(last) = page.last() else { break };
        place = Place {
            mark: last.mark,
            position: last.event.position,
        };
        pages.push(ids(&page));
    }
    assert_eq!(pages, [["1", "2"], ["3", "5"]]);
    let twice = seal("a", 1, &found, 100);
    assert!(db.write(move |tx| audit::insert(tx, &twice)).is_err());
    let tenants = db.read(|tx| audit::tenants(tx, None, 9));
    assert_eq!(tenants, [tenant("a"), tenant("b")]);
    let before = |at_ms| db.read(move |tx| audit::mark_before(tx, at_ms));
    assert_eq!((before(100), before(101)), (FIRST_MARK, found.up_to));
}

pub(crate) fn what_an_event_says_has_a_bound(db: &Db) {
    let append = |id: &'static str, length: usize| {
        db.write(move |tx| {
            let new = NewEvent {
                tenant: &tenant("a"),
                resource: "thing",
                resource_id: id,
                version: 1,
                kind: "thing.done",
                data: &format!("\"{}\"", "x".repeat(length)),
                principal: &principal(),
                at_ms: 1,
            };
            event::append(tx, &new)
        })
        .unwrap();
    };
    append("short", 8 * 1024 - 2);
    append("long", 1 << 20);
    let found = unsealed(db, 2).events;
    let said: Vec<usize> = found.iter().map(|one| one.event.data.len()).collect();
    assert_eq!(said[0], 8 * 1024);
    assert!(
        said[1] < 128
            && found[1]
                .event
                .data
                .starts_with(r#"{"left_out":{"bytes":1048578,"#)
    );
}

pub(crate) fn an_event_cannot_be_changed(db: &Db) {
    append(db, "a", 1);
    let change = |tx: &mut Tx<'_>| tx.execute("UPDATE event_inbox SET data = '{\"x\":1}'", &[]);
    assert!(db.write(change).is_err());
    assert_eq!(unsealed(db, 1).events[0].event.data, "{}");
}

pub(crate) fn what_was_kept_long_enough_goes_with_its_seals_and_the_last_of_them_stays(db: &Db) {
    for number in 1..=4 {
        append(db, "a", number);
        let found = unsealed(db, 1);
        insert(db, &seal("a", number, &found, number * 10));
    }
    let retire = |before_ms, keep| {
        db.write(move |tx| audit::retire(tx, &tenant("a"), (before_ms, keep), 2))
            .unwrap()
            .0
    };
    let left = || -> Vec<(u64, bool)> {
        let seals = db.read(|tx| audit::seals(tx, &tenant("a"), 0, 9));
        seals
            .iter()
            .map(|seal| (seal.number, seal.retired))
            .collect()
    };
    let events = || db.count("SELECT COUNT(*) AS n FROM event_inbox", &[]);
    assert_eq!(retire(10, 100), 0);
    assert_eq!((left().len(), events()), (4, 4));
    assert_eq!(retire(11, 100), 1);
    assert_eq!(left(), [(1, true), (2, false), (3, false), (4, false)]);
    assert_eq!(events(), 3);
    assert_eq!(retire(11, 100), 0);
    // Those beyond the newest go before their time.
    assert_eq!(retire(0, 1), 1);
    assert_eq!(left(), [(2, true), (3, false), (4, false)]);
    // Idle for long: only the last seal is left, and it has nothing under it.
    assert_eq!(retire(1000, 100), 1);
    assert_eq!(retire(1000, 100), 1);
    assert_eq!(retire(1000, 100), 0);
    assert_eq!((left(), events()), (vec![(4, true)], 0));
    let last = db.read(|tx| audit::last(tx, &tenant("a"))).unwrap();
    assert_eq!((last.number, last.retired), (4, true));
}

pub(crate) fn marks_go_on_after_all_events_are_gone(db: &Db) {
    append(db, "a", 1);
    let found = unsealed(db, 1);
    insert(db, &seal("a", 1, &found, 10));
    db.write(|tx| audit::retire(tx, &tenant("a"), (100, 9), 9))
        .unwrap();
    let none = db.read(|tx| audit::unsealed(tx, 100));
    assert!(none.events.is_empty() && none.up_to >= none.from);
    append(db, "a", 2);
    assert_eq!(ids(&unsealed(db, 1).events), ["2"]);
}

/// A transaction that began earlier may commit later, and must not come among what was sealed.
pub(crate) fn what_may_still_come_among_them_is_waited_for(db: &Db) {
    let mut early = crate::cluster::client(db);
    let mut early = early.transaction().unwrap();
    let insert = "INSERT INTO event_inbox (tenant, resource, resource_id, version, kind, data, \
                  principal, at_ms) VALUES ('ten_a', 'thing', 'early', 1, 'thing.done', '{}', 'x', 1)";
    early.execute(insert, &[]).unwrap();
    append(db, "a", 1);
    assert_eq!(db.read(|tx| audit::unsealed(tx, 9)).events, []);
    early.commit().unwrap();
    assert_eq!(ids(&unsealed(db, 2).events), ["early", "1"]);
}

/// A copy of a database that was brought back elsewhere counts its transactions from elsewhere.
pub(crate) fn marks_go_on_in_a_database_that_was_brought_back(db: &Db) {
    append(db, "a", 1);
    let mut found = unsealed(db, 1);
    found.up_to += 1_000_000;
    insert(db, &seal("a", 1, &found, 10));
    assert!(db.write(|tx| audit::unsealed(tx, 9)).is_err());
    let again = db.again();
    append(&again, "a", 2);
    assert_eq!(ids(&unsealed(&again, 1).events), ["2"]);
}

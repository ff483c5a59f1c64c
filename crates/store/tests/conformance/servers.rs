//! Servers, the links that they hold, and what they share.

use crate::db::Db;
use crate::make::node;
use model::id::ServerId;
use store::server::{self, ServerRow};

fn id(number: u8) -> ServerId {
    ServerId::from_parts(u64::from(number), [number; 10])
}

fn row(number: u8) -> ServerRow {
    ServerRow {
        id: id(number),
        name: format!("s{number}"),
        version: "0".to_owned(),
        address: Some("10.0.0.1:7301".to_owned()),
        certificate: Some(format!("{number:064}")),
        started_at_ms: 5,
        heard_at_ms: 5,
    }
}

fn put(db: &Db, row: &ServerRow) {
    let row = row.clone();
    db.write(move |tx| server::put(tx, &row)).unwrap();
}

pub(crate) fn a_server_is_known_by_its_certificate_until_it_is_gone(db: &Db) {
    put(db, &row(1));
    let of = |fingerprint: String| db.read(move |tx| server::of_certificate(tx, &fingerprint));
    assert_eq!(of(format!("{:064}", 1)), Some(row(1)));
    let later = ServerRow {
        certificate: Some("other".to_owned()),
        heard_at_ms: 9,
        ..row(1)
    };
    put(db, &later);
    assert_eq!(of(format!("{:064}", 1)), None);
    assert_eq!(of("other".to_owned()), Some(later));
    put(db, &row(2));
    assert_eq!(db.read(|tx| server::silent(tx, 9, 10)), [id(2)]);
    db.write(|tx| server::delete(tx, &id(1))).unwrap();
    assert_eq!(db.read(|tx| server::list(tx, 10)), [row(2)]);
}

pub(crate) fn a_link_is_held_by_whoever_took_it_last(db: &Db) {
    put(db, &row(1));
    put(db, &row(2));
    let open = |by: u8| db.write(move |tx| server::link_open(tx, (&node(1), "bulk"), &id(by), 7));
    let holder = || db.read(|tx| server::link_holder(tx, (&node(1), "bulk")));
    assert_eq!(holder(), None);
    assert_eq!(open(1).unwrap(), 1);
    assert_eq!(open(2).unwrap(), 2);
    assert_eq!(holder(), Some((row(2), 2)));
    // The first one hears only now that its link has ended.
    let close = |epoch| db.write(move |tx| server::link_close(tx, (&node(1), "bulk"), epoch));
    close(1).unwrap();
    assert_eq!(holder(), Some((row(2), 2)));
    close(2).unwrap();
    assert_eq!(holder(), None);
    assert_eq!(open(1).unwrap(), 3, "no epoch comes twice");
    assert_eq!(db.read(|tx| server::links(tx, 10)).len(), 1);
    db.write(|tx| server::delete(tx, &id(1))).unwrap();
    assert_eq!(holder(), None);
    assert_eq!(open(2).unwrap(), 4);
    // One that was forgotten and is there again still holds what nobody else has taken.
    db.write(|tx| server::delete(tx, &id(2))).unwrap();
    put(db, &row(2));
    let again = |by: u8, epoch| {
        db.write(move |tx| server::link_again(tx, &id(by), (&node(1), "bulk"), epoch))
            .unwrap();
    };
    again(2, 3);
    assert_eq!(holder(), None);
    again(2, 4);
    assert_eq!(holder(), Some((row(2), 4)));
    put(db, &row(1));
    again(1, 4);
    assert_eq!(holder(), Some((row(2), 4)));
    db.write(|tx| server::forget_links(tx, &node(1))).unwrap();
    assert_eq!(holder(), None);
}

pub(crate) fn what_all_share_is_what_the_first_wrote(db: &Db) {
    let mark = |value: &'static str| {
        db.write(move |tx| server::mark(tx, "blobs", value))
            .unwrap()
    };
    assert_eq!(mark("a"), "a");
    assert_eq!(mark("b"), "a");
    db.write(|tx| server::set_mark(tx, "blobs", "b")).unwrap();
    assert_eq!(mark("a"), "b");
}

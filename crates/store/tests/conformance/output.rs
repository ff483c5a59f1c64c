//! Output of jobs.

use std::sync::atomic::{AtomicBool, Ordering};

use model::id::JobId;
use model::job::JobEvent;
use store::StoreError;
use store::job::JobRow;
use store::output::{self, Appended, Segment};

use crate::db::{Db, race};
use crate::make::{finish, insert, job_id, lease, leased_job, lost, moved, new_job, node, started};

fn piece(stream: &str, offset_bytes: u64, data: &[u8]) -> Segment {
    Segment {
        seq: 0,
        attempt: 1,
        stream: stream.to_owned(),
        offset_bytes,
        data: data.to_vec(),
        at_ms: 5,
    }
}

fn append(db: &Db, job: &JobId, piece: Segment) -> Result<Appended, StoreError> {
    append_after(db, job, 0, piece)
}

/// Adds a piece before which so many bytes were dropped.
fn append_after(
    db: &Db,
    job: &JobId,
    dropped_bytes: u64,
    piece: Segment,
) -> Result<Appended, StoreError> {
    let job = job.clone();
    db.write(move |tx| output::append(tx, &job, &piece, dropped_bytes))
}

/// A job that a node has which speaks this version of the protocol.
fn leased_by(db: &Db, number: u64, protocol: u32) -> JobRow {
    let node = crate::nodes::row(1, "a", 100);
    db.write(move |tx| {
        store::node::upsert(tx, &node)?;
        store::node::set_protocol(tx, &node.id, protocol)
    })
    .unwrap();
    leased_job(db, number)
}

fn list(db: &Db, job: &JobId, after: u64, limit: u32) -> Vec<Segment> {
    let job = job.clone();
    db.read(move |tx| output::list(tx, &job, after, limit))
}

pub(crate) fn pieces_are_read_in_the_order_of_their_arrival_page_by_page(db: &Db) {
    let job = leased_job(db, 1).id;
    let other = leased_job(db, 2).id;
    let bytes: Vec<u8> = (0..=255).collect();
    let sent = [
        piece("stdout", 0, &bytes),
        piece("stderr", 0, b"\0"),
        piece("stdout", 256, b"b"),
        piece("stderr", 1, b""),
    ];
    for one in &sent {
        assert_eq!(append(db, &job, one.clone()).unwrap(), Appended::New);
    }
    append(db, &other, piece("stdout", 0, b"of another")).unwrap();
    let mut read = Vec::new();
    while let [one] = &list(db, &job, read.len() as u64, 1)[..] {
        read.push(one.clone());
    }
    let numbered = (1..).zip(sent).map(|(seq, one)| Segment { seq, ..one });
    assert_eq!(read, numbered.collect::<Vec<_>>());
    assert_eq!(list(db, &job, 0, 100), read);
}

pub(crate) fn the_same_piece_again_is_a_duplicate_and_other_bytes_are_a_conflict(db: &Db) {
    let job = leased_job(db, 1).id;
    let one = piece("stdout", 10, b"abc");
    assert_eq!(append(db, &job, one.clone()).unwrap(), Appended::New);
    assert_eq!(append(db, &job, one.clone()).unwrap(), Appended::Duplicate);
    let later = Segment { at_ms: 9, ..one };
    assert_eq!(append(db, &job, later).unwrap(), Appended::Duplicate);
    for differs in [&b"abd"[..], b"ab", b"abcd", b""] {
        let refused = append(db, &job, piece("stdout", 10, differs));
        assert!(
            matches!(refused, Err(StoreError::Conflict { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(list(db, &job, 0, 9).len(), 1);
    let elsewhere = piece("stderr", 10, b"abd");
    assert_eq!(append(db, &job, elsewhere).unwrap(), Appended::New);
}

pub(crate) fn a_piece_that_leaves_a_hole_or_begins_before_the_end_is_refused(db: &Db) {
    let job = leased_by(db, 1, 3).id;
    let holes = |refused: &[(&str, u64, u64)]| {
        let before = list(db, &job, 0, 99);
        for (stream, offset, dropped) in refused {
            let said = append_after(db, &job, *dropped, piece(stream, *offset, b"xyz"));
            assert!(
                matches!(said, Err(StoreError::Hole { .. })),
                "{stream} {offset} {dropped}: {said:?}"
            );
        }
        assert_eq!(list(db, &job, 0, 99), before);
    };
    let new = |dropped, piece| {
        let said = append_after(db, &job, dropped, piece);
        assert_eq!(said.unwrap(), Appended::New);
    };
    holes(&[("stdout", 3, 0), ("stdout", 3, 2), ("stderr", 1, 0)]);
    new(0, piece("stdout", 0, b"01234"));
    let far = i64::MAX.unsigned_abs() - 3;
    holes(&[
        ("stdout", 3, 0),
        ("stdout", 3, u64::MAX),
        ("stdout", 4, 1),
        ("stdout", 6, 0),
        ("stdout", 8, 2),
        ("stdout", far, far - 6),
        // What is stored of the other stream says nothing of this one.
        ("stderr", 5, 0),
    ]);
    new(3, piece("stdout", 8, b"89"));
    new(0, piece("stdout", 10, b"a"));
    // What the node believed to be lost was stored after all.
    new(7, piece("stdout", 11, b"b"));
    new(5, piece("stderr", 5, b"end"));
    // What came before comes again, whatever is said of what is before it.
    for (dropped, again) in [
        (0, piece("stdout", 0, b"01234")),
        (3, piece("stdout", 8, b"89")),
        (0, piece("stdout", 8, b"89")),
    ] {
        let said = append_after(db, &job, dropped, again);
        assert_eq!(said.unwrap(), Appended::Duplicate);
    }
    let other = append(db, &job, piece("stdout", 0, b"0123"));
    assert!(matches!(other, Err(StoreError::Conflict { .. })));
    holes(&[("stdout", 5, 0), ("stdout", 9, 0)]);
}

pub(crate) fn a_later_attempt_begins_its_streams_anew(db: &Db) {
    let row = leased_by(db, 1, 3);
    append(db, &row.id, piece("stdout", 0, b"abc")).unwrap();
    let row = moved(db, &row, &started(&row), 3);
    let row = moved(db, &row, &lost(&row, true), 3);
    let row = moved(db, &row, &lease(&row, node(1)), 4);
    let second = |offset_bytes| Segment {
        attempt: 2,
        ..piece("stdout", offset_bytes, b"x")
    };
    let said = append(db, &row.id, second(3));
    assert!(matches!(said, Err(StoreError::Hole { .. })), "{said:?}");
    assert_eq!(append(db, &row.id, second(0)).unwrap(), Appended::New);
}

pub(crate) fn of_a_node_that_cannot_declare_a_gap_a_piece_may_begin_anywhere(db: &Db) {
    let job = leased_by(db, 1, 2).id;
    for offset in [7, 3, 0, 4] {
        let said = append(db, &job, piece("stdout", offset, b"xyz"));
        assert_eq!(said.unwrap(), Appended::New);
    }
}

pub(crate) fn of_many_who_send_different_pieces_at_once_no_hole_is_left(db: &Db) {
    let job = leased_by(db, 1, 3).id;
    // Each sends the whole stream, in pieces of its own length.
    race(4, |number| {
        let len = [1, 2, 3, 4][number];
        for offset in (0..24).step_by(len) {
            let bytes = &b"abcdefghijklmnopqrstuvwxyz"[offset..offset + len];
            match append(db, &job, piece("stdout", offset as u64, bytes)) {
                Ok(_) | Err(StoreError::Hole { .. } | StoreError::Conflict { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
    let mut stored = list(db, &job, 0, 100);
    stored.sort_by_key(|piece| piece.offset_bytes);
    let text: Vec<u8> = stored.into_iter().flat_map(|piece| piece.data).collect();
    assert_eq!(text, b"abcdefghijklmnopqrstuvwx");
}

pub(crate) fn both_streams_at_once_get_different_numbers_and_a_reader_misses_none(db: &Db) {
    const EACH: u64 = 100;
    let job = leased_job(db, 1).id;
    let ended = AtomicBool::new(false);
    let read = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut read: Vec<u64> = Vec::new();
            loop {
                // Before the look: what was stored until then must be in it.
                let last = ended.load(Ordering::SeqCst);
                let page = list(db, &job, read.last().copied().unwrap_or(0), 7);
                read.extend(page.iter().map(|piece| piece.seq));
                if last && page.is_empty() {
                    return read;
                }
            }
        });
        let sent = race(2, |number| {
            let stream = ["stdout", "stderr"][number];
            let send = |offset| append(db, &job, piece(stream, offset, b"x"));
            (0..EACH).map(send).collect::<Vec<_>>()
        });
        ended.store(true, Ordering::SeqCst);
        for new in sent.into_iter().flatten() {
            assert_eq!(new.unwrap(), Appended::New);
        }
        reader.join().unwrap()
    });
    assert_eq!(read, (1..=2 * EACH).collect::<Vec<_>>());
}

pub(crate) fn one_piece_sent_by_many_at_once_is_kept_once(db: &Db) {
    let job = leased_job(db, 1).id;
    for offset in 0..10 {
        let sent = race(6, |_| append(db, &job, piece("stdout", offset, b"x")));
        let new = sent.into_iter().map(Result::unwrap);
        assert_eq!(new.filter(|one| *one == Appended::New).count(), 1);
    }
    assert_eq!(list(db, &job, 0, 100).len(), 10);
}

pub(crate) fn a_piece_of_an_attempt_that_no_node_has_is_stale(db: &Db) {
    let refused = |job: &JobId, attempt: u32| {
        let piece = Segment {
            attempt,
            ..piece("stdout", 0, b"x")
        };
        let refused = append(db, job, piece);
        assert!(
            matches!(refused, Err(StoreError::Stale { .. })),
            "{refused:?}"
        );
        assert_eq!(list(db, job, 0, 1), []);
    };
    refused(&job_id(9), 1);
    let row = insert(db, new_job(1));
    refused(&row.id, 0);
    let row = moved(db, &row, &lease(&row, node(1)), 2);
    refused(&row.id, 2);
    let row = moved(db, &row, &started(&row), 3);
    let row = moved(db, &row, &lost(&row, true), 3);
    refused(&row.id, 1);
    let row = moved(db, &row, &lease(&row, node(2)), 4);
    refused(&row.id, 1);
    let row = moved(db, &row, &JobEvent::Cancel, 5);
    let row = moved(db, &row, &finish(&row), 6);
    refused(&row.id, 2);
}

pub(crate) fn bytes_are_counted_for_each_attempt(db: &Db) {
    let row = leased_job(db, 1);
    let kept = |attempt| {
        let id = job_id(1);
        db.read(move |tx| output::bytes(tx, &id, attempt))
    };
    assert_eq!(kept(1), 0);
    append(db, &row.id, piece("stdout", 0, b"abc")).unwrap();
    append(db, &row.id, piece("stderr", 0, "ö\0".as_bytes())).unwrap();
    let row = moved(db, &row, &started(&row), 3);
    let row = moved(db, &row, &lost(&row, true), 3);
    let row = moved(db, &row, &lease(&row, node(1)), 4);
    let second = Segment {
        attempt: 2,
        ..piece("stdout", 0, b"x")
    };
    assert_eq!(append(db, &row.id, second).unwrap(), Appended::New);
    assert_eq!((kept(1), kept(2), kept(3)), (6, 1, 0));
}

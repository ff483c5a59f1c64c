//! Output of jobs.

use std::sync::atomic::{AtomicBool, Ordering};

use model::id::JobId;
use model::job::JobEvent;
use store::StoreError;
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
    let job = job.clone();
    db.write(move |tx| output::append(tx, &job, &piece))
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

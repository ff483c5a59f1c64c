//! A disk that is full: said so, nothing half done, and all well when there is room again.

use std::path::Path;
use std::process::Command;

use store::output::{self, Segment};
use store::{StoreError, Tx, job};

use crate::db::{Db, Place, race};
use crate::make::{check_in_step, get, insert, job_id, leased_job, new_job};

fn add(tx: &mut Tx<'_>, number: u64, bytes: usize) -> Result<job::JobRow, StoreError> {
    let row = job::insert(tx, &new_job(number))?;
    let row = crate::make::advance(tx, &row, &crate::make::lease(&row, crate::make::node(1)), 1)?;
    let piece = Segment {
        seq: 0,
        attempt: 1,
        stream: "stdout".to_owned(),
        offset_bytes: 0,
        data: vec![7; bytes],
        at_ms: 1,
    };
    output::append(tx, &row.id, &piece, 0)?;
    Ok(row)
}

/// Writes from several threads until nothing more fits. What was answered is there, wholly, and nothing
/// else is.
fn fill(db: &Db) {
    let outcomes = race(4, |thread| {
        let mut outcomes = Vec::new();
        for number in (0..).map(|n| 1000 * (thread as u64 + 1) + n) {
            let outcome = db.write(move |tx| add(tx, number, 50_000));
            let ended = outcome.is_err();
            outcomes.push((number, outcome));
            if ended {
                return outcomes;
            }
        }
        outcomes
    });
    let mut fitted = 0;
    for (number, outcome) in outcomes.into_iter().flatten() {
        match outcome {
            Ok(row) => {
                fitted += 1;
                check_in_step(db, &row);
            }
            Err(StoreError::Full) => assert_eq!(get(db, &job_id(number)), None),
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(fitted > 0);
    let pieces = "SELECT COUNT(*) AS n FROM output_segment";
    assert_eq!(db.count(pieces, &[]), fitted);
}

#[test]
fn a_database_that_may_not_grow_is_full_until_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(Place::Sqlite(dir.path().join("db")));
    let first = leased_job(&db, 1);
    let pages = |tx: &mut Tx<'_>| tx.query("PRAGMA max_page_count = 300", &[]).map(drop);
    db.write(pages).unwrap();
    fill(&db);
    check_in_step(&db, &first);
    let pages = |tx: &mut Tx<'_>| tx.query("PRAGMA max_page_count = 100000", &[]).map(drop);
    db.write(pages).unwrap();
    db.write(|tx| add(tx, 2, 50_000)).unwrap();
}

/// Says to this test that it runs on a small disk, and where that is.
const SMALL: &str = "COFFERDAM_TEST_SMALL_DISK";

/// The disk is a small one in a mount namespace of the test's own, so that it is gone with the test
/// however that ends. The part of the test that is in there is another process.
#[test]
fn a_full_disk_is_said_and_the_store_works_again_when_there_is_room() {
    if let Some(dir) = std::env::var_os(SMALL) {
        return on_a_small_disk(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let me = std::env::current_exe().unwrap();
    let script = "mount -t tmpfs -o size=8m none \"$1\" || exit 77\n exec \"$2\" --exact \
                  full::a_full_disk_is_said_and_the_store_works_again_when_there_is_room";
    #[expect(
        clippy::disallowed_methods,
        reason = "this very test once more, which needs what cargo gives to a test"
    )]
    let mut inside = Command::new("unshare");
    let output = inside
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .arg(dir.path())
        .arg(me)
        .env(SMALL, dir.path())
        .output();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && !text.contains("running 1 test") {
        println!("skipped: no small disk of our own: {said}");
        return;
    }
    assert!(output.status.success(), "{text}\n{said}");
    assert!(text.contains("1 passed"), "{text}");
}

fn on_a_small_disk(dir: &Path) {
    let db = Db::open(Place::Sqlite(dir.join("db")));
    let first = insert(&db, new_job(1));
    let ballast = dir.join("ballast");
    // First the store fills the disk, and then somebody else does. In each round more room comes back than
    // the log is long, because it has to be written back before its own room can be used again.
    for (round, bytes) in [(2, 5 << 20), (3, 8 << 20), (4, 8 << 20)] {
        // Of what does not fit, as much is written as does.
        drop(std::fs::write(&ballast, vec![0; bytes]));
        fill_rest(&db, round);
        std::fs::remove_file(&ballast).unwrap();
        check_in_step(&db, &first);
        // There is room again, and nobody has to restart anything.
        let row = db.write(move |tx| add(tx, round, 1000)).unwrap();
        check_in_step(&db, &row);
        check_in_step(&db.again(), &row);
    }
}

/// Asks the store for more and more, until it says that nothing fits any more.
fn fill_rest(db: &Db, round: u64) {
    for number in (0..).map(|n| round * 100_000 + n) {
        match db.write(move |tx| add(tx, number, 50_000)) {
            Ok(row) => check_in_step(db, &row),
            Err(StoreError::Full) => {
                assert_eq!(get(db, &job_id(number)), None);
                return;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

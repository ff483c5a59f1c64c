//! What was run in sandboxes: written once, ended once, gone with the sandbox.

use model::id::SandboxId;
use store::exec::{self, ExecRow, Of};
use store::{StoreError, event};

use crate::db::Db;
use crate::make::{principal, tenant};

fn of(number: u8) -> Of {
    Of {
        tenant: tenant("a"),
        sandbox: SandboxId::from_parts(u64::from(number), [number; 10]),
        principal: principal(),
        at_ms: 9,
    }
}

fn row(seq: u64) -> ExecRow {
    ExecRow {
        seq,
        started_at_ms: 5,
        ended_at_ms: None,
        started: Some("{\"argv\":[\"ö\"]}".to_owned()),
        ended: None,
        missed: None,
    }
}

fn list(db: &Db, of: &Of, before: Option<u64>, limit: u32) -> Vec<ExecRow> {
    let sandbox = of.sandbox.clone();
    db.read(move |tx| exec::list(tx, &sandbox, before, limit))
}

fn numbers(rows: &[ExecRow]) -> Vec<u64> {
    rows.iter().map(|row| row.seq).collect()
}

pub(crate) fn a_command_is_written_once_and_ended_once(db: &Db) {
    let (one, other) = (of(1), of(2));
    let at = one.clone();
    let told = db.write(move |tx| {
        let first = exec::insert(tx, &at.sandbox, &row(1))?;
        let again = exec::insert(
            tx,
            &at.sandbox,
            &ExecRow {
                started_at_ms: 6,
                ..row(1)
            },
        )?;
        let elsewhere = exec::insert(tx, &other.sandbox, &row(1))?;
        let ended = exec::end(tx, &at.sandbox, 1, 7, "{}")?;
        let twice = exec::end(tx, &at.sandbox, 1, 8, "other")?;
        let nothing = exec::end(tx, &at.sandbox, 2, 8, "other")?;
        Ok(vec![first, again, elsewhere, ended, twice, nothing])
    });
    assert_eq!(told.unwrap(), [true, false, true, true, false, false]);
    let expected = ExecRow {
        ended_at_ms: Some(7),
        ended: Some("{}".to_owned()),
        ..row(1)
    };
    assert_eq!(list(db, &one, None, 10), [expected]);
}

pub(crate) fn what_was_run_is_listed_newest_first_page_by_page(db: &Db) {
    let at = of(1);
    let sandbox = at.sandbox.clone();
    let written = db.write(move |tx| {
        for seq in [1, 3, 10, 2] {
            exec::insert(tx, &sandbox, &row(seq))?;
        }
        Ok(())
    });
    written.unwrap();
    assert_eq!(numbers(&list(db, &at, None, 2)), [10, 3]);
    assert_eq!(numbers(&list(db, &at, Some(3), 2)), [2, 1]);
    assert!(list(db, &at, Some(1), 2).is_empty() && list(db, &of(2), None, 2).is_empty());
}

pub(crate) fn old_commands_of_a_sandbox_go_with_their_events_and_those_of_others_stay(db: &Db) {
    let (one, other) = (of(1), of(2));
    let (a, b) = (one.clone(), other.clone());
    let written = db.write(move |tx| {
        for at in [&a, &b] {
            for seq in 1..=12 {
                exec::insert(tx, &at.sandbox, &row(seq))?;
                exec::tell(tx, at, seq, "exec.ended", "{}")?;
            }
        }
        exec::prune(tx, &a.sandbox, 9)
    });
    written.unwrap();
    assert_eq!(numbers(&list(db, &one, None, 20)), [12, 11, 10]);
    assert_eq!(list(db, &other, None, 20).len(), 12);
    let events = |of: &Of, seq: u64| {
        let name = format!("{}/{seq:020}", of.sandbox);
        db.read(move |tx| event::list(tx, "exec", &name, 0, 10))
            .len()
    };
    assert_eq!(
        (events(&one, 9), events(&one, 10), events(&other, 1)),
        (0, 1, 1)
    );
    let at = one.clone();
    let twice = db.write(move |tx| exec::tell(tx, &at, 10, "exec.ended", "{}"));
    assert!(matches!(twice, Err(StoreError::Database(_))), "{twice:?}");
    db.write(move |tx| exec::prune(tx, &one.sandbox, u64::MAX))
        .unwrap();
    assert!(list(db, &of(1), None, 20).is_empty());
}

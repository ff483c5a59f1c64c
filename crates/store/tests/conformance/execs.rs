//! What was run in sandboxes: written once, ended once, gone with the sandbox.

use model::id::SandboxId;
use store::exec::{self, ExecRow, Kind, Of};
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

fn row(of: &Of, seq: u64) -> ExecRow {
    ExecRow {
        sandbox: of.sandbox.clone(),
        kind: Kind::Exec,
        over_at_ms: None,
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
    db.read(move |tx| exec::list(tx, &sandbox, None, before, limit))
}

fn numbers(rows: &[ExecRow]) -> Vec<u64> {
    rows.iter().map(|row| row.seq).collect()
}

pub(crate) fn a_command_is_written_once_and_ended_once(db: &Db) {
    let (one, other) = (of(1), of(2));
    let at = one.clone();
    let told = db.write(move |tx| {
        let first = exec::insert(tx, &at.tenant, &row(&at, 1))?;
        let again = exec::insert(
            tx,
            &at.tenant,
            &ExecRow {
                started_at_ms: 6,
                ..row(&at, 1)
            },
        )?;
        let elsewhere = exec::insert(tx, &other.tenant, &row(&other, 1))?;
        let ended = exec::end(tx, &at.sandbox, 1, 7, "{}")?;
        let twice = exec::end(tx, &at.sandbox, 1, 8, "other")?;
        let nothing = exec::end(tx, &at.sandbox, 2, 8, "other")?;
        Ok(vec![first, again, elsewhere, ended, twice, nothing])
    });
    assert_eq!(told.unwrap(), [true, false, true, true, false, false]);
    let expected = ExecRow {
        ended_at_ms: Some(7),
        ended: Some("{}".to_owned()),
        ..row(&one, 1)
    };
    assert_eq!(list(db, &one, None, 10), [expected]);
}

pub(crate) fn what_was_run_is_listed_newest_first_page_by_page(db: &Db) {
    let at = of(1);
    let to = at.clone();
    let written = db.write(move |tx| {
        for seq in [1, 3, 10, 2] {
            exec::insert(tx, &to.tenant, &row(&to, seq))?;
        }
        Ok(())
    });
    written.unwrap();
    assert_eq!(numbers(&list(db, &at, None, 2)), [10, 3]);
    assert_eq!(numbers(&list(db, &at, Some(3), 2)), [2, 1]);
    assert!(list(db, &at, Some(1), 2).is_empty() && list(db, &of(2), None, 2).is_empty());
}

pub(crate) fn old_commands_of_a_sandbox_go_and_those_of_others_stay(db: &Db) {
    let (one, other) = (of(1), of(2));
    let (a, b) = (one.clone(), other.clone());
    let written = db.write(move |tx| {
        for at in [&a, &b] {
            for seq in 1..=12 {
                exec::insert(tx, &at.tenant, &row(at, seq))?;
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
    assert_eq!((events(&one, 9), events(&other, 1)), (1, 1));
    let at = one.clone();
    let twice = db.write(move |tx| exec::tell(tx, &at, 10, "exec.ended", "{}"));
    assert!(matches!(twice, Err(StoreError::Database(_))), "{twice:?}");
    db.write(move |tx| exec::prune(tx, &one.sandbox, u64::MAX))
        .unwrap();
    assert!(list(db, &of(1), None, 20).is_empty());
}

pub(crate) fn what_was_run_in_all_sandboxes_of_a_tenant_is_listed_by_kind_page_by_page(db: &Db) {
    let (one, other) = (of(1), of(2));
    let theirs = Of {
        tenant: tenant("b"),
        ..of(3)
    };
    let all = [one.clone(), other.clone(), theirs];
    let written = db.write(move |tx| {
        for (at, seq, ms, kind) in [
            (&all[0], 1, 5, Kind::Exec),
            (&all[1], 1, 5, Kind::Exec),
            (&all[1], 2, 5, Kind::Exec),
            (&all[0], 2, 9, Kind::Exec),
            (&all[0], 3, 7, Kind::Step),
            (&all[0], 4, 7, Kind::Missed),
            (&all[2], 1, 8, Kind::Exec),
        ] {
            let started_at_ms = ms;
            let row = row(at, seq);
            exec::insert(
                tx,
                &at.tenant,
                &ExecRow {
                    kind,
                    started_at_ms,
                    ..row
                },
            )?;
        }
        Ok(())
    });
    written.unwrap();
    let page = |kind, before: Option<(u64, SandboxId, u64)>| {
        let rows = db.read(move |tx| {
            let before = before.as_ref().map(|(ms, id, seq)| (*ms, id, *seq));
            exec::of_tenant(tx, &tenant("a"), kind, before, 2)
        });
        rows.into_iter()
            .map(|row| (row.started_at_ms, row.sandbox, row.seq))
            .collect::<Vec<_>>()
    };
    let (a, b) = (one.sandbox, other.sandbox);
    let mut seen = page(Kind::Exec, None);
    while let Some(last) = seen.last().cloned() {
        let next = page(Kind::Exec, Some(last));
        if next.is_empty() {
            break;
        }
        seen.extend(next);
    }
    let expected = [
        (9, a.clone(), 2),
        (5, b.clone(), 2),
        (5, b, 1),
        (5, a.clone(), 1),
    ];
    assert_eq!(seen, expected);
    assert_eq!(page(Kind::Step, None), [(7, a.clone(), 3)]);
    let steps = db.read(move |tx| exec::list(tx, &a, Some(Kind::Step), None, 9));
    assert_eq!(numbers(&steps), [3]);
}

#[test]
fn a_page_of_all_commands_is_as_quick_among_many_as_among_few() {
    crate::db::on_sqlite(by_index);
}

fn by_index(db: &Db) {
    let plan = "EXPLAIN QUERY PLAN SELECT seq FROM exec WHERE tenant = 'a' AND kind = 'exec' \
                AND (started_at_ms, sandbox_id, seq) < (9, 'b', 1) \
                ORDER BY started_at_ms DESC, sandbox_id DESC, seq DESC LIMIT 2";
    let rows = db.read(move |tx| tx.query(plan, &[]));
    let details: Vec<String> = rows.iter().map(|row| row.text("detail").unwrap()).collect();
    let expected = "SEARCH exec USING COVERING INDEX exec_by_kind (tenant=? AND kind=? AND (started_at_ms,sandbox_id,seq)<(?,?,?))";
    assert_eq!(details, [expected]);
}

pub(crate) fn what_has_no_end_ends_with_its_place_and_the_last_number_is_known(db: &Db) {
    let (one, other) = (of(1), of(2));
    let (a, b) = (one.clone(), other.clone());
    let last = db.write(move |tx| {
        let before = exec::close(tx, &a.sandbox, 9)?;
        for (at, seq) in [(&a, 1), (&a, 4), (&b, 9)] {
            exec::insert(tx, &at.tenant, &row(at, seq))?;
        }
        exec::end(tx, &a.sandbox, 1, 7, "{}")?;
        Ok((before, exec::close(tx, &a.sandbox, 9)?))
    });
    assert_eq!(last.unwrap(), (0, 4));
    let ends = |of: &Of| {
        list(db, of, None, 9)
            .iter()
            .map(|row| (row.ended_at_ms, row.ended.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        ends(&one),
        [(Some(9), None), (Some(7), Some("{}".to_owned()))]
    );
    assert_eq!(ends(&other), [(None, None)]);
}

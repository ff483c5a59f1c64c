//! Jobs: insert, get, list.

use std::collections::HashSet;

use model::job::JobState;
use store::job::{self, NewJob};
use store::{StoreError, event};

use crate::db::{Db, read_so_far};
use crate::make::{check_in_step, get, insert, job_id, lease, moved, new_job, node, spec, tenant};

pub(crate) fn a_new_job_is_read_back_as_it_was_inserted(db: &Db) {
    let new = new_job(7);
    let row = insert(db, new.clone());
    assert_eq!((row.version, row.attempt, row.epoch), (1, 0, 0));
    assert_eq!(row.state, JobState::Queued);
    assert_eq!((row.created_at_ms, row.queued_at_ms), (7, Some(7)));
    assert_eq!(row.spec, new.spec);
    check_in_step(db, &row);
    let events = db.read(|tx| event::list(tx, "job", job_id(7).as_str(), 0, 10));
    assert_eq!(events[0].kind, "job.queued");
    assert_eq!(events[0].principal, "uid:1000");
    assert_eq!(events[0].at_ms, 7);
    assert_eq!(get(db, &job_id(8)), None);
}

pub(crate) fn a_job_that_awaits_approval_has_no_place_in_the_queue(db: &Db) {
    let row = insert(
        db,
        NewJob {
            state: JobState::AwaitingApproval,
            ..new_job(1)
        },
    );
    assert_eq!(row.queued_at_ms, None);
    check_in_step(db, &row);
    let events = db.read(|tx| event::list(tx, "job", job_id(1).as_str(), 0, 10));
    assert_eq!(events[0].kind, "job.awaiting_approval");
}

pub(crate) fn another_tenant_does_not_see_a_job(db: &Db) {
    insert(db, new_job(1));
    for (name, sees) in [("a", true), ("b", false)] {
        let tenant = tenant(name);
        let (got, listed) = db.read(move |tx| {
            let got = job::get(tx, Some(&tenant), &job_id(1))?;
            Ok((got, job::list(tx, &tenant, None, None, 10)?))
        });
        assert_eq!((got.is_some(), listed.len()), (sees, usize::from(sees)));
    }
}

/// Fifty jobs, several of each moment, some of another tenant.
fn insert_fifty(db: &Db) {
    let unit = |tx: &mut store::Tx<'_>| {
        for number in 0..50 {
            let new = NewJob {
                tenant: tenant(if number % 5 == 0 { "b" } else { "a" }),
                at_ms: number / 8,
                ..new_job(number)
            };
            job::insert(tx, &new)?;
        }
        Ok(())
    };
    db.write(unit).unwrap();
}

pub(crate) fn a_list_read_page_by_page_has_every_job_once_and_the_newest_first(db: &Db) {
    insert_fifty(db);
    for limit in [1, 3, 8, 100] {
        let mut seen = Vec::new();
        loop {
            let last = seen.last().cloned();
            let page = db.read(move |tx| {
                let before = last.as_ref().map(|(ms, id)| (*ms, id));
                job::list(tx, &tenant("a"), None, before, limit)
            });
            assert!(page.len() <= limit as usize);
            if page.is_empty() {
                break;
            }
            seen.extend(page.into_iter().map(|row| (row.created_at_ms, row.id)));
        }
        assert!(seen.is_sorted_by(|one, next| one > next), "newest first");
        let wanted: HashSet<_> = (0..50).filter(|n| n % 5 != 0).map(job_id).collect();
        assert_eq!(seen.len(), wanted.len());
        assert_eq!(
            seen.into_iter().map(|(_, id)| id).collect::<HashSet<_>>(),
            wanted
        );
    }
}

pub(crate) fn a_list_of_one_state_has_no_others(db: &Db) {
    insert_fifty(db);
    let row = get(db, &job_id(11)).unwrap();
    let row = moved(db, &row, &lease(&row, node(1)), 90);
    let list = |state: &'static str| {
        db.read(move |tx| job::list(tx, &tenant("a"), Some(state), None, 100))
    };
    assert_eq!(list("leased"), [row]);
    assert_eq!(list("queued").len(), 39);
    assert_eq!(list("finished"), []);
}

pub(crate) fn a_page_of_one_state_reads_no_jobs_of_others(db: &Db) {
    let many = |tx: &mut store::Tx<'_>| {
        for number in 0..5000 {
            job::insert(tx, &new_job(number))?;
        }
        Ok(())
    };
    db.write(many).unwrap();
    for number in [7, 4000] {
        let row = get(db, &job_id(number)).unwrap();
        moved(db, &row, &lease(&row, node(1)), 6000);
    }
    // Without statistics, and with them.
    for _ in 0..2 {
        for (state, listed) in [("leased", 2), ("finished", 0), ("queued", 10)] {
            let (found, read) = db.read(move |tx| {
                let before = read_so_far(tx, "job")?;
                let found = job::list(tx, &tenant("a"), Some(state), None, 10)?;
                Ok((found.len(), read_so_far(tx, "job")? - before))
            });
            assert_eq!(found, listed, "{state}");
            assert!(read < 50, "{read} rows were read for {state}");
        }
        db.write(|tx| tx.execute("ANALYZE job", &[])).unwrap();
    }
}

pub(crate) fn a_second_job_of_the_same_id_is_refused_and_changes_nothing(db: &Db) {
    let row = insert(db, new_job(1));
    let second = NewJob {
        tenant: tenant("b"),
        spec: store_spec_of_another(),
        ..new_job(1)
    };
    let refused = db.write(move |tx| job::insert(tx, &second));
    assert!(
        matches!(refused, Err(StoreError::Database(_))),
        "{refused:?}"
    );
    check_in_step(db, &row);
}

fn store_spec_of_another() -> model::spec::JobSpec {
    model::spec::JobSpec {
        argv: vec!["true".to_owned()],
        ..spec()
    }
}

pub(crate) fn waiting_jobs_are_counted_for_their_tenant_from_a_time_on_up_to_a_bound(db: &Db) {
    insert_fifty(db);
    let count = |name, from_ms, most| {
        let tenant = tenant(name);
        db.read(move |tx| job::count_queued(tx, &tenant, from_ms, most))
    };
    for (name, most, counted) in [("a", 100, 40), ("b", 100, 10), ("a", 7, 7), ("c", 9, 0)] {
        assert_eq!(count(name, 0, most).0, counted, "{name} {most}");
    }
    let oldest = count("a", 0, 100).1.unwrap();
    assert_eq!(count("a", oldest, 100), (40, Some(oldest)));
    assert!(count("a", oldest + 1, 100).0 < 40);
    assert_eq!(count("a", u64::MAX, 100), (0, None));
}

#[test]
fn a_page_of_jobs_is_as_quick_among_many_as_among_few() {
    crate::db::on_sqlite(by_index);
}

fn by_index(db: &Db) {
    for (plan, index) in [
        (
            "EXPLAIN QUERY PLAN SELECT * FROM job WHERE tenant = 'a' AND (created_at_ms, id) < (9, 'b') \
             ORDER BY created_at_ms DESC, id DESC LIMIT 2",
            "job_by_tenant (tenant=? AND (created_at_ms,id)<(?,?))",
        ),
        (
            "EXPLAIN QUERY PLAN SELECT * FROM job WHERE tenant = 'a' AND (created_at_ms, id) < (9, 'b') \
             AND state = 'running' ORDER BY created_at_ms DESC, id DESC LIMIT 2",
            "job_by_state (tenant=? AND state=? AND (created_at_ms,id)<(?,?))",
        ),
    ] {
        let rows = db.read(move |tx| tx.query(plan, &[]));
        let details: Vec<String> = rows.iter().map(|row| row.text("detail").unwrap()).collect();
        assert_eq!(details, [format!("SEARCH job USING INDEX {index}")]);
    }
}

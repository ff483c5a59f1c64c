//! Changes of a job's state: one row, one event, or nothing.

use model::enforcement::{Enforced, Held, StreamReport, Usage};
use model::id::SandboxId;
use model::job::{JobEvent, JobState, Outcome};
use store::job::{self, JobEnd, JobRow, NewJob};
use store::{StoreError, event};

use crate::db::{Db, race};
use crate::make::{
    advance, change, check_in_step, finish, get, insert, job_id, lease, leased_job, lost, moved,
    new_job, node, principal, started,
};

/// Brings a new job to each state that is not an end.
fn in_every_state(db: &Db, number: &mut u64) -> Vec<JobRow> {
    let awaiting = insert(
        db,
        NewJob {
            state: JobState::AwaitingApproval,
            ..new_job(*number)
        },
    );
    let queued = insert(db, new_job(*number + 1));
    let leased = leased_job(db, *number + 2);
    let running = leased_job(db, *number + 3);
    let running = moved(db, &running, &started(&running), 1);
    let stopping = leased_job(db, *number + 4);
    let stopping = moved(db, &stopping, &JobEvent::Cancel, 1);
    *number += 5;
    vec![awaiting, queued, leased, running, stopping]
}

fn events_of(row: &JobRow) -> Vec<JobEvent> {
    vec![
        JobEvent::Approve,
        JobEvent::Reject,
        JobEvent::Cancel,
        JobEvent::QueueTimeout,
        lease(row, node(2)),
        started(row),
        JobEvent::Release { epoch: row.epoch },
        finish(row),
        lost(row, true),
        lost(row, false),
    ]
}

pub(crate) fn every_legal_move_writes_the_row_and_exactly_one_event(db: &Db) {
    let (mut number, mut legal) = (0, 0);
    let kinds = in_every_state(db, &mut number).len();
    for state in 0..kinds {
        for event in 0..10 {
            let row = in_every_state(db, &mut number).swap_remove(state);
            let event = events_of(&row).swap_remove(event);
            let Some(change) = change(&row, &event, 77) else {
                continue;
            };
            legal += 1;
            let next = moved(db, &row, &event, 77);
            assert_eq!(next.state, change.state);
            assert_eq!(next.version, row.version + 1);
            check_in_step(db, &next);
            check_times(&row, &next);
            let (id, after) = (row.id.clone(), row.version);
            let events = db.read(move |tx| event::list(tx, "job", id.as_str(), after, 9));
            let [event] = &events[..] else {
                panic!("one event: {events:?}")
            };
            assert_eq!(event.version, next.version);
            assert_eq!(event.kind, change.kind);
            assert_eq!(event.data, change.data);
            assert_eq!(event.at_ms, 77);
        }
    }
    assert_eq!(legal, 21, "the model's table has another number of moves");
}

/// The times, epoch and node that belong to the new state, and no others, have changed.
fn check_times(row: &JobRow, next: &JobRow) {
    let mut wanted = row.clone();
    wanted.state = next.state.clone();
    wanted.version = next.version;
    wanted.attempt = next.attempt;
    let now = Some(77);
    match &next.state {
        JobState::AwaitingApproval => panic!("nothing leads here"),
        JobState::Queued => wanted.queued_at_ms = now,
        JobState::Leased { node, epoch } => {
            wanted.node = Some(node.clone());
            wanted.epoch = *epoch;
            wanted.leased_at_ms = now;
        }
        JobState::Running { .. } => wanted.started_at_ms = now,
        JobState::Stopping { .. } => wanted.cancel_requested = true,
        JobState::Finished { .. } => wanted.finished_at_ms = now,
    }
    assert_eq!(*next, wanted);
}

pub(crate) fn a_move_from_a_row_that_was_changed_is_stale_and_changes_nothing(db: &Db) {
    let mut number = 0;
    for old in in_every_state(db, &mut number) {
        let now = moved(db, &old, &events_of(&old)[legal_event(&old)], 5);
        for event in events_of(&old) {
            let Some(change) = change(&old, &event, 6) else {
                continue;
            };
            let old = old.clone();
            let late = db.write(move |tx| job::move_to(tx, &old, &change));
            assert!(matches!(late, Err(StoreError::Stale { .. })), "{late:?}");
            check_in_step(db, &now);
        }
    }
}

/// The first event of the list that moves a job.
fn legal_event(row: &JobRow) -> usize {
    let mut events = events_of(row).into_iter();
    events
        .position(|event| change(row, &event, 0).is_some())
        .unwrap()
}

pub(crate) fn of_many_writers_from_one_row_exactly_one_wins(db: &Db) {
    for number in 0..20 {
        let row = insert(db, new_job(number));
        let outcomes = race(8, |writer| {
            let row = row.clone();
            let event = if writer % 2 == 0 {
                lease(&row, node(writer as u64))
            } else {
                JobEvent::Cancel
            };
            db.write(move |tx| advance(tx, &row, &event, 9))
        });
        let mut won = Vec::new();
        for outcome in outcomes {
            match outcome {
                Ok(next) => won.push(next),
                Err(StoreError::Stale { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(won.len(), 1);
        check_in_step(db, &won[0]);
    }
}

fn clause(how: &str) -> Enforced {
    Enforced {
        clause: "memory".to_owned(),
        how: how.to_owned(),
        value: Some("1".to_owned()),
        asked: true,
        state: Held::Held,
    }
}

fn end() -> JobEnd {
    let report = StreamReport {
        total_bytes: u64::from(u32::MAX) + 1,
        kept_bytes: 2,
        truncated: true,
        lost_bytes: 0,
        patterns_found: 3,
    };
    JobEnd {
        usage: Some(Usage {
            cpu_ms: 1,
            memory_peak_bytes: Some(1 << 40),
            pids_peak: None,
            disk_bytes: Some(0),
            wall_ms: 2,
        }),
        detail: Some("out of memory".to_owned()),
        stdout: Some(report),
        stderr: Some(StreamReport {
            truncated: false,
            ..report
        }),
        report_hash: Some("abc".to_owned()),
    }
}

pub(crate) fn what_is_known_at_the_start_and_at_the_end_is_kept(db: &Db) {
    let row = leased_job(db, 1);
    let mut start = change(&row, &started(&row), 2).unwrap();
    start.driver = Some("linux".to_owned());
    start.sandbox_id = Some(SandboxId::from_parts(1, [1; 10]));
    start.enforcement = Some(vec![clause("rlimit")]);
    let running = db.write(move |tx| job::move_to(tx, &row, &start)).unwrap();
    assert_eq!(running.driver.as_deref(), Some("linux"));
    assert_eq!(running.sandbox_id, Some(SandboxId::from_parts(1, [1; 10])));
    check_in_step(db, &running);

    // A move that knows nothing new keeps what is known.
    let stopping = moved(db, &running, &JobEvent::Cancel, 3);
    assert_eq!(stopping.enforcement, [clause("rlimit")]);
    let mut finish = change(&stopping, &finish(&stopping), 4).unwrap();
    finish.end = Some(end());
    finish.enforcement = Some(vec![clause("cgroup_v1")]);
    let row = stopping.clone();
    let finished = db.write(move |tx| job::move_to(tx, &row, &finish)).unwrap();
    assert_eq!(finished.enforcement, [clause("cgroup_v1")]);
    assert_eq!(finished.usage, end().usage);
    assert_eq!(finished.stdout, end().stdout);
    let outcome = Some(&Outcome::Failed { exit_code: 3 });
    assert_eq!(finished.state.outcome(), outcome);
    check_in_step(db, &finished);
}

pub(crate) fn a_new_lease_forgets_what_was_in_force_in_the_attempt_before(db: &Db) {
    let row = leased_job(db, 1);
    let mut start = change(&row, &started(&row), 2).unwrap();
    start.driver = Some("linux".to_owned());
    start.sandbox_id = Some(SandboxId::from_parts(1, [1; 10]));
    start.enforcement = Some(vec![clause("rlimit")]);
    let running = db.write(move |tx| job::move_to(tx, &row, &start)).unwrap();
    let queued = moved(db, &running, &lost(&running, true), 3);
    let leased = moved(db, &queued, &lease(&queued, node(2)), 4);
    assert_eq!(leased.attempt, 2);
    assert_eq!((&leased.driver, &leased.sandbox_id), (&None, &None));
    assert_eq!((leased.started_at_ms, leased.enforcement.len()), (None, 0));
    check_in_step(db, &leased);
}

pub(crate) fn a_cancel_and_a_claim_of_one_job_leave_it_in_one_piece(db: &Db) {
    for number in 0..20 {
        insert(db, new_job(number));
        let won = race(4, |writer| {
            let outcome = db.write(move |tx| {
                if writer % 2 == 0 {
                    let claimed = store::queue::claim(tx, &node(1), 1, 1000, &[])?;
                    let lease = |row| advance(tx, row, &lease(row, node(1)), 1000);
                    return claimed.iter().map(lease).collect();
                }
                let row = job::get(tx, None, &job_id(number))?.unwrap();
                let canceled = change(&row, &JobEvent::Cancel, 1000);
                let canceled = canceled.map(|change| job::move_to(tx, &row, &change));
                Ok(Vec::from_iter(canceled.transpose()?))
            });
            match outcome {
                Ok(moved) => moved,
                Err(StoreError::Stale { .. }) => Vec::new(),
                Err(error) => panic!("{error:?}"),
            }
        });
        let last = won.into_iter().flatten().max_by_key(|row| row.version);
        check_in_step(db, &last.unwrap());
    }
}

pub(crate) fn events_are_read_page_by_page(db: &Db) {
    let row = leased_job(db, 1);
    let row = moved(db, &row, &started(&row), 2);
    moved(db, &row, &finish(&row), 3);
    leased_job(db, 2);
    let page = |after, limit| {
        let id = job_id(1);
        db.read(move |tx| event::list(tx, "job", id.as_str(), after, limit))
    };
    let versions = |after, limit| -> Vec<u64> {
        page(after, limit)
            .iter()
            .map(|event| event.version)
            .collect()
    };
    assert_eq!(versions(0, 3), [1, 2, 3]);
    assert_eq!(versions(3, 3), [4]);
    assert_eq!(versions(4, 3), [0; 0]);
    assert!(page(0, 9).is_sorted_by_key(|event| event.position));
    assert!(
        page(0, 9)
            .iter()
            .all(|event| event.principal == principal().as_str())
    );
    assert_eq!(get(db, &job_id(1)).unwrap().version, 4);
}

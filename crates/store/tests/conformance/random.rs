//! Any sequence of events, fresh and stale, leaves a job in one piece.

use std::cell::Cell;

use model::job::{JobEvent, JobState};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use store::StoreError;
use store::job::{self, JobRow, NewJob};

use crate::db::{Db, Place};
use crate::make::{change, check_in_step, finish, insert, lease, lost, new_job, node, started};

/// What somebody does with the job.
#[derive(Debug, Clone, Copy)]
struct Act {
    /// Which event.
    event: u8,
    /// From which of the rows that were read so far, counted from the newest.
    from: usize,
    /// The unit fails after the move.
    fails: bool,
}

fn any_act() -> impl Strategy<Value = Act> {
    // Mostly the newest row, so that most moves succeed.
    let from = prop_oneof![4 => Just(0), 1 => 1..5_usize];
    (0..9_u8, from, prop::bool::weighted(0.1)).prop_map(|(event, from, fails)| Act {
        event,
        from,
        fails,
    })
}

fn event_of(act: Act, row: &JobRow) -> JobEvent {
    match act.event {
        0 => JobEvent::Approve,
        1 => JobEvent::Cancel,
        2 => JobEvent::QueueTimeout,
        3 | 4 => lease(row, node(u64::from(act.event))),
        5 => started(row),
        6 => JobEvent::Release { epoch: row.epoch },
        7 => lost(row, true),
        _ => finish(row),
    }
}

fn act(db: &Db, rows: &mut Vec<JobRow>, act: Act, at_ms: u64) -> Result<(), TestCaseError> {
    let stale = act.from.min(rows.len() - 1);
    let row = rows[rows.len() - 1 - stale].clone();
    let Some(change) = change(&row, &event_of(act, &row), at_ms) else {
        return Ok(());
    };
    let moved = db.write(move |tx| {
        let moved = job::move_to(tx, &row, &change)?;
        if act.fails {
            let what = "the test".to_owned();
            return Err(StoreError::Conflict { what });
        }
        Ok(moved)
    });
    match moved {
        Ok(moved) => {
            prop_assert!(stale == 0, "a stale row was moved");
            rows.push(moved);
        }
        Err(StoreError::Stale { .. }) => prop_assert!(stale > 0),
        // PostgreSQL may not have said yet that the row is stale, and nothing has happened either way.
        Err(StoreError::Conflict { .. }) => {
            let says_late = matches!(db.place, Place::Postgres(_));
            prop_assert!(act.fails && (stale == 0 || says_late));
        }
        Err(error) => prop_assert!(false, "{error:?}"),
    }
    Ok(())
}

pub(crate) fn any_sequence_of_moves_keeps_row_events_and_queue_in_step(db: &Db) {
    let mut runner = TestRunner::new(Config {
        cases: 24,
        failure_persistence: None,
        ..Config::default()
    });
    let number = Cell::new(0);
    let sequences = prop::collection::vec(any_act(), 1..24);
    let outcome = runner.run(&sequences, |acts| {
        number.set(number.get() + 1);
        let new = NewJob {
            state: JobState::AwaitingApproval,
            ..new_job(number.get())
        };
        let mut rows = vec![insert(db, new)];
        for (at_ms, one) in (1000..).zip(acts) {
            act(db, &mut rows, one, at_ms)?;
            check_in_step(db, rows.last().unwrap());
        }
        Ok(())
    });
    outcome.unwrap();
}

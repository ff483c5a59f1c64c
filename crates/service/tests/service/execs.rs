//! What was run in sandboxes that live on.

use crate::sandboxes::*;
use crate::*;
use service::{ExecFact, SandboxSaid};

fn started(seq: u64) -> ExecFact {
    ExecFact::Started {
        seq,
        at_ms: 5,
        is_step: false,
        asked: "{}".to_owned(),
    }
}

fn ended(of: u64) -> ExecFact {
    ExecFact::Ended {
        of,
        at_ms: 6,
        end: "{\"end\":{}}".to_owned(),
    }
}

fn missed(seq: u64) -> ExecFact {
    ExecFact::Missed {
        seq,
        at_ms: 7,
        count: 9,
    }
}

#[tokio::test]
async fn what_a_node_tells_is_stored_once_however_often_and_in_whatever_pieces() {
    let world = World::new();
    let row = world.ready(ask()).await;
    let told = [started(1), ended(1), started(3), missed(4), ended(3)];
    for (to, new) in [(1, 1), (3, 2), (5, 2), (5, 0)] {
        let facts = told[..to].to_vec();
        let taken = world.service.exec_report(&node(1), &row.id, facts).await;
        assert_eq!(taken.unwrap(), new, "up to {to}");
    }
    let page = world
        .service
        .exec_list(&user(), &row.id, (None, None), 10)
        .await
        .unwrap();
    let seen: Vec<_> = page
        .rows
        .iter()
        .map(|row| (row.seq, row.ended_at_ms, row.missed))
        .collect();
    assert_eq!(
        seen,
        [
            (4, Some(7), Some(9)),
            (3, Some(6), None),
            (1, Some(6), None)
        ]
    );
    assert!(!page.is_full && page.rows[0].over_at_ms.is_none());
    let page = world
        .service
        .exec_list(&user(), &row.id, (None, None), 2)
        .await
        .unwrap();
    assert!(page.is_full);
    assert_eq!(page.rows[1].seq, 3);
}

/// A hostile node counts as it likes.
#[tokio::test]
async fn numbers_that_leap_are_refused_and_old_ones_do_not_come_back() {
    let world = World::new();
    let row = world.ready(ask()).await;
    let tell = async |facts| {
        let told = world.service.exec_report(&node(1), &row.id, facts).await;
        told.map_err(|error| error.code())
    };
    assert_eq!(tell(vec![started(1), ended(1)]).await, Ok(2));
    for far in [u64::MAX, i64::MAX.unsigned_abs(), 2_000_000] {
        assert_eq!(tell(vec![started(far)]).await, Err("invalid_argument"));
    }
    let far = limits::RETAIN_EXECS + 10;
    assert_eq!(tell(vec![started(far)]).await, Ok(1));
    // In falling order, so that each is the newest of its report.
    for seq in (1..=10).rev() {
        assert_eq!(tell(vec![started(seq), ended(seq)]).await, Ok(0), "{seq}");
    }
    assert_eq!(tell(vec![started(11)]).await, Ok(1));
    let user = user();
    let page = world.service.exec_list(&user, &row.id, (None, None), 100);
    let page = page.await.unwrap();
    let seen: Vec<u64> = page.rows.iter().map(|row| row.seq).collect();
    assert_eq!(seen, [far, 11]);
}

#[tokio::test]
async fn only_its_node_tells_of_a_sandbox_also_when_it_is_over() {
    let world = World::new();
    let row = world.ready(ask()).await;
    let tell = async |ctx: Ctx, facts| {
        let told = world.service.exec_report(&ctx, &row.id, facts).await;
        told.map_err(|error| error.code())
    };
    assert_eq!(tell(node(2), vec![started(1)]).await, Err("not_your_lease"));
    assert_eq!(tell(user(), vec![started(1)]).await, Err("forbidden"));
    let many = (1..=257).map(started).collect();
    assert_eq!(tell(node(1), many).await, Err("too_much"));
    assert_eq!(tell(node(1), vec![started(1), started(2)]).await, Ok(2));
    world
        .service
        .sandbox_destroy(&user(), &row.id)
        .await
        .unwrap();
    let by = node(1);
    let report = world
        .service
        .sandbox_report(&by, &row.id, 2, SandboxSaid::Destroyed, None);
    report.await.unwrap();
    // An end that was told late still counts; what has none ended with the sandbox.
    assert_eq!(tell(node(1), vec![ended(1)]).await, Ok(1));
    let page = world
        .service
        .exec_list(&user(), &row.id, (None, None), 10)
        .await
        .unwrap();
    assert!(page.rows[0].over_at_ms.is_some());
    assert_eq!(
        (page.rows[0].ended_at_ms, page.rows[1].ended_at_ms),
        (None, Some(6))
    );
}

#[tokio::test]
async fn of_a_sandbox_only_the_newest_commands_are_kept() {
    let world = World::new();
    let row = world.ready(ask()).await;
    let tell = async |facts| {
        world
            .service
            .exec_report(&node(1), &row.id, facts)
            .await
            .unwrap()
    };
    tell(vec![started(1), started(2)]).await;
    tell(vec![started(limits::RETAIN_EXECS + 1)]).await;
    let page = world
        .service
        .exec_list(&user(), &row.id, (None, None), 10)
        .await
        .unwrap();
    let seen: Vec<u64> = page.rows.iter().map(|row| row.seq).collect();
    assert_eq!(seen, [limits::RETAIN_EXECS + 1, 2]);
}

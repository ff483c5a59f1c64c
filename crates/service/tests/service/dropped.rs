//! Reports that a node gave up are events, each once, and not more than a bound.

use crate::*;
use service::DroppedReport;

fn dropped(number: u32) -> DroppedReport {
    DroppedReport {
        id: format!("{number:032x}"),
        what: "finished",
        about: "job_1".to_owned(),
        code: "conflict".to_owned(),
        more: 0,
    }
}

async fn events(world: &World) -> Vec<String> {
    let (user, all) = (user(), service::AuditQuery::default());
    let all = world.service.audit_list(&user, all, 500);
    let events = all.await.unwrap().events.into_iter().map(|one| one.event);
    let dropped = events.filter(|event| event.kind == "node.report_dropped");
    dropped.map(|event| event.data).collect()
}

#[tokio::test]
async fn a_report_that_was_given_up_is_one_event_however_often_it_is_told() {
    let world = World::new();
    let node = node(1);
    world.register(&node, "a").await;
    for _ in 0..2 {
        let told = world.service.node_dropped(&node, vec![dropped(1)]).await;
        assert_eq!(told.unwrap(), [dropped(1).id]);
    }
    let events = events(&world).await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(events[0].contains("conflict") && events[0].contains("job_1"));
}

#[tokio::test]
async fn more_than_a_bound_in_an_hour_wait_for_the_next() {
    let world = World::new();
    let node = node(1);
    world.register(&node, "a").await;
    let mut told = 0;
    for beat in 0..5 {
        let all = (0..32).map(|one| dropped(beat * 32 + one)).collect();
        told += world.service.node_dropped(&node, all).await.unwrap().len();
    }
    assert_eq!((told, events(&world).await.len()), (100, 100));
    world.clock.advance(3_600_000);
    let next = world.service.node_dropped(&node, vec![dropped(999)]).await;
    assert_eq!(next.unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_no_such_report_is_refused() {
    let world = World::new();
    let node = node(1);
    world.register(&node, "a").await;
    let long = "x".repeat(65);
    for wrong in [
        DroppedReport {
            id: "1".to_owned(),
            ..dropped(1)
        },
        DroppedReport {
            about: long.clone(),
            ..dropped(1)
        },
        DroppedReport {
            code: "a b".to_owned(),
            ..dropped(1)
        },
    ] {
        let told = world.service.node_dropped(&node, vec![wrong]).await;
        assert_eq!(told.unwrap_err().code(), "invalid_argument");
    }
    let many = (0..33).map(dropped).collect();
    assert!(world.service.node_dropped(&node, many).await.is_err());
    assert!(
        world
            .service
            .node_dropped(&user(), Vec::new())
            .await
            .is_err()
    );
    assert!(events(&world).await.is_empty());
}

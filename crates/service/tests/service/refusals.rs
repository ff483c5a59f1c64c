//! Requests that were refused to somebody who is known, in the record.

use super::*;
use model::refusal::SINGLES_MAX;
use serde_json::{Value, json};
use service::loops::{Recorded, refusals_pass};
use service::{AuditQuery, Refused};

fn refused(ctx: &Ctx, number: u32) -> Refused {
    Refused {
        tenant: ctx.tenant.clone(),
        principal: ctx.principal.clone(),
        key: None,
        action: "POST /v1/principals".to_owned(),
        about: None,
        code: "forbidden",
        why: format!("{number} {}", "long ".repeat(1000)),
    }
}

/// Who, and what of it, in the order of the record.
async fn told(world: &World, of: &Ctx) -> Vec<(String, Value)> {
    let query = AuditQuery {
        kind: Some("request.refused".to_owned()),
        ..AuditQuery::default()
    };
    let page = world.service.audit_list(of, query, 500).await.unwrap();
    let events = page.events.into_iter().map(|one| one.event);
    events
        .map(|one| (one.principal, serde_json::from_str(&one.data).unwrap()))
        .collect()
}

/// How many events were written, and how many refused requests are in no record.
async fn pass(world: &World) -> (usize, u64) {
    let Recorded { written, lost } = refusals_pass(&world.service).await.unwrap();
    (written, lost)
}

impl World {
    /// Changes the database itself.
    async fn database(&self, sql: &'static str) {
        let change = move |tx: &mut store::Tx<'_>| tx.execute(sql, &[]);
        self.store().write(change).await.unwrap();
    }
}

#[tokio::test]
async fn of_a_flood_the_first_ones_are_told_and_the_rest_is_one_number() {
    let world = World::new();
    for number in 0..1000 {
        world.service.note_refusal(refused(&user(), number));
    }
    assert_eq!(told(&world, &user()).await, [], "it is written behind");
    let singles = SINGLES_MAX as usize;
    assert_eq!(pass(&world).await, (singles, 0));
    assert_eq!(pass(&world).await, (0, 0));
    world.clock.advance(59_999);
    assert_eq!(pass(&world).await, (0, 0));
    world.clock.advance(1);
    assert_eq!(pass(&world).await, (1, 0));
    let all = told(&world, &user()).await;
    assert_eq!(all.len(), singles + 1);
    let (who, first) = &all[0];
    assert_eq!(
        (who.as_str(), &first["code"]),
        ("uid:1000", &json!("forbidden"))
    );
    assert_eq!(first["action"], "POST /v1/principals");
    assert!(first["why"].as_str().unwrap().len() <= 256, "{first}");
    let (who, last) = &all[singles];
    assert_eq!(
        (who.as_str(), last),
        ("uid:1000", &json!({"left_out": 1000 - SINGLES_MAX}))
    );
    // The next minute is another one.
    world.service.note_refusal(refused(&user(), 1));
    assert_eq!(pass(&world).await, (1, 0));
}

#[tokio::test]
async fn what_is_refused_is_in_the_record_of_whoever_asked_and_in_no_other() {
    let world = World::new();
    let admin = world.acme().await;
    world.service.note_refusal(refused(&admin, 1));
    // Of a tenant that is not there, or not any more, nothing is left behind.
    world.service.note_refusal(refused(&stranger(), 1));
    refusals_pass(&world.service).await.unwrap();
    assert_eq!(told(&world, &user()).await, []);
    assert_eq!(told(&world, &stranger()).await, []);
    let own = told(&world, &admin).await;
    assert_eq!(own.len(), 1);
    assert_eq!(own[0].0, "user:root");
}

#[tokio::test]
async fn a_tenant_that_floods_by_all_its_principals_hides_no_other_and_stays_bounded() {
    let world = World::new();
    for number in 0..5000 {
        let principal = format!("user:p{number}").parse().unwrap();
        let ctx = Ctx {
            principal,
            ..user()
        };
        for _ in 0..3 {
            world.service.note_refusal(refused(&ctx, number));
        }
    }
    let admin = world.acme().await;
    world.service.note_refusal(refused(&admin, 1));
    assert_eq!(pass(&world).await, (200 + 1, 0));
    assert_eq!(told(&world, &admin).await.len(), 1);
    world.clock.advance(60_000);
    refusals_pass(&world.service).await.unwrap();
    let all = told(&world, &user()).await;
    let counted = all.iter().filter_map(|(_, data)| data["left_out"].as_u64());
    assert_eq!(counted.sum::<u64>(), 15_000 - 200);
    assert!(all.len() <= 200 + 101, "{}", all.len());
}

#[tokio::test]
async fn what_cannot_be_written_is_counted_and_the_next_pass_says_how_many() {
    let world = World::new();
    for number in 0..25 {
        world.service.note_refusal(refused(&user(), number));
    }
    let broken = "CREATE TRIGGER broken BEFORE INSERT ON event_inbox BEGIN SELECT RAISE(ABORT, 'broken'); END";
    world.database(broken).await;
    refusals_pass(&world.service).await.unwrap_err();
    world.database("DROP TRIGGER broken").await;
    assert_eq!(pass(&world).await, (0, u64::from(SINGLES_MAX)));
    assert_eq!(pass(&world).await, (0, 0), "it is said once");
    world.clock.advance(60_000);
    assert_eq!(pass(&world).await, (1, 0));
    let left = ("uid:1000".to_owned(), json!({"left_out": 25 - SINGLES_MAX}));
    assert_eq!(told(&world, &user()).await, [left]);
}

#[tokio::test]
async fn a_pass_that_fails_in_the_middle_loses_no_more_than_what_it_has_not_written() {
    let world = World::new();
    let admin = world.acme().await;
    for number in 0..100 {
        let principal = format!("user:p{number}").parse().unwrap();
        let ctx = Ctx {
            principal,
            ..user()
        };
        for _ in 0..2 {
            world.service.note_refusal(refused(&ctx, number));
        }
    }
    world.service.note_refusal(refused(&admin, 1));
    let broken = "CREATE TRIGGER broken BEFORE INSERT ON event_inbox WHEN NEW.kind = 'request.refused' AND (SELECT count(*) FROM event_inbox \
                  WHERE kind = 'request.refused') >= 200 BEGIN SELECT RAISE(ABORT, 'broken'); END";
    world.database(broken).await;
    refusals_pass(&world.service).await.unwrap_err();
    assert_eq!(told(&world, &user()).await.len(), 200);
    // What is lost stays counted while nothing can be written.
    world.service.note_refusal(refused(&admin, 2));
    refusals_pass(&world.service).await.unwrap_err();
    world.database("DROP TRIGGER broken").await;
    assert_eq!(pass(&world).await, (0, 2));
    assert_eq!(told(&world, &admin).await, []);
}

//! How often one may ask.

use http::StatusCode;
use model::principal::Role;
use model::rate::{Rate, Rates};
use serde_json::json;

use crate::mcp::{call, shells_wait};
use crate::world::{TOKEN, World, bare};

/// So slow that nothing comes back while a test runs.
fn slow() -> Rates {
    Rates {
        reads: Rate::new(1, 100),
        creates: Rate::new(1, 2),
        strangers: Rate::new(1, 60),
        failures: Rate::new(1, 30),
        ..Rates::default()
    }
}

#[tokio::test]
async fn a_principal_that_asks_too_often_is_told_when_to_come_again_and_others_are_not() {
    let world = World::with_rates(slow()).await;
    let key = world.key("", Role::Member, &[]).await;
    let job = r#"{"argv":["true"]}"#;
    let first = world.ask_with(&key, "POST /v1/jobs", job).await;
    assert_eq!(first.status, StatusCode::CREATED);
    for (header, value) in [
        ("ratelimit-policy", "\"creates\";q=2;w=2"),
        ("ratelimit", "\"creates\";r=1;t=1"),
        ("ratelimit-limit", "2"),
        ("ratelimit-remaining", "1"),
        ("ratelimit-reset", "1"),
    ] {
        assert_eq!(first.headers[header], value, "{header}");
    }
    // A machine that is busy lets seconds pass meanwhile.
    let mut last = first;
    for _ in 0..50 {
        last = world.ask_with(&key, "POST /v1/jobs", job).await;
        if last.status == StatusCode::TOO_MANY_REQUESTS {
            break;
        }
    }
    assert_eq!(last.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(
        (&*last.code(), &last.headers["retry-after"]),
        ("rate_limited", &"1".parse().unwrap())
    );
    assert_eq!(last.headers["ratelimit-remaining"], "0");
    // What looks is counted apart, and so is everybody else.
    let looks = world.ask_with(&key, "GET /v1/jobs", "").await;
    assert_eq!(looks.status, StatusCode::OK);
    let owner = world.ask_with(TOKEN, "POST /v1/jobs", job).await;
    assert_eq!(owner.status, StatusCode::CREATED);
    let text = String::from_utf8(world.ask(bare("GET", "/metrics")).await.body.to_vec()).unwrap();
    assert!(
        text.contains("cofferdam_rate_limited_total{class=\"creates\"}"),
        "{text}"
    );
}

#[tokio::test]
async fn who_is_let_in_by_the_transport_is_not_counted() {
    let world = World::with_rates(slow()).await;
    for _ in 0..200 {
        let reply = world.ask(bare("GET", "/v1/jobs")).await;
        assert_eq!(reply.status, StatusCode::OK);
        assert!(!reply.headers.contains_key("ratelimit"));
    }
}

#[tokio::test]
async fn what_a_tool_makes_is_taken_of_the_bucket_of_whoever_called_it() {
    let world = World::with_rates(slow()).await;
    shells_wait(&world).await;
    let key = world.key("", Role::Member, &[]).await;
    let run = || ("run", json!({"command": "true"}));
    let mut said = Vec::new();
    for _ in 0..50 {
        said.push(call(&world, Some(&key), run()).await);
        if said.last().unwrap().contains("rate_limited") {
            break;
        }
    }
    assert!(said[0].contains("approval_needed"), "{}", said[0]);
    let last = said.last().unwrap();
    assert!(last.contains("rate_limited"), "{last}");
    // What looks is not held up by what is made, and whoever runs the server is not counted.
    let looks = call(&world, Some(&key), ("sandbox_list", json!({}))).await;
    assert!(looks.contains("there are no sandboxes"), "{looks}");
    for _ in 0..10 {
        let said = call(&world, None, run()).await;
        assert!(said.contains("approval_needed"), "{said}");
    }
}

#[tokio::test]
async fn who_guesses_keys_is_stopped_and_a_good_key_from_the_same_address_is_not() {
    let world = World::with_rates(slow()).await;
    let key = world.key("", Role::Member, &[]).await;
    let unseen = [
        world.key("", Role::Operator, &["job:read"]).await,
        world.key("", Role::Admin, &["job:read"]).await,
        world.key("", Role::Member, &["job:read"]).await,
    ];
    assert_eq!(
        world.ask_with(&key, "GET /v1/jobs", "").await.status,
        StatusCode::OK
    );
    let mut codes = std::collections::BTreeMap::new();
    for number in 0..50 {
        let guess = format!("cfd_{number:064x}");
        let code = world.ask_with(&guess, "GET /v1/jobs", "").await.code();
        *codes.entry(code).or_insert(0) += 1;
    }
    assert!(codes["unauthenticated"] >= 29, "{codes:?}");
    assert!(codes["rate_limited"] >= 10, "{codes:?}");
    assert_eq!(
        world.ask_with(&key, "GET /v1/jobs", "").await.status,
        StatusCode::OK
    );
    // One that this server has not seen waits as long as somebody guesses. Each is asked with right after a guess, and
    // there are some, because a machine that is busy lets a second pass between the two.
    let mut waited = 0;
    for (number, unseen) in unseen.iter().enumerate() {
        let guess = format!("cfd_{:064x}", 1000 + number);
        world.ask_with(&guess, "GET /v1/jobs", "").await;
        let code = world.ask_with(unseen, "GET /v1/jobs", "").await.code();
        waited += usize::from(code == "rate_limited");
    }
    assert!(waited > 0);
    // Whoever runs the server is not shut out either.
    assert_eq!(
        world.ask_with(TOKEN, "GET /v1/jobs", "").await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn who_shows_nothing_is_counted_by_the_address() {
    let world = World::with_rates(slow()).await;
    let mut last = world.ask_tcp(bare("GET", "/healthz")).await;
    assert_eq!(last.status, StatusCode::OK);
    for _ in 0..80 {
        last = world.ask_tcp(bare("GET", "/healthz")).await;
    }
    assert_eq!(last.code(), "rate_limited");
    assert!(last.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn without_rates_nobody_is_counted() {
    let rates = Rates {
        off: true,
        ..slow()
    };
    let world = World::with_rates(rates).await;
    for _ in 0..100 {
        let reply = world
            .ask_with(TOKEN, "POST /v1/jobs", r#"{"argv":["true"]}"#)
            .await;
        assert_eq!(reply.status, StatusCode::CREATED);
    }
}

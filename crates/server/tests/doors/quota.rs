//! Quotas over HTTP: who says them, who sees them, and what whoever is beyond one gets.

use http::StatusCode;
use model::principal::Role;

use crate::world::{World, bare, with_body};

#[tokio::test]
async fn a_tenant_beyond_its_quota_is_told_which_and_who_raises_it() {
    let world = World::new().await;
    let key = world.key("acme", Role::Member, &[]).await;
    let put = with_body(
        "PUT",
        "/v1/quotas/acme",
        r#"{"limits":{"sandboxes":1,"jobs":2}}"#,
    );
    let reply = world.ask(put).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.whole());
    assert_eq!(reply.json()["limits"]["sandboxes"]["most"], 1);
    let first = world.ask_with(&key, "POST /v1/sandboxes", "{}").await;
    assert_eq!(first.status, StatusCode::CREATED, "{}", first.whole());
    let second = world.ask_with(&key, "POST /v1/sandboxes", "{}").await;
    assert_eq!(second.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(second.code(), "quota_exceeded");
    assert_eq!(second.headers["retry-after"], "5");
    let message = second.json()["message"].as_str().unwrap().to_owned();
    assert_eq!(
        message,
        "the quota `sandboxes` is reached: its tenant has 1 of 1 sandboxes; an admin of the first tenant can raise \
         it with `cofferdam quota set`"
    );
    let seen = world.ask_with(&key, "GET /v1/quotas", "").await.json();
    assert_eq!(seen["quotas"][0]["tenant_name"], "acme");
    assert_eq!(seen["quotas"][0]["limits"]["sandboxes"]["used"], 1);
    let text = String::from_utf8(world.ask(bare("GET", "/metrics")).await.body.to_vec()).unwrap();
    assert!(
        text.contains("cofferdam_quota_refused{limit=\"sandboxes\"} 1"),
        "{text}"
    );
    assert!(text.contains("limit=\"sandboxes\"} 1"), "{text}");
    // Nothing of the first tenant is bounded by it.
    let ours = world.ask(with_body("POST", "/v1/sandboxes", "{}")).await;
    assert_eq!(ours.status, StatusCode::CREATED);
    let gone = world.ask(bare("DELETE", "/v1/quotas/acme")).await;
    assert_eq!(gone.status, StatusCode::OK);
    assert_eq!(
        world.ask(bare("DELETE", "/v1/quotas/acme")).await.code(),
        "not_found"
    );
    let third = world.ask_with(&key, "POST /v1/sandboxes", "{}").await;
    assert_eq!(third.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_tenant_says_what_its_principals_may_have_and_not_what_it_may_have_itself() {
    let world = World::new().await;
    let admin = world.key("acme", Role::Admin, &[]).await;
    let member = world.key("acme", Role::Member, &[]).await;
    let own = with_body("PUT", "/v1/quotas/acme", r#"{"limits":{"jobs":5}}"#);
    assert_eq!(world.ask(own).await.status, StatusCode::OK);
    let code =
        async |key: &str, line: &str, body: &str| world.ask_with(key, line, body).await.code();
    let of_tenant = code(&admin, "PUT /v1/quotas/acme", r#"{"limits":{"jobs":9}}"#).await;
    assert_eq!(of_tenant, "forbidden");
    let line = "PUT /v1/quotas/user:member-";
    let more = code(&admin, line, r#"{"limits":{"jobs":6}}"#).await;
    assert_eq!(more, "invalid_argument");
    let unknown = code(&admin, line, r#"{"limits":{"gold":6}}"#).await;
    assert_eq!(unknown, "unknown_field");
    let nobody = code(
        &admin,
        "PUT /v1/quotas/user:nobody",
        r#"{"limits":{"jobs":1}}"#,
    )
    .await;
    assert_eq!(nobody, "not_found");
    let by_member = code(&member, line, r#"{"limits":{"jobs":1}}"#).await;
    assert_eq!(by_member, "forbidden");
    let set = world
        .ask_with(&admin, line, r#"{"limits":{"jobs":1}}"#)
        .await;
    assert_eq!(set.status, StatusCode::OK, "{}", set.whole());
    let seen = world.ask_with(&member, "GET /v1/quotas", "").await.json();
    let of: Vec<&str> = seen["quotas"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["principal"].as_str().unwrap_or(""))
        .collect();
    assert_eq!(of, ["", "user:member-"]);
}

//! Secrets: what comes in never goes out.

use api::Code;
use api::encoding::Encoding;
use api::event::EventListQuery;
use api::secret::{SecretCreate, SecretListQuery, SecretRotate, SecretSource, SecretText};
use service::{SecretValue, SourceError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::world::{Reply, World, bare, with_body};

const CANARY: &str = "canary-77aa-value";

fn new(name: &str) -> SecretCreate {
    SecretCreate {
        name: name.to_owned(),
        value: SecretText::new(CANARY.to_owned()),
        encoding: Encoding::Utf8,
        from: None,
        metadata: [("for".to_owned(), "tests".to_owned())].into(),
    }
}

#[tokio::test]
async fn a_secret_is_made_read_turned_listed_and_deleted_and_its_value_is_in_no_answer() {
    let world = World::new().await;
    let made = world
        .user
        .secret_create(&new("token"), Some("key-12345"))
        .await
        .unwrap();
    let again = world
        .user
        .secret_create(&new("token"), Some("key-12345"))
        .await
        .unwrap();
    assert_eq!((&made, made.version), (&again, 1));
    let taken = world
        .user
        .secret_create(&new("token"), None)
        .await
        .unwrap_err();
    assert!(taken.is(Code::Conflict), "{taken}");
    let turn = SecretRotate {
        value: SecretText::new("AP9B".to_owned()),
        encoding: Encoding::Base64,
        from: None,
        metadata: None,
    };
    let turned = world.user.secret_rotate("token", &turn).await.unwrap();
    assert_eq!((turned.version, &turned.metadata), (2, &made.metadata));
    assert_eq!(world.user.secret_get(&made.id).await.unwrap(), turned);
    for name in ["b", "a"] {
        world.user.secret_create(&new(name), None).await.unwrap();
    }
    let page = |after: Option<&str>| {
        let after = after.map(str::to_owned);
        SecretListQuery {
            limit: Some(2),
            after,
        }
    };
    let first = world.user.secret_list(&page(None)).await.unwrap();
    assert_eq!(first.next.as_deref(), Some("b"));
    let last = world.user.secret_list(&page(Some("b"))).await.unwrap();
    assert_eq!((last.secrets[0].name.as_str(), last.next), ("token", None));
    let events = world
        .user
        .secret_events("token", &EventListQuery::default())
        .await
        .unwrap();
    let kinds: Vec<_> = events
        .events
        .iter()
        .map(|event| event.kind.as_str())
        .collect();
    assert_eq!(kinds, ["secret.created", "secret.rotated"]);
    for path in ["/v1/secrets", "/v1/secrets/a", "/v1/secrets/a/events"] {
        let reply = world.ask(bare("GET", path)).await;
        assert!(
            !String::from_utf8_lossy(&reply.body).contains(CANARY),
            "{path}"
        );
    }
    assert_eq!(world.user.secret_delete("token").await.unwrap().version, 2);
    let gone = world.user.secret_get("token").await.unwrap_err();
    assert!(gone.is(Code::NotFound), "{gone}");
}

#[tokio::test]
async fn bad_secrets_are_refused_and_no_refusal_shows_the_value() {
    let world = World::new().await;
    let long = format!(r#"{{"name":"a","value":"{}"}}"#, "x".repeat(65_537));
    for (body, code) in [
        (
            r#"{"name":"../a","value":"canary-77aa-value"}"#,
            "invalid_argument",
        ),
        (r#"{"name":"a","value":""}"#, "invalid_argument"),
        (r#"{"name":"a","value":77123456}"#, "invalid_argument"),
        (
            r#"{"name":"a","value":"canary-77aa-value","encoding":"base64"}"#,
            "invalid_argument",
        ),
        (
            r#"{"name":"a","value":"canary-77aa-value","x":1}"#,
            "unknown_field",
        ),
        (r#"{"name":"a"}"#, "invalid_argument"),
        (long.as_str(), "invalid_argument"),
    ] {
        let reply = world.ask(with_body("POST", "/v1/secrets", body)).await;
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        assert_eq!(reply.code(), code, "{text}");
        assert!(
            !text.contains(CANARY) && !text.contains("77123456"),
            "{text}"
        );
    }
    for name in ["..%2f..%2fetc", "%00", "a%0ab", "nothing"] {
        let reply = world.ask(bare("GET", &format!("/v1/secrets/{name}"))).await;
        assert_eq!(reply.code(), "not_found", "{name}");
    }
    let job = r#"{"argv":["true"],"secrets":[{"name":"nothing"}]}"#;
    let reply = world.ask(with_body("POST", "/v1/jobs", job)).await;
    is_about(&reply, Code::SecretMissing, "secrets[0].name");
    assert_eq!(
        reply.json()["message"],
        "secrets[0].name: there is no secret `nothing`"
    );
}

/// A refusal with this code that names one field, and says what to do.
fn is_about(reply: &Reply, code: Code, field: &str) {
    let (said, row) = (reply.json(), code.row());
    assert_eq!(reply.status.as_u16(), row.http_status, "{said}");
    assert_eq!(said["code"], row.code, "{said}");
    assert_eq!(said["hint"], row.hint, "{said}");
    assert_eq!(said["retryable"], row.retryable, "{said}");
    let details = said["details"].as_array().unwrap();
    assert_eq!(details.len(), 1, "{said}");
    assert_eq!(details[0]["field"], field, "{said}");
    assert_eq!(details[0]["code"], row.code, "{said}");
}

#[tokio::test]
async fn a_provider_that_hangs_is_told_with_the_place_of_its_secret_and_what_to_do() {
    let world = World::new().await;
    let hangs = Arc::new(AtomicBool::new(false));
    let now = hangs.clone();
    world.service.secret_sources_from(move |source| {
        let given = match now.load(Ordering::SeqCst) {
            false => Ok(SecretValue::new(CANARY.as_bytes().to_vec())),
            true => Err(SourceError::Failed {
                provider: source.provider,
                why: "it did not answer in 15 s".to_owned(),
            }),
        };
        Box::pin(async move { given })
    });
    let elsewhere = SecretCreate {
        value: SecretText::default(),
        from: Some(SecretSource {
            provider: "p".to_owned(),
            reference: "a".to_owned(),
        }),
        ..new("elsewhere")
    };
    for secret in [new("kept"), elsewhere] {
        world.user.secret_create(&secret, None).await.unwrap();
    }
    hangs.store(true, Ordering::SeqCst);
    let secrets = r#""secrets":[{"name":"kept"},{"name":"elsewhere"}]"#;
    for (path, body) in [
        ("/v1/jobs", format!(r#"{{"argv":["true"],{secrets}}}"#)),
        ("/v1/sandboxes", format!("{{{secrets}}}")),
    ] {
        let reply = world.ask(with_body("POST", path, &body)).await;
        is_about(&reply, Code::SecretProviderFailed, "secrets[1].name");
        let expect = "secrets[1].name: the provider `p` gave no value: it did not answer in 15 s";
        assert_eq!(reply.json()["message"], expect, "{path}");
    }
}

#[tokio::test]
async fn a_secret_from_elsewhere_is_shown_with_its_source_and_has_no_value_beside_it() {
    let world = World::new().await;
    let from = |provider: &str, reference: &str| SecretCreate {
        value: SecretText::default(),
        from: Some(SecretSource {
            provider: provider.to_owned(),
            reference: reference.to_owned(),
        }),
        ..new("elsewhere")
    };
    let both = SecretCreate {
        value: SecretText::new(CANARY.to_owned()),
        ..from("p", "a")
    };
    let refused = world.user.secret_create(&both, None).await.unwrap_err();
    assert!(refused.is(Code::InvalidArgument), "{refused}");
    let refused = world.user.secret_create(&from("p", "a"), None).await;
    let refused = refused.unwrap_err();
    assert!(refused.is(Code::SecretProviderUnknown), "{refused}");
    assert_eq!(refused.body().details[0].field, "from");
    world.service.secret_sources_from(|source| {
        Box::pin(async move {
            match source.reference.as_str() {
                "a" => Ok(SecretValue::new(CANARY.as_bytes().to_vec())),
                _ => Err(SourceError::Failed {
                    provider: source.provider,
                    why: "HTTP 403".to_owned(),
                }),
            }
        })
    });
    let made = world.user.secret_create(&from("p", "a"), None).await;
    let made = made.unwrap();
    assert_eq!(made.from.unwrap().text(), "p:a");
    let turn = |reference: &str| SecretRotate {
        value: SecretText::default(),
        encoding: Encoding::Utf8,
        from: from("p", reference).from,
        metadata: None,
    };
    let refused = world.user.secret_rotate("elsewhere", &turn("b")).await;
    let refused = refused.unwrap_err();
    assert!(refused.is(Code::SecretProviderFailed), "{refused}");
    assert!(refused.to_string().contains("`p`"), "{refused}");
    let turned = world.user.secret_rotate("elsewhere", &turn("a")).await;
    assert_eq!(turned.unwrap().version, 2);
    let events = world
        .user
        .secret_events("elsewhere", &EventListQuery::default())
        .await
        .unwrap();
    let told = serde_json::to_string(&events).unwrap();
    assert!(told.contains("p:a") && !told.contains(CANARY), "{told}");
}

//! Profiles: written, read, listed, used, deleted.

use api::Code;
use api::client::JobCreateOptions;
use api::job::JobCreate;
use api::network::Network;
use api::profile::{ProfileKind, ProfileListQuery, ProfileSpec, ProfileVersionQuery};
use api::sandbox::SandboxCreate;

use crate::world::{World, with_body};

fn says(timeout_ms: u64) -> ProfileSpec {
    ProfileSpec {
        timeout_ms: Some(timeout_ms),
        timeout_max_ms: Some(60_000),
        network: Some(Network {
            allow: vec!["*.a.test".to_owned()],
            ..Network::default()
        }),
        start: Some("serve".to_owned()),
        ..ProfileSpec::default()
    }
}

#[tokio::test]
async fn a_profile_is_written_read_by_version_listed_and_deleted() {
    let world = World::new().await;
    let user = &world.user;
    let first = user.profile_put("team/py", &says(5_000)).await.unwrap();
    assert_eq!((first.version, first.kind), (1, ProfileKind::Written));
    let second = user.profile_put("team/py", &says(6_000)).await.unwrap();
    assert_eq!(second.version, 2);
    let timeout = async |name: &str| {
        let view = user.profile_get(name).await.unwrap();
        (view.version, view.spec.unwrap().timeout_ms)
    };
    assert_eq!(timeout("team/py").await, (2, Some(6_000)));
    assert_eq!(timeout("team/py:1").await, (1, Some(5_000)));
    assert_eq!(timeout(&first.id).await, (2, Some(6_000)));
    for absent in ["team/py:3", "team/py:x", "nope", "A B"] {
        let gone = user.profile_get(absent).await.unwrap_err();
        assert!(gone.is(Code::NotFound), "{absent}: {gone}");
    }
    // So that the two are not of the same moment.
    world.clock.advance(1);
    user.profile_put("other", &ProfileSpec::default())
        .await
        .unwrap();
    let query = ProfileListQuery {
        limit: Some(1),
        before: None,
    };
    let page = user.profile_list(&query).await.unwrap();
    assert_eq!(page.profiles[0].name.as_deref(), Some("other"));
    assert_eq!(page.built_in, ["default", "code-interpreter"]);
    let query = ProfileListQuery {
        before: page.next,
        ..query
    };
    let page = user.profile_list(&query).await.unwrap();
    assert_eq!(
        (page.profiles[0].name.as_deref(), page.next),
        (Some("team/py"), None)
    );
    assert_eq!(page.profiles[0].spec, None);
    let query = ProfileVersionQuery {
        limit: None,
        before: Some(2),
    };
    let versions = user.profile_versions("team/py", &query).await.unwrap();
    assert_eq!((versions.versions.len(), versions.next), (1, None));
    let gone = user.profile_delete("team/py").await.unwrap();
    assert_eq!(gone.id, first.id);
    assert!(user.profile_get("team/py").await.is_err());
}

#[tokio::test]
async fn what_is_made_with_a_profile_says_so_and_asks_for_no_more() {
    let world = World::new().await;
    let user = &world.user;
    user.profile_put("py", &says(5_000)).await.unwrap();
    let options = JobCreateOptions::default();
    let asked = SandboxCreate {
        profile: Some("py".to_owned()),
        timeout_ms: Some(900_000),
        ..SandboxCreate::default()
    };
    let made = user.sandbox_create(&asked, &options).await.unwrap();
    let kept = made.spec.made_by.unwrap();
    assert_eq!((&*made.spec.profile, kept.version), ("py", 1));
    assert_eq!(
        (made.timeout_ms, kept.timeout_asked_ms),
        (60_000, Some(900_000))
    );
    assert_eq!(made.network.allow, ["*.a.test"]);
    let wide = SandboxCreate {
        allow_internet: true,
        ..asked.clone()
    };
    let refused = user.sandbox_create(&wide, &options).await.unwrap_err();
    assert!(refused.is(Code::BeyondProfile), "{refused}");
    // A start command needs a sandbox that lives on.
    let job = JobCreate {
        argv: vec!["true".to_owned()],
        profile: Some("py".to_owned()),
        ..JobCreate::default()
    };
    let refused = user.job_create(&job, &options).await.unwrap_err();
    assert!(refused.is(Code::ProfileNotForJobs), "{refused}");
    let plain = ProfileSpec {
        start: None,
        ..says(5_000)
    };
    user.profile_put("py", &plain).await.unwrap();
    let made = user.job_create(&job, &options).await.unwrap();
    assert_eq!((&*made.spec.profile, made.spec.timeout_ms), ("py", 5_000));
    assert_eq!(made.spec.made_by.unwrap().version, 2);
}

#[tokio::test]
async fn what_is_wrong_with_a_profile_is_said_with_its_place() {
    let world = World::new().await;
    for (body, code, field) in [
        ("{", Code::MalformedJson, ""),
        (r#"{"timeout_max":1}"#, Code::UnknownField, "timeout_max"),
        (r#"{"network":{"alow":[]}}"#, Code::UnknownField, ""),
        (r#"{"timeout_ms":0}"#, Code::LimitZero, "timeout_ms"),
        (r#"{"base":{}}"#, Code::InvalidArgument, "base"),
        (
            r#"{"base":{"root":"a","snapshot":"b"}}"#,
            Code::InvalidArgument,
            "base",
        ),
        (
            r#"{"base":{"snapshot":"absent"}}"#,
            Code::InvalidArgument,
            "base.snapshot",
        ),
        (
            r#"{"network":{"allow":["a:0"]}}"#,
            Code::NetworkRules,
            "network.allow[0]",
        ),
        (
            r#"{"network":{"mode":"unrestricted","order":"allow_first"}}"#,
            Code::NetworkRules,
            "network.order",
        ),
        (
            r#"{"secrets":[{"name":"a","as":["header"],"hosts":["a:0"]}]}"#,
            Code::NetworkRules,
            "secrets[0].hosts",
        ),
        (r#"{"env":{"A":"\u0000"}}"#, Code::InvalidArgument, "env"),
    ] {
        let reply = world.ask(with_body("PUT", "/v1/profiles/x", body)).await;
        assert_eq!(reply.code(), code.as_str(), "{body}");
        let place = reply.json()["details"][0]["field"]
            .as_str()
            .unwrap_or("")
            .to_owned();
        assert!(field.is_empty() || place == field, "{body}: {place}");
    }
    for name in ["default", "base"] {
        let reply = world
            .ask(with_body("PUT", &format!("/v1/profiles/{name}"), "{}"))
            .await;
        assert_eq!(
            (reply.status.as_u16(), &*reply.code()),
            (409, "profile_name_taken")
        );
    }
    let reply = world
        .ask(with_body("PUT", "/v1/profiles/A%20B", "{}"))
        .await;
    assert_eq!(reply.code(), "invalid_argument");
}

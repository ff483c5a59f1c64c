//! Policies: written, read, tested, and held at every door.

use api::Code;
use api::client::JobCreateOptions;
use api::job::JobCreate;
use api::network::Network;
use api::policy::{PolicyLayer, PolicyTest, PolicyVerdict};
use api::sandbox::SandboxCreate;
use api::volume::VolumeUse;

use crate::life::{lease, register};
use crate::world::{Reply, World, with_body};

fn network(host: &str) -> Option<Network> {
    Some(Network {
        allow: vec![host.to_owned()],
        ..Network::default()
    })
}

fn job(host: &str) -> JobCreate {
    JobCreate {
        argv: vec!["true".to_owned()],
        network: network(host),
        ..JobCreate::default()
    }
}

const ONLY_A: &str = r#"{"version":1,"layer":"tenant","network":{"allow":["*.a.test:443"]},
    "resources":{"memory_bytes":67108864},
    "commands":{"forbid":["sudo"],"unchecked_in_sandboxes":true}}"#;

async fn put(world: &World, name: &str, text: &str) -> Reply {
    let path = format!("/v1/policies/{name}");
    world.ask(with_body("PUT", &path, text)).await
}

#[tokio::test]
async fn a_policy_is_written_read_by_version_listed_and_deleted() {
    let world = World::new().await;
    let user = &world.user;
    let first = put(&world, "net", ONLY_A).await;
    assert_eq!(first.status, 200, "{}", first.whole());
    let second = put(
        &world,
        "net",
        r#"{"version":1,"layer":"global","priority":7}"#,
    )
    .await;
    assert_eq!(second.json()["version"], 2);
    let now = user.policy_get("net").await.unwrap();
    assert_eq!((now.version, now.spec.layer), (2, PolicyLayer::Global));
    let then = user.policy_get("net:1").await.unwrap();
    assert_eq!(
        (then.version, then.spec.resources.memory_bytes),
        (1, Some(67_108_864))
    );
    // What is shown can be written as it stands.
    assert_eq!(user.policy_put("net", &then.spec).await.unwrap().version, 3);
    assert_eq!(user.policy_list().await.unwrap().policies.len(), 1);
    let kept = user.policy_versions("net").await.unwrap().versions;
    assert_eq!(
        kept.iter().map(|one| one.version).collect::<Vec<_>>(),
        [3, 2, 1]
    );
    for absent in ["nope", "net:9", "net:x", "A B"] {
        let gone = user.policy_get(absent).await.unwrap_err();
        assert!(gone.is(Code::NotFound), "{absent}: {gone}");
    }
    user.policy_delete("net").await.unwrap();
    assert!(user.policy_get("net").await.is_err());
}

#[tokio::test]
async fn what_is_wrong_with_a_policy_is_said_with_its_place() {
    let world = World::new().await;
    let with = |rest: &str| format!(r#"{{"version":1,"layer":"tenant"{rest}}}"#);
    for (body, code, field) in [
        (
            with(r#","network":{"alow":[]}"#),
            "unknown_field",
            "network.alow",
        ),
        (with(r#","nets":{}"#), "unknown_field", "nets"),
        (
            with(r#","network":{"allow":["a.test","1.2.3.4"]}"#),
            "policy_invalid",
            "network.allow[1]",
        ),
        (
            with(r#","network":{"allow":["a.test:0"]}"#),
            "policy_invalid",
            "network.allow[0]",
        ),
        (
            with(r#","resources":{"pids":0}"#),
            "limit_zero",
            "resources.pids",
        ),
        (
            with(r#","approvals":{"root":"skip"}"#),
            "unknown_field",
            "approvals.root",
        ),
        (with(r#","of":"somebody""#), "policy_invalid", "of"),
        (
            r#"{"version":2,"layer":"tenant"}"#.to_owned(),
            "policy_invalid",
            "version",
        ),
        (
            r#"{"version":1,"layer":"workspace"}"#.to_owned(),
            "invalid_argument",
            "layer",
        ),
        (r#"{"version":1}"#.to_owned(), "invalid_argument", "layer"),
    ] {
        let reply = put(&world, "p", &body).await;
        assert_eq!(reply.code(), code, "{body}: {}", reply.whole());
        assert_eq!(reply.json()["details"][0]["field"], field, "{body}");
    }
    for name in ["A", "a%2Fb", ".x"] {
        assert_eq!(
            put(&world, name, &with("")).await.code(),
            "policy_invalid",
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_request_beyond_a_policy_is_refused_with_the_clause_and_the_permit_is_shown() {
    let world = World::new().await;
    put(&world, "net", ONLY_A).await;
    let body = r#"{"argv":["true"],"network":{"allow":["b.test"]}}"#;
    let refused = world.ask(with_body("POST", "/v1/jobs", body)).await;
    insta::assert_snapshot!(refused.whole());
    let options = JobCreateOptions::default();
    let made = world
        .user
        .job_create(&job("x.a.test:443"), &options)
        .await
        .unwrap();
    assert_eq!(made.spec.limits.memory_bytes, Some(67_108_864));
    let permit = world.user.job_permit(&made.id).await.unwrap();
    assert_eq!(permit.layers, ["tenant/0/net@1"]);
    let clauses: Vec<&str> = permit.trace.iter().map(|one| one.clause.as_str()).collect();
    assert_eq!(
        clauses,
        ["network.allow", "resources.memory_bytes", "commands"]
    );
    let sandbox = SandboxCreate {
        network: network("b.test"),
        ..SandboxCreate::default()
    };
    let refused = world
        .user
        .sandbox_create(&sandbox, &options)
        .await
        .unwrap_err();
    assert!(refused.is(Code::PolicyRefused), "{refused}");
    let sandbox = world
        .user
        .sandbox_create(&SandboxCreate::default(), &options)
        .await
        .unwrap();
    let permit = world.user.sandbox_permit(&sandbox.id).await.unwrap();
    assert_eq!(permit.layers, ["tenant/0/net@1"]);
}

#[tokio::test]
async fn a_test_says_what_would_become_of_a_request() {
    let world = World::new().await;
    put(&world, "net", ONLY_A).await;
    let test = async |job: JobCreate| {
        let test = PolicyTest {
            job: Some(job),
            ..PolicyTest::default()
        };
        world.user.policy_test(&test).await.unwrap()
    };
    let good = test(job("x.a.test:443")).await;
    assert_eq!(good.verdict, PolicyVerdict::Allowed);
    assert_eq!(good.limits.unwrap().memory_bytes, Some(67_108_864));
    let mut asked = job("b.test");
    asked.argv = ["sh", "-c", "sudo ls"].map(str::to_owned).to_vec();
    let bad = test(asked).await;
    assert_eq!(bad.verdict, PolicyVerdict::Refused);
    let clauses: Vec<&str> = bad.refusals.iter().map(|one| one.clause.as_str()).collect();
    assert_eq!(clauses, ["network.allow[0]", "commands"]);
    assert_eq!(bad.refusals[1].by, ["tenant/0/net@1"]);
    let neither = world.user.policy_test(&PolicyTest::default()).await;
    assert!(neither.unwrap_err().is(Code::InvalidArgument));
}

#[tokio::test]
async fn a_policy_of_a_volume_is_for_a_name_and_a_test_knows_who_asks_for_it() {
    let world = World::new().await;
    for (rest, field) in [
        ("", "of"),
        (r#","of":"a b""#, "of"),
        (
            r#","of":"a","approvals":{"policy_change":"skip"}"#,
            "approvals.policy_change",
        ),
    ] {
        let body = format!(r#"{{"version":1,"layer":"volume"{rest}}}"#);
        let reply = put(&world, "p", &body).await;
        assert_eq!(reply.code(), "policy_invalid", "{body}: {}", reply.whole());
        assert_eq!(reply.json()["details"][0]["field"], field, "{body}");
    }
    let body = r#"{"version":1,"layer":"volume","of":"data","network":{"mode":"none"}}"#;
    let written = put(&world, "data", body).await;
    assert_eq!(written.status, 200, "{}", written.whole());
    assert_eq!(written.json()["spec"]["layer"], "volume");
    assert_eq!(written.json()["spec"]["of"], "data");
    let test = async |name: &str| {
        let mount = VolumeUse {
            name: name.to_owned(),
            path: "/data".to_owned(),
            read_only: false,
        };
        let sandbox = SandboxCreate {
            allow_root: true,
            network: network("b.test"),
            volumes: vec![mount],
            ..SandboxCreate::default()
        };
        let test = PolicyTest {
            sandbox: Some(sandbox),
            ..PolicyTest::default()
        };
        world.user.policy_test(&test).await.unwrap()
    };
    let held = test("data").await;
    assert_eq!(held.verdict, PolicyVerdict::Refused);
    assert_eq!(held.refusals[0].by, ["volume/0/data@1"]);
    assert_eq!(held.layers, ["volume/0/data@1"]);
    let other = test("Data").await;
    assert_eq!(other.verdict, PolicyVerdict::Allowed);
    assert!(other.layers.is_empty());
}

#[tokio::test]
async fn lists_of_packages_reach_the_node_with_the_lease_and_are_shown() {
    let world = World::new().await;
    let policy =
        r#"{"version":1,"layer":"tenant","dependencies":{"pip":["Req_uests==2.32.0","a==1"]}}"#;
    let written = put(&world, "packages", policy).await;
    assert_eq!(written.status, 200, "{}", written.whole());
    let wide = r#"{"argv":["true"],"network":{"mode":"unrestricted"}}"#;
    let refused = world.ask(with_body("POST", "/v1/jobs", wide)).await;
    assert_eq!(
        refused.code(),
        "policy_unenforceable",
        "{}",
        refused.whole()
    );
    let mut asked = job("x.test:443");
    let own = [("pip".to_owned(), ["req-uests==2.32".to_owned()].into())];
    asked.network.as_mut().unwrap().dependencies = own.into();
    let options = JobCreateOptions::default();
    let made = world.user.job_create(&asked, &options).await.unwrap();
    let shown = made.spec.network.unwrap().dependencies;
    assert_eq!(shown["pip"].iter().collect::<Vec<_>>(), ["req-uests==2.32"]);
    register(&world).await;
    let lease = lease(&world).await;
    assert_eq!(lease.spec.network.unwrap().dependencies, shown);
    // Without a policy, a list of one's own goes with a network that names its hosts, too.
    world.user.policy_delete("packages").await.unwrap();
    let wide = r#"{"argv":["true"],"network":{"mode":"unrestricted","dependencies":{"npm":["a==1.0.0"]}}}"#;
    let refused = world.ask(with_body("POST", "/v1/jobs", wide)).await;
    assert_eq!(refused.code(), "network_rules", "{}", refused.whole());
    let wrong = r#"{"argv":["true"],"network":{"dependencies":{"apt":["a==1"],"npm":["a@1"]}}}"#;
    let refused = world.ask(with_body("POST", "/v1/jobs", wrong)).await;
    assert_eq!(
        refused.json()["details"][0]["field"],
        "network.dependencies.apt"
    );
    assert_eq!(
        refused.json()["details"][1]["field"],
        "network.dependencies.npm"
    );
}

//! A sandbox that lives on from its request to its end, with the tests as the node.

use std::collections::BTreeMap;
use std::time::Duration;

use api::Code;
use api::client::JobCreateOptions;
use api::event::EventListQuery;
use api::job::{Enforced, EnforcedState};
use api::node::{
    HostChange, HostMoment, NodeHeartbeat, NodePoll, NodeUsage, ReportResult, SandboxRef,
    SandboxReport, SandboxSaid, SandboxUsed, SandboxWant, SandboxWork, UsageSample,
};
use api::sandbox::{
    SandboxConnect, SandboxCreate, SandboxListQuery, SandboxPause, SandboxResume, SandboxStateName,
    SandboxTimeout, SandboxView, UsageQuery,
};
use insta::assert_snapshot;
use serde_json::json;

use crate::life::register;
use crate::world::{World, bare, steady_ids, with_body};

const NO_SANDBOX: &str = "sbx_0197747bb4007000800000000000dead";
pub(crate) const LONG: Option<Duration> = Some(Duration::from_secs(60));

pub(crate) fn asked() -> SandboxCreate {
    SandboxCreate {
        name: Some("work".into()),
        metadata: [("user".to_owned(), "1".to_owned())].into(),
        env: [("KEY".to_owned(), "s3cret".to_owned())].into(),
        ..SandboxCreate::default()
    }
}

async fn create(world: &World, asked: &SandboxCreate) -> SandboxView {
    let options = JobCreateOptions::default();
    world.user.sandbox_create(asked, &options).await.unwrap()
}

/// The next order for the node.
async fn work(world: &World) -> SandboxWork {
    let poll = NodePoll {
        incarnation: "first".into(),
        free_slots: 1,
        free_sandboxes: 1,
        reserved: api::fleet::NodeReserved::default(),
        wait_ms: 10_000,
    };
    let mut answer = world.node.node_poll(&poll).await.unwrap();
    answer.sandboxes.pop().unwrap()
}

fn ready() -> SandboxSaid {
    SandboxSaid::Ready {
        driver: "fake".into(),
        enforcement: vec![Enforced {
            clause: "memory".into(),
            how: "cgroup_v1".into(),
            value: Some("536870912 bytes".into()),
            asked: false,
            state: EnforcedState::Held,
        }],
    }
}

/// The node does what it is told, once.
pub(crate) async fn obey(world: &World, want: SandboxWant) -> SandboxWork {
    let work = work(world).await;
    assert_eq!(work.want, want);
    let what = match want {
        SandboxWant::Make | SandboxWant::Resume => ready(),
        SandboxWant::Pause => SandboxSaid::Paused,
        SandboxWant::Snapshot => SandboxSaid::Saved { size_bytes: 7 },
        SandboxWant::Destroy => SandboxSaid::Destroyed,
    };
    let report = SandboxReport {
        epoch: work.epoch,
        what,
        host: None,
    };
    let id = &work.sandbox_id;
    for expect in [ReportResult::Accepted, ReportResult::Duplicate] {
        let answer = world.node.node_sandbox_report(id, &report).await;
        assert_eq!(answer.unwrap().result, expect);
    }
    work
}

#[tokio::test]
async fn a_sandbox_lives_through_all_its_routes() {
    let world = World::new().await;
    register(&world).await;
    let body = serde_json::to_string(&asked()).unwrap();
    let made = world.ask(with_body("POST", "/v1/sandboxes", &body)).await;
    assert!(!String::from_utf8_lossy(&made.body).contains("s3cret"));
    let location = made.headers["location"].to_str().unwrap().to_owned();
    assert_snapshot!("sandbox_create", without_token(&made.whole()));
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let order = obey(&world, SandboxWant::Make).await;
    assert_eq!(order.spec.env["KEY"], "s3cret");
    assert_eq!(made.json()["access_token"], order.access_token.as_str());
    let shown = serde_json::to_string_pretty(&order).unwrap();
    assert_snapshot!("sandbox_work", without_token(&steady_ids(&shown)));
    let reply = world.ask(bare("GET", &location)).await;
    assert_snapshot!("sandbox_ready", without_token(&reply.whole()));

    let pause = SandboxPause::default();
    let (user, pausing) = (&world.user, world.user.sandbox_pause(&id, &pause, LONG));
    let (paused, _) = tokio::join!(pausing, obey(&world, SandboxWant::Pause));
    assert_eq!(paused.unwrap().state, SandboxStateName::Paused);
    let to = SandboxTimeout { timeout_ms: 1000 };
    let error = user.sandbox_timeout(&id, &to).await.unwrap_err();
    assert!(error.is(Code::SandboxPaused), "{error:?}");
    let resume = SandboxResume::default();
    let resuming = user.sandbox_resume(&id, &resume, LONG);
    let (resumed, _) = tokio::join!(resuming, obey(&world, SandboxWant::Resume));
    assert_eq!(resumed.unwrap().state, SandboxStateName::Ready);
    let extended = user.sandbox_timeout(&id, &to).await.unwrap();
    let now = world.clock.now_ms();
    assert_eq!(extended.expires_at_ms, Some(now + 1000));
    let come = SandboxConnect {
        timeout_ms: Some(5000),
        memory: None,
    };
    let connected = user.sandbox_connect(&id, &come, LONG).await.unwrap();
    assert_eq!(connected.expires_at_ms, Some(now + 5000));

    let destroying = user.sandbox_destroy(&id, LONG);
    let (gone, _) = tokio::join!(destroying, obey(&world, SandboxWant::Destroy));
    assert_eq!(gone.unwrap().state, SandboxStateName::Destroyed);
    let error = user.sandbox_connect(&id, &come, None).await.unwrap_err();
    assert!(error.is(Code::SandboxGone), "{error:?}");
    let events = world.ask(bare("GET", &format!("{location}/events"))).await;
    assert_snapshot!("sandbox_events", events.whole());
    let query = EventListQuery {
        after: Some(9),
        limit: None,
    };
    let rest = user.sandbox_events(&id, &query).await.unwrap();
    assert_eq!(rest.events.len(), 2);
}

#[tokio::test]
async fn a_sandbox_is_paused_and_brought_back_without_its_memory_when_somebody_says_so() {
    let world = World::new().await;
    register(&world).await;
    let id = create(&world, &asked()).await.id;
    assert!(!obey(&world, SandboxWant::Make).await.reboot);
    let base = format!("/v1/sandboxes/{id}");
    let ask = async |what: &str, body: &str| {
        let path = format!("{base}/{what}");
        let reply = world.ask(with_body("POST", &path, body)).await;
        reply.json()
    };
    let pausing = ask("pause", r#"{"memory":false}"#).await;
    assert_eq!(
        (&pausing["state"], &pausing["memory_kept"]),
        (&json!("pausing"), &json!(false))
    );
    assert!(obey(&world, SandboxWant::Pause).await.reboot);
    assert_eq!(ask("resume", "").await["memory_kept"], false);
    assert!(obey(&world, SandboxWant::Resume).await.reboot);
    // No body, and an empty one, keep everything.
    assert_eq!(ask("pause", "").await["memory_kept"], true);
    assert!(!obey(&world, SandboxWant::Pause).await.reboot);
    let resuming = ask("connect", r#"{"memory":false}"#).await;
    assert_eq!(resuming["memory_kept"], false);
    assert!(obey(&world, SandboxWant::Resume).await.reboot);
    assert_eq!(ask("pause", r#"{"keep":1}"#).await["code"], "unknown_field");
    assert_eq!(ask("pause", "[]").await["code"], "invalid_argument");
}

/// The secret is another one in every run.
fn without_token(text: &str) -> String {
    let name = "\"access_token\": \"";
    let (before, after) = text.split_once(name).unwrap();
    let (token, after) = after.split_at(64);
    assert!(
        token.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{token}"
    );
    format!("{before}{name}...{after}")
}

#[tokio::test]
async fn a_waiting_create_is_answered_when_the_sandbox_is_ready() {
    let world = World::new().await;
    register(&world).await;
    let options = JobCreateOptions {
        wait: LONG,
        ..JobCreateOptions::default()
    };
    let asked = asked();
    let creating = world.user.sandbox_create(&asked, &options);
    let (made, _) = tokio::join!(creating, obey(&world, SandboxWant::Make));
    let made = made.unwrap();
    assert_eq!(made.state, SandboxStateName::Ready);
    assert_eq!(made.timeout_ms, 900_000);
    assert_eq!(made.driver.as_deref(), Some("fake"));
    let again = world.user.sandbox_wait(&made.id, LONG.unwrap()).await;
    assert_eq!(again.unwrap(), made);
}

#[tokio::test]
async fn a_waiting_create_is_answered_when_the_sandbox_has_failed() {
    let world = World::new().await;
    register(&world).await;
    let options = JobCreateOptions {
        wait: LONG,
        ..JobCreateOptions::default()
    };
    let fail = async {
        let work = work(&world).await;
        let why = "no room".to_owned();
        let report = SandboxReport {
            epoch: work.epoch,
            what: SandboxSaid::Failed { why },
            host: None,
        };
        let answer = world.node.node_sandbox_report(&work.sandbox_id, &report);
        answer.await.unwrap();
    };
    let asked = asked();
    let creating = world.user.sandbox_create(&asked, &options);
    let (made, ()) = tokio::join!(creating, fail);
    let made = made.unwrap();
    assert_eq!(made.state, SandboxStateName::Failed);
    assert_eq!(made.reason.as_deref(), Some("no room"));
}

#[tokio::test]
async fn what_a_node_says_of_its_host_is_in_the_events_of_a_sandbox() {
    let world = World::new().await;
    register(&world).await;
    let id = create(&world, &asked()).await.id;
    let order = work(&world).await;
    let host = HostChange {
        before: HostMoment {
            load_milli: 250,
            memory_available_bytes: 4096,
            sandboxes: 0,
        },
        after: HostMoment {
            load_milli: 1250,
            memory_available_bytes: 1024,
            sandboxes: 1,
        },
    };
    let report = SandboxReport {
        epoch: order.epoch,
        what: ready(),
        host: Some(host),
    };
    let said = world.node.node_sandbox_report(&id, &report).await;
    assert_eq!(said.unwrap().result, ReportResult::Accepted);
    let gone = world.user.sandbox_destroy(&id, LONG);
    let (gone, _) = tokio::join!(gone, obey(&world, SandboxWant::Destroy));
    assert_eq!(gone.unwrap().state, SandboxStateName::Destroyed);
    let query = EventListQuery::default();
    let events = world.user.sandbox_events(&id, &query).await.unwrap().events;
    let told: Vec<_> = events
        .iter()
        .map(|event| (&*event.kind, event.data.get("host").cloned()))
        .collect();
    let shown = json!({
        "before": {"load_milli": 250, "memory_available_bytes": 4096, "sandboxes": 0},
        "after": {"load_milli": 1250, "memory_available_bytes": 1024, "sandboxes": 1},
    });
    let expect = [
        ("sandbox.requested", None),
        ("sandbox.provisioning", None),
        ("sandbox.ready", Some(shown)),
        ("sandbox.destroying", None),
        ("sandbox.destroyed", None),
    ];
    assert_eq!(told, expect);
}

#[tokio::test]
async fn a_heartbeat_says_what_to_do_how_long_to_live_and_what_is_stale() {
    let world = World::new().await;
    register(&world).await;
    let stands = create(&world, &asked()).await.id;
    obey(&world, SandboxWant::Make).await;
    let ends = create(&world, &asked()).await.id;
    obey(&world, SandboxWant::Make).await;
    world.user.sandbox_destroy(&ends, None).await.unwrap();
    let refs = [&stands, &ends, NO_SANDBOX].map(|id| SandboxRef {
        sandbox_id: id.to_owned(),
        epoch: 1,
    });
    let beat = NodeHeartbeat {
        incarnation: "first".into(),
        running: Vec::new(),
        snapshots: Vec::new(),
        volumes: Vec::new(),
        sandboxes: refs.to_vec(),
        host: None,
        protocol: api::node::NodeProtocol::default(),
        dropped: Vec::new(),
    };
    let answer = world.node.node_heartbeat(&beat).await.unwrap();
    assert_eq!(answer.stale_sandboxes, refs[2..]);
    assert_eq!(answer.sandboxes[0].want, SandboxWant::Destroy);
    assert_eq!((answer.sandboxes.len(), answer.sandboxes[0].epoch), (1, 2));
    assert_eq!(answer.sandbox_lives[0].sandbox_id, stands);
    assert_eq!(answer.sandbox_lives[0].life_ms, 900_000 + 120_000);
    let hello = api::node::NodeRegister {
        name: "test".into(),
        incarnation: "second".into(),
        version: "0".into(),
        kind: None,
        slots: 4,
        drivers: vec!["fake".into()],
        facts: BTreeMap::new(),
        labels: BTreeMap::new(),
        protocol: api::node::NodeProtocol::default(),
    };
    let held = world
        .node
        .node_register(&hello)
        .await
        .unwrap()
        .held_sandboxes;
    let mut states: Vec<_> = held.iter().map(|held| held.state.as_str()).collect();
    states.sort_unstable();
    assert_eq!(states, ["destroying", "ready"]);
}

#[tokio::test]
async fn sandboxes_are_listed_by_state_and_labels_in_pages_without_tokens() {
    let world = World::new().await;
    for number in 0..5 {
        world.clock.advance(1);
        let mut asked = asked();
        asked.metadata = [("n".to_owned(), (number % 2).to_string())].into();
        create(&world, &asked).await;
    }
    let mut query = SandboxListQuery {
        metadata: [("n".to_owned(), "0".to_owned())].into(),
        states: vec![SandboxStateName::Requested, SandboxStateName::Ready],
        limit: Some(2),
        before: None,
    };
    let mut sizes = Vec::new();
    loop {
        let page = world.user.sandbox_list(&query).await.unwrap();
        assert!(page.sandboxes.iter().all(|one| one.access_token.is_none()));
        sizes.push(page.sandboxes.len());
        let Some(next) = page.next else { break };
        query.before = Some(next);
    }
    assert_eq!(sizes, [2, 1]);
    query.before = None;
    query.states = vec![SandboxStateName::Paused];
    assert!(
        world
            .user
            .sandbox_list(&query)
            .await
            .unwrap()
            .sandboxes
            .is_empty()
    );
    let get = |query: &str| bare("GET", &format!("/v1/sandboxes?{query}"));
    let found = world.ask(get("metadata.n=1&state=requested,paused")).await;
    assert_eq!(found.json()["sandboxes"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_same_create_again_is_the_same_sandbox() {
    let world = World::new().await;
    let create = |body: &str| {
        let mut request = with_body("POST", "/v1/sandboxes", body);
        let key = "key-12345".parse().unwrap();
        request.headers_mut().insert("idempotency-key", key);
        request
    };
    let first = world.ask(create(r#"{"auto_resume":false}"#)).await;
    let again = world.ask(create(" { } ")).await;
    assert_eq!(first.json(), again.json());
    let other = world.ask(create(r#"{"auto_resume":true}"#)).await;
    assert_eq!(other.code(), "idempotency_mismatch");
}

/// A body of a create, the code that it gets, and the field that is named.
const BODIES: &[(&str, Code, &str)] = &[
    ("", Code::MalformedJson, ""),
    ("[]", Code::InvalidArgument, ""),
    (r#"{"ttl":1}"#, Code::UnknownField, "ttl"),
    (r#"{"timeout_ms":0}"#, Code::LimitZero, "timeout_ms"),
    (r#"{"timeout_ms":-1}"#, Code::InvalidArgument, "timeout_ms"),
    (
        r#"{"queue_timeout_ms":0}"#,
        Code::LimitZero,
        "queue_timeout_ms",
    ),
    (r#"{"profile":"nope"}"#, Code::UnknownProfile, "profile"),
    (r#"{"name":""}"#, Code::InvalidArgument, "name"),
    (r#"{"root":"/a/../b"}"#, Code::PathEscapes, "root"),
    (r#"{"env":{"A=B":"1"}}"#, Code::InvalidArgument, "env.A=B"),
    (
        r#"{"metadata":{"a":1}}"#,
        Code::InvalidArgument,
        "metadata.a",
    ),
    (
        r#"{"metadata":{",a":""}}"#,
        Code::InvalidArgument,
        "metadata.,a",
    ),
    (
        r#"{"limits":{"memory_bytes":0}}"#,
        Code::LimitZero,
        "limits.memory_bytes",
    ),
    (
        r#"{"on_expiry":"sleep"}"#,
        Code::InvalidArgument,
        "on_expiry",
    ),
    (r#"{"node":"node_x"}"#, Code::InvalidArgument, "node"),
];

/// A request, its body, and the code that it gets.
const OTHERS: &[(&str, &str, &str, Code)] = &[
    ("GET", "/v1/sandboxes?limit=0", "", Code::InvalidArgument),
    ("GET", "/v1/sandboxes?limit=x", "", Code::InvalidArgument),
    (
        "GET",
        "/v1/sandboxes?limit=1&limit=2",
        "",
        Code::InvalidArgument,
    ),
    ("GET", "/v1/sandboxes?before=x", "", Code::InvalidArgument),
    ("GET", "/v1/sandboxes?state=", "", Code::InvalidArgument),
    (
        "GET",
        "/v1/sandboxes?state=ready,nope",
        "",
        Code::InvalidArgument,
    ),
    ("GET", "/v1/sandboxes?states=ready", "", Code::UnknownField),
    (
        "GET",
        "/v1/sandboxes?metadata.=x",
        "",
        Code::InvalidArgument,
    ),
    (
        "GET",
        "/v1/sandboxes?metadata.a=&metadata.b=&metadata.c=&metadata.d=&metadata.e=",
        "",
        Code::InvalidArgument,
    ),
    ("GET", "/v1/sandboxes/x", "", Code::NotFound),
    ("GET", "/v1/sandboxes/NO", "", Code::NotFound),
    (
        "GET",
        "/v1/sandboxes/NO?wait=soon",
        "",
        Code::InvalidArgument,
    ),
    ("GET", "/v1/sandboxes/NO/events", "", Code::NotFound),
    ("DELETE", "/v1/sandboxes/NO", "", Code::NotFound),
    ("POST", "/v1/sandboxes/NO/pause", "", Code::NotFound),
    ("POST", "/v1/sandboxes/NO/resume", "", Code::NotFound),
    ("POST", "/v1/sandboxes/NO/connect", "{}", Code::NotFound),
    (
        "POST",
        "/v1/sandboxes/NO/connect",
        r#"{"x":1}"#,
        Code::UnknownField,
    ),
    (
        "POST",
        "/v1/sandboxes/NO/timeout",
        r#"{"timeout_ms":1}"#,
        Code::NotFound,
    ),
    (
        "POST",
        "/v1/sandboxes/NO/timeout",
        "{}",
        Code::InvalidArgument,
    ),
    ("PATCH", "/v1/sandboxes/NO", "", Code::MethodNotAllowed),
];

#[tokio::test]
async fn bad_input_gets_its_code_and_creates_nothing() {
    let world = World::new().await;
    for (body, code, field) in BODIES.iter().copied() {
        let reply = world.ask(with_body("POST", "/v1/sandboxes", body)).await;
        let json = reply.json();
        assert_eq!(reply.code(), code.as_str(), "{body}: {json}");
        let named = json["details"][0]["field"].as_str().unwrap_or_default();
        assert_eq!(named, field, "{body}: {json}");
    }
    for (method, path, body, code) in OTHERS.iter().copied() {
        let path = path.replace("NO", NO_SANDBOX);
        let reply = world.ask(with_body(method, &path, body)).await;
        assert_eq!(
            reply.code(),
            code.as_str(),
            "{method} {path}: {}",
            reply.json()
        );
        assert_eq!(
            reply.status.as_u16(),
            code.row().http_status,
            "{method} {path}"
        );
    }
    let none = world.user.sandbox_list(&SandboxListQuery::default()).await;
    assert!(none.unwrap().sandboxes.is_empty());
}

#[tokio::test]
async fn a_node_that_talks_nonsense_about_sandboxes_gets_a_code_too() {
    let world = World::new().await;
    let report = format!("/node/v1/sandboxes/{NO_SANDBOX}/report");
    let cases = [
        (
            &*report,
            r#"{"epoch":1,"what":{"kind":"paused"}}"#,
            Code::NotFound,
        ),
        (
            &*report,
            r#"{"epoch":1,"what":{"kind":"bored"}}"#,
            Code::InvalidArgument,
        ),
        (
            &*report,
            r#"{"epoch":1,"what":{"kind":"ready"}}"#,
            Code::InvalidArgument,
        ),
        (
            &*report,
            r#"{"what":{"kind":"paused"}}"#,
            Code::InvalidArgument,
        ),
        (
            "/node/v1/heartbeat",
            r#"{"incarnation":"i","sandboxes":[{"sandbox_id":"x","epoch":1}]}"#,
            Code::InvalidArgument,
        ),
    ];
    for (path, body, code) in cases {
        let reply = world.ask_as_node(with_body("POST", path, body)).await;
        assert_eq!(
            reply.code(),
            code.as_str(),
            "{path} {body}: {}",
            reply.json()
        );
    }
}

#[tokio::test]
async fn a_stop_lets_nobody_wait_for_a_sandbox_until_the_end_of_their_time() {
    let mut world = World::new().await;
    register(&world).await;
    let id = create(&world, &asked()).await.id;
    let waiting = world.user.sandbox_wait(&id, Duration::from_secs(300));
    let stop = async {
        // The wait is parked when the stop comes, or finds the doors closed, which is an end too.
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.stop.cancel();
    };
    let (waited, ()) = tokio::join!(waiting, stop);
    match waited {
        Ok(sandbox) => assert_eq!(sandbox.state, SandboxStateName::Requested),
        Err(error) => assert!(error.is(Code::Unavailable), "{error:?}"),
    }
    world.serving.take().unwrap().await.unwrap();
}

#[tokio::test]
async fn what_a_sandbox_used_is_answered_as_its_node_has_seen_it() {
    let world = World::new().await;
    register(&world).await;
    let made = create(&world, &asked()).await;
    obey(&world, SandboxWant::Make).await;
    let sample = |age_ms, cpu_us, memory_bytes| UsageSample {
        age_ms,
        cpu_us,
        memory_bytes,
        cache_bytes: 1,
        disk_bytes: 2,
    };
    let used = SandboxUsed {
        sandbox_id: made.id.clone(),
        samples: vec![sample(20_000, 0, 5), sample(10_000, 90_000_000, u64::MAX)],
    };
    let report = NodeUsage {
        sandboxes: vec![used],
    };
    world.node.node_usage(&report).await.unwrap();
    let query = UsageQuery {
        from: Some(0),
        to: Some(world.clock.now_ms() - 1),
    };
    let usage = world.user.sandbox_usage(&made.id, &query).await.unwrap();
    // Nine processors, and more memory than there is, are cut to what it may have.
    assert_snapshot!(serde_json::to_string_pretty(&usage).unwrap());
    let bad = UsageQuery {
        from: Some(2),
        to: Some(1),
    };
    let refused = world.user.sandbox_usage(&made.id, &bad).await.unwrap_err();
    assert_eq!(refused.code(), "invalid_argument");
    let none = world.user.sandbox_usage(NO_SANDBOX, &query).await;
    assert_eq!(none.unwrap_err().code(), "not_found");
}

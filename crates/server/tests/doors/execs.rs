//! What was run in a sandbox, from its node to whoever asks.

use api::Code;
use api::client::JobCreateOptions;
use api::exec::{ExecAsked, ExecEnd, ExecFact, ExecListQuery, NodeExecs};
use api::node::{NodePoll, ReportResult};
use api::sandbox::SandboxCreate;
use insta::assert_snapshot;

use crate::life::register;
use crate::world::{World, bare, with_body};

/// A sandbox that the node was told to make.
async fn placed(world: &World) -> String {
    register(world).await;
    let (asked, options) = (SandboxCreate::default(), JobCreateOptions::default());
    let made = world.user.sandbox_create(&asked, &options).await;
    let id = made.unwrap().id;
    let poll = NodePoll {
        incarnation: "first".into(),
        free_slots: 1,
        free_sandboxes: 1,
        reserved: api::fleet::NodeReserved::default(),
        wait_ms: 10_000,
    };
    let answer = world.node.node_poll(&poll).await.unwrap();
    assert_eq!(answer.sandboxes[0].sandbox_id, id);
    id
}

fn started(seq: u64) -> ExecFact {
    ExecFact::Started {
        seq,
        at_ms: 1_750_000_000_000 + seq,
        pid: Some(7),
        asked: ExecAsked {
            argv: vec!["sh".into(), "-c".into(), "echo \"ö\"\0".into()],
            cut: false,
            cwd: "/home/user".into(),
            user: "user".into(),
            env_names: vec!["KEY".into()],
            patterns_found: 0,
            tag: None,
            pty: false,
            context: None,
            principal: "uid:1000".into(),
            request_id: "req".into(),
        },
    }
}

fn ended(seq: u64, of: u64) -> ExecFact {
    ExecFact::Ended {
        seq,
        at_ms: 1_750_000_000_000 + seq,
        of,
        end: ExecEnd::Signaled { signal: 9 },
        stdout_bytes: 5,
        stderr_bytes: 0,
        patterns_found: 0,
    }
}

#[tokio::test]
async fn what_a_node_tells_is_shown_with_who_asked_and_how_it_ended() {
    let world = World::new().await;
    let id = placed(&world).await;
    let missed = ExecFact::Missed {
        seq: 3,
        at_ms: 1_750_000_000_003,
        count: 9,
    };
    let report = NodeExecs {
        facts: vec![started(1), ended(2, 1), missed, started(4)],
    };
    for expect in [ReportResult::Accepted, ReportResult::Duplicate] {
        let told = world.node.node_sandbox_execs(&id, &report).await.unwrap();
        assert_eq!(told.result, expect);
    }
    let shown = world
        .ask(bare("GET", &format!("/v1/sandboxes/{id}/jobs")))
        .await;
    assert_snapshot!("execs_list", shown.whole());
    let query = ExecListQuery {
        limit: Some(1),
        before: Some(4),
    };
    let page = world.user.sandbox_jobs(&id, &query).await.unwrap();
    assert_eq!((page.jobs[0].seq, page.next), (3, Some(3)));
    let query = ExecListQuery::default();
    let absent = world.user.sandbox_jobs("sbx_0", &query).await.unwrap_err();
    assert!(absent.is(Code::NotFound), "{absent:?}");
}

#[tokio::test]
async fn a_report_that_cannot_be_is_refused() {
    let world = World::new().await;
    let id = placed(&world).await;
    let path = format!("/node/v1/sandboxes/{id}/execs");
    let huge = "x".repeat(3 << 20);
    for (body, code) in [
        ("{", "malformed_json"),
        (r#"{"facts":1}"#, "invalid_argument"),
        (r#"{"facts":[],"more":1}"#, "unknown_field"),
        (
            r#"{"facts":[{"kind":"guessed","seq":1}]}"#,
            "invalid_argument",
        ),
        (
            r#"{"facts":[{"kind":"missed","seq":-1,"at_ms":1,"count":1}]}"#,
            "invalid_argument",
        ),
        (huge.as_str(), "body_too_large"),
    ] {
        let reply = world.ask_as_node(with_body("POST", &path, body)).await;
        assert_eq!(reply.code(), code, "{}", &body[..body.len().min(80)]);
    }
    let many = NodeExecs {
        facts: (1..=257).map(started).collect(),
    };
    let error = world.node.node_sandbox_execs(&id, &many).await.unwrap_err();
    assert!(error.is(Code::TooMuch), "{error:?}");
    let other = "sbx_0197747bb4007000800000000000dead";
    let facts = NodeExecs { facts: Vec::new() };
    let error = world
        .node
        .node_sandbox_execs(other, &facts)
        .await
        .unwrap_err();
    assert!(error.is(Code::NotFound), "{error:?}");
}

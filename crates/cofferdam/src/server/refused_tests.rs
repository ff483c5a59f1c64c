//! What is refused at the door of nodes, with real TLS on loopback: who asks is told why, the event says so, and
//! nothing else is changed.

use super::tests::{World, hello, user};
use super::*;
use crate::identity::Identity;
use api::client::{Client, ClientError};
use api::fleet::{Hidden, NodeEnroll, NodeReserved};
use api::log::StreamName;
use api::node::{
    JobOutput, JobStarted, NodePoll, NodeProtocol, NodeRegister, OutputSegment, ReportAnswer,
};
use api::routes;
use model::network::NetworkRules;
use model::place::Placement;
use model::spec::{AskedLimits, JobSpec, Retry};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use server::TOLD_OF_NODES;
use service::NodeOrder;
use std::collections::BTreeMap;
use store::{StoreError, Tx};

/// All that a node could have changed.
const STATE: [&str; 6] = [
    "SELECT * FROM enroll_token ORDER BY id",
    "SELECT * FROM node_enrollment ORDER BY node",
    "SELECT * FROM node_certificate ORDER BY fingerprint",
    "SELECT * FROM node ORDER BY id",
    "SELECT * FROM job ORDER BY id",
    "SELECT * FROM output_segment ORDER BY job_id, seq",
];

impl World {
    async fn state(&self) -> String {
        let all = |tx: &mut Tx<'_>| {
            let mut tables = Vec::new();
            for sql in STATE {
                tables.push(tx.query(sql, &[])?);
            }
            Ok::<_, StoreError>(format!("{tables:?}"))
        };
        self.store().read(all).await.unwrap()
    }

    /// What the events of refusals say, the oldest first.
    async fn told(&self) -> Vec<Value> {
        let all = |tx: &mut Tx<'_>| {
            let sql = "SELECT data FROM event_inbox WHERE kind = 'node.refused' ORDER BY position";
            let rows = tx.query(sql, &[])?;
            rows.iter()
                .map(|row| row.text("data"))
                .collect::<Result<Vec<_>, _>>()
        };
        let told = self.store().read(all).await.unwrap();
        let told = told.iter().map(|data| serde_json::from_str(data).unwrap());
        told.collect()
    }

    /// The time of something is over: its hour or its month.
    async fn ends(&self, sql: &'static str, of: &str) {
        let of = of.to_owned();
        let store = self.store();
        let ended = store.write(move |tx| tx.execute(sql, &[of.as_str().into()]));
        assert_eq!(ended.await.unwrap(), 1);
    }

    async fn registered(&self, name: &str) -> Identity {
        let own = self.enrolled(name).await;
        let node = self.as_node(&own);
        node.node_register(&of_now(name)).await.unwrap();
        own
    }

    /// A machine asks to become a node with this token.
    async fn enrolls(&self, token: &str, csr: &str) -> Result<(), ClientError> {
        let asked = NodeEnroll {
            token: Hidden(token.to_owned()),
            name: "here".to_owned(),
            csr: csr.to_owned(),
        };
        let stranger = self.stranger(None);
        stranger.node_enroll(&asked).await.map(drop)
    }

    async fn registers(&self, own: &Identity) -> Result<(), ClientError> {
        let node = self.as_node(own);
        node.node_register(&of_now("here")).await.map(drop)
    }
}

/// What a node of the version with tokens and declared gaps says of itself.
fn of_now(name: &str) -> NodeRegister {
    let facts = [("memory_bytes", "4294967296"), ("cpus", "2")];
    NodeRegister {
        name: name.to_owned(),
        drivers: vec!["linux".to_owned()],
        protocol: NodeProtocol { min: 1, max: 3 },
        facts: facts.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..hello()
    }
}

fn csr() -> String {
    let key = KeyPair::generate().unwrap();
    let asked = CertificateParams::default().serialize_request(&key);
    asked.unwrap().pem().unwrap()
}

fn spec() -> JobSpec {
    JobSpec {
        profile: "default".to_owned(),
        argv: vec!["true".to_owned()],
        env: BTreeMap::new(),
        cwd: None,
        root: None,
        timeout_ms: 1000,
        limits: AskedLimits::default(),
        files: Vec::new(),
        outputs: Vec::new(),
        attach: false,
        retry: Retry { max_attempts: 1 },
        queue_timeout_ms: None,
        placement: Placement::default(),
        node: None,
        secrets: Vec::new(),
        scrub_patterns: false,
        network: NetworkRules::default(),
        made_by: None,
        permit: None,
    }
}

/// A job that this node has, and its token.
async fn leased(world: &World, node: &Client) -> (String, String) {
    world
        .service
        .job_create(&user(), spec(), None)
        .await
        .unwrap();
    let poll = NodePoll {
        incarnation: hello().incarnation,
        free_slots: 1,
        free_sandboxes: 0,
        reserved: NodeReserved::default(),
        wait_ms: 10_000,
    };
    let mut polled = node.node_poll(&poll).await.unwrap();
    let id = polled.leases.remove(0).job_id;
    let token = polled.lease_tokens.remove(&id).unwrap();
    (id, token)
}

async fn starts(node: &Client, job: &str) -> Result<ReportAnswer, ClientError> {
    let started = JobStarted {
        epoch: 1,
        attempt: 1,
        driver: "linux".to_owned(),
        sandbox_id: None,
        enforcement: Vec::new(),
    };
    node.node_job_started(job, &started).await
}

/// Looks at the answer, the event, and all that should be as it was.
async fn refused<T>(
    (world, codes): (&World, &mut Vec<Code>),
    (code, who, path): (Code, Option<&Identity>, &str),
    asked: impl Future<Output = Result<T, ClientError>>,
) {
    let (before, told) = (world.state().await, world.told().await.len());
    let error = asked.await.map(drop).unwrap_err();
    assert!(error.is(code), "{code:?}: {error:?}");
    let node = who.map(|own| own.node.to_string());
    let event = json!({"code": code.as_str(), "node": node, "path": path});
    assert_eq!(world.told().await[told..], [event], "{code:?}");
    assert_eq!(world.state().await, before, "{code:?}");
    codes.push(code);
}

/// Attack: Whoever must not come in tries, with everything that could be taken for a token or a certificate.
#[tokio::test(flavor = "multi_thread")]
async fn who_must_not_come_in_is_told_why_and_is_in_the_record_and_changes_nothing() {
    let world = World::new().await;
    let mut codes = Vec::new();
    let at = routes::NODE_ENROLL;
    let unknown = format!("cfn_{}_{}", "1".repeat(64), "0".repeat(64));
    let told = (Code::EnrollTokenUnknown, None, at);
    refused((&world, &mut codes), told, world.enrolls(&unknown, &csr())).await;

    let (open, text) = world.made().await;
    let told = (Code::BadCsr, None, at);
    refused((&world, &mut codes), told, world.enrolls(&text, "no")).await;
    let hour = "UPDATE enroll_token SET expires_at_ms = 1 WHERE id = $1";
    world.ends(hour, open.id.as_str()).await;
    let told = (Code::EnrollTokenExpired, None, at);
    refused((&world, &mut codes), told, world.enrolls(&text, &csr())).await;

    let (used, text) = world.made().await;
    world.enrolls(&text, &csr()).await.unwrap();
    let told = (Code::EnrollTokenUsed, None, at);
    refused((&world, &mut codes), told, world.enrolls(&text, &csr())).await;
    assert_ne!(used.id, open.id);

    let (me, (revoked, text)) = (user(), world.made().await);
    let revoking = world.service.enroll_token_revoke(&me, &revoked.id);
    revoking.await.unwrap();
    let told = (Code::EnrollTokenRevoked, None, at);
    refused((&world, &mut codes), told, world.enrolls(&text, &csr())).await;

    let at = routes::NODE_REGISTER;
    let stranger = world.stranger(Some(&world.authority));
    let told = (Code::CertificateUnknown, None, at);
    refused((&world, &mut codes), told, stranger.node_register(&hello())).await;

    let own = world.registered("old").await;
    let month = "UPDATE node_certificate SET expires_at_ms = 1 WHERE node = $1";
    world.ends(month, own.node.as_str()).await;
    let told = (Code::CertificateExpired, None, at);
    refused((&world, &mut codes), told, world.registers(&own)).await;

    let own = world.registered("away").await;
    let order = NodeOrder::Decommission;
    let sent = world.service.node_order(&me, &own.node, order);
    sent.await.unwrap();
    let told = (Code::CertificateRevoked, None, at);
    refused((&world, &mut codes), told, world.registers(&own)).await;

    let expect = &TOLD_OF_NODES[..codes.len()];
    assert_eq!(codes, expect, "the others are below");
}

/// Attack: A node says what it may not, or somebody with its certificate does.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_may_not_say_is_refused_and_in_the_record_and_changes_nothing() {
    let world = World::new().await;
    let mut codes = Vec::new();
    let own = world.registered("here").await;
    let node = world.as_node(&own);
    let (job, token) = leased(&world, &node).await;
    let at = format!("/node/v1/jobs/{job}/started");

    let other = world.registered("there").await;
    let their = world.as_node(&other);
    let told = (Code::NotYourLease, Some(&other), &*at);
    refused((&world, &mut codes), told, starts(&their, &job)).await;
    let told = (Code::LeaseTokenWrong, Some(&own), &*at);
    refused((&world, &mut codes), told, starts(&node, &job)).await;
    // Nor does a guess help.
    node.lease_token(&job, &format!("1.{}", "0".repeat(32)));
    let told = (Code::LeaseTokenWrong, Some(&own), &*at);
    refused((&world, &mut codes), told, starts(&node, &job)).await;
    codes.pop();

    let node = world.as_node(&own);
    node.lease_token(&job, &token);
    starts(&node, &job).await.unwrap();
    let output = JobOutput {
        epoch: 1,
        attempt: 1,
        segments: vec![OutputSegment::new(StreamName::Stdout, 5, b"tail")],
    };
    let at = format!("/node/v1/jobs/{job}/output");
    let told = (Code::OutputHole, Some(&own), &*at);
    let sent = node.node_job_output(&job, &output);
    refused((&world, &mut codes), told, sent).await;

    let foreign = NodeRegister {
        protocol: NodeProtocol { min: 0, max: 0 },
        ..of_now("here")
    };
    let told = (Code::NodeIncompatible, Some(&own), routes::NODE_REGISTER);
    refused((&world, &mut codes), told, node.node_register(&foreign)).await;

    let expect = &TOLD_OF_NODES[TOLD_OF_NODES.len() - codes.len()..];
    assert_eq!(codes, expect, "the others are above");
    assert_eq!(TOLD_OF_NODES.len(), 12, "8 above and 4 here");
}

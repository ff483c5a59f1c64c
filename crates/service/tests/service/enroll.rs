//! Letting machines in as nodes, refusing those that must not come in, and sending nodes away.

use crate::*;
use service::{BadCsr, Enrolled, Error, NodeAuthority, NodeOrder, NodeSigned};
use store::Tx;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Signs everything but `bad`; the text of a request stands for its key.
pub(crate) fn sign(csr: &str, node: &NodeId, now_ms: u64) -> Result<NodeSigned, BadCsr> {
    if csr == "bad" {
        return Err(BadCsr);
    }
    // Each certificate is another one, as serial numbers make them.
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    Ok(NodeSigned {
        certificate: format!("certificate of {node}"),
        fingerprint: format!("{node}-{number}"),
        key_digest: csr.to_owned(),
        expires_at_ms: now_ms + 30 * DAY_MS,
    })
}

fn world() -> World {
    let world = World::new();
    world.service.node_authority_is(NodeAuthority {
        certificate: "authority".to_owned(),
        fingerprint: "f00d".to_owned(),
        sign: Box::new(sign),
    });
    world
}

impl World {
    async fn token(&self) -> (service::EnrollTokenRow, String) {
        let labels = BTreeMap::from([("zone".to_owned(), "eu".to_owned())]);
        self.service
            .enroll_token_create(&user(), labels)
            .await
            .unwrap()
    }

    async fn enroll(&self, token: &str, key: &str) -> Result<Enrolled, &'static str> {
        let enrolled = self.service.node_enroll(token, "here", key).await;
        enrolled.map_err(|error| error.code())
    }

    async fn of(&self, enrolled: &Enrolled) -> Result<NodeId, &'static str> {
        let fingerprint = &enrolled.signed.fingerprint;
        let node = self.service.node_of_certificate(fingerprint).await;
        node.map_err(|error| error.code())
    }

    async fn events(&self, resource: &'static str, id: &str) -> Vec<String> {
        let id = id.to_owned();
        let list = move |tx: &mut Tx<'_>| event::list(tx, resource, &id, 0, 100);
        let events = self.store().read(list).await.unwrap();
        events.into_iter().map(|event| event.kind).collect()
    }
}

#[tokio::test]
async fn a_token_makes_one_node_with_its_labels_and_is_not_kept() {
    let world = world();
    let (row, text) = world.token().await;
    assert!(
        text.starts_with("cfn_") && text.ends_with("_f00d"),
        "{text}"
    );
    assert!(!row.digest.contains(&text[4..20]));
    let enrolled = world.enroll(&text, "key").await.unwrap();
    assert_eq!(enrolled.authority, "authority");
    assert_eq!(world.of(&enrolled).await, Ok(enrolled.node.clone()));
    let seen = world
        .service
        .node_get(&user(), &enrolled.node)
        .await
        .unwrap();
    assert_eq!(seen.enrollment.as_ref().unwrap().labels, row.labels);
    assert_eq!(
        world.enroll(&text, "another key").await,
        Err("enroll_token_used")
    );
    let listed = world.service.node_list(&user()).await.unwrap();
    assert_eq!(listed.len(), 1, "who was refused is no node");
    let id = row.id.as_str();
    assert_eq!(
        world.events("enroll_token", id).await,
        ["enroll_token.created", "enroll_token.used"]
    );
    assert_eq!(
        world.events("node", enrolled.node.as_str()).await,
        ["node.enrolled"]
    );
}

#[tokio::test]
async fn a_machine_that_lost_the_answer_asks_again_with_its_key_and_is_the_same_node() {
    let world = world();
    let (_, text) = world.token().await;
    let first = world.enroll(&text, "key").await.unwrap();
    // The server died meanwhile.
    let again = world.again();
    again.node_authority_is(NodeAuthority {
        certificate: "authority".to_owned(),
        fingerprint: "f00d".to_owned(),
        sign: Box::new(sign),
    });
    let second = again.node_enroll(&text, "here", "key").await.unwrap();
    assert_eq!(first.node, second.node);
    assert_eq!(
        world.events("node", first.node.as_str()).await,
        ["node.enrolled"]
    );
    world.clock.advance(HOUR_MS);
    assert_eq!(world.enroll(&text, "key").await, Err("enroll_token_used"));
}

/// Attack: A token that lets one machine in is shown by many at once.
#[tokio::test]
async fn of_many_machines_with_one_token_one_becomes_a_node() {
    let world = world();
    let (_, text) = world.token().await;
    let enrolling = (0..8).map(|number| {
        let (service, text, key) = (world.service.clone(), text.clone(), format!("key {number}"));
        tokio::spawn(async move { service.node_enroll(&text, "here", &key).await.is_ok() })
    });
    let mut made = 0;
    for one in enrolling.collect::<Vec<_>>() {
        made += usize::from(one.await.unwrap());
    }
    assert_eq!(made, 1);
    assert_eq!(world.service.node_list(&user()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_must_not_come_in_is_refused_and_changes_nothing() {
    let world = world();
    let (_, text) = world.token().await;
    assert_eq!(
        world.enroll("cfn_0_f00d", "key").await,
        Err("enroll_token_unknown")
    );
    assert_eq!(world.enroll(&text, "bad").await, Err("bad_csr"));
    assert_eq!(
        world.enroll(&text, &"x".repeat(20_000)).await,
        Err("bad_csr")
    );
    let (revoked, its_text) = world.token().await;
    let (me, id) = (user(), revoked.id.clone());
    world.service.enroll_token_revoke(&me, &id).await.unwrap();
    world.service.enroll_token_revoke(&me, &id).await.unwrap();
    assert_eq!(
        world.enroll(&its_text, "key").await,
        Err("enroll_token_revoked")
    );
    let kinds = world.events("enroll_token", id.as_str()).await;
    assert_eq!(kinds, ["enroll_token.created", "enroll_token.revoked"]);
    let of_node = world
        .service
        .enroll_token_create(&node(1), BTreeMap::new())
        .await;
    assert_eq!(of_node.unwrap_err().code(), "forbidden");
    world.clock.advance(HOUR_MS);
    assert_eq!(
        world.enroll(&text, "key").await,
        Err("enroll_token_expired")
    );
    assert!(world.service.node_list(&me).await.unwrap().is_empty());
    let nobody = world.service.node_of_certificate("f00d").await;
    assert_eq!(nobody.unwrap_err().code(), "certificate_unknown");
}

#[tokio::test]
async fn a_certificate_is_renewed_while_the_one_before_still_counts() {
    let world = world();
    let (_, text) = world.token().await;
    let first = world.enroll(&text, "key").await.unwrap();
    let own = Ctx::node(first.node.clone(), "req_3");
    world.clock.advance(20 * DAY_MS);
    let second = world.service.node_renew(&own, "new key").await.unwrap();
    assert_eq!(world.of(&first).await, Ok(first.node.clone()));
    world.clock.advance(10 * DAY_MS);
    assert_eq!(world.of(&first).await, Err("certificate_expired"));
    assert_eq!(world.of(&second).await, Ok(first.node.clone()));
    let renewed = world.events("node", first.node.as_str()).await;
    assert_eq!(renewed, ["node.enrolled", "node.certificate_renewed"]);
    let mut last = Ok(());
    for _ in 0..20 {
        last = world.service.node_renew(&own, "x").await.map(drop);
    }
    assert_eq!(last.unwrap_err().code(), "too_much");
    let strange = world.service.node_renew(&node(9), "x").await;
    assert!(matches!(strange, Err(Error::Forbidden(_))), "{strange:?}");
}

#[tokio::test]
async fn a_node_is_closed_drained_sent_away_and_forgotten() {
    let world = world();
    let (_, text) = world.token().await;
    let enrolled = world.enroll(&text, "key").await.unwrap();
    let (me, id) = (user(), enrolled.node.clone());
    let own = Ctx::node(id.clone(), "req_3");
    let order = async |order| {
        let seen = world.service.node_order(&me, &id, order).await;
        seen.map(|seen| seen.state().scheduling)
            .map_err(|error| error.code())
    };
    use model::node::Scheduling::{Active, Cordoned, Decommissioned, Draining};
    assert_eq!(
        order(NodeOrder::Cordon).await,
        Err("conflict"),
        "it has not come yet"
    );
    world.register(&own, "a").await;
    assert_eq!(order(NodeOrder::Cordon).await, Ok(Cordoned));
    world.create(spec()).await;
    assert!(world.poll(&own, NOW).await.leases.is_empty());
    assert_eq!(order(NodeOrder::Uncordon).await, Ok(Active));
    let job = world.poll(&own, NOW).await.leases.remove(0);
    assert_eq!(order(NodeOrder::Drain).await, Ok(Draining));
    assert_eq!(order(NodeOrder::Cordon).await, Err("conflict"));
    assert_eq!(order(NodeOrder::Uncordon).await, Ok(Active));
    assert_eq!(order(NodeOrder::Drain).await, Ok(Draining));
    world.create(spec()).await;
    assert!(world.poll(&own, NOW).await.leases.is_empty());
    let seen = world.service.node_get(&me, &id).await.unwrap();
    assert_eq!(seen.load, (1, 0), "what it has, it keeps");
    let early = world.service.node_forget(&me, &id).await;
    assert_eq!(early.unwrap_err().code(), "conflict");
    assert_eq!(order(NodeOrder::Decommission).await, Ok(Decommissioned));
    assert_eq!(world.of(&enrolled).await, Err("certificate_revoked"));
    assert_eq!(world.enroll(&text, "key").await, Err("enroll_token_used"));
    let back = world.service.node_register(&own, hello("b")).await;
    assert_eq!(back.unwrap_err().code(), "forbidden");
    world.service.node_forget(&me, &id).await.unwrap();
    let gone = world.service.node_get(&me, &id).await;
    assert_eq!(gone.unwrap_err().code(), "not_found");
    assert_eq!(world.of(&enrolled).await, Err("certificate_revoked"));
    let job = world.get(&job.id).await;
    assert!(
        matches!(job.state, JobState::Queued),
        "it had not begun: {job:?}"
    );
}

#[tokio::test]
async fn who_is_refused_at_the_door_of_nodes_is_an_event() {
    let world = world();
    let who = node_id(3);
    world
        .service
        .node_refused(Some(&who), "not_your_lease", "/node/v1/jobs")
        .await;
    let all = |tx: &mut Tx<'_>| {
        let rows = tx.query(
            "SELECT data FROM event_inbox WHERE kind = 'node.refused'",
            &[],
        )?;
        rows.iter()
            .map(|row| row.text("data"))
            .collect::<Result<Vec<_>, _>>()
    };
    let told = world.store().read(all).await.unwrap();
    assert_eq!(told.len(), 1);
    assert!(
        told[0].contains("not_your_lease") && told[0].contains(who.as_str()),
        "{told:?}"
    );
}

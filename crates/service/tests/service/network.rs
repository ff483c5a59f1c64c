//! Rules of a network that change, and what was asked of the outside.

use crate::sandboxes::{FREE, ask, names, said_ready};
use crate::*;
use model::enforcement::{Enforced, Held};
use model::network::{NetworkAsked, NetworkRules};
use model::sandbox::Want;
use service::{
    EgressFilter, EgressLook, EgressOwner, Error, NetworkRefused, NetworkSaid, NewEgress,
    SandboxAsk, SandboxRow, SandboxSaid,
};

fn only(host: &str) -> NetworkRules {
    let asked = NetworkAsked {
        allow: vec![host.to_owned()],
        ..NetworkAsked::default()
    };
    NetworkRules::read(&asked).unwrap()
}

fn clauses(value: &str) -> Vec<Enforced> {
    vec![Enforced {
        clause: "network".to_owned(),
        how: "egress proxy".to_owned(),
        value: Some(value.to_owned()),
        asked: true,
        state: Held::Held,
    }]
}

impl World {
    async fn set(&self, row: &SandboxRow, rules: NetworkRules) -> SandboxRow {
        let me = user();
        let set = self.service.sandbox_set_network(&me, &row.id, rules, NOW);
        set.await.unwrap()
    }

    async fn pending(&self) -> Vec<(String, u64)> {
        let polled = self
            .service
            .node_poll(&node(1), "a", FREE, NOW)
            .await
            .unwrap();
        let name = |row: &SandboxRow| (row.id.to_string(), row.network_epoch);
        polled.networks.iter().map(name).collect()
    }

    async fn in_force(&self, row: &SandboxRow, epoch: u64) -> bool {
        let node = node(1);
        let said = NetworkSaid {
            epoch,
            enforcement: clauses("x"),
            refused: None,
        };
        let report = self.service.sandbox_network_report(&node, &row.id, said);
        !report.await.unwrap().duplicate
    }

    async fn gives_up(&self, row: &SandboxRow, epoch: u64, in_force: NetworkRules) -> bool {
        let node = node(1);
        let said = NetworkSaid {
            epoch,
            enforcement: Vec::new(),
            refused: Some(NetworkRefused {
                in_force,
                secrets: None,
                why: "there is no device".to_owned(),
            }),
        };
        let report = self.service.sandbox_network_report(&node, &row.id, said);
        !report.await.unwrap().duplicate
    }
}

#[tokio::test]
async fn rules_are_told_until_the_node_has_put_them_in_force() {
    let world = World::new();
    let row = world.ready(ask()).await;
    assert!(world.pending().await.is_empty());
    let changed = world.set(&row, only("a.example")).await;
    assert!(changed.is_network_pending());
    let told = vec![(row.id.to_string(), 1)];
    assert_eq!(world.pending().await, told);
    assert!(world.pending().await.is_empty(), "a poll tells it once");
    let beat = world.beat(&[names(&row)]).await;
    assert_eq!(beat.networks.len(), 1, "a heartbeat tells it again");
    // A process that registers anew is told again by a poll, too.
    world.register(&node(1), "a").await;
    assert_eq!(world.pending().await, told);
    assert_eq!(
        world.set(&row, only("a.example")).await.network_epoch,
        1,
        "no change"
    );
    world.set(&row, only("b.example")).await;
    assert!(!world.in_force(&row, 1).await, "older rules");
    assert!(world.sandbox(&row.id).await.is_network_pending());
    assert!(world.in_force(&row, 2).await);
    assert!(!world.in_force(&row, 2).await, "the same again");
    let done = world.sandbox(&row.id).await;
    assert!(!done.is_network_pending());
    assert_eq!(done.enforcement, clauses("x"));
    assert!(world.beat(&[names(&row)]).await.networks.is_empty());
    let kinds = world.sandbox_kinds(&row.id).await;
    assert_eq!(
        kinds[3..],
        ["network_changed", "network_changed", "network_applied"]
    );
}

#[tokio::test]
async fn whoever_changes_rules_can_wait_until_they_are_in_force() {
    let world = World::new();
    let row = world.ready(ask()).await;
    let (service, id) = (world.service.clone(), row.id.clone());
    let waiting = tokio::spawn(async move {
        let rules = only("a.example");
        service.sandbox_set_network(&user(), &id, rules, LONG).await
    });
    let polled = world
        .service
        .node_poll(&node(1), "a", FREE, LONG)
        .await
        .unwrap();
    assert_eq!(polled.networks.len(), 1);
    assert!(world.in_force(&row, 1).await);
    assert!(!waiting.await.unwrap().unwrap().is_network_pending());
}

#[tokio::test]
async fn rules_that_a_node_gives_up_are_refused_and_those_before_hold() {
    let world = World::new();
    let row = world.ready(ask()).await;
    let (service, id) = (world.service.clone(), row.id.clone());
    let waiting = tokio::spawn(async move {
        let rules = only("a.example");
        service.sandbox_set_network(&user(), &id, rules, LONG).await
    });
    let service = &world.service;
    let polled = service.node_poll(&node(1), "a", FREE, LONG).await.unwrap();
    assert_eq!(polled.networks.len(), 1);
    let none = NetworkRules::default();
    assert!(world.gives_up(&row, 1, none.clone()).await);
    assert!(
        !world.gives_up(&row, 1, none.clone()).await,
        "the same again"
    );
    let refused = waiting.await.unwrap();
    let Err(Error::Conflict { code, message }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        (code, message.as_str()),
        ("network_refused", "there is no device")
    );
    let now = world.sandbox(&row.id).await;
    assert!(!now.is_network_pending() && *now.rules() == none);
    assert_eq!(now.network_refused.as_deref(), Some("there is no device"));
    assert!(
        world.pending().await.is_empty(),
        "nobody is told of it any more"
    );
    // The same rules again are tried again, and what was refused is forgotten.
    let again = world.set(&row, only("a.example")).await;
    assert!(again.is_network_pending() && again.network_refused.is_none());
    assert!(world.in_force(&row, 2).await);
    let kinds = world.sandbox_kinds(&row.id).await;
    assert_eq!(
        kinds[3..],
        [
            "network_changed",
            "network_refused",
            "network_changed",
            "network_applied"
        ]
    );
}

#[tokio::test]
async fn what_a_node_puts_in_force_after_it_was_refused_is_taken_back() {
    let world = World::new();
    let row = world.ready(ask()).await;
    world.set(&row, only("a.example")).await;
    assert!(world.gives_up(&row, 1, NetworkRules::default()).await);
    // Its successor was told before the refusal was known.
    assert!(world.in_force(&row, 1).await);
    assert_eq!(world.pending().await, [(row.id.to_string(), 2)]);
    assert_eq!(
        *world.sandbox(&row.id).await.rules(),
        NetworkRules::default()
    );
}

#[tokio::test]
async fn rules_that_change_while_a_sandbox_is_made_are_told_when_it_stands() {
    let world = World::new();
    let row = world.provisioning(ask()).await;
    world.set(&row, only("a.example")).await;
    assert!(
        world.pending().await.is_empty(),
        "there is nothing to put them around"
    );
    world.says(&row, said_ready()).await;
    assert_eq!(world.pending().await.len(), 1);
    // One that was not placed yet is made with them.
    let world = World::new();
    let row = world.make(ask()).await;
    world.set(&row, only("a.example")).await;
    world.register(&node(1), "a").await;
    let works = world.works(&node(1), NOW).await;
    assert_eq!(
        (works[0].want, works[0].row.rules()),
        (Want::Make, &only("a.example"))
    );
}

#[tokio::test]
async fn what_is_made_anew_may_reach_what_the_old_one_may_reach_now() {
    let world = World::new();
    let mut open = ask();
    open.spec.network = NetworkRules::all_or_nothing(true);
    let row = world.ready(open).await;
    world.set(&row, only("a.example")).await;
    let new = world.service.sandbox_recreate(&user(), &row.id, None).await;
    assert_eq!(new.unwrap().rules(), &only("a.example"));
    world.says(&row, SandboxSaid::Destroyed).await;
    assert_eq!(world.sandbox(&row.id).await.rules(), &only("a.example"));
}

#[tokio::test]
async fn rules_of_what_is_over_or_of_others_cannot_be_changed() {
    let world = World::new();
    let row = world.ready(ask()).await;
    let (me, other) = (user(), node(2));
    world.service.sandbox_destroy(&me, &row.id).await.unwrap();
    let set = world
        .service
        .sandbox_set_network(&me, &row.id, only("a.example"), NOW);
    assert_eq!(set.await.unwrap_err().code(), "sandbox_gone");
    world.says(&row, SandboxSaid::Destroyed).await;
    let said = NetworkSaid {
        epoch: 1,
        enforcement: Vec::new(),
        refused: None,
    };
    let report = world
        .service
        .sandbox_network_report(&other, &row.id, said.clone());
    assert_eq!(report.await.unwrap_err().code(), "not_your_lease");
    let report = world.service.sandbox_network_report(&me, &row.id, said);
    assert_eq!(report.await.unwrap_err().code(), "forbidden");
}

fn record(owner: &EgressOwner, number: u64, decision: &'static str) -> (EgressOwner, NewEgress) {
    let new = NewEgress {
        name: format!("a.{number}"),
        at_ms: number,
        decision,
        host: None,
        code: None,
        record: "{}".to_owned(),
    };
    (owner.clone(), new)
}

/// Attack: Records of the way out are told again and again, and without end.
#[tokio::test]
async fn what_was_asked_of_the_outside_is_stored_once_counted_and_bounded() {
    let world = World::new();
    let row = world.ready(SandboxAsk { ..ask() }).await;
    let (by, job) = world.running(spec()).await;
    let (one, two) = (
        EgressOwner::Sandbox(row.id.clone()),
        EgressOwner::Job(job.id.clone()),
    );
    let tell = async |ctx: &Ctx, records| {
        let told = world.service.egress_report(ctx, records).await;
        told.map_err(|error| error.code())
    };
    let both = vec![
        record(&one, 1, "allowed"),
        record(&two, 2, "denied"),
        record(&one, 3, "denied"),
    ];
    assert_eq!(tell(&by, both.clone()).await, Ok(3));
    assert_eq!(tell(&by, both.clone()).await, Ok(0), "the same again");
    assert_eq!(tell(&node(2), both).await, Ok(0), "of another node");
    assert_eq!(tell(&user(), Vec::new()).await, Err("forbidden"));
    let many = vec![record(&one, 9, "denied"); limits::EGRESS_RECORDS_MAX + 1];
    assert_eq!(tell(&by, many).await, Err("too_much"));
    assert_eq!(world.sandbox(&row.id).await.egress_denied, 1);
    let job = world.service.job_get(&user(), &job.id).await.unwrap();
    assert_eq!(job.egress_denied, 1);
    let page = async |after, decision, limit| {
        let filter = EgressFilter {
            decision,
            ..EgressFilter::default()
        };
        let ask = EgressLook {
            after,
            limit,
            filter,
        };
        let page = world
            .service
            .sandbox_egress(&user(), &row.id, ask)
            .await
            .unwrap();
        let numbers: Vec<u64> = page.rows.iter().map(|row| row.seq).collect();
        (numbers, page.next, page.more)
    };
    assert_eq!(page(0, None, 1).await, (vec![1], 1, true));
    assert_eq!(page(1, None, 1).await, (vec![2], 2, false));
    assert_eq!(page(2, None, 1).await, (vec![], 2, false));
    assert_eq!(page(0, Some("denied"), 5).await, (vec![2], 2, false));
    for start in (10..10 + limits::RETAIN_EGRESS).step_by(limits::EGRESS_RECORDS_MAX) {
        let some = start..start + limits::EGRESS_RECORDS_MAX as u64;
        let some = some.map(|number| record(&one, number, "allowed")).collect();
        tell(&by, some).await.unwrap();
    }
    assert_eq!(page(0, None, 1).await.0, [3], "the oldest went");
}

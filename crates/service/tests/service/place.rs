//! Which node gets a job that does not go anywhere.

use crate::*;
use model::node::{DriverHealth, HostReport, NodeKind};
use model::place::{Placement, Reserved};
use service::{Error, Free};

const GIB: u64 = 1 << 30;
const ZONES: [(&str, &str); 2] = [("zone", "a"), ("zone", "b")];

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(own).collect()
}

fn on(pairs: &[(&str, &str)]) -> JobSpec {
    JobSpec {
        placement: Placement {
            on: labels(pairs),
            ..Placement::default()
        },
        ..spec()
    }
}

fn preferring(pairs: &[(&str, &str)]) -> JobSpec {
    JobSpec {
        placement: Placement {
            prefer: labels(pairs),
            ..Placement::default()
        },
        ..spec()
    }
}

fn with_memory(bytes: u64) -> JobSpec {
    JobSpec {
        limits: AskedLimits {
            memory_bytes: Some(bytes),
            ..AskedLimits::default()
        },
        ..spec()
    }
}

impl World {
    async fn come(&self, number: u8, own: &[(&str, &str)], memory: u64) -> Ctx {
        let mut hello = hello("a");
        hello.labels = labels(own);
        hello
            .facts
            .insert("memory_bytes".to_owned(), memory.to_string());
        let node = node(number);
        self.service.node_register(&node, hello).await.unwrap();
        node
    }

    /// One that calls itself a server, whatever it is, and has a tag.
    async fn comes_as(&self, number: u8, kind: NodeKind) -> Ctx {
        let mut hello = hello("a");
        hello.labels = labels(&[("kind", "server"), ("gpu", "")]);
        hello.kind = kind;
        let node = node(number);
        self.service.node_register(&node, hello).await.unwrap();
        node
    }

    /// Nodes 1 and 2 in zones a and b, with 4 and 16 GiB.
    async fn two(&self) -> [Ctx; 2] {
        let one = self.come(1, &ZONES[..1], 4 * GIB).await;
        [one, self.come(2, &ZONES[1..], 16 * GIB).await]
    }

    async fn gets(&self, node: &Ctx) -> Vec<JobId> {
        let polled = self.service.node_poll(node, "a", 4, NOW).await.unwrap();
        polled.leases.into_iter().map(|row| row.id).collect()
    }

    async fn tells(&self, node: &Ctx, report: HostReport) {
        let beat = self
            .service
            .node_heartbeat_of(node, "a", (&[], &[]), Some(report));
        beat.await.unwrap();
    }

    async fn waits_for(&self, row: &JobRow) -> Option<String> {
        self.service.job_waits_for(row).await.unwrap()
    }
}

#[tokio::test]
async fn a_job_goes_to_a_node_with_its_labels_and_does_not_hide_others() {
    let world = World::new();
    let [one, two] = world.two().await;
    let there = world.create(on(&ZONES[1..])).await;
    let plain = world.create(spec()).await;
    assert_eq!(world.gets(&one).await, [plain.id]);
    assert_eq!(world.gets(&two).await, [there.id]);
}

#[tokio::test]
async fn a_job_goes_to_a_node_of_its_kind_which_is_what_the_node_says_and_not_what_it_calls_itself()
{
    let world = World::new();
    let desktop = world.comes_as(1, NodeKind::Desktop).await;
    let tagged = world.create(on(&[("gpu", "")])).await;
    let there = world.create(on(&[("kind", "server")])).await;
    assert_eq!(world.gets(&desktop).await, [tagged.id]);
    let server = world.comes_as(2, NodeKind::Server).await;
    assert_eq!(world.gets(&server).await, [there.id]);
}

#[tokio::test]
async fn a_poll_that_waits_gets_only_what_its_node_can_have() {
    let world = World::new();
    let [one, two] = world.two().await;
    let waiting = |node: Ctx| {
        let service = world.service.clone();
        let wait = Duration::from_secs(20);
        tokio::spawn(async move { service.node_poll(&node, "a", 1, wait).await })
    };
    let (first, second) = (waiting(one), waiting(two));
    let big = world.create(with_memory(8 * GIB)).await;
    assert_eq!(second.await.unwrap().unwrap().leases[0].id, big.id);
    let small = world.create(on(&ZONES[..1])).await;
    assert_eq!(first.await.unwrap().unwrap().leases[0].id, small.id);
}

/// Nodes ask for jobs and for sandboxes apart, and neither begins the other's look anew.
#[tokio::test]
async fn what_nobody_can_have_does_not_keep_what_a_node_can_have_from_it() {
    let world = World::new();
    let [one, _] = world.two().await;
    for number in 0..1200 {
        let nowhere = format!("{number:05}");
        world.create(on(&[("a-place", &nowhere)])).await;
    }
    let row = world.create(on(&ZONES[..1])).await;
    let sandboxes = || Free {
        sandboxes: 1,
        ..Free::default()
    };
    for _ in 0..2 {
        let polled = world.service.node_poll(&one, "a", sandboxes(), NOW).await;
        assert!(polled.unwrap().sandboxes.is_empty());
        let got = world.gets(&one).await;
        if !got.is_empty() {
            return assert_eq!(got, [row.id]);
        }
    }
    panic!("it was not found in two looks");
}

#[tokio::test]
async fn a_job_that_is_too_large_for_a_node_waits_for_a_larger_one() {
    let world = World::new();
    let [one, two] = world.two().await;
    let big = world.create(with_memory(8 * GIB)).await;
    assert!(world.gets(&one).await.is_empty());
    assert_eq!(world.gets(&two).await, [big.id]);
}

#[tokio::test]
async fn what_limits_name_is_counted_also_within_one_claim() {
    let world = World::new();
    let one = world.come(1, &[], 4 * GIB).await;
    for _ in 0..3 {
        world.create(with_memory(4 * GIB)).await;
    }
    // 16 GiB can be named of 4; 8 are.
    let free = Free {
        slots: 4,
        reserved: Reserved {
            memory_bytes: 8 * GIB,
            disk_bytes: 0,
        },
        ..Free::default()
    };
    let polled = world.service.node_poll(&one, "a", free, NOW).await.unwrap();
    assert_eq!(polled.leases.len(), 2);
}

#[tokio::test]
async fn a_preferred_node_has_five_seconds_and_one_that_is_gone_has_none() {
    let world = World::new();
    let [one, two] = world.two().await;
    let first = world.create(preferring(&ZONES[1..])).await;
    assert!(world.gets(&one).await.is_empty());
    assert_eq!(world.gets(&two).await, [first.id]);
    let second = world.create(preferring(&ZONES[1..])).await;
    assert!(world.gets(&one).await.is_empty());
    world.clock.advance(limits::PREFER_MS);
    assert_eq!(world.gets(&one).await, [second.id]);
    let nowhere = world.create(preferring(&[("zone", "c")])).await;
    assert_eq!(world.gets(&one).await, [nowhere.id]);
}

#[tokio::test]
async fn a_job_that_nobody_can_have_says_why_and_has_it_in_its_first_event() {
    let world = World::new();
    let [one, _] = world.two().await;
    let lost = world.create(on(&[("gpu", "h100")])).await;
    let why = "no node has the label gpu=h100";
    assert_eq!(world.waits_for(&lost).await.as_deref(), Some(why));
    let events = world.service.job_events(&user(), &lost.id, 0, 9).await;
    assert!(events.unwrap()[0].data.contains(why));
    // One that has it may come.
    let three = world.come(3, &[("gpu", "h100")], GIB).await;
    assert_eq!(world.waits_for(&lost).await, None);
    assert!(world.gets(&one).await.is_empty());
    assert_eq!(world.gets(&three).await, [lost.id]);
}

#[tokio::test]
async fn limits_are_refused_that_only_a_node_of_other_labels_has() {
    let world = World::new();
    world.two().await;
    let mut asked = with_memory(8 * GIB);
    asked.placement = on(&ZONES[..1]).placement;
    let refused = world.service.job_create(&user(), asked, None).await;
    let Err(Error::Invalid(found)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(found[0].code, "limit_beyond_machine");
}

#[tokio::test]
async fn a_node_that_refuses_or_cannot_make_sandboxes_gets_nothing_with_a_wish_and_tells_why_once()
{
    let world = World::new();
    let one = world.come(1, &ZONES[..1], 4 * GIB).await;
    let job = world.create(on(&ZONES[..1])).await;
    let well = HostReport {
        cpus: 2,
        drivers: vec![DriverHealth {
            name: "linux".to_owned(),
            healthy: true,
            why: None,
        }],
        ..HostReport::default()
    };
    let mut sick = well.clone();
    sick.drivers[0].healthy = false;
    let full = HostReport {
        refuses: Some("disk_full".to_owned()),
        ..well.clone()
    };
    world.tells(&one, well.clone()).await;
    for (report, why) in [(sick, "cannot make sandboxes"), (full, "closed or silent")] {
        for _ in 0..2 {
            world.tells(&one, report.clone()).await;
        }
        assert!(world.gets(&one).await.is_empty(), "{why}");
        assert!(world.waits_for(&job).await.unwrap().contains(why));
    }
    world.tells(&one, well).await;
    assert_eq!(world.gets(&one).await, [job.id]);
    let changed = world.node_kinds(1).await;
    let changed = changed.iter().filter(|kind| *kind == "node.changed");
    assert_eq!(changed.count(), 3);
}

#[tokio::test]
async fn a_node_that_loses_what_it_has_gets_less_until_it_is_forgotten() {
    let world = World::new();
    let one = world.come(1, &[], 4 * GIB).await;
    for _ in 0..4 {
        let row = world.create(spec()).await;
        let lease = world.gets(&one).await;
        assert_eq!(lease, std::slice::from_ref(&row.id));
        let row = world.get(&row.id).await;
        world
            .service
            .job_started(&one, &row.id, started(&row))
            .await
            .unwrap();
        let why = "its supervisor died".to_owned();
        let lost = finished(&row, Outcome::Lost { why });
        world
            .service
            .job_finished(&one, &row.id, lost)
            .await
            .unwrap();
    }
    for _ in 0..8 {
        world.create(spec()).await;
    }
    // Four failures: a quarter of four slots.
    assert_eq!(world.gets(&one).await.len(), 1);
    world.clock.advance(limits::TROUBLE_HALF_MS);
    world
        .service
        .node_heartbeat(&one, "a", &[], &[])
        .await
        .unwrap();
    assert_eq!(world.gets(&one).await.len(), 4);
    let seen = world.service.node_get(&user(), &node_id(1)).await.unwrap();
    let now = world.clock.now_ms();
    assert_eq!(seen.row.unwrap().trouble.count(now), 2);
}

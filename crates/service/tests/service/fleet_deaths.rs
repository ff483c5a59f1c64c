//! A node from its token to its end, and a job on it, by a server that ends at every point of the database in turn;
//! whoever was not answered asks the next one again. The end is the same, and nothing happened twice.

use crate::deaths::{Mortal, check_events};
use crate::enroll::sign;
use crate::*;
use service::{Error, Idempotency, NodeAuthority, NodeOrder, OutputPiece, Stream};

/// What is known outside, by those who ask.
#[derive(Default)]
struct Story {
    token: String,
    node: Option<NodeId>,
    job: Option<JobId>,
    lease: Option<JobRow>,
}

impl Story {
    fn ctx(&self) -> Ctx {
        Ctx::node(self.node.clone().unwrap(), "req_3")
    }

    fn lease(&self) -> &JobRow {
        self.lease.as_ref().unwrap()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Token,
    Enroll,
    RenewCertificate,
    Register,
    Heartbeat,
    Create,
    Poll,
    Started,
    Output,
    Finished,
    Order(NodeOrder),
    Forget,
}

const STEPS: [Step; 15] = [
    Step::Token,
    Step::Enroll,
    Step::RenewCertificate,
    Step::Register,
    Step::Heartbeat,
    Step::Create,
    Step::Poll,
    Step::Started,
    Step::Output,
    Step::Finished,
    Step::Order(NodeOrder::Cordon),
    Step::Order(NodeOrder::Uncordon),
    Step::Order(NodeOrder::Drain),
    Step::Order(NodeOrder::Decommission),
    Step::Forget,
];

fn is_authority(service: &Service) {
    service.node_authority_is(NodeAuthority {
        certificate: "authority".to_owned(),
        fingerprint: "f00d".to_owned(),
        sign: Box::new(sign),
    });
}

async fn take(service: &Service, story: &mut Story, step: Step) -> Result<(), Error> {
    match step {
        Step::Token => {
            let ctx = user();
            let made = service.enroll_token_create(&ctx, BTreeMap::new());
            story.token = made.await?.1;
        }
        Step::Enroll => {
            let enrolled = service.node_enroll(&story.token, "here", "key").await?;
            story.node = Some(enrolled.node);
        }
        Step::RenewCertificate => drop(service.node_renew(&story.ctx(), "another key").await?),
        Step::Register => drop(service.node_register(&story.ctx(), hello("a")).await?),
        Step::Heartbeat => {
            let ctx = story.ctx();
            drop(service.node_heartbeat(&ctx, "a", &[], &[]).await?);
        }
        Step::Create => {
            let (key, request_hash) = ("k".to_owned(), "h".to_owned());
            let key = Some(Idempotency { key, request_hash });
            story.job = Some(service.job_create(&user(), spec(), key).await?.id);
        }
        Step::Poll => {
            let polled = service.node_poll(&story.ctx(), "a", 1, NOW).await?;
            story.lease = polled.leases.into_iter().next();
        }
        Step::Order(order) => {
            let node = story.node.clone().unwrap();
            drop(service.node_order(&user(), &node, order).await?);
        }
        Step::Forget => {
            let node = story.node.clone().unwrap();
            drop(service.node_forget(&user(), &node).await?);
        }
        Step::Started | Step::Output | Step::Finished => report(service, story, step).await?,
    }
    Ok(())
}

async fn report(service: &Service, story: &Story, step: Step) -> Result<(), Error> {
    let (ctx, row) = (story.ctx(), story.lease());
    let piece = OutputPiece {
        stream: Stream::Stdout,
        offset_bytes: 0,
        dropped_before: 0,
        data: b"hello".to_vec(),
    };
    let report = match step {
        Step::Started => service.job_started(&ctx, &row.id, started(row)).await?,
        Step::Output => {
            let (epoch, attempt) = (row.epoch, row.attempt);
            let told = service.job_output(&ctx, &row.id, epoch, attempt, vec![piece]);
            told.await?
        }
        Step::Finished
        | Step::Token
        | Step::Enroll
        | Step::RenewCertificate
        | Step::Register
        | Step::Heartbeat
        | Step::Create
        | Step::Poll
        | Step::Order(_)
        | Step::Forget => {
            let told = finished(row, Outcome::Succeeded);
            service.job_finished(&ctx, &row.id, told).await?
        }
    };
    assert!(!report.cancel);
    Ok(())
}

/// Asks the next server again what the one that ended did not answer.
async fn take_again(world: &World, service: &Service, story: &mut Story, step: Step) {
    if let Err(error) = take(service, story, step).await {
        // It was done, and nobody was told.
        let is_done = step == Step::Forget && matches!(error, Error::NotFound);
        assert!(is_done, "{step:?} again: {error}");
    }
    if step == Step::Poll && story.lease.is_none() {
        // The node does not name the lease that it never heard of.
        world.clock.advance(2 * limits::HEARTBEAT_MS + 1);
        take(service, story, Step::Heartbeat).await.unwrap();
        take(service, story, Step::Poll).await.unwrap();
    }
}

async fn check_end(world: &World, story: &Story) {
    let job = world.get(story.job.as_ref().unwrap()).await;
    assert_eq!(job.state, ended(Outcome::Succeeded));
    check_events(world, std::slice::from_ref(&job)).await;
    let kinds = world.kinds(&job.id).await;
    for once in ["job.queued", "job.running", "job.finished"] {
        let count = kinds.iter().filter(|kind| *kind == once).count();
        assert_eq!(count, 1, "{once}: {kinds:?}");
    }
    let (id, node) = (job.id.clone(), story.node.clone().unwrap());
    let list = move |tx: &mut store::Tx<'_>| store::output::list(tx, &id, 0, 100);
    let pieces = world.store().read(list).await.unwrap();
    let texts: Vec<_> = pieces.iter().map(|piece| piece.data.as_slice()).collect();
    assert_eq!(texts, [b"hello"]);
    let list = move |tx: &mut store::Tx<'_>| event::list(tx, "node", node.as_str(), 0, 100);
    let events = world.store().read(list).await.unwrap();
    // A certificate whose answer was lost counts, and so does the next one.
    let mut kinds: Vec<_> = events.into_iter().map(|event| event.kind).collect();
    kinds.dedup_by(|a, b| *a == *b && *a == "node.certificate_renewed");
    assert_eq!(
        kinds,
        [
            "node.enrolled",
            "node.certificate_renewed",
            "node.online",
            "node.cordoned",
            "node.uncordoned",
            "node.draining",
            "node.decommissioned",
            "node.gone",
            "node.forgotten"
        ]
    );
}

#[tokio::test]
async fn a_fleet_whose_server_dies_at_every_commit_comes_to_the_same_end() {
    let mut died_in = Vec::new();
    for point in 1.. {
        let world = World::new();
        let mortal = Mortal::new(&world);
        is_authority(&mortal.service);
        let (mut story, mut next) = (Story::default(), None);
        mortal.dies_at(point);
        for step in STEPS {
            if let Some(next) = &next {
                take_again(&world, next, &mut story, step).await;
            } else if let Err(error) = take(&mortal.service, &mut story, step).await {
                assert!(!mortal.lives(), "{step:?} at {point}: {error}");
                died_in.push(format!("{step:?}"));
                let service = world.again();
                is_authority(&service);
                take_again(&world, &service, &mut story, step).await;
                next = Some(service);
            }
        }
        check_end(&world, &story).await;
        if mortal.lives() {
            break;
        }
    }
    // Before and after each of its commits.
    for step in STEPS {
        let name = format!("{step:?}");
        let times = died_in.iter().filter(|one| **one == name).count();
        assert!(times >= 2 && times % 2 == 0, "{name} {times}: {died_in:?}");
    }
}

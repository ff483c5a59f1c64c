//! What comes at once by the hundred, through two servers on one database: there it shares transactions.

use super::*;
use model::job::Outcome;
use model::quota::Limit;
use service::{OutputPiece, QuotaChange, Report, Stream};

const JOBS: usize = 48;

type Told = tokio::task::JoinHandle<Result<Report, service::Error>>;

/// Each of these at both servers, twice, all at one time; how many of each four were the first.
async fn at_once(
    servers: &[Service; 2],
    rows: &[JobRow],
    ask: impl Fn(Service, JobRow) -> Told,
) -> Vec<usize> {
    let four = |row: &JobRow| {
        let one = |number: usize| ask(servers[number % 2].clone(), row.clone());
        (0..4).map(one).collect::<Vec<_>>()
    };
    let asked: Vec<_> = rows.iter().map(four).collect();
    let mut first = Vec::new();
    for four in asked {
        let mut count = 0;
        for told in four {
            let report = told.await.unwrap().unwrap();
            assert!(!report.cancel);
            count += usize::from(!report.duplicate);
        }
        first.push(count);
    }
    first
}

/// Jobs that come at both servers at one time, each given to the node.
async fn leased(servers: &[Service; 2]) -> Vec<JobRow> {
    let made = (0..JOBS).map(|number| {
        let service = servers[number % 2].clone();
        tokio::spawn(async move { service.job_create(&user(), spec(), None).await.unwrap() })
    });
    for one in made.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    let mut rows = Vec::new();
    while rows.len() < JOBS {
        let polled = servers[0].node_poll(&node(1), "a", 64, NOW).await.unwrap();
        rows.extend(polled.leases);
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_of_many_jobs_several_times_at_once_counts_once() {
    let Some((_postgres, _dir, servers)) = two_servers() else {
        return;
    };
    let mut hello = hello("a");
    hello.slots = 64;
    servers[0].node_register(&node(1), hello).await.unwrap();
    let rows = leased(&servers).await;
    let begun = at_once(&servers, &rows, |service, row| {
        let report = started(&row);
        tokio::spawn(async move { service.job_started(&node(1), &row.id, report).await })
    });
    assert_eq!(begun.await, [1; JOBS]);
    let ended = at_once(&servers, &rows, |service, row| {
        let mut report = finished(&row, Outcome::Succeeded);
        report.segments = vec![OutputPiece {
            stream: Stream::Stdout,
            offset_bytes: 0,
            dropped_before: 0,
            data: row.id.as_str().as_bytes().to_vec(),
        }];
        tokio::spawn(async move { service.job_finished(&node(1), &row.id, report).await })
    });
    assert_eq!(ended.await, [1; JOBS]);
    for row in rows {
        let events = servers[1].job_events(&user(), &row.id, 0, 100).await;
        let kinds: Vec<String> = events.unwrap().into_iter().map(|one| one.kind).collect();
        let all = ["job.queued", "job.leased", "job.running", "job.finished"];
        assert_eq!(kinds, all);
        let page = servers[0]
            .output_list(&user(), &row.id, 0, 10)
            .await
            .unwrap();
        assert_eq!(page.segments.len(), 1);
        assert_eq!(page.segments[0].data, row.id.as_str().as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_two_tenants_with_quotas_do_not_wait_for_each_other_in_a_circle() {
    let Some((postgres, _dir, servers)) = two_servers() else {
        return;
    };
    let made = servers[0].tenant_create(&user(), "acme", "root").await;
    let who = servers[0].key_who(&made.unwrap().key.1).await.unwrap();
    let admin = Ctx::of(who.unwrap(), "req_3");
    for tenant in ["local", "acme"] {
        let most = QuotaChange::from([(Limit::MemoryBytes, Some(1 << 50))]);
        servers[0].quota_set(&user(), tenant, most).await.unwrap();
    }
    servers[0]
        .node_register(&node(1), hello("a"))
        .await
        .unwrap();
    let work = (0..16).map(|number| {
        let (service, admin) = (servers[number % 2].clone(), admin.clone());
        tokio::spawn(async move {
            for turn in 0..10 {
                // Half of them in the other order, and claims, which go by the quotas of both, between them.
                let who = if (number / 2 + turn) % 2 == 0 {
                    user()
                } else {
                    admin.clone()
                };
                service.job_create(&who, spec(), None).await.unwrap();
                if number < 2 {
                    drop(service.node_poll(&node(1), "a", 4, NOW).await);
                }
            }
        })
    });
    for one in work.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    no_deadlock(&postgres);
}

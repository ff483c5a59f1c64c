//! Several servers on one database.

use super::*;
use model::id::ServerId;
use model::job::Outcome;
use service::{ServerHello, Share};
use tokio::sync::watch;
use tokio::time::Instant;

/// Who waits looks after a second. Who is woken is much faster, at least once in so many times.
const WOKEN: Duration = Duration::from_millis(500);
const TIMES: usize = 5;
/// After this nobody is at his first look any more.
const LOOKED: Duration = Duration::from_millis(300);

/// Two servers that hear each other.
struct Two {
    _postgres: Postgres,
    _dir: tempfile::TempDir,
    a: Service,
    b: Service,
    _hearing: [watch::Sender<bool>; 2],
}

impl Two {
    fn start() -> Option<Two> {
        let (postgres, dir, [a, b]) = two_servers()?;
        let hears = |service: &Service| {
            let (stop, stopped) = watch::channel(false);
            let hearing = service.clone();
            tokio::spawn(async move { hearing.hear_others(stopped).await });
            stop
        };
        Some(Two {
            _postgres: postgres,
            _dir: dir,
            _hearing: [hears(&a), hears(&b)],
            a,
            b,
        })
    }

    async fn job_at_a(&self) -> JobRow {
        self.a.job_create(&user(), spec(), None).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_at_one_server_hears_what_was_written_at_the_other() {
    let Some(two) = Two::start() else { return };
    let one = node(1);
    two.b.node_register(&one, hello("a")).await.unwrap();
    let mut fastest = [LONG; 3];
    for _ in 0..TIMES {
        // A poll that waits there for a job that is made here.
        let (asked, polling) = (Instant::now(), two.b.clone());
        let poll = tokio::spawn(async move { polling.node_poll(&node(1), "a", 1, LONG).await });
        // It looks before it waits; a job that it finds by that says nothing, and makes this test no more than weaker.
        tokio::time::sleep(LOOKED.saturating_sub(asked.elapsed())).await;
        let made = Instant::now();
        let row = two.job_at_a().await;
        let leased = poll.await.unwrap().unwrap().leases.remove(0);
        assert_eq!(leased.id, row.id);
        fastest[0] = fastest[0].min(made.elapsed());
        // Output that is read there and reported here.
        two.b
            .job_started(&one, &row.id, started(&leased))
            .await
            .unwrap();
        let (reading, id) = (two.a.clone(), row.id.clone());
        let began = Instant::now();
        let read =
            tokio::spawn(async move { reading.output_wait(&user(), &id, 0, 10, LONG).await });
        let (waiting, id) = (two.a.clone(), row.id.clone());
        let wait = tokio::spawn(async move { waiting.job_wait(&user(), &id, LONG).await });
        tokio::time::sleep(LOOKED.saturating_sub(began.elapsed())).await;
        let done = finished(&leased, Outcome::Succeeded);
        let ended = Instant::now();
        two.b.job_finished(&one, &row.id, done).await.unwrap();
        let waited = wait.await.unwrap().unwrap();
        assert!(waited.state.outcome().is_some());
        fastest[1] = fastest[1].min(ended.elapsed());
        assert!(read.await.unwrap().unwrap().complete);
        fastest[2] = fastest[2].min(ended.elapsed());
    }
    assert!(fastest.iter().all(|took| *took < WOKEN), "{fastest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_process_of_a_node_is_told_again_whichever_server_it_asks() {
    let Some(two) = Two::start() else { return };
    let one = node(1);
    two.a.node_register(&one, hello("a")).await.unwrap();
    let row = two.job_at_a().await;
    let leased = two
        .a
        .node_poll(&one, "a", 1, NOW)
        .await
        .unwrap()
        .leases
        .remove(0);
    two.a
        .job_started(&one, &row.id, started(&leased))
        .await
        .unwrap();
    two.b.job_cancel(&user(), &row.id).await.unwrap();
    let told = two.a.node_poll(&one, "a", 0, NOW).await.unwrap().cancel;
    assert_eq!(told.len(), 1);
    let again = two.a.node_poll(&one, "a", 0, NOW).await.unwrap().cancel;
    assert!(again.is_empty(), "each process is told once by its polls");
    // It dies, and the next one registers at the other server and then asks at the first.
    two.b.node_register(&one, hello("b")).await.unwrap();
    let told = two.a.node_poll(&one, "b", 0, NOW).await.unwrap().cancel;
    assert_eq!(told.len(), 1);
    let old = two.a.node_poll(&one, "a", 0, NOW).await;
    assert_eq!(old.unwrap_err().code(), "conflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn loops_of_two_servers_judge_each_thing_once() {
    let Some(two) = Two::start() else { return };
    let mut jobs = Vec::new();
    for _ in 0..50 {
        let short = JobSpec {
            queue_timeout_ms: Some(1),
            ..spec()
        };
        jobs.push(two.a.job_create(&user(), short, None).await.unwrap().id);
    }
    let late = two
        .a
        .job_wait(&user(), &jobs[0], Duration::from_millis(10))
        .await;
    assert!(
        late.unwrap().state.outcome().is_none(),
        "no loop has run yet"
    );
    let (a, b) = tokio::join!(
        service::loops::expire_pass(&two.a),
        service::loops::expire_pass(&two.b)
    );
    assert_eq!(a.unwrap().jobs + b.unwrap().jobs, 50);
    for id in &jobs {
        let events = two.b.job_events(&user(), id, 0, 10).await.unwrap();
        let ends = events.iter().filter(|event| event.kind == "job.finished");
        assert_eq!(ends.count(), 1);
    }
    let (a, b) = tokio::join!(
        service::loops::prune_pass(&two.a),
        service::loops::prune_pass(&two.b)
    );
    assert!(a.is_ok() && b.is_ok());
}

fn server(number: u8) -> ServerHello {
    ServerHello {
        id: ServerId::from_parts(u64::from(number), [number; 10]),
        name: "s".to_owned(),
        version: "0".to_owned(),
        address: Some("127.0.0.1:1".to_owned()),
        certificate: Some(format!("{number:064}")),
        started_at_ms: 1,
    }
}

#[tokio::test]
async fn what_all_servers_share_is_compared_and_changed_only_while_none_is_there() {
    let world = World::new();
    let service = &world.service;
    service.server_shares(Share::Token, "one").await.unwrap();
    service.server_shares(Share::Token, "one").await.unwrap();
    service.server_shares(Share::Blobs, "two").await.unwrap();
    let other = service.server_shares(Share::Token, "two").await;
    assert_eq!(other.unwrap_err().code(), "server_mismatch");
    service.server_beat(&server(1)).await.unwrap();
    let early = service.server_adopt(Share::Token, "two").await;
    assert_eq!(early.unwrap_err().code(), "conflict");
    world.clock.advance(limits::SERVER_SILENT_MS);
    service.server_adopt(Share::Token, "two").await.unwrap();
    service.server_shares(Share::Token, "two").await.unwrap();
}

#[tokio::test]
async fn a_link_is_where_a_server_that_is_heard_has_it() {
    let world = World::new();
    let service = &world.service;
    let (one, two) = (server(1), server(2));
    let link = (&node_id(1), "bulk");
    let holder = || async {
        service
            .link_holder(link)
            .await
            .unwrap()
            .map(|held| held.server.id)
    };
    service.server_beat(&one).await.unwrap();
    service.server_beat(&two).await.unwrap();
    let first = service.link_opened(link, &one.id).await.unwrap();
    assert_eq!(holder().await, Some(one.id.clone()));
    service.link_opened(link, &two.id).await.unwrap();
    service.link_closed(link, first).await.unwrap();
    assert_eq!(holder().await, Some(two.id.clone()));
    let seen = service.server_list(&user()).await.unwrap();
    assert_eq!(seen[0].links.len(), 1);
    assert!(seen[1].links.is_empty() && seen[1].is_heard);
    let of = |number: u8| format!("{number:064}");
    assert_eq!(service.server_of_certificate(&of(2)).await.unwrap(), two.id);
    world.clock.advance(limits::SERVER_SILENT_MS);
    assert_eq!(holder().await, None);
    let silent = service.server_of_certificate(&of(2)).await;
    assert_eq!(silent.unwrap_err().code(), "certificate_unknown");
    service.server_beat(&two).await.unwrap();
    assert_eq!(holder().await, Some(two.id.clone()));
    service.server_gone(&two.id).await.unwrap();
    assert_eq!(holder().await, None);
    world.clock.advance(limits::SERVER_FORGET_MS);
    service::loops::prune_pass(service).await.unwrap();
    assert!(service.server_list(&user()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_taken_back_at_one_server_is_soon_not_believed_at_the_other() {
    let Some(two) = Two::start() else { return };
    let row = two
        .a
        .principal_create(
            &user(),
            model::principal::PrincipalKind::User,
            "alice",
            model::principal::Role::Member,
        )
        .await
        .unwrap();
    let new = service::NewKey {
        owner: row.id.to_string(),
        ..service::NewKey::default()
    };
    let (key, text) = two.a.key_create(&user(), new).await.unwrap();
    assert!(two.b.key_who(&text).await.unwrap().is_some());
    two.a.key_revoke(&user(), &key.id).await.unwrap();
    let began = Instant::now();
    while two.b.key_who(&text).await.unwrap().is_some() {
        assert!(began.elapsed() < Duration::from_secs(2), "it is believed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_is_deleted_at_one_server_refuses_nothing_at_the_other() {
    let Some(two) = Two::start() else { return };
    let mut policy = model::policy::Policy::new(model::policy::Layer::Tenant);
    policy.resources = [(model::policy::Bound::Pids, 5)].into();
    two.b.policy_put(&user(), "pids", policy).await.unwrap();
    let greedy = || JobSpec {
        limits: AskedLimits {
            pids: Some(6),
            ..AskedLimits::default()
        },
        ..spec()
    };
    let refused = two.a.job_create(&user(), greedy(), None).await;
    assert_eq!(refused.unwrap_err().code(), "policy_refused");
    two.b.policy_delete(&user(), "pids").await.unwrap();
    // At once, whether it has heard of it or not.
    two.a.job_create(&user(), greedy(), None).await.unwrap();
}

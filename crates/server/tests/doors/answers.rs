//! Whole answers, as a client sees them.

use insta::assert_snapshot;

use crate::world::{World, bare, steady_ids, with_body};

#[test]
fn the_openapi_document_is_as_reviewed() {
    let document = server::document().to_pretty_json().unwrap();
    assert_snapshot!("openapi", document);
}

#[tokio::test]
async fn the_openapi_document_is_served() {
    let world = World::new().await;
    let reply = world.ask(bare("GET", "/openapi.json")).await;
    assert_eq!(reply.headers["content-type"], "application/json");
    assert_eq!(
        reply.json(),
        serde_json::to_value(server::document()).unwrap()
    );
}

#[tokio::test]
async fn a_job_is_created_with_every_default_shown() {
    let world = World::new().await;
    let reply = world
        .ask(with_body("POST", "/v1/jobs", r#"{"argv":["true"]}"#))
        .await;
    assert_snapshot!("job_create_smallest", reply.whole());
    let location = reply.headers["location"].to_str().unwrap();
    let again = world.ask(bare("GET", location)).await;
    let mut again = again.json();
    // Who looks is told why nobody has it yet.
    let waiting = again.as_object_mut().unwrap().remove("waiting");
    assert!(waiting.is_some());
    assert_eq!(again, reply.json());
}

#[tokio::test]
async fn a_job_is_shown_with_everything_that_was_asked_but_no_secret() {
    let world = World::new().await;
    crate::life::register(&world).await;
    let blob = world.user.blob_put(&b"1,2\n"[..], Some(4)).await.unwrap();
    let body = format!(
        r#"{{"argv":["python3","a.py"],"profile":"default","env":{{"KEY":"s3cret"}},
            "cwd":"/home/user","root":"/srv/root","timeout_ms":1000,
            "limits":{{"cpu_millis":500,"memory_bytes":1048576,"pids":9,"disk_bytes":65536}},
            "files":[{{"path":"data.csv","digest":"{}","size_bytes":4,"mode":256}}],
            "outputs":["out.png"],"attach":true,"retry":{{"max_attempts":3}},
            "queue_timeout_ms":60000,"node":"{}"}}"#,
        blob.digest, world.node_id
    );
    let reply = world.ask(with_body("POST", "/v1/jobs", &body)).await;
    assert!(!String::from_utf8_lossy(&reply.body).contains("s3cret"));
    assert_snapshot!("job_create_largest", reply.whole());
}

#[tokio::test]
async fn errors_have_one_shape() {
    let world = World::new().await;
    let mut request = with_body("POST", "/v1/jobs", r#"{"argv":[],"limits":{"pids":0}}"#);
    request
        .headers_mut()
        .insert("x-request-id", "trace-1".parse().unwrap());
    assert_snapshot!("error_with_details", world.ask(request).await.whole());
    let tcp = http::Request::get("/v1/jobs").header("host", "localhost");
    let tcp = tcp.body(http_body_util::Full::default()).unwrap();
    assert_snapshot!("error_unauthenticated", world.ask_tcp(tcp).await.whole());
    assert_snapshot!(
        "error_method",
        world.ask(bare("PUT", "/v1/jobs")).await.whole()
    );
}

#[tokio::test]
async fn health_is_open_and_readiness_says_what_it_checked() {
    let world = World::new().await;
    assert_snapshot!("healthz", world.ask(bare("GET", "/healthz")).await.whole());
    assert_snapshot!("readyz", world.ask(bare("GET", "/readyz")).await.whole());
}

#[tokio::test]
async fn a_request_id_is_taken_if_it_is_plain_and_made_if_not() {
    let world = World::new().await;
    let longest = "x".repeat(128);
    let too_long = "x".repeat(129);
    for (sent, taken) in [
        ("a-1", true),
        (&longest, true),
        (&too_long, false),
        ("a b", false),
        ("", false),
    ] {
        let mut request = bare("GET", "/healthz");
        request
            .headers_mut()
            .insert("x-request-id", sent.parse().unwrap());
        let reply = world.ask(request).await;
        let id = reply.headers["x-request-id"].to_str().unwrap();
        assert_eq!(id == sent, taken, "{sent}");
        assert!(taken || steady_ids(id) == "req_<0>", "{id}");
    }
}

#[tokio::test]
async fn metrics_count_routes_and_not_paths() {
    let world = World::new().await;
    for path in ["/v1/jobs/guess-1", "/v1/jobs/guess-2", "/guess-3"] {
        world.ask(bare("GET", path)).await;
    }
    world.ask(bare("BREW", "/v1/jobs")).await;
    let reply = world.ask(bare("GET", "/metrics")).await;
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    let line =
        r#"cofferdam_http_requests_total{method="GET",route="/v1/jobs/{id}",status="404"} 2"#;
    assert!(text.contains(line), "{text}");
    assert!(!text.contains("guess") && !text.contains("BREW"), "{text}");
    assert!(text.contains("cofferdam_http_connections 1"), "{text}");
}

#[tokio::test]
async fn jobs_are_listed_in_pages_newest_first() {
    let world = World::new().await;
    for number in 0..5 {
        world.clock.advance(1);
        let body = format!(r#"{{"argv":["job","{number}"]}}"#);
        world.ask(with_body("POST", "/v1/jobs", &body)).await;
    }
    let mut seen = Vec::new();
    let mut query = api::job::JobListQuery {
        limit: Some(2),
        ..Default::default()
    };
    loop {
        let page = world.user.job_list(&query).await.unwrap();
        seen.push(
            page.jobs
                .iter()
                .map(|job| job.spec.argv[1].clone())
                .collect::<Vec<_>>(),
        );
        let Some(next) = page.next else { break };
        query.before = Some(next);
    }
    assert_eq!(seen, [vec!["4", "3"], vec!["2", "1"], vec!["0"]]);
    let none = api::job::JobListQuery {
        state: Some(api::job::StateName::Finished),
        ..Default::default()
    };
    assert!(world.user.job_list(&none).await.unwrap().jobs.is_empty());
}

#[tokio::test]
async fn a_page_of_very_long_jobs_is_shorter() {
    let world = World::new().await;
    let long = "x".repeat(90_000);
    for _ in 0..20 {
        world.clock.advance(1);
        let body = format!(r#"{{"argv":["echo","{long}"]}}"#);
        assert_eq!(
            world.ask(with_body("POST", "/v1/jobs", &body)).await.status,
            201
        );
    }
    let mut query = api::job::JobListQuery::default();
    let (mut jobs, mut pages) = (0, 0);
    loop {
        let page = world.user.job_list(&query).await.unwrap();
        (jobs, pages) = (jobs + page.jobs.len(), pages + 1);
        assert!(page.jobs.len() < 12, "{}", page.jobs.len());
        let Some(next) = page.next else { break };
        query.before = Some(next);
    }
    assert_eq!((jobs, pages), (20, 2));
}

#[tokio::test]
async fn the_same_create_again_is_the_same_job() {
    let world = World::new().await;
    let create = |body: &str| {
        let mut request = with_body("POST", "/v1/jobs", body);
        request
            .headers_mut()
            .insert("idempotency-key", "key-12345".parse().unwrap());
        request
    };
    let first = world
        .ask(create(r#"{"argv":["true"],"attach":false}"#))
        .await;
    let again = world
        .ask(create(r#" { "attach" : false, "argv" : [ "true" ] } "#))
        .await;
    assert_eq!(first.json()["id"], again.json()["id"]);
    let other = world.ask(create(r#"{"argv":["false"]}"#)).await;
    assert_eq!(other.code(), "idempotency_mismatch");
    assert_eq!(
        world
            .user
            .job_list(&Default::default())
            .await
            .unwrap()
            .jobs
            .len(),
        1
    );
}

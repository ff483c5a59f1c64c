//! How large a body may be: every route that takes one has a bound, and says so where it was passed.

use http::StatusCode;
use model::limits::{BODY_BYTES_MAX, FILE_BYTES_MAX, SHORT_BODY_BYTES_MAX};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::{TOKEN, World, bare, with_body};

/// Every route of the document that takes JSON: its method and its path.
fn with_json() -> Vec<(String, String)> {
    let document: serde_json::Value = serde_json::to_value(server::document()).unwrap();
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, route) in methods.as_object().unwrap() {
            let content = &route["requestBody"]["content"];
            if !content["application/json"].is_null() {
                found.push((method.to_uppercase(), path.clone()));
            }
        }
    }
    found
}

fn filled(path: &str) -> String {
    let path = path.replace("{id}", "job_0197747bb4007000800000000000dead");
    path.replace("{name}", "name").replace("{*path}", "x")
}

#[tokio::test]
async fn one_byte_more_than_a_route_takes_is_refused_and_the_connection_goes_on() {
    let world = World::new().await;
    let routes = with_json();
    assert!(routes.len() > 30, "{}", routes.len());
    let mut seen = 0;
    for (method, path) in routes {
        let most = match path.as_str() {
            "/node/v1/enroll" | "/node/v1/renew" => SHORT_BODY_BYTES_MAX,
            _ => BODY_BYTES_MAX,
        };
        let as_node = path.starts_with("/node/");
        let large = with_body(&method, &filled(&path), &" ".repeat(most + 1));
        let after = bare("GET", "/healthz");
        let [reply, after] = world.ask_both(as_node, [large, after]).await;
        let is_first = reply.status == StatusCode::PAYLOAD_TOO_LARGE;
        // An id that names nothing may be found out before.
        assert!(
            is_first || reply.status == StatusCode::NOT_FOUND,
            "{method} {path}: {} {}",
            reply.status,
            reply.code()
        );
        if is_first {
            assert_eq!(reply.code(), "body_too_large", "{method} {path}");
            seen += 1;
        }
        assert_eq!(after.status, StatusCode::OK, "{method} {path}");
    }
    assert!(seen > 25, "{seen}");
}

#[tokio::test]
async fn a_refusal_before_the_body_is_read_is_not_the_end_of_the_connection() {
    let world = World::new().await;
    let half = " ".repeat(BODY_BYTES_MAX / 2);
    for (as_node, line, status) in [
        (false, "POST /v1/nothing", StatusCode::NOT_FOUND),
        (false, "PUT /v1/jobs", StatusCode::METHOD_NOT_ALLOWED),
        (false, "POST /v1/jobs/x/cancel", StatusCode::NOT_FOUND),
        (false, "POST /node/v1/poll", StatusCode::FORBIDDEN),
        (true, "POST /v1/jobs", StatusCode::FORBIDDEN),
    ] {
        let (method, path) = line.split_once(' ').unwrap();
        let asked = with_body(method, path, &half);
        let [reply, after] = world
            .ask_both(as_node, [asked, bare("GET", "/healthz")])
            .await;
        assert_eq!(reply.status, status, "{line}");
        assert_eq!(after.status, StatusCode::OK, "{line}");
    }
}

#[tokio::test]
async fn at_e2bs_door_the_connection_goes_on_too() {
    let world = World::new().await;
    let large = with_body("POST", "/sandboxes", &" ".repeat(BODY_BYTES_MAX + 1));
    let [reply, after] = world
        .ask_both(false, [large, bare("GET", "/healthz")])
        .await;
    assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(after.status, StatusCode::OK);
}

/// What a head is answered with on which no body follows, until the connection ends.
async fn answer_to(world: &World, head: &str) -> String {
    let mut stream = TcpStream::connect(world.tcp).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn who_asks_whether_to_send_too_much_is_told_not_to() {
    let world = World::new().await;
    for (line, length, status) in [
        ("POST /v1/jobs", BODY_BYTES_MAX + 1, "413"),
        ("POST /v1/nothing", 100, "404"),
        ("POST /sandboxes", BODY_BYTES_MAX + 1, "413"),
    ] {
        let answer = answer_to(
            &world,
            &format!(
                "{line} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\
                 expect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
            ),
        )
        .await;
        let begins = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&begins), "{line}: {answer}");
    }
}

#[tokio::test]
async fn a_file_that_says_that_it_is_too_large_is_refused_before_it_is_sent() {
    let world = World::new().await;
    let head = format!(
        "POST /v1/blobs HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\
         content-length: {}\r\n\r\n",
        FILE_BYTES_MAX + 1
    );
    let answer = answer_to(&world, &head).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("body_too_large"), "{answer}");
}

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
            "/node/v1/enroll" => SHORT_BODY_BYTES_MAX,
            _ => BODY_BYTES_MAX,
        };
        let as_node = path.starts_with("/node/");
        let large = with_body(&method, &filled(&path), &" ".repeat(most + 1));
        let after = bare("GET", "/healthz");
        let (reply, after) = world.ask_both(as_node, [large, after]).await;
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
        // A node dials again; and what is not there is said before the body is read.
        let goes_on = after.is_some_and(|after| after.status == StatusCode::OK);
        assert!(as_node || !is_first || goes_on, "{method} {path}");
    }
    assert!(seen > 25, "{seen}");
}

#[tokio::test]
async fn a_file_that_says_that_it_is_too_large_is_refused_before_it_is_sent() {
    let world = World::new().await;
    let mut stream = TcpStream::connect(world.tcp).await.unwrap();
    let head = format!(
        "POST /v1/blobs HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\
         content-length: {}\r\n\r\n",
        FILE_BYTES_MAX + 1
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("body_too_large"), "{answer}");
}

//! Requests that two readers take for different ones: at the doors of the server, where the second reader would be the
//! next request on the same connection.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::{TOKEN, World};

/// What is answered to these bytes until the connection ends, which it does: the last request says so.
async fn say(world: &World, bytes: &str) -> String {
    let mut stream = TcpStream::connect(world.tcp).await.unwrap();
    // It may have closed already.
    drop(stream.write_all(bytes.as_bytes()).await);
    let mut heard = Vec::new();
    let reading = stream.read_to_end(&mut heard);
    let read = tokio::time::timeout(std::time::Duration::from_secs(60), reading).await;
    drop(read.expect("an end in time"));
    String::from_utf8_lossy(&heard).into_owned()
}

/// Statuses of all answers in a stream of them.
fn statuses(heard: &str) -> Vec<&str> {
    let heads = heard.split("HTTP/1.1 ").skip(1);
    heads
        .map(|rest| rest.get(..3).unwrap_or_default())
        .collect()
}

async fn jobs(world: &World) -> usize {
    let page = world.ask_with(TOKEN, "GET /v1/jobs", "").await.json();
    page["jobs"].as_array().unwrap().len()
}

/// A create by somebody who shows nothing, which is to be taken for a part of a request that shows something.
const HIDDEN: &str = "POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
                      content-length: 17\r\n\r\n{\"argv\":[\"true\"]}";

fn outer(fields: &str) -> String {
    format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n{fields}\r\n"
    )
}

/// Attack: Smuggling at our own doors: a length beside chunks, so that what is behind the last chunk is a request to one
/// reader and a body to the other.
#[tokio::test]
async fn what_is_behind_the_last_chunk_is_a_request_of_its_own_that_shows_nothing() {
    let world = World::new().await;
    let body = format!("0\r\n\r\n{HIDDEN}");
    let fields = format!(
        "content-length: {}\r\ntransfer-encoding: chunked\r\n",
        body.len()
    );
    let heard = say(&world, &(outer(&fields) + &body)).await;
    let statuses = statuses(&heard);
    assert!(
        !statuses.iter().any(|status| status.starts_with('2')),
        "{heard}"
    );
    assert_eq!(jobs(&world).await, 0);
}

/// Attack: Smuggling at our own doors: two lengths, a length that is no number, a coding that is written oddly, a space
/// before a colon, a field that goes on in the next line, a line end or a zero byte within a value.
#[tokio::test]
async fn a_head_that_two_readers_would_understand_differently_is_refused_and_nothing_behind_it_is_read()
 {
    let world = World::new().await;
    for fields in [
        "content-length: 5\r\ncontent-length: 0\r\n",
        "content-length: +0\r\n",
        "content-length: 0x0\r\n",
        "content-length: 0, 17\r\n",
        "content-length: 99999999999999999999999\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: identity\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "content-length : 0\r\n",
        "content-length: 0\r\n transfer-encoding: chunked\r\n",
        "x: a\rcontent-length: 0\r\n",
        "x: a\0b\r\n",
    ] {
        let heard = say(&world, &(outer(fields) + HIDDEN)).await;
        let statuses = statuses(&heard);
        assert!(statuses.len() <= 1, "{fields:?}: {heard}");
        assert!(!heard.contains("HTTP/1.1 2"), "{fields:?}: {heard}");
        assert_eq!(jobs(&world).await, 0, "{fields:?}");
    }
}

/// Attack: Smuggling at our own doors: chunks whose sizes overflow, have a sign, or end in a bare line feed.
#[tokio::test]
async fn a_chunk_that_lies_about_its_size_ends_its_connection() {
    let world = World::new().await;
    for chunk in [
        "ffffffffffffffff1\r\n",
        "-1\r\n",
        "+0\r\n\r\n",
        "0x0\r\n\r\n",
        "0;a=\nb\r\n\r\n",
        "2\r\n{}0\r\n\r\n",
        " 0\r\n\r\n",
    ] {
        let heard = say(
            &world,
            &(outer("transfer-encoding: chunked\r\n") + chunk + HIDDEN),
        )
        .await;
        assert!(!heard.contains("HTTP/1.1 2"), "{chunk:?}: {heard}");
        assert_eq!(jobs(&world).await, 0, "{chunk:?}");
    }
}

/// Attack: A switch to HTTP/2, after which a door would not see requests one by one any more; and HTTP/2 from the first
/// byte.
#[tokio::test]
async fn no_door_switches_to_http2() {
    let world = World::new().await;
    let upgrade = format!(
        "GET /v1/jobs HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\
         connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n\
         GET /v1/jobs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    );
    let heard = say(&world, &upgrade).await;
    assert_eq!(statuses(&heard), ["200", "401"], "{heard}");
    let heard = say(&world, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(!heard.contains("HTTP/1.1 2"), "{heard}");
}

/// Attack: A request whose target names another host than its Host field, two Host fields, or none.
#[tokio::test]
async fn a_request_with_two_hosts_or_none_is_answered_for_none_of_them() {
    let world = World::new().await;
    let bearer = format!("authorization: Bearer {TOKEN}\r\nconnection: close\r\n\r\n");
    for head in [
        "GET /v1/jobs HTTP/1.1\r\n".to_owned(),
        "GET /v1/jobs HTTP/1.1\r\nhost: evil.example\r\n".to_owned(),
        "GET /v1/jobs HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n".to_owned(),
        "GET /v1/jobs HTTP/1.1\r\nhost: evil.example\r\nhost: localhost\r\n".to_owned(),
        "GET http://evil.example/v1/jobs HTTP/1.1\r\nhost: localhost\r\n".to_owned(),
        "GET http://localhost/v1/jobs HTTP/1.1\r\nhost: evil.example\r\n".to_owned(),
    ] {
        let heard = say(&world, &(head.clone() + &bearer)).await;
        assert!(!heard.contains("HTTP/1.1 2"), "{head:?}: {heard}");
    }
}

/// Attack: The second request on a connection is taken for one of whoever made the first.
#[tokio::test]
async fn each_request_of_a_connection_shows_who_it_is_from() {
    let world = World::new().await;
    let two = format!(
        "GET /v1/jobs HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\r\n{HIDDEN}"
    );
    let heard = say(&world, &two).await;
    assert_eq!(statuses(&heard), ["200", "401"], "{heard}");
    assert_eq!(jobs(&world).await, 0);
}

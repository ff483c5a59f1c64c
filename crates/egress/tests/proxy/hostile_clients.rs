//! Clients that mean it ill.

use crate::world::{PATIENCE, World, is_untouched, read_all, server, trap};
use model::network::NetworkRules;
use tokio::io::AsyncWriteExt as _;

/// Requests with the status that refuses them.
fn bad_heads(port: u16) -> Vec<(String, &'static str)> {
    let long = "x".repeat(200_000);
    let many = "x: y\r\n".repeat(500);
    let one = format!("http://one.test:{port}/");
    let host = format!("host: one.test:{port}\r\n");
    vec![
        (format!("GET / HTTP/1.1\r\n{host}\r\n"), "400"),
        (format!("OPTIONS * HTTP/1.1\r\n{host}\r\n"), "400"),
        (format!("GET {one} HTTP/1.1\r\n\r\n"), "400"),
        (format!("GET {one} HTTP/1.1\r\n{host}{host}\r\n"), "400"),
        (
            format!("GET {one} HTTP/1.1\r\nhost: two.test:{port}\r\n\r\n"),
            "400",
        ),
        (
            format!("GET {one} HTTP/1.1\r\n{host}x: {long}\r\n\r\n"),
            "431",
        ),
        (format!("GET {one} HTTP/1.1\r\n{host}{many}\r\n"), "431"),
        (format!("GET {one}{long} HTTP/1.1\r\n{host}\r\n"), "431"),
        (
            format!("GET http://one.test:{port}/\0 HTTP/1.1\r\n{host}\r\n"),
            "400",
        ),
        (
            format!("GET http://one.test\0.evil:{port}/ HTTP/1.1\r\n{host}\r\n"),
            "400",
        ),
        (
            format!("GET http://one.test:{port}/a b HTTP/1.1\r\n{host}\r\n"),
            "400",
        ),
        (
            format!("GET http://u@one.test:{port}/ HTTP/1.1\r\n{host}\r\n"),
            "400",
        ),
        (
            format!("GET ftp://one.test:{port}/ HTTP/1.1\r\n{host}\r\n"),
            "400",
        ),
    ]
}

/// The same, for what their bodies say about themselves, and for tunnels.
fn bad_bodies(port: u16) -> Vec<(String, &'static str)> {
    let one = format!("http://one.test:{port}/");
    let host = format!("host: one.test:{port}\r\n");
    vec![
        (
            format!(
                "GET {one} HTTP/1.1\r\n{host}content-length: 3\r\ncontent-length: 4\r\n\r\nabcd"
            ),
            "400",
        ),
        (
            format!("GET {one} HTTP/1.1\r\n{host}content-length: -1\r\n\r\n"),
            "400",
        ),
        (
            format!("GET {one} HTTP/1.1\r\n{host}content-length: 99999999999999999999999\r\n\r\n"),
            "400",
        ),
        (
            format!("GET {one} HTTP/1.0\r\n{host}transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
            "400",
        ),
        (
            format!("GET {one} HTTP/1.1\r\n{host}transfer-encoding: chunked, identity\r\n\r\n"),
            "400",
        ),
        (
            format!("GET {one} HTTP/1.1\r\n{host}transfer-encoding : chunked\r\n\r\n0\r\n\r\n"),
            "400",
        ),
        (
            format!("GET {one} HTTP/1.1\r\n{host} folded: x\r\n\r\n"),
            "400",
        ),
        (
            "CONNECT one.test:0 HTTP/1.1\r\nhost: one.test:0\r\n\r\n".to_owned(),
            "400",
        ),
        (
            "CONNECT one.test HTTP/1.1\r\nhost: one.test\r\n\r\n".to_owned(),
            "400",
        ),
        (
            format!("CONNECT one.test:{port} HTTP/1.1\r\nhost: two.test:{port}\r\n\r\n"),
            "400",
        ),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0".to_owned(), "400"),
        ("GET\r\n\r\n".to_owned(), "400"),
    ]
}

#[tokio::test]
async fn what_is_no_request_for_a_proxy_is_refused_and_nothing_is_dialled() {
    let world = World::open();
    let (port, trap) = trap().await;
    for (bytes, expect) in bad_heads(port).into_iter().chain(bad_bodies(port)) {
        let answer = world.say(&bytes).await;
        let shown = &bytes[..bytes.len().min(120)];
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expect}")),
            "{shown:?}: {answer}"
        );
    }
    assert!(is_untouched(&trap).await);
}

#[tokio::test]
async fn a_length_beside_chunks_is_dropped_and_what_follows_is_no_second_request() {
    let world = World::open();
    for order in [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
    ] {
        let (port, mut seen) = server("HTTP/1.1 204 No Content\r\n\r\n").await;
        let smuggled = format!(
            "POST http://one.test:{port}/ HTTP/1.1\r\nhost: one.test:{port}\r\nconnection: close\r\n{order}\r\n\
             2\r\nok\r\n0\r\n\r\nGET http://one.test:{port}/smuggled HTTP/1.1\r\nhost: one.test:{port}\r\n\r\n"
        );
        drop(world.say(smuggled).await);
        let asked = seen.recv().await.unwrap();
        assert!(
            !asked.contains("smuggled") && !asked.contains("content-length"),
            "{asked}"
        );
        assert!(asked.ends_with("2\r\nok\r\n0\r\n\r\n"), "{asked}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_drips_or_never_comes_is_given_up() {
    for head in [
        "G",
        "GET http://one.test/ HTTP/1.1\r\nhost: one.test\r\nx: ",
        "\u{5}",
        "\u{5}\u{1}\0\u{5}",
        "",
    ] {
        let world = World::open();
        let mut stream = world.connect();
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut from, mut to) = tokio::io::split(stream);
        let dripping = async {
            loop {
                tokio::time::sleep(std::time::Duration::from_secs(7)).await;
                if head.starts_with("GET") && to.write_all(b"x").await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let closed = async {
            let mut all = Vec::new();
            while tokio::io::AsyncReadExt::read_buf(&mut from, &mut all)
                .await
                .is_ok_and(|n| n > 0)
            {}
        };
        let since = tokio::time::Instant::now();
        tokio::select! {
            () = closed => {}
            () = dripping => {}
            () = tokio::time::sleep(10 * PATIENCE) => panic!("still open: {head:?}"),
        }
        assert!(since.elapsed().as_secs() <= 61, "{head:?}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_connection_outside_with_it() {
    let mut world = World::open();
    let (port, listener) = trap().await;
    let mut stream = world.connect();
    let ask = format!("GET http://one.test:{port}/ HTTP/1.1\r\nhost: one.test:{port}\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.unwrap();
    let (mut outside, _) = listener.accept().await.unwrap();
    crate::world::read_until(&mut outside, "\r\n\r\n").await;
    drop(stream);
    assert_eq!(read_all(&mut outside).await, "");
    assert_eq!(world.next().await.port, port);
}

#[tokio::test]
async fn one_sandbox_has_so_many_connections_and_the_next_waits() {
    let world = World::open();
    let mut places = Vec::new();
    for _ in 0..model::limits::NETWORK_CONNECTIONS_MAX {
        places.push(world.way.place().await);
    }
    let waiting = world.way.clone();
    let mut next = tokio::spawn(async move { waiting.place().await });
    tokio::select! {
        biased;
        _ = &mut next => panic!("there was a place"),
        () = tokio::task::yield_now() => {}
    }
    // Another sandbox has its own.
    let other = world
        .proxy
        .way(crate::world::owner(), NetworkRules::all_or_nothing(false));
    drop(other.place().await);
    places.pop();
    drop(next.await.unwrap());
}

#[tokio::test]
async fn one_connection_too_many_of_all_is_told_so() {
    let mut world = World::open();
    let mut held = Vec::new();
    for _ in 0..64 {
        let mut stream = world.connect();
        // A byte, and then the proxy waits for the rest.
        stream.write_all(b"G").await.unwrap();
        held.push(stream);
        tokio::task::yield_now().await;
    }
    let answer = world.say("").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("x-proxy-error: too_many\r\n"), "{answer}");
    assert_eq!(world.next_code().await, "too_many");
    drop(held);
}

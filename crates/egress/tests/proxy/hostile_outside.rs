//! Servers outside that mean it ill.

use crate::world::{World, read_until, server, trap};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn an_answer_that_is_none_is_a_bad_gateway_and_the_client_lives_on() {
    let mut world = World::open();
    for answer in [
        String::new(),
        "\0\0\0\0".to_owned(),
        "220 smtp ready\r\n".to_owned(),
        "HTTP/1.1 2000 X\r\n\r\n".to_owned(),
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(1_000_000)),
        format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(1000)),
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_owned(),
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n".to_owned(),
    ] {
        let shown = answer[..answer.len().min(60)].to_owned();
        let (port, _seen) = server(answer).await;
        let mut stream = world.connect();
        let ask = format!("GET http://one.test:{port}/ HTTP/1.1\r\nhost: one.test:{port}\r\n\r\n");
        stream.write_all(ask.as_bytes()).await.unwrap();
        let got = read_until(&mut stream, "not HTTP/1.1\n").await;
        assert!(got.starts_with("HTTP/1.1 502"), "{shown:?}: {got}");
        assert!(
            got.contains("x-proxy-error: bad_answer"),
            "{shown:?}: {got}"
        );
        assert_eq!(world.next_code().await, "bad_answer");
        // The same connection serves the next request.
        stream
            .write_all(b"GET http://no.such/ HTTP/1.1\r\nhost: no.such\r\n\r\n")
            .await
            .unwrap();
        read_until(&mut stream, "x-proxy-error: unknown_name").await;
        assert_eq!(world.next_code().await, "unknown_name");
    }
}

#[tokio::test]
async fn endless_heads_are_cut_off() {
    let world = World::open();
    let (port, listener) = trap().await;
    let flooding = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
        let mut bytes = 0;
        while sent.is_ok() && bytes < (1 << 30) {
            sent = stream.write_all(&[b'x'; 16 * 1024]).await;
            bytes += 16 * 1024;
        }
        bytes
    });
    let answer = world.get(&format!("http://one.test:{port}/")).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert!(
        flooding.await.unwrap() < (64 << 20),
        "it was read on and on"
    );
}

#[tokio::test]
async fn a_body_shorter_than_it_says_ends_the_connection_of_the_client() {
    let world = World::open();
    let (port, _seen) = server("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await;
    let mut stream = world.connect();
    let ask = format!("GET http://one.test:{port}/ HTTP/1.1\r\nhost: one.test:{port}\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.unwrap();
    let answer = crate::world::read_all(&mut stream).await;
    assert!(
        answer.ends_with("\r\n\r\nabc") && answer.contains("content-length: 10"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_body_longer_than_it_says_is_cut_and_is_no_second_answer() {
    let world = World::open();
    let (port, _seen) = server(
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nx-forged: 1\r\n\r\n",
    )
    .await;
    let mut stream = world.connect();
    let ask = format!("GET http://one.test:{port}/ HTTP/1.1\r\nhost: one.test:{port}\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.unwrap();
    let first = read_until(&mut stream, "abc").await;
    stream
        .write_all(b"GET http://no.such/ HTTP/1.1\r\nhost: no.such\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let rest = crate::world::read_all(&mut stream).await;
    assert!(
        first.ends_with("\r\n\r\nabc") && rest.starts_with("HTTP/1.1 502"),
        "{first}{rest}"
    );
    assert!(!rest.contains("x-forged"), "{rest}");
}

#[tokio::test]
async fn an_answer_with_a_length_beside_chunks_loses_the_length() {
    let world = World::open();
    for order in [
        "content-length: 1\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 1\r\n",
    ] {
        let (port, _seen) = server(format!(
            "HTTP/1.1 200 OK\r\n{order}\r\n3\r\nabc\r\n0\r\n\r\n"
        ))
        .await;
        let answer = world.get(&format!("http://one.test:{port}/")).await;
        let answer = answer.to_ascii_lowercase();
        let refused = answer.starts_with("http/1.1 502");
        let passed = answer.contains("\r\nabc\r\n") && !answer.contains("content-length");
        assert!(refused || passed, "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outside_that_says_nothing_is_given_up() {
    let mut world = World::open();
    let (port, listener) = trap().await;
    let silent = tokio::spawn(async move { listener.accept().await });
    let mut stream = world.connect();
    let ask = format!("GET http://one.test:{port}/ HTTP/1.1\r\nhost: one.test:{port}\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.unwrap();
    // The clock runs ahead whenever nobody has anything to do.
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("later\n") {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
    }
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.contains("x-proxy-error: answer_timeout")
            || answer.contains("x-proxy-error: connect_timeout"),
        "{answer}"
    );
    let code = world.next_code().await;
    assert!(
        ["answer_timeout", "connect_timeout"].contains(&code),
        "{code}"
    );
    drop(silent);
}

//! What is allowed comes through as it was meant.

use crate::world::{World, open, read_all, read_until, server};
use egress::record::{Method, Verdict};
use model::network::NetworkRules;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn a_request_is_passed_on_without_what_is_for_the_proxy_and_recorded() {
    let mut world = World::open();
    let (port, mut seen) = server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-mine: 1\r\nx-proxy-error: forged\r\nkeep-alive: 5\r\n\r\nhi").await;
    let mut stream = world.connect();
    let request = format!(
        "GET http://one.test:{port}/a?b HTTP/1.1\r\nHost: ONE.test.:{port}\r\nProxy-Authorization: Basic x\r\n\
         Proxy-Connection: keep-alive\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nX-Kept: 1\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.ends_with("\r\n\r\nhi") && answer.contains("x-mine: 1"),
        "{answer}"
    );
    assert!(
        !answer.contains("x-proxy-error") && !answer.contains("keep-alive: 5"),
        "{answer}"
    );
    let asked = seen.recv().await.unwrap().to_ascii_lowercase();
    assert!(asked.starts_with("get /a?b http/1.1\r\n"), "{asked}");
    assert!(
        asked.contains(&format!("host: one.test:{port}\r\n")),
        "{asked}"
    );
    assert!(
        asked.contains("x-kept: 1") && !asked.contains("x-hop") && !asked.contains("proxy-"),
        "{asked}"
    );
    let record = world.next().await;
    assert_eq!(
        (record.method, record.verdict),
        (Method::Http, Verdict::Allowed)
    );
    assert_eq!(record.host.unwrap().to_string(), "one.test");
    assert_eq!((record.port, record.at_ms), (port, 7));
    assert_eq!(
        record.address.unwrap().to_string(),
        format!("127.0.0.1:{port}")
    );
    assert_eq!(record.bytes_out, asked.len() as u64);
    assert!(record.bytes_in > 50);
    assert_eq!(world.proxy.counts().allowed.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn bodies_stream_both_ways_by_length_and_in_chunks() {
    let world = World::open();
    let big = "x".repeat(300_000);
    let answer = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{big}\r\n0\r\n\r\n",
        big.len()
    );
    let (port, mut seen) = server(answer).await;
    let head = format!(
        "POST http://one.test:{port}/ HTTP/1.1\r\nhost: one.test:{port}\r\nconnection: close\r\n"
    );
    let mut stream = world.connect();
    let (mut from, mut to) = tokio::io::split(stream);
    let body = big.clone();
    let writing = tokio::spawn(async move {
        let length = format!("content-length: {}\r\n\r\n{body}", body.len());
        to.write_all((head + &length).as_bytes()).await.unwrap();
        to
    });
    let got = read_all(&mut from).await;
    drop(writing.await.unwrap());
    assert_eq!(got.matches('x').count(), big.len());
    assert_eq!(seen.recv().await.unwrap().matches('x').count(), big.len());
    // A body whose length is not known at first stays in chunks.
    stream = world.connect();
    let chunked = format!(
        "PUT http://one.test:{port}/ HTTP/1.1\r\nhost: one.test:{port}\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    );
    stream.write_all(chunked.as_bytes()).await.unwrap();
    assert!(read_all(&mut stream).await.starts_with("HTTP/1.1 200"));
    let asked = seen.recv().await.unwrap();
    assert!(
        asked.contains("transfer-encoding: chunked") && asked.ends_with("5\r\nhello\r\n0\r\n\r\n"),
        "{asked}"
    );
}

#[tokio::test]
async fn each_request_of_a_connection_is_judged_anew() {
    let mut world = World::new(&[], open());
    let (allowed, _seen) = server("HTTP/1.1 204 No Content\r\n\r\n").await;
    let exception = format!("127.0.0.1:{allowed}");
    world = World {
        records: world.records,
        ..World::new(&[&exception], open())
    };
    let mut stream = world.connect();
    for (port, expect) in [(allowed, "204"), (1, "403"), (allowed, "204"), (2, "403")] {
        let request =
            format!("GET http://127.0.0.1:{port}/ HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let end = if expect == "204" {
            "\r\n\r\n"
        } else {
            "--egress-allow ADDRESS[:PORT]`\n"
        };
        let answer = read_until(&mut stream, end).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expect}")),
            "{answer}"
        );
        let denied = answer.contains("x-proxy-error: address_loopback\r\n");
        assert_eq!(denied, expect == "403", "{answer}");
    }
}

async fn echo() -> u16 {
    let (port, listener) = crate::world::trap().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                drop(tokio::io::copy(&mut from, &mut to).await);
            });
        }
    });
    port
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways_and_is_recorded_at_its_end() {
    let mut world = World::open();
    let port = echo().await;
    let mut stream = world.connect();
    // The first bytes of the tunnel come with the head, as impatient clients send them.
    let head = format!("CONNECT one.test:{port} HTTP/1.1\r\nhost: one.test:{port}\r\n\r\nearly");
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "early").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    stream.write_all(b"late").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_all(&mut stream).await, "late");
    let record = world.next().await;
    assert_eq!(
        (record.method, record.verdict),
        (Method::Connect, Verdict::Allowed)
    );
    assert_eq!((record.bytes_out, record.bytes_in), (9, 9));
}

#[tokio::test]
async fn what_is_under_way_is_listed_with_its_bytes_until_it_is_over() {
    let mut world = World::open();
    let port = echo().await;
    let mut streams = Vec::new();
    for said in ["one", "seven77"] {
        let mut stream = world.connect();
        let head =
            format!("CONNECT one.test:{port} HTTP/1.1\r\nhost: one.test:{port}\r\n\r\n{said}");
        stream.write_all(head.as_bytes()).await.unwrap();
        read_until(&mut stream, said).await;
        streams.push(stream);
    }
    let _asks_nothing = world.connect();
    let (open, more) = world.proxy.under_way(|_| true, 10);
    let seen = |one: &egress::under_way::Connection| {
        let target = (one.host.to_string(), one.port);
        (target, one.is_allowed, one.bytes_out, one.bytes_in)
    };
    let target = ("one.test".to_owned(), port);
    assert_eq!(
        open.iter().map(seen).collect::<Vec<_>>(),
        [(target.clone(), true, 3, 3), (target, true, 7, 7)]
    );
    assert!(!more && open[0].rule.is_some() && open[0].address.is_some());
    let (oldest, more) = world.proxy.under_way(|_| true, 1);
    assert!(more && oldest.len() == 1 && oldest[0].bytes_out == 3);
    assert_eq!(world.proxy.under_way(|_| false, 10), (Vec::new(), false));
    drop(streams);
    world.next().await;
    world.next().await;
    assert_eq!(world.proxy.under_way(|_| true, 10), (Vec::new(), false));
}

#[tokio::test]
async fn socks_reaches_names_and_addresses() {
    let mut world = World::open();
    let port = echo().await;
    let [high, low] = port.to_be_bytes();
    let name = [
        &b"\x05\x01\x00\x05\x01\x00\x03\x08one.test"[..],
        &[high, low],
        b"echo",
    ]
    .concat();
    let address = [
        &b"\x05\x02\x02\x00\x05\x01\x00\x01\x7f\x00\x00\x01"[..],
        &[high, low],
        b"echo",
    ]
    .concat();
    for asked in [name, address] {
        let mut stream = world.connect();
        stream.write_all(&asked).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"\x05\x00\x05\x00\x00\x01\0\0\0\0\0\0echo");
        assert_eq!(world.next_code().await, "allowed");
    }
}

#[tokio::test]
async fn socks_says_why_not() {
    let mut world = World::open();
    for (asked, code, why) in [
        (
            &b"\x05\x01\x00\x05\x01\x00\x01\x0a\x00\x00\x01\x00\x50"[..],
            2,
            "address_private",
        ),
        (
            b"\x05\x01\x00\x05\x01\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x50",
            2,
            "address_loopback",
        ),
        (
            b"\x05\x01\x00\x05\x02\x00\x01\x0a\x00\x00\x01\x00\x50",
            7,
            "bad_command",
        ),
        (
            b"\x05\x01\x00\x05\x01\x00\x03\x07no\0.com\x00\x50",
            8,
            "bad_host",
        ),
        (
            b"\x05\x01\x00\x05\x01\x00\x03\x05no.no\x00\x50",
            4,
            "unknown_name",
        ),
        (
            b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x00",
            8,
            "bad_target",
        ),
        (b"\x05\x01\x00\x05\x01\x00\x09", 8, "bad_target"),
    ] {
        let mut stream = world.connect();
        stream.write_all(asked).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer.get(3), Some(&code), "{why}: {answer:?}");
        assert_eq!(world.next_code().await, why);
    }
    // Who insists on a password gets none.
    let mut stream = world.connect();
    stream.write_all(b"\x05\x01\x02").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"\x05\xff");
}

#[tokio::test]
async fn nothing_is_let_out_where_there_is_no_way_out() {
    let mut world = World::new(&["127.0.0.1"], NetworkRules::all_or_nothing(false));
    let (port, trap) = crate::world::trap().await;
    let answer = world.get(&format!("http://127.0.0.1:{port}/")).await;
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("x-proxy-error: no_egress"),
        "{answer}"
    );
    assert_eq!(world.next_code().await, "no_egress");
    assert!(crate::world::is_untouched(&trap).await);
}

/// Attack: a server that leaves the body of a GET unread takes it for another request, which nobody has judged.
#[tokio::test]
async fn a_server_is_told_that_nothing_follows_a_request() {
    let world = World::open();
    let (port, mut seen) = server("HTTP/1.1 204 No Content\r\n\r\n").await;
    let inner = "DELETE /admin HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut stream = world.connect();
    let request = format!(
        "GET http://one.test:{port}/ HTTP/1.1\r\nhost: one.test:{port}\r\nconnection: keep-alive\r\n\
         content-length: {}\r\n\r\n{inner}",
        inner.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    drop(stream);
    let asked = seen.recv().await.unwrap().to_ascii_lowercase();
    assert!(asked.contains("\r\nconnection: close\r\n"), "{asked}");
    assert!(!asked.contains("keep-alive"), "{asked}");
}

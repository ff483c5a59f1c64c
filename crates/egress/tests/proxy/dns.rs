//! Names of a sandbox are resolved by the servers that its rules name, as far as those may be asked at all.

use crate::world::{PATIENCE, World, open, server, trap};
use egress::resolve::Resolver;
use model::network::NetworkRules;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

/// How a server answers a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answers {
    /// `a.test` and `b.test`, which is an alias of it, are the loopback.
    Well,
    /// Over UDP it says that it has more to say.
    OverTcp,
    /// It cannot say.
    Fails,
    /// Answers that are none come first: with another number, and to another question, each with an address that would
    /// be taken.
    AfterForgeries,
}

/// A server of DNS; the names that it was asked for, and how, come out.
async fn dns(answers: Answers) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let (udp, tcp) = sockets().await;
    let at = udp.local_addr().expect("a port");
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let note = asked.clone();
    tokio::spawn(async move {
        let mut bytes = [0; 512];
        while let Ok((count, from)) = udp.recv_from(&mut bytes).await {
            let question = &bytes[..count];
            let line = format!("udp {}", name(question));
            note.lock().expect("a lock").push(line);
            if answers == Answers::AfterForgeries {
                let mut other = answer(question, [9, 9, 9, 9]);
                other[0] ^= 0x55;
                drop(udp.send_to(&other, from).await);
                let mut other = answer(question, [9, 9, 9, 9]);
                other[13] ^= 1;
                drop(udp.send_to(&other, from).await);
            }
            let mut said = answer(question, [127, 0, 0, 1]);
            match answers {
                Answers::OverTcp => said = [&said[..2], &[0x82, 0x80], &question[4..]].concat(),
                Answers::Fails => said = [&said[..2], &[0x80, 0x82], &question[4..]].concat(),
                Answers::Well | Answers::AfterForgeries => {}
            }
            drop(udp.send_to(&said, from).await);
        }
    });
    let note = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let Ok(length) = stream.read_u16().await else {
                continue;
            };
            let mut question = vec![0; usize::from(length)];
            drop(stream.read_exact(&mut question).await);
            let line = format!("tcp {}", name(&question));
            note.lock().expect("a lock").push(line);
            let said = answer(&question, [127, 0, 0, 1]);
            let length = u16::try_from(said.len()).expect("it fits");
            drop(stream.write_all(&length.to_be_bytes()).await);
            drop(stream.write_all(&said).await);
        }
    });
    (at, asked)
}

/// Both at one port.
async fn sockets() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let at = udp.local_addr().expect("a port");
        if let Ok(tcp) = TcpListener::bind(at).await {
            return (udp, tcp);
        }
    }
    unreachable!("no port is free for both")
}

/// The name in a question, and its type.
fn name(question: &[u8]) -> String {
    let (mut at, mut name) = (12, String::new());
    while question[at] > 0 {
        let end = at + 1 + usize::from(question[at]);
        name += &String::from_utf8_lossy(&question[at + 1..end]);
        name += ".";
        at = end;
    }
    name + &question[at + 2].to_string()
}

/// An answer: the address for A of `a.test`, an alias for `b.test`, nothing for AAAA, and for any other that there is no
/// such name.
fn answer(question: &[u8], address: [u8; 4]) -> Vec<u8> {
    let mut said = question.to_vec();
    said[2..4].copy_from_slice(&[0x81, 0x80]);
    let of = |pointer: u8| [&[0xc0, pointer, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4][..], &address].concat();
    match name(question).as_str() {
        "a.test.1" => {
            said[7] = 1;
            said.extend(of(12));
        }
        "b.test.1" => {
            said[7] = 2;
            // `a` and a pointer to `test` in the question.
            said.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 0, 0, 4, 1, b'a', 0xc0, 14]);
            let alias = u8::try_from(said.len() - 4).expect("a short message");
            said.extend(of(alias));
        }
        "a.test.28" | "b.test.28" => {}
        _ => said[3] = 0x83,
    }
    said
}

/// Nobody here asks the node's own resolver.
fn silent() -> Resolver {
    Resolver::with(|name| {
        Box::pin(async move { Err(io::Error::other(format!("{name} is asked of the node"))) })
    })
}

fn by(servers: &[SocketAddr]) -> NetworkRules {
    NetworkRules {
        dns: servers
            .iter()
            .map(|one| one.to_string().parse().expect("a server"))
            .collect(),
        ..open()
    }
}

#[tokio::test]
async fn names_are_asked_of_the_servers_that_the_rules_name_and_of_nobody_else() {
    let (port, _seen) = server(OK).await;
    for answers in [Answers::Well, Answers::OverTcp, Answers::AfterForgeries] {
        let (at, asked) = dns(answers).await;
        let world = World::with(&["127.0.0.1"], by(&[at]), silent());
        for name in ["a.test", "b.test"] {
            let answer = world.get(&format!("http://{name}:{port}/")).await;
            assert!(answer.ends_with("hi"), "{answers:?} {name}: {answer}");
        }
        let asked = asked.lock().unwrap().clone();
        let has = |what: &str| asked.iter().any(|one| one == what);
        assert!(has("udp a.test.1") && has("udp a.test.28"), "{asked:?}");
        assert_eq!(
            has("tcp a.test.1"),
            answers == Answers::OverTcp,
            "{asked:?}"
        );
        let answer = world.get(&format!("http://nobody.test:{port}/")).await;
        assert!(
            answer.contains("x-proxy-error: unknown_name\r\n"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn the_next_server_is_asked_where_one_cannot_say() {
    let (port, _seen) = server(OK).await;
    let (bad, asked) = dns(Answers::Fails).await;
    let (good, _) = dns(Answers::Well).await;
    let url = format!("http://a.test:{port}/");
    let world = World::with(&["127.0.0.1"], by(&[bad, good]), silent());
    assert!(world.get(&url).await.ends_with("hi"));
    assert!(!asked.lock().unwrap().is_empty());
    let world = World::with(&["127.0.0.1"], by(&[bad]), silent());
    let answer = world.get(&url).await;
    assert!(
        answer.contains("x-proxy-error: unknown_name\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_server_is_closed_as_every_address_is_and_a_name_that_is_not_allowed_is_not_asked_for() {
    let (port, _trapped) = trap().await;
    let (at, asked) = dns(Answers::Well).await;
    let url = format!("http://a.test:{port}/");
    // Its own port is not the one that the operator has opened.
    let only = format!("127.0.0.1:{port}");
    let mut world = World::with(&[&only], by(&[at]), silent());
    let answer = world.get(&url).await;
    assert!(
        answer.contains("x-proxy-error: address_loopback\r\n"),
        "{answer}"
    );
    let record = tokio::time::timeout(PATIENCE, world.next())
        .await
        .expect("a record");
    assert_eq!(record.rule, Some(format!("dns {at}")));
    let denied = NetworkRules {
        deny: vec!["a.test".parse().expect("an entry")],
        ..by(&[at])
    };
    let world = World::with(&["127.0.0.1"], denied, silent());
    let answer = world.get(&url).await;
    assert!(
        answer.contains("x-proxy-error: host_denied\r\n"),
        "{answer}"
    );
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_a_server_says_is_checked_as_any_address_is() {
    let (port, _trapped) = trap().await;
    let (at, _asked) = dns(Answers::Well).await;
    let server = at.to_string();
    let world = World::with(&[&server], by(&[at]), silent());
    let answer = world.get(&format!("http://a.test:{port}/")).await;
    assert!(
        answer.contains("x-proxy-error: address_loopback\r\n"),
        "{answer}"
    );
}

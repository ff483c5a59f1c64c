//! What a guest asks for programs that know no proxy.

use crate::world::{PATIENCE, World, is_untouched, lists, open, read_all, server, trap};
use bytes::Bytes;
use egress::direct::{BOTH, CONNECT, DATAGRAM, DENIED, FAILED, NAME, OTHER, RESOLVE, UNKNOWN, YES};
use egress::record::{ANSWERS_MAX, Verdict};
use egress::resolve::Resolver;
use model::network::{NetworkMode, NetworkRules};
use std::net::IpAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

pub(crate) fn connect(world: &World) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let way = world.way.clone();
    tokio::spawn(async move {
        let place = way.place().await;
        way.clone()
            .serve_direct(place, (Bytes::new(), theirs))
            .await;
    });
    ours
}

pub(crate) fn question(kind: u8, port: u16, host: &[u8]) -> Vec<u8> {
    let length = u8::try_from(host.len()).expect("a short host");
    [&[kind], &port.to_be_bytes()[..], &[length], host].concat()
}

/// What is answered, if anything, and the stream after it.
async fn ask(world: &World, question: &[u8]) -> (Option<u8>, DuplexStream) {
    let mut stream = connect(world);
    stream.write_all(question).await.expect("room");
    let answer = tokio::time::timeout(PATIENCE, stream.read_u8()).await;
    (answer.expect("an answer in time").ok(), stream)
}

#[tokio::test]
async fn a_connection_is_carried_after_the_answer() {
    let mut world = World::open();
    let (port, _seen) =
        server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi").await;
    for host in ["a.test", "127.0.0.1", "A.TEST."] {
        let (answer, mut stream) = ask(&world, &question(CONNECT, port, host.as_bytes())).await;
        assert_eq!(answer, Some(YES), "{host}");
        stream
            .write_all(format!("GET / HTTP/1.1\r\nhost: {host}:{port}\r\n\r\n").as_bytes())
            .await
            .expect("room");
        assert!(read_all(&mut stream).await.ends_with("hi"));
        drop(stream);
        let record = world.next().await;
        assert_eq!((record.method.as_str(), record.port), ("direct", port));
        assert!(record.bytes_in > 2 && record.bytes_out > 2, "{record:?}");
    }
}

#[tokio::test]
async fn what_is_denied_unknown_or_not_there_is_said_apart_and_recorded() {
    let (port, trap) = trap().await;
    let closed = Resolver::with(|name| {
        Box::pin(async move {
            match &*name {
                "gone.example" => Err(std::io::ErrorKind::NotFound.into()),
                "empty.example" => Ok(vec![]),
                _ => Ok(vec![IpAddr::from([127, 0, 0, 1])]),
            }
        })
    });
    let mut world = World::with(&["127.0.0.1:1"], open(), closed);
    for (kind, at, host, answer, code) in [
        (CONNECT, port, &b"a.example"[..], DENIED, "address_loopback"),
        (CONNECT, port, b"127.0.0.1", DENIED, "address_loopback"),
        (
            CONNECT,
            port,
            b"[::ffff:127.0.0.1]",
            DENIED,
            "address_loopback",
        ),
        (CONNECT, 80, b"169.254.169.254", DENIED, "address_metadata"),
        (CONNECT, 1, b"a.example", FAILED, "unreachable"),
        (CONNECT, 0, b"a.example", FAILED, "bad_target"),
        (CONNECT, port, b"gone.example", UNKNOWN, "unknown_name"),
        (CONNECT, port, b"2130706433", UNKNOWN, "odd_address"),
        (CONNECT, port, b"a.example\0.b", UNKNOWN, "bad_host"),
        (CONNECT, port, b"", UNKNOWN, "bad_host"),
        (RESOLVE, 0, b"gone.example", UNKNOWN, "unknown_name"),
        (RESOLVE, 0, b"empty.example", UNKNOWN, "unknown_name"),
        (RESOLVE, 7, b"a.example", FAILED, "bad_target"),
        // Which of its addresses may be dialled is decided when somebody connects.
        (RESOLVE, 0, b"a.example", YES, "allowed"),
    ] {
        let (said, _) = ask(&world, &question(kind, at, host)).await;
        assert_eq!(
            (said, world.next_code().await),
            (Some(answer), code),
            "{host:?}"
        );
    }
    assert!(is_untouched(&trap).await);
}

#[tokio::test]
async fn without_a_way_out_no_name_is_asked_for() {
    let asked = Resolver::with(|name| panic!("{name} was asked for"));
    let mut world = World::with(&[], NetworkRules::default(), asked);
    for (kind, port) in [(CONNECT, 443), (RESOLVE, 0)] {
        let (said, _) = ask(&world, &question(kind, port, b"a.example")).await;
        assert_eq!((said, world.next_code().await), (Some(DENIED), "no_egress"));
    }
}

#[tokio::test]
async fn what_is_no_question_gets_no_answer() {
    let mut world = World::open();
    let pieces: [&[u8]; 6] = [
        &[0, 0, 80, 1, b'a'],
        &[9, 0, 80, 0],
        b"GET / HTTP/1.1\r\n\r\n",
        &[5, 1, 0],
        &[1, 0],
        &[1, 0, 80, 1, 0xff],
    ];
    for bytes in pieces {
        let mut stream = connect(&world);
        stream.write_all(bytes).await.expect("room");
        stream.shutdown().await.expect("an end");
        assert_eq!(read_all(&mut stream).await, "", "{bytes:?}");
        assert_eq!(world.next_code().await, "bad_target");
    }
}

#[tokio::test]
async fn data_in_names_and_too_many_names_are_refused_on_every_way() {
    let mut world = World::open();
    let data = format!("{0}.{0}1.test", "abcdefghijklmnopqrstuvwxyz23456789");
    let (said, _) = ask(&world, &question(RESOLVE, 0, data.as_bytes())).await;
    assert_eq!(
        (said, world.next_code().await),
        (Some(DENIED), "name_carries_data")
    );
    let answer = world.get(&format!("http://{data}/")).await;
    assert!(
        answer.contains("x-proxy-error: name_carries_data"),
        "{answer}"
    );
    world.next().await;
    for n in 0..300 {
        let (said, _) = ask(
            &world,
            &question(RESOLVE, 0, format!("{n}.test").as_bytes()),
        )
        .await;
        assert_eq!(said, Some(YES), "{n}");
        world.next().await;
    }
    let (said, _) = ask(&world, &question(RESOLVE, 0, b"more.test")).await;
    assert_eq!(
        (said, world.next_code().await),
        (Some(FAILED), "too_many_names")
    );
    let answer = world.get("http://more.test/").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    // A name that is known goes on, and an address is no name.
    let (said, _) = ask(&world, &question(RESOLVE, 0, b"7.test")).await;
    assert_eq!(said, Some(YES));
}

#[tokio::test]
async fn the_rules_hold_without_a_proxy_too_and_a_name_of_which_no_port_is_allowed_is_not_resolved()
{
    let (port, _seen) = server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
    let resolver = Resolver::with(|name| {
        assert!(name.ends_with("a.test"), "{name} was asked for");
        Box::pin(async { Ok(vec![IpAddr::from([127, 0, 0, 1])]) })
    });
    let allow = format!("a.test:{port}");
    let rules = lists(
        NetworkMode::Allowlist,
        &[&allow, "*.a.test"],
        &["no.a.test", "half.a.test:443"],
    );
    let mut world = World::with(&["127.0.0.1"], rules, resolver);
    for (kind, at, host, answer, code) in [
        (RESOLVE, 0, "a.test", YES, "allowed"),
        (RESOLVE, 0, "half.a.test", YES, "allowed"),
        (RESOLVE, 0, "no.a.test", DENIED, "host_denied"),
        (RESOLVE, 0, "b.test", DENIED, "host_not_allowed"),
        (CONNECT, 443, "a.test", DENIED, "host_not_allowed"),
        (CONNECT, 443, "half.a.test", DENIED, "host_denied"),
        (CONNECT, port, "127.0.0.1", DENIED, "host_not_allowed"),
    ] {
        let (said, _) = ask(&world, &question(kind, at, host.as_bytes())).await;
        let record = world.next_code().await;
        assert_eq!((said, record), (Some(answer), code), "{host} {at}");
    }
    let (said, stream) = ask(&world, &question(CONNECT, port, b"a.test")).await;
    assert_eq!(said, Some(YES));
    // What is under way ends with the rules that let it out.
    world
        .way
        .set_rules(lists(NetworkMode::Allowlist, &["b.test"], &[]));
    assert_eq!(world.next_code().await, "host_not_allowed");
    drop(stream);
}

#[tokio::test]
async fn a_connection_whose_first_bytes_name_another_host_is_cut() {
    let mut world = World::open();
    let (port, mut seen) = server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
    let (said, mut stream) = ask(&world, &question(CONNECT, port, b"a.test")).await;
    assert_eq!(said, Some(YES));
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: other.test\r\n\r\n")
        .await
        .expect("room");
    assert_eq!(read_all(&mut stream).await, "");
    assert_eq!(world.next_code().await, "host_mismatch");
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn an_address_of_ipv6_is_told_of_only_where_it_could_be_dialled() {
    let six = Resolver::with(|name| {
        let address = match &*name {
            "open.test" => "::1",
            "public.test" => "2606:4700::1111",
            "private.test" => "fd00::1",
            "mapped.test" => "::ffff:9.9.9.9",
            "nat64.test" => "64:ff9b::909:909",
            "sixtofour.test" => "2002:909:909::1",
            "metadata.test" => "fd00:ec2::254",
            _ => "9.9.9.9",
        };
        Box::pin(async move { Ok(vec![address.parse().expect("an address")]) })
    });
    let mut world = World::with(&["[::1]:7", "fd00:ec2::/32"], open(), six);
    for (name, answer) in [
        ("open.test", BOTH),
        ("public.test", BOTH),
        ("private.test", YES),
        ("mapped.test", YES),
        ("nat64.test", YES),
        ("sixtofour.test", YES),
        ("metadata.test", YES),
        ("four.test", YES),
    ] {
        let (said, _) = ask(&world, &question(NAME, 0, name.as_bytes())).await;
        assert_eq!(
            (said, world.next_code().await),
            (Some(answer), "allowed"),
            "{name}"
        );
        // Guests of older builds know of no such answer.
        let (said, _) = ask(&world, &question(RESOLVE, 0, name.as_bytes())).await;
        assert_eq!(
            (said, world.next_code().await),
            (Some(YES), "allowed"),
            "{name}"
        );
    }
}

#[tokio::test]
async fn the_addresses_of_a_name_that_could_be_dialled_are_on_record_and_only_the_record_has_them()
{
    let outside = Resolver::with(|name| {
        let addresses: Vec<IpAddr> = match &*name {
            "some.test" => ["9.9.9.9", "10.0.0.1", "2606:4700::1111", "fd00::1"]
                .iter()
                .map(|one| one.parse().expect("an address"))
                .collect(),
            "many.test" => (0..20).map(|n| IpAddr::from([9, 9, 9, n])).collect(),
            "inside.test" => vec![IpAddr::from([127, 0, 0, 1])],
            _ => vec![],
        };
        Box::pin(async move { Ok(addresses) })
    });
    let mut world = World::with(&[], open(), outside);
    for (name, said, listed, unlisted, ttl_s) in [
        (
            "some.test",
            BOTH,
            vec!["9.9.9.9", "2606:4700::1111"],
            2,
            Some(60),
        ),
        ("inside.test", YES, vec![], 1, Some(60)),
        ("gone.test", UNKNOWN, vec![], 0, None),
    ] {
        let (answer, mut rest) = ask(&world, &question(NAME, 0, name.as_bytes())).await;
        assert_eq!(answer, Some(said), "{name}");
        assert_eq!(
            read_all(&mut rest).await,
            "",
            "one byte is all that a guest is told"
        );
        let record = world.next().await;
        let answers: Vec<String> = record.answers.iter().map(ToString::to_string).collect();
        assert_eq!(answers, listed, "{name}");
        let rest = (record.answers_unlisted, record.ttl_s, record.address);
        assert_eq!(rest, (unlisted, ttl_s, None), "{name}");
    }
    let (answer, _) = ask(&world, &question(NAME, 0, b"many.test")).await;
    assert_eq!(answer, Some(YES));
    let record = world.next().await;
    let count = (record.answers.len(), record.answers_unlisted);
    assert_eq!(count, (ANSWERS_MAX, 4));
    // What connects has the address that was dialled, and no list.
    let (answer, _) = ask(&world, &question(CONNECT, 443, b"inside.test")).await;
    assert_eq!(answer, Some(DENIED));
    let record = world.next().await;
    assert_eq!((record.answers, record.ttl_s), (vec![], None));
}

#[tokio::test]
async fn addresses_of_ipv6_are_judged_as_those_of_ipv4() {
    let mut world = World::open();
    for (host, code) in [
        ("[::]", "address_unspecified"),
        ("[::1]", "address_loopback"),
        ("[::ffff:10.0.0.1]", "address_private"),
        ("[::ffff:169.254.169.254]", "address_metadata"),
        ("[::a00:1]", "address_translated"),
        ("[64:ff9b::a00:1]", "address_translated"),
        ("[2002:a00:1::1]", "address_translated"),
        ("[2001:0:a00:1::1]", "address_translated"),
        ("[fc00::1]", "address_private"),
        ("[fdb3:5e1d:9a47:1::c612:101]", "address_private"),
        ("[fe80::1]", "address_link_local"),
        ("[ff02::1]", "address_multicast"),
        ("[2001:db8::1]", "address_documentation"),
        ("[4000::1]", "address_reserved"),
    ] {
        let (said, _) = ask(&world, &question(CONNECT, 443, host.as_bytes())).await;
        assert_eq!(
            (said, world.next_code().await),
            (Some(DENIED), code),
            "{host}"
        );
    }
    for host in ["[fe80::1%eth0]", "fe80::1", "[::1", "[]"] {
        let (said, _) = ask(&world, &question(CONNECT, 443, host.as_bytes())).await;
        assert_eq!(
            (said, world.next_code().await),
            (Some(UNKNOWN), "bad_host"),
            "{host}"
        );
    }
}

#[tokio::test]
async fn what_a_guest_did_not_carry_is_denied_and_on_record_and_nobody_is_asked() {
    let asked = Resolver::with(|name| panic!("{name} was asked for"));
    let mut world = World::with(&[], open(), asked);
    for (kind, port, host, method) in [
        (DATAGRAM, 443, "9.9.9.9", "udp"),
        (DATAGRAM, 443, "a.test", "udp"),
        (DATAGRAM, 0, "[2606:4700::1111]", "udp"),
        (OTHER, 0, "9.9.9.9", "icmp"),
    ] {
        let (said, _) = ask(&world, &question(kind, port, host.as_bytes())).await;
        assert_eq!(said, Some(DENIED));
        let record = world.next().await;
        let to = record.host.as_ref().map(ToString::to_string);
        assert_eq!(to.as_deref(), Some(host));
        assert_eq!((record.method.as_str(), record.port), (method, port));
        assert!(
            matches!(record.verdict, Verdict::Denied(reason) if reason.code() == "not_carried"),
            "{record:?}"
        );
    }
}

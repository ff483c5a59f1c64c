//! Rules at work: what they deny is told, what they do not allow any more ends, and a tunnel is for whom it says.

use crate::world::{World, is_untouched, lists, open, read_all, read_until, server, trap};
use egress::record::Verdict;
use model::network::{NetworkCaps, NetworkMode, NetworkRules};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpListener;

const LOOPBACK: &[&str] = &["127.0.0.1"];

/// The shortest greeting that names a host, RFC 8446 section 4.1.2.
fn hello(name: Option<&str>) -> Vec<u8> {
    hello_with(name, &[])
}

/// The same with Encrypted Client Hello behind the name, RFC 9849 section 5.
fn sealed(name: Option<&str>) -> Vec<u8> {
    hello_with(name, &[0xfe, 0x0d, 0, 10, 0, 0, 1, 0, 1, 7, 0, 0, 0, 0])
}

fn hello_with(name: Option<&str>, more: &[u8]) -> Vec<u8> {
    let list = |width: usize, bytes: &[u8]| {
        let len = bytes.len().to_be_bytes();
        [&len[len.len() - width..], bytes].concat()
    };
    let names = name.map(|name| list(2, &[&[0][..], &list(2, name.as_bytes())].concat()));
    let extension = names.map(|names| [&[0, 0][..], &list(2, &names)].concat());
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[0],
        &list(2, &[0x13, 1]),
        &[1, 0],
        &list(2, &[&extension.unwrap_or_default()[..], more].concat()),
    ]
    .concat();
    let message = [&[1][..], &list(3, &body)].concat();
    [&[22, 3, 1][..], &list(2, &message)].concat()
}

/// A server that sends back what it gets.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("the loopback works");
    let port = listener.local_addr().expect("an address").port();
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

async fn tunnel(world: &World, target: &str) -> (DuplexStream, String) {
    let mut stream = world.connect();
    let head = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n");
    stream
        .write_all(head.as_bytes())
        .await
        .expect("the loopback works");
    let answer = read_until(&mut stream, "\r\n\r\n").await;
    (stream, answer)
}

#[tokio::test]
async fn a_denial_names_its_rule_and_says_how_to_ask() {
    let rules = lists(NetworkMode::Allowlist, &["one.test"], &["two.test"]);
    let mut world = World::new(LOOPBACK, rules);
    let (port, _seen) = server("HTTP/1.1 204 No Content\r\n\r\n").await;
    let answer = world.get(&format!("http://one.test:{port}/")).await;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    assert_eq!(
        world.next().await.rule.as_deref(),
        Some("allow one.test, operator 127.0.0.1")
    );
    for (host, code, rule) in [
        ("three.test", "host_not_allowed", "mode allowlist"),
        ("two.test", "host_denied", "deny two.test"),
        ("127.0.0.1", "host_not_allowed", "mode allowlist"),
    ] {
        let answer = world.get(&format!("http://{host}:{port}/")).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        assert!(
            answer.contains(&format!("x-proxy-error: {code}\r\n")),
            "{answer}"
        );
        assert!(
            answer.contains(&format!("\nrule: {rule}\nhint: ")),
            "{answer}"
        );
        let record = world.next().await;
        assert_eq!((record.rule.as_deref(), record.address), (Some(rule), None));
        assert!(matches!(record.verdict, Verdict::Denied(_)));
    }
    let (_, answer) = tunnel(&world, &format!("three.test:{port}")).await;
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("host_not_allowed"),
        "{answer}"
    );
    // SOCKS5 by name: `connection not allowed by ruleset`.
    let mut stream = world.connect();
    let ask = [
        &[5, 1, 0, 5, 1, 0, 3, 10][..],
        b"three.test",
        &port.to_be_bytes(),
    ]
    .concat();
    stream.write_all(&ask).await.unwrap();
    let mut said = [0; 12];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(said[..4], [5, 0, 5, 2]);
}

#[tokio::test]
async fn read_only_gets_and_does_not_put() {
    let rules = lists(NetworkMode::ReadOnly, &[], &[]);
    let world = World::new(LOOPBACK, rules);
    let (port, _seen) = server("HTTP/1.1 204 No Content\r\n\r\n").await;
    let say = async |method: &str, more: &str| {
        let text = format!(
            "{method} http://one.test:{port}/ HTTP/1.1\r\nhost: one.test:{port}\r\n{more}\r\n"
        );
        world.say(text).await
    };
    assert!(say("GET", "").await.starts_with("HTTP/1.1 204"));
    assert!(say("HEAD", "").await.starts_with("HTTP/1.1 204"));
    for (method, more) in [
        ("POST", "content-length: 1\r\n"),
        ("DELETE", ""),
        ("GET", "transfer-encoding: chunked\r\n"),
    ] {
        let answer = say(method, more).await;
        assert!(
            answer.contains("x-proxy-error: read_only_method"),
            "{method}: {answer}"
        );
    }
    let (_, answer) = tunnel(&world, &format!("one.test:{port}")).await;
    assert!(
        answer.contains("x-proxy-error: read_only_tunnel"),
        "{answer}"
    );
}

/// A greeting behind a warning, `unrecognized_name` (RFC 6066 section 3).
fn warned(greeting: &[u8]) -> Vec<u8> {
    [&[21, 3, 1, 0, 2, 1, 112], greeting].concat()
}

#[tokio::test]
async fn a_tunnel_is_for_the_host_that_its_greeting_names() {
    let port = echo().await;
    let rules = lists(
        NetworkMode::Allowlist,
        &["one.test", "127.0.0.1"],
        &["*.evil.test"],
    );
    let mut world = World::new(LOOPBACK, rules);
    let one = format!("one.test:{port}");
    let address = format!("127.0.0.1:{port}");
    let front = "GET / HTTP/1.1\r\nhost: two.test\r\n\r\n"
        .as_bytes()
        .to_vec();
    let fits = "GET / HTTP/1.1\r\nhost: one.test:99\r\n\r\n"
        .as_bytes()
        .to_vec();
    for (target, first, expect) in [
        (&one, hello(Some("one.test")), "allowed"),
        (&one, hello(Some("ONE.test")), "allowed"),
        (&one, hello(Some("two.test")), "sni_mismatch"),
        (&one, hello(None), "sni_missing"),
        (&one, b"SSH-2.0-x\r\n".to_vec(), "allowed"),
        (&one, fits, "allowed"),
        (&one, front, "host_mismatch"),
        (&one, [22, 9, 9, 9, 9, 9].to_vec(), "bad_greeting"),
        (&one, warned(&hello(Some("two.test"))), "bad_greeting"),
        (
            &address,
            warned(&hello(Some("x.evil.test"))),
            "bad_greeting",
        ),
        (&address, hello(None), "allowed"),
        (&address, hello(Some("two.test")), "allowed"),
        (&address, hello(Some("x.evil.test")), "host_denied"),
        (&one, sealed(Some("one.test")), "ech"),
        (&one, sealed(Some("two.test")), "sni_mismatch"),
        (&one, sealed(None), "sni_missing"),
        // Behind it could stand the one that is denied.
        (&address, sealed(Some("two.test")), "ech"),
    ] {
        let (mut stream, answer) = tunnel(&world, target).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        // In pieces, as hostile clients send it.
        for piece in first.chunks(5) {
            drop(stream.write_all(piece).await);
        }
        if expect == "allowed" {
            let mut back = vec![0; first.len()];
            stream.read_exact(&mut back).await.unwrap();
            assert_eq!(back, first);
        } else {
            let said = read_all(&mut stream).await;
            assert!(
                // What may be heard is its first line, before that has ended, and the alert.
                !said.contains("two.test") && said.len() <= 14 + 7,
                "{expect}: {said:?}"
            );
        }
        drop(stream);
        assert_eq!(world.next_code().await, expect, "{target}");
    }
}

/// Attack: the name in TLS is that of the tunnel, and behind it Encrypted Client Hello has another one.
#[tokio::test]
async fn a_greeting_that_may_hide_a_name_passes_only_where_no_name_is_kept_in() {
    let port = echo().await;
    let one = format!("one.test:{port}");
    let address = format!("127.0.0.1:{port}");
    for (rules, target, expect) in [
        (open(), &one, "allowed"),
        (lists(NetworkMode::Allowlist, &["*"], &[]), &one, "allowed"),
        (
            lists(NetworkMode::Allowlist, &["one.test", "127.0.0.1"], &[]),
            &address,
            "allowed",
        ),
        (lists(NetworkMode::Allowlist, &["*.test"], &[]), &one, "ech"),
        (
            lists(NetworkMode::Unrestricted, &[], &["two.test"]),
            &one,
            "ech",
        ),
    ] {
        let mut world = World::new(LOOPBACK, rules);
        let (mut stream, _) = tunnel(&world, target).await;
        let first = sealed(Some("one.test"));
        stream.write_all(&first).await.unwrap();
        let mut back = vec![0; if expect == "ech" { 7 } else { first.len() }];
        stream.read_exact(&mut back).await.unwrap();
        if expect == "ech" {
            assert_eq!(back, [21, 3, 3, 0, 2, 2, 49]);
            assert_eq!(read_all(&mut stream).await, "");
        } else {
            assert_eq!(back, first);
        }
        drop(stream);
        assert_eq!(world.next_code().await, expect, "{target}");
    }
}

/// Rules of now are for what was greeted before, too.
#[tokio::test]
async fn a_tunnel_whose_greeting_may_hide_a_name_is_cut_when_names_are_kept_in() {
    let port = echo().await;
    let mut world = World::open();
    let (mut hiding, _) = tunnel(&world, &format!("one.test:{port}")).await;
    let (mut plain, _) = tunnel(&world, &format!("one.test:{port}")).await;
    for (stream, first) in [
        (&mut hiding, sealed(Some("one.test"))),
        (&mut plain, hello(Some("one.test"))),
    ] {
        stream.write_all(&first).await.unwrap();
        let mut back = vec![0; first.len()];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(back, first);
    }
    let deny = lists(NetworkMode::Unrestricted, &[], &["two.test"]);
    world.way.set_rules(deny);
    assert_eq!(read_all(&mut hiding).await, "");
    assert_eq!(world.next_code().await, "ech");
    plain.write_all(b"on").await.unwrap();
    assert_eq!(read_until(&mut plain, "on").await, "on");
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let world = World::open();
    let (mut stream, _) = tunnel(&world, &format!("one.test:{port}")).await;
    let (mut outside, _) = listener.accept().await.unwrap();
    outside.write_all(b"220 hello\r\n").await.unwrap();
    assert_eq!(read_until(&mut stream, "\r\n").await, "220 hello\r\n");
    stream.write_all(b"EHLO x\r\n").await.unwrap();
    assert_eq!(read_until(&mut outside, "\r\n").await, "EHLO x\r\n");
}

/// In a protocol of words without lines the other side answers before more is said. Whoever makes a request of
/// such a word afterwards is judged by it.
#[tokio::test]
async fn a_word_is_passed_on_before_its_line_ends_and_the_request_that_it_becomes_is_judged() {
    let port = echo().await;
    let mut world = World::open();
    for (rest, expect) in [
        (&b"\0\0 and so on"[..], "allowed"),
        (b" / HTTP/1.1\r\nhost: two.test\r\n\r\n", "host_mismatch"),
    ] {
        let (mut stream, _) = tunnel(&world, &format!("one.test:{port}")).await;
        stream.write_all(b"get").await.unwrap();
        assert_eq!(read_until(&mut stream, "get").await, "get");
        stream.write_all(rest).await.unwrap();
        if expect == "allowed" {
            assert_eq!(read_until(&mut stream, "so on").await.as_bytes(), rest);
        } else {
            assert!(!read_all(&mut stream).await.contains("two.test"));
        }
        drop(stream);
        assert_eq!(world.next_code().await, expect);
    }
}

/// A server may be content with half a request. What nobody could judge is not passed on because its client has
/// gone.
#[tokio::test]
async fn half_of_a_greeting_is_not_passed_on_when_its_client_has_ended() {
    let mut world = World::open();
    for half in [
        &b"GET /secret HTTP/1.1\r\nx-what: "[..],
        &hello(Some("one.test"))[..30],
    ] {
        let (port, outside) = trap().await;
        let (mut stream, _) = tunnel(&world, &format!("one.test:{port}")).await;
        let (mut outside, _) = outside.accept().await.unwrap();
        stream.write_all(half).await.unwrap();
        stream.shutdown().await.unwrap();
        assert!(!read_all(&mut outside).await.contains('\n'));
        assert_eq!(world.next_code().await, "bad_greeting");
    }
}

#[tokio::test]
async fn new_rules_judge_what_comes_and_cut_what_they_do_not_allow_any_more() {
    let port = echo().await;
    let mut world = World::new(LOOPBACK, open());
    let (mut one, _) = tunnel(&world, &format!("one.test:{port}")).await;
    let (mut two, _) = tunnel(&world, &format!("two.test:{port}")).await;
    for stream in [&mut one, &mut two] {
        stream.write_all(b"ping").await.unwrap();
        assert_eq!(read_until(stream, "ping").await, "ping");
    }
    world
        .way
        .set_rules(lists(NetworkMode::Unrestricted, &[], &["two.test"]));
    assert_eq!(read_all(&mut two).await, "");
    let record = world.next().await;
    assert_eq!(
        (record.rule.as_deref(), record.bytes_out),
        (Some("deny two.test"), 4)
    );
    assert!(matches!(record.verdict, Verdict::Denied(reason) if reason.code() == "host_denied"));
    one.write_all(b"pong").await.unwrap();
    assert_eq!(read_until(&mut one, "pong").await, "pong");
    let (_, answer) = tunnel(&world, &format!("two.test:{port}")).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    // By the address that was dialled, too.
    world
        .way
        .set_rules(lists(NetworkMode::Unrestricted, &[], &["127.0.0.0/8"]));
    assert_eq!(read_all(&mut one).await, "");
    world.way.set_rules(open());
    let (_, answer) = tunnel(&world, &format!("two.test:{port}")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_request_that_waits_for_its_answer_is_cut_too() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut world = World::new(LOOPBACK, open());
    let mut stream = world.connect();
    let head = format!("GET http://one.test:{port}/ HTTP/1.1\r\nhost: one.test:{port}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut outside, _) = listener.accept().await.unwrap();
    read_until(&mut outside, "\r\n\r\n").await;
    world.way.set_rules(NetworkRules::all_or_nothing(false));
    let answer = read_until(&mut stream, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
    assert_eq!(world.next_code().await, "no_egress");
    assert_eq!(read_all(&mut outside).await, "");
}

#[tokio::test]
async fn caps_bound_bytes_requests_and_connections() {
    let port = echo().await;
    let capped = |caps| NetworkRules { caps, ..open() };
    let bytes = NetworkCaps {
        bytes: Some(1000),
        ..NetworkCaps::default()
    };
    let mut world = World::new(LOOPBACK, capped(bytes));
    let (mut stream, _) = tunnel(&world, &format!("one.test:{port}")).await;
    drop(stream.write_all(&[b'x'; 100_000]).await);
    drop(read_all(&mut stream).await);
    drop(stream);
    assert_eq!(world.next_code().await, "byte_limit");
    let (_, answer) = tunnel(&world, &format!("one.test:{port}")).await;
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("byte_limit"),
        "{answer}"
    );

    // What passed by an earlier process is not had again.
    let again = World::new(LOOPBACK, capped(bytes));
    again.way.go_on_from(world.way.passed());
    let (_, answer) = tunnel(&again, &format!("one.test:{port}")).await;
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("byte_limit"),
        "{answer}"
    );

    let pace = NetworkCaps {
        per_minute: Some(2),
        ..NetworkCaps::default()
    };
    let world = World::new(LOOPBACK, capped(pace));
    for expect in ["200", "200", "429"] {
        let (_, answer) = tunnel(&world, &format!("one.test:{port}")).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expect}")),
            "{answer}"
        );
    }

    let few = NetworkCaps {
        connections: Some(1),
        ..NetworkCaps::default()
    };
    let world = World::new(LOOPBACK, capped(few));
    let held = world.way.place().await;
    let waiting = world.way.place();
    tokio::pin!(waiting);
    assert!(futures_poll(&mut waiting).is_none());
    drop(held);
    waiting.await;
}

/// What a future gives at its first poll.
fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test]
async fn a_name_that_is_not_allowed_is_not_even_resolved() {
    let (port, trap) = trap().await;
    let resolver = egress::resolve::Resolver::with(|name| {
        Box::pin(async move { panic!("somebody asked for {name}") })
    });
    let rules = lists(NetworkMode::Allowlist, &["one.test", "127.0.0.1"], &[]);
    let world = World::with(LOOPBACK, rules, resolver);
    let answer = world
        .get(&format!("http://secret-as-a-label.test:{port}/"))
        .await;
    assert!(answer.contains("host_not_allowed"), "{answer}");
    assert!(is_untouched(&trap).await);
}

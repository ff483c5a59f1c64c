//! What clients may speak to a host that is looked into: HTTP/1.1, whatever else their greeting offers.

use crate::inspect::{GET, Looked, OK, Outside};

/// Attack: a WebSocket to a host that is looked into, in which nobody would judge what is said.
#[tokio::test]
async fn a_web_socket_does_not_pass_to_a_host_that_is_looked_into() {
    let outside = Outside::new();
    let switches =
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
    let asks = "GET /v1/x HTTP/1.1\r\nhost: HOST\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\
                sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    for (answer, expected, code) in [
        (OK, "HTTP/1.1 200 OK\r\n", "allowed"),
        // Of a host that switches although nobody asked it to.
        (switches, "x-proxy-error: bad_answer\r\n", "bad_answer"),
    ] {
        let (port, mut seen) = outside.server("api.test", answer).await;
        let mut looked = Looked::new(&outside, port);
        let tunnel = looked.tunnel().await;
        let told = looked.ask(tunnel, "api.test", asks).await;
        assert!(
            told.contains(expected) && !told.contains("HTTP/1.1 101"),
            "{told}"
        );
        let asked = seen.recv().await.expect("a request");
        let asked = asked.to_lowercase();
        assert!(!asked.contains("upgrade"), "{asked}");
        assert!(asked.contains("\r\nconnection: close\r\n"), "{asked}");
        assert_eq!(looked.world.next_code().await, code);
    }
}

/// Attack: HTTP/2 to a host that is looked into, by agreement and without, for whoever judges HTTP/1.1.
#[tokio::test]
async fn http_2_does_not_pass_to_a_host_that_is_looked_into() {
    let outside = Outside::new();
    let (port, mut seen) = outside.server("api.test", OK).await;
    let mut looked = Looked::new(&outside, port);
    // Who speaks nothing else gets no TLS.
    let tunnel = looked.tunnel().await;
    let told = looked.ask_by(looked.speaking(&["h2"]), tunnel, ("api.test", GET));
    let told = told.await;
    assert!(told.starts_with("no TLS"), "{told}");
    assert_eq!(looked.world.next_code().await, "client_tls");
    // Its first words all the same, and a frame.
    let words = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0";
    let tunnel = looked.tunnel().await;
    let told = looked.ask(tunnel, "api.test", words).await;
    assert!(!told.contains("HTTP/1.1 200"), "{told}");
    assert_eq!(looked.world.next_code().await, "bad_request");
    assert!(seen.try_recv().is_err());
    // Who speaks both is answered in HTTP/1.1.
    let tunnel = looked.tunnel().await;
    let both = looked.speaking(&["h2", "http/1.1"]);
    let told = looked.ask_by(both, tunnel, ("api.test", GET)).await;
    assert!(told.starts_with("HTTP/1.1 200 OK\r\n"), "{told}");
    assert_eq!(looked.world.next_code().await, "allowed");
}

/// Where TLS ends here, whatever is sealed in its greeting is for nobody. Where it passes, it may hide a name that has
/// rules.
#[tokio::test]
async fn what_looks_like_encrypted_client_hello_is_of_no_effect_where_a_host_is_looked_into() {
    let outside = Outside::new();
    let (port, mut seen) = outside.server("api.test", OK).await;
    let mut looked = Looked::new(&outside, port);
    let tunnel = looked.tunnel().await;
    let answer = looked.ask_by(looked.greasing(), tunnel, ("api.test", GET));
    let answer = answer.await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let asked = seen.recv().await.expect("a request");
    assert!(
        asked.contains("authorization: Bearer canary\r\n"),
        "{asked}"
    );
    assert_eq!(looked.world.next_code().await, "allowed");
    let tunnel = looked.tunnel_to("other.test").await;
    let answer = looked.ask_by(looked.greasing(), tunnel, ("other.test", GET));
    let answer = answer.await;
    assert!(answer.starts_with("no TLS"), "{answer}");
    assert_eq!(looked.world.next_code().await, "ech");
}

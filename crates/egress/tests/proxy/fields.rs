//! Rules about fields of a request's header: what is required, what is refused, and who tries to pass by them.

use crate::inspect::{Looked, Outside};
use crate::world::{World, open, read_all, read_until, server, trap};
use model::network::{NetworkRules, RequestAsked, RequestRule};
use std::collections::BTreeMap;
use tokio::io::AsyncWriteExt as _;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
const JSON: &str = "content-type: application/json\r\n";

fn one(name: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(name.to_owned(), value.to_owned())])
}

/// JSON to `api.test`, without keys of the client's; one of ours is set.
fn rules(port: u16) -> NetworkRules {
    let asked = RequestAsked {
        host: "api.test".to_owned(),
        port: Some(port),
        require: one("Content-Type", "application/json"),
        refuse: vec!["authorization".to_owned(), "x-api-key".to_owned()],
        set: one("x-api-key", "ours"),
        ..RequestAsked::default()
    };
    NetworkRules {
        requests: RequestRule::read(&[asked]).expect("sound rules"),
        ..open()
    }
}

/// Heads that are let out, and heads that are not, as these fields.
fn heads() -> Vec<(String, bool)> {
    let with = |more: &str| format!("{JSON}{more}");
    vec![
        (with(""), true),
        (with("x-other: mine\r\n"), true),
        (with(JSON), true),
        ("Content-TYPE:application/json \r\n".to_owned(), true),
        ("content_type: application/json\r\n".to_owned(), true),
        (String::new(), false),
        ("content-type: text/plain\r\n".to_owned(), false),
        ("content-type: application/json; a=b\r\n".to_owned(), false),
        (with("content-type: text/plain\r\n"), false),
        (with("Content_Type: text/plain\r\n"), false),
        (with("authorization: mine\r\n"), false),
        (with("AUTHORIZATION: mine\r\n"), false),
        (with("x-api-key:\r\n"), false),
        (with("X_API_KEY: mine\r\n"), false),
        (with("x-api_key: mine\r\nx-api_key: mine\r\n"), false),
        (with("x.api~key: mine\r\n"), false),
    ]
}

fn request(target: &str, port: u16, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: api.test:{port}\r\n{fields}connection: close\r\n\r\n")
}

async fn ask(world: &World, port: u16, fields: &str) -> String {
    let mut stream = world.connect();
    let target = format!("http://api.test:{port}/v1/x");
    let head = request(&target, port, fields);
    stream.write_all(head.as_bytes()).await.expect("a stream");
    read_all(&mut stream).await
}

#[tokio::test]
async fn a_request_in_clear_leaves_with_what_is_required_and_without_what_is_refused() {
    let (port, mut seen) = server(OK).await;
    let mut world = World::new(&["127.0.0.1"], rules(port));
    for (fields, is_out) in heads() {
        let answer = ask(&world, port, &fields).await;
        let record = world.next().await;
        if is_out {
            assert!(answer.ends_with("hi"), "{fields} {answer}");
            let heard = seen.recv().await.expect("a request");
            assert!(heard.contains("x-api-key: ours\r\n"), "{heard}");
        } else {
            let code = "x-proxy-error: http_rule\r\n";
            assert!(answer.contains(code), "{fields} {answer}");
            let rule = format!(
                "rule https://api.test:{port} (requires Content-Type; refuses authorization, x-api-key)"
            );
            assert_eq!(record.rule.as_deref(), Some(rule.as_str()));
            // Of a denial the names of fields are told, and no value of either side.
            assert!(answer.contains(&rule), "{answer}");
            for value in ["mine", "ours", "application/json"] {
                assert!(!answer.contains(value), "{answer}");
            }
        }
    }
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn in_a_tunnel_that_is_looked_into_a_secret_takes_the_place_of_a_field_that_is_refused() {
    let outside = Outside::new();
    let (port, mut seen) = outside.server("api.test", OK).await;
    let looked = Looked::new(&outside, port);
    looked.world.way.set_rules(rules(port));
    for (fields, is_out) in heads() {
        let head = request("/v1/x", port, &fields);
        let answer = looked.ask(looked.tunnel().await, "api.test", &head).await;
        if is_out {
            assert!(answer.ends_with("hi"), "{fields} {answer}");
            let heard = seen.recv().await.expect("a request");
            assert!(
                heard.contains("authorization: Bearer canary\r\n"),
                "{heard}"
            );
            assert!(heard.contains("x-api-key: ours\r\n"), "{heard}");
        } else {
            let code = "x-proxy-error: http_rule\r\n";
            assert!(answer.contains(code), "{fields} {answer}");
            assert!(!answer.contains("canary"), "{answer}");
        }
    }
    assert!(seen.try_recv().is_err());
}

/// Attack: a field that a rule refuses is smuggled as a second field, by `_`, by another case, on a line that goes on,
/// and in trailers; and one that is required is said and taken away again by `Connection`.
#[tokio::test]
async fn a_refused_field_is_not_smuggled_and_a_required_one_is_not_taken_away() {
    let (port, mut seen) = server(OK).await;
    let world = World::new(&["127.0.0.1"], rules(port));
    for (fields, told) in [
        ("x-other: 1\r\nx-api-key: mine\r\n", "http_rule"),
        ("authorization:\r\nauthorization: mine\r\n", "http_rule"),
        ("x_api_key: mine\r\n", "http_rule"),
        ("X-Api-KEY: mine\r\n", "http_rule"),
        ("x-other: 1\r\n x-api-key: mine\r\n", " 400 "),
        ("x-other: 1\r\n\tx-api-key: mine\r\n", " 400 "),
        ("x-api-key : mine\r\n", " 400 "),
        ("connection: content-type\r\n", "http_rule"),
        ("connection: x, Content-Type\r\n", "http_rule"),
    ] {
        let answer = ask(&world, port, &format!("{JSON}{fields}")).await;
        assert!(answer.contains(told), "{fields} {answer}");
    }
    assert!(seen.try_recv().is_err());
    // What `Connection` takes away reaches nobody, and ours is set in its place.
    let fields = format!("{JSON}connection: x-api-key\r\nx-api-key: mine\r\n");
    ask(&world, port, &fields).await;
    let heard = seen.recv().await.expect("a request");
    assert!(heard.contains("x-api-key: ours\r\n"), "{heard}");
    assert!(!heard.contains("mine"), "{heard}");
}

/// A server that reads trailers takes them for fields of the header.
#[tokio::test]
async fn trailers_of_a_request_go_no_further() {
    let (port, outside) = trap().await;
    let world = World::new(&["127.0.0.1"], rules(port));
    let mut stream = world.connect();
    let fields = format!(
        "{JSON}te: trailers\r\ntrailer: x-api-key, authorization\r\ntransfer-encoding: chunked\r\n"
    );
    let target = format!("http://api.test:{port}/v1/x");
    let head = request(&target, port, &fields);
    let body = "2\r\nhi\r\n0\r\nx-api-key: mine\r\nauthorization: mine\r\n\r\n";
    stream
        .write_all(format!("{head}{body}").as_bytes())
        .await
        .expect("a stream");
    let (mut heard, _) = outside.accept().await.expect("a connection");
    let first = read_until(&mut heard, "\r\n0\r\n").await;
    heard.write_all(OK.as_bytes()).await.expect("a stream");
    heard.shutdown().await.expect("a stream");
    assert!(read_all(&mut stream).await.ends_with("hi"));
    let all = first + &read_all(&mut heard).await;
    assert!(all.ends_with("2\r\nhi\r\n0\r\n\r\n"), "{all}");
    assert!(!all.contains("mine") && !all.contains("trailer"), "{all}");
}

/// What was set on the way is not the client's: rules that come while it is under way do not take it for that.
#[tokio::test]
async fn a_request_that_is_under_way_is_cut_by_its_own_fields_and_not_by_those_that_are_set() {
    let (port, held) = trap().await;
    let mut world = World::new(&["127.0.0.1"], rules(port));
    let mut stream = world.connect();
    let fields = format!("{JSON}x-mine: 1\r\n");
    let head = request(&format!("http://api.test:{port}/v1/x"), port, &fields);
    stream.write_all(head.as_bytes()).await.expect("a stream");
    let (mut outside, _) = held.accept().await.expect("a connection");
    read_until(&mut outside, "\r\n\r\n").await;
    let narrower = RequestAsked {
        refuse: vec!["x-api-key".to_owned(), "X_Mine".to_owned()],
        ..rules(port).requests[0].asked()
    };
    world.way.set_rules(NetworkRules {
        requests: RequestRule::read(&[narrower]).expect("sound rules"),
        ..open()
    });
    let answer = read_until(&mut stream, "\r\n\r\n").await;
    assert!(answer.contains("x-proxy-error: http_rule\r\n"), "{answer}");
    let record = world.next().await;
    // By the first rules, which refuse what they set, it was not.
    assert!(record.rule.expect("a rule").contains("X_Mine"));
}

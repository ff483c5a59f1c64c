//! A sandbox that lives on: watches, tunnels and measurements.

use crate::live_client::{Event, Events, Served};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

async fn call(served: &Served<'_>, method: &str, message: Value) -> Result<Value, String> {
    served
        .call(&format!("filesystem.Filesystem/{method}"), message)
        .await
}

async fn watch(served: &Served<'_>, message: Value) -> Events {
    let mut events = served
        .stream("filesystem.Filesystem/WatchDir", &[message], &[])
        .await;
    assert_eq!(events.next().await, Event::Message(json!({"start": {}})));
    events
}

/// Events until this one has come.
async fn until(events: &mut Events, name: &str, kind: &str) -> Vec<Value> {
    let mut seen = Vec::new();
    loop {
        let message = events.next().await.message().expect("more events");
        let event = message["filesystem"].clone();
        let done = event["name"] == name && event["type"] == format!("EVENT_TYPE_{kind}");
        seen.push(event);
        if done {
            return seen;
        }
    }
}

#[tokio::test]
async fn what_happens_in_a_directory_is_told_as_it_happens() {
    let world = world!();
    let served = world.serve(false).await;
    let mut events = watch(&served, json!({"path": "~", "includeEntry": true})).await;
    served
        .sh("echo 1 > a; chmod 600 a; mv a b; rm b; mkdir d; echo > d/inside; : > last")
        .await;
    let seen = until(&mut events, "last", "CREATE").await;
    let told: BTreeSet<(String, String)> = seen
        .iter()
        .map(|event| {
            (
                event["name"].as_str().unwrap().to_owned(),
                event["type"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    for (name, kind) in [
        ("a", "CREATE"),
        ("a", "WRITE"),
        ("a", "CHMOD"),
        ("a", "RENAME"),
        ("b", "CREATE"),
        ("b", "REMOVE"),
        ("d", "CREATE"),
    ] {
        assert!(
            told.contains(&(name.to_owned(), format!("EVENT_TYPE_{kind}"))),
            "{name} {kind}: {told:?}"
        );
    }
    assert!(
        !told.iter().any(|(name, _)| name.contains("inside")),
        "{told:?}"
    );
    assert_eq!(seen.last().unwrap()["entry"]["path"], "/home/user/last");
    served.destroy().await;
}

/// E2B's own tests count these.
#[tokio::test]
async fn of_an_uploaded_file_three_things_are_told_when_it_is_new_and_one_when_it_is_not() {
    let world = world!();
    let served = world.serve(false).await;
    let mut events = watch(&served, json!({"path": "~"})).await;
    let raw = [("content-type", "application/octet-stream")];
    let kinds = |seen: Vec<Value>| -> Vec<String> {
        let kind = |event: &Value| event["type"].as_str().unwrap_or_default().to_owned();
        seen.iter().map(kind).collect()
    };
    served.http("POST", "/files?path=f", &raw, "1").await;
    let seen = kinds(until(&mut events, "f", "WRITE").await);
    assert_eq!(
        seen,
        ["EVENT_TYPE_CREATE", "EVENT_TYPE_CHMOD", "EVENT_TYPE_WRITE"]
    );
    served.http("POST", "/files?path=f", &raw, "2").await;
    let seen = kinds(until(&mut events, "f", "WRITE").await);
    assert_eq!(seen, ["EVENT_TYPE_WRITE"]);
    served.destroy().await;
}

#[tokio::test]
async fn a_recursive_watch_follows_directories_that_are_made_and_moved() {
    let world = world!();
    let served = world.serve(false).await;
    served.sh("mkdir -p old/deep").await;
    let mut events = watch(&served, json!({"path": ".", "recursive": true})).await;
    served.sh("echo > old/deep/f").await;
    until(&mut events, "old/deep/f", "CREATE").await;
    served.sh("mkdir -p new/deep; echo > new/deep/f").await;
    until(&mut events, "new/deep/f", "CREATE").await;
    served.sh("mv new moved").await;
    until(&mut events, "moved/deep/f", "CREATE").await;
    served.sh("echo > moved/deep/g").await;
    until(&mut events, "moved/deep/g", "CREATE").await;
    served.destroy().await;
}

#[tokio::test]
async fn events_are_fetched_and_a_removed_watch_is_gone() {
    let world = world!();
    let served = world.serve(false).await;
    let made = call(&served, "CreateWatcher", json!({"path": "/tmp"}))
        .await
        .unwrap();
    let id = json!({"watcherId": made["watcherId"]});
    assert_eq!(
        call(&served, "GetWatcherEvents", id.clone()).await,
        Ok(json!({"events": []}))
    );
    served.sh(": > /tmp/f").await;
    let event = json!({"name": "f", "type": "EVENT_TYPE_CREATE"});
    let mut got = Value::Null;
    while got["events"][0] != event {
        got = call(&served, "GetWatcherEvents", id.clone()).await.unwrap();
    }
    assert_eq!(
        call(&served, "RemoveWatcher", id.clone()).await,
        Ok(json!({}))
    );
    let gone = Err("not_found".to_owned());
    assert_eq!(call(&served, "GetWatcherEvents", id).await, gone);
    served.destroy().await;
}

#[tokio::test]
async fn watches_and_what_they_keep_are_bounded() {
    let world = world!();
    let served = world.serve(false).await;
    let first = call(&served, "CreateWatcher", json!({"path": "/tmp"}))
        .await
        .unwrap();
    let mut made = 1;
    let refused = loop {
        match call(&served, "CreateWatcher", json!({"path": "/tmp"})).await {
            Ok(_) => made += 1,
            Err(code) => break code,
        }
    };
    assert_eq!((made, &*refused), (64, "resource_exhausted"));
    served
        .sh("for i in $(seq 6000); do : > /tmp/$i; done")
        .await;
    let id = json!({"watcherId": first["watcherId"]});
    loop {
        match call(&served, "GetWatcherEvents", id.clone()).await {
            Ok(got) => assert!(got["events"].as_array().unwrap().len() <= 4096),
            Err(code) => break assert_eq!(code, "resource_exhausted"),
        }
    }
    assert_eq!(call(&served, "RemoveWatcher", id).await, Ok(json!({})));
    let again = call(&served, "CreateWatcher", json!({"path": "/tmp"})).await;
    assert!(again.is_ok(), "{again:?}");
    served.destroy().await;
}

/// An echo on a port, which says `ready` when it listens.
const ECHO: &str = "import socket\ns = socket.create_server(('127.0.0.1', 8080))\nprint('ready', flush=True)\n\
    while True:\n  c = s.accept()[0]\n  while True:\n    d = c.recv(65536)\n    if not d: break\n    c.sendall(d)\n  c.close()\n";

fn connect(to: &str) -> Request<Full<Bytes>> {
    Request::connect(to)
        .body(Full::default())
        .expect("a request")
}

#[tokio::test]
async fn a_tunnel_leads_to_a_port_inside_and_to_nothing_else() {
    let world = world!();
    let served = world.serve(false).await;
    for (to, status) in [
        ("localhost:8080", 502),
        ("example.com:80", 403),
        ("127.0.0.2:80", 403),
    ] {
        assert_eq!(
            served.send(connect(to)).await.status().as_u16(),
            status,
            "{to}"
        );
    }
    if !std::path::Path::new("/usr/bin/python3").exists() {
        println!("skipped: there is no python3 to listen with");
        return;
    }
    let request = json!({"process": {"cmd": "/usr/bin/python3", "args": ["-c", ECHO]}});
    let mut events = served.start_with(request, &[]).await;
    events.pid().await;
    events.until("ready\n").await;
    let told = served.get("/ports").await.json();
    assert_eq!(told, json!({"ports": [8080]}));
    for to in ["localhost:8080", "127.0.0.1:8080"] {
        let answer = served.send(connect(to)).await;
        assert_eq!(answer.status().as_u16(), 200);
        let mut tunnel = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
        tunnel.write_all(b"there and back").await.unwrap();
        let mut back = [0; 14];
        tunnel.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"there and back");
        tunnel.shutdown().await.unwrap();
        assert_eq!(tunnel.read(&mut back).await.unwrap(), 0);
    }
    served.destroy().await;
}

#[tokio::test]
async fn what_is_used_is_measured() {
    let world = world!();
    let served = world.serve(false).await;
    let got = served.get("/metrics").await;
    let before = got.json();
    for key in ["ts", "cpu_count", "mem_total", "mem_used", "disk_total"] {
        assert!(
            before[key].as_u64().is_some_and(|n| n > 0) || key == "mem_used",
            "{key}: {before}"
        );
    }
    served
        .sh("head -c 5000000 /dev/zero > /tmp/f; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")
        .await;
    let after = served.get("/metrics").await.json();
    assert!(
        after["disk_used"].as_u64() >= before["disk_used"].as_u64().map(|n| n + 5_000_000),
        "{after}"
    );
    assert!(after["cpu_used_pct"].as_f64().unwrap() > 0.0, "{after}");
    served.destroy().await;
}

#[tokio::test]
async fn that_the_watched_directory_itself_is_gone_is_told() {
    let world = world!();
    let served = world.serve(false).await;
    served.sh("mkdir gone moved").await;
    let mut gone = watch(&served, json!({"path": "gone", "includeEntry": null})).await;
    let mut moved = watch(&served, json!({"path": "moved", "include_entry": true})).await;
    served.sh("rmdir gone; mv moved elsewhere").await;
    until(&mut gone, ".", "REMOVE").await;
    until(&mut moved, ".", "RENAME").await;
    served.destroy().await;
}

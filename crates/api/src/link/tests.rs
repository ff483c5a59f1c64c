use super::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

struct Two {
    opens: mpsc::Sender<LinkOpen>,
    taken: mpsc::Receiver<LinkOpen>,
    server: tokio::task::JoinHandle<LinkEnd>,
    node: tokio::task::JoinHandle<LinkEnd>,
}

/// Both ends of a link over memory.
fn two() -> Two {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (opens, to_open) = mpsc::channel(8);
    let (takes, taken) = mpsc::channel(8);
    Two {
        opens,
        taken,
        server: tokio::spawn(open_streams(ours, to_open)),
        node: tokio::spawn(async move { take_streams(theirs, &takes).await }),
    }
}

async fn opened(two: &mut Two, target: LinkTarget) -> (DuplexStream, LinkOpen) {
    let (client, io) = tokio::io::duplex(BUFFER_BYTES);
    two.opens.send(LinkOpen { target, io }).await.unwrap();
    (client, two.taken.recv().await.unwrap())
}

fn sandbox() -> LinkTarget {
    let id = "sbx_1".to_owned();
    LinkTarget::Sandbox { id }
}

#[tokio::test]
async fn bytes_and_their_ends_go_both_ways() {
    let mut two = two();
    let job = LinkTarget::Job {
        id: "job_1".to_owned(),
        attempt: 3,
    };
    let (mut client, mut open) = opened(&mut two, job.clone()).await;
    assert_eq!(open.target, job);
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut heard = String::new();
    open.io.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "question");
    // One way is closed, the other is not.
    open.io.write_all(b"answer").await.unwrap();
    drop(open);
    let mut heard = String::new();
    client.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "answer");
}

#[tokio::test]
async fn more_than_all_windows_goes_through_and_a_reader_that_sleeps_holds_up_no_other() {
    let mut two = two();
    let (mut asleep, sleeping) = opened(&mut two, sandbox()).await;
    let stuck = tokio::spawn(async move { asleep.write_all(&vec![1; 4 << 20]).await.is_ok() });
    let (mut client, mut open) = opened(&mut two, sandbox()).await;
    let size = 8 << 20;
    let writing = tokio::spawn(async move {
        client.write_all(&vec![7; size]).await.unwrap();
        client
    });
    let mut bytes = vec![0; size];
    open.io.read_exact(&mut bytes).await.unwrap();
    assert!(bytes.iter().all(|byte| *byte == 7));
    drop(writing.await.unwrap());
    // What it holds is bounded: the writer waits.
    assert!(!stuck.is_finished());
    drop(sleeping);
    assert!(
        !stuck.await.unwrap(),
        "whoever writes hears that nobody reads"
    );
}

#[tokio::test]
async fn when_a_link_breaks_its_streams_end_at_both_ends() {
    let mut two = two();
    let (mut client, mut open) = opened(&mut two, sandbox()).await;
    two.node.abort();
    let mut rest = Vec::new();
    drop(client.read_to_end(&mut rest).await);
    drop(open.io.read_to_end(&mut rest).await);
    assert!(rest.is_empty());
    let end = two.server.await.unwrap();
    assert!(matches!(end, LinkEnd::Closed | LinkEnd::Broken(_)), "{end}");
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_silent_is_given_up_by_the_other() {
    let (ours, _theirs) = tokio::io::duplex(64 * 1024);
    let (_opens, to_open) = mpsc::channel(1);
    let began = tokio::time::Instant::now();
    let end = open_streams(ours, to_open).await;
    assert!(matches!(end, LinkEnd::Silent), "{end}");
    assert_eq!(began.elapsed(), PING_EVERY + PING_DEAD);
}

#[tokio::test]
async fn a_node_that_takes_no_more_says_so_at_once() {
    let mut two = two();
    let mut kept = Vec::new();
    for _ in 0..9 {
        let (client, io) = tokio::io::duplex(64);
        let target = sandbox();
        two.opens.send(LinkOpen { target, io }).await.unwrap();
        kept.push(client);
    }
    // Eight wait for the node; the ninth was refused.
    let mut last = kept.pop().unwrap();
    let mut rest = Vec::new();
    drop(last.read_to_end(&mut rest).await);
    for _ in 0..8 {
        assert!(two.taken.recv().await.is_some());
    }
}

#[test]
fn what_is_no_stream_of_ours_is_none() {
    for (method, path) in [
        (Method::GET, "/stream/sandboxes/a"),
        (Method::POST, "/stream/sandboxes/a/b"),
        (Method::POST, "/stream/jobs/a/x"),
        (Method::POST, "/stream/jobs/a"),
        (Method::POST, "/v1/jobs"),
        (Method::POST, ""),
    ] {
        assert_eq!(target_of(&method, path), None, "{method} {path}");
    }
    assert_eq!(
        target_of(&Method::POST, "/stream/sandboxes/sbx_1"),
        Some(sandbox())
    );
}

//! The client against a server of scripted answers: what it sends, what it keeps, what it refuses.

#![expect(
    clippy::unwrap_used,
    reason = "the scripted server is part of the test"
)]

use std::time::Duration;

use api::job::{JobCreate, JobListQuery};
use api::log::LogEvent;
use api::{Client, ClientError, Code, Endpoint};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

/// The server's side: each new connection, as the client dials it.
struct Scripted {
    incoming: mpsc::Receiver<DuplexStream>,
}

fn scripted() -> (Client, Scripted) {
    let (dialer, incoming) = mpsc::channel(4);
    (Client::new(Endpoint::Memory(dialer)), Scripted { incoming })
}

impl Scripted {
    async fn accept(&mut self) -> DuplexStream {
        self.incoming.recv().await.unwrap()
    }
}

/// Reads one request: its head, and as much body as it announces.
async fn request(io: &mut DuplexStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(io.read_u8().await.unwrap());
    }
    let head = String::from_utf8(text.clone()).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    io.read_exact(&mut body).await.unwrap();
    head + &String::from_utf8(body).unwrap()
}

async fn answer(io: &mut DuplexStream, status: &str, body: &str) {
    let text = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    io.write_all(text.as_bytes()).await.unwrap();
}

const NO_JOBS: &str = r#"{"jobs":[]}"#;

#[tokio::test]
async fn requests_share_a_connection() {
    let (client, mut server) = scripted();
    let serve = async {
        let mut io = server.accept().await;
        for _ in 0..3 {
            let head = request(&mut io).await;
            assert!(
                head.starts_with("GET /v1/jobs?limit=2 HTTP/1.1\r\nhost: localhost\r\n"),
                "{head}"
            );
            answer(&mut io, "200 OK", NO_JOBS).await;
        }
        io
    };
    let ask = async {
        let query = JobListQuery {
            limit: Some(2),
            ..JobListQuery::default()
        };
        for _ in 0..3 {
            assert!(client.job_list(&query).await.unwrap().jobs.is_empty());
        }
    };
    drop(tokio::join!(serve, ask));
}

#[tokio::test]
async fn a_kept_connection_that_the_server_closed_is_replaced() {
    let (client, mut server) = scripted();
    let serve = async {
        for _ in 0..2 {
            let mut io = server.accept().await;
            request(&mut io).await;
            answer(&mut io, "200 OK", NO_JOBS).await;
        }
    };
    let ask = async {
        client.job_list(&JobListQuery::default()).await.unwrap();
        client.job_list(&JobListQuery::default()).await.unwrap();
    };
    tokio::join!(serve, ask);
}

#[tokio::test(start_paused = true)]
async fn silence_is_a_timeout() {
    let (client, mut server) = scripted();
    let client = client.with_deadline(Duration::from_secs(2));
    let serve = async {
        let mut io = server.accept().await;
        request(&mut io).await;
        // The client gives up and closes.
        assert_eq!(io.read(&mut [0; 1]).await.unwrap(), 0);
    };
    let ask = async { client.job_get("job_1").await.unwrap_err() };
    let ((), error) = tokio::join!(serve, ask);
    assert_eq!(error.code(), Code::ServerTimeout.as_str());
    assert_eq!(
        error.to_string(),
        "get an answer from the server in this process within 2000 ms"
    );
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let (client, server) = scripted();
    drop(server);
    let error = client.job_get("job_1").await.unwrap_err();
    assert!(
        matches!(error, ClientError::Unreachable { .. }),
        "{error:?}"
    );
    let client = Client::new(Endpoint::Unix("/nonexistent/cofferdam.sock".into()));
    let error = client.job_get("job_1").await.unwrap_err();
    assert_eq!(error.code(), Code::ServerUnreachable.as_str());
}

#[tokio::test]
async fn an_error_answer_arrives_as_its_body() {
    let (client, mut server) = scripted();
    let serve = async {
        let mut io = server.accept().await;
        let head = request(&mut io).await;
        assert!(head.starts_with("POST /v1/jobs HTTP/1.1\r\n"), "{head}");
        assert!(head.contains(r#""argv":[]"#), "{head}");
        let body = serde_json::to_string(&Code::InvalidArgument.body("argv is empty", "req_1"));
        answer(&mut io, "400 Bad Request", &body.unwrap()).await;
    };
    let job = JobCreate::default();
    let options = api::client::JobCreateOptions::default();
    let ((), result) = tokio::join!(serve, client.job_create(&job, &options));
    let error = result.unwrap_err();
    assert!(error.is(Code::InvalidArgument));
    assert_eq!(error.to_string(), "argv is empty");
}

#[tokio::test]
async fn what_is_not_our_server_is_a_protocol_error() {
    let (client, mut server) = scripted();
    let serve = async {
        let mut io = server.accept().await;
        request(&mut io).await;
        answer(&mut io, "200 OK", "<html>").await;
        request(&mut io).await;
        answer(&mut io, "404 Not Found", "<html>").await;
        request(&mut io).await;
        let endless = "HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n";
        io.write_all(endless.as_bytes()).await.unwrap();
        let piece = vec![b' '; 1 << 20];
        while io.write_all(&piece).await.is_ok() {}
    };
    let ask = async {
        for _ in 0..3 {
            let error = client.job_get("job_1").await.unwrap_err();
            assert!(matches!(error, ClientError::Protocol { .. }), "{error:?}");
        }
    };
    tokio::join!(serve, ask);
}

#[tokio::test]
async fn a_followed_log_ends_with_the_connection_and_knows_where_to_go_on() {
    let (client, mut server) = scripted();
    let serve = async {
        let mut io = server.accept().await;
        let head = request(&mut io).await;
        assert!(head.contains("accept: text/event-stream"), "{head}");
        let body = concat!(
            "HTTP/1.1 200 OK\r\n\r\n: keep-alive\n\nevent: output\nid: 4\n",
            r#"data: {"seq":4,"attempt":1,"stream":"stdout","offset_bytes":0,"at_ms":1,"#,
            r#""encoding":"base64","data":"/w=="}"#,
            "\n\n"
        );
        io.write_all(body.as_bytes()).await.unwrap();
    };
    let ask = async {
        let mut follow = client.job_logs_follow("job_1", None).await.unwrap();
        let Some(LogEvent::Output(segment)) = follow.next().await.unwrap() else {
            panic!("no output")
        };
        assert_eq!(&segment.into_bytes().unwrap()[..], b"\xff");
        assert_eq!(follow.next().await.unwrap(), None);
        assert_eq!(follow.last_seq(), Some(4));
    };
    tokio::join!(serve, ask);
}

#[tokio::test]
async fn an_upload_is_streamed_with_its_length() {
    let (client, mut server) = scripted();
    let serve = async {
        let mut io = server.accept().await;
        let text = request(&mut io).await;
        assert!(text.starts_with("POST /v1/blobs HTTP/1.1\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\nhello"), "{text}");
        answer(&mut io, "200 OK", r#"{"digest":"d","size_bytes":5}"#).await;
    };
    let ((), blob) = tokio::join!(serve, client.blob_put(&b"hello"[..], Some(5)));
    assert_eq!(blob.unwrap().size_bytes, 5);
}

#[tokio::test]
async fn attach_carries_bytes_both_ways() {
    let (client, mut server) = scripted();
    let serve = async {
        let mut io = server.accept().await;
        let head = request(&mut io).await;
        assert!(head.contains("upgrade: cofferdam-attach"), "{head}");
        let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                      upgrade: cofferdam-attach\r\n\r\nearly";
        io.write_all(switch.as_bytes()).await.unwrap();
        let mut bytes = [0; 4];
        io.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"late");
    };
    let ask = async {
        let mut io = client.job_attach("job_1").await.unwrap();
        let mut bytes = [0; 5];
        io.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"early");
        io.write_all(b"late").await.unwrap();
        io.flush().await.unwrap();
        io
    };
    drop(tokio::join!(serve, ask));
}

#[tokio::test]
async fn who_is_not_reached_is_told_with_the_reason() {
    let client = Client::new(Endpoint::Unix("/no/such.sock".into()));
    let failed = client.job_list(&JobListQuery::default()).await;
    let body = failed.unwrap_err().body();
    let said = "failed to reach unix:/no/such.sock: No such file or directory";
    assert_eq!(
        (body.code.as_str(), body.message.as_str()),
        ("server_unreachable", said)
    );
}

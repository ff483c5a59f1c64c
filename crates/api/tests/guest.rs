//! The client of guests against guests of scripted answers: honest ones, and those that do what no guest
//! should.

#![expect(clippy::unwrap_used, reason = "the scripted guest is part of the test")]

use std::time::Duration;

use api::guest::{EntryKind, Event, Guest, GuestError, Selector, Size, Start, StdinKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

/// A guest and the client's connection to it.
async fn guest() -> (Guest, DuplexStream) {
    let (ours, theirs) = duplex(4096);
    (Guest::over(ours).await.unwrap(), theirs)
}

/// Reads one request: its head, and as much body as it announces.
async fn request(io: &mut DuplexStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(io.read_u8().await.unwrap());
    }
    let head = String::from_utf8(text).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    io.read_exact(&mut body).await.unwrap();
    head + &String::from_utf8_lossy(&body)
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    (head + body).into_bytes()
}

fn envelope(flags: u8, json: &str) -> Vec<u8> {
    let len = u32::try_from(json.len()).unwrap().to_be_bytes();
    [&[flags][..], &len, json.as_bytes()].concat()
}

/// The head of a stream whose body ends with the connection.
const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

/// The same, chunked, as a guest sends it.
fn chunk(bytes: &[u8]) -> Vec<u8> {
    let head = format!("{:x}\r\n", bytes.len());
    [head.as_bytes(), bytes, b"\r\n"].concat()
}

fn started() -> Vec<u8> {
    envelope(0, r#"{"event":{"start":{"pid":7}}}"#)
}

fn ended() -> Vec<u8> {
    envelope(
        0,
        r#"{"event":{"end":{"exitCode":3,"exited":true,"status":"exit status 3"}}}"#,
    )
}

/// How a process seems to go whose guest says this and then closes.
async fn follow(said: Vec<u8>) -> String {
    let (guest, mut io) = guest().await;
    let serve = async move {
        request(&mut io).await;
        // The client may be gone by then.
        drop(io.write_all(&said).await);
    };
    let start = Start {
        program: "true".to_owned(),
        ..Start::default()
    };
    let follow = async move {
        let mut seen = Vec::new();
        let mut events = match guest.start(&start).await {
            Ok(events) => events,
            Err(error) => return format!("no: {error}"),
        };
        loop {
            match events.next().await {
                Ok(None) => break,
                Ok(Some(Event::Started { pid })) => seen.push(format!("pid {pid}")),
                Ok(Some(Event::Stdout(bytes))) => seen.push(format!("out {}", bytes.len())),
                Ok(Some(Event::Stderr(bytes))) => seen.push(format!("err {}", bytes.len())),
                Ok(Some(Event::Terminal(bytes))) => seen.push(format!("tty {}", bytes.len())),
                Ok(Some(Event::Ended(end))) => seen.push(end.status),
                Err(error) => {
                    seen.push(format!("broken: {error}"));
                    break;
                }
            }
        }
        assert_eq!(events.next().await.unwrap(), None, "over is over");
        seen.join(", ")
    };
    tokio::join!(serve, follow).1
}

fn stream(messages: &[Vec<u8>]) -> Vec<u8> {
    let mut said = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    said.extend(messages.iter().flat_map(|message| chunk(message)));
    said
}

#[tokio::test(start_paused = true)]
async fn a_process_is_followed_to_its_end() {
    let said = stream(&[
        started(),
        envelope(0, r#"{"event":{"keepalive":{}}}"#),
        envelope(0, r#"{"event":{"data":{"stdout":"aGk="}}}"#),
        envelope(0, r#"{"event":{"data":{"stderr":"aGk="}}}"#),
        envelope(0, r#"{"event":{"data":{"pty":"aGk="}}}"#),
        envelope(0, r#"{"event":{"of":"the future"}}"#),
        ended(),
        envelope(2, "{}"),
    ]);
    let seen = follow(said).await;
    assert_eq!(seen, "pid 7, out 2, err 2, tty 2, exit status 3");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_by_the_start() {
    let refusal = r#"{"error":{"code":"not_found","message":"no such process"}}"#;
    let seen = follow(stream(&[envelope(2, refusal)])).await;
    assert_eq!(seen, "no: no such process");
    let plain = answer("401 Unauthorized", r#"{"code":401,"message":"who?"}"#);
    assert_eq!(follow(plain).await, "no: who?");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_amid_something_is_closed() {
    let closed = "hear the guest to the end: the connection closed";
    let whole = [started(), ended(), envelope(2, "{}")].concat();
    for cut in 0..whole.len() {
        let seen = follow([STREAM, &whole[..cut]].concat()).await;
        assert!(seen.ends_with(closed), "{cut}: {seen}");
    }
    assert_eq!(
        follow([STREAM, &whole].concat()).await,
        "pid 7, exit status 3"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_not_the_protocol_is_refused_before_it_is_held() {
    for (message, expect) in [
        (vec![0, 255, 255, 255, 255], "a message of 4294967295 bytes"),
        (vec![0, 0, 4, 0, 1], "a message of 262145 bytes"),
        (envelope(1, "{}"), "a compressed message"),
        (envelope(0, "{"), "an event that EOF"),
        (envelope(0, "3"), "an event that"),
        (
            envelope(0, r#"{"event":{"data":{"stdout":"?"}}}"#),
            "output that is not base64",
        ),
        (
            envelope(0, r#"{"event":{"start":{"pid":-1}}}"#),
            "an event that",
        ),
        (envelope(2, "x"), "an end that"),
    ] {
        let seen = follow(stream(&[started(), message])).await;
        let expect = format!("pid 7, broken: understand the guest: {expect}");
        assert!(seen.starts_with(&expect), "{seen}");
    }
}

/// What is seen of a guest that begins like this, and then says a piece every so often for ever.
async fn drip(first: Vec<u8>, piece: Vec<u8>, pause: Duration) -> (String, Duration) {
    let (guest, mut io) = guest().await;
    let since = tokio::time::Instant::now();
    drop(tokio::spawn(async move {
        request(&mut io).await;
        drop(io.write_all(&first).await);
        while io.write_all(&piece).await.is_ok() {
            tokio::time::sleep(pause).await;
        }
    }));
    let follow = async move {
        let mut events = guest.start(&Start::default()).await?;
        while events.next().await?.is_some() {}
        Ok::<_, GuestError>(())
    };
    let error = follow.await.unwrap_err();
    (error.to_string(), since.elapsed())
}

#[tokio::test(start_paused = true)]
async fn no_wait_is_without_an_end() {
    let late = "get an answer from the guest within 60 s";
    let day = Duration::from_secs(86_400);
    let never = Duration::from_secs(1000 * 86_400);
    let second = Duration::from_secs(1);
    let head = stream(&[]);
    for (first, piece, pause) in [
        (Vec::new(), Vec::new(), never),
        (b"HTTP/1.1 200 OK\r\nx: ".to_vec(), b"a".to_vec(), second),
        (head.clone(), Vec::new(), never),
        // Signs of life are no start.
        (
            head.clone(),
            chunk(&envelope(0, r#"{"event":{"keepalive":{}}}"#)),
            second,
        ),
        (stream(&[started()]), Vec::new(), never),
        // A message that never comes to its end.
        (
            stream(&[started(), envelope(0, &"x".repeat(50_000))[..5].to_vec()]),
            chunk(b"x"),
            second,
        ),
    ] {
        let (seen, took) = drip(first, piece, pause).await;
        assert_eq!(seen, late);
        assert!(took < Duration::from_secs(200) && took < day, "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn headers_without_end_are_cut() {
    let line = b"x-more: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".to_vec();
    let (seen, _) = drip(b"HTTP/1.1 200 OK\r\n".to_vec(), line, Duration::ZERO).await;
    assert_eq!(seen, "understand the guest: an answer that is not HTTP");
}

/// What a call without a stream gets of a guest that answers like this.
async fn list(said: Vec<u8>) -> Result<Vec<String>, String> {
    let (guest, mut io) = guest().await;
    drop(tokio::spawn(async move {
        let asked = request(&mut io).await;
        assert!(
            asked.starts_with("POST /process.Process/List HTTP/1.1\r\n"),
            "{asked}"
        );
        drop(io.write_all(&said).await);
        let spaces = vec![b' '; 1 << 20];
        while io.write_all(&spaces).await.is_ok() {}
    }));
    let listed = guest.list().await.map_err(|error| error.to_string())?;
    Ok(listed
        .into_iter()
        .map(|one| format!("{} {:?} {:?}", one.pid, one.argv, one.tag))
        .collect())
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_bounded_and_has_nothing_that_paints() {
    let one = r#"{"processes":[{"pid":3,"config":{"cmd":"sh","args":["\u001b[2J"]},"tag":"t"}]}"#;
    let listed = list(answer("200 OK", one)).await;
    assert_eq!(listed, Ok(vec![r#"3 ["sh", "?[2J"] Some("t")"#.to_owned()]));
    let endless = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_vec();
    let error = list(endless).await.unwrap_err();
    assert_eq!(
        error,
        "understand the guest: a body of more than 16777216 bytes"
    );
    let endless = b"HTTP/1.1 500 No\r\ncontent-length: 99999999999\r\n\r\n".to_vec();
    let error = list(endless).await.unwrap_err();
    assert_eq!(
        error,
        "understand the guest: a body of more than 65536 bytes"
    );
    let error = list(answer("200 OK", "<html>")).await.unwrap_err();
    assert!(
        error.starts_with("understand the guest: a body that"),
        "{error}"
    );
    let error = list(answer("404 Not Found", "<html>")).await.unwrap_err();
    assert_eq!(error, "the guest refuses with status 404");
}

#[tokio::test]
async fn requests_say_what_envd_expects() {
    let process = Selector::Pid(7);
    let size = Size {
        columns: 100,
        rows: 30,
    };
    let asked = |guest: Guest, kind: u8| {
        let process = process.clone();
        async move {
            match kind {
                0 => guest.signal(&process, 2).await,
                1 => guest.input(&process, StdinKind::Pipe, b"hi").await,
                2 => guest.close_stdin(&Selector::Tag("t".to_owned())).await,
                _ => guest.as_user(Some("root")).resize(&process, size).await,
            }
        }
    };
    for (kind, path, message) in [
        (0, "SendSignal", r#"{"process":{"pid":7},"signal":2}"#),
        (
            1,
            "SendInput",
            r#"{"input":{"stdin":"aGk="},"process":{"pid":7}}"#,
        ),
        (2, "CloseStdin", r#"{"process":{"tag":"t"}}"#),
        (
            3,
            "Update",
            r#"{"process":{"pid":7},"pty":{"size":{"cols":100,"rows":30}}}"#,
        ),
    ] {
        let (guest, mut io) = guest().await;
        let serve = async {
            let asked = request(&mut io).await;
            io.write_all(&answer("200 OK", "{}")).await.unwrap();
            asked
        };
        let (asked, done) = tokio::join!(serve, asked(guest, kind));
        done.unwrap();
        let head = format!("POST /process.Process/{path} HTTP/1.1\r\n");
        assert!(
            asked.starts_with(&head) && asked.ends_with(message),
            "{asked}"
        );
        let root = "\r\nauthorization: Basic cm9vdDo=\r\n";
        assert_eq!(asked.contains(root), kind == 3, "{asked}");
    }
}

/// What is read of a file whose guest answers like this: its length, or what is wrong.
async fn read(said: &'static str) -> Result<usize, String> {
    let (guest, mut io) = guest().await;
    let serve = async move {
        let asked = request(&mut io).await;
        let head = "GET /files?path=a%2Fb%20c&username=root HTTP/1.1\r\n";
        assert!(asked.starts_with(head), "{asked}");
        io.write_all(said.as_bytes()).await.unwrap();
    };
    let read = async move {
        let mut contents = guest.as_user(Some("root")).read("a/b c").await?;
        let mut all = 0;
        while let Some(bytes) = contents.chunk().await? {
            all += bytes.len();
        }
        Ok::<_, GuestError>(all)
    };
    let ((), read) = tokio::join!(serve, read);
    read.map_err(|error| error.to_string())
}

#[tokio::test(start_paused = true)]
async fn a_file_is_read_whole_or_not_at_all() {
    for (said, expect) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", Ok(5)),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Ok(0)),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello",
            Err("hear the guest to the end: the connection closed"),
        ),
        (
            "HTTP/1.1 200 OK\r\n\r\nhello",
            Err("understand the guest: contents without a length"),
        ),
        (
            "HTTP/1.1 404 Not Found\r\ncontent-length: 29\r\n\r\n{\"code\":404,\"message\":\"gone\"}",
            Err("gone"),
        ),
    ] {
        let expect = expect.map_err(str::to_owned);
        assert_eq!(read(said).await, expect, "{said}");
    }
}

#[tokio::test]
async fn a_file_is_written_with_its_length() {
    let (guest, mut io) = guest().await;
    let serve = async {
        let asked = request(&mut io).await;
        assert!(
            asked.starts_with("POST /files?path=a HTTP/1.1\r\n"),
            "{asked}"
        );
        assert!(
            asked.contains("content-type: application/octet-stream\r\n"),
            "{asked}"
        );
        assert!(asked.ends_with("\r\n\r\nhello"), "{asked}");
        let entry = r#"[{"path":"/home/user/a","name":"a","type":"file"}]"#;
        io.write_all(&answer("200 OK", entry)).await.unwrap();
    };
    let (_, written) = tokio::join!(serve, guest.write("a", &b"hello"[..], Some(5)));
    written.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_too_short_is_said_and_no_file_pretended() {
    let (guest, mut io) = guest().await;
    drop(tokio::spawn(async move {
        drop(io.read_to_end(&mut Vec::new()).await);
    }));
    let written = guest.write("a", &b"hello"[..], Some(6)).await;
    assert!(matches!(written, Err(GuestError::Source(_))), "{written:?}");
}

#[tokio::test]
async fn entries_are_read_with_numbers_as_texts() {
    let (guest, mut io) = guest().await;
    let serve = async {
        let asked = request(&mut io).await;
        assert!(asked.ends_with(r#"{"depth":1,"path":"."}"#), "{asked}");
        let entries = r#"{"entries":[
            {"name":"a","type":"FILE_TYPE_FILE","path":"/a","size":"12","mode":420},
            {"name":"b","type":"FILE_TYPE_DIRECTORY","path":"/b","size":0,"mode":511,"isSymlink":true},
            {"name":"c","path":"/c","size":"1"}]}"#;
        io.write_all(&answer("200 OK", entries)).await.unwrap();
    };
    let (_, entries) = tokio::join!(serve, guest.list_directory(".", 1));
    let entries = entries.unwrap();
    let kinds: Vec<_> = entries.iter().map(|entry| entry.kind).collect();
    let expect = [EntryKind::File, EntryKind::Directory, EntryKind::Other];
    assert_eq!(kinds, expect);
    assert_eq!((entries[0].size_bytes, entries[0].mode), (12, 0o644));
    assert!(entries[1].is_link && !entries[0].is_link);
}

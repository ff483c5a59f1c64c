//! Guests that do what no guest should.

use super::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

const SHORT: Patience = Patience {
    silence: Duration::from_secs(600),
    head: Duration::from_secs(3600),
};

/// What the client gets of a guest that reads one head and then behaves like this: the status and the
/// number of bytes, or where it broke.
async fn outcome<F>(behave: impl FnOnce(DuplexStream) -> F) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let (ours, mut theirs) = duplex(4096);
    let line = Line::to_guest(ours, SHORT).await.unwrap();
    let request = Request::post("/x").header(HOST, "h").body(empty());
    let sending = line.send(request.unwrap(), ());
    let guest = async {
        let mut head = [0; 4096];
        let mut read = 0;
        while !head[..read].ends_with(b"\r\n\r\n") {
            read += theirs.read(&mut head[read..]).await.unwrap();
        }
        drop(tokio::spawn(behave(theirs)));
    };
    let (answer, ()) = tokio::join!(sending, guest);
    match answer {
        Err(Broken::Late) => "late".to_owned(),
        Err(Broken::Closed(status)) => format!("closed {status}"),
        Err(Broken::Http(_)) => "broken head".to_owned(),
        Ok(answer) => body_of(answer).await,
    }
}

async fn body_of(answer: Answer<()>) -> String {
    let response = answer.into_response();
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let mut bytes = 0;
    loop {
        match body.frame().await {
            None => return format!("{status} with {bytes} bytes"),
            Some(Err(_)) => return format!("{status} broken after {bytes} bytes"),
            Some(Ok(frame)) => bytes += frame.into_data().map_or(0, |data| data.len()),
        }
    }
}

async fn says(text: &'static str) -> String {
    outcome(async |mut guest: DuplexStream| {
        guest.write_all(text.as_bytes()).await.unwrap();
    })
    .await
}

/// Sends a piece again and again, with a pause between, until nobody takes it.
async fn repeat(first: &'static str, piece: &'static str, pause: Duration) -> String {
    outcome(async move |mut guest: DuplexStream| {
        if guest.write_all(first.as_bytes()).await.is_err() {
            return;
        }
        while guest.write_all(piece.as_bytes()).await.is_ok() {
            tokio::time::sleep(pause).await;
        }
    })
    .await
}

const OK: &str = "HTTP/1.1 200 OK\r\n";

#[tokio::test(start_paused = true)]
async fn an_honest_guest_is_passed_on() {
    let text = "HTTP/1.1 201 Created\r\ncontent-length: 5\r\n\r\nhello";
    assert_eq!(says(text).await, "201 with 5 bytes");
    let text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    assert_eq!(says(text).await, "200 with 5 bytes");
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_lies_about_a_length_breaks_only_its_answer() {
    let short = "HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello";
    assert_eq!(says(short).await, "200 broken after 5 bytes");
    let long = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhello";
    assert_eq!(says(long).await, "200 with 2 bytes");
    let half = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\nhello";
    assert_eq!(says(half).await, "200 broken after 5 bytes");
    let huge = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n";
    assert_eq!(says(huge).await, "200 broken after 0 bytes");
    let two = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab";
    assert_eq!(says(two).await, "broken head");
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_speaks_no_http_is_cut() {
    for text in [
        "",
        "hello\r\n\r\n",
        "HTTP/1.1 200",
        "HTTP/9.9 200 OK\r\n\r\n",
    ] {
        assert_eq!(says(text).await, "broken head", "{text:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn headers_without_end_are_cut() {
    let line = "x-more: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n";
    assert_eq!(repeat(OK, line, Duration::ZERO).await, "broken head");
    let one = "HTTP/1.1 200 OK\r\nx: ";
    let more = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    assert_eq!(repeat(one, more, Duration::ZERO).await, "broken head");
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_is_silent_is_cut() {
    let silent = outcome(async |guest: DuplexStream| {
        tokio::time::sleep(Duration::from_secs(86_400)).await;
        drop(guest);
    });
    assert_eq!(silent.await, "broken head");
    let after_head = outcome(async |mut guest: DuplexStream| {
        guest
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhel")
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_secs(86_400)).await;
        drop(guest);
    });
    assert_eq!(after_head.await, "200 broken after 3 bytes");
}

#[tokio::test(start_paused = true)]
async fn a_head_that_drips_or_is_always_to_come_is_late() {
    let minute = Duration::from_secs(60);
    assert_eq!(repeat("HTTP/1.1 200 OK\r\nx: ", "a", minute).await, "late");
    let go_on = "HTTP/1.1 100 Continue\r\n\r\n";
    assert_eq!(repeat(go_on, go_on, minute).await, "late");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_is_cut_and_holds_little() {
    let (ours, mut theirs) = duplex(4096);
    let guest = tokio::spawn(async move {
        let mut sent = 0;
        drop(theirs.read(&mut [0; 1024]).await);
        theirs
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
            .await
            .unwrap();
        while theirs.write_all(&[0; 1024]).await.is_ok() {
            sent += 1024;
        }
        sent
    });
    let line = Line::to_guest(ours, SHORT).await.unwrap();
    let request = Request::get("/x").body(empty()).unwrap();
    let answer = line.send(request, ()).await.unwrap();
    let response = answer.into_response();
    // Nobody reads the body; the line is cut all the same.
    let sent: usize = guest.await.unwrap();
    assert!(
        sent < 4 * HEAD_BYTES_MAX,
        "{sent} bytes were taken from the guest"
    );
    drop(response);
}

/// A guest that answers a CONNECT like this and is then the port itself.
async fn through(answer: &'static str, port_says: &'static str) -> String {
    let (ours, mut guest) = duplex(4096);
    let guest = tokio::spawn(async move {
        let mut head = [0; 1024];
        let read = guest.read(&mut head).await.unwrap();
        let asked = String::from_utf8_lossy(&head[..read]).into_owned();
        guest.write_all(answer.as_bytes()).await.unwrap();
        if !port_says.is_empty() {
            drop(guest.read(&mut head).await);
            drop(guest.write_all(port_says.as_bytes()).await);
        }
        asked
    });
    let to = ToPort {
        port: 3000,
        ..ToPort::default()
    };
    let outcome = match Line::to_port(ours, to, SHORT).await {
        Err(error) => error.to_string(),
        Ok(line) => {
            let request = Request::get("/").header(HOST, "h").body(empty());
            match line.send(request.unwrap(), ()).await {
                Ok(answer) => body_of(answer).await,
                Err(error) => error.to_string(),
            }
        }
    };
    let asked = guest.await.unwrap();
    assert!(
        asked.starts_with("CONNECT 127.0.0.1:3000 HTTP/1.1\r\n"),
        "{asked}"
    );
    outcome
}

#[tokio::test(start_paused = true)]
async fn a_port_is_reached_through_the_guest() {
    let port = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
    assert_eq!(
        through("HTTP/1.1 200 OK\r\n\r\n", port).await,
        "200 with 2 bytes"
    );
    let closed = "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(
        through(closed, "").await,
        "connect to a port in the sandbox: 502 Bad Gateway"
    );
    assert_eq!(
        through("HTTP/1.1 200 OK\r\n\r\n", "nonsense\r\n\r\n").await,
        "speak HTTP with the guest"
    );
}

/// A guest that answers each request on one connection with its number, and ends after so many.
async fn counting(mut guest: DuplexStream, most: usize) {
    for n in 1..=most {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if guest.read(&mut byte).await.unwrap() == 0 {
                return;
            }
            head.push(byte[0]);
        }
        let answer =
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{n}\r\n0\r\n\r\n");
        guest.write_all(answer.as_bytes()).await.unwrap();
    }
}

fn get() -> Request<Body> {
    Request::get("/x").header(HOST, "h").body(empty()).unwrap()
}

/// What a line answers, and the line again once all of it was read.
async fn asked(line: Line) -> (String, Option<Line>) {
    let (back, kept) = std::sync::mpsc::channel();
    let answer = line.send(get(), ()).await.unwrap();
    let response = answer.into_response_and(move |line, ()| drop(back.send(line)));
    let body = response.into_body().collect().await.unwrap();
    let text = String::from_utf8(body.to_bytes().to_vec()).unwrap();
    let kept = kept.try_recv().ok();
    // The connection sees to its own end of the answer.
    while kept
        .as_ref()
        .is_some_and(|line| !line.is_ready() && !line.is_closed())
    {
        tokio::task::yield_now().await;
    }
    (text, kept)
}

#[tokio::test(start_paused = true)]
async fn a_line_whose_answer_was_read_to_its_end_carries_another() {
    let (ours, theirs) = duplex(4096);
    drop(tokio::spawn(counting(theirs, 3)));
    let mut line = Some(Line::to_guest(ours, SHORT).await.unwrap());
    for n in ["1", "2", "3"] {
        let (text, kept) = asked(line.take().unwrap()).await;
        assert_eq!(text, n);
        line = kept;
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_that_has_ended_gives_the_request_back() {
    let (ours, theirs) = duplex(4096);
    drop(tokio::spawn(counting(theirs, 1)));
    let line = Line::to_guest(ours, SHORT).await.unwrap();
    let (_, kept) = asked(line).await;
    let line = kept.unwrap();
    while !line.is_closed() {
        tokio::task::yield_now().await;
    }
    let failed = line.send_or_return(get(), ()).await.unwrap_err();
    assert!(failed.unsent.is_some(), "{failed:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_let_go_before_its_end_cuts_the_line() {
    let (ours, mut theirs) = duplex(4096);
    let guest = tokio::spawn(async move {
        drop(theirs.read(&mut [0; 1024]).await);
        let half = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhel";
        theirs.write_all(half).await.unwrap();
        theirs.read(&mut [0; 1024]).await
    });
    let line = Line::to_guest(ours, SHORT).await.unwrap();
    let answer = line.send(get(), ()).await.unwrap();
    let response = answer.into_response_and(|_, ()| panic!("half an answer was read"));
    drop(response);
    assert_eq!(guest.await.unwrap().unwrap_or(0), 0);
}

/// A body that always goes on and never comes.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_over_which_a_request_is_still_sent_is_not_ready() {
    let (ours, mut theirs) = duplex(4096);
    let guest = tokio::spawn(async move {
        drop(theirs.read(&mut [0; 1024]).await);
        let refused = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
        theirs.write_all(refused).await.unwrap();
        theirs
    });
    let line = Line::to_guest(ours, SHORT).await.unwrap();
    let request = Request::post("/x").header(HOST, "h");
    let request = request.body(Endless.boxed_unsync()).unwrap();
    let (back, kept) = std::sync::mpsc::channel();
    let answer = line.send(request, ()).await.unwrap();
    drop(answer.into_response_and(move |line, ()| drop(back.send(line))));
    let line = kept.try_recv().unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!line.is_ready());
    drop(guest.await.unwrap());
}

//! A fuzz target: what a hostile guest answers, from the first byte of HTTP to the last event. See `fuzz/engine.rs`.

use super::code::{Contexts, Step, StepPlace};
use super::{Guest, Start};
use crate::engine;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Messages that are read of one stream: more than there are bytes in an input.
const READ_MAX: usize = 8192;

/// What is asked of a guest that says this and no more; which question it is says the first byte.
async fn ask(input: &[u8]) {
    let (which, said) = input.split_first().unwrap_or((&0, &[]));
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    let guest = async {
        drop(theirs.write_all(said).await);
        drop(theirs.shutdown().await);
        // It hears what is asked, so that nothing waits for it.
        let mut heard = Vec::new();
        drop(theirs.read_to_end(&mut heard).await);
    };
    let asking = async {
        match which % 4 {
            0 => {
                let Ok(guest) = Guest::over(ours).await else {
                    return;
                };
                let start = Start {
                    program: "true".to_owned(),
                    ..Start::default()
                };
                let Ok(mut events) = guest.start(&start).await else {
                    return;
                };
                let mut count = 0;
                while let Ok(Some(_)) = events.next().await {
                    count += 1;
                    assert!(count < READ_MAX, "a stream ends where its bytes do");
                }
            }
            1 => {
                let Ok(guest) = Guest::over(ours).await else {
                    return;
                };
                drop(guest.execs(0, Duration::ZERO).await);
            }
            2 => {
                let Ok(guest) = Guest::over(ours).await else {
                    return;
                };
                drop(guest.list().await);
            }
            _ => {
                let Ok(contexts) = Contexts::over(ours).await else {
                    return;
                };
                let step = Step {
                    code: "1".to_owned(),
                    place: StepPlace::Default("python".to_owned()),
                };
                let Ok(mut steps) = contexts.run(&step).await else {
                    return;
                };
                let mut count = 0;
                while let Ok(Some(_)) = steps.next().await {
                    count += 1;
                    assert!(count < READ_MAX, "a stream ends where its bytes do");
                }
            }
        }
    };
    tokio::join!(guest, asking);
}

fn seeds() -> Vec<Vec<u8>> {
    let answers: [(u8, &[u8]); 8] = [
        (
            0,
            b"HTTP/1.1 200 OK\r\ncontent-type: application/connect+json\r\ntransfer-encoding: chunked\r\n\r\n\
              2d\r\n\0\0\0\0\x1f{\"event\":{\"start\":{\"pid\":1234}}}\x02\0\0\0\x02{}\0\0\r\n0\r\n\r\n",
        ),
        (
            0,
            b"HTTP/1.1 200 OK\r\ncontent-length: 96\r\n\r\n\0\0\0\0\x1c{\"event\":{\"start\":{\"pid\":1}}}\
              \0\0\0\0\x28{\"event\":{\"data\":{\"stdout\":\"aGFsbG8=\"}}}\x02\0\0\0\x02{}",
        ),
        (
            0,
            b"HTTP/1.1 200 OK\r\ncontent-length: 70\r\n\r\n\x02\0\0\0\x3d{\"error\":{\"code\":\"not_found\",\"message\":\"no such program\"}}",
        ),
        (0, b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}"),
        (
            1,
            b"HTTP/1.1 200 OK\r\ncontent-length: 148\r\n\r\n{\"facts\":[{\"kind\":\"ended\",\"seq\":2,\"at_ms\":1,\"of\":1,\
              \"end\":{\"how\":\"exited\",\"code\":0},\"stdout_bytes\":0,\"stderr_bytes\":0,\"patterns_found\":1}]}",
        ),
        (
            2,
            b"HTTP/1.1 200 OK\r\ncontent-length: 77\r\n\r\n{\"processes\":[{\"pid\":7,\"config\":{\"cmd\":\"a\",\"args\":[\"b\"]},\"tag\":\"x\\u001b[2J\"}]}",
        ),
        (
            3,
            b"HTTP/1.1 200 OK\r\ncontent-length: 104\r\n\r\n{\"type\":\"stdout\",\"text\":\"x\"}\n{\"type\":\"result\",\"text\":\"1\"}\n\
              {\"type\":\"keepalive\"}\n{\"type\":\"end_of_execution\"}\n",
        ),
        (3, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 502 Bad Gateway\r\n\r\n"),
    ];
    let one = |(which, said): &(u8, &[u8])| [&[*which], *said].concat();
    answers.iter().map(one).collect()
}

#[test]
fn answers_of_a_guest_are_read_to_their_end_or_refused() {
    // Paused: what is waited for has been waited for when nothing else can happen.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let words: [&[u8]; 12] = [
        b"HTTP/1.1 200 OK\r\n",
        b"\r\n",
        b"content-length: ",
        b"transfer-encoding: chunked\r\n",
        b"\0\0\0\0\x02{}",
        b"\x02\0\0\0\x02{}",
        b"\0\xff\xff\xff\xff",
        b"{\"event\":{",
        b"\"start\":{\"pid\":",
        b"\"error\":",
        b"[[[[[[[[",
        b"\\ud800",
    ];
    engine::run("api guest", &seeds(), &words, |input| {
        runtime.block_on(ask(input));
    });
}

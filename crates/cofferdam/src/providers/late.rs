//! Tests of providers that hang: what whoever waits is told, and what is left of the question.

use super::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Time that stands still jumps to the next timer as soon as nobody has anything to do, also while bytes are on their
/// way. In small steps they arrive before the patience of whoever waits for them is over.
fn small_steps() {
    tokio::spawn(async {
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

fn source(reference: &str) -> SecretSource {
    SecretSource {
        provider: "v".to_owned(),
        reference: reference.to_owned(),
    }
}

fn late() -> SourceError {
    SourceError::Failed {
        provider: "v".to_owned(),
        why: "it did not answer in 15 s".to_owned(),
    }
}

/// Takes one question, says this, and then this again each second. Whether whoever asked has hung up.
async fn hangs(listener: TcpListener, first: &str, each: &str) -> bool {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert!(stream.read_buf(&mut head).await.unwrap() > 0, "{head:?}");
    }
    stream.write_all(first.as_bytes()).await.unwrap();
    for _ in 0..60 {
        let second = Duration::from_secs(1);
        let over = tokio::time::timeout(second, is_over(&mut stream)).await;
        if over.is_ok() || stream.write_all(each.as_bytes()).await.is_err() {
            return true;
        }
    }
    false
}

/// Returns when nobody is at the other end any more.
async fn is_over(stream: &mut TcpStream) {
    let mut rest = [0; 64];
    while stream.read(&mut rest).await.is_ok_and(|n| n > 0) {}
}

#[tokio::test(start_paused = true)]
async fn a_vault_that_hangs_at_any_point_is_given_up_after_15_s_and_hung_up_on() {
    small_steps();
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n";
    for (first, each) in [
        ("", ""),
        ("HTTP/1.1 200 OK\r\nx: ", "x"),
        (head, ""),
        (head, " "),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // Any variable that is set will do for a token.
        let text = format!("v=vault:http://127.0.0.1:{port}/kv?token=env:PATH");
        let providers = Providers::new(&[Provider::parse(&text).unwrap()]);
        let begun = Instant::now();
        let asking = async {
            let asked = providers.fetch(source("a#b")).await;
            (asked.unwrap_err(), begun.elapsed())
        };
        let ((error, took), is_over) = tokio::join!(asking, hangs(listener, first, each));
        assert_eq!(error, late(), "{first:?}");
        assert_eq!(error.code(), "secret_provider_failed");
        assert!(
            (FETCH..FETCH + Duration::from_secs(1)).contains(&took),
            "{first:?}: {took:?}"
        );
        assert!(is_over, "{first:?} {each:?}: the connection is still there");
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_behind_questions_that_hang_waits_no_longer_and_the_next_one_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), "value").unwrap();
    let text = format!("v=file:{}", dir.path().display());
    let providers = Providers::new(&[Provider::parse(&text).unwrap()]);
    let all = u32::try_from(AT_ONCE).unwrap();
    let turns = providers.inner.turns.acquire_many(all).await.unwrap();
    let begun = Instant::now();
    let error = providers.fetch(source("a")).await.unwrap_err();
    assert_eq!(error, late());
    let took = begun.elapsed();
    assert!(
        (FETCH..FETCH + Duration::from_secs(1)).contains(&took),
        "{took:?}"
    );
    drop(turns);
    let value = providers.fetch(source("a")).await.unwrap();
    assert_eq!(value.bytes(), b"value");
}

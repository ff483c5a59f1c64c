//! Asking a guest that lives on what its sandbox uses.

use super::GuestStream;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde::Deserialize;

/// A dozen numbers.
const BYTES_MAX: usize = 16 * 1024;

/// What a guest says. It is the sandbox's word: whoever shows it cuts it to the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Metrics {
    /// Processor time since the sandbox's start, in microseconds.
    pub cpu_used_us: u64,
    /// Memory, in bytes.
    pub mem_used: u64,
    /// Storage that is filled, in bytes.
    pub disk_used: u64,
}

/// Asks over a connection of its own, to a guest that serves. Nothing where it does not answer as one does.
/// The caller bounds the wait.
pub async fn metrics(stream: GuestStream) -> Option<Metrics> {
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = shaken.await.ok()?;
    let request = Request::get("/metrics").header("host", "localhost");
    let request = request.body(Empty::<Bytes>::new()).ok()?;
    let asking = async {
        let answer = sender.send_request(request).await.ok()?;
        let body = Limited::new(answer.into_body(), BYTES_MAX);
        let bytes = body.collect().await.ok()?.to_bytes();
        serde_json::from_slice(&bytes).ok()
    };
    let mut connection = std::pin::pin!(connection);
    let mut asking = std::pin::pin!(asking);
    // In this task, so that nothing is left of a guest that says nothing.
    tokio::select! {
        said = asking.as_mut() => said,
        _ = connection.as_mut() => asking.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn check(answer: &str, expect: Option<Metrics>) {
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        let bytes = answer.as_bytes().to_vec();
        let guest = tokio::spawn(async move {
            let mut heard = [0; 1024];
            let _ = theirs.read(&mut heard).await.unwrap();
            drop(theirs.write_all(&bytes).await);
        });
        assert_eq!(metrics(Box::new(ours)).await, expect, "{answer:.60}");
        guest.await.unwrap();
    }

    #[tokio::test]
    async fn what_a_guest_says_is_read_and_what_is_no_answer_is_none() {
        let said = Metrics {
            cpu_used_us: 5,
            ..Metrics::default()
        };
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 27\r\n\r\n{\"cpu_used_us\":5,\"more\":[]}";
        check(ok, Some(said)).await;
        check("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}", None).await;
        check("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n-", None).await;
        check("nonsense\r\n\r\n", None).await;
        let flood = format!("HTTP/1.1 200 OK\r\n\r\n{}", " ".repeat(32 * 1024));
        check(&flood, None).await;
        check("", None).await;
    }
}

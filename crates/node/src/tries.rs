//! How often this node asks a control plane that does not answer.

use crate::Node;
use api::Code;
use api::client::ClientError;
use model::breaker::Breaker;
use std::time::Duration;

/// The tries of one loop.
#[derive(Debug, Default)]
pub(crate) struct Tries(Breaker);

impl Tries {
    /// One has gone well.
    pub(crate) fn good(&mut self) {
        let next = self.0.heard();
        if self.0 != next {
            tracing::info!("the server answers again");
        }
        self.0 = next;
    }

    /// One has failed: waits until the next one is due, or somebody was heard on another way.
    pub(crate) async fn failed(&mut self, node: &Node, error: &ClientError) {
        // Said by a server whose certificate was checked, and for good.
        if error.is(Code::CertificateRevoked) {
            node.inner.dismissed.cancel();
        }
        let asked = if let ClientError::Api(failure) = error {
            failure.retry_after_ms
        } else {
            None
        };
        let (next, wait_ms) = self.0.failed(chance(), asked);
        if next.is_open() && !self.0.is_open() {
            tracing::warn!(wait_ms, "nobody answers; asking seldom from now on");
        }
        self.0 = next;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
            // One who said when to come again meant it.
            () = node.inner.config.heard.notified(), if asked.is_none() => self.good(),
        }
    }
}

/// Something that differs between nodes.
pub(crate) fn chance() -> u16 {
    let mut random = [0; 2];
    // Without random bytes all wait for the longest time.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    u16::from_le_bytes(random)
}

//! Questions to the node, each on a line of its own.

use crate::live::egress::Lines;
use guest::direct::{self, BOTH, CONNECT, DENIED, NAME, UNKNOWN, YES};
use guest::message::EGRESS_DIRECT;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// How long a question waits for a line and its answer: as long as a proxy's client waits for a line, and then as
/// long as the node takes to resolve and to connect, and a little more.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the node said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    Yes,
    /// And there is an address of IPv6 among those that it has.
    Both,
    Denied,
    Unknown,
    Failed,
}

/// A line that leads to the host at the port, if it may and can.
pub(super) async fn connect(lines: &Lines, host: &str, port: u16) -> Option<UnixStream> {
    match ask(lines, CONNECT, host, port).await {
        Some((line, Said::Yes)) => Some(line),
        _ => None,
    }
}

/// Whether there is such a name for this sandbox.
pub(super) async fn resolve(lines: &Lines, name: &str) -> Said {
    let said = ask(lines, NAME, name, 0).await;
    said.map_or(Said::Failed, |(_, said)| said)
}

/// Says that something was not carried; nobody waits for what the node says to that.
pub(super) async fn tell(lines: &Lines, kind: u8, host: &str, port: u16) {
    drop(ask(lines, kind, host, port).await);
}

async fn ask(lines: &Lines, kind: u8, host: &str, port: u16) -> Option<(UnixStream, Said)> {
    let question = direct::question(kind, port, host)?;
    let asking = async {
        let mut line = lines.take(EGRESS_DIRECT).await;
        line.write_all(&question).await.ok()?;
        let said = match line.read_u8().await.ok()? {
            YES => Said::Yes,
            BOTH => Said::Both,
            DENIED => Said::Denied,
            UNKNOWN => Said::Unknown,
            _ => Said::Failed,
        };
        Some((line, said))
    };
    tokio::time::timeout(PATIENCE, asking).await.ok().flatten()
}

//! From a target to a connection: resolved once, every address checked, and one of the checked ones dialled.

use crate::decide::{Decision, Ground, decide, precheck};
use crate::proxy::Way;
use crate::reason::Reason;
use crate::record::Recording;
use crate::target::Target;
use crate::traffic::Counted;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

/// How long one address may take to answer: three tries of TCP, which come after 1 and 3 seconds.
const ONE_PATIENCE: Duration = Duration::from_secs(8);

/// How long all addresses of a name may take.
const ALL_PATIENCE: Duration = Duration::from_secs(20);

/// Connects to the target, or says why not.
pub(crate) async fn reach(
    way: &Way,
    target: &Target,
    recording: &mut Recording,
) -> Result<Counted<TcpStream>, Reason> {
    recording.asks(target);
    let reached = decided(way, target).await;
    let reached = match reached {
        Ok(dial) => connect(&dial).await,
        Err(reason) => Err(reason),
    };
    match reached {
        Ok((io, address)) => {
            recording.dialled(address);
            recording.allowed();
            let traffic = recording.traffic.clone();
            Ok(Counted { io, traffic })
        }
        Err(reason) => {
            recording.refused(reason);
            Err(reason)
        }
    }
}

/// Whether there is such a name, and no rule is against it. Which of its addresses may be dialled is decided when
/// somebody connects.
pub(crate) async fn known(
    way: &Way,
    target: &Target,
    recording: &mut Recording,
) -> Result<(), Reason> {
    recording.asks(target);
    let found = async {
        precheck(way.mode(), &target.host)?;
        match way.resolve(&target.host).await?.is_empty() {
            true => Err(Reason::UnknownName),
            false => Ok(()),
        }
    };
    let found = found.await;
    match found {
        Ok(()) => recording.allowed(),
        Err(reason) => recording.refused(reason),
    }
    found
}

async fn decided(way: &Way, target: &Target) -> Result<Vec<SocketAddr>, Reason> {
    precheck(way.mode(), &target.host)?;
    let addresses = way.resolve(&target.host).await?;
    let own = way.own_addresses().map_err(|error| {
        tracing::error!(%error, "the addresses of this machine cannot be read; nothing is let out");
        Reason::Internal
    })?;
    let ground = Ground {
        exceptions: way.exceptions(),
        own: &own,
    };
    match decide(way.mode(), ground, &target.host, target.port, &addresses) {
        Decision::Allow { dial } => Ok(dial),
        Decision::Deny(reason) => Err(reason),
    }
}

async fn connect(dial: &[SocketAddr]) -> Result<(TcpStream, SocketAddr), Reason> {
    let one_by_one = async {
        let mut last = Reason::Unreachable;
        for address in dial {
            match tokio::time::timeout(ONE_PATIENCE, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Whoever talks through us decides when to send.
                    drop(stream.set_nodelay(true));
                    return Ok((stream, *address));
                }
                Ok(Err(_)) => last = Reason::Unreachable,
                Err(_) => last = Reason::ConnectTimeout,
            }
        }
        Err(last)
    };
    let all = tokio::time::timeout(ALL_PATIENCE, one_by_one).await;
    all.unwrap_or(Err(Reason::ConnectTimeout))
}

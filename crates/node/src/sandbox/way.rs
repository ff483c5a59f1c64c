//! The way out of a sandbox that lives on: the node brings lines to its guest, one at a time, and serves what
//! clients inside say on them with the node's proxy.
//!
//! The node always connects, the guest never: so it works the same with every driver. Nothing of it is written
//! down, because a line that is lost is brought again; what a killed node carried is cut, and its successor
//! begins with a new line.

use crate::Node;
use crate::job::{Broken, chain};
use api::job::Enforced;
use driver::driver::Handle;
use driver::guest::direct as asked;
use driver::guest::message::EGRESS_PORT;
use driver::guest::{EgressClient, EgressLine};
use egress::decide::Mode;
use egress::proxy::Way;
use egress::record::{EgressRecord, Verdict};
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

const _: () = assert!(EGRESS_PORT == egress::PORT);
// The guest's words for what the proxy reads.
const _: () = assert!(asked::CONNECT == egress::direct::CONNECT);
const _: () = assert!(asked::RESOLVE == egress::direct::RESOLVE);
const _: () = assert!(asked::YES == egress::direct::YES);
const _: () = assert!(asked::DENIED == egress::direct::DENIED);
const _: () = assert!(asked::UNKNOWN == egress::direct::UNKNOWN);
const _: () = assert!(asked::FAILED == egress::direct::FAILED);

/// A guest answers at once; one that does not is asked again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two tries to bring a line, at first and at most. A guest that hangs up on each line costs no more.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_MOST: Duration = Duration::from_secs(2);

/// A way out that is open, with everything on it until this is dropped.
#[derive(Debug)]
pub(super) struct WayOut {
    _stop: DropGuard,
}

/// Opens the way out. When this returns, clients inside can use it.
pub(super) async fn open(node: &Node, handle: &Handle) -> Result<WayOut, Broken> {
    let first = line(node, handle).await?;
    Ok(begin(node, handle, Some(first)))
}

/// Goes on with the way out of a sandbox that an earlier process of this node made.
pub(super) fn reopen(node: &Node, handle: &Handle) -> WayOut {
    begin(node, handle, None)
}

fn begin(node: &Node, handle: &Handle, first: Option<EgressLine>) -> WayOut {
    let way = node.inner.egress.way(handle.id.clone(), Mode::Unrestricted);
    let stop = CancellationToken::new();
    let (node, handle, ended) = (node.clone(), handle.clone(), stop.clone());
    let tasks = node.inner.tasks.clone();
    tasks.spawn(async move {
        let bringing = bring(&node, &handle, &way, first, &ended);
        ended.run_until_cancelled(bringing).await;
    });
    WayOut {
        _stop: stop.drop_guard(),
    }
}

/// Keeps one line waiting as long as the sandbox may have one connection more.
async fn bring(
    node: &Node,
    handle: &Handle,
    way: &Way,
    mut ready: Option<EgressLine>,
    ended: &CancellationToken,
) {
    let mut pause = PAUSE_FIRST;
    loop {
        let place = way.place().await;
        let next = match ready.take() {
            Some(line) => Ok(line),
            None => line(node, handle).await,
        };
        let client = match next {
            Ok(line) => line.client().await.map_err(Broken::from),
            Err(error) => Err(error),
        };
        match client {
            Ok(client) => {
                pause = PAUSE_FIRST;
                let serving = match client {
                    EgressClient::Proxied(client) => way.clone().serve(place, client),
                    EgressClient::Direct(client) => way.clone().serve_direct(place, client),
                };
                let ended = ended.clone();
                let serving = async move { ended.run_until_cancelled(serving).await };
                node.inner.tasks.spawn(serving);
            }
            Err(error) => {
                let error = chain(&error);
                tracing::debug!(sandbox.id = %handle.id, error, "a line to a sandbox broke");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MOST);
            }
        }
    }
}

async fn line(node: &Node, handle: &Handle) -> Result<EgressLine, Broken> {
    let connecting = async {
        let stream = node.inner.driver.connect(handle).await?;
        Ok(driver::guest::egress_line(stream).await?)
    };
    let line = tokio::time::timeout(PATIENCE, connecting).await;
    line.unwrap_or(Err(Broken::Silent))
}

/// What the programs inside find in their environment. Those that are made to look there use the proxy; what
/// is inside stays inside. Lower and upper case, because each is the only one for somebody.
pub(super) fn environment() -> impl Iterator<Item = (String, String)> {
    const NONE: &str = "localhost,127.0.0.1,::1";
    let proxy = format!("http://127.0.0.1:{EGRESS_PORT}");
    let through = [
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ];
    let own = [
        ("no_proxy", NONE),
        ("NO_PROXY", NONE),
        // Node.js looks at the variables above only if it is told to.
        ("NODE_USE_ENV_PROXY", "1"),
    ];
    let through = through.map(|name| (name.to_owned(), proxy.clone()));
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    through.into_iter().chain(own)
}

/// Says in the sandbox's clauses what the network is now.
pub(super) fn describe(enforcement: &mut [Enforced]) {
    for clause in enforcement.iter_mut().filter(|one| one.clause == "network") {
        clause.how.push_str(", egress proxy");
        clause.value = Some("unrestricted".to_owned());
        clause.asked = true;
    }
}

/// How many connections to the outside all sandboxes may have together: their descriptors are at most half of
/// what this process may open, because the other half is its database, its doors and its guests. First allows
/// itself all that it may have.
pub(crate) fn connections() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where that is refused, the bound is smaller.
    let _ = setrlimit(Resource::Nofile, limit);
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files / 4).unwrap_or(usize::MAX)
}

/// Tells the log what was let out and what was not, as it happens.
pub(crate) async fn log(node: &Node) {
    let mut records = node.inner.egress_records.lock().await;
    while let Some(record) = records.recv().await {
        log_one(&record);
    }
}

fn log_one(record: &EgressRecord) {
    let (verdict, reason) = match record.verdict {
        Verdict::Allowed => ("allowed", ""),
        Verdict::Denied(reason) => ("denied", reason.code()),
        Verdict::Failed(reason) => ("failed", reason.code()),
    };
    tracing::debug!(
        sandbox.id = %record.sandbox,
        method = record.method.as_str(),
        host = record.host.as_ref().map(tracing::field::display),
        port = record.port,
        address = record.address.map(tracing::field::display),
        verdict,
        reason,
        bytes_out = record.bytes_out,
        bytes_in = record.bytes_in,
        duration_ms = record.duration_ms,
        "egress"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_of_the_proxy_and_to_leave_the_loopback_alone() {
        let all: Vec<_> = environment().collect();
        let value = |name: &str| {
            let found = all.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(value("https_proxy"), Some("http://127.0.0.1:3128"));
        assert_eq!(value("HTTP_PROXY"), value("https_proxy"));
        assert_eq!(value("no_proxy"), Some("localhost,127.0.0.1,::1"));
    }
}

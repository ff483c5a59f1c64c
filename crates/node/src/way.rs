//! The way out of a sandbox, of one that lives on or of a job: the node brings lines to its guest, one at a time, and serves what
//! clients inside say on them with the node's proxy.
//!
//! The node always connects, the guest never: so it works the same with every driver. Of it only how much has passed is
//! written down, because a line that is lost is brought again; what a killed node carried is cut, and its successor
//! begins with a new line.

use crate::job::{Broken, chain};
use crate::{Node, passed, record, sandbox};
use ::egress::inspect::Inspector;
use ::egress::proxy::{Place, Serving, Way};
use ::egress::record::Owner;
use api::job::Enforced;
use driver::driver::Handle;
use driver::guest::direct as asked;
use driver::guest::message::EGRESS_PORT;
use driver::guest::{EgressClient, EgressLine, socket};
use driver::host::Host;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use model::id::JobId;
use model::network::NetworkRules;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::{Duration, Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

const _: () = assert!(EGRESS_PORT == ::egress::PORT);
// The guest's words for what the proxy reads.
const _: () = assert!(asked::CONNECT == ::egress::direct::CONNECT);
const _: () = assert!(asked::RESOLVE == ::egress::direct::RESOLVE);
const _: () = assert!(asked::NAME == ::egress::direct::NAME);
const _: () = assert!(asked::DATAGRAM == ::egress::direct::DATAGRAM);
const _: () = assert!(asked::OTHER == ::egress::direct::OTHER);
const _: () = assert!(asked::BOTH == ::egress::direct::BOTH);
const _: () = assert!(asked::YES == ::egress::direct::YES);
const _: () = assert!(asked::DENIED == ::egress::direct::DENIED);
const _: () = assert!(asked::UNKNOWN == ::egress::direct::UNKNOWN);
const _: () = assert!(asked::FAILED == ::egress::direct::FAILED);
const _: () = assert!(asked::TTL_S == ::egress::direct::TTL_S);

/// A guest answers at once; one that does not is asked again.
const PATIENCE: Duration = Duration::from_secs(5);

/// A device is made in a millisecond, if the machine is not full.
const PREPARE: Duration = Duration::from_secs(20);

/// Between two tries to bring a line, at first and at most. A guest that hangs up on each line costs no more.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_MOST: Duration = Duration::from_secs(2);

/// A line that was taken sooner after it was brought was waited for.
const AT_ONCE: Duration = Duration::from_millis(2);

/// Lines of one sandbox that wait. More are not faster with a few processors, and the guest keeps eight.
const LINES_MAX: usize = 4;

/// A way out that is open, with everything on it until this is dropped.
#[derive(Debug)]
pub(crate) struct WayOut {
    way: Way,
    _stop: DropGuard,
}

impl WayOut {
    /// Other rules, and with them what looks into requests, where that is another: what they do not allow any more is
    /// cut.
    pub(crate) fn set(&self, rules: NetworkRules, inspector: Option<Inspector>) {
        self.way.set(rules, inspector);
    }

    /// Whether it can look into requests.
    pub(crate) fn can_look(&self) -> bool {
        self.way.can_look()
    }
}

/// Opens the way out. When this returns, clients inside can use it.
pub(crate) async fn open(
    node: &Node,
    handle: &Handle,
    job: Option<JobId>,
    (rules, inspector): (NetworkRules, Option<Inspector>),
) -> Result<WayOut, Broken> {
    let first = line(node, handle).await?;
    let first = First {
        line: Some(first),
        inspector: inspector.map(|inspector| Box::pin(async { inspector }) as Coming),
    };
    Ok(begin(node, handle, (job, rules), first))
}

/// What looks into HTTPS, once it is there.
pub(crate) type Coming = Pin<Box<dyn Future<Output = Inspector> + Send>>;

/// With what a way out begins.
struct First {
    line: Option<EgressLine>,
    /// Nothing is served before it is there.
    inspector: Option<Coming>,
}

/// Opens a way out that clients inside need not find at once: of a sandbox that an earlier process of this node
/// made, or of one that had none until now. It is tried until the guest takes it.
pub(crate) fn reopen(
    node: &Node,
    handle: &Handle,
    job: Option<JobId>,
    (rules, inspector): (NetworkRules, Option<Coming>),
) -> WayOut {
    let first = First {
        line: None,
        inspector,
    };
    begin(node, handle, (job, rules), first)
}

fn begin(
    node: &Node,
    handle: &Handle,
    (job, rules): (Option<JobId>, NetworkRules),
    first: First,
) -> WayOut {
    let owner = Owner {
        sandbox: handle.id.clone(),
        job,
    };
    let dir = dir_of(node, &owner);
    let way = node.inner.egress.way(owner, rules);
    // Before anything is served by it.
    way.go_on_from(dir.as_deref().map_or(0, passed::read));
    let held = way.clone();
    let stop = CancellationToken::new();
    let (node, handle, ended) = (node.clone(), handle.clone(), stop.clone());
    let tasks = node.inner.tasks.clone();
    tasks.spawn(async move {
        let bringing = async {
            if let Some(coming) = first.inspector {
                way.look_into(coming.await);
            }
            bring(&node, &handle, &way, first.line, &ended).await;
        };
        let keeping = async {
            match &dir {
                Some(dir) => passed::keep(&way, dir).await,
                None => std::future::pending().await,
            }
        };
        let both = async { tokio::join!(bringing, keeping) };
        ended.run_until_cancelled(both).await;
    });
    WayOut {
        way: held,
        _stop: stop.drop_guard(),
    }
}

/// Where the record of the sandbox or the job is, beside which is written down what passes.
fn dir_of(node: &Node, owner: &Owner) -> Option<PathBuf> {
    match &owner.job {
        Some(job) => record::dir_of(&node.inner.config.dir, job.as_str()),
        None => sandbox::dir_of(node, owner.sandbox.as_str()),
    }
}

/// Keeps a line waiting as long as the sandbox may have one connection more, and several where clients come one
/// upon the other: to bring one takes several turns of two processes, which then go on at the same time.
async fn bring(
    node: &Node,
    handle: &Handle,
    way: &Way,
    mut ready: Option<EgressLine>,
    ended: &CancellationToken,
) {
    let (mut pause, mut wanted) = (PAUSE_FIRST, 1);
    let mut waiting = FuturesUnordered::new();
    loop {
        while waiting.len() < wanted {
            waiting.push(client(node, handle, way, ready.take()));
        }
        match waiting.next().await {
            Some(Ok((place, client, waited))) => {
                pause = PAUSE_FIRST;
                wanted = if waited < AT_ONCE {
                    LINES_MAX.min(wanted + 1)
                } else {
                    1.max(wanted - 1)
                };
                let (ended, serving) = (ended.clone(), serve(way.clone(), place, client));
                let serving = async move { ended.run_until_cancelled(serving).await };
                node.inner.tasks.spawn(serving);
            }
            Some(Err(error)) => {
                let error = chain(&error);
                tracing::debug!(sandbox.id = %handle.id, error, "a line to a sandbox broke");
                wanted = 1;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MOST);
            }
            // There is always one that is waited for.
            None => {}
        }
    }
}

/// A client of the sandbox, its place among all, and how long its line waited for it.
async fn client(
    node: &Node,
    handle: &Handle,
    way: &Way,
    ready: Option<EgressLine>,
) -> Result<(Place, EgressClient, Duration), Broken> {
    let place = way.place().await;
    let line = match ready {
        Some(line) => line,
        None => line(node, handle).await?,
    };
    let since = Instant::now();
    let client = line.client().await?;
    Ok((place, client, since.elapsed()))
}

/// Serves a client, on the socket itself where there is one, so that what a tunnel carries need not pass through here.
fn serve(way: Way, place: Place, client: EgressClient) -> Serving {
    match client {
        EgressClient::Proxied(first, client) => match socket(client) {
            Ok(client) => way.serve(place, (first, client)),
            Err(client) => way.serve(place, (first, client)),
        },
        EgressClient::Direct(first, client) => match socket(client) {
            Ok(client) => way.serve_direct(place, (first, client)),
            Err(client) => way.serve_direct(place, (first, client)),
        },
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

/// Gives a sandbox that was made without a way out what programs need that know no proxy, where this machine has
/// it. Before the first line. May be repeated.
///
/// # Errors
/// It cannot be given, and then nothing is to be let out: the record would say what is not so.
pub(crate) async fn prepare(node: &Node, handle: &Handle) -> Result<(), Broken> {
    if node.inner.host.no_tun.is_none() {
        let making = node.inner.driver.network(handle);
        let made = tokio::time::timeout(PREPARE, making).await;
        made.map_err(|_| Broken::Silent)??;
    }
    Ok(())
}

/// Says in the clauses of a sandbox what its network is now: one that had no way out and is to have one now was
/// prepared for it.
pub(crate) fn describe(enforcement: &mut [Enforced], rules: &NetworkRules, host: &Host) {
    const PROXY: &str = ", egress proxy";
    for clause in enforcement.iter_mut().filter(|one| one.clause == "network") {
        let mut bare = clause.how.trim_end_matches(PROXY).to_owned();
        // Of a sandbox that has the proxy alone since an older build, that stays true.
        if rules.has_way_out() && bare == host.network(false) && bare == clause.how {
            bare = host.network(true);
        }
        clause.how = if rules.has_way_out() {
            bare + PROXY
        } else {
            bare
        };
        clause.value = Some(in_words(rules));
        clause.asked = rules.has_way_out();
    }
}

fn in_words(rules: &NetworkRules) -> String {
    let counted = |count: usize, what: &str| (count > 0).then(|| format!("{count} {what}"));
    let parts = [
        counted(rules.allow.len(), "allowed"),
        counted(rules.presets.len(), "presets"),
        counted(rules.deny.len(), "denied"),
        counted(
            rules.requests.len() + rules.profile_requests.len(),
            "about requests",
        ),
        counted(rules.dependencies.count(), "packages"),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        rules.mode.to_string()
    } else {
        format!("{}: {}", rules.mode, parts.join(", "))
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

#[cfg(test)]
mod tests {
    use super::*;
    use model::network::{NetworkAsked, NetworkMode};

    #[test]
    fn the_clause_says_what_holds_however_often_it_changes() {
        let host = Host {
            no_tun: None,
            ..Host::probe_for_jobs()
        };
        let mut clauses = vec![Enforced {
            clause: "network".to_owned(),
            how: "network namespace".to_owned(),
            value: Some("none".to_owned()),
            asked: false,
            state: api::job::EnforcedState::Held,
        }];
        let asked = NetworkAsked {
            mode: Some(NetworkMode::Allowlist),
            allow: vec!["a.example".to_owned()],
            deny: vec!["b.a.example".to_owned()],
            ..NetworkAsked::default()
        };
        let list = NetworkRules::read(&asked).unwrap();
        for (rules, how, value) in [
            (
                &list,
                "network namespace, TUN device, DNS inside, egress proxy",
                "allowlist: 1 allowed, 1 denied",
            ),
            (
                &NetworkRules::all_or_nothing(true),
                "network namespace, TUN device, DNS inside, egress proxy",
                "unrestricted",
            ),
            (
                &NetworkRules::default(),
                "network namespace, TUN device, DNS inside",
                "none",
            ),
            (
                &list,
                "network namespace, TUN device, DNS inside, egress proxy",
                "allowlist: 1 allowed, 1 denied",
            ),
        ] {
            describe(&mut clauses, rules, &host);
            assert_eq!(
                (clauses[0].how.as_str(), clauses[0].value.as_deref()),
                (how, Some(value))
            );
        }
    }
}

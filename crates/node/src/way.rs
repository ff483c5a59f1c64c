//! The way out of a sandbox, of one that lives on or of a job: the node brings lines to its guest, one at a time, and serves what
//! clients inside say on them with the node's proxy.
//!
//! The node always connects, the guest never: so it works the same with every driver. Nothing of it is written
//! down, because a line that is lost is brought again; what a killed node carried is cut, and its successor
//! begins with a new line.

use crate::Node;
use crate::job::{Broken, chain};
use ::egress::inspect::Inspector;
use ::egress::proxy::Way;
use ::egress::record::Owner;
use api::job::Enforced;
use driver::driver::Handle;
use driver::guest::direct as asked;
use driver::guest::message::EGRESS_PORT;
use driver::guest::{EgressClient, EgressLine};
use model::id::JobId;
use model::network::NetworkRules;
use std::pin::Pin;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

const _: () = assert!(EGRESS_PORT == ::egress::PORT);
// The guest's words for what the proxy reads.
const _: () = assert!(asked::CONNECT == ::egress::direct::CONNECT);
const _: () = assert!(asked::RESOLVE == ::egress::direct::RESOLVE);
const _: () = assert!(asked::YES == ::egress::direct::YES);
const _: () = assert!(asked::DENIED == ::egress::direct::DENIED);
const _: () = assert!(asked::UNKNOWN == ::egress::direct::UNKNOWN);
const _: () = assert!(asked::FAILED == ::egress::direct::FAILED);

/// A guest answers at once; one that does not is asked again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two tries to bring a line, at first and at most. A guest that hangs up on each line costs no more.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_MOST: Duration = Duration::from_secs(2);

/// A way out that is open, with everything on it until this is dropped.
#[derive(Debug)]
pub(crate) struct WayOut {
    way: Way,
    _stop: DropGuard,
}

impl WayOut {
    /// Other rules: what they do not allow any more is cut.
    pub(crate) fn set_rules(&self, rules: NetworkRules) {
        self.way.set_rules(rules);
    }

    /// Whether it can look into requests.
    pub(crate) fn can_look(&self) -> bool {
        self.way.can_look()
    }

    /// From now on it can. Rules that ask for it come after this.
    pub(crate) fn look_into(&self, inspector: Inspector) {
        self.way.look_into(inspector);
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
    let way = node.inner.egress.way(owner, rules);
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
        ended.run_until_cancelled(bringing).await;
    });
    WayOut {
        way: held,
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

/// Says in the clauses of a sandbox what its network is now.
pub(crate) fn describe(enforcement: &mut [Enforced], rules: &NetworkRules) {
    const PROXY: &str = ", egress proxy";
    for clause in enforcement.iter_mut().filter(|one| one.clause == "network") {
        let bare = clause.how.trim_end_matches(PROXY).to_owned();
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
        counted(rules.requests.len(), "about requests"),
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
                "network namespace, egress proxy",
                "allowlist: 1 allowed, 1 denied",
            ),
            (
                &NetworkRules::all_or_nothing(true),
                "network namespace, egress proxy",
                "unrestricted",
            ),
            (&NetworkRules::default(), "network namespace", "none"),
            (
                &list,
                "network namespace, egress proxy",
                "allowlist: 1 allowed, 1 denied",
            ),
        ] {
            describe(&mut clauses, rules);
            assert_eq!(
                (clauses[0].how.as_str(), clauses[0].value.as_deref()),
                (how, Some(value))
            );
        }
    }
}

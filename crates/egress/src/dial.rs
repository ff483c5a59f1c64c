//! From a target to a connection: resolved once, every address checked, and one of the checked ones dialled.

use crate::decide::{Ask, Decision, Ground, Refusal, check_upstream, could_dial, decide, precheck};
use crate::direct::TTL_S;
use crate::inspect;
use crate::outside::Outside;
use crate::proxy::Way;
use crate::reason::Reason;
use crate::record::Recording;
use crate::target::Target;
use crate::traffic::Counted;
use crate::upstream::{self, secure};
use model::host::Host;
use model::network::{Denial, How, Upstream};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;

/// How long one address may take to answer: three tries of TCP, which come after 1 and 3 seconds.
const ONE_PATIENCE: Duration = Duration::from_secs(8);

/// How long all addresses of a name may take.
const ALL_PATIENCE: Duration = Duration::from_secs(20);

/// Connects to the target, or says why not.
pub(crate) async fn reach(
    way: &Way,
    how: How<'_>,
    target: &Target,
    recording: &mut Recording,
) -> Result<Counted<Outside>, Refusal> {
    recording.asks(target);
    let reached = match decided(way, how, target).await {
        Ok((dial, rule)) => {
            recording.by(rule);
            match &way.rules().upstream {
                None => match connect(&dial).await {
                    Ok((socket, address)) => Ok((Outside::Bare(socket), address)),
                    Err(reason) => Err(reason.into()),
                },
                Some(upstream) => through(way, upstream, &dial).await,
            }
        }
        Err(refusal) => Err(refusal),
    };
    match reached {
        Ok((io, address)) => {
            recording.dialled(address);
            recording.allowed();
            let traffic = recording.traffic.clone();
            Ok(Counted { io, traffic })
        }
        Err(refusal) => Err(recording.denied(refusal)),
    }
}

/// Connects to where an index gets its packages, which the sandbox has not asked for: what the rules deny stays denied,
/// and what is closed stays closed. The record names a source that cannot be reached; the program inside, which knows
/// the index alone, is not told where its node gets packages.
pub(crate) async fn reach_source(
    way: &Way,
    target: &Target,
    recording: &mut Recording,
) -> Result<Counted<Outside>, Refusal> {
    match dial_source(way, target).await {
        Ok((io, address)) => {
            recording.dialled(address);
            let traffic = recording.traffic.clone();
            Ok(Counted { io, traffic })
        }
        Err(refusal) => {
            recording.by(format!("source {}:{}", target.host, target.port));
            Err(refusal)
        }
    }
}

async fn dial_source(way: &Way, target: &Target) -> Result<(Outside, SocketAddr), Refusal> {
    let addresses = way.resolve_unasked(&target.host).await?;
    let rules = way.rules();
    if let Some(entry) = rules.denies(&target.host, target.port, &addresses) {
        return Err(Refusal {
            reason: Reason::Rules(Denial::Denied),
            rule: Some(format!("deny {entry}")),
        });
    }
    let own = own(way)?;
    let ground = Ground {
        exceptions: way.exceptions(),
        own: &own,
    };
    let dial = check_upstream(ground, target.port, &addresses)?;
    match &rules.upstream {
        None => {
            let (socket, address) = connect(&dial).await?;
            Ok((Outside::Bare(socket), address))
        }
        Some(upstream) => through(way, upstream, &dial).await,
    }
}

/// What a name's addresses are of, as far as somebody inside has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Families {
    /// None that could be dialled is of IPv6.
    Ipv4,
    /// Some are.
    Both,
}

/// Whether there is such a name, and no rule is against it. Which of its addresses may be dialled is decided when
/// somebody connects.
pub(crate) async fn known(
    way: &Way,
    host: &Host,
    recording: &mut Recording,
) -> Result<Families, Refusal> {
    let found = async {
        way.check_caps()?;
        // By what can be said of it at all: requests to a host that is looked into are judged when they come.
        let how = if way.looks_into_host(host) {
            inspect::READS
        } else {
            How::Tunnel
        };
        let verdict = way.rules().at_any_port(how, host);
        if let Some(refusal) = Refusal::of(&verdict) {
            return Err(refusal);
        }
        recording.by(verdict.rule.to_string());
        if way.has_index(host) {
            return Ok(Families::Ipv4);
        }
        let addresses = way.resolve(host).await?;
        if addresses.is_empty() {
            return Err(Reason::UnknownName.into());
        }
        families(way, &addresses, recording)
    };
    let found = found.await;
    match found {
        Ok(families) => {
            recording.allowed();
            recording.may_be_kept(TTL_S);
            Ok(families)
        }
        Err(refusal) => Err(recording.denied(refusal)),
    }
}

fn families(
    way: &Way,
    addresses: &[IpAddr],
    recording: &mut Recording,
) -> Result<Families, Refusal> {
    let own = own(way)?;
    let ground = Ground {
        exceptions: way.exceptions(),
        own: &own,
    };
    let open = could_dial(ground, addresses);
    recording.found(&open, addresses.len());
    Ok(match open.iter().any(IpAddr::is_ipv6) {
        true => Families::Both,
        false => Families::Ipv4,
    })
}

fn own(way: &Way) -> Result<Vec<IpAddr>, Reason> {
    way.own_addresses().map_err(|error| {
        tracing::error!(%error, "the addresses of this machine cannot be read; nothing is let out");
        Reason::Internal
    })
}

async fn decided(
    way: &Way,
    how: How<'_>,
    target: &Target,
) -> Result<(Vec<SocketAddr>, String), Refusal> {
    way.check_caps()?;
    let rules = way.rules();
    let ask = Ask {
        how,
        host: &target.host,
        port: target.port,
    };
    precheck(&rules, ask)?;
    let addresses = way.resolve(&target.host).await?;
    let own = own(way)?;
    let ground = Ground {
        exceptions: way.exceptions(),
        own: &own,
    };
    // By the rules as they are now: they may have changed while the name was resolved.
    match decide(&way.rules(), ground, ask, &addresses) {
        Decision::Allow { dial, rule } => Ok((dial, rule)),
        Decision::Deny(refusal) => Err(refusal),
    }
}

/// Connects by way of a proxy: to addresses that were checked, and by none that was not. Which of them it reached is
/// what counts as dialled.
async fn through(
    way: &Way,
    upstream: &Upstream,
    dial: &[SocketAddr],
) -> Result<(Outside, SocketAddr), Refusal> {
    let refused = |reason| Refusal {
        reason,
        rule: Some(format!("through {}", upstream.url())),
    };
    let (host, port) = upstream.place().ok_or(Reason::Internal)?;
    let addresses = way.resolve_unasked(&host).await;
    let addresses = addresses.map_err(|_| refused(Reason::Upstream))?;
    // A name that nobody denies may have an address that is denied.
    if let Some(entry) = way.rules().denies(&host, port, &addresses) {
        return Err(Refusal {
            reason: Reason::Rules(Denial::Denied),
            rule: Some(format!("deny {entry}, through {}", upstream.url())),
        });
    }
    let own = way.own_addresses().map_err(|_| Reason::Internal)?;
    let ground = Ground {
        exceptions: way.exceptions(),
        own: &own,
    };
    let proxies = check_upstream(ground, port, &addresses).map_err(refused)?;
    let password = way.password();
    let login = match (upstream.user(), &password) {
        (None, _) => None,
        (Some(user), Some(password)) => Some((user, password)),
        (Some(_), None) => return Err(refused(Reason::Upstream)),
    };
    let tls = secure::of(way, upstream).map_err(refused)?;
    let one_by_one = async {
        let mut last = Reason::Unreachable;
        for to in dial {
            let (socket, _) = connect(&proxies).await.map_err(|_| Reason::Upstream)?;
            let mut stream = match &tls {
                None => Outside::Bare(socket),
                Some(tls) => tls.over(socket).await?,
            };
            match upstream::ask(&mut stream, *to, login).await {
                Ok(()) => return Ok((stream, *to)),
                Err(reason) => last = reason,
            }
        }
        Err(last)
    };
    let all = tokio::time::timeout(ALL_PATIENCE, one_by_one).await;
    all.unwrap_or(Err(Reason::ConnectTimeout)).map_err(refused)
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

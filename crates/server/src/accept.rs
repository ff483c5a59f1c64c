//! The doors: taking connections and speaking HTTP/1.1 on them, through TLS where it was asked for.
//!
//! Every door has its own bound on connections, so that somebody who floods the TCP port cannot
//! lock the owner of the machine out of the Unix socket. A connection that does not send a request
//! head in time is closed, whether it is new or kept alive.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use service::Who;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::auth::{Bypass, Gate, Peer, TcpGate};
use crate::e2b::domain::Domain;
use crate::node_door::{NodeDoor, NodeGate, NodeProof};
use crate::tls::Tls;
use crate::{Shared, request};

/// Connections per door. A waiting request or a followed log holds one, so there must be many; each
/// costs some 20 KiB, so all of them cost less than 100 MB.
const CONNECTIONS_MAX: usize = 2048;
/// Of those at the door of nodes, the ones of which nobody knows whether they are nodes: so few that they cannot
/// keep nodes out, and enough for all machines that want to become one at a time.
const STRANGERS_MAX: usize = 128;
/// How long a connection may take to send a request head, and how long it may be silent between
/// two requests. The client's own limit for an idle connection is shorter (20 s).
const HEAD_DEADLINE: Duration = Duration::from_secs(30);
/// How long the head of a request may be. Browsers stop at 8 KiB of cookies; ours are below 1 KiB.
const HEAD_MAX_BYTES: usize = 32 * 1024;
/// How long to wait when the machine has no descriptors left, instead of spinning on `accept`.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// After a stop, how long answers under way may take before their connections are dropped.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(5);

/// A way in.
#[derive(Debug)]
pub enum Door {
    /// A Unix socket; peers with our uid, or root, come in.
    Unix(UnixListener),
    /// A TCP port; who has the token comes in as this process's user.
    Tcp {
        /// Where to listen.
        listener: TcpListener,
        /// What to know.
        token: api::client::Token,
        /// Below which sandboxes have names, beside `localhost`.
        domain: Option<Domain>,
        /// What is shown to clients; without it, they are spoken to in the clear.
        tls: Option<Tls>,
        /// In development, and on a loopback address: as whom who shows nothing comes in.
        bypass: Option<Bypass>,
    },
    /// A TCP port for nodes, and for them alone.
    Nodes(NodeDoor),
    /// Connections inside the process; who holds the other end of the channel is trusted.
    Memory {
        /// The server's ends of new connections.
        incoming: mpsc::Receiver<DuplexStream>,
        /// Who they stand for.
        peer: Peer,
    },
}

impl Door {
    /// Takes connections until the server stops or the door is gone.
    pub(crate) async fn run(self, shared: Shared) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        match self {
            Self::Unix(listener) => run_unix(&listener, &shared, &places).await,
            Self::Tcp {
                listener,
                token,
                domain,
                tls,
                bypass,
            } => {
                let (Ok(listen), Some(owner)) = (listener.local_addr(), owner()) else {
                    return;
                };
                let gate = TcpGate::new(token.text(), listen, owner);
                let gate = gate.named(domain, tls.is_some()).with_bypass(bypass);
                let gate = Gate::Tcp(gate);
                run_tcp(&listener, tls.as_ref(), &gate, &shared, &places).await;
            }
            Self::Nodes(NodeDoor { listener, proof }) => match proof {
                NodeProof::Certificate(tls) => {
                    let gate = Gate::Node(NodeGate::of(None));
                    run_tcp(&listener, Some(&tls), &gate, &shared, &places).await;
                }
                NodeProof::Shared(token) => {
                    let gate = Gate::Node(NodeGate::Shared(token));
                    run_tcp(&listener, None, &gate, &shared, &places).await;
                }
            },
            Self::Memory { incoming, peer } => run_memory(incoming, peer, &shared, &places).await,
        }
    }
}

async fn run_unix(listener: &UnixListener, shared: &Shared, places: &Arc<Semaphore>) {
    while let Some(place) = place(shared, places).await {
        let accepted = until_stopped(shared, listener.accept()).await;
        match accepted {
            None => return,
            Some(Ok((stream, _))) => {
                let gate = unix_gate(&stream);
                shared.spawn(connection(stream, (gate, None), shared.clone(), place));
            }
            Some(Err(error)) => pause(&error).await,
        }
    }
}

async fn run_tcp(
    listener: &TcpListener,
    tls: Option<&Tls>,
    gate: &Gate,
    shared: &Shared,
    places: &Arc<Semaphore>,
) {
    let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
    while let Some(place) = place(shared, places).await {
        // Before the connection is taken, so that those who wait for it cost us nothing.
        let shaking = match tls {
            None => None,
            Some(tls) => match until_stopped(shared, tls.place()).await.flatten() {
                None => return,
                Some(handshake) => Some((tls.clone(), handshake)),
            },
        };
        let accepted = until_stopped(shared, listener.accept()).await;
        match accepted {
            None => return,
            Some(Ok((stream, peer))) => {
                let source = Some(peer.ip());
                // Nagle's algorithm would hold the end of a short answer back for 40 ms.
                drop(stream.set_nodelay(true));
                let (gate, inner) = (gate.clone(), shared.clone());
                let strangers = Arc::clone(&strangers);
                match shaking {
                    None => shared.spawn(connection(stream, (gate, source), inner, place)),
                    Some((tls, handshake)) => shared.spawn(async move {
                        let shaken = until_stopped(&inner, tls.shake(stream, handshake)).await;
                        if let Some(stream) = shaken.flatten() {
                            let gate = gate.shown(stream.get_ref().1.peer_certificates());
                            let place = match gate.is_known(&inner.app).await {
                                true => place,
                                false => match strangers.try_acquire_owned() {
                                    Ok(place) => place,
                                    Err(_) => return,
                                },
                            };
                            connection(stream, (gate, source), inner, place).await;
                        }
                    }),
                }
            }
            Some(Err(error)) => pause(&error).await,
        }
    }
}

async fn run_memory(
    mut incoming: mpsc::Receiver<DuplexStream>,
    peer: Peer,
    shared: &Shared,
    places: &Arc<Semaphore>,
) {
    while let Some(place) = place(shared, places).await {
        let accepted = until_stopped(shared, incoming.recv()).await;
        let Some(Some(stream)) = accepted else { return };
        let gate = Gate::Known(peer.clone());
        shared.spawn(connection(stream, (gate, None), shared.clone(), place));
    }
}

/// Waits for room for one more connection; `None` when the server stops.
async fn place(shared: &Shared, places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    let place = until_stopped(shared, Arc::clone(places).acquire_owned()).await?;
    place.ok()
}

async fn until_stopped<T>(shared: &Shared, work: impl Future<Output = T>) -> Option<T> {
    shared.app.stopping.run_until_cancelled(work).await
}

async fn pause(error: &std::io::Error) {
    tracing::warn!(%error, "failed to accept a connection");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Speaks HTTP until the peer closes. When the server stops, the request under way is finished.
async fn connection<S>(
    stream: S,
    (gate, source): (Gate, Option<IpAddr>),
    shared: Shared,
    place: OwnedSemaphorePermit,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let _place = place;
    let _open = shared.app.metrics.connection();
    let stopping = shared.app.stopping.clone();
    let service = service_fn(move |request| {
        let answer = request::answer(shared.clone(), (gate.clone(), source), request);
        // In a place of its own: it holds what any route needs.
        let answer = Box::pin(answer);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_header_size(HEAD_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN_MAX, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        // A peer that vanishes is normal; it is worth a line only when somebody looks for it.
        tracing::debug!(%error, "a connection ended early");
    }
}

fn unix_gate(stream: &UnixStream) -> Gate {
    let own = rustix::process::geteuid().as_raw();
    stream
        .peer_cred()
        .map_or(Gate::Stranger, |peer| gate_of(peer.uid(), own))
}

/// Our own user, who could read our files anyway, and root, who can do everything anyway.
fn gate_of(uid: u32, own: u32) -> Gate {
    let who = owner_of(uid).filter(|_| uid == own || uid == 0);
    who.map_or(Gate::Stranger, |who| Gate::Known(Peer::User(who)))
}

/// Who this process is, and so whoever knows the token that only its user can read.
fn owner() -> Option<Who> {
    owner_of(rustix::process::geteuid().as_raw())
}

fn owner_of(uid: u32) -> Option<Who> {
    format!("uid:{uid}").parse().ok().map(Who::owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_user_and_root_pass_the_unix_socket() {
        for (uid, own, passes) in [
            (1000, 1000, true),
            (0, 1000, true),
            (1001, 1000, false),
            (1000, 0, false),
        ] {
            let known = matches!(gate_of(uid, own), Gate::Known(Peer::User(_)));
            assert_eq!(known, passes, "{uid} at the socket of {own}");
        }
    }
}

//! Servers on the same database, and the links of nodes that they borrow from each other.
//!
//! A row says which server holds the link of a node. A request at another one makes that dial the holder, once, at
//! the door of nodes and with a certificate of its own; then the connection is a link, and streams are opened on it
//! as if the node had dialled. The holder hands them to the link of the node that it has, and to nobody else: it
//! never asks a third server, so nothing can go round. What is told by a row that is late gets 421, and whoever asked
//! looks once more.
//!
//! The attackers here are those at the door of nodes, and a node: neither has a certificate that is in the table of
//! servers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::attach::LinkOpen;
use api::client::Client;
use api::fleet::PeerLinkQuery;
use api::link::{LinkClass, UPGRADE, open_streams_while_used, take_streams};
use api::{Code, ErrorBody};
use axum::extract::{Request, State};
use axum::response::Response;
use hyper_util::rt::TokioIo;
use model::id::{NodeId, ServerId};
use service::{LinkHeld, Service};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::App;
use crate::attach::{switching, upgrade_of};
use crate::error::Error;
use crate::extract::{PeerServer, Query};
use crate::links::{NoLink, WAITING_MAX};

/// How long another server may take until it lends a link: two round trips and a look at its database.
const LEND_MAX: Duration = Duration::from_secs(5);
/// How long a link is kept that nobody uses: long enough for who types, short beside a day with ten thousand nodes.
const UNUSED: Duration = Duration::from_secs(60);
/// After a link could not be had, whoever wants it too is told so at once for a moment: hundreds who wait for the
/// same server would else wait one after the other. A node needs about as long to dial another server.
const MISSING: Duration = Duration::from_millis(250);
/// Links that are remembered; past this, the ones that have ended are forgotten.
const REMEMBERED_MAX: usize = 4096;
/// Times that a row is looked at: the second time it has changed, or nothing has.
const LOOKS: usize = 2;

/// Dials the server that holds a link.
type DialHolder = dyn Fn(&LinkHeld) -> Option<Client> + Send + Sync;

/// The other servers, as this one sees them. Clones are the same.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    own: ServerId,
    service: Service,
    dial: Box<DialHolder>,
    borrowed: Mutex<HashMap<(NodeId, LinkClass), Slot>>,
}

/// One link: whoever wants it waits for whoever dials.
type Slot = Arc<tokio::sync::Mutex<Borrowed>>;

#[derive(Default)]
struct Borrowed {
    link: Option<mpsc::Sender<LinkOpen>>,
    missed: Option<Instant>,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Peers({})", self.0.own)
    }
}

impl Peers {
    /// This server is `own`; `dial` makes the client with which it asks another.
    pub fn new(
        own: ServerId,
        service: Service,
        dial: impl Fn(&LinkHeld) -> Option<Client> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner {
            own,
            service,
            dial: Box::new(dial),
            borrowed: Mutex::default(),
        }))
    }

    /// Which server this is.
    pub(crate) fn own(&self) -> &ServerId {
        &self.0.own
    }

    /// Opens a stream on the link of a node that another server holds.
    pub(crate) async fn open(
        &self,
        (node, class): (&NodeId, LinkClass),
        open: LinkOpen,
    ) -> Result<(), NoLink> {
        let gone = || NoLink(node.clone());
        let slot = self.slot(node, class);
        let mut borrowed = slot.lock().await;
        let open = match &borrowed.link {
            None => open,
            Some(link) => match link.try_send(open) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(_)) => return Err(gone()),
                Err(TrySendError::Closed(open)) => open,
            },
        };
        borrowed.link = None;
        let is_missing = borrowed.missed.is_some_and(|at| at.elapsed() < MISSING);
        let lent = match is_missing {
            true => None,
            false => self.borrow(node, class).await,
        };
        let Some(link) = lent else {
            if !is_missing {
                borrowed.missed = Some(Instant::now());
            }
            return Err(gone());
        };
        let sent = link.try_send(open).map_err(|_| gone());
        *borrowed = Borrowed {
            link: Some(link),
            missed: None,
        };
        sent
    }

    fn slot(&self, node: &NodeId, class: LinkClass) -> Slot {
        let mut all = self
            .0
            .borrowed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED_MAX {
            let is_used = |slot: &mut Slot| match slot.try_lock() {
                Ok(one) => one.link.as_ref().is_some_and(|link| !link.is_closed()),
                Err(_) => true,
            };
            all.retain(|_, slot| is_used(slot));
        }
        all.entry((node.clone(), class)).or_default().clone()
    }

    /// Gets the link from whoever holds it by its row; if that does not any more, from whoever the row names then.
    async fn borrow(&self, node: &NodeId, class: LinkClass) -> Option<mpsc::Sender<LinkOpen>> {
        let mut before = None;
        for _ in 0..LOOKS {
            let held = self.0.service.link_holder((node, class.as_str())).await;
            let held = held.ok().flatten()?;
            // A row about ourselves is late: the link was looked for here before.
            if held.server.id == self.0.own || before == Some(held.epoch) {
                return None;
            }
            before = Some(held.epoch);
            match tokio::time::timeout(LEND_MAX, self.dial(&held, node, class)).await {
                Ok(Ok(link)) => return Some(link),
                Ok(Err(why)) => {
                    tracing::info!(%node, server = %held.server.id, why, "a server does not lend a link");
                }
                Err(_) => {
                    tracing::info!(%node, server = %held.server.id, "a server does not answer")
                }
            }
        }
        None
    }

    async fn dial(
        &self,
        held: &LinkHeld,
        node: &NodeId,
        class: LinkClass,
    ) -> Result<mpsc::Sender<LinkOpen>, String> {
        let client = (self.0.dial)(held).ok_or("nobody can dial it")?;
        let lent = client.peer_link(held.server.id.as_str(), node.as_str(), class);
        let io = lent.await.map_err(|error| error.to_string())?;
        let (link, opens) = mpsc::channel(WAITING_MAX);
        let (node, server) = (node.clone(), held.server.id.clone());
        drop(tokio::spawn(async move {
            let end = open_streams_while_used(io, opens, Some(UNUSED)).await;
            tracing::debug!(%node, %server, class = class.as_str(), %end, "a borrowed link has ended");
        }));
        Ok(link)
    }
}

/// Lends the link of a node to another server: after the upgrade it is HTTP/2, on which that is the client.
#[utoipa::path(get, path = api::routes::PEER_LINK, tag = "node", operation_id = "peer_link",
    params(PeerLinkQuery),
    responses((status = 101, description = "HTTP/2 follows"),
              (status = 400, description = "There is no such class", body = ErrorBody),
              (status = 421, description = "This server does not hold it", body = ErrorBody),
              (status = 426, description = "The upgrade is missing", body = ErrorBody)))]
pub(crate) async fn link(
    State(app): State<App>,
    PeerServer(asks): PeerServer,
    Query(query): Query<PeerLinkQuery>,
    mut request: Request,
) -> Result<Response, Error> {
    let class = LinkClass::parse(&query.class);
    let wrong = || Error::field(Code::InvalidArgument, "class", "is `interactive` or `bulk`");
    let class = class.ok_or_else(wrong)?;
    let elsewhere = || Error::new(Code::LinkElsewhere, "this server does not hold the link");
    let is_meant = |peers: &Peers| peers.own().as_str() == query.server;
    let node = query.node.parse::<NodeId>().ok();
    let node = node.filter(|_| app.links.peers().is_some_and(is_meant));
    let node = node.ok_or_else(elsewhere)?;
    let held = app.links.here(&node, class).ok_or_else(elsewhere)?;
    let upgrade = upgrade_of(&mut request, UPGRADE)?;
    let tasks = app.tasks.clone();
    drop(tasks.spawn(async move {
        let Ok(io) = upgrade.await else { return };
        tokio::select! {
            end = take_streams(TokioIo::new(io), &held) => {
                tracing::debug!(%node, server = %asks, %end, "a link is not lent any more");
            }
            // All its streams have ended with it; whoever borrows it is to look who has the next one.
            () = held.closed() => {}
            () = app.stopping.cancelled() => {}
        }
    }));
    Ok(switching(UPGRADE))
}

/// Between two tries to write who holds a link, while the database does not answer.
const WRITE_PAUSE: Duration = Duration::from_secs(1);

/// Writes that this server holds the link of a node, and that it does not any more when this is [`LinkNote::over`].
#[derive(Debug)]
pub(crate) struct LinkNote {
    node: NodeId,
    class: LinkClass,
    /// Under way. It is carried out also where nobody waits for it any more, because the link has ended.
    writing: Option<JoinHandle<Result<u64, service::Error>>>,
    epoch: Option<u64>,
}

/// How often a link that goes on is looked after: a server that was silent for long has lost its rows.
const LINK_LOOK: Duration = Duration::from_secs(30);

impl LinkNote {
    pub(crate) fn new(node: &NodeId, class: LinkClass) -> Self {
        Self {
            node: node.clone(),
            class,
            writing: None,
            epoch: None,
        }
    }

    /// Writes it, when the link is there already: whoever reads the row comes for it at once. Never returns, so
    /// that it can run beside the link.
    pub(crate) async fn write(&mut self, app: &App) {
        while let Some(peers) = app.links.peers() {
            let (service, own) = (app.service.clone(), peers.own().clone());
            let (node, class) = (self.node.clone(), self.class.as_str());
            let writing = async move { service.link_opened((&node, class), &own).await };
            let written = self.writing.insert(tokio::spawn(writing)).await;
            self.writing = None;
            match written {
                Ok(Ok(epoch)) => {
                    self.epoch = Some(epoch);
                    self.look_after(app, epoch, peers.own()).await;
                }
                Ok(Err(error)) => {
                    tracing::warn!(error = error.cause(), "failed to write who holds a link");
                }
                Err(error) => tracing::error!(%error, "failed to write who holds a link"),
            }
            tokio::time::sleep(WRITE_PAUSE).await;
        }
        std::future::pending().await
    }

    /// Never returns.
    async fn look_after(&self, app: &App, epoch: u64, own: &ServerId) {
        loop {
            tokio::time::sleep(LINK_LOOK).await;
            let link = (&self.node, self.class.as_str());
            if let Err(error) = app.service.link_goes_on(link, epoch, own).await {
                tracing::debug!(error = error.cause(), "failed to look after a link");
            }
        }
    }

    /// The link has ended. If we die before this, the row is late, which 421 is for.
    pub(crate) async fn over(self, app: &App) {
        let mut epoch = self.epoch;
        if let Some(writing) = self.writing {
            epoch = writing.await.ok().and_then(Result::ok);
        }
        let Some(epoch) = epoch else { return };
        let link = (&self.node, self.class.as_str());
        if let Err(error) = app.service.link_closed(link, epoch).await {
            tracing::debug!(
                error = error.cause(),
                "failed to write that a link has ended"
            );
        }
    }
}

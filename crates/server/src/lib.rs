//! The doors: REST for people and programs, the node protocol, the raw streams of attached jobs, tools for
//! models, and what E2B's clients speak.
//!
//! Enters: bytes from the network, from other users of the machine, from web pages, from nodes.
//! Leaves: one call into `service` per request, and its answer in the words of `api`.
//!
//! A handler reads, converts, calls the service once, converts back. What may be done is decided in
//! `service`; what things mean is decided in `model`. This room must never open the database, never
//! decide about a job, and never let an error out that has no stable code. Bad input is never 500.
//!
//! Reading order: [`accept`](Door) takes connections, `tls` shakes hands on some, `auth` lets requests in, `rates` bounds how many, `request` is around
//! every one, `lent` keeps connections on which a body was refused, `extract` reads what handlers need, `http/` and
//! `node_api` are the handlers,
//! `convert/` knows both languages, `upload` and `download` carry files, `attach` and [`Links`] carry
//! streams, `peers` those of nodes whose link another server holds. `e2b/` is a door of its own on the same connections. `build` is no door: it carries builds of
//! profiles out, with the same links.

mod accept;
mod attach;
mod auth;
mod build;
mod convert;
mod download;
mod e2b;
#[cfg(test)]
#[path = "../../../fuzz/engine.rs"]
mod engine;
mod error;
mod extract;
#[cfg(test)]
mod fuzz;
mod http;
mod lent;
mod links;
mod metrics;
mod node_api;
mod node_door;
mod node_join;
mod peers;
mod rates;
mod request;
mod site;
mod tls;
mod upload;

use std::sync::Arc;

use axum::Router;
use service::Service;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use crate::accept::Door;
pub use crate::auth::{Bypass, Peer};
pub use crate::build::carry_builds;
pub use crate::e2b::domain::{BadDomain, Domain};
pub use crate::e2b::keys::api_key as e2b_api_key;
pub use crate::http::document;
pub use crate::links::{Links, NoLink};
pub use crate::node_door::{NodeDoor, NodeProof, shared_token};
pub use crate::peers::Peers;
pub use crate::request::TOLD_OF_NODES;
pub use crate::tls::{BadCertificate, Tls};
pub use api::attach::{LinkOpen, LinkTarget};

use crate::metrics::Metrics;
use crate::request::RequestIds;
use crate::site::Site;

/// What every handler can reach.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) service: Service,
    pub(crate) links: Links,
    pub(crate) metrics: Metrics,
    /// How often each may ask.
    pub(crate) buckets: rates::Buckets,
    pub(crate) stopping: CancellationToken,
    pub(crate) tasks: TaskTracker,
    /// Places for attached clients.
    pub(crate) attached: Arc<Semaphore>,
    /// Where it is found over TCP.
    pub(crate) site: Option<Site>,
    /// Places for connections to guests.
    pub(crate) places: e2b::places::Places,
    pub(crate) idle: e2b::idle::Idle,
    /// Places for searches of who signed a request.
    pub(crate) searches: Arc<Semaphore>,
    /// Tools for models.
    pub(crate) mcp: http::mcp::Mcp,
}

/// What every connection can reach.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) app: App,
    pub(crate) router: Router,
    pub(crate) e2b: Router,
    pub(crate) request_ids: Arc<RequestIds>,
}

impl Shared {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.app.tasks.spawn(task));
    }
}

/// Answers requests at all doors until `stop`, then lets what is under way finish for a moment.
///
/// Returns when every connection is closed, or when the moment is over.
pub async fn serve(service: Service, links: Links, doors: Vec<Door>, stop: CancellationToken) {
    let tasks = TaskTracker::new();
    let (mcp, mut wanted) = http::mcp::Mcp::new(stop.clone());
    let metrics = Metrics::new();
    let app = App {
        buckets: rates::Buckets::new(service.rates(), metrics.clone()),
        service,
        links,
        metrics,
        stopping: stop.clone(),
        tasks,
        attached: Arc::new(Semaphore::new(attach::ATTACHED_MAX)),
        site: Site::of(&doors),
        places: e2b::places::Places::default(),
        idle: e2b::idle::Idle::default(),
        searches: Arc::new(e2b::find::searches()),
        mcp,
    };
    let shared = Shared {
        router: http::router(app.clone()),
        e2b: e2b::router(app.clone()),
        app,
        request_ids: Arc::new(RequestIds::new()),
    };
    for door in doors {
        shared.spawn(door.run(shared.clone()));
    }
    // Doors of those who call tools come later, one for each.
    while let Some(Some(door)) = stop.run_until_cancelled(wanted.recv()).await {
        shared.spawn(door.run(shared.clone()));
    }
    stop.cancelled().await;
    shared.app.tasks.close();
    let drained = tokio::time::timeout(accept::DRAIN_MAX, shared.app.tasks.wait()).await;
    if drained.is_err() {
        tracing::warn!("some connections did not end in time and are dropped");
    }
}

//! Names to addresses, so that who asks cannot hold up anybody else.

use crate::dns;
use crate::reason::Reason;
use model::host::Host;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// How long a name may take: two tries of five seconds, as resolvers make them, see `resolv.conf(5)`.
const PATIENCE: Duration = Duration::from_secs(10);

/// Names at one time on a node. Each holds a thread of the process until the system's resolver gives up, and
/// those threads are also what files are read with.
pub(crate) const OF_NODE_MAX: usize = 64;

/// Names at one time of one sandbox, so that one cannot take all of the above.
pub(crate) const OF_SANDBOX_MAX: usize = 8;

/// Addresses of one name that are looked at. A name with more is refused rather than cut: what was cut off
/// was not checked.
const ADDRESSES_MAX: usize = 64;

/// The addresses of a name, whoever knows them.
pub type Answering = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Who knows the addresses of names.
#[derive(Clone)]
pub struct Resolver {
    ask: Arc<dyn Fn(String) -> Answering + Send + Sync>,
    places: Arc<Semaphore>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl Resolver {
    /// The system's own, as every program of the node asks it.
    pub fn system() -> Resolver {
        Resolver::with(|name| {
            Box::pin(async move {
                let found = tokio::net::lookup_host((name, 0)).await?;
                Ok(found.map(|address| address.ip()).collect())
            })
        })
    }

    /// One that asks this function, which must not block.
    pub fn with(ask: impl Fn(String) -> Answering + Send + Sync + 'static) -> Resolver {
        let ask = Arc::new(ask);
        let places = Arc::new(Semaphore::new(OF_NODE_MAX));
        Resolver { ask, places }
    }

    /// All addresses of a host. `own` are the places of the sandbox that asks; one is held until the resolver
    /// has answered, even when nobody waits for it any more.
    pub(crate) async fn resolve(
        &self,
        host: &Host,
        own: &Arc<Semaphore>,
    ) -> Result<Vec<IpAddr>, Reason> {
        let ask = self.ask.clone();
        self.ask(host, own, move |name| ask(name)).await
    }

    /// The same by these servers of DNS, which were checked.
    pub(crate) async fn resolve_by(
        &self,
        host: &Host,
        own: &Arc<Semaphore>,
        servers: Vec<SocketAddr>,
    ) -> Result<Vec<IpAddr>, Reason> {
        let ask = move |name: String| -> Answering {
            Box::pin(async move { dns::addresses(&name, &servers).await })
        };
        self.ask(host, own, ask).await
    }

    async fn ask(
        &self,
        host: &Host,
        own: &Arc<Semaphore>,
        ask: impl FnOnce(String) -> Answering + Send + 'static,
    ) -> Result<Vec<IpAddr>, Reason> {
        let name = match host {
            Host::Address(address) => return Ok(vec![*address]),
            Host::Name(name) => name.clone(),
        };
        let (own, all) = (own.clone(), self.places.clone());
        let asking = async move {
            let held = (own.acquire_owned().await, all.acquire_owned().await);
            // In a task: a wait that is given up would free the places of a thread that is still busy.
            tokio::spawn(async move {
                let found = ask(name).await;
                drop(held);
                found
            })
            .await
        };
        match tokio::time::timeout(PATIENCE, asking).await {
            Err(_) => Err(Reason::ResolveTimeout),
            Ok(Ok(Ok(found))) if found.len() > ADDRESSES_MAX => Err(Reason::UnknownName),
            Ok(Ok(Ok(found))) => Ok(found),
            Ok(Ok(Err(_))) => Err(Reason::UnknownName),
            Ok(Err(_)) => Err(Reason::Internal),
        }
    }
}

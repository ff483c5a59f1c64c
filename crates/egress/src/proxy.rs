//! The proxy of a node, and the way out of each of its sandboxes.

use crate::answer;
use crate::decide::Mode;
use crate::exception::Exception;
use crate::host::Host;
use crate::names::Asked;
use crate::own::Own;
use crate::reason::Reason;
use crate::record::{Counts, EgressRecord, Method, Recorder, Recording};
use crate::resolve::{self, Resolver};
use crate::traffic::{Counted, Reread};
use crate::{direct, http, socks};
use bytes::{Bytes, BytesMut};
use model::id::SandboxId;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Connections of one sandbox at a time: a package manager has tens, a crawler hundreds. More wait inside.
pub const OF_SANDBOX_MAX: usize = 1024;

/// Connections of all sandboxes at a time. Each has two descriptors of the node and up to 256 KiB of its memory.
/// More are refused.
pub const OF_NODE_MAX: usize = 4096;

/// Records that wait to be taken: some seconds of a busy node.
const RECORDS_MAX: usize = 4096;

/// Bytes of one direction that are carried at once.
const CARRY_BYTES: usize = 64 * 1024;

/// The proxy of a node. Clones are the same.
#[derive(Debug, Clone)]
pub struct Proxy {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    exceptions: Vec<Exception>,
    own: Own,
    resolver: Resolver,
    recorder: Recorder,
    places: Arc<Semaphore>,
}

/// The way out of one sandbox, with its rules and its bounds. Clones are the same.
#[derive(Debug, Clone)]
pub struct Way {
    proxy: Proxy,
    sandbox: SandboxId,
    mode: Mode,
    places: Arc<Semaphore>,
    names: Arc<Semaphore>,
    asked: Arc<Asked>,
}

/// A connection that is served; boxed, because the compiler cannot see through all of HTTP that it may be sent.
pub type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The right to one connection of a sandbox.
#[derive(Debug)]
pub struct Place {
    _held: Option<OwnedSemaphorePermit>,
}

impl Proxy {
    /// A proxy for at most so many connections at a time, [`OF_NODE_MAX`] at most, and where its records come
    /// out. `now_ms` is the clock, in milliseconds since 1970.
    pub fn new(
        exceptions: Vec<Exception>,
        resolver: Resolver,
        connections: usize,
        now_ms: fn() -> u64,
    ) -> (Proxy, mpsc::Receiver<EgressRecord>) {
        let (to, records) = mpsc::channel(RECORDS_MAX);
        let counts = Arc::default();
        let inner = Inner {
            exceptions,
            own: Own::default(),
            resolver,
            recorder: Recorder { to, counts, now_ms },
            places: Arc::new(Semaphore::new(connections.min(OF_NODE_MAX))),
        };
        let inner = Arc::new(inner);
        (Proxy { inner }, records)
    }

    /// What it has done so far.
    pub fn counts(&self) -> &Counts {
        &self.inner.recorder.counts
    }

    /// The way out of a sandbox.
    pub fn way(&self, sandbox: SandboxId, mode: Mode) -> Way {
        Way {
            proxy: self.clone(),
            sandbox,
            mode,
            places: Arc::new(Semaphore::new(OF_SANDBOX_MAX)),
            names: Arc::new(Semaphore::new(resolve::OF_SANDBOX_MAX)),
            asked: Arc::default(),
        }
    }
}

impl Way {
    /// Waits until the sandbox may have one connection more.
    pub async fn place(&self) -> Place {
        // The semaphore is never closed.
        let held = self.places.clone().acquire_owned().await.ok();
        Place { _held: held }
    }

    /// Serves one connection of a client inside to its end: HTTP or SOCKS5, by its first byte. Everything that
    /// it began ends when this is dropped.
    pub fn serve<S>(self, place: Place, client: S) -> Serving
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Box::pin(async move {
            self.serve_one(client).await;
            drop(place);
        })
    }

    /// Serves one connection of the guest itself to its end, see [`direct`].
    pub fn serve_direct<S>(self, place: Place, client: S) -> Serving
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Box::pin(async move {
            let held = self.proxy.inner.places.clone().try_acquire_owned();
            match held {
                Ok(_held) => direct::serve(&self, client).await,
                // It ends, which says the same to the program as a refusal.
                Err(_) => self.record(Method::Direct).refused(Reason::TooMany),
            }
            drop(place);
        })
    }

    async fn serve_one<S>(self, mut client: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Ok(_held) = self.proxy.inner.places.clone().try_acquire_owned() else {
            self.record(Method::Http).refused(Reason::TooMany);
            let text = answer::unread(Reason::TooMany, "all sandboxes together have too many");
            drop(client.write_all(text.as_bytes()).await);
            return;
        };
        let mut first = BytesMut::with_capacity(1024);
        let reading = client.read_buf(&mut first);
        match tokio::time::timeout(http::HEAD_PATIENCE, reading).await {
            Ok(Ok(1..)) => {}
            // Nothing was asked, so there is nothing to record.
            Ok(Ok(0) | Err(_)) | Err(_) => return,
        }
        let first: Bytes = first.freeze();
        let is_socks = first.first() == Some(&socks::VERSION);
        let client = Reread { first, io: client };
        if is_socks {
            socks::serve(&self, client).await;
        } else {
            http::serve(&self, client).await;
        }
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    pub(crate) fn exceptions(&self) -> &[Exception] {
        &self.proxy.inner.exceptions
    }

    pub(crate) fn own_addresses(&self) -> io::Result<Vec<IpAddr>> {
        self.proxy.inner.own.addresses()
    }

    pub(crate) async fn resolve(&self, host: &Host) -> Result<Vec<IpAddr>, Reason> {
        if let Host::Name(name) = host {
            let minute = (self.proxy.inner.recorder.now_ms)() / 60_000;
            self.asked.ask(name, minute)?;
        }
        self.proxy.inner.resolver.resolve(host, &self.names).await
    }

    pub(crate) fn record(&self, how: Method) -> Recording {
        Recording::begin(&self.proxy.inner.recorder, &self.sandbox, how)
    }
}

/// Carries bytes both ways until both ends have closed, one is broken, or neither says anything.
pub(crate) async fn carry(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    mut outside: Counted<TcpStream>,
) {
    let traffic = outside.traffic.clone();
    let copying = tokio::io::copy_bidirectional_with_sizes(
        &mut client,
        &mut outside,
        CARRY_BYTES,
        CARRY_BYTES,
    );
    tokio::select! {
        ended = copying => drop(ended),
        () = traffic.idle() => {}
    }
}

//! The proxy of a node, and the way out of each of its sandboxes.

use crate::answer;
use crate::decide::{Ground, Refusal, check_upstream};
use crate::exception::Exception;
use crate::index::{Index, Known, PAGES_OF_SANDBOX_MAX};
use crate::inspect::Inspector;
use crate::names::Asked;
use crate::own::Own;
use crate::pace::Pace;
use crate::reason::Reason;
use crate::record::{Counts, EgressRecord, Method, Owner, Recorder, Recording};
use crate::resolve::{self, Resolver};
use crate::target::Target;
use crate::total::Total;
use crate::traffic::Reread;
use crate::under_way::Connection;
use crate::upstream::Password;
use crate::{clean, direct, http, socks};
use bytes::{Bytes, BytesMut};
use hyper::HeaderMap;
use hyper::http::request::Parts;
use model::dependency::{Ecosystem, INDEX_PORT};
use model::host::Host;
use model::limits;
use model::network::{Denial, DnsServer, How, NetworkRules, Request};
use relay::{Pipes, Share};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, Semaphore, mpsc, watch};

/// Connections of all sandboxes at a time. Each has two descriptors of the node, and while bytes move, or wait for a
/// slow reader, up to 64 KiB of its memory each way, or a pipe. More are refused.
pub const OF_NODE_MAX: usize = 4096;

/// Pipes of all sandboxes: only a direction in which bytes are under way has one, so that this is many processors'
/// worth; with what slow readers hold they are 64 MiB and 512 descriptors. Where there is none, a buffer does it.
const PIPES_MAX: usize = 256;

/// Those of one sandbox, so that one whose readers are all slow leaves some to others.
const PIPES_OF_SANDBOX_MAX: usize = 32;

/// Records that wait to be taken: some seconds of a busy node.
const RECORDS_MAX: usize = 4096;

/// Why a tunnel that nobody looks into is cut, whose client would go on without what others are given.
const ADDS: &str = "secrets are added to requests to this host from now on; connect again";

/// Requests of one sandbox in a minute where its rules say nothing: more than a crawler makes, and few enough
/// that the records of a sandbox that only knocks are no load.
const PER_MINUTE: u32 = 60_000;

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
    pipes: Arc<Pipes>,
    /// Where there is none, what is held to lists of packages finds none.
    index: OnceLock<Arc<Index>>,
}

/// The way out of one sandbox, with its rules and its bounds. Clones are the same.
#[derive(Debug, Clone)]
pub struct Way {
    proxy: Proxy,
    inner: Arc<WayInner>,
}

#[derive(Debug)]
struct WayInner {
    owner: Owner,
    /// As it is now. What is under way listens to it, and ends when it is not allowed any more.
    now: watch::Sender<Now>,
    open: Arc<Open>,
    names: Arc<Semaphore>,
    asked: Asked,
    pace: Pace,
    total: Arc<Total>,
    pipes: Share,
    packages: Known,
    pages: Semaphore,
}

/// The rules of a sandbox, and what looks into its requests by them: one value, so that no request leaves by the rules
/// of one moment with the secrets of another.
#[derive(Debug, Clone)]
pub(crate) struct Now {
    pub(crate) rules: Arc<NetworkRules>,
    pub(crate) inspector: Option<Arc<Inspector>>,
}

/// Connections that a sandbox has.
#[derive(Debug, Default)]
struct Open {
    count: AtomicU64,
    fewer: Notify,
}

/// A connection that is served; boxed, because the compiler cannot see through all of HTTP that it may be sent.
pub type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The right to one connection of a sandbox.
#[derive(Debug)]
pub struct Place {
    open: Arc<Open>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.count.fetch_sub(1, Ordering::AcqRel);
        self.open.fewer.notify_one();
    }
}

impl Now {
    fn adds_secrets(&self, target: &Target) -> bool {
        let mut inspector = self
            .inspector
            .iter()
            .filter(|_| !self.rules.withhold_secrets);
        inspector.any(|inspector| inspector.is_about(target))
    }
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
        let (counts, under_way) = Default::default();
        let inner = Inner {
            exceptions,
            own: Own::default(),
            resolver,
            recorder: Recorder {
                to,
                counts,
                under_way,
                now_ms,
            },
            places: Arc::new(Semaphore::new(connections.min(OF_NODE_MAX))),
            pipes: Arc::new(Pipes::new(PIPES_MAX)),
            index: OnceLock::new(),
        };
        let inner = Arc::new(inner);
        (Proxy { inner }, records)
    }

    /// From now on sandboxes that are held to lists of packages find those of the lists. The first counts.
    pub fn serve_packages(&self, index: Index) {
        drop(self.inner.index.set(Arc::new(index)));
    }

    /// The same rules, which also close where the indexes get their packages.
    fn closing(&self, mut rules: NetworkRules) -> NetworkRules {
        if let Some(index) = self.inner.index.get() {
            rules.dependencies.set_sources(index.hosts());
        }
        rules
    }

    /// What it has done so far.
    pub fn counts(&self) -> &Counts {
        &self.inner.recorder.counts
    }

    /// What is under way now of those for which `is_meant`, the oldest first, at most so many; and whether there
    /// are more.
    pub fn under_way(
        &self,
        is_meant: impl Fn(&Owner) -> bool,
        most: usize,
    ) -> (Vec<Connection>, bool) {
        self.inner.recorder.under_way.list(is_meant, most)
    }

    /// The way out of a sandbox.
    pub fn way(&self, owner: Owner, rules: NetworkRules) -> Way {
        let total = Arc::<Total>::default();
        total.allow(rules.caps.bytes);
        let rules = self.closing(rules);
        let inner = WayInner {
            owner,
            now: watch::Sender::new(Now {
                rules: Arc::new(rules),
                inspector: None,
            }),
            open: Arc::default(),
            names: Arc::new(Semaphore::new(resolve::OF_SANDBOX_MAX)),
            asked: Asked::default(),
            pace: Pace::default(),
            total,
            pipes: Share::of(self.inner.pipes.clone(), PIPES_OF_SANDBOX_MAX),
            packages: Known::default(),
            pages: Semaphore::new(PAGES_OF_SANDBOX_MAX),
        };
        Way {
            proxy: self.clone(),
            inner: Arc::new(inner),
        }
    }
}

impl Way {
    /// From now on requests to some hosts can be looked into. Without it what has rules is refused. One that came
    /// with other rules meanwhile stays.
    pub fn look_into(&self, inspector: Inspector) {
        self.inner.now.send_if_modified(|now| {
            let is_first = now.inspector.is_none();
            if is_first {
                now.inspector = Some(Arc::new(inspector));
            }
            is_first
        });
    }

    /// Puts other rules in the place of those that there are. What they do not allow any more ends now; what is
    /// asked from now on is judged by them.
    pub fn set_rules(&self, rules: NetworkRules) {
        self.set(rules, None);
    }

    /// The same, and from the same moment on what looks into requests, where there is a new one.
    pub fn set(&self, rules: NetworkRules, inspector: Option<Inspector>) {
        self.inner.total.allow(rules.caps.bytes);
        let rules = self.proxy.closing(rules);
        self.inner.now.send_modify(|now| {
            now.rules = Arc::new(rules);
            if let Some(inspector) = inspector {
                now.inspector = Some(Arc::new(inspector));
            }
        });
        // More may be allowed at a time than before.
        self.inner.open.fewer.notify_one();
    }

    /// Bytes both ways so far; those that are about to pass are counted as if they had.
    pub fn passed(&self) -> u64 {
        self.inner.total.passed()
    }

    /// So many passed before, which count with those that pass from now on. Said once, before anything is served.
    pub fn go_on_from(&self, bytes: u64) {
        self.inner.total.go_on_from(bytes);
    }

    /// Whether it can look into requests.
    pub fn can_look(&self) -> bool {
        self.inner.now.borrow().inspector.is_some()
    }

    /// The rules as they are now.
    pub fn rules(&self) -> Arc<NetworkRules> {
        self.inner.now.borrow().rules.clone()
    }

    /// The rules as they become.
    pub(crate) fn news(&self) -> watch::Receiver<Now> {
        self.inner.now.subscribe()
    }

    pub(crate) fn now(&self) -> Now {
        self.inner.now.borrow().clone()
    }

    /// Waits until the sandbox may have one connection more.
    pub async fn place(&self) -> Place {
        let open = &self.inner.open;
        loop {
            let fewer = open.fewer.notified();
            let most = self
                .rules()
                .caps
                .connections
                .map_or(limits::NETWORK_CONNECTIONS_MAX, u64::from);
            let one_more = |count| (count < most).then_some(count + 1);
            let (set, fetch) = (Ordering::AcqRel, Ordering::Acquire);
            if open.count.fetch_update(set, fetch, one_more).is_ok() {
                return Place { open: open.clone() };
            }
            fewer.await;
        }
    }

    /// Serves one connection of a client inside to its end: HTTP or SOCKS5, by its first byte. `first` was read
    /// of it already. Everything that it began ends when this is dropped.
    ///
    /// Where the connection is a `UnixStream`, what a tunnel carries stays in the kernel.
    pub fn serve<S>(self, place: Place, (first, client): (Bytes, S)) -> Serving
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Box::pin(async move {
            self.serve_one(Reread { first, io: client }).await;
            drop(place);
        })
    }

    /// Serves one connection of the guest itself to its end, see [`direct`]. `first` was read of it already.
    pub fn serve_direct<S>(self, place: Place, (first, client): (Bytes, S)) -> Serving
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Box::pin(async move {
            let held = self.proxy.inner.places.clone().try_acquire_owned();
            match held {
                Ok(_held) => direct::serve(&self, Reread { first, io: client }).await,
                // It ends, which says the same to the program as a refusal.
                Err(_) => drop(self.record(Method::Direct).denied(Reason::TooMany.into())),
            }
            drop(place);
        })
    }

    async fn serve_one<S>(self, mut client: Reread<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Ok(_held) = self.proxy.inner.places.clone().try_acquire_owned() else {
            self.record(Method::Http).denied(Reason::TooMany.into());
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
        let client = client.after(&first);
        if is_socks {
            socks::serve(&self, client).await;
        } else {
            http::serve(&self, client).await;
        }
    }

    /// Whether the sandbox may ask for anything more at all.
    pub(crate) fn check_caps(&self) -> Result<(), Refusal> {
        let per_minute = self.rules().caps.per_minute.unwrap_or(PER_MINUTE);
        let capped = |reason, what: &str| Refusal {
            reason,
            rule: Some(what.to_owned()),
        };
        if !self.inner.pace.take(per_minute) {
            let rule = format!("at most {per_minute} in a minute");
            return Err(capped(Reason::TooFast, &rule));
        }
        if self.inner.total.is_used_up() {
            return Err(capped(Reason::TooMuch, "bytes of the whole life"));
        }
        Ok(())
    }

    /// Waits until the rules do not allow any more what was allowed, and says why. For a request, whose names are
    /// owned because it goes on by itself.
    pub(crate) fn cut_request(
        &self,
        target: &Target,
        address: Option<SocketAddr>,
        (head, leaving): (&Parts, HeaderMap),
        has_body: bool,
    ) -> impl Future<Output = Refusal> + Send + use<> {
        let (way, target) = (self.clone(), target.clone());
        let (method, path) = (head.method.clone(), head.uri.path().to_owned());
        async move {
            let how = How::Request {
                method: method.as_str(),
                has_body,
            };
            let request = Some((path.as_str(), &leaving));
            way.cut(how, &target, address, request).await
        }
    }

    /// Waits until the rules do not allow any more what was allowed, and says why. Of a request, also its path is
    /// known, and the fields that it has of its client.
    pub(crate) async fn cut(
        &self,
        how: How<'_>,
        target: &Target,
        address: Option<SocketAddr>,
        request: Option<(&str, &HeaderMap)>,
    ) -> Refusal {
        let mut news = self.news();
        let address = address.map(|address| address.ip());
        let addresses: Vec<IpAddr> = address.into_iter().collect();
        loop {
            let now = news.borrow_and_update().clone();
            if how == How::Tunnel && now.adds_secrets(target) {
                return Refusal {
                    reason: Reason::Rules(Denial::HttpRule),
                    rule: Some(ADDS.to_owned()),
                };
            }
            let now = now.rules;
            let verdict = now.after(how, &target.host, target.port, &addresses);
            if let Some(refusal) = Refusal::of(&verdict) {
                return refusal;
            }
            if let (How::Request { method, .. }, Some((path, leaving))) = (how, request) {
                let fields = clean::fields(leaving);
                let asked = Request {
                    host: &target.host,
                    port: target.port,
                    method,
                    path,
                    fields: &fields,
                };
                if let Err(verdict) = now.judge(asked) {
                    return Refusal::by(&verdict);
                }
            }
            if news.changed().await.is_err() {
                // The sender is in this way, which is borrowed here.
                return Reason::Internal.into();
            }
        }
    }

    pub(crate) fn inspector(&self) -> Option<Arc<Inspector>> {
        self.inner.now.borrow().inspector.clone()
    }

    /// Whether what is asked of this host is judged request by request.
    pub(crate) fn looks_into(&self, target: &Target) -> bool {
        let inspector = self.inspector();
        inspector.is_some_and(|inspector| inspector.is_about(target))
            || self.rules().looks_into(&target.host, target.port)
            || self.ecosystem_of(target).is_some()
    }

    /// Whether it is at any port.
    pub(crate) fn looks_into_host(&self, host: &Host) -> bool {
        let inspector = self.inspector();
        inspector.is_some_and(|inspector| inspector.is_about_host(host))
            || self.rules().looks_into_host(host)
            || self.has_index(host)
    }

    /// The ecosystem whose index the sandbox finds there.
    pub(crate) fn ecosystem_of(&self, target: &Target) -> Option<Ecosystem> {
        self.rules().dependencies.index(&target.host, target.port)
    }

    /// Whether the sandbox finds an index at some port of this host.
    pub(crate) fn has_index(&self, host: &Host) -> bool {
        let found = self.rules().dependencies.index(host, INDEX_PORT);
        found.is_some()
    }

    /// What fetches for it.
    pub(crate) fn index(&self) -> Option<Arc<Index>> {
        self.proxy.inner.index.get().cloned()
    }

    /// What is known of its packages.
    pub(crate) fn packages(&self) -> &Known {
        &self.inner.packages
    }

    /// Places of pages of an index that are read for it.
    pub(crate) fn pages(&self) -> &Semaphore {
        &self.inner.pages
    }

    /// Waits until this package, a name and a version, may not be installed any more, and says so. `None` may always.
    pub(crate) fn cut_package(
        &self,
        ecosystem: Ecosystem,
        of: Option<(String, String)>,
    ) -> impl Future<Output = Refusal> + Send + use<> {
        let mut news = self.inner.now.subscribe();
        async move {
            loop {
                let rules = news.borrow_and_update().rules.clone();
                let is_let = of.as_ref().is_none_or(|(name, version)| {
                    rules.dependencies.lets(ecosystem, name, version)
                });
                // Where nobody can change the rules any more, the connection is dropped with the way.
                if !is_let || news.changed().await.is_err() {
                    return Reason::Rules(Denial::DependencyNotAllowed).into();
                }
            }
        }
    }

    /// What bytes of tunnels are carried in.
    pub(crate) fn pipes(&self) -> &Share {
        &self.inner.pipes
    }

    pub(crate) fn now_s(&self) -> u64 {
        (self.proxy.inner.recorder.now_ms)() / 1000
    }

    pub(crate) fn exceptions(&self) -> &[Exception] {
        &self.proxy.inner.exceptions
    }

    pub(crate) fn own_addresses(&self) -> io::Result<Vec<IpAddr>> {
        self.proxy.inner.own.addresses()
    }

    /// The password of the proxy that connections leave through.
    pub(crate) fn password(&self) -> Option<Password> {
        self.inspector()?.password().cloned()
    }

    /// The addresses of a host of ours, which is no name that the sandbox has asked for.
    pub(crate) async fn resolve_unasked(&self, host: &Host) -> Result<Vec<IpAddr>, Reason> {
        let resolver = &self.proxy.inner.resolver;
        resolver.resolve(host, &self.inner.names).await
    }

    /// The addresses of a name that somebody inside asks for; by the servers that the rules name, where they do.
    pub(crate) async fn resolve(&self, host: &Host) -> Result<Vec<IpAddr>, Refusal> {
        let Host::Name(name) = host else {
            return Ok(self.resolve_unasked(host).await?);
        };
        let rules = self.rules();
        let servers = self.name_servers(&rules.dns)?;
        self.inner.asked.ask(name, self.now_s() / 60)?;
        let (resolver, names) = (&self.proxy.inner.resolver, &self.inner.names);
        let found = match servers.is_empty() {
            true => resolver.resolve(host, names).await,
            false => resolver.resolve_by(host, names, servers).await,
        };
        Ok(found?)
    }

    /// Where those servers are, which are closed as all addresses are: whoever made the sandbox has named them, and may
    /// reach no more than it.
    fn name_servers(&self, servers: &[DnsServer]) -> Result<Vec<SocketAddr>, Refusal> {
        if servers.is_empty() {
            return Ok(Vec::new());
        }
        let own = self.own_addresses().map_err(|_| Reason::Internal)?;
        let ground = Ground {
            exceptions: self.exceptions(),
            own: &own,
        };
        let mut all = Vec::with_capacity(servers.len());
        for server in servers {
            let at = server.at();
            let checked = check_upstream(ground, at.port(), &[at.ip()]);
            all.extend(checked.map_err(|reason| Refusal {
                reason,
                rule: Some(format!("dns {server}")),
            })?);
        }
        Ok(all)
    }

    pub(crate) fn record(&self, how: Method) -> Recording {
        let recorder = &self.proxy.inner.recorder;
        Recording::begin(recorder, &self.inner.owner, &self.inner.total, how)
    }
}

//! What can be asked, who may ask it, and the loops that make it so without being asked.
//!
//! What enters is a call with a [`Ctx`] that says who asks. What leaves is a row, a page, or an
//! [`Error`] with a stable code. Every method is about one noun and starts with authorization; then a
//! decision is made by `model` and written by `store` in one transaction with its event.
//!
//! The hot path is short: a job that is asked for while a node waits is inserted and leased in one
//! commit, and handed to the waiting poll in memory. Whatever goes wrong with the hand-over, the lease
//! is given back, because the database and not the memory says who has a job.
//!
//! This room must never hold a state that is not in the database, except who waits for what, or a copy of
//! what is in it that a commit did not have to make old; it must never speak HTTP, never write SQL, and never wait while it holds a lock.
//!
//! Reading order: `ctx`, `error`, `change` (decide and write), `job`, `create`, `poll` and `wake` (how
//! work finds a node), `report` (what nodes say), `lose` (when they say nothing), `sandbox` (those that
//! live on, by the same means), `server` and `others` (other processes on the same database), `snapshot`, `volume`, `policy` and `permit` (what may be asked for), `approval` (what waits for a person), `quota` (how much at a time), `profile` and `build` (recipes, and who carries them
//! out), `secret` over `seal`, `loops`.

mod approval;
mod artifact;
mod audit;
mod blob;
mod build;
mod capacity;
mod change;
mod clock;
mod create;
mod ctx;
mod dropped;
mod egress;
mod enroll;
mod error;
mod exec;
mod fleet;
mod hand;
mod hex;
mod job;
mod jwt;
mod key;
mod late;
mod lease_token;
pub mod loops;
mod lose;
mod node;
mod oldest;
mod others;
mod output;
mod page;
mod permit;
mod place;
mod policy;
mod poll;
mod principal;
mod profile;
mod quota;
mod refusal;
mod report;
mod root;
mod sandbox;
mod seal;
mod secret;
mod server;
mod snapshot;
mod tenant;
mod volume;
mod wake;

pub use crate::approval::{ApprovalPage, EgressAsk, Notice, NoticeKey, Verdict};
pub use crate::artifact::NewArtifact;
pub use crate::audit::{AuditPage, AuditQuery, Checked, Flaw, Head, head_pass, seal_pass};
pub use crate::blob::BlobWriter;
pub use crate::build::{BUILD_LABEL, BuildHold, Built, Saved, Settled};
pub use crate::clock::Clock;
pub use crate::create::Idempotency;
pub use crate::ctx::{Caller, Ctx, Grant, Shown, ShownBy, Who};
pub use crate::dropped::{DroppedReport, ONE_BEAT_MAX as DROPPED_MAX};
pub use crate::egress::{EgressLook, EgressPage};
pub use crate::enroll::{BadCsr, Enrolled, NodeAuthority, NodeSigned, TokenState, token_state};
pub use crate::error::Error;
pub use crate::exec::{ExecBefore, ExecFact, ExecPage};
pub use crate::fleet::{NodeOrder, NodeSeen};
pub use crate::job::JobPage;
pub use crate::jwt::{
    Algorithm, BadKeys, ISSUERS_MAX, Issuer, JWKS_BYTES_MAX, JWT_BYTES_MAX, JwtKeys, Login,
    RoleFrom, TenantFrom, is_jwt_text,
};
pub use crate::key::{
    KeyPage, NewKey, e2b_form, is_e2b_form, is_key_text, looks_like_credential, used_pass,
};
pub use crate::lease_token::LeaseTokens;
pub use crate::node::{Beat, LeaseRef, NodeHello, Registered, node_speaks, upgrade_for};
pub use crate::output::{OutputPage, OutputPiece, Stream};
pub use crate::policy::{PolicyAsk, PolicyTested, Tested};
pub use crate::poll::{Free, Polled};
pub use crate::principal::PrincipalPage;
pub use crate::profile::{
    BuildAsk, ProfileAsk, ProfilePage, ProfileRef, ProfileView, Tagged, VersionPage,
};
pub use crate::quota::{QuotaChange, QuotaPage, QuotaSeen};
pub use crate::refusal::Refused;
pub use crate::report::{Finished, Report, Started};
pub use crate::root::RootSeen;
pub use crate::sandbox::{
    NetworkChange, NetworkRefused, NetworkSaid, SandboxAsk, SandboxLife, SandboxPage, SandboxRef,
    SandboxSaid, SandboxSeen, SandboxWork, sandbox_life_ms,
};
pub use crate::seal::{KeyError, MasterKey, MasterKeys, SecretValue};
pub use crate::secret::{Fetching, NewSecret, NewValue, SecretGiven, SecretPage, SourceError};
pub use crate::server::{LinkHeld, ServerHello, ServerSeen, Share};
pub use crate::snapshot::{Fork, SnapshotPage, SnapshotRef};
pub use crate::tenant::{TenantMade, TenantPage};
pub use crate::volume::{NewVolume, VolumePage};
pub use model::event::Event;
pub use model::spec::Invalid;
pub use model::usage::{UsagePoint, UsageSpan};
pub use store::approval::ApprovalRow;
pub use store::artifact::ArtifactRow;
pub use store::audit::{Marked, Place, Seal};
pub use store::blob::{Blobs, Written};
pub use store::build::{BuildRow, FileRow, Level, LogQuery, LogRow};
pub use store::egress::{
    EgressFilter, EgressRow, Hosts as EgressHosts, NewEgress, Owner as EgressOwner,
};
pub use store::enroll::{EnrollTokenRow, EnrollmentRow};
pub use store::exec::{ExecRow, Kind as ExecKind};
pub use store::job::JobRow;
pub use store::key::KeyRow;
pub use store::node::NodeRow;
pub use store::output::Segment;
pub use store::policy::{PolicyRow, PolicyVersionRow};
pub use store::principal::PrincipalRow;
pub use store::profile::version::VersionRow;
pub use store::profile::{ProfileRow, TagRow};
pub use store::quota::QuotaRow;
pub use store::sandbox::{SandboxFilter, SandboxRow};
pub use store::secret::SecretRow;
pub use store::server::{LinkRow, ServerRow};
pub use store::snapshot::{SnapshotFilter, SnapshotRow};
pub use store::tenant::TenantRow;
pub use store::volume::VolumeRow;

use crate::create::Room;
use crate::loops::Watch;
use crate::secret::{FetchSource, KeySource};
use crate::wake::Wake;
use model::id::TenantId;
use model::lease::Lease;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use store::Store;

/// Everything that can be asked. Clones are the same service.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

type FreeDisk = Box<dyn Fn() -> Option<u64> + Send + Sync>;

struct Inner {
    store: Store,
    blobs: Blobs,
    clock: Clock,
    wake: Wake,
    free_disk: FreeDisk,
    room: Mutex<Room>,
    oldest: Mutex<oldest::Oldest>,
    sandbox_room: Mutex<Room>,
    recent: Mutex<sandbox::recent::Recent>,
    roots: Mutex<root::RootsKnown>,
    node_came: tokio::sync::Notify,
    watch: Mutex<Watch>,
    /// The part of the blobs that is looked through next. It starts somewhere else in each hour, so that
    /// processes that live for one command look everywhere too.
    sweep: AtomicU8,
    /// Held while a blob's file and its row are made to agree: else who sends a blob again while the old
    /// one is removed is told to send it once more.
    blob_gate: tokio::sync::Mutex<()>,
    key_source: OnceLock<KeySource>,
    fetch_source: OnceLock<FetchSource>,
    /// Held by who makes the sandbox that serves the content of a volume.
    volume_gate: tokio::sync::Mutex<()>,
    keys: tokio::sync::OnceCell<Arc<MasterKeys>>,
    /// A build wants to be carried out.
    builds: tokio::sync::Notify,
    execs_told: exec::told::Told,
    node_authority: OnceLock<NodeAuthority>,
    lease: OnceLock<Lease>,
    lease_key: tokio::sync::OnceCell<lease_token::LeaseKey>,
    noted_of_nodes: Mutex<enroll::Refusals>,
    refused: Mutex<refusal::Notes>,
    placement: place::Setting,
    policies: Mutex<permit::Known>,
    renewing: Mutex<permit::Renewing>,
    evaluator: OnceLock<rego::Evaluator>,
    audit_heads: OnceLock<audit::Heads>,
    /// The seals whose heads this process has signed, by tenant.
    audit_signed: Mutex<BTreeMap<TenantId, (u64, String)>>,
    believed: key::Believed,
    jwts: jwt::Jwts,
    quotas: quota::Book,
    rates: OnceLock<model::rate::Rates>,
}

/// Where the looking through blobs starts: eight of 256 parts an hour.
fn first_part(now_ms: u64) -> u8 {
    u8::try_from(now_ms / 3_600_000 % 32 * 8).unwrap_or(0)
}

impl Service {
    /// A service over a database and a directory of blobs. `free_disk` says how many bytes are free
    /// where both of them are; `None` when nobody knows.
    pub fn new(
        store: Store,
        blobs: Blobs,
        clock: Clock,
        free_disk: impl Fn() -> Option<u64> + Send + Sync + 'static,
    ) -> Service {
        let (clock_now, telling) = (clock.now_ms(), store.clone());
        let watch = Mutex::new(Watch::new(clock_now));
        let inner = Inner {
            store,
            blobs,
            clock,
            wake: Wake::new(move || telling.tell_others()),
            free_disk: Box::new(free_disk),
            room: Mutex::default(),
            oldest: Mutex::default(),
            sandbox_room: Mutex::default(),
            recent: Mutex::default(),
            roots: Mutex::default(),
            node_came: tokio::sync::Notify::new(),
            watch,
            sweep: AtomicU8::new(first_part(clock_now)),
            blob_gate: tokio::sync::Mutex::default(),
            key_source: OnceLock::new(),
            fetch_source: OnceLock::new(),
            volume_gate: tokio::sync::Mutex::default(),
            keys: tokio::sync::OnceCell::new(),
            builds: tokio::sync::Notify::new(),
            execs_told: exec::told::Told::default(),
            node_authority: OnceLock::new(),
            lease: OnceLock::new(),
            lease_key: tokio::sync::OnceCell::new(),
            noted_of_nodes: Mutex::default(),
            refused: Mutex::default(),
            placement: place::Setting::default(),
            policies: Mutex::default(),
            renewing: Mutex::default(),
            evaluator: OnceLock::new(),
            audit_heads: OnceLock::new(),
            audit_signed: Mutex::default(),
            believed: key::Believed::default(),
            jwts: jwt::Jwts::default(),
            quotas: quota::Book::default(),
            rates: OnceLock::new(),
        };
        Service {
            inner: Arc::new(inner),
        }
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and its like when it does not.
    pub async fn ready(&self) -> Result<(), Error> {
        let nodes = self.inner.store.read(|tx| store::node::list(tx, 1)).await;
        nodes.map(drop).map_err(Error::from)
    }

    /// The clock that everything here goes by.
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// Leases are as long as this; without it, as nobody says otherwise. Before the first request.
    pub fn leases_are(&self, lease: Lease) {
        // A second one is a mistake of whoever puts the rooms together, and changes nothing.
        let _ = self.inner.lease.set(lease);
    }

    /// How often the doors may be asked; without it, as nobody says otherwise. Before the first request.
    pub fn rates_are(&self, rates: model::rate::Rates) {
        // A second one is a mistake of whoever puts the rooms together, and changes nothing.
        let _ = self.inner.rates.set(rates);
        if rates.off {
            self.quotas_off();
        }
    }

    /// The same, as it was said.
    pub fn rates(&self) -> model::rate::Rates {
        self.inner.rates.get().copied().unwrap_or_default()
    }

    pub(crate) fn lease(&self) -> Lease {
        self.inner.lease.get().copied().unwrap_or_default()
    }

    fn wake(&self) -> &Wake {
        &self.inner.wake
    }

    fn now_ms(&self) -> u64 {
        self.inner.clock.now_ms()
    }

    /// Whether `bytes` more would leave too little storage free.
    fn is_full_with(&self, bytes: u64) -> bool {
        let free = (self.inner.free_disk)();
        let least = model::limits::FREE_DISK_MIN_BYTES.saturating_add(bytes);
        free.is_some_and(|free| free < least)
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Service")
    }
}

/// A lock whose holder panicked is still good here: every change under these locks is one step.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Random bytes, for a new id or a secret.
fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(Error::internal("get random bytes", error.to_string())),
    }
}

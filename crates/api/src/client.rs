//! The typed client: every route as a method, over a Unix socket, TCP or memory.
//!
//! Every request has a deadline and every answer a bound. Connections are kept alive and used
//! again. A request is sent a second time only when the first attempt provably did not leave this
//! process (an idle connection that the server had closed); whether to repeat anything else is the
//! caller's decision, with an `Idempotency-Key`.

mod approval;
mod artifact;
mod attach;
mod audit;
mod blob;
pub(crate) mod body;
mod egress;
mod endpoint;
mod error;
mod fleet;
mod follow;
mod guest;
mod health;
mod job;
mod lease;
mod log;
mod node;
mod people;
mod policy;
mod pool;
mod profile;
mod quota;
mod sandbox;
mod secret;
mod send;
mod snapshot;
mod sse;
mod tape;
mod volume;

use std::sync::Arc;
use std::time::Duration;

pub use attach::AttachIo;
pub use body::Download;
pub use egress::EgressFollow;
pub use endpoint::{BadUrl, Dial, Dialing, Endpoint, MemoryDialer, Stream, Token};
pub use error::{ApiFailure, ClientError};
pub use follow::Follow;
pub use job::JobCreateOptions;
pub use log::LogFollow;
pub use tape::{TAPE_MAX, Tape, TapeLine};

use pool::Pool;

/// How long a request may take unless the caller says otherwise: long enough for a loaded server
/// and a slow disk, short enough that a person sees an error instead of nothing.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(30);
/// How long dialling may take: addresses are local or near.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// What a request that waits on the server may take beyond the time it waits.
pub const WAIT_GRACE: Duration = Duration::from_secs(10);
/// How long an upload may take as a whole: 1 GiB, the largest, at 1.2 MB/s.
pub const UPLOAD_DEADLINE: Duration = Duration::from_secs(900);
/// How long a stream may be silent. The server sends a sign of life every 15 s.
pub const STALL_DEADLINE: Duration = Duration::from_secs(60);
/// The largest JSON answer that is read: a page is cut at 1 MiB by the server, and a job's request
/// is at most 2 MB, so more than this is not our server.
pub const ANSWER_MAX_BYTES: usize = 16 << 20;

/// Talks to one server. Cheap to clone; clones share the connections.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
    deadline: Duration,
    tape: Option<Arc<Tape>>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    endpoint: Endpoint,
    pool: Pool,
    tokens: lease::Tokens,
}

impl Client {
    /// A client for this address. Nothing is dialled before the first request.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            inner: Arc::new(Inner {
                endpoint,
                pool: Pool::default(),
                tokens: lease::Tokens::default(),
            }),
            deadline: DEADLINE_DEFAULT,
            tape: None,
        }
    }

    /// The same connections with another deadline for requests that do not wait or stream. For tests: what people
    /// and programs use has the default.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Keeps the last calls of this client, and of clones that are made from now on, on this tape.
    #[must_use]
    pub fn with_tape(mut self, tape: Arc<Tape>) -> Self {
        self.tape = Some(tape);
        self
    }

    /// Where this client dials.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }
}

//! The tools with what they share: a client, a shelf, and places for calls.

use api::client::Client;
use api::{Code, ErrorBody};
use futures_util::future::BoxFuture;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, Implementation, ListToolsResult,
    PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::call::Call;
use crate::refusal::Refusal;
use crate::shelf::Shelf;
use crate::{call, port, tool};

/// Calls at one time. A client has one or a few under way; each holds a job or a command.
const CALLS_MAX: usize = 64;
/// How long calls under way may take to end what they run when the client is gone.
const CLOSING: Duration = Duration::from_secs(5);

/// The way to a server.
#[derive(Debug, Clone)]
pub struct Way {
    /// Who is asked.
    pub client: Client,
    /// The only node that may have what is made, if that is in this process.
    pub node: Option<String>,
}

/// Finds a server, or starts one.
pub type Reaching = BoxFuture<'static, Result<Way, Box<ErrorBody>>>;

/// How the address of a port is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// This process listens on loopback: it lives as long as its client, on the same machine.
    Here,
    /// The server says where it is found.
    Server,
}

/// All tools, for one caller. Cheap to clone.
#[derive(Clone)]
pub struct Tools {
    inner: Arc<Inner>,
}

struct Inner {
    reach: Box<dyn Fn() -> Reaching + Send + Sync>,
    way: Mutex<Option<Way>>,
    shelf: Shelf,
    calls: Semaphore,
    closing: CancellationToken,
    ports: Option<port::Listeners>,
}

impl std::fmt::Debug for Tools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tools").finish_non_exhaustive()
    }
}

impl Tools {
    /// Tools that find their server when the first is called, and again after they have lost it.
    pub fn new(ports: Ports, reach: impl Fn() -> Reaching + Send + Sync + 'static) -> Self {
        Self {
            inner: Arc::new(Inner {
                reach: Box::new(reach),
                way: Mutex::default(),
                shelf: Shelf::default(),
                calls: Semaphore::new(CALLS_MAX),
                closing: CancellationToken::new(),
                ports: (ports == Ports::Here).then(port::Listeners::default),
            }),
        }
    }

    /// Tools for a caller whose client is there.
    #[must_use]
    pub fn of(client: Client) -> Self {
        Self::new(Ports::Server, move || {
            let client = client.clone();
            Box::pin(async move { Ok(Way { client, node: None }) })
        })
    }

    /// Finds the server now, so that the first call need not wait for that.
    pub async fn warm(&self) {
        // What went wrong is told to the first call, which tries again.
        drop(self.way().await);
    }

    /// Ends what calls still run, because nobody will hear of it.
    pub(crate) async fn close(&self) {
        self.inner.closing.cancel();
        let all = u32::try_from(CALLS_MAX).unwrap_or(u32::MAX);
        let ended = self.inner.calls.acquire_many(all);
        if tokio::time::timeout(CLOSING, ended).await.is_err() {
            tracing::warn!("some calls did not end in time; their limits of time end them");
        }
    }

    pub(crate) async fn way(&self) -> Result<Way, Refusal> {
        let mut way = self.inner.way.lock().await;
        if let Some(way) = &*way {
            return Ok(way.clone());
        }
        let found = (self.inner.reach)().await;
        let found = found.map_err(|body| Refusal::from(*body))?;
        Ok(way.insert(found).clone())
    }

    /// Forgets a server that does not answer any more; the next call looks for one.
    pub(crate) async fn lose_way(&self) {
        *self.inner.way.lock().await = None;
    }

    pub(crate) fn shelf(&self) -> &Shelf {
        &self.inner.shelf
    }

    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.inner.closing
    }

    pub(crate) fn listeners(&self) -> Option<&port::Listeners> {
        self.inner.ports.as_ref()
    }
}

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().build();
        let mut info = ServerConfig::new(capabilities).with_instructions(tool::INSTRUCTIONS);
        info.server_info =
            Implementation::new("cofferdam", env!("CARGO_PKG_VERSION")).with_title("Cofferdam");
        info
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(tool::all().to_vec()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        tool::all().iter().find(|tool| tool.name == name).cloned()
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if !tool::all().iter().any(|tool| tool.name == request.name) {
            let message = "there is no such tool; tools/list lists them";
            return Err(ErrorData::invalid_params(message, None));
        }
        let Ok(_place) = self.inner.calls.try_acquire() else {
            let message = format!("{CALLS_MAX} calls are under way");
            let refusal = Refusal::new(Code::TooMuch, message);
            return Ok(refusal
                .hint("wait for one of them to end")
                .into_result()
                .into());
        };
        let answered = Box::pin(call::answered(Call::new(self, &context), request)).await;
        Ok(answered.into())
    }
}

//! The protocol over HTTP: requests of their own since 2026-07-28, and sessions before.
//!
//! Whoever is here was let in by the server, which has looked at the credential, at `Host` and at `Origin`.
//! A session belongs to whom it was made for, and a caller has only so many.

use bytes::Bytes;
use futures_util::Stream;
use http::{Request, Response};
use http_body::Body;
use http_body_util::combinators::BoxBody;
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_server::session::local::{
    LocalSessionManager, LocalSessionManagerError, SessionConfig,
};
use rmcp::transport::streamable_http_server::session::{
    ServerSseMessage, SessionId, SessionManager,
};
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::stdio::FRAME_MAX_BYTES;
use crate::tools::Tools;

/// Sessions of one caller. The one that was silent for longest ends for a new one, and its client begins
/// again, as the protocol says it must.
const SESSIONS_MAX: usize = 256;
/// How long a session may be silent: longer than any call.
const SESSION_IDLE: Duration = Duration::from_secs(4000);

/// How long an answer is kept for a client whose connection broke. Answers are large, and a caller may have
/// many in that time.
const ANSWERS_KEPT: Duration = Duration::from_secs(5);

/// Takes requests of the protocol.
#[derive(Clone)]
pub struct Door {
    sessions: Arc<Sessions>,
    config: StreamableHttpServerConfig,
}

struct Sessions {
    inner: LocalSessionManager,
    known: Mutex<HashMap<SessionId, Session>>,
}

/// A session that there is.
struct Session {
    owner: Arc<str>,
    used: Instant,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

impl Door {
    /// A door that ends its streams with `stop`.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        let mut inner = LocalSessionManager::default();
        inner.session_config = SessionConfig::default();
        inner.session_config.keep_alive = Some(SESSION_IDLE);
        inner.session_config.completed_cache_ttl = ANSWERS_KEPT;
        // The server has checked both with what it knows of its own names.
        let config = StreamableHttpServerConfig::default()
            .disable_allowed_hosts()
            .with_max_request_body_bytes(FRAME_MAX_BYTES)
            .with_cancellation_token(stop);
        Self {
            sessions: Arc::new(Sessions {
                inner,
                known: Mutex::default(),
            }),
            config,
        }
    }

    /// Answers one request of `owner`, whose tools are `tools`.
    pub async fn answer<B>(
        &self,
        tools: Tools,
        owner: &str,
        request: Request<B>,
    ) -> Response<BoxBody<Bytes, Infallible>>
    where
        B: Body + Send + 'static,
        B::Error: fmt::Display,
    {
        let own = Own {
            all: self.sessions.clone(),
            owner: owner.into(),
        };
        let service = StreamableHttpService::new(
            move || Ok(tools.clone()),
            Arc::new(own),
            self.config.clone(),
        );
        Box::pin(service.handle(request)).await
    }
}

impl Sessions {
    fn known(&self) -> MutexGuard<'_, HashMap<SessionId, Session>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a new session, and takes out the one that has to go for it.
    fn note(&self, id: &SessionId, owner: &Arc<str>) -> Option<SessionId> {
        let session = Session {
            owner: owner.clone(),
            used: Instant::now(),
        };
        let mut known = self.known();
        let own = known.iter().filter(|(_, session)| session.owner == *owner);
        let oldest = if own.clone().count() < SESSIONS_MAX {
            None
        } else {
            own.min_by_key(|(_, session)| session.used)
                .map(|(id, _)| id.clone())
        };
        known.insert(id.clone(), session);
        oldest.inspect(|oldest| drop(known.remove(oldest)))
    }

    /// Whether there is such a session of this owner; it is used now.
    fn uses(&self, id: &SessionId, owner: &str) -> bool {
        match self.known().get_mut(id) {
            Some(session) if *session.owner == *owner => {
                session.used = Instant::now();
                true
            }
            _ => false,
        }
    }
}

/// The sessions of one caller: those of others are not there.
struct Own {
    all: Arc<Sessions>,
    owner: Arc<str>,
}

impl Own {
    fn check(&self, id: &SessionId) -> Result<(), LocalSessionManagerError> {
        if self.all.uses(id, &self.owner) {
            return Ok(());
        }
        Err(LocalSessionManagerError::SessionNotFound(id.clone()))
    }
}

impl SessionManager for Own {
    type Error = LocalSessionManagerError;
    type Transport = <LocalSessionManager as SessionManager>::Transport;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), Self::Error> {
        let made = self.all.inner.create_session().await?;
        if let Some(oldest) = self.all.note(&made.0, &self.owner) {
            self.all.inner.close_session(&oldest).await?;
        }
        Ok(made)
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Self::Error> {
        self.all.inner.initialize_session(id, message).await
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, Self::Error> {
        Ok(self.all.uses(id, &self.owner) && self.all.inner.has_session(id).await?)
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), Self::Error> {
        // Of one that is not there, nothing is left to do; one that is another's goes on.
        if !self.all.uses(id, &self.owner) {
            return Ok(());
        }
        drop(self.all.known().remove(id));
        self.all.inner.close_session(id).await
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.check(id)?;
        self.all.inner.create_stream(id, message).await
    }

    async fn accept_message(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<(), Self::Error> {
        self.check(id)?;
        self.all.inner.accept_message(id, message).await
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.check(id)?;
        self.all.inner.create_standalone_stream(id).await
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.check(id)?;
        self.all.inner.resume(id, last_event_id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_caller_has_so_many_sessions_and_none_of_others() {
        let sessions = Sessions {
            inner: LocalSessionManager::default(),
            known: Mutex::default(),
        };
        let (mine, yours): (Arc<str>, Arc<str>) = ("uid:1".into(), "uid:2".into());
        let id = |n: usize| SessionId::from(format!("s{n}"));
        let other = SessionId::from("other");
        assert_eq!(sessions.note(&other, &yours), None);
        for n in 0..SESSIONS_MAX {
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(sessions.note(&id(n), &mine), None);
        }
        assert!(sessions.uses(&id(0), &mine) && !sessions.uses(&id(0), &yours));
        // The first was just used, so the second is the oldest.
        assert_eq!(sessions.note(&id(1000), &mine), Some(id(1)));
        assert!(!sessions.uses(&id(1), &mine) && sessions.uses(&other, &yours));
        assert_eq!(sessions.known().len(), SESSIONS_MAX + 1);
    }

    /// Asks as somebody; answers the status and what session was made.
    async fn ask(
        door: &Door,
        owner: &str,
        session: Option<&str>,
        method: &str,
    ) -> (u16, Option<String>) {
        let params = serde_json::json!({"protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"}});
        let body =
            serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let mut request = Request::post("/mcp")
            .header("host", "localhost")
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json");
        if let Some(session) = session {
            request = request.header("mcp-session-id", session);
        }
        let request = request.body(http_body_util::Full::new(Bytes::from(body.to_string())));
        let (dial, _incoming) = tokio::sync::mpsc::channel(1);
        let tools = Tools::of(api::Client::new(api::Endpoint::Memory(dial)));
        let response = door.answer(tools, owner, request.unwrap()).await;
        let made = response.headers().get("mcp-session-id");
        let made = made.map(|id| id.to_str().unwrap().to_owned());
        (response.status().as_u16(), made)
    }

    #[tokio::test]
    async fn a_session_of_somebody_else_is_not_there() {
        let door = Door::new(CancellationToken::new());
        let (status, session) = ask(&door, "uid:1", None, "initialize").await;
        assert_eq!(status, 200);
        let session = session.unwrap();
        let of = |owner: &'static str| ask(&door, owner, Some(&session), "tools/list");
        assert_eq!(of("uid:1").await.0, 200);
        assert_eq!(of("uid:2").await.0, 404);
        let delete = |owner: &'static str| {
            let request = Request::delete("/mcp")
                .header("host", "localhost")
                .header("mcp-session-id", &session)
                .body(http_body_util::Full::new(Bytes::new()));
            let (dial, _incoming) = tokio::sync::mpsc::channel(1);
            let tools = Tools::of(api::Client::new(api::Endpoint::Memory(dial)));
            let door = door.clone();
            async move { door.answer(tools, owner, request.unwrap()).await.status() }
        };
        delete("uid:2").await;
        assert_eq!(of("uid:1").await.0, 200);
        delete("uid:1").await;
        assert_eq!(of("uid:1").await.0, 404);
    }
}

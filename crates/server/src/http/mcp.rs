//! The Model Context Protocol. What a tool does, it does as a client of this server, over a connection in
//! memory that stands for whoever called it: by the same gate, the same handlers, the same rules.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ::mcp::Tools;
use api::client::{Client, Endpoint};
use api::{Code, ErrorBody, routes};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use service::{Shown, ShownBy, Who};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::App;
use crate::accept::Door;
use crate::auth::Peer;
use crate::error::Error;
use crate::extract::{Caller, read_body};

/// Connections of tools that wait to be taken.
const DIALS: usize = 64;
/// Doors that wait to be opened.
const DOORS: usize = 16;
/// Callers that are remembered. A caller that is forgotten loses its cursors, and nothing else.
const CALLERS_MAX: usize = 256;

/// What is behind the route.
#[derive(Debug, Clone)]
pub(crate) struct Mcp {
    door: ::mcp::Door,
    /// Doors of callers, on their way to who serves them.
    doors: mpsc::Sender<Door>,
    /// By [`owner`].
    callers: Arc<Mutex<HashMap<String, Tools>>>,
}

impl Mcp {
    /// Behind the route, and the doors that it will want to have served.
    pub(crate) fn new(stop: CancellationToken) -> (Self, mpsc::Receiver<Door>) {
        let (doors, wanted) = mpsc::channel(DOORS);
        let mcp = Self {
            door: ::mcp::Door::new(stop),
            doors,
            callers: Arc::default(),
        };
        (mcp, wanted)
    }

    /// The tools of a caller, with a door of their own. It stands for them as they came first: when what they have
    /// shown ends is asked of each request before it gets here, and no tool makes what could outlive that.
    fn tools(&self, owner: &str, caller: Who) -> Result<Tools, Error> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tools) = callers.get(owner) {
            return Ok(tools.clone());
        }
        if callers.len() >= CALLERS_MAX {
            callers.clear();
        }
        let (dial, incoming) = mpsc::channel(DIALS);
        let peer = Peer::User(caller);
        let door = Door::Memory { incoming, peer };
        let full = |_| Error::new(Code::Unavailable, "too many callers come at once");
        self.doors.try_send(door).map_err(full)?;
        let tools = Tools::of(Client::new(Endpoint::Memory(dial)));
        callers.insert(owner.to_owned(), tools.clone());
        Ok(tools)
    }
}

/// Calls tools: a JSON-RPC message of the Model Context Protocol. Answers JSON, or events for a call that
/// takes longer.
#[utoipa::path(post, path = routes::MCP, tag = "mcp", operation_id = "mcp_post",
    request_body = serde_json::Value,
    responses((status = 200, description = "The answer to a request, as JSON or as events",
               body = serde_json::Value),
              (status = 202, description = "A notification was taken"),
              (status = 400, description = "Not a message of the protocol", body = ErrorBody),
              (status = 404, description = "No such session: begin again", body = ErrorBody),
              (status = 406, description = "JSON or events are not accepted", body = ErrorBody),
              (status = 413, description = "Too large", body = ErrorBody)))]
pub(crate) async fn post(
    app: State<App>,
    caller: Caller,
    request: Request,
) -> Result<Response, Error> {
    answer(app, caller, request).await
}

/// The events of a session that belong to no request; protocols before 2026-07-28.
#[utoipa::path(get, path = routes::MCP, tag = "mcp", operation_id = "mcp_get",
    responses((status = 200, description = "Events"),
              (status = 404, description = "No such session: begin again", body = ErrorBody),
              (status = 405, description = "This protocol has no sessions", body = ErrorBody)))]
pub(crate) async fn get(
    app: State<App>,
    caller: Caller,
    request: Request,
) -> Result<Response, Error> {
    answer(app, caller, request).await
}

/// Ends a session; protocols before 2026-07-28.
#[utoipa::path(delete, path = routes::MCP, tag = "mcp", operation_id = "mcp_delete",
    responses((status = 204, description = "It is over"),
              (status = 405, description = "This protocol has no sessions", body = ErrorBody)))]
pub(crate) async fn delete(
    app: State<App>,
    caller: Caller,
    request: Request,
) -> Result<Response, Error> {
    let mut response = answer(app, caller, request).await?;
    // The SDK says 202, which others take for a failure here.
    if response.status() == StatusCode::ACCEPTED {
        *response.status_mut() = StatusCode::NO_CONTENT;
    }
    Ok(response)
}

async fn answer(
    State(app): State<App>,
    Caller(caller): Caller,
    request: Request,
) -> Result<Response, Error> {
    let (parts, body) = request.into_parts();
    let owner = owner(&caller);
    let tools = app.mcp.tools(&owner, caller)?;
    // Read by us, because a body that stops to come has a deadline here.
    let body = read_body(Request::from_parts(parts.clone(), body)).await?;
    let request = Request::from_parts(parts, Body::from(body));
    let response = app.mcp.door.answer(tools, &owner, request).await;
    Ok(in_our_words(response.map(Body::new)))
}

/// Whose tools and sessions they are. Two tenants may have principals of one name, and somebody who may do less has
/// others, also with the same name. A key is part of it, because whoever made that is not to decide about what was
/// asked with it; when a token ends is not, so that one that was renewed goes on where the one before was.
fn owner(caller: &Who) -> String {
    let Who {
        tenant,
        principal,
        grant,
        shown,
    } = caller;
    let shown = match shown.as_ref().map(|Shown { by, .. }| by) {
        Some(ShownBy::Key(id)) => format!("key {id}"),
        Some(ShownBy::Token(issuer)) => format!("token {issuer}"),
        Some(ShownBy::Development) => "development".to_owned(),
        None => String::new(),
    };
    let (kind, role) = (grant.kind.as_str(), grant.role.as_str());
    let scopes = grant.scopes.texts().join(" ");
    format!("{tenant}/{principal}/{kind}/{role}/{shown}/{scopes}")
}

/// Gives an error of the transport a stable code. Errors of the protocol are JSON already, and stay.
fn in_our_words(response: Response) -> Response {
    let is_json = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let status = response.status();
    if is_json || status.is_success() {
        return response;
    }
    let (code, message) = match status {
        StatusCode::NOT_FOUND => (
            Code::NotFound,
            "there is no such session; begin with `initialize`",
        ),
        StatusCode::METHOD_NOT_ALLOWED => (
            Code::MethodNotAllowed,
            "this version of the protocol has no sessions",
        ),
        StatusCode::NOT_ACCEPTABLE => (
            Code::BadRequest,
            "the request must accept application/json and text/event-stream",
        ),
        StatusCode::PAYLOAD_TOO_LARGE => (Code::BodyTooLarge, "the message is too large"),
        status if status.is_client_error() => (
            Code::BadRequest,
            "this is no message of the protocol, its session is missing, or its headers say otherwise",
        ),
        _ => (Code::Unavailable, "the session ended while it was asked"),
    };
    let mut answer = Error::new(code, message).into_response();
    if status.is_client_error() {
        *answer.status_mut() = status;
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::access::{Action, Scopes};
    use model::id::KeyId;

    fn with(by: ShownBy, until_ms: u64) -> Who {
        let mut who = Who::owner("user:alice".parse().unwrap());
        who.grant.until_ms = Some(until_ms);
        who.shown = Some(Shown {
            by,
            expires_at_ms: Some(until_ms),
        });
        who
    }

    #[tokio::test]
    async fn a_token_that_was_renewed_has_the_tools_of_the_one_before_and_nobody_elses() {
        let (mcp, mut doors) = Mcp::new(CancellationToken::new());
        let mut is_new = |who: Who| {
            mcp.tools(&owner(&who), who).unwrap();
            doors.try_recv().is_ok()
        };
        let token = |until_ms| with(ShownBy::Token("corp".to_owned()), until_ms);
        assert!(is_new(token(1)));
        assert!(!is_new(token(2)) && !is_new(token(1)));
        let key = |byte| ShownBy::Key(KeyId::from_parts(1, [byte; 10]));
        assert!(is_new(with(key(1), 1)) && is_new(with(key(2), 1)));
        let mut less = token(1);
        less.grant.scopes = Scopes::of([Action::JobRead]);
        assert!(is_new(less));
        let mut elsewhere = token(1);
        elsewhere.principal = "user:bob".parse().unwrap();
        assert!(is_new(elsewhere));
        assert!(!is_new(token(3)));
    }
}

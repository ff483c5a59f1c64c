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
use service::{Ctx, Who};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::App;
use crate::accept::Door;
use crate::auth::Peer;
use crate::error::Error;
use crate::extract::{User, read_body};

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
    callers: Arc<Mutex<HashMap<Who, Tools>>>,
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

    /// The tools of a caller, with a door of their own.
    fn tools(&self, caller: &Who) -> Result<Tools, Error> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tools) = callers.get(caller) {
            return Ok(tools.clone());
        }
        if callers.len() >= CALLERS_MAX {
            callers.clear();
        }
        let (dial, incoming) = mpsc::channel(DIALS);
        let peer = Peer::User(caller.clone());
        let door = Door::Memory { incoming, peer };
        let full = |_| Error::new(Code::Unavailable, "too many callers come at once");
        self.doors.try_send(door).map_err(full)?;
        let tools = Tools::of(Client::new(Endpoint::Memory(dial)));
        callers.insert(caller.clone(), tools.clone());
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
pub(crate) async fn post(app: State<App>, user: User, request: Request) -> Result<Response, Error> {
    answer(app, user, request).await
}

/// The events of a session that belong to no request; protocols before 2026-07-28.
#[utoipa::path(get, path = routes::MCP, tag = "mcp", operation_id = "mcp_get",
    responses((status = 200, description = "Events"),
              (status = 404, description = "No such session: begin again", body = ErrorBody),
              (status = 405, description = "This protocol has no sessions", body = ErrorBody)))]
pub(crate) async fn get(app: State<App>, user: User, request: Request) -> Result<Response, Error> {
    answer(app, user, request).await
}

/// Ends a session; protocols before 2026-07-28.
#[utoipa::path(delete, path = routes::MCP, tag = "mcp", operation_id = "mcp_delete",
    responses((status = 204, description = "It is over"),
              (status = 405, description = "This protocol has no sessions", body = ErrorBody)))]
pub(crate) async fn delete(
    app: State<App>,
    user: User,
    request: Request,
) -> Result<Response, Error> {
    let mut response = answer(app, user, request).await?;
    // The SDK says 202, which others take for a failure here.
    if response.status() == StatusCode::ACCEPTED {
        *response.status_mut() = StatusCode::NO_CONTENT;
    }
    Ok(response)
}

async fn answer(
    State(app): State<App>,
    User(ctx): User,
    request: Request,
) -> Result<Response, Error> {
    let (parts, body) = request.into_parts();
    // Somebody who may do less gets a door of their own, also with the same name.
    let forbidden = || Error::new(Code::Forbidden, "this route is not for nodes");
    let caller = ctx.who().ok_or_else(forbidden)?;
    let tools = app.mcp.tools(&caller)?;
    // Read by us, because a body that stops to come has a deadline here.
    let body = read_body(Request::from_parts(parts.clone(), body)).await?;
    let request = Request::from_parts(parts, Body::from(body));
    let response = app
        .mcp
        .door
        .answer(tools, &session_owner(&ctx, &caller), request)
        .await;
    Ok(in_our_words(response.map(Body::new)))
}

/// Whose a session is: two tenants may have principals of one name.
fn session_owner(ctx: &Ctx, caller: &Who) -> String {
    let (role, scopes) = (caller.grant.role.as_str(), caller.grant.scopes.texts());
    format!(
        "{}/{}/{role}/{}",
        ctx.tenant,
        ctx.principal,
        scopes.join(" ")
    )
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

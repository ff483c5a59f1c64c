//! E2B's door: what the unmodified SDKs of E2B ask for, in their words.
//!
//! Enters: requests of E2B's clients, and of anybody who follows a link into a sandbox. Leaves: calls to
//! `service`, streams to guests, answers in E2B's shapes. It shares its connections with the other doors;
//! [`aim`] tells them apart.
//!
//! What E2B has and we have not is refused by name. This door must never pretend: an SDK that believes
//! in a limit, a network or a snapshot that is not there does harm with it. It must never give a guest
//! one of our credentials, and never hold more of what a guest says than it is just passing on.
//!
//! Reading order: `aim` (for whom), `keys` (who may), `refusal`, `query`, then `control`, `snapshots`, `templates`,
//! `logs` and `account` with `wire` for sandboxes as a resource, `volumes` and `content`, and `proxy` with `clean`, `cors` and `places` and `idle` for
//! what is inside them.

mod account;
pub(crate) mod aim;
mod clean;
mod content;
mod control;
mod cors;
pub(crate) mod domain;
pub(crate) mod find;
pub(crate) mod idle;
mod inner_tls;
pub(crate) mod keys;
mod logs;
pub(crate) mod measure;
mod network;
pub(crate) mod places;
pub(crate) mod proxy;
mod query;
pub(crate) mod refusal;
mod secret;
mod snapshots;
mod templates;
mod volumes;
pub(crate) mod wire;

use std::panic::AssertUnwindSafe;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use service::Ctx;
use tower::Service as _;

pub(crate) use self::control::router;

use self::aim::Aim;
use self::keys::{API_KEY, FileQuery, Keys, Upload, same};
use self::refusal::{Cause, Refusal};
use crate::Shared;
use crate::auth::{Gate, Peer, Visitor};
use crate::request::RequestId;

/// Answers a request that is for this door.
pub(crate) async fn answer(
    shared: &mut Shared,
    gate: &Gate,
    aim: Result<Aim, Refusal>,
    request: Request<Incoming>,
    id: &RequestId,
) -> Response {
    let work = AssertUnwindSafe(lead(shared, gate, aim, request, id)).catch_unwind();
    let mut response = match work.await {
        Ok(Ok(response)) => response,
        Ok(Err(refusal)) => refusal.into_response(),
        // It costs this request, not the connection or the process.
        Err(_) => {
            let message = "the server met something that it believed impossible";
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message).into_response()
        }
    };
    if let Some(Cause(cause)) = response.extensions_mut().remove() {
        tracing::error!(
            request.id = id.as_str(),
            error = cause,
            "a request failed for a reason that is not the caller's"
        );
    }
    response
}

async fn lead(
    shared: &mut Shared,
    gate: &Gate,
    aim: Result<Aim, Refusal>,
    request: Request<Incoming>,
    id: &RequestId,
) -> Result<Response, Refusal> {
    let aim = aim?;
    let (mut parts, body) = request.into_parts();
    let visitor = gate.visitor(&parts, aim == Aim::Control)?;
    let ctx = ctx(&visitor, id)?;
    let keys = visitor.keys.as_ref();
    // The token of the volume counts there, and no other.
    if aim == Aim::Control && parts.uri.path().starts_with(content::ROUTE) {
        return content::answer(&shared.app, (parts, body), id).await;
    }
    let target = match aim {
        Aim::Permission => return Ok(cors::permission()),
        Aim::Port(target) => target,
        Aim::Signed => {
            let file = FileQuery::parse(&parts.method, parts.uri.query())?;
            find::signer(&shared.app, &ctx, &parts.headers, &file).await?
        }
        Aim::Control => {
            let now_s = shared.app.service.clock().now_ms() / 1000;
            check_key(&parts, keys, now_s)?;
            let domain = domain::told(gate.domain(), &parts.headers);
            parts.extensions.insert(control::Domain(domain));
            parts
                .extensions
                .insert(account::Shown(visitor.keys.clone()));
            parts.extensions.insert(ctx);
            let request = Request::from_parts(parts, Body::new(body));
            return match shared.e2b.call(request).await {
                Ok(response) => Ok(response),
                Err(never) => match never {},
            };
        }
    };
    let sandbox = find::reachable(&shared.app, &ctx, &target).await?;
    let request = Request::from_parts(parts, body);
    let place = (&sandbox, target.port);
    let passed = proxy::pass(&shared.app, (&ctx, keys), place, request).await;
    passed.map_err(|stopped| stopped.refusal(&target))
}

fn ctx(visitor: &Visitor, id: &RequestId) -> Result<Ctx, Refusal> {
    match &visitor.peer {
        Peer::User(principal) => Ok(Ctx::user(principal.clone(), id.as_str())),
        Peer::Node(_) => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "this door is not for nodes",
        )),
    }
}

/// Where the transport has not said who it is, the key must.
fn check_key(parts: &Parts, keys: Option<&Keys>, now_s: u64) -> Result<(), Refusal> {
    let Some(keys) = keys else { return Ok(()) };
    if parts.uri.path() == "/health" {
        return Ok(());
    }
    let upload = Upload::parse(&parts.method, parts.uri.path(), parts.uri.query());
    if let Some((upload, signature)) = upload
        && same(signature.as_bytes(), &keys.upload_signature(&upload))
    {
        let is_over = upload.expires_s < now_s;
        let over = || unauthorized("the time in which the files could be sent is over");
        return if is_over { Err(over()) } else { Ok(()) };
    }
    let bearer = || {
        let value = parts.headers.get(AUTHORIZATION)?.as_bytes();
        let (scheme, token) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
    };
    let key = parts.headers.get(&API_KEY).map(http::HeaderValue::as_bytes);
    match key.or_else(bearer) {
        Some(sent) if keys.is_key(sent) => Ok(()),
        Some(_) => Err(unauthorized("the API key is wrong")),
        None => Err(unauthorized("the API key is missing")),
    }
}

fn unauthorized(what: &str) -> Refusal {
    let message = format!("{what}; `cofferdam env e2b` prints it");
    Refusal::new(StatusCode::UNAUTHORIZED, message)
}

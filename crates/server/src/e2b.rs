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

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;

use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use model::limits;
use service::{Ctx, Who};
use tower::Service as _;

pub(crate) use self::control::router;

use self::aim::Aim;
use self::keys::{API_KEY, FileQuery, Upload, same};
use self::refusal::{Cause, Refusal};
use crate::auth::{Gate, Visitor};
use crate::rates::{Metered, class};
use crate::request::{Asked, RequestId};
use crate::{App, Shared, lent};

/// Answers a request that is for this door.
pub(crate) async fn answer(
    shared: &mut Shared,
    (gate, source): (&Gate, Option<IpAddr>),
    aim: Result<Aim, Refusal>,
    request: Request<Incoming>,
    id: &RequestId,
) -> Response {
    // The largest of its answers must not make each request of the other door as large.
    let work = Box::pin(lead(shared, (gate, source), aim, request, id));
    let mut response = match AssertUnwindSafe(work).catch_unwind().await {
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
    (gate, source): (&Gate, Option<IpAddr>),
    aim: Result<Aim, Refusal>,
    request: Request<Incoming>,
    id: &RequestId,
) -> Result<Response, Refusal> {
    let aim = aim?;
    let (mut parts, body) = request.into_parts();
    let visitor = gate.visitor(&parts, aim == Aim::Control)?;
    // The token of the volume counts there, and no other.
    if aim == Aim::Control && parts.uri.path().starts_with(content::ROUTE) {
        return content::answer(&shared.app, (parts, body), id).await;
    }
    let target = match aim {
        Aim::Permission => return Ok(cors::permission()),
        Aim::Port(target) => target,
        Aim::Signed => {
            let file = FileQuery::parse(&parts.method, parts.uri.query())?;
            let searchers = match &visitor {
                Visitor::Known(who) => vec![Ctx::of(who.clone(), id.as_str())],
                Visitor::Stranger { .. } => Vec::new(),
            };
            find::signer(&shared.app, (searchers, id), &parts.headers, &file).await?
        }
        Aim::Control => {
            let now_s = shared.app.service.clock().now_ms() / 1000;
            let who = whose(&shared.app, (&parts, source), &visitor, now_s).await;
            let metered = match &visitor {
                Visitor::Known(_) => None,
                Visitor::Stranger { .. } => Some(meter(&shared.app, (&parts, source), &who)?),
            };
            let who = who?;
            let asked = who.as_ref().map(|who| Asked::new(who, &parts));
            let domain = domain::told(gate.domain(), &parts.headers);
            parts.extensions.insert(control::Domain(domain));
            if let Some(who) = who {
                let shown = account::Shown::of(&visitor, &parts, &who);
                parts.extensions.insert(shown);
                parts.extensions.insert(Ctx::of(who, id.as_str()));
            }
            let mut response = ask_control(shared, (parts, body)).await;
            if let Some(metered) = metered {
                response.extensions_mut().insert(metered);
            }
            if let Some(asked) = asked {
                asked.note(&shared.app.service, &response);
            }
            return Ok(response);
        }
    };
    let ctx = match &visitor {
        Visitor::Known(who) => Ctx::of(who.clone(), id.as_str()),
        Visitor::Stranger { .. } => find::visitor(&shared.app, &target, id).await?,
    };
    let sandbox = find::reachable(&shared.app, &ctx, &target).await?;
    let request = Request::from_parts(parts, body);
    let place = (&sandbox, target.port);
    let passed = proxy::pass(&shared.app, (&ctx, visitor.keys()), place, request).await;
    passed.map_err(|stopped| stopped.refusal(&target))
}

/// Asks the control plane, whose refusals leave the connection as it was.
async fn ask_control(shared: &mut Shared, (parts, body): (Parts, Incoming)) -> Response {
    let (body, back) = lent::lend(&parts.headers, body);
    let request = Request::from_parts(parts, body);
    let response = match shared.e2b.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let status = response.status();
    // Who has stopped sending is not waited for once more.
    let is_refusal = status.is_client_error() || status.is_server_error();
    if is_refusal && status != StatusCode::REQUEST_TIMEOUT {
        back.drain(2 * limits::BODY_BYTES_MAX).await;
    }
    response
}

/// Who asks for the control plane: where the transport has not said it, a key must. Nobody needs one to ask whether
/// it is there.
async fn whose(
    app: &App,
    (parts, source): (&Parts, Option<IpAddr>),
    visitor: &Visitor,
    now_s: u64,
) -> Result<Option<Who>, Refusal> {
    let (keys, owner) = match visitor {
        Visitor::Known(who) => return Ok(Some(who.clone())),
        Visitor::Stranger { keys, owner } => (keys, owner),
    };
    if parts.uri.path() == "/health" {
        return Ok(None);
    }
    let upload = Upload::parse(&parts.method, parts.uri.path(), parts.uri.query());
    if let Some((upload, signature)) = upload
        && same(signature.as_bytes(), &keys.upload_signature(&upload))
    {
        let is_over = upload.expires_s < now_s;
        let over = || unauthorized("the time in which the files could be sent is over");
        return if is_over {
            Err(over())
        } else {
            Ok(upload.who())
        };
    }
    match shown_key(parts) {
        Some(sent) if keys.is_key(sent) => Ok(Some(owner.clone())),
        Some(sent) => {
            let text = std::str::from_utf8(sent).unwrap_or_default();
            app.buckets.may_try(source, text)?;
            let who = app.service.shown_who(text).await?;
            let who = who.ok_or_else(|| unauthorized("the API key is wrong"))?;
            app.buckets.is_good(text);
            Ok(Some(who))
        }
        None => Err(unauthorized("the API key is missing")),
    }
}

/// Takes one from the bucket of whoever asks, as at the other doors.
fn meter(
    app: &App,
    (parts, source): (&Parts, Option<IpAddr>),
    who: &Result<Option<Who>, Refusal>,
) -> Result<Metered, Refusal> {
    let buckets = &app.buckets;
    let metered = match who {
        Ok(Some(who)) => buckets.who(who, class(&parts.method, parts.uri.path())),
        Ok(None) => buckets.stranger(source),
        Err(refusal) if refusal.status() == StatusCode::TOO_MANY_REQUESTS => {
            return Err(refusal.clone());
        }
        Err(refusal) => {
            if refusal.status() == StatusCode::UNAUTHORIZED {
                buckets.check(buckets.failed(source))?;
            }
            buckets.stranger(source)
        }
    };
    Ok(buckets.check(metered)?)
}

/// The key that a request has, in either place.
fn shown_key(parts: &Parts) -> Option<&[u8]> {
    let bearer = || {
        let value = parts.headers.get(AUTHORIZATION)?.as_bytes();
        let (scheme, token) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
    };
    let key = parts.headers.get(&API_KEY).map(http::HeaderValue::as_bytes);
    key.or_else(bearer)
}

fn unauthorized(what: &str) -> Refusal {
    let message = format!("{what}; `cofferdam env e2b` prints it");
    Refusal::new(StatusCode::UNAUTHORIZED, message)
}

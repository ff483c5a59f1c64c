//! The content of volumes, as E2B's clients ask for it: with the token of the volume, and nothing else.
//!
//! A sandbox that has the volume and nothing else serves it; here it is only decided who may pass. So
//! neither this process nor the node ever follows a path in a volume, where workloads lay them.

use std::time::Duration;

use api::guest::line::{Line, Patience};
use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::request::Parts;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use model::id::VolumeId;
use model::sandbox::SandboxState;
use serde_json::json;
use service::Ctx;
use tokio_util::task::AbortOnDropHandle;

use super::clean;
use super::proxy::dial;
use super::refusal::Refusal;
use crate::App;
use crate::request::RequestId;

/// Before what of a volume is asked for, in paths of the guest that serves it; the same as the guest's own
/// `message::VOLUME_PATH`, which this room cannot see.
const VOLUME_PATH: &str = "/volume/";
/// Before the id of a volume in a path.
pub(super) const ROUTE: &str = "/volumecontent/";
/// How often it is said that the sandbox is used: a few times before half of its life is over.
const KEEP_EVERY: Duration = Duration::from_secs(120);
/// How long the first request waits for the sandbox that serves the volume. The clients wait for 60 s.
const WAIT: Duration = Duration::from_secs(30);

/// Answers a request for the content of a volume, in the shape of errors that its clients read here.
pub(super) async fn answer(
    app: &App,
    (parts, body): (Parts, Incoming),
    id: &RequestId,
) -> Result<Response, Refusal> {
    let passed = pass(app, parts, body, id).await;
    passed.or_else(|refusal| match refusal.status() {
        // What is wrong with us is logged where all of that is.
        status if status.is_server_error() => Err(refusal),
        status => {
            let code = status.canonical_reason().unwrap_or("refused");
            let code = code.to_ascii_lowercase().replace(' ', "_");
            let body = json!({"code": code, "message": refusal.message()});
            Ok((status, Json(body)).into_response())
        }
    })
}

async fn pass(
    app: &App,
    parts: Parts,
    body: Incoming,
    id: &RequestId,
) -> Result<Response, Refusal> {
    let (volume, what) = aimed(&parts)?;
    let token = token(&parts)?;
    let opened = app.service.volume_opened(&volume, token, id.as_str()).await;
    let (ctx, row) = opened.map_err(refused)?;
    let server = app.service.volume_server(&ctx, &row.id, WAIT).await;
    let server = server.map_err(refused)?;
    let node = match (&server.state, &server.node) {
        (SandboxState::Ready, Some(node)) => node.clone(),
        (SandboxState::Failed { why }, _) => {
            let message = format!("the volume cannot be served: {why}");
            return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message));
        }
        _ => {
            let message = "the node of the volume did not answer in time";
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message));
        }
    };
    let full = || {
        let message = "too many requests for the content of the volume";
        Refusal::new(StatusCode::TOO_MANY_REQUESTS, message)
    };
    let place = app.places.take(&server.id).ok_or_else(full)?;
    let silent = || Refusal::new(StatusCode::BAD_GATEWAY, "the volume does not answer");
    let stream = dial(app, &node, &server.id).await.map_err(|_| silent())?;
    let line = Line::to_guest(stream, Patience::USUAL).await;
    let line = line.map_err(|_| silent())?;
    let request = forwarded(&parts, what, body)?;
    // Both end with the body of the answer.
    let held = (place, kept_alive(app, ctx, volume));
    let answer = line.send(request, held).await.map_err(|_| silent())?;
    let mut response = answer.into_response().map(Body::new);
    clean::answer(response.headers_mut(), false);
    clean::defuse(response.headers_mut());
    Ok(response)
}

/// As long as something is carried, the sandbox that serves the volume lives on.
fn kept_alive(app: &App, ctx: Ctx, volume: VolumeId) -> AbortOnDropHandle<()> {
    let (service, stopping) = (app.service.clone(), app.stopping.clone());
    let looking = async move {
        loop {
            tokio::time::sleep(KEEP_EVERY).await;
            // If the volume is deleted meanwhile, what is carried ends with it.
            drop(service.volume_server(&ctx, &volume, Duration::ZERO).await);
        }
    };
    let until_the_end = async move {
        stopping.run_until_cancelled(Box::pin(looking)).await;
    };
    AbortOnDropHandle::new(app.tasks.spawn(until_the_end))
}

/// The volume and what of it is asked for, by the path.
fn aimed(parts: &Parts) -> Result<(VolumeId, &'static str), Refusal> {
    let rest = parts.uri.path().strip_prefix(ROUTE).unwrap_or_default();
    let (id, what) = rest.split_once('/').unwrap_or((rest, ""));
    let known = ["path", "dir", "file"]
        .into_iter()
        .find(|known| *known == what);
    let missing = || Refusal::new(StatusCode::NOT_FOUND, "there is no such route");
    let what = known.ok_or_else(missing)?;
    Ok((id.parse().map_err(|_| no_volume())?, what))
}

/// Whose token is wrong is a stranger, whatever else there is.
fn refused(error: service::Error) -> Refusal {
    if let service::Error::Forbidden(why) = error {
        return Refusal::new(StatusCode::UNAUTHORIZED, why);
    }
    if matches!(error, service::Error::NotFound) {
        return no_volume();
    }
    error.into()
}

fn no_volume() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "there is no such volume")
}

fn token(parts: &Parts) -> Result<&str, Refusal> {
    let value = parts
        .headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let bearer = value.and_then(|value| value.split_once(' '));
    let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let missing = || {
        Refusal::new(
            StatusCode::UNAUTHORIZED,
            "the token of the volume is missing",
        )
    };
    bearer.map(|(_, token)| token).ok_or_else(missing)
}

/// The request as the guest gets it, which is told nothing but what is asked for.
fn forwarded(
    parts: &Parts,
    what: &str,
    body: Incoming,
) -> Result<Request<api::guest::line::Body>, Refusal> {
    let bad = |_| Refusal::bad("the query cannot be read");
    let query = parts.uri.query().unwrap_or_default();
    let mut request = Request::builder()
        .method(parts.method.clone())
        .uri(format!("{VOLUME_PATH}{what}?{query}"))
        .header(HOST, HeaderValue::from_static("guest"));
    for name in [CONTENT_LENGTH, CONTENT_TYPE] {
        if let Some(value) = parts.headers.get(&name) {
            request = request.header(name, value.clone());
        }
    }
    let body = match parts.method {
        Method::GET | Method::DELETE => api::guest::line::empty(),
        _ => body.map_err(Into::into).boxed_unsync(),
    };
    request.body(body).map_err(bad)
}

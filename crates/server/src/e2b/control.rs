//! The control plane as E2B's clients know it: sandboxes as a resource.
//!
//! A create and a pause are answered when they are done, because the clients have no other way to wait.

use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Path, RawPathParams, RawQuery, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Json as Answer, Router};
use http::StatusCode;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use model::id::SandboxId;
use model::limits;
use model::sandbox::SandboxState;
use serde::de::DeserializeOwned;
use serde_json::json;
use service::{Ctx, SandboxFilter, SandboxRow};

use super::measure;
use super::query::List;
use super::refusal::Refusal;
use super::secret;
use super::wire::{self, Change, NewSandbox, Refresh, TEMPLATES, Timeout};
use crate::App;
use crate::extract::{self, Key};

/// How long a request waits for a node. The clients themselves wait for 60 s.
const WAIT: Duration = Duration::from_secs(50);
/// Where the next page begins.
pub(super) const NEXT_TOKEN: HeaderName = HeaderName::from_static("x-next-token");

type Answered = Result<Response, Refusal>;

/// Everything that can be asked for.
pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/health", get(async || StatusCode::NO_CONTENT))
        .route("/sandboxes", post(create).get(list_running))
        .route("/v2/sandboxes", post(create).get(list))
        .route("/sandboxes/{id}", get(detail).delete(kill))
        .route("/sandboxes/{id}/connect", post(connect))
        .route("/v2/sandboxes/{id}/connect", post(connect))
        .route("/sandboxes/{id}/resume", post(resume))
        .route("/sandboxes/{id}/pause", post(pause))
        .route("/sandboxes/{id}/timeout", post(set_timeout))
        .route("/sandboxes/{id}/refreshes", post(refresh))
        .route("/sandboxes/{id}/metrics", get(metrics))
        .route("/sandboxes/{id}/logs", get(logs))
        .route("/v2/sandboxes/{id}/logs", get(logs_v2))
        .route("/secrets", post(secret::create).get(secret::list))
        .route(
            "/secrets/{id}",
            get(secret::get).post(secret::update).delete(secret::delete),
        )
        .route("/templates/aliases/{alias}", get(alias))
        .route("/templates/{id}", delete(delete_template))
        .fallback(async || Refusal::not_here("this route"))
        .method_not_allowed_fallback(async || Refusal::not_here("this method of the route"))
        .with_state(app)
}

async fn create(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    CreateKey(key): CreateKey,
    Domain(domain): Domain,
    Lenient(asked): Lenient<NewSandbox>,
) -> Answered {
    let key = key.of(&asked)?;
    let row = app.service.sandbox_create(&ctx, asked.ask()?, key).await?;
    let row = app.service.sandbox_wait(&ctx, &row.id, WAIT).await?;
    match &row.state {
        SandboxState::Ready => {
            Ok((StatusCode::CREATED, Answer(wire::sandbox(&row, domain))).into_response())
        }
        SandboxState::Requested | SandboxState::Provisioning => {
            // Whoever asked learns that there is none, so that none must come to be.
            app.service.sandbox_destroy(&ctx, &row.id).await?;
            let message = "no node had room for the sandbox in time";
            Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message))
        }
        SandboxState::Failed { why } => Err(Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the sandbox could not be made: {why}"),
        )),
        // The one that an earlier request with the same key made, and what has become of it since.
        SandboxState::Pausing
        | SandboxState::Paused
        | SandboxState::Resuming
        | SandboxState::Snapshotting { .. }
        | SandboxState::Destroying
        | SandboxState::Destroyed => Err(conflict(&row.state)),
    }
}

fn conflict(state: &SandboxState) -> Refusal {
    let message = format!("the sandbox is {}", state.name());
    Refusal::new(StatusCode::CONFLICT, message)
}

async fn list(state: State<App>, ctx: Extension<Ctx>, RawQuery(query): RawQuery) -> Answered {
    page(state, ctx, List::parse(query.as_deref(), true)?).await
}

/// The first version knows no pause.
async fn list_running(
    state: State<App>,
    ctx: Extension<Ctx>,
    RawQuery(query): RawQuery,
) -> Answered {
    page(state, ctx, List::parse(query.as_deref(), false)?).await
}

async fn page(State(app): State<App>, Extension(ctx): Extension<Ctx>, list: List) -> Answered {
    let (filter, before) = (filter(&list), list.before.as_deref());
    let page = app
        .service
        .sandbox_list(&ctx, filter, before, list.limit)
        .await?;
    let since = list.started_after_ms.unwrap_or(0);
    // The newest are first, so that after the first one that is too old all are.
    let new = |row: &&SandboxRow| row.created_at_ms >= since;
    let rows: Vec<_> = page
        .sandboxes
        .iter()
        .take_while(new)
        .map(wire::listed)
        .collect();
    let all = rows.len() == page.sandboxes.len();
    let next = page
        .next
        .filter(|_| all)
        .and_then(|next| HeaderValue::try_from(next).ok());
    let mut response = Answer(rows).into_response();
    if let Some(next) = next {
        response.headers_mut().insert(NEXT_TOKEN, next);
    }
    Ok(response)
}

fn filter(list: &List) -> SandboxFilter {
    let mut states = Vec::new();
    if list.running {
        states.extend(wire::RUNNING);
    }
    if list.paused {
        states.extend(wire::PAUSED);
    }
    let template = list.template.iter();
    let template = template.map(|name| (wire::TEMPLATE_KEY.to_owned(), name.clone()));
    SandboxFilter {
        states,
        metadata: list.metadata.iter().cloned().chain(template).collect(),
    }
}

async fn detail(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Named(id): Named,
    Domain(domain): Domain,
) -> Answered {
    let row = live(&app, &ctx, &id).await?;
    Ok(Answer(wire::detail(&row, domain)).into_response())
}

/// The sandbox, unless it is over or about to be: at this edge there is none then.
async fn live(app: &App, ctx: &Ctx, id: &SandboxId) -> Result<SandboxRow, Refusal> {
    let gone = || Refusal::no_sandbox(id.short());
    let row = match app.service.sandbox_get(ctx, id).await {
        Err(service::Error::NotFound) => return Err(gone()),
        row => row?,
    };
    if row.state.is_over() || row.state == SandboxState::Destroying {
        return Err(gone());
    }
    Ok(row)
}

async fn kill(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Named(id): Named,
) -> Answered {
    live(&app, &ctx, &id).await?;
    app.service.sandbox_destroy(&ctx, &id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn connect(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Named(id): Named,
    Domain(domain): Domain,
    Lenient(change): Lenient<Change>,
) -> Answered {
    change.check()?;
    let before = live(&app, &ctx, &id).await?;
    let row = app
        .service
        .sandbox_connect(&ctx, &id, change.ttl_ms(), WAIT)
        .await?;
    let status = match (&before.state, &row.state) {
        (SandboxState::Ready, SandboxState::Ready) => StatusCode::OK,
        (_, SandboxState::Ready) => StatusCode::CREATED,
        (_, other) => return Err(conflict(other)),
    };
    Ok((status, Answer(wire::sandbox(&row, domain))).into_response())
}

/// What older clients call to bring a paused sandbox back; one that runs is a mistake there.
async fn resume(
    state: State<App>,
    ctx: Extension<Ctx>,
    Named(id): Named,
    domain: Domain,
    change: Lenient<Change>,
) -> Answered {
    let before = live(&state, &ctx, &id).await?;
    if before.state == SandboxState::Ready {
        return Err(conflict(&before.state));
    }
    connect(state, ctx, Named(id), domain, change).await
}

async fn pause(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Named(id): Named,
    Lenient(change): Lenient<Change>,
) -> Answered {
    change.check()?;
    let row = live(&app, &ctx, &id).await?;
    if matches!(row.state, SandboxState::Paused | SandboxState::Pausing) {
        return Err(conflict(&row.state));
    }
    app.service.sandbox_pause(&ctx, &id).await?;
    let row = app.service.sandbox_wait(&ctx, &id, WAIT).await?;
    if row.state == SandboxState::Paused {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    // Not 409, which the clients take for "it was paused already".
    let message = format!(
        "the sandbox could not be paused: it is {}",
        row.state.name()
    );
    Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message))
}

async fn set_timeout(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Named(id): Named,
    Lenient(timeout): Lenient<Timeout>,
) -> Answered {
    live(&app, &ctx, &id).await?;
    app.service
        .sandbox_set_timeout(&ctx, &id, timeout.ttl_ms())
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Lets a sandbox live at least so long; it never shortens.
async fn refresh(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Named(id): Named,
    Lenient(refresh): Lenient<Refresh>,
) -> Answered {
    let row = live(&app, &ctx, &id).await?;
    if row.state != SandboxState::Ready {
        return Err(conflict(&row.state));
    }
    let ttl_ms = Some(refresh.ttl_ms());
    app.service
        .sandbox_connect(&ctx, &id, ttl_ms, Duration::ZERO)
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What it uses now, as the only sample: nothing is kept over time yet.
async fn metrics(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Named(id): Named,
) -> Answered {
    let row = live(&app, &ctx, &id).await?;
    let samples: Vec<_> = measure::sample(&app, &row).await.into_iter().collect();
    Ok(Answer(samples).into_response())
}

async fn logs(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Named(id): Named,
) -> Answered {
    let events = app
        .service
        .sandbox_events(&ctx, &id, 0, limits::PAGE_MAX)
        .await?;
    let lines: Vec<_> = events.iter().map(wire::log_line).collect();
    let entries: Vec<_> = events.iter().map(wire::log_entry).collect();
    Ok(Answer(json!({"logs": lines, "logEntries": entries})).into_response())
}

async fn logs_v2(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Named(id): Named,
) -> Answered {
    let events = app
        .service
        .sandbox_events(&ctx, &id, 0, limits::PAGE_MAX)
        .await?;
    let entries: Vec<_> = events.iter().map(wire::log_entry).collect();
    Ok(Answer(json!({"logs": entries})).into_response())
}

async fn alias(Path(alias): Path<String>) -> Answered {
    if !TEMPLATES.contains(&alias.as_str()) {
        return Err(wire::no_template(&alias));
    }
    Ok(Answer(json!({"templateID": alias, "public": true})).into_response())
}

/// Also how the clients delete a snapshot, of which there are none.
async fn delete_template(Path(id): Path<String>) -> Refusal {
    if TEMPLATES.contains(&id.as_str()) {
        return Refusal::new(StatusCode::FORBIDDEN, "the template is part of Cofferdam");
    }
    wire::no_template(&id)
}

/// The sandbox that the path names.
#[derive(Debug)]
struct Named(SandboxId);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let params = params.map_err(|_| Refusal::no_sandbox(""))?;
        let named = params.iter().find(|(name, _)| *name == "id");
        let text = named.map_or("", |(_, text)| text);
        let unknown = || Refusal::no_sandbox(text.get(..limits::PROFILE_BYTES_MAX).unwrap_or(text));
        SandboxId::from_short(text).map(Self).map_err(|_| unknown())
    }
}

/// What stands behind the names of a sandbox's ports, for somebody who found us at this port.
#[derive(Debug)]
struct Domain(Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for Domain {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(domain(&parts.headers)))
    }
}

/// The port is the one that the client dialled, which a tunnel may have changed.
fn domain(headers: &HeaderMap) -> Option<String> {
    let host = headers.get(HOST)?.to_str().ok()?;
    let (_, port) = host.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    Some(format!("localhost:{port}"))
}

/// The key that makes a create safe to repeat.
#[derive(Debug)]
struct CreateKey(Key);

impl<S: Send + Sync> FromRequestParts<S> for CreateKey {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        Ok(Self(Key::from_request_parts(parts, state).await?))
    }
}

/// A JSON body in which what we do not know is passed over; none at all is an empty one.
#[derive(Debug)]
pub(super) struct Lenient<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Lenient<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let bytes = extract::read_body(request).await?;
        let text = if bytes.trim_ascii().is_empty() {
            &b"{}"[..]
        } else {
            &bytes
        };
        let value = serde_json::from_slice(text);
        value
            .map(Self)
            .map_err(|error| Refusal::bad(format!("the body: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_has_the_port_that_the_client_found_us_at() {
        for (host, expect) in [
            ("127.0.0.1:7300", Some("localhost:7300")),
            ("[::1]:7300", Some("localhost:7300")),
            ("localhost", None),
            ("localhost:x", None),
        ] {
            let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]);
            assert_eq!(domain(&headers).as_deref(), expect, "{host}");
        }
    }
}

//! The control plane as E2B's clients know it: sandboxes as a resource.
//!
//! A create and a pause are answered when they are done, because the clients have no other way to wait.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, RawPathParams, RawQuery, Request, State};
use axum::middleware;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post, put};
use axum::{Extension, Json as Answer, Router};
use futures_util::future::join_all;
use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use model::id::SandboxId;
use model::limits;
use model::sandbox::SandboxState;
use serde::de::DeserializeOwned;
use serde_json::json;
use service::{Ctx, ProfileAsk, SandboxFilter, SandboxRow};

use super::account;
use super::logs;
use super::measure;
use super::network::{self, NetworkUpdate};
use super::query::{self, List};
use super::refusal::Refusal;
use super::secret;
use super::snapshots;
use super::templates;
use super::volumes;
use super::wire::{self, Change, NewSandbox, Pause, Refresh, Timeout};
use crate::App;
use crate::extract::{self, Key};
use crate::http::remember_route;

/// How long a request waits for a node. The clients themselves wait for 60 s.
pub(super) const WAIT: Duration = Duration::from_secs(50);
/// Where the next page begins.
pub(super) const NEXT_TOKEN: HeaderName = HeaderName::from_static("x-next-token");

pub(super) type Answered = Result<Response, Refusal>;

/// Everything that can be asked for.
pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/health", get(async || StatusCode::NO_CONTENT))
        .route("/sandboxes", post(create).get(list_running))
        .route("/v2/sandboxes", post(create).get(list))
        .route("/sandboxes/metrics", get(metrics_of_some))
        .route("/sandboxes/{id}", get(detail).delete(kill))
        .route("/sandboxes/{id}/connect", post(connect))
        .route("/v2/sandboxes/{id}/connect", post(connect))
        .route("/sandboxes/{id}/resume", post(resume))
        .route("/sandboxes/{id}/pause", post(pause))
        .route("/sandboxes/{id}/timeout", post(set_timeout))
        .route("/sandboxes/{id}/network", put(set_network))
        .route("/sandboxes/{id}/refreshes", post(refresh))
        .route("/sandboxes/{id}/metrics", get(metrics))
        .route("/sandboxes/{id}/logs", get(logs::first))
        .route("/v2/sandboxes/{id}/logs", get(logs::second))
        .route("/teams", get(account::teams))
        .route("/api-keys", get(account::keys).post(account::no_keys))
        .route(
            "/api-keys/{id}",
            delete(account::no_keys).patch(account::no_keys),
        )
        .route("/default-templates", get(account::default_templates))
        .route("/sandboxes/{id}/snapshots", post(snapshots::create))
        .route("/sandboxes/{id}/fork", post(snapshots::fork))
        .route("/snapshots", get(snapshots::list))
        .merge(templates::routes())
        .route("/secrets", post(secret::create).get(secret::list))
        .route(
            "/secrets/{id}",
            get(secret::get).post(secret::update).delete(secret::delete),
        )
        .route("/volumes", post(volumes::create).get(volumes::list))
        .route("/volumes/{id}", get(volumes::get).delete(volumes::delete))
        .route_layer(middleware::from_fn(remember_route))
        .fallback(async || Refusal::not_here("this route"))
        .method_not_allowed_fallback(async || Refusal::not_here("this method of the route"))
        .with_state(app)
}

async fn create(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    CreateKey(key): CreateKey,
    Extension(Domain(domain)): Extension<Domain>,
    Lenient(mut asked): Lenient<NewSandbox>,
) -> Answered {
    let password = asked.password()?;
    let tag = match &password {
        Some(password) => Some(app.service.secret_tag(password).await?),
        None => None,
    };
    asked.bind_password(tag);
    let key = key.of(&asked)?;
    let template = asked.template().to_owned();
    // A name that the operator has given is his, whatever a template or a snapshot is called.
    let root = app.service.root_find(&ctx, &template).await?;
    let is_root = root.is_some();
    let says = asked.says();
    let mut ask = asked.ask(root.map(|root| root.name))?;
    if !is_root && let Some(named) = templates::profile_of(&app, &ctx, &template).await? {
        ask.from = None;
        ask.profile = Some(ProfileAsk { named, says });
    }
    if let Some(password) = password {
        let name = app.service.secret_keep(&ctx, password).await?;
        network::name_given(&mut ask.spec.secrets, &name);
    }
    let made = app.service.sandbox_create(&ctx, ask, key).await;
    if let Err(service::Error::NotFound) = &made {
        return Err(wire::no_template(&template));
    }
    let row = made?;
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
        SandboxState::Pausing { .. }
        | SandboxState::Paused { .. }
        | SandboxState::Resuming { .. }
        | SandboxState::Snapshotting { .. }
        | SandboxState::Recreating
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
        // Builds have sandboxes that nobody asked for.
        .filter(|row| !row.metadata.contains_key(service::BUILD_LABEL))
        .map(wire::listed)
        .collect();
    let all = page.sandboxes.iter().all(|row| new(&row));
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
    Extension(Domain(domain)): Extension<Domain>,
) -> Answered {
    let row = live(&app, &ctx, &id).await?;
    Ok(Answer(wire::detail(&ctx, &row, domain)).into_response())
}

/// The sandbox, unless it is over or about to be: at this edge there is none then.
pub(super) async fn live(app: &App, ctx: &Ctx, id: &SandboxId) -> Result<SandboxRow, Refusal> {
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
    Extension(Domain(domain)): Extension<Domain>,
    Lenient(change): Lenient<Change>,
) -> Answered {
    change.check()?;
    let before = live(&app, &ctx, &id).await?;
    let row = app
        .service
        .sandbox_connect(&ctx, &id, (change.ttl_ms(), change.keeps_memory()), WAIT)
        .await?;
    let status = match (&before.state, &row.state) {
        (SandboxState::Ready, SandboxState::Ready) => StatusCode::OK,
        (_, SandboxState::Ready) => StatusCode::CREATED,
        (_, other) => return Err(conflict(other)),
    };
    Ok((status, Answer(wire::sandbox(&row, domain))).into_response())
}

/// The sandbox when the copy is made that is being made of it: the clients know no such state.
pub(super) async fn copied(app: &App, ctx: &Ctx, row: SandboxRow) -> Result<SandboxRow, Refusal> {
    if matches!(row.state, SandboxState::Snapshotting { .. }) {
        return Ok(app.service.sandbox_wait(ctx, &row.id, WAIT).await?);
    }
    Ok(row)
}

/// What older clients call to bring a paused sandbox back; one that runs is a mistake there.
async fn resume(
    state: State<App>,
    ctx: Extension<Ctx>,
    Named(id): Named,
    domain: Extension<Domain>,
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
    Lenient(asked): Lenient<Pause>,
) -> Answered {
    let row = live(&app, &ctx, &id).await?;
    let row = copied(&app, &ctx, row).await?;
    if matches!(
        row.state,
        SandboxState::Paused { .. } | SandboxState::Pausing { .. }
    ) {
        return Err(conflict(&row.state));
    }
    let runs = row.state == SandboxState::Ready;
    if runs && asked.needs_guest() && !measure::is_healthy(&app, &row).await {
        let message = "the sandbox's guest does not answer; it is not paused and runs on";
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message));
    }
    let keeps_memory = asked.keeps_memory();
    app.service.sandbox_pause(&ctx, &id, keeps_memory).await?;
    let row = app.service.sandbox_wait(&ctx, &id, WAIT).await?;
    if matches!(row.state, SandboxState::Paused { .. }) {
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

/// Other rules. Answered when they are in force, because that is what the clients take the answer for.
async fn set_network(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Named(id): Named,
    Lenient(update): Lenient<NetworkUpdate>,
) -> Answered {
    let row = live(&app, &ctx, &id).await?;
    let mut change = update.change(&row.secrets())?;
    if let Some(password) = update.password()? {
        let name = app.service.secret_keep(&ctx, password).await?;
        let uses = change.secrets.as_deref_mut();
        network::name_given(uses.unwrap_or_default(), &name);
    }
    let setting = app.service.sandbox_set_network(&ctx, &id, change, WAIT);
    let row = setting.await?;
    if row.is_network_pending() {
        let message = "the rules are written, and the sandbox's node has not put them in force yet";
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message));
    }
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
        .sandbox_connect(&ctx, &id, (ttl_ms, true), Duration::ZERO)
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What it used, and uses now if now is asked for.
async fn metrics(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Named(id): Named,
    RawQuery(query): RawQuery,
) -> Answered {
    let (from_ms, to_ms) = query::span(query.as_deref())?;
    let row = live(&app, &ctx, &id).await?;
    let is_now = to_ms >= app.service.clock().now_ms();
    let now = if is_now {
        measure::sample(&app, &row).await
    } else {
        None
    };
    let now = now.filter(|_| from_ms <= app.service.clock().now_ms());
    let spans = app.service.sandbox_usage(&ctx, &id, (from_ms, to_ms), None);
    let spans = spans.await?;
    let samples = spans.iter().map(|span| wire::metric_of(&row, span));
    let samples: Vec<_> = samples.chain(now).collect();
    Ok(Answer(samples).into_response())
}

/// What each of some sandboxes uses now; of those that do not run nothing.
async fn metrics_of_some(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    RawQuery(query): RawQuery,
) -> Answered {
    let ids = query::sandbox_ids(query.as_deref())?;
    let one = async |id: SandboxId| {
        let row = app.service.sandbox_get(&ctx, &id).await.ok()?;
        let sample = measure::sample(&app, &row).await?;
        Some((id.short().to_owned(), sample))
    };
    let samples = join_all(ids.into_iter().map(one)).await;
    let samples: BTreeMap<_, _> = samples.into_iter().flatten().collect();
    Ok(Answer(json!({"sandboxes": samples})).into_response())
}

/// The sandbox that the path names.
#[derive(Debug)]
pub(crate) struct Named(pub(crate) SandboxId);

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

/// What stands behind the names of a sandbox's ports, for somebody who found us where this one did.
#[derive(Debug, Clone)]
pub(crate) struct Domain(pub(crate) Option<String>);

/// The key that makes a create safe to repeat.
#[derive(Debug)]
pub(super) struct CreateKey(pub(super) Key);

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

//! Snapshots and forks as E2B's clients know them. A snapshot is a template there: it has an id, and maybe
//! names, with which a sandbox can be created.
//!
//! E2B keeps the memory too unless it is told not to. Here a snapshot has files and nothing else, which
//! E2B's protocol calls `memory: false`; whoever asks for the memory by name is refused.

use axum::extract::{RawQuery, State};
use axum::response::IntoResponse as _;
use axum::{Extension, Json as Answer};
use futures_util::future::join_all;
use http::{HeaderValue, StatusCode};
use model::id::{SandboxId, SnapshotId};
use model::sandbox::SandboxState;
use model::snapshot::{SnapshotName, SnapshotState};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use service::{Ctx, Fork, SandboxRow, SnapshotFilter, SnapshotRef, SnapshotRow};

use super::control::{Answered, CreateKey, Domain, Lenient, NEXT_TOKEN, Named, WAIT, copied, live};
use super::query::SnapshotPage;
use super::refusal::Refusal;
use super::wire::{self, TEMPLATES};
use crate::App;

/// The body that makes a snapshot.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub(crate) struct NewSnapshot {
    name: Option<String>,
    memory: Option<bool>,
}

impl NewSnapshot {
    /// What it is to be called.
    fn name(&self) -> Result<Option<SnapshotName>, Refusal> {
        if self.memory == Some(true) {
            let message = "memory: a snapshot keeps files here and not what is in memory; ask for the \
                           mode `filesystem`";
            return Err(Refusal::bad(message));
        }
        let named = self.name.as_deref().filter(|name| !name.is_empty());
        let Some(name) = named.map(str::to_lowercase) else {
            return Ok(None);
        };
        let name: SnapshotName = name
            .parse()
            .map_err(|error: model::snapshot::NotAName| Refusal::bad(format!("name: {error}")))?;
        if TEMPLATES.contains(&name.name.as_str()) || SnapshotId::from_short(&name.name).is_ok() {
            return Err(Refusal::bad("name: it means something else already"));
        }
        Ok(Some(name))
    }
}

/// The body of a fork.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub(crate) struct NewFork {
    count: Option<u32>,
    timeout: Option<u64>,
}

fn view(row: &SnapshotRow) -> Value {
    let names: Vec<String> = row.name.iter().map(ToString::to_string).collect();
    json!({"snapshotID": row.id.short(), "names": names})
}

/// Answered when it is ready, because the clients have no other way to wait.
pub(super) async fn create(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    CreateKey(key): CreateKey,
    Named(id): Named,
    Lenient(asked): Lenient<NewSnapshot>,
) -> Answered {
    let name = asked.name()?;
    let row = live(&app, &ctx, &id).await?;
    copied(&app, &ctx, row).await?;
    let key = key.of(&(id.as_str(), &asked))?;
    let row = app.service.snapshot_create(&ctx, &id, name, key).await?;
    let row = app.service.snapshot_wait(&ctx, &row.id, WAIT).await?;
    match &row.state {
        SnapshotState::Ready => Ok((StatusCode::CREATED, Answer(view(&row))).into_response()),
        SnapshotState::Failed { why } => {
            let message = format!("the sandbox could not be copied: {why}");
            Err(Refusal::new(StatusCode::CONFLICT, message))
        }
        SnapshotState::Saving => {
            // Whoever asked learns that there is none, so that none must come to be.
            app.service.snapshot_delete(&ctx, &row.id).await?;
            let message = "the sandbox was not copied in time";
            Err(Refusal::new(StatusCode::CONFLICT, message))
        }
        SnapshotState::Deleting | SnapshotState::Deleted => {
            let message = "the snapshot was deleted meanwhile";
            Err(Refusal::new(StatusCode::CONFLICT, message))
        }
    }
}

pub(super) async fn list(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    RawQuery(query): RawQuery,
) -> Answered {
    let asked = SnapshotPage::parse(query.as_deref())?;
    let Some(filter) = filter(&asked) else {
        return Ok(Answer(json!([])).into_response());
    };
    let before = asked.before.as_deref();
    let page = app.service.snapshot_list(&ctx, filter, before, asked.limit);
    let page = page.await?;
    let rows: Vec<_> = page.snapshots.iter().map(view).collect();
    let mut response = Answer(rows).into_response();
    if let Some(next) = page.next.and_then(|next| HeaderValue::try_from(next).ok()) {
        response.headers_mut().insert(NEXT_TOKEN, next);
    }
    Ok(response)
}

/// What a list is to show; `None` when that can be nothing.
fn filter(asked: &SnapshotPage) -> Option<SnapshotFilter> {
    let mut filter = SnapshotFilter {
        ready: true,
        ..SnapshotFilter::default()
    };
    if let Some(sandbox) = &asked.sandbox {
        filter.sandbox = Some(SandboxId::from_short(sandbox).ok()?);
    }
    let Some(text) = asked.name.as_deref().map(str::to_lowercase) else {
        return Some(filter);
    };
    match wire::template_ref(&text).ok()?? {
        SnapshotRef::Name(name) => {
            filter.tag = text.contains(':').then_some(name.tag);
            filter.name = Some(name.name);
        }
        SnapshotRef::Id(id) => filter.id = Some(id),
    }
    Some(filter)
}

/// Each fork is answered when it is ready, or with why it is not.
pub(super) async fn fork(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    CreateKey(key): CreateKey,
    Named(id): Named,
    Extension(Domain(domain)): Extension<Domain>,
    Lenient(asked): Lenient<NewFork>,
) -> Answered {
    let row = live(&app, &ctx, &id).await?;
    copied(&app, &ctx, row).await?;
    let key = key.of(&(id.as_str(), &asked))?;
    let fork = Fork {
        count: asked.count.unwrap_or(1),
        ttl_ms: asked.timeout.map(|seconds| seconds.saturating_mul(1000)),
    };
    let made = app.service.sandbox_fork(&ctx, &id, fork, key, WAIT).await?;
    let waiting = made.into_iter().map(|one| settled(&app, &ctx, one));
    let forks = join_all(waiting).await.into_iter().map(|one| match one {
        Ok(row) => json!({"sandbox": wire::sandbox(&row, domain.clone())}),
        Err(refusal) => json!({"error": refusal.body()}),
    });
    let forks: Vec<Value> = forks.collect();
    Ok((StatusCode::CREATED, Answer(forks)).into_response())
}

/// One of a fork, when it can be used.
async fn settled(
    app: &App,
    ctx: &Ctx,
    made: Result<SandboxRow, service::Error>,
) -> Result<SandboxRow, Refusal> {
    let row = app.service.sandbox_wait(ctx, &made?.id, WAIT).await?;
    match &row.state {
        SandboxState::Ready => Ok(row),
        SandboxState::Failed { why } => Err(Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the sandbox could not be made: {why}"),
        )),
        other @ (SandboxState::Requested
        | SandboxState::Provisioning
        | SandboxState::Pausing { .. }
        | SandboxState::Paused { .. }
        | SandboxState::Resuming { .. }
        | SandboxState::Snapshotting { .. }
        | SandboxState::Recreating
        | SandboxState::Destroying
        | SandboxState::Destroyed) => {
            let message = format!("the sandbox is {}", other.name());
            app.service.sandbox_destroy(ctx, &row.id).await?;
            Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message))
        }
    }
}

/// Whether a template is there for everybody: from the start, or as a root that the operator has given.
pub(super) async fn is_given(app: &App, ctx: &Ctx, name: &str) -> Result<bool, Refusal> {
    Ok(wire::is_built_in(name) || app.service.root_find(ctx, name).await?.is_some())
}

/// How the clients delete a snapshot. Sandboxes that began with it stay.
pub(super) async fn delete(app: &App, ctx: &Ctx, id: &str) -> Answered {
    let row = find(app, ctx, id).await?;
    app.service.snapshot_delete(ctx, &row.id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The snapshot that is named, unless it is gone or about to be: at this edge there is none then.
pub(super) async fn find(app: &App, ctx: &Ctx, text: &str) -> Result<SnapshotRow, Refusal> {
    let gone = || wire::no_template(text);
    let named = wire::template_ref(text)?.ok_or_else(gone)?;
    match app.service.snapshot_find(ctx, &named).await {
        Ok(row) if matches!(row.state, SnapshotState::Ready) => Ok(row),
        Ok(_) | Err(service::Error::NotFound) => Err(gone()),
        Err(error) => Err(error.into()),
    }
}

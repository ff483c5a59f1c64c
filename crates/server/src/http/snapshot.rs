//! Snapshots, and sandboxes made from them.

use api::job::WaitQuery;
use api::snapshot::{
    ForkList, SandboxFork, SnapshotCreate, SnapshotList, SnapshotListQuery, SnapshotView,
};
use api::{ErrorBody, routes};
use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use http::header::{HeaderName, LOCATION};
use model::id::SnapshotId;
use model::limits;
use service::{Fork, SnapshotRow};
use std::time::Duration;

use crate::App;
use crate::convert::{from_wire, snapshot};
use crate::error::Error;
use crate::extract::{Json, Key, Query, SandboxOf, SnapshotNamed, User};

type Created = (StatusCode, [(HeaderName, String); 1], Answer<SnapshotView>);

/// Copies what was written in a sandbox; with `wait` it is answered when that is done. What runs in the
/// sandbox stands still meanwhile, and is not in the copy: a snapshot keeps files.
#[utoipa::path(post, path = routes::SANDBOX_SNAPSHOTS, tag = "snapshots",
    operation_id = "snapshot_create",
    params(("id" = String, Path, description = "The sandbox"), WaitQuery,
        ("Idempotency-Key" = Option<String>, Header,
         description = "Makes the create safe to repeat: 8 to 255 of A-Z, a-z, 0-9, `_`, `-`")),
    request_body = SnapshotCreate,
    responses((status = 201, description = "The snapshot, or the one that the key made before",
               body = SnapshotView),
              (status = 400, description = "Nothing was created", body = ErrorBody),
              (status = 404, description = "No such sandbox", body = ErrorBody),
              (status = 409, description = "It cannot be copied, or not in this state",
               body = ErrorBody),
              (status = 410, description = "It is over", body = ErrorBody),
              (status = 429, description = "There are too many", body = ErrorBody),
              (status = 507, description = "The disk is full", body = ErrorBody)))]
pub(crate) async fn create(
    State(app): State<App>,
    User(ctx): User,
    SandboxOf(id): SandboxOf,
    key: Key,
    Query(query): Query<WaitQuery>,
    Json(asked): Json<SnapshotCreate>,
) -> Result<Created, Error> {
    let wait = from_wire::wait(query.wait.as_deref())?;
    let key = key.of(&(id.as_str(), &asked))?;
    let name = asked.name.as_deref().map(snapshot::name).transpose()?;
    let row = app.service.snapshot_create(&ctx, &id, name, key).await?;
    let row = wait_for(&app, &ctx, row, wait).await?;
    let location = routes::fill(routes::SNAPSHOT, &[row.id.as_str()]);
    let view = Answer(snapshot::view(row));
    Ok((StatusCode::CREATED, [(LOCATION, location)], view))
}

/// A server that stops answers with what it knows.
async fn wait_for(
    app: &App,
    ctx: &service::Ctx,
    row: SnapshotRow,
    wait: Duration,
) -> Result<SnapshotRow, Error> {
    let waiting = app.service.snapshot_wait(ctx, &row.id, wait);
    let waited = app.stopping.run_until_cancelled(waiting).await;
    Ok(waited.transpose()?.unwrap_or(row))
}

/// Makes sandboxes that begin with what was written in this one, and are asked to be like it else. Each of
/// them comes to be or does not, by itself. Processes are not forked: each begins with files only.
#[utoipa::path(post, path = routes::SANDBOX_FORK, tag = "snapshots", operation_id = "sandbox_fork",
    params(("id" = String, Path, description = "The sandbox"),
        ("Idempotency-Key" = Option<String>, Header,
         description = "Makes the create safe to repeat: 8 to 255 of A-Z, a-z, 0-9, `_`, `-`")),
    request_body = SandboxFork,
    responses((status = 201, description = "What became of each", body = ForkList),
              (status = 400, description = "Nothing was created", body = ErrorBody),
              (status = 404, description = "No such sandbox", body = ErrorBody),
              (status = 409, description = "It cannot be copied, or not in this state",
               body = ErrorBody),
              (status = 410, description = "It is over", body = ErrorBody),
              (status = 429, description = "There are too many", body = ErrorBody),
              (status = 507, description = "The disk is full", body = ErrorBody)))]
pub(crate) async fn fork(
    State(app): State<App>,
    User(ctx): User,
    SandboxOf(id): SandboxOf,
    key: Key,
    Json(asked): Json<SandboxFork>,
) -> Result<(StatusCode, Answer<ForkList>), Error> {
    let key = key.of(&(id.as_str(), &asked))?;
    let fork = Fork {
        count: asked.count.unwrap_or(1),
        ttl_ms: asked.timeout_ms,
    };
    let wait = Duration::from_millis(limits::SANDBOX_ORDER_MS);
    let forks = app.service.sandbox_fork(&ctx, &id, fork, key, wait).await?;
    let forks = forks.into_iter();
    let forks = forks.map(|one| snapshot::fork(one, &ctx));
    let list = ForkList {
        forks: forks.collect(),
    };
    Ok((StatusCode::CREATED, Answer(list)))
}

/// Lists snapshots that are not deleted, newest first.
#[utoipa::path(get, path = routes::SNAPSHOTS, tag = "snapshots", operation_id = "snapshot_list",
    params(SnapshotListQuery),
    responses((status = 200, description = "A page", body = SnapshotList),
              (status = 400, description = "The query is wrong", body = ErrorBody)))]
pub(crate) async fn list(
    State(app): State<App>,
    User(ctx): User,
    Query(query): Query<SnapshotListQuery>,
) -> Result<Answer<SnapshotList>, Error> {
    let limit = from_wire::page_limit(query.limit)?;
    let (filter, before) = (snapshot::filter(&query)?, query.before.as_deref());
    let page = app.service.snapshot_list(&ctx, filter, before, limit);
    Ok(Answer(snapshot::list(page.await?)))
}

/// The snapshot of this id or name.
async fn named(app: &App, ctx: &service::Ctx, name: &str) -> Result<SnapshotId, Error> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let named = snapshot::named(name).map_err(|_| Error::not_found())?;
    Ok(app.service.snapshot_find(ctx, &named).await?.id)
}

/// One snapshot; with `wait` when it is ready or has failed, or as it is after that time.
#[utoipa::path(get, path = routes::SNAPSHOT, tag = "snapshots", operation_id = "snapshot_get",
    params(("id" = String, Path,
        description = "The snapshot, or its name: of several of one name, the newest that is ready"), WaitQuery),
    responses((status = 200, description = "The snapshot", body = SnapshotView),
              (status = 404, description = "No such snapshot", body = ErrorBody)))]
pub(crate) async fn get(
    State(app): State<App>,
    User(ctx): User,
    SnapshotNamed(name): SnapshotNamed,
    Query(query): Query<WaitQuery>,
) -> Result<Answer<SnapshotView>, Error> {
    let wait = from_wire::wait(query.wait.as_deref())?;
    let id = named(&app, &ctx, &name).await?;
    let row = app.service.snapshot_get(&ctx, &id).await?;
    let row = wait_for(&app, &ctx, row, wait).await?;
    Ok(Answer(snapshot::view(row)))
}

/// Gives a snapshot up, wherever it is in its life. Nothing begins with it any more; its bytes go when no
/// sandbox and no other snapshot stands on them. Once more is the same as once.
#[utoipa::path(delete, path = routes::SNAPSHOT, tag = "snapshots", operation_id = "snapshot_delete",
    params(("id" = String, Path,
        description = "The snapshot, or its name: of several of one name, the newest that is ready")),
    responses((status = 200, description = "The snapshot", body = SnapshotView),
              (status = 404, description = "No such snapshot", body = ErrorBody)))]
pub(crate) async fn delete(
    State(app): State<App>,
    User(ctx): User,
    SnapshotNamed(name): SnapshotNamed,
) -> Result<Answer<SnapshotView>, Error> {
    let id = named(&app, &ctx, &name).await?;
    let row = app.service.snapshot_delete(&ctx, &id).await?;
    Ok(Answer(snapshot::view(row)))
}

//! Sandboxes that live on.

use std::time::Duration;

use api::event::{EventList, EventListQuery};
use api::exec::{ExecList, ExecListQuery};
use api::job::WaitQuery;
use api::network::Network;
use api::sandbox::{
    SandboxConnect, SandboxCreate, SandboxList, SandboxListQuery, SandboxPause, SandboxResume,
    SandboxTimeout, SandboxView,
};
use api::{ErrorBody, routes};
use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use http::header::{HeaderName, LOCATION};
use service::{Ctx, SandboxFilter, SandboxPage, SandboxRow};

use crate::App;
use crate::convert::{exec, from_wire, network, sandbox, to_wire};
use crate::error::Error;
use crate::extract::{Json, JsonOrNone, Key, Query, SandboxOf, User};

type Created = (StatusCode, [(HeaderName, String); 1], Answer<SandboxView>);

/// Creates a sandbox that lives on; with `wait` it is answered when that is ready.
#[utoipa::path(post, path = routes::SANDBOXES, tag = "sandboxes", operation_id = "sandbox_create",
    params(WaitQuery,
        ("Idempotency-Key" = Option<String>, Header,
         description = "Makes the create safe to repeat: 8 to 255 of A-Z, a-z, 0-9, `_`, `-`")),
    request_body = SandboxCreate,
    responses((status = 201, description = "The sandbox, or the one that the key made before",
               body = SandboxView),
              (status = 400, description = "Nothing was created", body = ErrorBody),
              (status = 409, description = "The key was used for another request", body = ErrorBody),
              (status = 413, description = "The body is too large", body = ErrorBody),
              (status = 429, description = "There are too many", body = ErrorBody),
              (status = 507, description = "The disk is full", body = ErrorBody)))]
pub(crate) async fn create(
    State(app): State<App>,
    User(ctx): User,
    key: Key,
    Query(query): Query<WaitQuery>,
    Json(asked): Json<SandboxCreate>,
) -> Result<Created, Error> {
    let wait = from_wire::wait(query.wait.as_deref())?;
    let key = key.of(&asked)?;
    let ask = sandbox::ask(asked)?;
    let row = app.service.sandbox_create(&ctx, ask, key).await?;
    let row = wait_for(&app, &ctx, row, wait).await?;
    let location = routes::fill(routes::SANDBOX, &[row.id.as_str()]);
    let view = Answer(sandbox::view(&ctx, row));
    Ok((StatusCode::CREATED, [(LOCATION, location)], view))
}

/// Lists sandboxes, newest first; also by `metadata.KEY=VALUE`, at most four times.
#[utoipa::path(get, path = routes::SANDBOXES, tag = "sandboxes", operation_id = "sandbox_list",
    params(SandboxListQuery),
    responses((status = 200, description = "A page", body = SandboxList),
              (status = 400, description = "The query is wrong", body = ErrorBody)))]
pub(crate) async fn list(
    State(app): State<App>,
    User(ctx): User,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Answer<SandboxList>, Error> {
    let query = sandbox::list_query(pairs)?;
    let limit = from_wire::page_limit(query.limit)?;
    let filter = sandbox::filter(&query);
    let page = page(&app, &ctx, filter, query.before.as_deref(), limit).await?;
    Ok(Answer(sandbox::list(page)))
}

/// One sandbox; with `wait` when nothing is under way with it, or as it is after that time.
#[utoipa::path(get, path = routes::SANDBOX, tag = "sandboxes", operation_id = "sandbox_get",
    params(("id" = String, Path, description = "The sandbox"), WaitQuery),
    responses((status = 200, description = "The sandbox", body = SandboxView),
              (status = 404, description = "No such sandbox", body = ErrorBody)))]
pub(crate) async fn get(
    State(app): State<App>,
    User(ctx): User,
    SandboxOf(id): SandboxOf,
    Query(query): Query<WaitQuery>,
) -> Result<Answer<SandboxView>, Error> {
    let wait = from_wire::wait(query.wait.as_deref())?;
    let row = app.service.sandbox_get(&ctx, &id).await?;
    let row = wait_for(&app, &ctx, row, wait).await?;
    Ok(Answer(sandbox::view(&ctx, row)))
}

/// Takes a sandbox away, wherever it is in its life. Once more is the same as once.
#[utoipa::path(delete, path = routes::SANDBOX, tag = "sandboxes", operation_id = "sandbox_destroy",
    params(("id" = String, Path, description = "The sandbox"), WaitQuery),
    responses((status = 200, description = "The sandbox", body = SandboxView),
              (status = 404, description = "No such sandbox", body = ErrorBody)))]
pub(crate) async fn destroy(
    State(app): State<App>,
    User(ctx): User,
    SandboxOf(id): SandboxOf,
    Query(query): Query<WaitQuery>,
) -> Result<Answer<SandboxView>, Error> {
    let wait = from_wire::wait(query.wait.as_deref())?;
    let row = app.service.sandbox_destroy(&ctx, &id).await?;
    let row = wait_for(&app, &ctx, row, wait).await?;
    Ok(Answer(sandbox::view(&ctx, row)))
}

/// Gives a sandbox a new time to live, from now on; one that is longer than 24 h is cut to that.
#[utoipa::path(post, path = routes::SANDBOX_TIMEOUT, tag = "sandboxes",
    operation_id = "sandbox_timeout",
    params(("id" = String, Path, description = "The sandbox")), request_body = SandboxTimeout,
    responses((status = 200, description = "The sandbox", body = SandboxView),
              (status = 404, description = "No such sandbox", body = ErrorBody),
              (status = 409, description = "It is paused", body = ErrorBody),
              (status = 410, description = "It is over", body = ErrorBody)))]
pub(crate) async fn timeout(
    State(app): State<App>,
    User(ctx): User,
    SandboxOf(id): SandboxOf,
    Json(asked): Json<SandboxTimeout>,
) -> Result<Answer<SandboxView>, Error> {
    let row = app
        .service
        .sandbox_set_timeout(&ctx, &id, asked.timeout_ms)
        .await?;
    Ok(Answer(sandbox::view(&ctx, row)))
}

/// Puts other rules of the network in the place of those that there are, all of them at once. What they do not
/// allow any more is cut when the node has put them in force; with `wait` this answers then.
#[utoipa::path(put, path = routes::SANDBOX_NETWORK, tag = "sandboxes",
    operation_id = "sandbox_network",
    params(("id" = String, Path, description = "The sandbox"), WaitQuery), request_body = Network,
    responses((status = 200, description = "The sandbox", body = SandboxView),
              (status = 400, description = "Not rules", body = ErrorBody),
              (status = 404, description = "No such sandbox", body = ErrorBody),
              (status = 410, description = "It is over", body = ErrorBody)))]
pub(crate) async fn set_network(
    State(app): State<App>,
    User(ctx): User,
    SandboxOf(id): SandboxOf,
    Query(query): Query<WaitQuery>,
    Json(asked): Json<Network>,
) -> Result<Answer<SandboxView>, Error> {
    let wait = from_wire::wait(query.wait.as_deref())?;
    let change = network::change(asked)?;
    let setting = Box::pin(app.service.sandbox_set_network(&ctx, &id, change, wait));
    let row = match app.stopping.run_until_cancelled(setting).await {
        Some(row) => row?,
        // It is written, or it is not; whoever asked sees which.
        None => app.service.sandbox_get(&ctx, &id).await?,
    };
    Ok(Answer(sandbox::view(&ctx, row)))
}

/// Pauses a sandbox: it is kept, and nothing in it runs. With `memory` false everything that runs in it
/// ends, and it keeps its files; one that is paused already lets go of the rest. Once more is the same as
/// once.
#[utoipa::path(post, path = routes::SANDBOX_PAUSE, tag = "sandboxes", operation_id = "sandbox_pause",
    params(("id" = String, Path, description = "The sandbox"), WaitQuery),
    request_body = Option<SandboxPause>,
    responses((status = 200, description = "The sandbox", body = SandboxView),
              (status = 400, description = "The body cannot be read", body = ErrorBody),
              (status = 404, description = "No such sandbox", body = ErrorBody),
              (status = 409, description = "Not in this state", body = ErrorBody),
              (status = 410, description = "It is over", body = ErrorBody)))]
pub(crate) async fn pause(
    State(app): State<App>,
    User(ctx): User,
    SandboxOf(id): SandboxOf,
    Query(query): Query<WaitQuery>,
    JsonOrNone(asked): JsonOrNone<SandboxPause>,
) -> Result<Answer<SandboxView>, Error> {
    let wait = from_wire::wait(query.wait.as_deref())?;
    let memory = asked.memory.unwrap_or(true);
    let row = app.service.sandbox_pause(&ctx, &id, memory).await?;
    let row = wait_for(&app, &ctx, row, wait).await?;
    Ok(Answer(sandbox::view(&ctx, row)))
}

/// Brings a paused sandbox back, with as much time as it had at first; with `memory` false with its files
/// alone. Once more is the same as once.
#[utoipa::path(post, path = routes::SANDBOX_RESUME, tag = "sandboxes",
    operation_id = "sandbox_resume",
    params(("id" = String, Path, description = "The sandbox"), WaitQuery),
    request_body = Option<SandboxResume>,
    responses((status = 200, description = "The sandbox", body = SandboxView),
              (status = 400, description = "The body cannot be read", body = ErrorBody),
              (status = 404, description = "No such sandbox", body = ErrorBody),
              (status = 409, description = "Not in this state", body = ErrorBody),
              (status = 410, description = "It is over", body = ErrorBody)))]
pub(crate) async fn resume(
    State(app): State<App>,
    User(ctx): User,
    SandboxOf(id): SandboxOf,
    Query(query): Query<WaitQuery>,
    JsonOrNone(asked): JsonOrNone<SandboxResume>,
) -> Result<Answer<SandboxView>, Error> {
    let wait = from_wire::wait(query.wait.as_deref())?;
    let memory = asked.memory.unwrap_or(true);
    let row = app.service.sandbox_resume(&ctx, &id, memory).await?;
    let row = wait_for(&app, &ctx, row, wait).await?;
    Ok(Answer(sandbox::view(&ctx, row)))
}

/// Comes to use a sandbox: resumes it if it is paused, and lets it live at least so long.
#[utoipa::path(post, path = routes::SANDBOX_CONNECT, tag = "sandboxes",
    operation_id = "sandbox_connect",
    params(("id" = String, Path, description = "The sandbox"), WaitQuery),
    request_body = SandboxConnect,
    responses((status = 200, description = "The sandbox", body = SandboxView),
              (status = 404, description = "No such sandbox", body = ErrorBody),
              (status = 409, description = "It is still being paused", body = ErrorBody),
              (status = 410, description = "It is over", body = ErrorBody)))]
pub(crate) async fn connect(
    State(app): State<App>,
    User(ctx): User,
    SandboxOf(id): SandboxOf,
    Query(query): Query<WaitQuery>,
    Json(asked): Json<SandboxConnect>,
) -> Result<Answer<SandboxView>, Error> {
    let wait = from_wire::wait(query.wait.as_deref())?;
    let connecting = app.service.sandbox_connect(
        &ctx,
        &id,
        (asked.timeout_ms, asked.memory.unwrap_or(true)),
        wait,
    );
    let connected = app.stopping.run_until_cancelled(connecting).await;
    let row = match connected {
        Some(row) => row?,
        None => app.service.sandbox_get(&ctx, &id).await?,
    };
    Ok(Answer(sandbox::view(&ctx, row)))
}

/// Makes a sandbox anew, under its id: its place is taken away, with all that runs and all that was written
/// there, and it gets another one that is as it was asked to be. Also one that failed.
#[utoipa::path(post, path = routes::SANDBOX_RECREATE, tag = "sandboxes",
    operation_id = "sandbox_recreate",
    params(("id" = String, Path, description = "The sandbox"), WaitQuery,
        ("Idempotency-Key" = Option<String>, Header,
         description = "Makes it safe to repeat: 8 to 255 of A-Z, a-z, 0-9, `_`, `-`")),
    responses((status = 200, description = "The sandbox", body = SandboxView),
              (status = 404, description = "No such sandbox, or its snapshot is gone",
               body = ErrorBody),
              (status = 409, description = "Its root is another one now, or the key was used for \
               another request", body = ErrorBody),
              (status = 410, description = "It is wanted gone", body = ErrorBody),
              (status = 429, description = "There are too many", body = ErrorBody),
              (status = 507, description = "The disk is full", body = ErrorBody)))]
pub(crate) async fn recreate(
    State(app): State<App>,
    User(ctx): User,
    SandboxOf(id): SandboxOf,
    key: Key,
    Query(query): Query<WaitQuery>,
) -> Result<Answer<SandboxView>, Error> {
    let wait = from_wire::wait(query.wait.as_deref())?;
    let key = key.of(&id.as_str())?;
    let row = app.service.sandbox_recreate(&ctx, &id, key).await?;
    let row = wait_for(&app, &ctx, row, wait).await?;
    Ok(Answer(sandbox::view(&ctx, row)))
}

/// What happened to a sandbox, oldest first.
#[utoipa::path(get, path = routes::SANDBOX_EVENTS, tag = "sandboxes",
    operation_id = "sandbox_events",
    params(("id" = String, Path, description = "The sandbox"), EventListQuery),
    responses((status = 200, description = "A page", body = EventList),
              (status = 404, description = "No such sandbox", body = ErrorBody)))]
pub(crate) async fn events(
    State(app): State<App>,
    User(ctx): User,
    SandboxOf(id): SandboxOf,
    Query(query): Query<EventListQuery>,
) -> Result<Answer<EventList>, Error> {
    let limit = from_wire::page_limit(query.limit)?;
    let after = query.after.unwrap_or(0);
    let events = app.service.sandbox_events(&ctx, &id, after, limit).await?;
    Ok(Answer(to_wire::event_list(events, limit)))
}

/// What was run in a sandbox, newest first: each command with who asked for it and how it ended. Of what a
/// command wrote, only the length is kept. Waits a moment for the record of what has just ended.
#[utoipa::path(get, path = routes::SANDBOX_JOBS, tag = "sandboxes", operation_id = "sandbox_jobs",
    params(("id" = String, Path, description = "The sandbox"), ExecListQuery),
    responses((status = 200, description = "A page", body = ExecList),
              (status = 404, description = "No such sandbox", body = ErrorBody)))]
pub(crate) async fn jobs(
    State(app): State<App>,
    User(ctx): User,
    SandboxOf(id): SandboxOf,
    Query(query): Query<ExecListQuery>,
) -> Result<Answer<ExecList>, Error> {
    let limit = from_wire::page_limit(query.limit)?;
    if query.before.is_none() {
        super::recorded::wait(&app, &ctx, &id).await;
    }
    let page = app
        .service
        .exec_list(&ctx, &id, (None, query.before), limit)
        .await?;
    Ok(Answer(exec::list(page)))
}

/// A page that a client can hold: when the sandboxes on it are unusually long, a shorter one.
async fn page(
    app: &App,
    ctx: &Ctx,
    filter: SandboxFilter,
    before: Option<&str>,
    limit: u32,
) -> Result<SandboxPage, Error> {
    let page = app.service.sandbox_list(ctx, filter.clone(), before, limit);
    let page = page.await?;
    match u32::try_from(sandbox::fitting(&page.sandboxes)) {
        Ok(fitting) if (fitting as usize) < page.sandboxes.len() => {
            let page = app.service.sandbox_list(ctx, filter, before, fitting);
            Ok(page.await?)
        }
        _ => Ok(page),
    }
}

/// Waits until nothing is under way with a sandbox, at most so long. A server that stops answers with what
/// it knows instead of keeping everybody who waits until their time is over.
async fn wait_for(
    app: &App,
    ctx: &Ctx,
    row: SandboxRow,
    wait: Duration,
) -> Result<SandboxRow, Error> {
    if wait.is_zero() || row.state.is_settled() {
        return Ok(row);
    }
    let waiting = app.service.sandbox_wait(ctx, &row.id, wait);
    Ok(app
        .stopping
        .run_until_cancelled(waiting)
        .await
        .transpose()?
        .unwrap_or(row))
}

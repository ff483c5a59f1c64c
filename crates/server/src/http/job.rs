//! Jobs.

use std::time::Duration;

use api::event::{EventList, EventListQuery};
use api::job::{JobCreate, JobKind, JobList, JobListQuery, JobView, WaitQuery};
use api::{Code, ErrorBody, routes};
use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use http::header::{HeaderName, LOCATION};
use model::id::SandboxId;
use service::{Ctx, ExecKind, JobPage, JobRow};

use crate::App;
use crate::convert::{exec, from_wire, to_wire};
use crate::error::Error;
use crate::extract::{JobOf, Json, Key, Query, User};

type Created = (StatusCode, [(HeaderName, String); 1], Answer<JobView>);

/// Creates a job: one command in a sandbox of its own.
#[utoipa::path(post, path = routes::JOBS, tag = "jobs", operation_id = "job_create",
    params(WaitQuery,
        ("Idempotency-Key" = Option<String>, Header,
         description = "Makes the create safe to repeat: 8 to 255 of A-Z, a-z, 0-9, `_`, `-`")),
    request_body = JobCreate,
    responses((status = 201, description = "The job, or the one that the key made before",
               body = JobView),
              (status = 400, description = "Nothing was created", body = ErrorBody),
              (status = 409, description = "The key was used for another request", body = ErrorBody),
              (status = 413, description = "The body is too large", body = ErrorBody),
              (status = 429, description = "Too many jobs wait", body = ErrorBody),
              (status = 507, description = "The disk is full", body = ErrorBody)))]
pub(crate) async fn create(
    State(app): State<App>,
    User(ctx): User,
    key: Key,
    Query(query): Query<WaitQuery>,
    Json(job): Json<JobCreate>,
) -> Result<Created, Error> {
    let wait = from_wire::wait(query.wait.as_deref())?;
    let key = key.of(&job)?;
    let row = app
        .service
        .job_create_by(&ctx, from_wire::job_ask(job)?, key)
        .await?;
    let row = wait_for(&app, &ctx, row, wait).await?;
    let location = routes::fill(routes::JOB, &[row.id.as_str()]);
    Ok((
        StatusCode::CREATED,
        [(LOCATION, location)],
        Answer(view(&app, &ctx, row).await?),
    ))
}

/// Lists jobs, newest first; with `kind` or `sandbox` what was run in sandboxes that live on.
#[utoipa::path(get, path = routes::JOBS, tag = "jobs", operation_id = "job_list",
    params(JobListQuery),
    responses((status = 200, description = "A page", body = JobList),
              (status = 400, description = "The query is wrong", body = ErrorBody)))]
pub(crate) async fn list(
    State(app): State<App>,
    User(ctx): User,
    Query(query): Query<JobListQuery>,
) -> Result<Answer<JobList>, Error> {
    let limit = from_wire::page_limit(query.limit)?;
    if query.sandbox.is_some() || matches!(query.kind, Some(JobKind::Exec | JobKind::Step)) {
        return Ok(Answer(execs(&app, &ctx, query, limit).await?));
    }
    let state = query.state.map(api::job::StateName::as_str);
    let page = page(&app, &ctx, (state, query.before.as_deref()), limit).await?;
    Ok(Answer(to_wire::job_list(page)))
}

/// What was run in sandboxes that live on.
async fn execs(app: &App, ctx: &Ctx, query: JobListQuery, limit: u32) -> Result<JobList, Error> {
    let wrong = |field: &str, message: &str| Error::field(Code::InvalidArgument, field, message);
    if query.state.is_some() {
        return Err(wrong("state", "only jobs of kind `job` have states"));
    }
    let kind = match query.kind {
        None => None,
        Some(JobKind::Exec) => Some(ExecKind::Exec),
        Some(JobKind::Step) => Some(ExecKind::Step),
        Some(JobKind::Job) => {
            let message = "jobs of kind `job` have sandboxes of their own";
            return Err(wrong("sandbox", message));
        }
    };
    let no_page = || wrong("before", "no page ended with this");
    let before = query.before.as_deref();
    match (&query.sandbox, kind) {
        (Some(id), kind) => {
            let id = id.parse::<SandboxId>();
            let id = id.map_err(|e| from_wire::bad_id("sandbox", &e))?;
            let before = before.map(|text| text.parse::<u64>().map_err(|_| no_page()));
            let page = (kind, before.transpose()?);
            if page.1.is_none() {
                super::recorded::wait(app, ctx, &id).await;
            }
            let page = app.service.exec_list(ctx, &id, page, limit).await?;
            Ok(exec::job_list(page, true))
        }
        (None, kind) => {
            let before = before.map(|text| exec::before(text).ok_or_else(no_page));
            let page = (kind.unwrap_or(ExecKind::Exec), before.transpose()?);
            let page = app.service.exec_list_all(ctx, page, limit).await?;
            Ok(exec::job_list(page, false))
        }
    }
}

/// One job; with `wait` when it has ended, or as it is after that time.
#[utoipa::path(get, path = routes::JOB, tag = "jobs", operation_id = "job_get",
    params(("id" = String, Path, description = "The job"), WaitQuery),
    responses((status = 200, description = "The job", body = JobView),
              (status = 404, description = "No such job", body = ErrorBody)))]
pub(crate) async fn get(
    State(app): State<App>,
    User(ctx): User,
    JobOf(id): JobOf,
    Query(query): Query<WaitQuery>,
) -> Result<Answer<JobView>, Error> {
    let wait = from_wire::wait(query.wait.as_deref())?;
    let row = app.service.job_get(&ctx, &id).await?;
    let row = wait_for(&app, &ctx, row, wait).await?;
    let waiting = app.service.job_waits_for(&row).await?;
    let seen = view(&app, &ctx, row).await?;
    Ok(Answer(JobView { waiting, ..seen }))
}

/// Asks a job to stop. Once more is the same as once.
#[utoipa::path(post, path = routes::JOB_CANCEL, tag = "jobs", operation_id = "job_cancel",
    params(("id" = String, Path, description = "The job")),
    responses((status = 200, description = "The job", body = JobView),
              (status = 404, description = "No such job", body = ErrorBody),
              (status = 409, description = "It has ended otherwise", body = ErrorBody)))]
pub(crate) async fn cancel(
    State(app): State<App>,
    User(ctx): User,
    JobOf(id): JobOf,
) -> Result<Answer<JobView>, Error> {
    let row = app.service.job_cancel(&ctx, &id).await?;
    Ok(Answer(view(&app, &ctx, row).await?))
}

/// What happened to a job, oldest first.
#[utoipa::path(get, path = routes::JOB_EVENTS, tag = "jobs", operation_id = "job_events",
    params(("id" = String, Path, description = "The job"), EventListQuery),
    responses((status = 200, description = "A page", body = EventList),
              (status = 404, description = "No such job", body = ErrorBody)))]
pub(crate) async fn events(
    State(app): State<App>,
    User(ctx): User,
    JobOf(id): JobOf,
    Query(query): Query<EventListQuery>,
) -> Result<Answer<EventList>, Error> {
    let limit = from_wire::page_limit(query.limit)?;
    let after = query.after.unwrap_or(0);
    let events = app.service.job_events(&ctx, &id, after, limit).await?;
    Ok(Answer(to_wire::event_list(events, limit)))
}

/// A page that a client can hold: when the jobs on it are unusually long, a shorter one.
async fn page(
    app: &App,
    ctx: &Ctx,
    (state, before): (Option<&str>, Option<&str>),
    limit: u32,
) -> Result<JobPage, Error> {
    let page = app.service.job_list(ctx, state, before, limit).await?;
    match u32::try_from(to_wire::fitting(&page.jobs)) {
        Ok(fitting) if (fitting as usize) < page.jobs.len() => {
            Ok(app.service.job_list(ctx, state, before, fitting).await?)
        }
        _ => Ok(page),
    }
}

/// Waits for the end of a job, at most so long. A server that stops answers with what it knows
/// instead of keeping everybody who waits until their time is over.
async fn wait_for(app: &App, ctx: &Ctx, row: JobRow, wait: Duration) -> Result<JobRow, Error> {
    if wait.is_zero() || row.state.outcome().is_some() {
        return Ok(row);
    }
    let waiting = app.service.job_wait(ctx, &row.id, wait);
    Ok(app
        .stopping
        .run_until_cancelled(waiting)
        .await
        .transpose()?
        .unwrap_or(row))
}

/// The job with its files. Most jobs keep none, and their rows say so.
pub(crate) async fn view(app: &App, ctx: &Ctx, row: JobRow) -> Result<JobView, Error> {
    let artifacts = if row.spec.outputs.is_empty() {
        Vec::new()
    } else {
        app.service.artifact_list(ctx, &row.id).await?
    };
    Ok(to_wire::job(row, artifacts))
}

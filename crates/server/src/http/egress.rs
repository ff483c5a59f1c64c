//! What sandboxes and jobs have asked of the outside.

use api::egress::{EgressEnd, EgressList, EgressQuery, EgressTest, EgressTested, SSE_RECORD};
use api::log::SSE_END;
use api::{ErrorBody, routes};
use axum::Json as Answer;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use service::{Ctx, EgressLook, EgressOwner, EgressPage};

use crate::App;
use crate::convert::egress;
use crate::error::Error;
use crate::extract::{JobOf, Json, Query, SandboxOf, User};
use crate::http::sse;

/// Records that are read from the database at a time for a stream: each is some 400 bytes, and a few KB where its texts
/// are as long as they may be.
const BATCH: u32 = 100;

/// What a sandbox has asked of the outside, the oldest first: one record for each connection or request, told when
/// it is over; with `Accept: text/event-stream` all as they come, until the sandbox has ended.
#[utoipa::path(get, path = routes::SANDBOX_EGRESS, tag = "sandboxes", operation_id = "sandbox_egress",
    params(("id" = String, Path, description = "The sandbox"), EgressQuery),
    responses((status = 200, description = "A page, or a stream of `record` events and one `end`",
               content((EgressList = "application/json"), (String = "text/event-stream"))),
              (status = 400, description = "The query is wrong", body = ErrorBody),
              (status = 404, description = "No such sandbox", body = ErrorBody)))]
pub(crate) async fn of_sandbox(
    State(app): State<App>,
    User(ctx): User,
    SandboxOf(id): SandboxOf,
    Query(query): Query<EgressQuery>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let ask = egress::ask(query)?;
    if sse::is_wanted(&headers) {
        return follow(app, ctx, (EgressOwner::Sandbox(id), ask), &headers).await;
    }
    let page = app.service.sandbox_egress(&ctx, &id, ask).await?;
    Ok(Answer(egress::list(page)).into_response())
}

/// What a job has asked of the outside, the oldest first; with `Accept: text/event-stream` all as it comes, until the
/// job has ended.
#[utoipa::path(get, path = routes::JOB_EGRESS, tag = "jobs", operation_id = "job_egress",
    params(("id" = String, Path, description = "The job"), EgressQuery),
    responses((status = 200, description = "A page, or a stream of `record` events and one `end`",
               content((EgressList = "application/json"), (String = "text/event-stream"))),
              (status = 400, description = "The query is wrong", body = ErrorBody),
              (status = 404, description = "No such job", body = ErrorBody)))]
pub(crate) async fn of_job(
    State(app): State<App>,
    User(ctx): User,
    JobOf(id): JobOf,
    Query(query): Query<EgressQuery>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let ask = egress::ask(query)?;
    if sse::is_wanted(&headers) {
        return follow(app, ctx, (EgressOwner::Job(id), ask), &headers).await;
    }
    let page = app.service.job_egress(&ctx, &id, ask).await?;
    Ok(Answer(egress::list(page)).into_response())
}

/// Records on their way to a client.
struct Reading {
    app: App,
    ctx: Ctx,
    owner: EgressOwner,
    ask: EgressLook,
    ended: bool,
}

async fn follow(
    app: App,
    ctx: Ctx,
    (owner, mut ask): (EgressOwner, EgressLook),
    headers: &HeaderMap,
) -> Result<Response, Error> {
    // Before the answer begins, so that one that does not exist is 404.
    app.service.egress_node(&ctx, owner.clone()).await?;
    ask.after = sse::after(headers, Some(ask.after));
    ask.limit = BATCH;
    let reading = Reading {
        app,
        ctx,
        owner,
        ask,
        ended: false,
    };
    let events = stream::unfold(reading, async |mut reading| {
        let events = next_events(&mut reading).await?;
        Some((events, reading))
    });
    Ok(sse::answer(events))
}

/// The next events as bytes; `None` after the last, or when the server stops, which a client takes for a broken
/// connection and follows again.
async fn next_events(reading: &mut Reading) -> Option<Bytes> {
    if reading.ended {
        return None;
    }
    let (service, ask) = (&reading.app.service, reading.ask.clone());
    let waiting = service.egress_wait(&reading.ctx, &reading.owner, ask, sse::KEEP_ALIVE);
    let page = reading.app.stopping.run_until_cancelled(waiting).await?;
    Some(match page.ok()? {
        Some(page) => {
            reading.ask.after = page.next;
            told(page).unwrap_or_else(|| Bytes::from_static(sse::SIGN))
        }
        None => {
            reading.ended = true;
            let end = EgressEnd {
                next: reading.ask.after,
            };
            let data = serde_json::to_string(&end).ok()?;
            format!("event: {SSE_END}\ndata: {data}\n\n").into()
        }
    })
}

/// Records as events; nothing where there are none.
fn told(page: EgressPage) -> Option<Bytes> {
    let records = egress::list(page).records;
    let event = |record: &api::egress::EgressView| {
        let data = serde_json::to_string(record).unwrap_or_default();
        format!("event: {SSE_RECORD}\nid: {}\ndata: {data}\n\n", record.seq)
    };
    let events: String = records.iter().map(event).collect();
    (!events.is_empty()).then(|| events.into())
}

/// What would become of a URL by the rules that a sandbox has now. No name is resolved and nothing is dialled.
#[utoipa::path(post, path = routes::SANDBOX_EGRESS_TEST, tag = "sandboxes",
    operation_id = "sandbox_egress_test",
    params(("id" = String, Path, description = "The sandbox")), request_body = EgressTest,
    responses((status = 200, description = "What would become of it", body = EgressTested),
              (status = 400, description = "No URL", body = ErrorBody),
              (status = 404, description = "No such sandbox", body = ErrorBody)))]
pub(crate) async fn test(
    State(app): State<App>,
    User(ctx): User,
    SandboxOf(id): SandboxOf,
    Json(asked): Json<EgressTest>,
) -> Result<Answer<EgressTested>, Error> {
    let trial = app
        .service
        .sandbox_egress_test(&ctx, &id, (asked.url.as_str(), &asked.headers))
        .await?;
    Ok(Answer(egress::tested(trial)))
}

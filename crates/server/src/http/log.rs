//! What jobs wrote: a page, a live stream, or raw bytes.

use std::collections::VecDeque;

use api::log::{LogFormat, LogPage, LogQuery, SSE_END, SSE_OUTPUT, StreamName};
use api::{Code, ErrorBody, routes};
use axum::Json as Answer;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use model::id::JobId;
use service::{Ctx, Segment};

use crate::App;
use crate::convert::{from_wire, to_wire};
use crate::download;
use crate::error::Error;
use crate::extract::{JobOf, Query, User};
use crate::http::{job, sse};

/// Pieces that are read from the database at a time for a stream: at most 4 MiB of memory.
const BATCH: u32 = 16;

/// What a job wrote: a page of pieces; with `Accept: text/event-stream` everything as it comes,
/// until the job ends; with `format=raw` the bytes of one stream.
#[utoipa::path(get, path = routes::JOB_LOGS, tag = "jobs", operation_id = "job_logs",
    params(("id" = String, Path, description = "The job"), LogQuery),
    responses((status = 200, description = "A page, a stream of `output` events and one `end`, \
               or bytes", content((LogPage = "application/json"), (String = "text/event-stream"),
               (Vec<u8> = "application/octet-stream"))),
              (status = 400, description = "The query is wrong", body = ErrorBody),
              (status = 404, description = "No such job", body = ErrorBody)))]
pub(crate) async fn logs(
    State(app): State<App>,
    User(ctx): User,
    JobOf(id): JobOf,
    Query(query): Query<LogQuery>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    match query.format.unwrap_or_default() {
        LogFormat::Raw => raw(app, ctx, id, query).await,
        LogFormat::Json if sse::is_wanted(&headers) => follow(app, ctx, id, query, &headers).await,
        LogFormat::Json => page(&app, &ctx, &id, &query).await,
    }
}

async fn page(app: &App, ctx: &Ctx, id: &JobId, query: &LogQuery) -> Result<Response, Error> {
    let limit = from_wire::page_limit(query.limit)?;
    let after = query.after.unwrap_or(0);
    let page = app.service.output_list(ctx, id, after, limit).await?;
    Ok(Answer(to_wire::log_page(page, after, query.stream)).into_response())
}

/// A log on its way to a client.
struct Reading {
    app: App,
    ctx: Ctx,
    id: JobId,
    /// Only this stream.
    only: Option<StreamName>,
    after: u64,
    ended: bool,
}

impl Reading {
    fn wants(&self, segment: &Segment) -> bool {
        self.only.is_none_or(|only| only.as_str() == segment.stream)
    }
}

async fn follow(
    app: App,
    ctx: Ctx,
    id: JobId,
    query: LogQuery,
    headers: &HeaderMap,
) -> Result<Response, Error> {
    // Before the answer begins, so that a job that does not exist is 404.
    app.service.job_get(&ctx, &id).await?;
    let after = sse::after(headers, query.after);
    let reading = Reading {
        app,
        ctx,
        id,
        only: query.stream,
        after,
        ended: false,
    };
    let events = stream::unfold(reading, async |mut reading| {
        let events = next_events(&mut reading).await?;
        Some((events, reading))
    });
    Ok(sse::answer(events))
}

/// The next events as bytes; `None` after the last, or when the server stops, which a client takes
/// for a broken connection and follows again.
async fn next_events(reading: &mut Reading) -> Option<Bytes> {
    if reading.ended {
        return None;
    }
    let (app, ctx, id) = (&reading.app, &reading.ctx, &reading.id);
    let waiting = app
        .service
        .output_wait(ctx, id, reading.after, BATCH, sse::KEEP_ALIVE);
    let page = app.stopping.run_until_cancelled(waiting).await?.ok()?;
    reading.after = page.next;
    let nothing = page.segments.is_empty() && !page.complete;
    let wanted = page
        .segments
        .into_iter()
        .filter(|segment| reading.wants(segment));
    let mut events = wanted.map(output_event).collect::<Vec<_>>().concat();
    if page.complete {
        events.extend(end_event(reading).await?.into_bytes());
        reading.ended = true;
    }
    Some(if nothing {
        Bytes::from_static(sse::SIGN)
    } else {
        events.into()
    })
}

fn output_event(segment: Segment) -> Vec<u8> {
    let seq = segment.seq;
    let data = serde_json::to_string(&to_wire::log_segment(segment)).unwrap_or_default();
    format!("event: {SSE_OUTPUT}\nid: {seq}\ndata: {data}\n\n").into_bytes()
}

async fn end_event(reading: &Reading) -> Option<String> {
    let row = reading
        .app
        .service
        .job_get(&reading.ctx, &reading.id)
        .await
        .ok()?;
    let view = job::view(&reading.app, &reading.ctx, row).await.ok()?;
    let data = serde_json::to_string(&view).ok()?;
    Some(format!("event: {SSE_END}\ndata: {data}\n\n"))
}

/// The kept bytes of one stream of the last attempt, one after another.
async fn raw(app: App, ctx: Ctx, id: JobId, query: LogQuery) -> Result<Response, Error> {
    let Some(only) = query.stream else {
        let message = "raw bytes are those of one stream: add `stream=stdout` or `stream=stderr`";
        return Err(Error::field(Code::InvalidArgument, "stream", message));
    };
    let attempt = app.service.job_get(&ctx, &id).await?.attempt;
    let after = query.after.unwrap_or(0);
    let reading = Reading {
        app,
        ctx,
        id,
        only: Some(only),
        after,
        ended: false,
    };
    let bytes = stream::try_unfold(
        (reading, VecDeque::new()),
        move |(mut reading, mut ready): (Reading, VecDeque<Segment>)| async move {
            while ready.is_empty() && !reading.ended {
                ready = next_segments(&mut reading, attempt).await?;
            }
            let next = ready.pop_front();
            Ok::<_, service::Error>(
                next.map(|segment| (Bytes::from(segment.data), (reading, ready))),
            )
        },
    );
    Ok(download::body(Body::from_stream(bytes)))
}

async fn next_segments(
    reading: &mut Reading,
    attempt: u32,
) -> Result<VecDeque<Segment>, service::Error> {
    let list = reading
        .app
        .service
        .output_list(&reading.ctx, &reading.id, reading.after, BATCH);
    let mut page = list.await?;
    reading.ended = page.segments.len() < BATCH as usize;
    reading.after = page.next;
    page.segments
        .retain(|segment| reading.wants(segment) && segment.attempt == attempt);
    Ok(page.segments.into())
}

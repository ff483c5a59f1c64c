//! Server-sent events: what all streams of them have in common.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt as _};
use http::HeaderMap;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};

/// How often a silent stream gives a sign of life, so that both ends learn when the other is gone.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// That sign.
pub(crate) const SIGN: &[u8] = b": keep-alive\n\n";
/// The header with which a browser's EventSource goes on where it was.
const LAST_EVENT_ID: &str = "last-event-id";

/// Whether a stream is asked for, in the place of a page.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    headers
        .get(ACCEPT)
        .is_some_and(|accept| accept.as_bytes() == b"text/event-stream")
}

/// After which number a stream goes on: the last that the client has seen counts before what it asked for at first.
pub(crate) fn after(headers: &HeaderMap, asked: Option<u64>) -> u64 {
    let seen = headers
        .get(LAST_EVENT_ID)
        .and_then(|id| id.to_str().ok()?.parse().ok());
    seen.or(asked).unwrap_or(0)
}

/// Events as an answer.
pub(crate) fn answer(events: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
    ];
    let body = Body::from_stream(events.map(Ok::<_, Infallible>));
    (headers, body).into_response()
}

//! Bytes that a job wrote, on their way out.
//!
//! They are hostile: a job may keep an HTML file, and a browser that opened it from this server
//! would run its scripts with this server as their origin. So nothing of a job is ever shown by a
//! browser: it is a download of unknown type, and no script may run in it.

use axum::body::Body;
use axum::response::Response;
use http::HeaderValue;
use http::header::{
    CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName,
    X_CONTENT_TYPE_OPTIONS,
};
use tokio_util::io::ReaderStream;

/// One read of the disk; the same as every other buffer on the way.
const READ_BYTES: usize = api::attach::BUFFER_BYTES;

const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    ),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (CONTENT_DISPOSITION, HeaderValue::from_static("attachment")),
    (
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("sandbox; default-src 'none'"),
    ),
];

/// A file of so many bytes.
pub(crate) fn file(file: std::fs::File, size_bytes: u64) -> Response {
    let file = tokio::fs::File::from_std(file);
    let mut response = body(Body::from_stream(ReaderStream::with_capacity(
        file, READ_BYTES,
    )));
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(size_bytes));
    response
}

/// Bytes whose number is not known before.
pub(crate) fn body(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().extend(HEADERS);
    response
}

//! Values of secrets that a request was given are taken out of its answer: a host that shows what it was sent, as
//! many do when they refuse it, would tell them to whoever asked. A host that writes them in a way that nobody looks
//! for tells them all the same.

use hyper::HeaderMap;
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue, IF_RANGE, RANGE,
};
use hyper::{Response, http::request::Parts};
use scrub::{Cleaner, Known};
use std::sync::Arc;

/// What was compressed cannot be looked through, and of a value that comes in pieces no piece is known.
pub(crate) fn ask_plainly(head: &mut Parts) {
    let identity = HeaderValue::from_static("identity");
    head.headers.insert(ACCEPT_ENCODING, identity);
    for name in [RANGE, IF_RANGE] {
        head.headers.remove(name);
    }
}

/// Whether an answer can be looked through. Some hosts compress what nobody asked them to, and some do it because
/// the path says so, which the one who asks has chosen.
pub(crate) fn is_plain(answer: &Response<Incoming>) -> bool {
    let mut encodings = answer.headers().get_all(CONTENT_ENCODING).iter();
    encodings.all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// Takes values out of the head of an answer, and gives what takes them out of its body.
pub(crate) fn begin(answer: &mut Response<Incoming>, known: &Arc<Known>) -> Option<Cleaner> {
    let has_body = !answer.body().is_end_stream();
    let headers = answer.headers_mut();
    clean(headers, known);
    if has_body {
        // What stands in for a value is longer or shorter; the body is written in chunks.
        headers.remove(CONTENT_LENGTH);
        return Cleaner::new(Some(known), false);
    }
    None
}

fn clean(headers: &mut HeaderMap, known: &Arc<Known>) {
    for value in headers.values_mut() {
        let told = known.bytes(value.as_bytes());
        if told != value.as_bytes() {
            *value = HeaderValue::from_bytes(&told).unwrap_or(HeaderValue::from_static(""));
        }
    }
}

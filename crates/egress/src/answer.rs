//! What a client gets that gets no answer from outside.

use crate::decide::Refusal;
use crate::index::Check;
use crate::reason::Reason;
use crate::record::Recording;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use scrub::Cleaner;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The code of whatever ended here; never from outside.
pub(crate) const PROXY_ERROR: HeaderName = HeaderName::from_static("x-proxy-error");

/// What an answer carries.
#[derive(Debug)]
pub(crate) enum Body {
    /// Of our own making.
    Own(Option<Bytes>),
    /// From outside.
    Passed {
        body: Incoming,
        /// What takes values of secrets out of it, until its end.
        hide: Option<Box<Cleaner>>,
        /// The record is complete when the body is.
        _recording: Box<Recording>,
    },
    /// A file from outside, which is compared with its digest while it passes.
    Checked {
        body: Incoming,
        check: Box<Check>,
        recording: Box<Recording>,
    },
}

/// Why a body breaks off.
pub(crate) type Broken = Box<dyn std::error::Error + Send + Sync>;

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Body::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Body::Passed { body, hide, .. } => hidden(body, hide, context).map_err(Broken::from),
            Body::Checked {
                body,
                check,
                recording,
            } => checked((body, &mut **check, &mut **recording), context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Own(bytes) => bytes.is_none(),
            Body::Passed { body, hide, .. } => {
                hide.is_none() && http_body::Body::is_end_stream(body)
            }
            Body::Checked { check, .. } => check.is_over,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Own(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Body::Passed {
                body, hide: None, ..
            } => http_body::Body::size_hint(body),
            Body::Passed { .. } | Body::Checked { .. } => SizeHint::default(),
        }
    }
}

/// The next of a file. One that is another file than its page says ends before its last bytes, as if it were cut off.
fn checked(
    (body, check, recording): (&mut Incoming, &mut Check, &mut Recording),
    context: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
    while !check.is_over {
        let fed = match ready!(http_body::Body::poll_frame(Pin::new(&mut *body), context)) {
            Some(Ok(frame)) => check.feed(frame.into_data().unwrap_or_default()),
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => check.finish(),
        };
        match fed {
            Ok(None) => {}
            Ok(Some(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Err(reason) => {
                check.is_over = true;
                drop(recording.denied(reason.into()));
                return Poll::Ready(Some(Err(reason.code().into())));
            }
        }
    }
    Poll::Ready(None)
}

/// The next of a body without values of secrets. What was held back at its end is told there; fields that come after it
/// are not.
fn hidden(
    body: &mut Incoming,
    hide: &mut Option<Box<Cleaner>>,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
    let Some(cleaner) = hide else {
        return http_body::Body::poll_frame(Pin::new(body), context);
    };
    loop {
        match ready!(http_body::Body::poll_frame(Pin::new(&mut *body), context)) {
            Some(Ok(frame)) => {
                let told = frame.into_data().map(|data: Bytes| cleaner.feed(&data));
                let told = told.unwrap_or_default();
                if !told.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(told.into()))));
                }
            }
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => {
                let rest = cleaner.finish();
                *hide = None;
                let rest = (!rest.is_empty()).then(|| Ok(Frame::data(rest.into())));
                return Poll::Ready(rest);
            }
        }
    }
}

/// Text for a person or a model: what, by which rule, and what to do about it.
pub(crate) fn text(refusal: &Refusal, what: &str) -> String {
    let reason = refusal.reason;
    let verb = if reason.is_denial() {
        "denied"
    } else {
        "failed"
    };
    let (code, hint) = (reason.code(), reason.hint());
    let rule = refusal.rule.as_ref();
    let rule = rule
        .map(|rule| format!("rule: {rule}\n"))
        .unwrap_or_default();
    format!("egress {verb}: {code}: {what}\n{rule}hint: {hint}\n")
}

/// The answer to a request that ended here.
pub(crate) fn refused(refusal: &Refusal, what: &str) -> Response<Body> {
    let reason = refusal.reason;
    let body = Body::Own(Some(text(refusal, what).into()));
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(reason.status()).unwrap_or_default();
    let headers = answer.headers_mut();
    headers.insert(PROXY_ERROR, HeaderValue::from_static(reason.code()));
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(CONTENT_TYPE, plain);
    answer
}

/// The same as bytes, for a client of whom nothing was read.
pub(crate) fn unread(reason: Reason, what: &str) -> String {
    let text = text(&reason.into(), what);
    let (status, code, length) = (reason.status(), reason.code(), text.len());
    format!(
        "HTTP/1.1 {status} {code}\r\nx-proxy-error: {code}\r\ncontent-type: text/plain; charset=utf-8\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n{text}"
    )
}

//! The bodies of answers: all at once, or piece by piece as they come.

use super::download::{Download, Gzip};
use super::failure::Failure;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// What an answer carries.
#[derive(Debug)]
pub(super) enum Body {
    /// Everything is there.
    Whole(Option<Bytes>),
    /// It comes over this channel; its end is the end of the body.
    Pieces(mpsc::Receiver<Bytes>),
    /// It is in a file.
    File(Download),
    /// The same, compressed.
    Gzip(Gzip),
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let next = match self.get_mut() {
            Body::Whole(bytes) => Poll::Ready(bytes.take()),
            Body::Pieces(pieces) => pieces.poll_recv(context),
            Body::File(download) => {
                let read = download.read().transpose();
                return Poll::Ready(read.map(|bytes| bytes.map(Frame::data)));
            }
            Body::Gzip(gzip) => match gzip.read() {
                // Others have their turn; what was read may become something with what follows.
                Ok(Some(bytes)) if bytes.is_empty() => {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                read => return Poll::Ready(read.transpose().map(|bytes| bytes.map(Frame::data))),
            },
        };
        next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Body::Pieces(_) | Body::Gzip(_) => SizeHint::new(),
            Body::File(download) => SizeHint::with_exact(download.left),
        }
    }
}

/// What every request is answered with.
pub(super) type Answer = Response<Body>;

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Body::Whole(None));
    *answer.status_mut() = status;
    answer
}

/// An answer with a body of this type.
pub(super) fn of_type(status: StatusCode, kind: &'static str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// An answer in JSON.
pub(super) fn json(status: StatusCode, value: &impl serde::Serialize) -> Answer {
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    let body = Body::Whole(Some(bytes.into()));
    of_type(status, "application/json", body)
}

/// The refusal of a plain request. Its code is the status, by which clients tell it from Connect's.
pub(super) fn refused(failure: &Failure) -> Answer {
    let status = failure.code.status();
    let error = serde_json::json!({"code": status.as_u16(), "message": failure.message});
    json(status, &error)
}

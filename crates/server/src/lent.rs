//! Bodies that come back from whoever was to read them.
//!
//! hyper ends a connection on which a body was not read to its end, and whoever is still sending then sees a broken
//! connection and not why they were refused. So a body is lent to who answers; what a refusal has left of it is read
//! and forgotten before that is said. A body that was passed on into a sandbox is not back by then.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http::header::EXPECT;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;

/// How long the rest of a body is read that nobody wants.
const DRAIN: Duration = Duration::from_secs(5);

/// A body that comes back when whoever has it lets go of it.
#[derive(Debug)]
struct Lent {
    /// There until the end.
    body: Option<(Incoming, oneshot::Sender<Incoming>)>,
    /// Whether it is on its way: who says `Expect: 100-continue` sends nothing before it is asked for, and hyper asks
    /// as soon as it is read.
    is_sent: bool,
}

/// Where a body comes back to.
#[derive(Debug)]
pub(crate) struct Back(Option<oneshot::Receiver<Incoming>>);

/// Lends the body of a request that has these headers.
pub(crate) fn lend(headers: &HeaderMap, body: Incoming) -> (Body, Back) {
    // Most requests have none, and cost nothing here.
    if body.is_end_stream() {
        return (Body::new(body), Back(None));
    }
    let (back, backs) = oneshot::channel();
    let lent = Lent {
        body: Some((body, back)),
        is_sent: !headers.contains_key(EXPECT),
    };
    (Body::new(lent), Back(Some(backs)))
}

impl Back {
    /// Reads what is left of the body if it is back, has begun to come, and is at most this long; not for ever, and not
    /// of one that says that it is longer: there the answer is all that can be seen.
    pub(crate) async fn drain(self, most: usize) {
        let body = self.0.and_then(|mut backs| backs.try_recv().ok());
        let Some(body) = body.filter(|body| !body.is_end_stream()) else {
            return;
        };
        if body.size_hint().lower() > most as u64 {
            return;
        }
        let mut body = std::pin::pin!(Limited::new(body, most));
        let read = async { while let Some(Ok(_)) = body.frame().await {} };
        // The answer is the same whether all of it came or not.
        let _ = tokio::time::timeout(DRAIN, read).await;
    }
}

impl hyper::body::Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.is_sent = true;
        match &mut self.body {
            Some((body, _)) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        let lent = self.body.as_ref();
        lent.is_none_or(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Some((body, _)) => body.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.is_sent
            && let Some((body, back)) = self.body.take()
        {
            // Who has answered meanwhile does not wait for it.
            drop(back.send(body));
        }
    }
}

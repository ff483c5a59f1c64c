//! Requests in absolute form, and CONNECT. Each request is read whole, judged, and written anew to a connection
//! of its own, so that no two ends can disagree where one request ends and the next begins.

use crate::answer::{Body, refused};
use crate::clean;
use crate::dial::reach;
use crate::proxy::Way;
use crate::reason::Reason;
use crate::record::{Method as How, Recording};
use crate::target::{self, HTTP, Target};
use crate::traffic::Counted;
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A head of a request is complete after this, and a connection that asks nothing is closed after it.
pub(crate) const HEAD_PATIENCE: Duration = Duration::from_secs(30);

/// The longest head in bytes, of a request and of an answer: cookies and tokens are a few KiB each.
const HEAD_MAX: usize = 64 * 1024;

/// Fields of a head; what hyper takes by itself.
const FIELDS_MAX: usize = 100;

/// A tunnel that was agreed to and has not begun.
struct Tunnel {
    client: OnUpgrade,
    outside: Counted<TcpStream>,
    recording: Recording,
}

/// Serves one connection of a client to its end.
pub(crate) async fn serve<S>(way: &Way, client: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // A tunnel runs here and not in a task of its own, so that it ends when this is dropped.
    let agreed: Arc<Mutex<Option<Tunnel>>> = Arc::default();
    let (owned, agreeing) = (way.clone(), agreed.clone());
    let service = service_fn(move |request| {
        let (way, agreed) = (owned.clone(), agreeing.clone());
        async move { Ok::<_, Infallible>(answer(&way, request, &agreed).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_MAX)
        .max_headers(FIELDS_MAX)
        .serve_connection(TokioIo::new(client), service)
        .with_upgrades();
    // However it ended, it is over.
    drop(connection.await);
    let tunnel = agreed.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(tunnel) = tunnel
        && let Ok(client) = tunnel.client.await
    {
        crate::proxy::carry(TokioIo::new(client), tunnel.outside).await;
        drop(tunnel.recording);
    }
}

async fn answer(
    way: &Way,
    mut request: Request<Incoming>,
    agreed: &Mutex<Option<Tunnel>>,
) -> Response<Body> {
    let is_connect = request.method() == Method::CONNECT;
    let how = if is_connect { How::Connect } else { How::Http };
    let mut recording = way.record(how);
    let client = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let target = match target::of(&head) {
        Ok(target) => target,
        Err(reason) => {
            recording.refused(reason);
            return refused(reason, "the request's target is not served");
        }
    };
    let outside = match reach(way, &target, &mut recording).await {
        Ok(outside) => outside,
        Err(reason) => return refused(reason, &target.authority(HTTP)),
    };
    if is_connect {
        let tunnel = Tunnel {
            client,
            outside,
            recording,
        };
        *agreed.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel);
        return Response::new(Body::Own(None));
    }
    match pass(&target, head, body, outside, &mut recording).await {
        Ok(answer) => answer.map(|body| Body::Passed {
            body,
            _recording: Box::new(recording),
        }),
        Err(reason) => {
            recording.refused(reason);
            refused(reason, &target.authority(HTTP))
        }
    }
}

/// Sends a request out and waits for the head of its answer.
async fn pass(
    target: &Target,
    head: Parts,
    body: Incoming,
    outside: Counted<TcpStream>,
    recording: &mut Recording,
) -> Result<Response<Incoming>, Reason> {
    let head = outgoing(head, target)?;
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(HEAD_MAX)
        .max_headers(FIELDS_MAX)
        .handshake(TokioIo::new(outside))
        .await
        .map_err(|_| Reason::BadAnswer)?;
    let (traffic, watched) = (recording.traffic.clone(), recording.traffic.clone());
    // Ends with the request: whoever holds its other ends is the connection of the client.
    drop(tokio::spawn(async move {
        tokio::select! {
            ended = connection => drop(ended),
            () = watched.idle() => {}
        }
    }));
    let answer = sender.send_request(Request::from_parts(head, body)).await;
    let mut answer = answer.map_err(|_| {
        if traffic.was_idle() {
            Reason::AnswerTimeout
        } else {
            Reason::BadAnswer
        }
    })?;
    // Nobody asked to switch: the field that does is not passed on.
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Reason::BadAnswer);
    }
    clean::response(answer.headers_mut())?;
    *answer.version_mut() = Version::HTTP_11;
    Ok(answer)
}

/// The head as the other end expects it: only the path, one Host in the one form, nothing for a proxy.
fn outgoing(mut head: Parts, target: &Target) -> Result<Parts, Reason> {
    clean::request(&mut head.headers)?;
    let host = HeaderValue::from_str(&target.authority(HTTP)).map_err(|_| Reason::BadTarget)?;
    head.headers.insert(HOST, host);
    let path = head.uri.path_and_query().cloned();
    head.uri = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    head.version = Version::HTTP_11;
    head.extensions.clear();
    Ok(head)
}

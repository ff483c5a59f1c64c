//! Requests in absolute form, and CONNECT. Each request is read whole, judged, and written anew to a connection
//! of its own, so that no two ends can disagree where one request ends and the next begins.

use crate::answer::{Body, refused};
use crate::clean;
use crate::decide::Refusal;
use crate::dial::reach;
use crate::index;
use crate::inspect;
use crate::outside::Outside;
use crate::proxy::Way;
use crate::reason::Reason;
use crate::record::{Method as How, Recording};
use crate::target::{self, HTTP, Target};
use crate::traffic::{Counted, Reread};
use crate::tunnel::carry;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, HOST, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::network::How as Asked;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// A head of a request is complete after this, and a connection that asks nothing is closed after it.
pub(crate) const HEAD_PATIENCE: Duration = Duration::from_secs(30);

/// The longest head in bytes, of a request and of an answer: cookies and tokens are a few KiB each.
const HEAD_MAX: usize = 64 * 1024;

/// Fields of a head; what hyper takes by itself.
const FIELDS_MAX: usize = 100;

/// A tunnel that was agreed to and has not begun.
struct Tunnel {
    client: OnUpgrade,
    end: End,
    recording: Recording,
    target: Target,
}

/// Where a tunnel leads.
enum End {
    /// Outside.
    Outside(Counted<Outside>),
    /// To a host whose requests are judged one by one, when they come.
    Inspected,
}

/// How HTTP is spoken with a client.
pub(crate) fn server() -> hyper::server::conn::http1::Builder {
    let mut server = hyper::server::conn::http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_MAX)
        .max_headers(FIELDS_MAX);
    server
}

/// Serves one connection of a client to its end.
pub(crate) async fn serve<S>(way: &Way, client: Reread<S>)
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
    let connection = server()
        .serve_connection(TokioIo::new(client), service)
        .with_upgrades();
    // However it ended, it is over.
    drop(connection.await);
    let tunnel = agreed.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(mut tunnel) = tunnel
        && let Ok(client) = (&mut tunnel.client).await
    {
        let Tunnel {
            end,
            target,
            mut recording,
            ..
        } = tunnel;
        // What was put in comes out, with what was read too far.
        let Ok(parts) = client.downcast::<TokioIo<Reread<S>>>() else {
            recording.denied(Reason::Internal.into());
            return;
        };
        let client = parts.io.into_inner().after(&parts.read_buf);
        match end {
            End::Outside(outside) => {
                carry(way, &target, (client, outside), &mut recording).await;
            }
            End::Inspected => inspect::serve(way, target, client, recording).await,
        }
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
            let refusal = recording.denied(reason.into());
            return refused(&refusal, "the request's target is not served");
        }
    };
    if !is_connect && let Some(ecosystem) = way.ecosystem_of(&target) {
        return index::answer(way, ecosystem, &head, recording).await;
    }
    if is_connect {
        let end = match end(way, &target, &mut recording).await {
            Ok(end) => end,
            Err(refusal) => return refused(&refusal, &target.authority(HTTP)),
        };
        let tunnel = Tunnel {
            client,
            end,
            recording,
            target,
        };
        *agreed.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel);
        return Response::new(Body::Own(None));
    }
    match passed(way, &target, (head, body), &mut recording).await {
        Ok(answer) => answer.map(|body| Body::Passed {
            body,
            hide: None,
            _recording: Box::new(recording),
        }),
        Err(refusal) => {
            let refusal = recording.denied(refusal);
            refused(&refusal, &target.authority(HTTP))
        }
    }
}

/// Where a tunnel is to lead, or why to nowhere.
async fn end(way: &Way, target: &Target, recording: &mut Recording) -> Result<End, Refusal> {
    if way.looks_into(target) {
        inspect::begin(way, target, recording)?;
        return Ok(End::Inspected);
    }
    let outside = reach(way, Asked::Tunnel, target, recording).await?;
    Ok(End::Outside(outside))
}

/// Passes on a request in absolute form.
async fn passed(
    way: &Way,
    target: &Target,
    (head, body): (Parts, Incoming),
    recording: &mut Recording,
) -> Result<Response<Incoming>, Refusal> {
    recording.asks(target);
    let leaving = clean::leaving(&head.headers);
    let fields = inspect::judge(&way.now(), target, false, (&head, &leaving))?;
    let outside = reach(way, asked(&head, &body), target, recording).await?;
    let mut head = outgoing(head, &target.authority(HTTP))?;
    inspect::set(&mut head, fields);
    let answer = pass(way, target, (head, leaving, body), outside, recording).await;
    Ok(answer?)
}

/// Fields by which a request asks its server to take it for another method.
const OVERRIDES: [&str; 3] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
];

/// The methods that a server may take a request for beside its own. One that cannot be read is no method.
pub(crate) fn overrides(head: &Parts) -> impl Iterator<Item = &str> {
    let values = OVERRIDES
        .iter()
        .flat_map(|name| clean::alike(&head.headers, name));
    values.map(|value| value.to_str().unwrap_or_default())
}

/// Fields by which a request asks its server to take it for one for another path: of IIS, and read by others too.
const PATH_OVERRIDES: [&str; 2] = ["x-original-url", "x-rewrite-url"];

/// The paths that a server may take a request for, its own first, without their queries. What is no path, such as a
/// whole URL, is judged as one that has more than one meaning.
pub(crate) fn paths(head: &Parts) -> Vec<&str> {
    let named = PATH_OVERRIDES
        .iter()
        .flat_map(|name| clean::alike(&head.headers, name));
    let mut paths = vec![head.uri.path()];
    for value in named {
        // Nobody means three, and each costs a look at all rules.
        if paths.len() > PATH_OVERRIDES.len() {
            paths.push("");
            break;
        }
        paths.push(value_path(value));
    }
    paths
}

fn value_path(value: &HeaderValue) -> &str {
    let text = value.to_str().unwrap_or_default();
    text.split(['?', '#']).next().unwrap_or_default()
}

/// What is asked, for the rules: by the method that a server may take it for, where that does more than to read.
pub(crate) fn asked<'h>(head: &'h Parts, body: &Incoming) -> Asked<'h> {
    let mut others = overrides(head).filter(|method| !matches!(*method, "GET" | "HEAD"));
    Asked::Request {
        method: others.next().unwrap_or(head.method.as_str()),
        has_body: !body.is_end_stream(),
    }
}

/// Sends a request out and waits for the head of its answer. `leaving` are the fields that it has of its client, by
/// which rules that come meanwhile judge it: what was set is not the client's.
pub(crate) async fn pass<S>(
    way: &Way,
    target: &Target,
    (head, leaving, body): (Parts, HeaderMap, Incoming),
    outside: S,
    recording: &mut Recording,
) -> Result<Response<Incoming>, Reason>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let has_body = !body.is_end_stream();
    let cut = way.cut_request(target, recording.address(), (&head, leaving), has_body);
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
            refusal = cut => watched.cut(refusal),
        }
    }));
    let answer = sender.send_request(Request::from_parts(head, body)).await;
    let mut answer = answer.map_err(|_| match traffic.was_cut() {
        Some(cut) => cut.reason,
        None if traffic.was_idle() => Reason::AnswerTimeout,
        None => Reason::BadAnswer,
    })?;
    // Nobody asked to switch: the field that does is not passed on.
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Reason::BadAnswer);
    }
    clean::response(answer.headers_mut())?;
    // The words of its first line, which mean nothing (RFC 9112 section 4) and say whatever the host likes.
    answer.extensions_mut().clear();
    *answer.version_mut() = Version::HTTP_11;
    Ok(answer)
}

/// The head as the other end expects it: only the path, one Host in the one form, nothing for a proxy.
pub(crate) fn outgoing(mut head: Parts, authority: &str) -> Result<Parts, Reason> {
    clean::request(&mut head.headers)?;
    let host = HeaderValue::from_str(authority).map_err(|_| Reason::BadTarget)?;
    head.headers.insert(HOST, host);
    // It is the only one of its connection, and the server is told: one that leaves a body unread would take that for
    // the next request, which nobody has judged.
    head.headers
        .insert(CONNECTION, HeaderValue::from_static("close"));
    let path = head.uri.path_and_query().cloned();
    head.uri = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    head.version = Version::HTTP_11;
    head.extensions.clear();
    Ok(head)
}

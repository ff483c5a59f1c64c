//! What happens around every request, whatever its route: an id, the gate, the metrics, and an
//! answer in JSON even when a handler panics.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;

use api::{Code, routes};
use axum::extract::MatchedPath;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use hyper::body::Incoming;
use model::limits;
use model::rate::Class;
use service::{Refused, Service, ShownBy, Who};
use tower::Service as _;

use crate::auth::{Gate, Peer, Shown, behind, bypassed};
use crate::e2b;
use crate::error::{Error, finish};
use crate::node_door::Newcomer;
use crate::rates::{Metered, class, tell};
use crate::{App, Shared, lent};

/// The longest id that a client may give a request: room for a UUID or a W3C trace parent, not for
/// filling the log.
const REQUEST_ID_MAX_BYTES: usize = 128;
/// Of a path that somebody was refused at; ours are shorter.
const PATH_SHOWN_MAX: usize = 256;
/// Of what a path names; a principal, which is the longest, is shorter.
const ABOUT_MAX: usize = 128;
/// The header that carries it.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static(routes::REQUEST_ID);

/// The id of the request at hand.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) HeaderValue);

impl RequestId {
    pub(crate) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// Takes the client's, if it is short and plain enough to stand in a log, or makes one.
    fn of(request: &Request<Incoming>, shared: &Shared) -> Self {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(byte);
        match request.headers().get(&REQUEST_ID) {
            Some(id)
                if !id.is_empty()
                    && id.len() <= REQUEST_ID_MAX_BYTES
                    && id.as_bytes().iter().all(plain) =>
            {
                Self(id.clone())
            }
            _ => Self(shared.request_ids.next()),
        }
    }
}

/// Answers one request.
pub(crate) async fn answer(
    mut shared: Shared,
    (gate, source): (Gate, Option<IpAddr>),
    request: Request<Incoming>,
) -> Response {
    let id = RequestId::of(&request, &shared);
    let timer = shared.app.metrics.start(request.method());
    let (parts, body) = request.into_parts();
    // The port of nodes is theirs alone; no name leads from it to a sandbox.
    let aim = match gate {
        Gate::Node(_) => None,
        Gate::Known(_) | Gate::Stranger | Gate::Tcp(_) => {
            e2b::aim::aim(&parts, gate.domain()).transpose()
        }
    };
    let uri = parts.uri.clone();
    let request = Request::from_parts(parts, body);
    let mut response = match aim {
        Some(aim) => e2b::answer(&mut shared, (&gate, source), aim, request, &id).await,
        None => match admit(&shared.app, (&gate, source), request, &id).await {
            Ok((request, metered)) => {
                let asked = Asked::of(&request);
                let mut response = route(&mut shared, request).await;
                if let Some(asked) = asked {
                    asked.note(&shared.app.service, &response);
                }
                if let Some(metered) = metered {
                    response.extensions_mut().insert(metered);
                }
                response
            }
            Err(error) => error.into_response(),
        },
    };
    if let Some(code) = refused(&response) {
        if code == Code::EnrollTokenUnknown {
            let buckets = &shared.app.buckets;
            if let Err(error) = buckets.check(buckets.failed(source)) {
                response = error.into_response();
            }
        }
        note_of_node(&shared, &gate, code, uri.path()).await;
    }
    timer.stop(&response);
    let metered = response.extensions().get::<Metered>().copied();
    let mut response = finish(response, id.as_str());
    tell(&mut response, metered);
    response.headers_mut().insert(REQUEST_ID, id.0);
    if matches!(&gate, Gate::Node(gate) if gate.is_for_one()) {
        let headers = response.headers_mut();
        headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// What a node, or whoever wants to be one, is refused with where that is worth an event `node.refused`: each is a
/// mistake of an operator, or somebody who tries.
pub const TOLD_OF_NODES: &[Code] = &[
    Code::EnrollTokenUnknown,
    Code::BadCsr,
    Code::EnrollTokenExpired,
    Code::EnrollTokenUsed,
    Code::EnrollTokenRevoked,
    Code::CertificateUnknown,
    Code::CertificateExpired,
    Code::CertificateRevoked,
    Code::NotYourLease,
    Code::LeaseTokenWrong,
    Code::OutputHole,
    Code::NodeIncompatible,
];

fn refused(response: &Response) -> Option<Code> {
    let code = response.extensions().get::<Error>()?.code();
    TOLD_OF_NODES.contains(&code).then_some(code)
}

/// Why somebody who is known may not, for the record.
#[derive(Debug, Clone)]
pub(crate) struct Denied {
    code: Code,
    why: String,
}

impl Denied {
    /// What a policy refuses is an event already, with its clauses; what is refused to everybody is none.
    pub(crate) fn of(code: Code, why: &str) -> Option<Self> {
        matches!(code, Code::Forbidden | Code::ApprovalOwn).then(|| Self {
            code,
            why: why.to_owned(),
        })
    }
}

/// Who has asked for what: it is in the record where they may not.
#[derive(Debug)]
pub(crate) struct Asked {
    who: Who,
    method: Method,
    uri: Uri,
}

impl Asked {
    pub(crate) fn new(who: &Who, parts: &Parts) -> Self {
        Self {
            who: who.clone(),
            method: parts.method.clone(),
            uri: parts.uri.clone(),
        }
    }

    /// Nobody, for a node or a stranger.
    fn of<B>(request: &Request<B>) -> Option<Self> {
        match request.extensions().get::<Peer>()? {
            Peer::Node(_) => None,
            Peer::User(who) => Some(Self {
                who: who.clone(),
                method: request.method().clone(),
                uri: request.uri().clone(),
            }),
        }
    }

    /// Notes it, where this answer says that they may not.
    pub(crate) fn note(self, service: &Service, response: &Response) {
        let extensions = response.extensions();
        let of_rest = || {
            let error = extensions.get::<Error>()?;
            Denied::of(error.code(), error.message())
        };
        let denied = extensions.get::<Denied>().cloned();
        let Some(denied) = denied.or_else(of_rest) else {
            return;
        };
        let route = extensions.get::<MatchedPath>();
        let route = route.map_or("none", MatchedPath::as_str);
        let key = match self.who.shown.map(|shown| shown.by) {
            Some(ShownBy::Key(id)) => Some(id),
            Some(ShownBy::Token(_) | ShownBy::Development) | None => None,
        };
        service.note_refusal(Refused {
            tenant: self.who.tenant,
            principal: self.who.principal,
            key,
            action: format!("{} {route}", self.method),
            about: about(route, self.uri.path()),
            code: denied.code.as_str(),
            why: denied.why,
        });
    }
}

/// The thing that a path names, where its route has a place for one. Not what looks like a credential, or is no plain
/// name: somebody has written it into the wrong place.
fn about(route: &str, path: &str) -> Option<String> {
    let mut parts = route.split('/').zip(path.split('/'));
    let is_place = |part: &str| part.starts_with('{') && !part.starts_with("{*");
    let (_, name) = parts.find(|(part, _)| is_place(part))?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:@-".contains(&byte);
    let is_name = name.len() <= ABOUT_MAX && name.bytes().all(plain);
    (is_name && !service::looks_like_credential(name)).then(|| name.to_owned())
}

async fn note_of_node(shared: &Shared, gate: &Gate, code: Code, at: &str) {
    let node = match gate {
        Gate::Known(Peer::Node(node)) => Some(node.clone()),
        Gate::Node(gate) => gate.last_known(),
        Gate::Known(Peer::User(_)) | Gate::Stranger | Gate::Tcp(_) => None,
    };
    let path: String = at.chars().take(PATH_SHOWN_MAX).collect();
    let service = &shared.app.service;
    service
        .node_refused(node.as_ref(), code.as_str(), &path)
        .await;
}

async fn admit(
    app: &App,
    (gate, source): (&Gate, Option<IpAddr>),
    request: Request<Incoming>,
    id: &RequestId,
) -> Result<(Request<Incoming>, Option<Metered>), Error> {
    let (mut parts, body) = request.into_parts();
    let peer = match gate {
        Gate::Node(gate) => gate.admit(app, &mut parts).await,
        Gate::Known(_) | Gate::Stranger | Gate::Tcp(_) => shown(app, gate, source, &parts).await,
    };
    let class = class(&parts.method, parts.uri.path());
    let is_counted = match gate {
        Gate::Known(peer) => is_made_by_a_tool(peer, class),
        Gate::Stranger => false,
        Gate::Node(_) | Gate::Tcp(_) => true,
    };
    let metered = match is_counted {
        true => Some(meter(app, source, &peer, class)?),
        false => None,
    };
    let peer = peer?;
    if parts.extensions.get::<Newcomer>().is_some() {
        // What they show is in the body.
        app.buckets.may_guess(source)?;
    }
    parts.extensions.insert(id.clone());
    if let Some(peer) = peer {
        parts.extensions.insert(peer);
    }
    Ok((Request::from_parts(parts, body), metered))
}

/// Whether a tool makes something for somebody who has shown what stands for them: that is taken of their bucket, as it
/// is when they make it themselves. The call of the tool was counted already, and whoever runs the server is not.
fn is_made_by_a_tool(peer: &Peer, class: Class) -> bool {
    match peer {
        Peer::User(who) => class == Class::Creates && who.shown.is_some(),
        Peer::Node(_) => false,
    }
}

/// Who is behind what a request has shown.
async fn shown(
    app: &App,
    gate: &Gate,
    source: Option<IpAddr>,
    parts: &Parts,
) -> Result<Option<Peer>, Error> {
    match gate.admit(parts)? {
        Shown::Nothing => Ok(None),
        Shown::Peer(peer) => Ok(Some(peer)),
        Shown::Text(text) => {
            app.buckets.may_try(source, &text)?;
            let who = behind(app, &text).await?;
            app.buckets.is_good(&text);
            Ok(Some(Peer::User(who)))
        }
        Shown::Development(bypass) => Ok(Some(Peer::User(bypassed(app, &bypass).await?))),
    }
}

/// Takes one from the bucket of whoever asks: of their own where they are known, of their address otherwise, and one
/// more of that where what they have shown does not count.
fn meter(
    app: &App,
    source: Option<IpAddr>,
    peer: &Result<Option<Peer>, Error>,
    class: Class,
) -> Result<Metered, Error> {
    let buckets = &app.buckets;
    let metered = match peer {
        Ok(Some(Peer::User(who))) => buckets.who(who, class),
        Ok(Some(Peer::Node(node))) => buckets.node(node),
        Ok(None) => buckets.stranger(source),
        Err(error) if error.code() == Code::RateLimited => return Err(error.clone()),
        Err(error) => {
            if error.code().row().http_status == 401 {
                buckets.check(buckets.failed(source))?;
            }
            buckets.stranger(source)
        }
    };
    buckets.check(metered)
}

/// Runs the handler. One that panics costs its request, not the connection or the process; and so does one that
/// refuses, whatever it has left of the body.
async fn route(shared: &mut Shared, request: Request<Incoming>) -> Response {
    let (parts, body) = request.into_parts();
    let most = left_max(&parts);
    let (body, back) = lent::lend(&parts.headers, body);
    let request = Request::from_parts(parts, body);
    let work = AssertUnwindSafe(shared.router.call(request)).catch_unwind();
    let response = match work.await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => Error::internal("a handler panicked").into_response(),
    };
    let refusal = response.extensions().get::<Error>();
    // Who has stopped sending is not waited for once more.
    if refusal.is_some_and(|error| error.code() != Code::BodyTimeout) {
        back.drain(most).await;
    }
    response
}

/// How much of a body is read for nothing: twice what is taken of whoever sends it.
fn left_max(parts: &Parts) -> usize {
    let most = match parts.extensions.get::<Peer>() {
        Some(Peer::User(_) | Peer::Node(_)) => limits::BODY_BYTES_MAX,
        None => limits::SHORT_BODY_BYTES_MAX,
    };
    2 * most
}

/// Makes ids for requests: unique, not secret.
#[derive(Debug)]
pub(crate) struct RequestIds {
    boot: u64,
    count: std::sync::atomic::AtomicU64,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        use std::hash::{BuildHasher as _, Hasher as _};
        // Differs between processes, which is all that is needed of it.
        let boot = std::hash::RandomState::new().build_hasher().finish();
        Self {
            boot,
            count: std::sync::atomic::AtomicU64::new(0),
        }
    }

    fn next(&self) -> HeaderValue {
        let count = self
            .count
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let text = format!("req_{:016x}{count:08x}", self.boot);
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("req_"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_path_names_is_told_and_never_a_credential_or_what_is_no_name() {
        let long = "a".repeat(ABOUT_MAX + 1);
        let key = format!("/v1/keys/cfd_{}", "0a".repeat(32));
        let too_long = format!("/v1/secrets/{long}");
        for (route, path, expect) in [
            ("/v1/jobs", "/v1/jobs", None),
            ("/v1/jobs/{id}", "/v1/jobs/job_1", Some("job_1")),
            (
                "/v1/principals/{name}",
                "/v1/principals/user:a@b.c",
                Some("user:a@b.c"),
            ),
            (
                "/v1/sandboxes/{id}/guest/{*path}",
                "/v1/sandboxes/sbx_1/guest/files",
                Some("sbx_1"),
            ),
            ("/v1/keys/{id}", &*key, None),
            ("/v1/secrets/{name}", "/v1/secrets/a%20b", None),
            ("/v1/secrets/{name}", "/v1/secrets/eyJhbGciOi.e30.x", None),
            ("/v1/secrets/{name}", &*too_long, None),
            ("none", "/x", None),
        ] {
            assert_eq!(about(route, path).as_deref(), expect, "{route} {path}");
        }
    }
}

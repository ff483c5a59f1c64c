//! From a client to a sandbox and back: envd's routes to the guest itself, any other port through it.
//!
//! Who may pass is decided here before anything is opened; the guest asks for nothing and would be asked
//! in vain, because it belongs to the workload's side.

use api::attach::{LinkOpen, LinkTarget};
use api::guest::line::{self, Broken, Line, Patience, ToPort, Tunnel};
use axum::body::Body;
use axum::response::Response;
use http::header::{HOST, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use http_body_util::BodyExt as _;
use hyper::upgrade::OnUpgrade;
use model::id::{NodeId, SandboxId};
use service::Ctx;
use tokio::io::DuplexStream;

use super::aim::{CODE_PORT, ENVD_PORT, SANDBOX_ID, Target};
use super::clean;
use super::cors;
use super::inner_tls;
use super::keys::{self, FileQuery, Keys};
use super::places::{self, Place};
use super::refusal::Refusal;
use super::wire;
use crate::App;
use crate::links::{Links, NoLink};

/// Each way's buffer between the server and a node: what a guest's pipe holds.
const BUFFER_BYTES: usize = 64 * 1024;

/// What must be known of a sandbox to reach it.
#[derive(Debug, Clone)]
pub(crate) struct Reachable {
    pub(crate) id: SandboxId,
    /// How often it was changed.
    pub(crate) version: u64,
    pub(crate) node: NodeId,
    /// What opens its envd.
    pub(crate) access_token: String,
    /// Its other ports are open to whoever knows its name.
    pub(crate) is_open: bool,
    /// What programs inside are told as their host.
    pub(crate) masked_host: Option<String>,
    /// At these ports programs speak HTTPS.
    pub(crate) https_ports: Vec<u16>,
}

/// Why a request does not get through to a sandbox.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// There is no such route for anybody outside.
    Hidden,
    /// Whoever sent it has not shown what opens the port.
    Locked(Refusal),
    /// Too many connections lead there.
    Full,
    /// Nobody listens at the port.
    Closed,
    /// The guest does not answer as one does.
    Silent,
}

impl Stopped {
    /// The same in the words of E2B's clients.
    pub(crate) fn refusal(self, target: &Target) -> Refusal {
        match self {
            Self::Hidden => Refusal::new(StatusCode::NOT_FOUND, "there is no such route"),
            Self::Locked(refusal) => refusal,
            Self::Full => {
                let message = "too many connections to the sandbox";
                let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, message);
                refusal.with("connectionLimit", places::OF_ONE_MAX)
            }
            Self::Closed => Refusal::closed_port(target),
            Self::Silent => Refusal::no_answer(&target.id),
        }
    }
}

/// Passes a request on to a port of a sandbox. With `keys`, whoever sent it has to show what opens that
/// port; without, the connection itself has vouched for them.
///
/// # Errors
/// [`Stopped`] where the request may not pass, or nobody answers it.
pub(crate) async fn pass<B>(
    app: &App,
    (ctx, keys): (&Ctx, Option<&Keys>),
    (sandbox, port): (&Reachable, u16),
    request: Request<B>,
) -> Result<Response, Stopped>
where
    B: hyper::body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut parts, body) = request.into_parts();
    let now_s = app.service.clock().now_ms() / 1000;
    let is_page = cors::is_of_a_page(&parts.headers);
    let shown = match check(&parts, sandbox, port, keys.is_some(), now_s) {
        // A permission that the program inside cannot give: to ask it, a token is needed.
        Err(_) if port != ENVD_PORT && cors::wanted(&parts).is_some() => {
            return Ok(cors::permission());
        }
        shown => shown?,
    };
    let may_read = is_page && shown == Shown::Token;
    let client = parts.extensions.remove::<OnUpgrade>();
    let is_for_us = |text: &str| app.service.is_token_for_us(text);
    clean::request(&mut parts.headers, keys, &sandbox.access_token, is_for_us);
    let to_guest = port == ENVD_PORT;
    if to_guest {
        clean::stay(&mut parts.headers);
        clean::vouch(&mut parts.headers, ctx);
    } else if let Some(host) = masked_host(sandbox, port) {
        parts.headers.insert(HOST, host);
    }
    let body = body.map_err(Into::into).boxed_unsync();
    let request = Request::from_parts(forwarded(parts), body);
    let mut answer = if to_guest {
        ask_guest(app, sandbox, request).await?
    } else {
        ask_port(app, ctx, (sandbox, port), request).await?
    };
    let is_upgrade = answer.response.status() == StatusCode::SWITCHING_PROTOCOLS;
    *answer.response.version_mut() = Version::HTTP_11;
    clean::answer(answer.response.headers_mut(), is_upgrade);
    let headers = answer.response.headers_mut();
    if to_guest {
        clean::defuse(headers);
        cors::of_guest(headers, may_read);
    } else {
        cors::of_program(headers, may_read);
    }
    match client.filter(|_| !to_guest) {
        Some(client) if is_upgrade => Ok(switch(app, answer, client)),
        _ if is_upgrade => Err(Stopped::Silent),
        _ if to_guest => {
            let (idle, id, version) = (app.idle.clone(), sandbox.id.clone(), sandbox.version);
            let keep = move |line, place| idle.put(&id, version, (line, place));
            Ok(answer.into_response_and(keep).map(Body::new))
        }
        _ => Ok(answer.into_response().map(Body::new)),
    }
}

/// Asks the guest itself, over a connection that waits for that if there is one.
async fn ask_guest(
    app: &App,
    sandbox: &Reachable,
    mut request: Request<line::Body>,
) -> Result<line::Answer<Place>, Stopped> {
    let broken = |error| unanswered(sandbox, ENVD_PORT, &error);
    let mut held = None;
    if let Some((line, place)) = app.idle.take(sandbox) {
        let failed = match line.send_or_return(request, place).await {
            Ok(answer) => return Ok(answer),
            Err(failed) => failed,
        };
        // It had ended, and its end was not seen yet. What was sent may have been done, and is not sent twice.
        let unsent = failed.unsent.ok_or_else(|| broken(failed.why))?;
        let place;
        (request, place) = *unsent;
        held = Some(place);
    }
    let place = held.or_else(|| app.idle.place(&app.places, &sandbox.id));
    let place = place.ok_or(Stopped::Full)?;
    let stream = dial(app, &sandbox.node, &sandbox.id)
        .await
        .map_err(|_| Stopped::Silent)?;
    let line = Line::to_guest(stream, Patience::USUAL).await;
    line.map_err(broken)?
        .send(request, place)
        .await
        .map_err(broken)
}

/// Asks whoever listens at a port inside.
async fn ask_port(
    app: &App,
    ctx: &Ctx,
    (sandbox, port): (&Reachable, u16),
    request: Request<line::Body>,
) -> Result<line::Answer<Place>, Stopped> {
    let broken = |error| unanswered(sandbox, port, &error);
    let place = app.idle.place(&app.places, &sandbox.id);
    let place = place.ok_or(Stopped::Full)?;
    let stream = dial(app, &sandbox.node, &sandbox.id)
        .await
        .map_err(|_| Stopped::Silent)?;
    let line = if sandbox.https_ports.contains(&port) {
        match Line::tunnel(stream, to_port(ctx, port), Patience::USUAL).await {
            Ok(tunnel) => tunnel.wrapped(inner_tls::over).await,
            Err(error) => Err(error),
        }
    } else {
        Line::to_port(stream, to_port(ctx, port), Patience::USUAL).await
    };
    line.map_err(broken)?
        .send(request, place)
        .await
        .map_err(broken)
}

/// Opens a connection to a port of a sandbox, for somebody who has been let in.
///
/// # Errors
/// [`Stopped`] where there is no room, or nobody answers.
pub(crate) async fn tunnel(
    app: &App,
    ctx: &Ctx,
    (sandbox, port): (&Reachable, u16),
) -> Result<(Tunnel, Place), Stopped> {
    let place = app.idle.place(&app.places, &sandbox.id);
    let place = place.ok_or(Stopped::Full)?;
    let stream = dial(app, &sandbox.node, &sandbox.id)
        .await
        .map_err(|_| Stopped::Silent)?;
    let tunnel = Line::tunnel(stream, to_port(ctx, port), Patience::USUAL).await;
    let tunnel = tunnel.map_err(|error| unanswered(sandbox, port, &error))?;
    Ok((tunnel, place))
}

/// A port, and for the guest alone who asks: what answers at one of them keeps a record.
fn to_port(ctx: &Ctx, port: u16) -> ToPort {
    ToPort {
        port,
        said: clean::vouched(ctx),
    }
}

fn switch(app: &App, answer: line::Answer<Place>, client: OnUpgrade) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = answer.response.headers().clone();
    let stopping = app.stopping.clone();
    drop(app.tasks.spawn(async move {
        stopping.run_until_cancelled(answer.carry(client)).await;
    }));
    response
}

/// The head as the other end expects it: only the path, and nothing of ours beside it.
fn forwarded(mut parts: Parts) -> Parts {
    let path = parts.uri.path_and_query().cloned();
    parts.uri = path.map_or_else(Uri::default, Uri::from);
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    parts
}

/// A stream to the guest of a sandbox, by its node.
pub(crate) async fn dial(
    app: &App,
    node: &NodeId,
    sandbox: &SandboxId,
) -> Result<DuplexStream, NoLink> {
    dial_by(&app.links, node, sandbox).await
}

/// The same for whoever has only the links.
pub(crate) async fn dial_by(
    links: &Links,
    node: &NodeId,
    sandbox: &SandboxId,
) -> Result<DuplexStream, NoLink> {
    let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
    let target = LinkTarget::Sandbox {
        id: sandbox.to_string(),
    };
    let open = LinkOpen { target, io: theirs };
    links.open(node, open).await.inspect_err(|error| {
        tracing::warn!(sandbox.id = %sandbox, %error, "failed to reach a sandbox");
    })?;
    Ok(ours)
}

fn masked_host(sandbox: &Reachable, port: u16) -> Option<HeaderValue> {
    wire::host_at(sandbox.masked_host.as_deref()?, port)
}

fn unanswered(sandbox: &Reachable, port: u16, error: &Broken) -> Stopped {
    // A workload can cause as many of these as it likes.
    tracing::debug!(
        sandbox.id = %sandbox.id,
        port,
        ?error,
        "a sandbox did not answer"
    );
    match error {
        Broken::Closed(_) => Stopped::Closed,
        Broken::Http(_) | Broken::Late => Stopped::Silent,
    }
}

/// What somebody has to show for a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Nothing.
    Open,
    /// The sandbox's access token.
    AccessToken,
    /// The access token, or a signature made with it.
    Signature,
    /// What opens the ports of a sandbox that is not open to everybody.
    Traffic,
    /// The access token too, although it is no route of envd: the guest runs code for whoever comes there,
    /// and the name of a sandbox is in the address of each of its ports.
    Code,
    /// There is no such route for anybody outside.
    Hidden,
}

/// Only routes of envd that are known lead to a guest: it has others, for its node.
pub(crate) fn rule(method: &Method, path: &str, port: u16) -> Rule {
    if *method == Method::CONNECT {
        return Rule::Hidden;
    }
    if port == CODE_PORT && *method == Method::POST && path == "/execute" {
        return Rule::Code;
    }
    if port != ENVD_PORT {
        return Rule::Traffic;
    }
    let is_call =
        path.starts_with("/process.Process/") || path.starts_with("/filesystem.Filesystem/");
    match (method, path) {
        (&Method::GET | &Method::HEAD, "/health") => Rule::Open,
        (&Method::GET | &Method::HEAD | &Method::POST, "/files") => Rule::Signature,
        (&Method::GET, "/metrics" | "/envs") | (&Method::POST, "/files/compose") => {
            Rule::AccessToken
        }
        (&Method::POST, _) if is_call => Rule::AccessToken,
        _ => Rule::Hidden,
    }
}

/// What somebody who may pass has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Nothing,
    /// A token of the sandbox, or a signature made with one.
    Token,
}

fn check(
    parts: &Parts,
    sandbox: &Reachable,
    port: u16,
    is_stranger: bool,
    now_s: u64,
) -> Result<Shown, Stopped> {
    let headers: &HeaderMap = &parts.headers;
    let is_page = cors::is_of_a_page(headers);
    let (access, traffic) = (
        || keys::check_access(&sandbox.access_token, headers),
        || keys::check_traffic(&sandbox.access_token, headers),
    );
    let shown = match rule(&parts.method, parts.uri.path(), port) {
        Rule::Hidden => return Err(Stopped::Hidden),
        _ if !is_stranger => return Ok(Shown::Nothing),
        Rule::Open => return Ok(access().map_or(Shown::Nothing, |()| Shown::Token)),
        Rule::AccessToken | Rule::Code => access(),
        Rule::Signature => FileQuery::parse(&parts.method, parts.uri.query())
            .and_then(|file| keys::check_file(&sandbox.access_token, headers, &file, now_s)),
        Rule::Traffic => match traffic() {
            // By a header a page could ask what the program itself would not let it ask.
            Err(_) if sandbox.is_open && !(is_page && headers.contains_key(SANDBOX_ID)) => {
                return Ok(Shown::Nothing);
            }
            shown => shown,
        },
    };
    shown.map(|()| Shown::Token).map_err(Stopped::Locked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_routes_lead_to_a_guest_and_most_need_its_token() {
        let (get, post, connect) = (Method::GET, Method::POST, Method::CONNECT);
        for (method, path, port, expect) in [
            (&get, "/health", ENVD_PORT, Rule::Open),
            (&post, "/health", ENVD_PORT, Rule::Hidden),
            (&get, "/files", ENVD_PORT, Rule::Signature),
            (&post, "/files", ENVD_PORT, Rule::Signature),
            (&post, "/files/compose", ENVD_PORT, Rule::AccessToken),
            (&get, "/metrics", ENVD_PORT, Rule::AccessToken),
            (&get, "/envs", ENVD_PORT, Rule::AccessToken),
            (
                &post,
                "/process.Process/Start",
                ENVD_PORT,
                Rule::AccessToken,
            ),
            (
                &post,
                "/filesystem.Filesystem/Stat",
                ENVD_PORT,
                Rule::AccessToken,
            ),
            (&get, "/process.Process/Start", ENVD_PORT, Rule::Hidden),
            (&post, "/init", ENVD_PORT, Rule::Hidden),
            // The way of the node to be a sandbox's way out.
            (&get, "/egress", ENVD_PORT, Rule::Hidden),
            (&post, "/freeze", ENVD_PORT, Rule::Hidden),
            (&get, "/", ENVD_PORT, Rule::Hidden),
            (&get, "/init", 3000, Rule::Traffic),
            (&post, "/execute", 3000, Rule::Traffic),
            (&post, "/execute", CODE_PORT, Rule::Code),
            (&post, "/contexts", CODE_PORT, Rule::Traffic),
            (&connect, "", 3000, Rule::Hidden),
            (&connect, "", ENVD_PORT, Rule::Hidden),
        ] {
            assert_eq!(rule(method, path, port), expect, "{method} {path} {port}");
        }
    }
}

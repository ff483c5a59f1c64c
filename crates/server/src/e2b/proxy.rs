//! From a client to a sandbox and back: envd's routes to the guest itself, any other port through it.
//!
//! Who may pass is decided here before anything is opened; the guest asks for nothing and would be asked
//! in vain, because it belongs to the workload's side.

use api::attach::{LinkOpen, LinkTarget};
use axum::body::Body;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use model::id::{NodeId, SandboxId};
use tokio::io::DuplexStream;

use super::aim::{ENVD_PORT, Target};
use super::clean;
use super::keys::{self, FileQuery, Keys};
use super::line::{Broken, Line, Patience};
use super::places::{self, Place};
use super::refusal::Refusal;
use crate::App;
use crate::links::NoLink;

/// Each way's buffer between the server and a node: what a guest's pipe holds.
const BUFFER_BYTES: usize = 64 * 1024;

/// What must be known of a sandbox to reach it.
#[derive(Debug, Clone)]
pub(crate) struct Reachable {
    pub(crate) id: SandboxId,
    pub(crate) node: NodeId,
    /// What opens its envd.
    pub(crate) access_token: String,
    /// Its other ports are open to whoever knows its name.
    pub(crate) is_open: bool,
}

/// Passes a request on to a port of a sandbox. With `keys`, whoever sent it has to show what opens that
/// port; without, the connection itself has vouched for them.
///
/// # Errors
/// A refusal where the request may not pass, or nobody answers it.
pub(crate) async fn pass(
    app: &App,
    keys: Option<&Keys>,
    (sandbox, target): (&Reachable, &Target),
    request: Request<Incoming>,
) -> Result<Response, Refusal> {
    let (mut parts, body) = request.into_parts();
    let now_s = app.service.clock().now_ms() / 1000;
    check(&parts, sandbox, target.port, keys.is_some(), now_s)?;
    let place = app.places.take(&sandbox.id).ok_or_else(too_many)?;
    let client = parts.extensions.remove::<OnUpgrade>();
    clean::request(&mut parts.headers, keys, &sandbox.access_token);
    let to_guest = target.port == ENVD_PORT;
    if to_guest {
        clean::stay(&mut parts.headers);
    }
    let request = Request::from_parts(forwarded(parts), Body::new(body));
    let stream = dial(app, &sandbox.node, &sandbox.id);
    let stream = stream.map_err(|_| Refusal::no_answer(&target.id))?;
    let broken = |error| unanswered(target, &error);
    let line = if to_guest {
        Line::to_guest(stream, Patience::USUAL).await
    } else {
        Line::to_port(stream, target.port, Patience::USUAL).await
    };
    let answer = line.map_err(broken)?.send(request, place).await;
    let mut answer = answer.map_err(broken)?;
    let is_upgrade = answer.response.status() == StatusCode::SWITCHING_PROTOCOLS;
    *answer.response.version_mut() = Version::HTTP_11;
    clean::answer(answer.response.headers_mut(), is_upgrade);
    if to_guest {
        clean::defuse(answer.response.headers_mut());
    }
    match client.filter(|_| !to_guest) {
        Some(client) if is_upgrade => Ok(switch(app, answer, client)),
        _ if is_upgrade => Err(Refusal::no_answer(&target.id)),
        _ => Ok(answer.into_response()),
    }
}

fn switch(app: &App, answer: super::line::Answer<Place>, client: OnUpgrade) -> Response {
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
pub(crate) fn dial(app: &App, node: &NodeId, sandbox: &SandboxId) -> Result<DuplexStream, NoLink> {
    let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
    let target = LinkTarget::Sandbox {
        id: sandbox.to_string(),
    };
    let open = LinkOpen { target, io: theirs };
    app.links.open(node, open).inspect_err(|error| {
        tracing::warn!(sandbox.id = %sandbox, %error, "failed to reach a sandbox");
    })?;
    Ok(ours)
}

fn unanswered(target: &Target, error: &Broken) -> Refusal {
    // A workload can cause as many of these as it likes.
    tracing::debug!(
        sandbox.id = target.id,
        port = target.port,
        ?error,
        "a sandbox did not answer"
    );
    match error {
        Broken::Closed(_) => Refusal::closed_port(target),
        Broken::Http(_) | Broken::Late => Refusal::no_answer(&target.id),
    }
}

fn too_many() -> Refusal {
    let message = "too many connections to the sandbox";
    let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, message);
    refusal.with("connectionLimit", places::OF_ONE_MAX)
}

/// What somebody has to show for a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Nothing.
    Open,
    /// The sandbox's access token.
    AccessToken,
    /// The access token, or a signature made with it.
    Signature,
    /// What opens the ports of a sandbox that is not open to everybody.
    Traffic,
    /// There is no such route for anybody outside.
    Hidden,
}

/// Only routes of envd that are known lead to a guest: it has others, for its node.
fn rule(method: &Method, path: &str, port: u16) -> Rule {
    if *method == Method::CONNECT {
        return Rule::Hidden;
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

fn check(
    parts: &Parts,
    sandbox: &Reachable,
    port: u16,
    is_stranger: bool,
    now_s: u64,
) -> Result<(), Refusal> {
    let headers: &HeaderMap = &parts.headers;
    match rule(&parts.method, parts.uri.path(), port) {
        Rule::Hidden => Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "there is no such route",
        )),
        _ if !is_stranger => Ok(()),
        Rule::Open => Ok(()),
        Rule::AccessToken => keys::check_access(&sandbox.access_token, headers),
        Rule::Signature => {
            let file = FileQuery::parse(&parts.method, parts.uri.query())?;
            keys::check_file(&sandbox.access_token, headers, &file, now_s)
        }
        Rule::Traffic if sandbox.is_open => Ok(()),
        Rule::Traffic => keys::check_traffic(&sandbox.access_token, headers),
    }
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
            (&connect, "", 3000, Rule::Hidden),
            (&connect, "", ENVD_PORT, Rule::Hidden),
        ] {
            assert_eq!(rule(method, path, port), expect, "{method} {path} {port}");
        }
    }
}

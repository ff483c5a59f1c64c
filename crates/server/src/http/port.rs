//! Programs in sandboxes by path: HTTP and WebSocket below the API's own address, for programs that have
//! its credential.
//!
//! What answers there is hostile, and a browser takes it for a page of the API's own origin. So it gets
//! nothing that was meant for us, and may say nothing for the whole origin: no cookie, no promise about
//! later connections, no permission for other origins. A page of it has no origin at all: a sandbox of the
//! browser's (W3C Content Security Policy 3, 6.3.2), in which it runs and can reach neither the API with
//! anybody's credential nor what another page has stored. Who wants to use a program of a sandbox in a
//! browser opens it by its host name, where it has an origin of its own.

mod location;

use api::{Code, ErrorBody, routes};
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{self, MethodRouter};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALT_SVC,
    AUTHORIZATION, CONTENT_SECURITY_POLICY, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue,
    LOCATION, REFRESH, SET_COOKIE, STRICT_TRANSPORT_SECURITY, WWW_AUTHENTICATE,
};
use http::request::Parts;
use model::id::SandboxId;

use crate::App;
use crate::e2b::aim::ENVD_PORT;
use crate::e2b::find;
use crate::e2b::keys::API_KEY;
use crate::e2b::proxy;
use crate::error::Error;
use crate::extract::{PortOf, SandboxOf, User};

/// Where the program is, for whoever makes addresses of its own pages.
const PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
/// What a browser asks with when a page wants a script to stand between it and the server.
const SERVICE_WORKER: HeaderName = HeaderName::from_static("service-worker");
/// Scripts and forms work, and there is no origin whose they are.
const NO_ORIGIN: HeaderValue = HeaderValue::from_static(
    "sandbox allow-scripts allow-forms allow-modals allow-popups allow-downloads",
);
/// What a server says for its whole origin, and not for one answer.
const OF_AN_ORIGIN: [HeaderName; 21] = [
    // It leads somewhere too, in words of which every browser reads others.
    REFRESH,
    SET_COOKIE,
    HeaderName::from_static("set-cookie2"),
    HeaderName::from_static("set-login"),
    HeaderName::from_static("clear-site-data"),
    HeaderName::from_static("service-worker-allowed"),
    HeaderName::from_static("accept-ch"),
    HeaderName::from_static("critical-ch"),
    HeaderName::from_static("nel"),
    HeaderName::from_static("report-to"),
    HeaderName::from_static("reporting-endpoints"),
    HeaderName::from_static("origin-agent-cluster"),
    STRICT_TRANSPORT_SECURITY,
    ALT_SVC,
    // A browser would ask for a password for the API.
    WWW_AUTHENTICATE,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];

/// The address of the port itself, with nothing after the slash.
pub(crate) fn root() -> MethodRouter<App> {
    let router = routing::get(get).post(post).put(put);
    router.patch(patch).delete(delete)
}

/// Asks a program in a sandbox, at a port, by path; also a WebSocket. The program gets the rest of the path,
/// `x-forwarded-prefix`, and neither `authorization` nor cookies. A sandbox that sleeps and resumes on
/// traffic is woken.
#[utoipa::path(get, path = routes::SANDBOX_PORT_PATH, tag = "sandboxes",
    operation_id = "sandbox_port_get",
    params(("id" = String, Path, description = "The sandbox"),
        ("port" = u16, Path, description = "The port"),
        ("*path" = String, Path, description = "What the program serves")),
    responses((status = 200, description = "What the program says, whatever its status is"),
              (status = 404, description = "No such sandbox", body = ErrorBody),
              (status = 409, description = "It is paused", body = ErrorBody),
              (status = 410, description = "It is over", body = ErrorBody),
              (status = 429, description = "Too many connections", body = ErrorBody),
              (status = 502, description = "Nobody listens there, or the guest does not answer",
               body = ErrorBody)))]
pub(crate) async fn get(
    app: State<App>,
    user: User,
    at: (SandboxOf, PortOf),
    request: Request,
) -> Result<Response, Error> {
    pass(app, user, at, request).await
}

/// The same with another method.
macro_rules! the_same_with {
    ($method:ident, $id:literal, $what:literal) => {
        #[doc = $what]
        #[utoipa::path($method, path = routes::SANDBOX_PORT_PATH, tag = "sandboxes",
            operation_id = $id,
            params(("id" = String, Path, description = "The sandbox"),
                ("port" = u16, Path, description = "The port"),
                ("*path" = String, Path, description = "What the program serves")),
            responses((status = 200, description = "What the program says, whatever its status is"),
                      (status = 404, description = "No such sandbox", body = ErrorBody)))]
        pub(crate) async fn $method(
            app: State<App>,
            user: User,
            at: (SandboxOf, PortOf),
            request: Request,
        ) -> Result<Response, Error> {
            pass(app, user, at, request).await
        }
    };
}
the_same_with!(post, "sandbox_port_post", "The same with POST.");
the_same_with!(put, "sandbox_port_put", "The same with PUT.");
the_same_with!(patch, "sandbox_port_patch", "The same with PATCH.");
the_same_with!(delete, "sandbox_port_delete", "The same with DELETE.");

async fn pass(
    State(app): State<App>,
    User(ctx): User,
    (SandboxOf(id), PortOf(port)): (SandboxOf, PortOf),
    request: Request,
) -> Result<Response, Error> {
    if port == ENVD_PORT {
        let message = "the guest is asked below `/guest`, and is no program at a port";
        return Err(Error::new(Code::NotFound, message));
    }
    let (mut parts, body) = request.into_parts();
    aim_at_program(&mut parts, &id, port)?;
    let asked = parts.clone();
    let sandbox = find::sandbox(&app, &ctx, &id).await?;
    let request = Request::from_parts(parts, body);
    // Whoever is here has been let in by the server, which vouches for them.
    let mut answer = proxy::pass(&app, (&ctx, None), (&sandbox, port), request).await?;
    isolate(answer.headers_mut());
    stay(&asked, answer.headers_mut())?;
    Ok(answer)
}

/// Makes the head into that for the program: the rest of the path, and nothing that was meant for us.
fn aim_at_program(parts: &mut Parts, id: &SandboxId, port: u16) -> Result<(), Error> {
    let bad = || Error::new(Code::BadRequest, "the path cannot be one of a program");
    if parts.headers.contains_key(SERVICE_WORKER) {
        let message = "a program in a sandbox is no service worker of this origin";
        return Err(Error::new(Code::Forbidden, message));
    }
    let whole = parts.uri.path_and_query().ok_or_else(bad)?.as_str();
    // `/v1/sandboxes/{id}/ports/{port}/...`, as the router has seen.
    let inside = whole.splitn(7, '/').nth(6).ok_or_else(bad)?;
    parts.uri = format!("/{inside}").parse().map_err(|_| bad())?;
    for name in [AUTHORIZATION, COOKIE, API_KEY] {
        parts.headers.remove(name);
    }
    let prefix = routes::fill(routes::SANDBOX_PORT, &[id.as_str(), &port.to_string()]);
    let prefix = HeaderValue::from_str(&prefix).map_err(|_| bad())?;
    parts.headers.insert(PREFIX, prefix);
    Ok(())
}

/// Makes an answer that sends its client on send it on below the program's own address.
fn stay(asked: &Parts, answer: &mut HeaderMap) -> Result<(), Error> {
    let text = |name: &HeaderName| {
        asked
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let at = (
        text(&HOST).unwrap_or_default(),
        asked.uri.path(),
        text(&PREFIX).unwrap_or_default(),
    );
    let locations = answer.get_all(LOCATION).iter();
    let within: Option<Vec<_>> = locations.map(|one| location::within(one, at)).collect();
    let odd = || {
        Error::new(
            Code::GuestUnavailable,
            "the program sends its client somewhere that is no address",
        )
    };
    let within = within.ok_or_else(odd)?;
    answer.remove(LOCATION);
    for one in within {
        answer.append(LOCATION, one);
    }
    Ok(())
}

/// Makes the head of a program's answer into one that says nothing for our origin.
fn isolate(headers: &mut HeaderMap) {
    for name in &OF_AN_ORIGIN {
        headers.remove(name);
    }
    // Beside what the program asks of browsers itself: of several, all hold.
    headers.append(CONTENT_SECURITY_POLICY, NO_ORIGIN);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aimed(target: &str, headers: &[(&str, &str)]) -> Result<Parts, Error> {
        let mut request = http::Request::get(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let id = SandboxId::from_parts(1, [1; 10]);
        aim_at_program(&mut parts, &id, 8080).map(|()| parts)
    }

    #[test]
    fn a_program_sees_its_own_path_and_where_that_is_and_nothing_of_our_credential() {
        let base = "/v1/sandboxes/sbx_1/ports/8080";
        for (rest, expect) in [
            ("/", "/"),
            ("/a%2Fb/../c?d=/e", "/a%2Fb/../c?d=/e"),
            ("//x", "//x"),
        ] {
            let sent = [
                ("authorization", "Bearer ours"),
                ("cookie", "console=1"),
                ("x-api-key", "ours"),
                ("x-forwarded-prefix", "/forged"),
                ("accept", "*/*"),
            ];
            let parts = aimed(&format!("{base}{rest}"), &sent).unwrap();
            assert_eq!(parts.uri.to_string(), expect);
            let id = SandboxId::from_parts(1, [1; 10]);
            let prefix = format!("/v1/sandboxes/{id}/ports/8080");
            assert_eq!(parts.headers[PREFIX], *prefix);
            assert!(parts.headers.contains_key("accept") && parts.headers.len() == 2);
        }
    }

    #[test]
    fn no_script_of_a_program_stands_between_a_browser_and_us() {
        let target = "/v1/sandboxes/sbx_1/ports/8080/sw.js";
        let refused = aimed(target, &[("service-worker", "script")]);
        assert!(refused.is_err());
    }

    #[test]
    fn a_program_says_nothing_for_our_origin_and_its_pages_have_none() {
        let mut headers = HeaderMap::new();
        for name in &OF_AN_ORIGIN {
            headers.append(name, HeaderValue::from_static("x"));
            headers.append(name, HeaderValue::from_static("y"));
        }
        let own = HeaderValue::from_static("default-src 'self'");
        headers.append(CONTENT_SECURITY_POLICY, own.clone());
        isolate(&mut headers);
        let policies: Vec<_> = headers.get_all(CONTENT_SECURITY_POLICY).iter().collect();
        assert_eq!((policies, headers.len()), (vec![&own, &NO_ORIGIN], 2));
    }
}

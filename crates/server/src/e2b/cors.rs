//! What a web page of another origin may do with a sandbox: what its token lets it do, and nothing else.
//! The protocol is that of the Fetch standard (fetch.spec.whatwg.org, "HTTP extensions"). Pure.
//!
//! The attacker is any page that somebody opens in a browser on the machine where `up` runs. It can make
//! requests to us and lacks the token. It must not learn anything by asking, so that a permission before
//! the request (a preflight, which cannot carry a token) looks at no sandbox, and the answer to the
//! request itself may be read only if the request showed what opens the port. Cookies are never asked for:
//! nothing here knows who somebody is without being told.

use axum::body::Body;
use axum::response::Response;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::aim::SANDBOX_ID;

/// Every header a page likes. The star does not mean the one that names a user of the sandbox.
const HEADERS: HeaderValue = HeaderValue::from_static("*, Authorization");
/// What envd's routes and programs inside are asked with.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
/// What a page may read beside the body, of what the guest says.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "Location, Cache-Control, X-Content-Type-Options, Content-Disposition, Content-Range, Content-Encoding",
);
/// How long a browser remembers a permission, in seconds; browsers cut it to two hours themselves.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");
/// Anybody, but without cookies: browsers refuse the star where those are sent.
const ANYBODY: HeaderValue = HeaderValue::from_static("*");

/// The method that a page wants to ask with, if this asks for a permission.
pub(crate) fn wanted(parts: &Parts) -> Option<Method> {
    let is_asked = parts.method == Method::OPTIONS && parts.headers.contains_key(ORIGIN);
    let wanted = parts.headers.get(ACCESS_CONTROL_REQUEST_METHOD);
    wanted.filter(|_| is_asked)?.as_bytes().try_into().ok()
}

/// Whether a page wants to say by a header which sandbox it means.
pub(crate) fn names_a_sandbox(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let mut names = lists.filter_map(|list| list.to_str().ok());
    names.any(|list| {
        let mut names = list.split(',').map(str::trim);
        names.any(|name| name.eq_ignore_ascii_case(SANDBOX_ID.as_str()))
    })
}

/// The permission to ask: the same for everybody and every sandbox, there or not.
pub(crate) fn permission() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANYBODY);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    response
}

/// Whether a page has sent this; browsers put its origin into what it asks of others.
pub(crate) fn is_of_a_page(headers: &HeaderMap) -> bool {
    headers.contains_key(ORIGIN)
}

/// Lets the page that asked read an answer of the guest, or keeps it from that, whatever the guest says.
pub(crate) fn of_guest(headers: &mut HeaderMap, may_read: bool) {
    for name in [
        ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_ALLOW_CREDENTIALS,
        ACCESS_CONTROL_EXPOSE_HEADERS,
    ] {
        headers.remove(name);
    }
    if may_read {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANYBODY);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
}

/// Lets the page that asked read an answer of a program inside, unless the program has said who may.
pub(crate) fn of_program(headers: &mut HeaderMap, may_read: bool) {
    if may_read && !headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANYBODY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn check(method: &str, headers: &[(&str, &str)], expect: Option<Method>) {
        let mut request = Request::builder().method(method).uri("/files");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        assert_eq!(wanted(&parts), expect, "{method} {headers:?}");
    }

    #[test]
    fn only_a_browser_asks_for_a_permission() {
        let origin = ("origin", "https://page.example");
        let method = ("access-control-request-method", "POST");
        check("OPTIONS", &[origin, method], Some(Method::POST));
        check("OPTIONS", &[method], None);
        check("OPTIONS", &[origin], None);
        check("POST", &[origin, method], None);
        let bad = ("access-control-request-method", "P ST");
        check("OPTIONS", &[origin, bad], None);
    }

    #[test]
    fn what_a_guest_says_about_origins_does_not_count() {
        let said = [
            (ACCESS_CONTROL_ALLOW_ORIGIN, "https://evil.example"),
            (ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"),
        ];
        let said = said.map(|(name, value)| (name, HeaderValue::from_static(value)));
        let mut headers = HeaderMap::from_iter(said);
        of_guest(&mut headers, true);
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!headers.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
        of_guest(&mut headers, false);
        assert!(headers.is_empty());
    }
}

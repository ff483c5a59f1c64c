//! What is changed of a request and an answer on their way through the proxy. Pure.
//!
//! Headers that are about one connection stay on it. Our own credentials never reach a guest, which is
//! hostile: it would have the key of the control plane as soon as somebody asked it for a page.

use api::guest;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, EXPECT, HeaderName, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue};
use service::Ctx;

use super::aim::{SANDBOX_ID, SANDBOX_PORT};
use super::keys::{ACCESS_TOKEN, API_KEY, Keys, TRAFFIC_TOKEN, same};

/// Headers about one connection (RFC 9110, 7.6.1), beside those that `Connection` names.
const OF_ONE_CONNECTION: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-authorization"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The protocol that a head asks to go on with; none where `Connection` does not say so too.
pub(crate) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let named = connection_options(headers).any(|option| option.eq_ignore_ascii_case("upgrade"));
    headers.get(UPGRADE).filter(|_| named).cloned()
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(CONNECTION).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(str::trim)
}

/// Takes out what is about one connection, and puts in the upgrade that goes on with it.
fn only_end_to_end(headers: &mut HeaderMap, upgrade: Option<HeaderValue>) {
    let named: Vec<HeaderName> = connection_options(headers)
        .filter_map(|option| option.parse().ok())
        .collect();
    for name in named.iter().chain(&OF_ONE_CONNECTION) {
        headers.remove(name);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, upgrade);
    }
}

/// Makes the head of a request into that for the sandbox whose access token this is.
///
/// `is_for_us` knows tokens of issuers: a program in a sandbox may have some for itself.
pub(crate) fn request(
    headers: &mut HeaderMap,
    keys: Option<&Keys>,
    access_token: &str,
    is_for_us: impl Fn(&str) -> bool,
) {
    let upgrade = upgrade(headers);
    only_end_to_end(headers, upgrade);
    // The server has said `100 Continue` itself when the body is read.
    for name in [EXPECT, SANDBOX_ID, SANDBOX_PORT, TRAFFIC_TOKEN] {
        headers.remove(name);
    }
    remove_vouched(headers);
    let ours = |value: &HeaderValue| same(value.as_bytes(), access_token);
    remove_if(headers, &ACCESS_TOKEN, ours);
    let key = |value: &HeaderValue| {
        let bytes = value.as_bytes();
        let bearer = bytes.split_at_checked(7).map_or(bytes, |(_, token)| token);
        // A key of the table is known by its looks: to ask the table would cost each request a look at it.
        let is_key = |text: &str| {
            service::is_key_text(text) || service::is_e2b_form(text) || is_for_us(text)
        };
        let looks_so = |sent: &[u8]| std::str::from_utf8(sent).is_ok_and(is_key);
        keys.is_some_and(|keys| keys.is_key(bytes) | keys.is_key(bearer))
            || looks_so(bytes)
            || looks_so(bearer)
    };
    remove_if(headers, &API_KEY, key);
    remove_if(headers, &AUTHORIZATION, key);
}

/// Tells the guest who asks, which it keeps for the record. What a client says of itself was taken out.
pub(crate) fn vouch(headers: &mut HeaderMap, ctx: &Ctx) {
    headers.extend(vouched(ctx));
}

/// The same as headers of their own.
pub(crate) fn vouched(ctx: &Ctx) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let said = [
        (guest::PRINCIPAL, ctx.principal.as_str()),
        (guest::REQUEST, ctx.request_id.as_str()),
    ];
    for (name, value) in said {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    headers
}

/// Takes out what only a door may say.
fn remove_vouched(headers: &mut HeaderMap) {
    let is_ours = |name: &&HeaderName| name.as_str().starts_with(guest::OF_THE_DOOR);
    let named: Vec<HeaderName> = headers.keys().filter(is_ours).cloned().collect();
    for name in named {
        headers.remove(name);
    }
}

/// A program in a sandbox may have headers of these names for itself.
fn remove_if(headers: &mut HeaderMap, name: &HeaderName, is_ours: impl Fn(&HeaderValue) -> bool) {
    if headers.get_all(name).iter().any(is_ours) {
        headers.remove(name);
    }
}

/// Takes out the wish to go on with another protocol, where there is none.
pub(crate) fn stay(headers: &mut HeaderMap) {
    headers.remove(CONNECTION);
    headers.remove(UPGRADE);
}

/// Makes the head of an answer of a guest into that for the client.
pub(crate) fn answer(headers: &mut HeaderMap, is_upgrade: bool) {
    let upgrade = upgrade(headers).filter(|_| is_upgrade);
    // With both, the length is a lie for whoever believes it.
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    only_end_to_end(headers, upgrade);
}

/// Keeps a browser from running what a sandbox's file says, at a name that is ours and not the
/// sandbox's.
pub(crate) fn defuse(headers: &mut HeaderMap) {
    let policy = HeaderValue::from_static("sandbox; default-src 'none'");
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            let name: HeaderName = name.parse().unwrap();
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn check_request(lines: &[(&str, &str)], expect: &[(&str, &str)]) {
        let keys = Keys::new("token");
        let mut headers = map(lines);
        request(&mut headers, Some(&keys), "access_token", |text| {
            text == "eyOurs"
        });
        assert_eq!(headers, map(expect), "{lines:?}");
    }

    #[test]
    fn what_is_about_one_connection_stays_on_it() {
        check_request(
            &[
                ("host", "h"),
                ("connection", "close, X-Hop"),
                ("x-hop", "1"),
                ("te", "trailers"),
                ("keep-alive", "5"),
                ("transfer-encoding", "chunked"),
                ("expect", "100-continue"),
                ("upgrade", "h2c"),
                ("accept", "*/*"),
            ],
            &[("host", "h"), ("accept", "*/*")],
        );
        check_request(
            &[
                ("connection", "keep-alive, Upgrade"),
                ("upgrade", "websocket"),
            ],
            &[("connection", "upgrade"), ("upgrade", "websocket")],
        );
    }

    #[test]
    fn our_credentials_do_not_reach_a_guest_and_those_of_its_programs_do() {
        let key = super::super::keys::api_key("token");
        check_request(
            &[
                ("e2b-sandbox-id", "abc1"),
                ("e2b-sandbox-port", "1"),
                ("e2b-traffic-access-token", "x"),
                ("cofferdam-principal", "somebody else"),
                ("cofferdam-request", "forged"),
                ("cofferdam-anything", "x"),
                ("x-access-token", "access_token"),
                ("x-api-key", &key),
                ("authorization", "Bearer token"),
            ],
            &[],
        );
        check_request(&[("authorization", "Bearer eyOurs")], &[]);
        let theirs = [("authorization", "Bearer eyTheirs")];
        check_request(&theirs, &theirs);
        let own = [
            ("x-access-token", "of a program"),
            ("x-api-key", "of a program"),
            ("authorization", "Basic dXNlcjo="),
        ];
        check_request(&own, &own);
    }

    #[test]
    fn an_answer_has_one_length_and_upgrades_only_when_it_does() {
        let lines = [
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
        ];
        let mut headers = map(&lines);
        answer(&mut headers, false);
        assert_eq!(headers, HeaderMap::new());
        let mut headers = map(&lines[2..]);
        answer(&mut headers, true);
        assert_eq!(headers, map(&lines[2..]));
    }
}

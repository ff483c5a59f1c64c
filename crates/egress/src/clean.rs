//! What of a head is between two neighbours and goes no further: RFC 9110 section 7.6.1.
//!
//! No `Via` is added, although RFC 9110 section 7.6.3 asks for one: it would tell everybody outside that
//! there is a sandbox.

use crate::answer::PROXY_ERROR;
use crate::reason::Reason;
use hyper::HeaderMap;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use model::network::Field;

/// Fields between neighbours, also where nobody says so.
const BETWEEN: [HeaderName; 9] = [
    CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Cleans the head of a request, whose body was understood already and is written anew.
///
/// # Errors
/// [`Reason::BadCoding`] for a body in a coding other than `chunked`: without the field nobody could read it.
pub(crate) fn request(headers: &mut HeaderMap) -> Result<(), Reason> {
    only_chunked(headers)?;
    let is_chunked = headers.contains_key(TRANSFER_ENCODING);
    strip(headers);
    if is_chunked {
        // Said anew: of a GET without it, the client that sends it would leave the body out without a word.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    // Answered here, because the body is read here.
    headers.remove(EXPECT);
    Ok(())
}

/// Cleans the head of an answer.
///
/// # Errors
/// As for requests.
pub(crate) fn response(headers: &mut HeaderMap) -> Result<(), Reason> {
    only_chunked(headers).map_err(|_| Reason::BadAnswer)?;
    strip(headers);
    // A denial is ours to give.
    headers.remove(PROXY_ERROR);
    Ok(())
}

/// The fields that a request leaves with, before any are set. What is between neighbours, by its name or because
/// `Connection` says so, is not among them: a rule that requires a field is not content with one that nobody gets.
pub(crate) fn leaving(headers: &HeaderMap) -> HeaderMap {
    let mut leaving = headers.clone();
    strip(&mut leaving);
    leaving.remove(EXPECT);
    leaving
}

/// Fields as rules look at them.
pub(crate) fn fields(headers: &HeaderMap) -> Vec<Field<'_>> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect()
}

/// The values of a field, and of those that servers take for it: many make a variable of a field (RFC 3875 section
/// 4.1.18), in which `-` and `_` are the same, and some write `_` for every other sign.
pub(crate) fn alike<'h>(
    headers: &'h HeaderMap,
    name: &'h str,
) -> impl Iterator<Item = &'h HeaderValue> {
    let values = headers.iter();
    values.filter_map(move |(other, value)| is_alike(other, name).then_some(value))
}

fn is_alike(field: &HeaderName, name: &str) -> bool {
    let folded = |byte: u8| match byte.is_ascii_alphanumeric() {
        true => byte,
        false => b'-',
    };
    let (field, name) = (field.as_str().bytes(), name.bytes());
    field.map(folded).eq(name.map(folded))
}

/// Puts a field in the place of all that a server may take for it.
pub(crate) fn put(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) {
    let others: Vec<HeaderName> = headers
        .keys()
        .filter(|other| is_alike(other, name.as_str()))
        .cloned()
        .collect();
    for other in others {
        headers.remove(other);
    }
    headers.insert(name, value);
}

fn only_chunked(headers: &mut HeaderMap) -> Result<(), Reason> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            // RFC 9112 section 6.3: the coding counts and the length is a lie.
            headers.remove(CONTENT_LENGTH);
            Ok(())
        }
        _ => Err(Reason::BadCoding),
    }
}

fn strip(headers: &mut HeaderMap) {
    let named = headers.get_all(CONNECTION).iter();
    let named = named.filter_map(|value| value.to_str().ok());
    let named: Vec<HeaderName> = named
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // What says where a request goes and where it ends is not the client's to take away.
        .filter(|name| *name != hyper::header::HOST && *name != CONTENT_LENGTH)
        .collect();
    // And what a server may take for one of them, or for another length.
    let alike: Vec<HeaderName> = headers
        .keys()
        .filter(|own| **own != CONTENT_LENGTH)
        .filter(|own| {
            is_alike(own, CONTENT_LENGTH.as_str())
                || BETWEEN.iter().any(|name| is_alike(own, name.as_str()))
        })
        .cloned()
        .collect();
    for name in alike.iter().chain(&named) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(text: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            let name: HeaderName = name.parse().unwrap();
            (name, value.parse().unwrap())
        };
        text.iter()
            .map(pair)
            .fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            })
    }

    #[test]
    fn what_is_between_neighbours_stays_there() {
        let mut head = headers(&[
            ("host", "a.example"),
            ("connection", "keep-alive, x-mine, host, content-length"),
            ("x-mine", "1"),
            ("proxy-authorization", "Basic x"),
            ("proxy-connection", "keep-alive"),
            ("upgrade", "websocket"),
            ("te", "trailers"),
            ("expect", "100-continue"),
            ("content-length", "3"),
            ("authorization", "Bearer kept"),
        ]);
        request(&mut head).unwrap();
        let mut left: Vec<&str> = head.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "content-length", "host"]);
    }

    #[test]
    fn what_rules_look_at_is_what_leaves() {
        let head = headers(&[
            ("connection", "close, x-team"),
            ("x-team", "red"),
            ("x_team", "red"),
            ("te", "trailers"),
            ("expect", "100-continue"),
            ("cookie", "a"),
            ("cookie", "b"),
        ]);
        let left = leaving(&head);
        let mut looked_at = fields(&left);
        looked_at.sort_unstable();
        let expect = [("cookie", "a"), ("cookie", "b"), ("x_team", "red")];
        assert_eq!(
            looked_at,
            expect.map(|(name, value)| (name, value.as_bytes()))
        );
    }

    #[test]
    fn only_chunked_is_a_coding_and_a_length_beside_it_is_dropped() {
        let mut both = headers(&[("transfer-encoding", "Chunked"), ("content-length", "3")]);
        request(&mut both).unwrap();
        assert_eq!(both, headers(&[("transfer-encoding", "chunked")]));
        for codings in [
            &[("transfer-encoding", "gzip, chunked")][..],
            &[
                ("transfer-encoding", "chunked"),
                ("transfer-encoding", "chunked"),
            ],
            &[("transfer-encoding", "identity")],
            &[("transfer-encoding", "chunked, identity")],
        ] {
            assert_eq!(request(&mut headers(codings)), Err(Reason::BadCoding));
            assert_eq!(response(&mut headers(codings)), Err(Reason::BadAnswer));
        }
    }

    /// Attack: a second length, or another coding, in a field that a server behind takes for the real one.
    #[test]
    fn what_a_server_may_take_for_the_length_does_not_leave() {
        let mut head = headers(&[
            ("content-length", "3"),
            ("content_length", "9"),
            ("transfer_encoding", "chunked"),
            ("proxy.authorization", "x"),
            ("x_kept", "1"),
        ]);
        request(&mut head).unwrap();
        let mut left: Vec<&str> = head.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "x_kept"]);
    }

    #[test]
    fn a_field_is_put_in_the_place_of_all_that_a_server_takes_for_it() {
        let mut head = headers(&[
            ("x_api_key", "mine"),
            ("X-Api_Key", "mine"),
            ("x.api~key", "mine"),
            ("x-api-key", "mine"),
            ("x-api-key-2", "kept"),
        ]);
        let names = |head: &HeaderMap| {
            let mut names: Vec<String> = head.keys().map(ToString::to_string).collect();
            names.sort_unstable();
            names.join(" ")
        };
        assert_eq!(alike(&head, "x-api-key").count(), 4);
        put(
            &mut head,
            HeaderName::from_static("x-api-key"),
            HeaderValue::from_static("ours"),
        );
        assert_eq!(names(&head), "x-api-key x-api-key-2");
        assert_eq!(head["x-api-key"], "ours");
    }

    #[test]
    fn nobody_outside_can_pretend_a_denial() {
        let mut head = headers(&[("x-proxy-error", "address_private"), ("x-other", "1")]);
        response(&mut head).unwrap();
        assert_eq!(head, headers(&[("x-other", "1")]));
    }
}

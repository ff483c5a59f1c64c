//! Fields of a request's header that a rule requires or refuses. Pure.
//!
//! A name is compared as the most patient server reads it: without case, and with `_` or any other sign for `-`, as
//! servers do that make variables of fields (RFC 3875 section 4.1.18).

use super::{CODE, RequestAsked, is_token, is_value, may_be_set};
use crate::limits;
use crate::spec::Findings;

/// What a rule requires where any value will do.
const ANY: &str = "*";

/// A field that a request leaves with: its name and its value. Of several with one name each is one.
pub type Field<'f> = (&'f str, &'f [u8]);

fn folded(byte: u8) -> u8 {
    match byte.to_ascii_lowercase() {
        byte if byte.is_ascii_alphanumeric() => byte,
        _ => b'-',
    }
}

/// Whether some server takes one name for the other.
fn is_alike(one: &str, other: &str) -> bool {
    one.bytes().map(folded).eq(other.bytes().map(folded))
}

/// Whether there is such a field at all.
pub(super) fn has(fields: &[Field<'_>], name: &str) -> bool {
    fields.iter().any(|(own, _)| is_alike(own, name))
}

/// Whether there is such a field, and each of that name has the value: a server may read any of them. An empty one has
/// none.
pub(super) fn has_value(fields: &[Field<'_>], name: &str, value: &str) -> bool {
    let is_met = |own: &[u8]| match value {
        ANY => !own.is_empty(),
        value => own == value.as_bytes(),
    };
    let mut alike = fields.iter().filter(|(own, _)| is_alike(own, name));
    has(fields, name) && alike.all(|&(_, own)| is_met(own))
}

/// Whether a rule can be about a field: one that is about the connection never reaches the server, or is written by
/// the proxy itself.
fn can_be_judged(name: &str) -> bool {
    let folded: String = name.bytes().map(|byte| char::from(folded(byte))).collect();
    may_be_set(&folded) && !folded.starts_with("proxy-")
}

/// Looks at what a rule requires and refuses. What is wrong is found with its place below `field`.
pub(super) fn check(field: &str, asked: &RequestAsked, found: &mut Findings) {
    let most = limits::REQUEST_RULE_LIST_MAX;
    let (require, refuse) = (
        format!("{field}.headers.require"),
        format!("{field}.headers.refuse"),
    );
    found.count(&require, asked.require.len(), most);
    found.count(&refuse, asked.refuse.len(), most);
    for (name, value) in asked.require.iter().take(most) {
        // What is no name is no part of a place either.
        let place = match is_token(name) {
            true => format!("{require}.{name}"),
            false => require.clone(),
        };
        check_name(&place, name, found);
        if value.is_empty() || !is_value(value) {
            let most = limits::REQUEST_FIELD_BYTES_MAX;
            let message = format!(
                "a value is printable ASCII without spaces at its ends, at most {most} of it, or `*` for any"
            );
            found.add(&place, CODE, message);
        }
        let mut refused = asked.refuse.iter().take(most);
        if refused.any(|other| is_alike(other, name)) {
            let message =
                "it is required and refused, which no request can meet; leave one of them out";
            found.add(place, CODE, message);
        }
    }
    for (index, name) in asked.refuse.iter().enumerate().take(most) {
        check_name(&format!("{refuse}[{index}]"), name, found);
    }
}

fn check_name(place: &str, name: &str, found: &mut Findings) {
    if !is_token(name) {
        let most = limits::REQUEST_FIELD_NAME_BYTES_MAX;
        let message = format!("it is no name of a field, of 1 to {most} letters, digits and signs");
        found.add(place, CODE, message);
    } else if !can_be_judged(name) {
        let message = format!(
            "`{name}` is about the connection, or the proxy writes or drops it; name a field that is the client's to \
             send, or use `methods` and `host`"
        );
        found.add(place, CODE, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields<'f>(list: &[(&'f str, &'f str)]) -> Vec<Field<'f>> {
        let one = |(name, value): &(&'f str, &'f str)| (*name, value.as_bytes());
        list.iter().map(one).collect()
    }

    #[test]
    fn a_field_has_a_value_where_all_that_a_server_takes_for_it_do() {
        for (sent, value, expect) in [
            (&[][..], "a", false),
            (&[], "*", false),
            (&[("x-key", "a")], "a", true),
            (&[("X-KEY", "a")], "a", true),
            (&[("x_key", "a")], "a", true),
            (&[("x.key", "a")], "a", true),
            (&[("x-keys", "a")], "a", false),
            (&[("xkey", "a")], "*", false),
            (&[("x-key", "A")], "a", false),
            (&[("x-key", "a, b")], "a", false),
            (&[("x-key", "")], "*", false),
            (&[("x-key", "b")], "*", true),
            (&[("x-key", "a"), ("x-key", "a")], "a", true),
            (&[("x-key", "a"), ("x-key", "b")], "a", false),
            (&[("x-key", "a"), ("X_Key", "b")], "a", false),
            (&[("x-key", "a"), ("X_Key", "b")], "*", true),
            (&[("x-key", "a"), ("x-key", "")], "*", false),
        ] {
            let sent = fields(sent);
            assert_eq!(has_value(&sent, "X-Key", value), expect, "{sent:?} {value}");
        }
        assert!(has(&fields(&[("X_KEY", "")]), "x-key"));
        assert!(!has(&fields(&[("x-key-2", "")]), "x-key"));
    }

    #[test]
    fn a_field_that_does_not_reach_the_server_can_be_neither_required_nor_refused() {
        for name in [
            "Host",
            "content-length",
            "Content_Length",
            "CONNECTION",
            "keep-alive",
            "Proxy-Authorization",
            "proxy_connection",
            "proxy-anything",
            "TE",
            "trailer",
            "Transfer-Encoding",
            "transfer_encoding",
            "upgrade",
            "Expect",
        ] {
            assert!(is_token(name) && !can_be_judged(name), "{name}");
        }
        for name in [
            "authorization",
            "Content-Type",
            "proxy",
            "x_api_key",
            "cookie",
        ] {
            assert!(can_be_judged(name), "{name}");
        }
    }
}

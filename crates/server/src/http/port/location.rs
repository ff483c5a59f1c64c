//! Where a program's answer sends its client. A client that follows it to our own origin takes our credential along,
//! with its method and its body: a program must not choose what is asked of us. So whatever leads to this origin
//! leads to the program itself, and what leads elsewhere is left, because there the credential stays behind.
//!
//! References are resolved as browsers and curl do it: RFC 3986, section 5.2, and the WHATWG's URL standard where
//! that reads more than the RFC.

use http::HeaderValue;
use model::host::Host;

/// What to say instead of a `Location`; `None` where nobody can say where it leads.
///
/// `host` is the `Host` of the request, `path` the path that the program was asked for, and `prefix` what stands
/// before it at our door.
pub(super) fn within(
    location: &HeaderValue,
    (host, path, prefix): (&str, &str, &str),
) -> Option<HeaderValue> {
    let text = location.to_str().ok()?.trim();
    // Browsers read a backslash as a slash, and pass over what is between characters.
    if text.bytes().any(|b| b == b'\\' || b.is_ascii_control()) {
        return None;
    }
    let rest = match scheme(text) {
        Some((scheme, rest)) => {
            let is_web =
                scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
            match rest.strip_prefix("//") {
                // Without an authority it is of this origin for some and of none for others.
                None if is_web => return None,
                Some(rest) if is_web => rest,
                _ => return Some(location.clone()),
            }
        }
        None => match text.strip_prefix("//") {
            Some(rest) => rest,
            None => {
                return HeaderValue::from_str(&format!("{prefix}{}", resolved(path, text))).ok();
            }
        },
    };
    // More slashes than two are two.
    let rest = rest.trim_start_matches('/');
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    // With a name and a password before the host, it is the same host.
    let authority = authority.rsplit('@').next().unwrap_or_default();
    // Read and not compared as text: `127.1` and `127.0.0.%31` are this origin for a client that reads them.
    let [to, own] = [authority, host].map(|one| Host::parse(name(one)).ok());
    if to? != own? {
        return Some(location.clone());
    }
    HeaderValue::from_str(&format!("{prefix}{}", resolved("/", rest))).ok()
}

/// RFC 3986, section 3.1.
fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let mut bytes = scheme.bytes();
    let begins = bytes.next().is_some_and(|b| b.is_ascii_alphabetic());
    let goes_on = bytes.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    (begins && goes_on).then_some((scheme, rest))
}

/// A host without its port: another port of ours may be this server, too.
fn name(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => authority,
    }
}

/// A reference without an authority, from a path, without the parts that lead up.
fn resolved(base: &str, reference: &str) -> String {
    let end = reference.find(['?', '#']).unwrap_or(reference.len());
    let (path, rest) = reference.split_at(end);
    let whole = match path {
        "" => base.to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        path => {
            let dir = base.rfind('/').map_or("/", |at| &base[..=at]);
            format!("{dir}{path}")
        }
    };
    format!("{}{rest}", without_dots(&whole))
}

/// RFC 3986, section 5.2.4; a dot may be written `%2e`.
fn without_dots(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let all: Vec<&str> = path.split('/').skip(1).collect();
    for (index, part) in all.iter().enumerate() {
        let is_last = index + 1 == all.len();
        match part.to_ascii_lowercase().replace("%2e", ".").as_str() {
            ".." => drop(parts.pop()),
            "." => {}
            _ => {
                parts.push(part);
                continue;
            }
        }
        if is_last {
            parts.push("");
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "/v1/sandboxes/a/ports/80";

    fn sent(location: &str) -> Option<String> {
        let location = HeaderValue::from_bytes(location.as_bytes()).unwrap();
        let at = ("localhost:7300", "/dir/page", PREFIX);
        let told = within(&location, at)?;
        Some(told.to_str().unwrap().to_owned())
    }

    #[test]
    fn what_leads_to_this_origin_leads_to_the_program() {
        for (location, below) in [
            ("/v1/sandboxes/b", "/v1/sandboxes/b"),
            ("/", "/"),
            ("", "/dir/page"),
            ("?x=1", "/dir/page?x=1"),
            ("#top", "/dir/page#top"),
            ("other", "/dir/other"),
            ("./", "/dir/"),
            ("../up/", "/up/"),
            ("../../../../../v1/sandboxes/b", "/v1/sandboxes/b"),
            ("/a/%2E%2e/%2e./../x?y=/../z", "/x?y=/../z"),
            ("a:b/c", "a:b/c"),
            ("//localhost:7300/v1/sandboxes/b", "/v1/sandboxes/b"),
            ("//LOCALHOST/x", "/x"),
            ("http://localhost:7300", "/"),
            ("HTTPS://localhost/x?y", "/x?y"),
            ("http:////localhost:7300/x", "/x"),
            ("http://user:word@localhost:7300/../x", "/x"),
            ("http://localhost./x", "/x"),
        ] {
            let expected = match location {
                "a:b/c" => location.to_owned(),
                "http://localhost:7300" => format!("{PREFIX}/"),
                _ => format!("{PREFIX}{below}"),
            };
            assert_eq!(sent(location), Some(expected), "{location}");
        }
    }

    #[test]
    fn what_leads_elsewhere_is_left_and_what_nobody_can_read_is_not_said() {
        for foreign in [
            "https://example.com/x",
            "//example.com",
            "mailto:a@b",
            "http://localhost.example/x",
        ] {
            assert_eq!(sent(foreign).as_deref(), Some(foreign));
        }
        for odd in [
            "http:/v1/sandboxes/b",
            "https:x",
            "/\\localhost/x",
            "\\\\localhost/x",
            "\u{e9}",
            "http://127.1:7300/x",
            "http://0x7f.1/x",
            "http://2130706433/x",
            "http://127.0.0.%31/x",
            "http://loc%61lhost/x",
        ] {
            assert_eq!(sent(odd), None, "{odd}");
        }
    }
}

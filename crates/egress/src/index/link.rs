//! URLs of indexes and of files, as far as they are fetched: `http` and `https`, without passwords.

use crate::target::{self, HTTP, Target};
use hyper::http::uri::PathAndQuery;
use std::fmt;

/// The port of `https`.
const HTTPS: u16 = 443;

/// Where something is fetched from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(super) is_tls: bool,
    pub(super) target: Target,
    /// With its query, and without a fragment; empty or from its slash on.
    pub(super) path: String,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, usual) = self.usual();
        write!(
            f,
            "{scheme}://{}{}",
            self.target.authority(usual),
            self.path
        )
    }
}

impl Link {
    pub(super) fn new(is_tls: bool, target: Target, path: &str) -> Link {
        Link {
            is_tls,
            target,
            path: path.to_owned(),
        }
    }

    fn usual(&self) -> (&'static str, u16) {
        if self.is_tls {
            ("https", HTTPS)
        } else {
            ("http", HTTP)
        }
    }

    /// What stands in the Host field.
    pub(super) fn authority(&self) -> String {
        self.target.authority(self.usual().1)
    }

    /// Reads a whole URL. `None` for other schemes, passwords, and paths that climb.
    pub(super) fn parse(text: &str) -> Option<Link> {
        let (scheme, rest) = text.split_once("://")?;
        let is_tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        Link::after_scheme(is_tls, rest)
    }

    fn after_scheme(is_tls: bool, rest: &str) -> Option<Link> {
        let rest = rest.split('#').next()?;
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let usual = if is_tls { HTTPS } else { HTTP };
        let target = target::parse(authority, Some(usual)).ok()?;
        let path = match path.strip_prefix('?') {
            Some(_) => format!("/{path}"),
            None => path.to_owned(),
        };
        checked(&path)?;
        Some(Link::new(is_tls, target, &path))
    }

    /// What a link on the page here leads to: a whole URL, or one that is read from here on.
    pub(super) fn join(&self, text: &str) -> Option<Link> {
        if text.contains("://") && !text.starts_with('/') {
            return Link::parse(text);
        }
        if let Some(rest) = text.strip_prefix("//") {
            return Link::after_scheme(self.is_tls, rest);
        }
        let text = text.split('#').next()?;
        let (text, query) = text.split_at(text.find('?').unwrap_or(text.len()));
        // What names another scheme, such as `git+ssh:` or `data:`, is no path.
        if text.split('/').next()?.contains(':') {
            return None;
        }
        let base = self.path.split('?').next()?;
        let from = match text.starts_with('/') {
            true => "",
            false => base.rsplit_once('/').map_or("", |(before, _)| before),
        };
        let mut path = Vec::new();
        for part in from
            .split('/')
            .chain(text.split('/'))
            .filter(|part| *part != ".")
        {
            match part {
                // RFC 3986 section 5.2.4: what climbs above the root stays there.
                ".." => drop(path.pop()),
                "" => {}
                part => path.push(part),
            }
        }
        let end = if text.ends_with('/') && !path.is_empty() {
            "/"
        } else {
            ""
        };
        let path = format!("/{}{end}{query}", path.join("/"));
        checked(&path)?;
        Some(Link::new(self.is_tls, self.target.clone(), &path))
    }

    /// The same with more of a path behind it.
    pub(super) fn below(&self, path: &str) -> Link {
        Link::new(
            self.is_tls,
            self.target.clone(),
            &format!("{}/{path}", self.path),
        )
    }

    /// Whether both are of one scheme, host and port.
    pub(super) fn is_beside(&self, other: &Link) -> bool {
        self.is_tls == other.is_tls && self.target == other.target
    }
}

/// A path that stands in a request as it is, and means one thing.
fn checked(path: &str) -> Option<()> {
    let plain = path
        .bytes()
        .all(|b| b.is_ascii_graphic() && b != b'\\' && b != b'#');
    let before_query = path.split('?').next()?;
    let climbs = before_query.split('/').any(|part| {
        let part = part.to_ascii_lowercase().replace("%2e", ".");
        part == ".." || part == "."
    });
    let is_path = path.is_empty() || path.parse::<PathAndQuery>().is_ok();
    (plain && !climbs && is_path && path.len() <= 4096).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attack: a link that leaves the index by dots, by another scheme, or by a name before an `@`.
    #[test]
    fn a_link_leads_to_one_place_or_nowhere() {
        let base = Link::parse("https://index.test/simple/six/").unwrap();
        for (text, expect) in [
            (
                "six-1.0.tar.gz#sha256=a",
                "https://index.test/simple/six/six-1.0.tar.gz",
            ),
            (
                "../../packages/six-1.0.whl",
                "https://index.test/packages/six-1.0.whl",
            ),
            ("../../../../../etc/passwd", "https://index.test/etc/passwd"),
            ("/packages/x?y=1", "https://index.test/packages/x?y=1"),
            ("//files.test/x", "https://files.test/x"),
            ("https://files.test:8443/x", "https://files.test:8443/x"),
            ("HTTPS://Files.Test/x", "https://files.test/x"),
            ("http://127.0.0.1/x", "http://127.0.0.1/x"),
            ("https://good.test@evil.test/x", "none"),
            ("https://0x7f.1/x", "none"),
            ("https://files.test/a/../x", "none"),
            ("https://files.test/a/%2E%2e/x", "none"),
            ("git+https://files.test/x", "none"),
            ("git+ssh://files.test/x", "none"),
            ("file:///etc/passwd", "none"),
            ("data:text/plain,x", "none"),
            ("javascript:x", "none"),
            ("a b", "none"),
            ("a\r\nx: y", "none"),
            ("a\\b", "none"),
        ] {
            let joined = base.join(text);
            let joined = joined.map_or_else(|| "none".to_owned(), |link| link.to_string());
            assert_eq!(joined, expect, "{text:?}");
        }
    }
}

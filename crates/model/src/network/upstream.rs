//! A proxy outside that all connections of a sandbox leave through: `socks5://[USER@]HOST:PORT`, or in TLS
//! `socks5+tls://[USER@]HOST:PORT[?name=NAME]`. Its password is a secret, and not known here.

use super::Entry;
use crate::host::Host;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What its address begins with. Names are resolved here in any case, so `socks5h` would promise what is not so.
const SCHEME: &str = "socks5://";

/// The same in TLS, RFC 8446: nobody on the way reads the password, nor what is asked for.
const SCHEME_TLS: &str = "socks5+tls://";

/// Before the name that it has in its certificate, where that is not the host.
const NAME: &str = "?name=";

/// The longest name of a user: RFC 1929, section 2.
const USER_BYTES_MAX: usize = 255;

/// A SOCKS5 proxy, RFC 1928.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Upstream {
    at: Entry,
    user: Option<String>,
    tls: Option<Secured>,
}

/// It is spoken to in TLS.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Secured {
    /// The name in its certificate; the host where it is reached when absent.
    pub name: Option<Host>,
}

/// Why text is no such proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("read socks5[+tls]://[USER@]HOST:PORT[?name=NAME]")]
pub struct BadUpstream;

impl Upstream {
    /// Of parts.
    ///
    /// # Errors
    /// [`BadUpstream`].
    pub fn of(place: &str, user: Option<&str>) -> Result<Upstream, BadUpstream> {
        let at: Entry = place.parse().map_err(|_| BadUpstream)?;
        let is_one = at.one_host().is_some() && at.port().is_some();
        let plain = |user: &str| {
            let plain = |b: u8| b.is_ascii_graphic() && !b"@:/".contains(&b);
            !user.is_empty() && user.len() <= USER_BYTES_MAX && user.bytes().all(plain)
        };
        if !is_one || !user.is_none_or(plain) {
            return Err(BadUpstream);
        }
        let user = user.map(str::to_owned);
        Ok(Upstream {
            at,
            user,
            tls: None,
        })
    }

    /// The same, spoken to in TLS.
    #[must_use]
    pub fn secured(self, tls: Secured) -> Upstream {
        Upstream {
            tls: Some(tls),
            ..self
        }
    }

    /// The name that its certificate has to have, where it is spoken to in TLS.
    pub fn tls_name(&self) -> Option<Host> {
        let tls = self.tls.as_ref()?;
        tls.name.clone().or_else(|| self.at.one_host())
    }

    /// Where it is.
    pub fn place(&self) -> Option<(Host, u16)> {
        self.at.one_host().zip(self.at.port())
    }

    /// The same as text, without the user.
    pub fn address(&self) -> String {
        self.at.to_string()
    }

    /// The same with how it is spoken to.
    pub fn url(&self) -> String {
        format!("{}{}", self.scheme(), self.at)
    }

    fn scheme(&self) -> &'static str {
        match self.tls {
            None => SCHEME,
            Some(_) => SCHEME_TLS,
        }
    }

    /// How it is spoken to in TLS, where it is.
    pub fn tls(&self) -> Option<&Secured> {
        self.tls.as_ref()
    }

    /// As whom one logs in there.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }
}

impl FromStr for Upstream {
    type Err = BadUpstream;

    fn from_str(text: &str) -> Result<Upstream, BadUpstream> {
        let (rest, tls) = match (text.strip_prefix(SCHEME), text.strip_prefix(SCHEME_TLS)) {
            (Some(rest), _) => (rest, None),
            (None, Some(rest)) => match rest.split_once(NAME) {
                None => (rest, Some(Secured::default())),
                Some((rest, name)) => {
                    let name = Some(Host::parse(name).map_err(|_| BadUpstream)?);
                    (rest, Some(Secured { name }))
                }
            },
            (None, None) => return Err(BadUpstream),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let upstream = match rest.split_once('@') {
            Some((user, place)) => Upstream::of(place, Some(user)),
            None => Upstream::of(rest, None),
        };
        upstream.map(|upstream| Upstream { tls, ..upstream })
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scheme())?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        write!(f, "{}", self.at)?;
        match self.tls.as_ref().and_then(|tls| tls.name.as_ref()) {
            None => Ok(()),
            Some(name) => write!(f, "{NAME}{name}"),
        }
    }
}

impl From<Upstream> for String {
    fn from(upstream: Upstream) -> String {
        upstream.to_string()
    }
}

impl TryFrom<String> for Upstream {
    type Error = BadUpstream;

    fn try_from(text: String) -> Result<Upstream, BadUpstream> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_host_a_port_and_perhaps_a_user() {
        for (text, expect) in [
            (
                "socks5://Proxy.example.:1080",
                Some("socks5://proxy.example:1080"),
            ),
            (
                "socks5://me@10.0.0.1:1080/",
                Some("socks5://me@10.0.0.1:1080"),
            ),
            (
                "socks5://[2001:db8::1]:1080",
                Some("socks5://[2001:db8::1]:1080"),
            ),
            (
                "socks5+tls://me@Proxy.example:1080",
                Some("socks5+tls://me@proxy.example:1080"),
            ),
            (
                "socks5+tls://10.0.0.1:1080/?name=Proxy.Example",
                Some("socks5+tls://10.0.0.1:1080?name=proxy.example"),
            ),
            ("socks5+tls://a.test:1080?name=", None),
            ("socks5+tls://a.test:1080?name=*.a.test", None),
            ("socks5+tls://a.test:1080?ca=x", None),
            ("socks5://a.test:1080?name=b.test", None),
            ("socks5://me:password@a.test:1080", None),
            ("socks5://a.test", None),
            ("socks5://*.a.test:1080", None),
            ("socks5://10.0.0.0/8:1080", None),
            ("socks5://@a.test:1080", None),
            ("socks5://a.test:0", None),
            ("http://a.test:1080", None),
            ("a.test:1080", None),
            ("", None),
        ] {
            let read = text.parse::<Upstream>().ok();
            assert_eq!(read.map(|one| one.to_string()).as_deref(), expect, "{text}");
        }
    }
}

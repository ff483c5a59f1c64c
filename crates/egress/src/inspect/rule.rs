//! Secrets that are set as fields on requests, each for its hosts alone. Pure.

use crate::reason::Reason;
use hyper::header::{HeaderName, HeaderValue};
use model::host::Host;
use model::network::Entry;

/// A header field that holds a secret. It leaves through TLS or not at all, in place of whatever the client or a
/// rule wrote there, and is shown to nobody.
#[derive(Debug, Clone)]
pub struct SecretField {
    /// Whom the secret is for.
    pub to: Entry,
    /// The field.
    pub name: HeaderName,
    /// Its value, which is sensitive.
    pub value: HeaderValue,
}

/// The fields of a request to this host at this port.
///
/// # Errors
/// [`Reason::ClearSecret`] where there are any, and it does not leave through TLS.
pub fn fields<'f>(
    all: &'f [SecretField],
    (host, port): (&Host, u16),
    is_tls: bool,
) -> Result<Vec<&'f SecretField>, Reason> {
    let fields: Vec<&SecretField> = all.iter().filter(|one| one.to.names(host, port)).collect();
    if is_tls || fields.is_empty() {
        Ok(fields)
    } else {
        Err(Reason::ClearSecret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_goes_to_its_hosts_through_tls_or_not_at_all() {
        let field = |to: &str, name| SecretField {
            to: to.parse().unwrap(),
            name: HeaderName::from_static(name),
            value: HeaderValue::from_static("s"),
        };
        let all = [field("api.test:443", "a"), field("*.test:8443", "b")];
        for (host, port, is_tls, expect) in [
            ("api.test", 443, true, "a"),
            ("api.test", 443, false, "secret_needs_tls"),
            ("api.test", 80, false, ""),
            ("api.test", 8443, true, "b"),
            ("x.api.test", 443, true, ""),
            ("test", 8443, true, ""),
        ] {
            let host = Host::parse(host).unwrap();
            let found = match fields(&all, (&host, port), is_tls) {
                Ok(fields) => fields.iter().map(|one| one.name.as_str()).collect(),
                Err(reason) => reason.code().to_owned(),
            };
            assert_eq!(found, expect, "{host}:{port}");
        }
    }
}

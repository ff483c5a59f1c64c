//! What would become of a URL: the decision, without a name being resolved or anything dialled.

use super::{Denial, Field, How, NetworkRules, Request};
use crate::address::{Class, canonical, classify};
use crate::exception::Exception;
use crate::host::Host;
use crate::secret::SecretUse;

/// What would be done, and by which rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// The host in its one form.
    pub host: Host,
    /// The port.
    pub port: u16,
    /// Why not; `None` where it would be let out.
    pub code: Option<&'static str>,
    /// Who says so.
    pub rule: String,
    /// What to do about it.
    pub hint: Option<&'static str>,
    /// Fields that would be set, each with the name of its secret. Never a value.
    pub adds: Vec<(String, String)>,
}

/// Why text is no URL that could be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("read http://HOST[:PORT]/..., https://HOST[:PORT]/..., or HOST:PORT")]
pub struct BadUrl;

const CLOSED: &str = "only public addresses are reached; whoever runs the server may open others with \
                      `cofferdam up --egress-allow ADDRESS[:PORT]`";

/// The code of a request that a secret would be added to, and that leaves in clear.
pub const CLEAR_SECRET: &str = "secret_needs_tls";

const NEEDS_TLS: &str =
    "a secret belongs to this host, and leaves through TLS or not at all: ask for https";

const READS: How<'static> = How::Request {
    method: "GET",
    has_body: false,
};

impl NetworkRules {
    /// What would become of a GET of this URL with these fields, on a node whose operator opened these, in a sandbox
    /// that has these secrets. A name that passes here may still have an address that is closed or denied.
    ///
    /// # Errors
    /// [`BadUrl`].
    pub fn trial(
        &self,
        (url, fields): (&str, &[Field<'_>]),
        opened: &[Exception],
        secrets: &[SecretUse],
    ) -> Result<Trial, BadUrl> {
        let (request, host, port, path) = parse(url).ok_or(BadUrl)?;
        let adds = added(secrets, &host, port);
        // Where secrets are withheld their hosts are looked into all the same.
        let looks_into = self.looks_into(&host, port) || !adds.is_empty();
        let how = match request {
            true => READS,
            // What is asked of it is seen, and reading is what is tried.
            false if looks_into => READS,
            false => How::Tunnel,
        };
        let addresses = match &host {
            Host::Address(address) => vec![*address],
            Host::Name(_) => Vec::new(),
        };
        let mut verdict = self.after(how, &host, port, &addresses);
        let asked = Request {
            host: &host,
            port,
            method: "GET",
            path,
            fields,
        };
        if looks_into
            && verdict.is_allowed()
            && let Err(denied) = self.judge(asked)
        {
            verdict = *denied;
        }
        let mut trial = Trial {
            code: verdict.denial.map(Denial::code),
            hint: verdict.denial.map(Denial::hint),
            rule: verdict.rule.to_string(),
            host,
            port,
            adds: Vec::new(),
        };
        if verdict.is_allowed() && !self.withhold_secrets {
            match (request, adds.first()) {
                (true, Some((_, name))) => {
                    trial.rule = format!("secret {name}");
                    (trial.code, trial.hint) = (Some(CLEAR_SECRET), Some(NEEDS_TLS));
                    return Ok(trial);
                }
                _ => trial.adds = adds,
            }
        }
        let Some(address) = addresses.first().filter(|_| verdict.is_allowed()) else {
            return Ok(trial);
        };
        let address = canonical(*address);
        let mut opened = opened.iter();
        let class = classify(address);
        if let Some(open) = opened.find(|one| one.opens(address, port)) {
            trial.rule = format!("{}, operator {open}", verdict.rule);
        } else if class != Class::Global {
            trial.adds.clear();
            trial.code = Some(class.code());
            trial.hint = Some(CLOSED);
            "closed in every mode".clone_into(&mut trial.rule);
        }
        Ok(trial)
    }
}

/// Fields of secrets that belong to a host, with their names.
fn added(secrets: &[SecretUse], host: &Host, port: u16) -> Vec<(String, String)> {
    let one = |secret: &SecretUse| {
        let (to, field) = secret.how.added()?;
        let added = (field.to_owned(), secret.name.clone());
        to.names(host, port).then_some(added)
    };
    secrets.iter().filter_map(one).collect()
}

/// Reading in clear or not, the host, the port, and the path without its query.
fn parse(url: &str) -> Option<(bool, Host, u16, &str)> {
    let (in_clear, rest, usual) = if let Some(rest) = url.strip_prefix("http://") {
        (true, rest, Some(80))
    } else if let Some(rest) = url.strip_prefix("https://") {
        (false, rest, Some(443))
    } else {
        (false, url, None)
    };
    let path_end = rest.find(['?', '#']).unwrap_or(rest.len());
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = rest.get(..end)?;
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            let plain = !port.starts_with('0') && port.bytes().all(|byte| byte.is_ascii_digit());
            (host, port.parse().ok().filter(|_| plain)?)
        }
        _ => (authority, usual?),
    };
    let path = rest.get(end..path_end).filter(|path| !path.is_empty());
    let host = Host::parse(host).ok()?;
    Some((in_clear, host, port, path.unwrap_or("/")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::NetworkAsked;

    #[test]
    fn a_trial_says_what_would_be_and_why() {
        let asked = NetworkAsked {
            allow: vec![
                "a.example:443".to_owned(),
                "*.b.example".to_owned(),
                "*:22".to_owned(),
            ],
            deny: vec!["x.b.example".to_owned()],
            ..NetworkAsked::default()
        };
        let rules = NetworkRules::read(&asked).unwrap();
        let opened = ["10.0.0.2:22", "169.254.0.0/16"].map(|one| one.parse().unwrap());
        let say = |url: &str| match rules.trial((url, &[]), &opened, &[]) {
            Ok(trial) => format!(
                "{}:{} {} {}",
                trial.host,
                trial.port,
                trial.code.unwrap_or("ok"),
                trial.rule
            ),
            Err(BadUrl) => "no url".to_owned(),
        };
        for (url, expect) in [
            (
                "https://A.example/x?y#z",
                "a.example:443 ok allow a.example:443",
            ),
            (
                "http://a.example/",
                "a.example:80 host_not_allowed mode allowlist",
            ),
            (
                "http://c.b.example:81",
                "c.b.example:81 ok allow *.b.example",
            ),
            (
                "x.b.example:1",
                "x.b.example:1 host_denied deny x.b.example",
            ),
            (
                "10.0.0.1:22",
                "10.0.0.1:22 address_private closed in every mode",
            ),
            (
                "10.0.0.2:22",
                "10.0.0.2:22 ok allow *:22, operator 10.0.0.2:22",
            ),
            ("10.0.0.2:23", "10.0.0.2:23 host_not_allowed mode allowlist"),
            // What clouds answer with credentials at is opened by itself alone.
            (
                "169.254.169.254:22",
                "169.254.169.254:22 address_metadata closed in every mode",
            ),
            ("[::1]:22", "[::1]:22 address_loopback closed in every mode"),
            ("9.9.9.9:22", "9.9.9.9:22 ok allow *:22"),
            ("ftp://a.example/", "no url"),
            ("https://u@a.example/", "no url"),
            ("a.example", "no url"),
            ("a.example:0", "no url"),
            ("https://127.1/", "no url"),
        ] {
            assert_eq!(say(url), expect, "{url}");
        }
    }

    #[test]
    fn a_trial_looks_at_the_fields_that_it_is_told() {
        use crate::network::RequestAsked;
        let asked = NetworkAsked {
            requests: vec![RequestAsked {
                host: "a.example".to_owned(),
                require: [("x-team".to_owned(), "red".to_owned())].into(),
                refuse: vec!["authorization".to_owned()],
                ..RequestAsked::default()
            }],
            ..NetworkAsked::default()
        };
        let rules = NetworkRules::read(&asked).unwrap();
        for (fields, code) in [
            (&[][..], Some("http_rule")),
            (&[("X-Team", &b"red"[..])], None),
            (&[("x-team", &b"blue"[..])], Some("http_rule")),
            (
                &[("x-team", &b"red"[..]), ("Authorization", &b""[..])],
                Some("http_rule"),
            ),
        ] {
            for url in ["https://a.example/", "http://a.example/"] {
                let trial = rules.trial((url, fields), &[], &[]).unwrap();
                assert_eq!(trial.code, code, "{fields:?}");
                let rule = "rule a.example (requires x-team; refuses authorization)";
                assert_eq!(trial.rule, rule, "{fields:?}");
            }
        }
    }

    #[test]
    fn a_trial_names_the_secrets_that_would_be_added_and_refuses_where_they_would_leave_in_clear() {
        use crate::secret::SecretHow;
        let secret = |name: &str, host: &str| SecretUse {
            name: name.to_owned(),
            id: None,
            version: 1,
            how: SecretHow::Header {
                host: host.to_owned(),
                header: "authorization".to_owned(),
                format: "Bearer {}".to_owned(),
            },
        };
        let secrets = [
            secret("one", "a.example"),
            secret("two", "*.b.example:8443"),
        ];
        let asked = NetworkAsked {
            allow: vec!["*".to_owned()],
            ..NetworkAsked::default()
        };
        let mut rules = NetworkRules::read(&asked).unwrap();
        let say = |rules: &NetworkRules, url: &str| {
            let trial = rules.trial((url, &[]), &[], &secrets).unwrap();
            (
                trial.code,
                trial
                    .adds
                    .iter()
                    .map(|(_, name)| name.clone())
                    .collect::<String>(),
            )
        };
        for (url, code, adds) in [
            ("https://a.example/", None, "one"),
            ("a.example:443", None, "one"),
            ("http://a.example/", None, ""),
            ("http://a.example:443/", Some(CLEAR_SECRET), ""),
            ("https://x.b.example:8443/", None, "two"),
            ("https://b.example:8443/", None, ""),
            ("https://x.b.example/", None, ""),
        ] {
            assert_eq!(say(&rules, url), (code, adds.to_owned()), "{url}");
        }
        rules.withhold_secrets = true;
        assert_eq!(say(&rules, "https://a.example/"), (None, String::new()));
    }
}

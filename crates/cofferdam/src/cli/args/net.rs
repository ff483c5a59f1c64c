//! What a sandbox may reach, as options.

use crate::cli::failure::Failure;
use crate::cli::units;
use api::Code;
use api::network::{Network, NetworkLimits, NetworkMode, NetworkRule};
use std::collections::{BTreeMap, BTreeSet};

/// What a job or a sandbox may reach.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct NetArgs {
    /// What it may reach: nothing, what --allow and --preset name, only reading in plain HTTP, or everything
    /// public; `allowlist` when only a list is given
    #[arg(long = "net", value_enum, value_name = "MODE")]
    pub(crate) mode: Option<NetMode>,
    /// A destination that it may reach: HOST, *.DOMAIN, ADDRESS or ADDRESS/BITS, and perhaps :PORT; may be
    /// repeated
    #[arg(long, value_parser = destination, value_name = "HOST[:PORT]")]
    pub(crate) allow: Vec<String>,
    /// A destination that it may not reach, whatever allows it; may be repeated
    #[arg(long, value_parser = destination, value_name = "HOST[:PORT]")]
    pub(crate) deny: Vec<String>,
    /// Destinations by the name of who has them: pypi, npm, debian, ubuntu, alpine, crates, go, github; may be
    /// repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) preset: Vec<String>,
    /// What may be asked of a host, such as 'GET,HEAD https://api.github.com/repos/*'; a host with rules is let out
    /// only as one of them says. Its HTTPS is looked into; may be repeated. Fields of the header are said in JSON:
    /// `network.rules` of a profile or of the API
    #[arg(long, value_parser = rule, value_name = "[METHODS ]URL")]
    pub(crate) rule: Vec<NetworkRule>,
    /// A package that it may install, such as pip:requests==2.32.3 or npm:lodash==4.17.21, by exact name and version;
    /// it finds those in an index of its own, and no other of that manager; may be repeated
    #[arg(long, value_parser = package, value_name = "MANAGER:NAME==VERSION")]
    pub(crate) package: Vec<(String, String)>,
    /// A SOCKS5 proxy that whatever is let out leaves through, socks5+tls:// for one that is spoken to in TLS; its
    /// password is a secret, --secret NAME=upstream
    #[arg(long, value_name = "socks5://[USER@]HOST:PORT")]
    pub(crate) via: Option<String>,
    /// Certificates, in PEM, of whom it is believed that he is that proxy; whom the node trusts when absent
    #[arg(long, requires = "via", value_name = "FILE", value_parser = certificates, value_hint = clap::ValueHint::FilePath)]
    pub(crate) via_ca: Option<String>,
    /// A server of DNS that names are resolved by, instead of by the node: ADDRESS, and perhaps :PORT; may be repeated
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    pub(crate) dns: Vec<String>,
    /// How much it may do there: bytes both ways together, connections at a time, new ones per minute. They open
    /// nothing by themselves
    #[arg(long, value_parser = net_limit, value_name = "bytes=SIZE,connections=N,per-minute=N")]
    pub(crate) net_limit: Option<NetworkLimits>,
}

/// What a sandbox that lives may reach.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct NetCommand {
    /// Its id
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) net: NetArgs,
    /// A secret for what leaves, =header:HOST:FIELD or =upstream, in the place of all that it has; none to take
    /// those away; may be repeated
    #[arg(long, value_name = "NAME=HOW")]
    pub(crate) secret: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is let out where no list says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum NetMode {
    /// Nothing
    None,
    /// What is listed
    Allowlist,
    /// GET and HEAD over plain HTTP
    ReadOnly,
    /// Everything public
    Unrestricted,
}

impl NetArgs {
    /// What was asked for; `None` when nothing was.
    pub(crate) fn network(self) -> Option<Network> {
        let lists = [&self.allow, &self.deny, &self.preset];
        let is_empty = lists.iter().all(|list| list.is_empty())
            && self.rule.is_empty()
            && self.package.is_empty()
            && self.via.is_none()
            && self.dns.is_empty()
            && self.net_limit.is_none();
        if self.mode.is_none() && is_empty {
            return None;
        }
        let mut dependencies = BTreeMap::<String, BTreeSet<String>>::new();
        for (manager, package) in self.package {
            dependencies.entry(manager).or_default().insert(package);
        }
        Some(Network {
            dependencies,
            mode: self.mode.map(|mode| match mode {
                NetMode::None => NetworkMode::None,
                NetMode::Allowlist => NetworkMode::Allowlist,
                NetMode::ReadOnly => NetworkMode::ReadOnly,
                NetMode::Unrestricted => NetworkMode::Unrestricted,
            }),
            allow: self.allow,
            deny: self.deny,
            presets: self.preset,
            rules: self.rule,
            upstream: self.via,
            upstream_ca: self.via_ca,
            dns: self.dns,
            limits: self.net_limit.unwrap_or_default(),
            ..Network::default()
        })
    }

    /// The same beside `--internet`, which is short for one of them.
    pub(crate) fn or_internet(self, internet: bool) -> Result<Option<Network>, Failure> {
        match self.network() {
            Some(_) if internet => {
                let message = "--internet is short for --net unrestricted, and beside it there is nothing to say";
                let failure = Failure::new(Code::InvalidArgument, message);
                Err(failure.hint("leave --internet out, or the other options"))
            }
            asked => Ok(asked),
        }
    }
}

/// A destination is no URL: what of it counts is the host, and perhaps a port. The server says what else is wrong.
fn destination(text: &str) -> Result<String, String> {
    let Some((_, rest)) = text.split_once("://") else {
        return Ok(text.to_owned());
    };
    let host = rest.split('/').next().unwrap_or_default();
    Err(format!("it is a URL; write the host alone: {host}"))
}

/// The manager and the package. The server says what is wrong with either.
fn package(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once(':');
    let (manager, package) = pair.ok_or("write pip:NAME==VERSION or npm:NAME==VERSION")?;
    Ok((manager.to_owned(), package.to_owned()))
}

/// Reads `bytes=1GiB,connections=16,per-minute=600`, each once at most. The server says what is too much. Pure.
fn net_limit(text: &str) -> Result<NetworkLimits, String> {
    let mut limits = NetworkLimits::default();
    for part in text.split(',') {
        let pair = part.split_once('=');
        let help =
            || format!("`{part}` is none; write bytes=1GiB, connections=16 or per-minute=600");
        let (name, value) = pair.ok_or_else(help)?;
        let number = || {
            let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            let number = value.parse::<u32>().ok().filter(|_| is_number);
            number.ok_or_else(|| format!("`{part}`: `{value}` is not a number below 2^32"))
        };
        let (was, is) = match name {
            "bytes" => {
                let bytes = units::size(value).map_err(|why| format!("`{part}`: {why}"))?;
                (limits.bytes.replace(bytes).is_some(), bytes)
            }
            "connections" => {
                let count = number()?;
                (limits.connections.replace(count).is_some(), count.into())
            }
            "per-minute" => {
                let count = number()?;
                (limits.per_minute.replace(count).is_some(), count.into())
            }
            _ => return Err(help()),
        };
        if was {
            return Err(format!("`{part}`: `{name}` is there twice"));
        }
        if is == 0 {
            return Err(format!(
                "`{part}`: that is nothing; leave the network out instead"
            ));
        }
    }
    Ok(limits)
}

/// The text of a file. What is no certificate the server says.
fn certificates(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

/// Reads `[METHOD,METHOD ][http[s]://]HOST[:PORT][/PATH]`. The server says what is wrong with its parts.
fn rule(text: &str) -> Result<NetworkRule, String> {
    let (methods, url) = text.rsplit_once(' ').unwrap_or(("", text));
    let methods = methods
        .split(',')
        .map(str::trim)
        .filter(|one| !one.is_empty());
    let (rest, usual) = match url.split_once("://") {
        Some(("https", rest)) => (rest, Some(443)),
        Some(("http", rest)) => (rest, Some(80)),
        Some(_) => return Err("a URL begins with https:// or http://".to_owned()),
        None => (url, None),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            let port = port
                .parse()
                .map_err(|_| "a port is 1 to 65535".to_owned())?;
            (host, Some(port))
        }
        _ => (authority, usual),
    };
    if host.is_empty() {
        return Err("there is no host; write METHODS https://HOST/PATH".to_owned());
    }
    Ok(NetworkRule {
        host: host.trim_matches(['[', ']']).to_owned(),
        port,
        methods: methods.map(str::to_owned).collect(),
        paths: (!path.is_empty())
            .then(|| path.to_owned())
            .into_iter()
            .collect(),
        ..NetworkRule::default()
    })
}

/// A rule as it is written.
pub(crate) fn rule_text(rule: &NetworkRule) -> String {
    let scheme = match rule.port {
        Some(80) => "http://",
        Some(_) => "https://",
        None => "",
    };
    let port = rule.port.filter(|port| ![80, 443].contains(port));
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let (methods, paths) = (rule.methods.join(","), rule.paths.join(","));
    let text = format!("{methods} {scheme}{}{port}{paths}", rule.host);
    let headers = &rule.headers;
    let require = headers.require.iter();
    let require: Vec<String> = require
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    let set: Vec<&str> = headers.set.keys().map(String::as_str).collect();
    let all = [
        ("requires", require.join(", ")),
        ("refuses", headers.refuse.join(", ")),
        ("sets", set.join(", ")),
    ];
    let all = all.into_iter().filter(|(_, fields)| !fields.is_empty());
    let all: Vec<String> = all
        .map(|(what, fields)| format!("{what} {fields}"))
        .collect();
    let text = text.trim().to_owned();
    match all.is_empty() {
        true => text,
        false => format!("{text} ({})", all.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_no_url() {
        assert_eq!(destination("pypi.org:443").as_deref(), Ok("pypi.org:443"));
        assert_eq!(destination("[fd00::1]:443").as_deref(), Ok("[fd00::1]:443"));
        let refused = destination("http://pypi.org/simple").unwrap_err();
        assert!(refused.ends_with("the host alone: pypi.org"), "{refused}");
    }

    #[test]
    fn a_rule_is_shown_with_the_fields_that_it_is_about() {
        let mut read = rule("POST https://a.test/v1/*").unwrap();
        let pair = |name: &str| (name.to_owned(), "red".to_owned());
        read.headers.set = [pair("x-set")].into();
        assert_eq!(rule_text(&read), "POST https://a.test/v1/* (sets x-set)");
        read.headers.require = [pair("x-team")].into();
        read.headers.refuse = vec!["authorization".to_owned(), "x-api-key".to_owned()];
        let fields = "requires x-team: red; refuses authorization, x-api-key; sets x-set";
        assert_eq!(
            rule_text(&read),
            format!("POST https://a.test/v1/* ({fields})")
        );
    }

    #[test]
    fn limits_of_a_network_are_named_each_once() {
        for (text, bytes, connections, per_minute) in [
            ("bytes=1GiB", Some(1 << 30), None, None),
            ("bytes=4096", Some(4096), None, None),
            ("connections=16", None, Some(16), None),
            (
                "per-minute=600,bytes=1.5M,connections=1",
                Some(3 << 19),
                Some(1),
                Some(600),
            ),
        ] {
            let expect = NetworkLimits {
                connections,
                per_minute,
                bytes,
            };
            assert_eq!(net_limit(text), Ok(expect), "{text}");
        }
        for (text, why) in [
            ("", "`` is none; write bytes="),
            ("bytes", "`bytes` is none; write"),
            ("byts=1", "`byts=1` is none"),
            ("bytes=1,", "`` is none"),
            ("bytes=many", "`bytes=many`: `many` is not a size"),
            ("bytes=0", "that is nothing"),
            ("connections=0", "`connections=0`: that is nothing"),
            ("connections=+1", "`+1` is not a number"),
            ("connections=", "`` is not a number"),
            ("per-minute=4294967296", "is not a number below 2^32"),
            ("bytes=1,bytes=2", "`bytes=2`: `bytes` is there twice"),
        ] {
            let refused = net_limit(text).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }

    #[test]
    fn a_rule_is_methods_and_a_url() {
        for (text, host, port, methods, path) in [
            (
                "GET,HEAD https://api.github.com/repos/*",
                "api.github.com",
                Some(443),
                "GET,HEAD",
                "/repos/*",
            ),
            ("http://a.test", "a.test", Some(80), "", ""),
            ("POST a.test/x", "a.test", None, "POST", "/x"),
            ("https://*.a.test:8443/", "*.a.test", Some(8443), "", "/"),
            (
                "GET https://[2001:db8::1]:8443/x",
                "2001:db8::1",
                Some(8443),
                "GET",
                "/x",
            ),
        ] {
            let read = rule(text).unwrap();
            let got = (read.host.as_str(), read.port, read.methods.join(","));
            assert_eq!(got, (host, port, methods.to_owned()), "{text}");
            assert_eq!(read.paths.join(","), path, "{text}");
            let again = rule(&rule_text(&read));
            assert!(again.as_ref() == Ok(&read) || host.contains(':'), "{text}");
        }
        for text in [
            "ftp://a.test/",
            "",
            "GET https:///x",
            "a.test:x",
            "a.test:70000",
        ] {
            assert!(rule(text).is_err(), "{text}");
        }
    }
}

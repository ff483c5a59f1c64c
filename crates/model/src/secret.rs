//! Secrets: what one may be called, and how a job or a sandbox may use it.

mod leaving;

pub use leaving::Leaving;

use crate::id::SecretId;
use crate::limits;
use crate::network::{Entry, NetworkRules, may_be_set};
use crate::spec::Findings;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Where secrets are files inside a sandbox: on its tmpfs, which no copy of a sandbox's files takes along.
pub const SECRET_DIR: &str = "/dev/shm/secrets";

/// A secret that a job or a sandbox uses. Never its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretUse {
    /// Which.
    pub name: String,
    /// Which, whatever is called so later; fixed when the job was made.
    #[serde(default)]
    pub id: Option<SecretId>,
    /// The version, fixed when the job was made; 0 before.
    #[serde(default)]
    pub version: u64,
    /// How it gets there.
    pub how: SecretHow,
}

/// How a secret gets into a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "as", rename_all = "snake_case")]
pub enum SecretHow {
    /// As a file below [`SECRET_DIR`] that only the workload's user reads.
    File,
    /// As an environment variable: every child inherits it, and `/proc` shows it to the same user.
    Env {
        /// Its name.
        var: String,
    },
    /// As a field of the header of requests to a host, which the proxy on the node sets on the way out: it is
    /// never inside.
    Header {
        /// Whom the secret is for: a name, or `*.` and a name for all below it, and a port after a colon where it
        /// is not 443.
        host: String,
        /// The field.
        header: String,
        /// The value of the field, in which `{}` stands for the secret.
        format: String,
    },
    /// As the password of the proxy that connections leave through, on the node: it is never inside.
    Upstream,
}

impl SecretHow {
    /// For the record of its use.
    pub fn name(&self) -> &'static str {
        match self {
            SecretHow::File => "file",
            SecretHow::Env { .. } => "env",
            SecretHow::Header { .. } => "header",
            SecretHow::Upstream => "upstream",
        }
    }

    /// Whether it is used on the node, for what leaves, and is never inside.
    pub fn leaves(&self) -> bool {
        matches!(self, SecretHow::Header { .. } | SecretHow::Upstream)
    }

    /// The field that it is set as, and for whom, where it is added to requests.
    pub fn added(&self) -> Option<(Entry, &str)> {
        let SecretHow::Header { host, header, .. } = self else {
            return None;
        };
        let to = match host.contains(':') {
            true => host.parse(),
            false => format!("{host}:443").parse(),
        };
        Some((to.ok()?, header))
    }
}

/// Where a value is that is not kept here: a provider that the operator configured, and what it is asked
/// for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SecretSource {
    /// The provider's name.
    pub provider: String,
    /// What it is asked for; what that means is the provider's.
    pub reference: String,
}

impl SecretSource {
    /// What is wrong with it, if anything. A reference is an argument of a command, a path or part of a
    /// URL; each provider looks at it again.
    pub fn fault(&self) -> Option<&'static str> {
        if !is_provider_name(&self.provider) {
            return Some(PROVIDER_RULE);
        }
        let text = &self.reference;
        let plain = !text.is_empty()
            && text.len() <= limits::SECRET_REFERENCE_BYTES_MAX
            && !text.starts_with('-')
            && !text.chars().any(char::is_control);
        (!plain).then_some(
            "a reference is 1 to 512 bytes without control characters, and begins with no `-`",
        )
    }
}

impl std::fmt::Display for SecretSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.provider, self.reference)
    }
}

/// What [`is_provider_name`] says, for a person.
pub const PROVIDER_RULE: &str =
    "a provider's name is 1 to 32 of small letters, digits and `-`, and begins with a letter";

/// Whether a provider may have this name.
pub fn is_provider_name(name: &str) -> bool {
    name.len() <= 32
        && name.as_bytes().first().is_some_and(u8::is_ascii_lowercase)
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Whether a secret may have this name. It is the name of a file inside, part of a path of the API, and
/// written into output, so it has only characters that are plain in all three; and it is no id, so that
/// what names a secret names one.
pub fn is_secret_name(name: &str) -> bool {
    let first = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let other = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    name.len() <= limits::SECRET_NAME_BYTES_MAX
        && name.as_bytes().first().is_some_and(first)
        && name.bytes().all(other)
        && name.parse::<SecretId>().is_err()
}

/// Checks the secrets that a job or a sandbox is to use, beside its variables.
pub(crate) fn check_uses(uses: &[SecretUse], env: &BTreeMap<String, String>, found: &mut Findings) {
    found.count("secrets", uses.len(), limits::SECRET_USES_MAX);
    let mut files = BTreeSet::new();
    let mut vars = BTreeSet::new();
    let mut fields = BTreeSet::new();
    for (index, one) in uses.iter().enumerate() {
        let field = format!("secrets[{index}]");
        if !is_secret_name(&one.name) {
            found.add(format!("{field}.name"), "secret_name", NAME_RULE);
        }
        match &one.how {
            SecretHow::File if !files.insert(&one.name) => {
                found.add(field, "duplicate_path", "the secret is a file already");
            }
            // What it goes with is looked at beside the network.
            SecretHow::File | SecretHow::Upstream => {}
            SecretHow::Env { var } => {
                if !is_variable(var) {
                    let message = "a variable is letters, digits and `_`, and begins with no digit";
                    found.add(format!("{field}.how.var"), "env_name", message);
                }
                if env.contains_key(var) || !vars.insert(var) {
                    let message = "the variable has a value already";
                    found.add(format!("{field}.how.var"), "env_name", message);
                }
            }
            SecretHow::Header {
                host,
                header,
                format,
            } => {
                if let Some(message) = header_fault(host, header, format) {
                    found.add(format!("{field}.how"), "secret_header", message);
                } else if !fields.insert((host, header.to_ascii_lowercase())) {
                    let message = "the field of this host has a value already";
                    found.add(format!("{field}.how"), "secret_header", message);
                }
            }
        }
    }
}

/// What is wrong with a field that is to be set, if anything.
fn header_fault(host: &str, header: &str, format: &str) -> Option<&'static str> {
    let (name, port) = host.split_once(':').unwrap_or((host, "443"));
    let name = name.strip_prefix("*.").unwrap_or(name);
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    let is_name = !name.is_empty() && name.len() <= 253 && name.bytes().all(plain);
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0) && !port.starts_with(['0', '+']);
    let is_plain = |b: u8| b == b' ' || b.is_ascii_graphic();
    if !is_name || !is_port {
        return Some(
            "a host is a name in small letters, `*.` before it for all below, `:PORT` after it",
        );
    }
    if !may_be_set(header) {
        return Some("a field has the name of one, and is not about the connection");
    }
    if format.len() > 1024 || !format.bytes().all(is_plain) || format.matches("{}").count() != 1 {
        return Some(
            "a format is printable ASCII, at most 1024 of it, with one `{}` for the secret",
        );
    }
    None
}

/// Checks that what is added to requests can ever leave.
pub(crate) fn check_ways_out(uses: &[SecretUse], network: &NetworkRules, found: &mut Findings) {
    let mut passwords = 0;
    for (index, one) in uses.iter().enumerate() {
        if one.how == SecretHow::Upstream {
            passwords += 1;
            let has_user = network
                .upstream
                .as_ref()
                .is_some_and(|one| one.user().is_some());
            if passwords > 1 || !has_user {
                let message =
                    "the password of a proxy goes with one `network.upstream` that has a user";
                found.add(format!("secrets[{index}].how"), "secret_header", message);
            }
        }
        let SecretHow::Header { .. } = &one.how else {
            continue;
        };
        let to = one.how.added();
        let field = format!("secrets[{index}].how.host");
        if !network.has_way_out() {
            let message = "a secret is added to what goes out, and there is no way out";
            found.add(field, "secret_header", message);
        } else if to.is_some_and(|(to, _)| !network.could_let_out(&to)) {
            let message = "the rules of the network never let a request out to this host; allow it there, or leave \
                           the secret out";
            found.add(field, "secret_header", message);
        }
    }
}

/// What [`is_secret_name`] says, for a person.
pub const NAME_RULE: &str = "a name is 1 to 128 of letters, digits and `_-.`, begins with a letter, a digit or `_`, and \
     is not an id";

fn is_variable(name: &str) -> bool {
    let rest = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let first = |b: &u8| !b.is_ascii_digit();
    name.len() <= limits::SECRET_NAME_BYTES_MAX
        && name.as_bytes().first().is_some_and(first)
        && name.bytes().all(rest)
}

/// What is wrong with the metadata of a secret, if anything.
pub fn metadata_fault(metadata: &BTreeMap<String, String>) -> Option<&'static str> {
    let bytes: usize = metadata
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    let long = |(key, value): (&String, &String)| {
        key.is_empty()
            || key.len() > limits::SECRET_METADATA_KEY_BYTES_MAX
            || value.len() > limits::SECRET_METADATA_VALUE_BYTES_MAX
            || key.contains('\0')
            || value.contains('\0')
    };
    let fits = metadata.len() <= limits::SECRET_METADATA_MAX
        && bytes <= limits::SECRET_METADATA_BYTES_MAX
        && !metadata.iter().any(long);
    (!fits).then_some(
        "at most 32 entries of 8192 bytes together, keys of 1 to 128 bytes, values of at most 1024, no NUL",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_plain_as_a_file_and_in_a_path_and_is_no_id() {
        for good in ["a", "OPENAI_API_KEY", "db.password-2", "_x", "9"] {
            assert!(is_secret_name(good), "{good}");
        }
        let id = SecretId::from_parts(1, [0; 10]).to_string();
        let long = "x".repeat(129);
        for bad in [
            "", ".", "..", ".x", "-x", "a/b", "../x", "a b", "a\nb", "a\0", "ä", "a]", "${x}", &id,
            &long,
        ] {
            assert!(!is_secret_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_source_names_a_provider_and_is_no_option_of_a_command() {
        let source = |provider: &str, reference: &str| SecretSource {
            provider: provider.to_owned(),
            reference: reference.to_owned(),
        };
        assert_eq!(source("vault-2", "app/db#password").fault(), None);
        let long = "x".repeat(513);
        for bad in [
            source("", "x"),
            source("V", "x"),
            source("a:b", "x"),
            source(&"a".repeat(33), "x"),
            source("a", ""),
            source("a", "-x"),
            source("a", "x\ny"),
            source("a", "x\0"),
            source("a", &long),
        ] {
            assert!(bad.fault().is_some(), "{bad}");
        }
    }

    fn findings(uses: &[SecretUse]) -> Vec<&'static str> {
        let mut found = Findings::default();
        let env = BTreeMap::from([("TAKEN".to_owned(), String::new())]);
        check_uses(uses, &env, &mut found);
        found.0.into_iter().map(|one| one.code).collect()
    }

    fn one(name: &str, var: Option<&str>) -> SecretUse {
        let env = |var: &str| SecretHow::Env {
            var: var.to_owned(),
        };
        SecretUse {
            name: name.to_owned(),
            id: None,
            version: 0,
            how: var.map_or(SecretHow::File, env),
        }
    }

    #[test]
    fn a_field_is_set_for_a_host_and_never_one_about_the_connection() {
        let header = |host: &str, header: &str, format: &str| {
            let how = SecretHow::Header {
                host: host.to_owned(),
                header: header.to_owned(),
                format: format.to_owned(),
            };
            findings(&[SecretUse {
                how,
                ..one("a", None)
            }])
        };
        for (host, name, format) in [
            ("api.test", "Authorization", "Bearer {}"),
            ("*.api.test:8443", "x-api-key", "{}"),
            ("10.0.0.1", "X", "a {} b"),
        ] {
            assert!(header(host, name, format).is_empty(), "{host} {name}");
        }
        for (host, name, format) in [
            ("", "x", "{}"),
            ("API.test", "x", "{}"),
            ("a b", "x", "{}"),
            ("a.test:0", "x", "{}"),
            ("a.test:070", "x", "{}"),
            ("a.test:99999", "x", "{}"),
            ("*", "x", "{}"),
            ("a.*.test", "x", "{}"),
            ("a.test", "", "{}"),
            ("a.test", "x y", "{}"),
            ("a.test", "Host", "{}"),
            ("a.test", "Content-Length", "{}"),
            ("a.test", "x", ""),
            ("a.test", "x", "{} {}"),
            ("a.test", "x", "{}\r\nx: y"),
        ] {
            assert_eq!(
                header(host, name, format),
                ["secret_header"],
                "{host} {name} {format}"
            );
        }
        let twice = SecretUse {
            how: SecretHow::Header {
                host: "a.test".to_owned(),
                header: "X".to_owned(),
                format: "{}".to_owned(),
            },
            ..one("a", None)
        };
        assert_eq!(findings(&[twice.clone(), twice]), ["secret_header"]);
    }

    #[test]
    fn uses_that_contradict_each_other_or_the_environment_are_refused() {
        assert!(findings(&[one("a", None), one("a", Some("A")), one("b", Some("B"))]).is_empty());
        assert_eq!(
            findings(&[one("a", None), one("a", None)]),
            ["duplicate_path"]
        );
        assert_eq!(
            findings(&[one("a", Some("X")), one("b", Some("X"))]),
            ["env_name"]
        );
        for var in ["", "1A", "A=B", "A\0", "a b", "TAKEN"] {
            assert_eq!(findings(&[one("a", Some(var))]), ["env_name"], "{var}");
        }
        assert_eq!(findings(&[one("../a", None)]), ["secret_name"]);
        let many: Vec<_> = (0..17).map(|n| one(&format!("s{n}"), None)).collect();
        assert_eq!(findings(&many), ["too_many"]);
    }
}

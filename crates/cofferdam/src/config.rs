//! The configuration of `cofferdam server` and `cofferdam node`: one file in TOML, which may be for both.
//!
//! Texts may name variables of the environment, as `${NAME}`; they are put in after the file was read, so that
//! a value cannot become a key. A key that is not known is refused with its place and the nearest one that is:
//! a misspelt limit must not become no limit.

mod check;
mod issuers;
mod known;
mod valid;

use crate::cli::failure::{Failure, reason};
use api::Code;
use model::lease::{self, Lease};
use model::limits;
use model::node::NodeKind;
use model::place::Labels;
use model::rate::Rates;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use toml_edit::{Document, DocumentMut, Item, Value};

pub(crate) use check::check;
pub(crate) use issuers::{Issuer, KeysAt};

/// A configuration has some hundred lines.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a file says.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) mode: Mode,
    /// How often a server may be asked by one.
    pub(crate) rates: Rates,
    pub(crate) server: Option<Server>,
    pub(crate) node: Option<Node>,
    /// Whose tokens count at the server.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) issuers: Vec<Issuer>,
    /// In development: who comes in at the server without a credential.
    pub(crate) dev: Option<Dev>,
}

/// Who comes in without a credential.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dev {
    /// A principal of the first tenant, such as `user:alice`.
    pub(crate) principal: String,
}

/// What a server is started with.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) server: Server,
    pub(crate) mode: Mode,
    pub(crate) issuers: Vec<(service::Issuer, KeysAt)>,
    pub(crate) bypass: Option<server::Bypass>,
}

/// What may be left out between servers and nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// Nothing: TLS with certificates on both sides.
    #[default]
    Production,
    /// Plain HTTP on loopback and a token that all nodes share.
    Development,
}

/// A control plane.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Server {
    /// Blobs, the socket, the token, the authorities; and the database, unless another is named.
    pub(crate) state: PathBuf,
    /// A PostgreSQL, as `host=/run/postgresql user=cofferdam dbname=cofferdam` or a URL; without it, SQLite in the
    /// state directory.
    #[serde(default, serialize_with = "masked_database")]
    pub(crate) database: Option<String>,
    /// How long a node's right to what it has lasts when it is silent; the same on all servers of a database.
    #[serde(default = "lease_seconds")]
    pub(crate) lease_seconds: u64,
    /// Where blobs are: a directory that all servers on the database see; by default in the state directory.
    #[serde(default)]
    pub(crate) blobs: Option<PathBuf>,
    /// What people call it; by default the name of the machine.
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// Where people and programs come in; without it, only by the Unix socket.
    #[serde(default)]
    pub(crate) listen: Option<SocketAddr>,
    /// As `--tls` of `up`.
    #[serde(default)]
    pub(crate) tls: Option<String>,
    /// As `--domain` of `up`.
    #[serde(default)]
    pub(crate) domain: Option<String>,
    /// Whom work is given to first, where several nodes ask: `spread` or `pack`.
    #[serde(default)]
    pub(crate) placement: model::place::Strategy,
    /// Who is told what waits for a person.
    #[serde(default)]
    pub(crate) approvals: Option<Approvals>,
    /// The door of nodes.
    pub(crate) nodes: Option<Nodes>,
    /// Those of the file, which has them for itself.
    #[serde(skip)]
    pub(crate) rates: Rates,
}

/// Who is told what waits for a person.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Approvals {
    /// `https://HOST[:PORT]/PATH`, or `http://` on loopback. It may have a secret in it, as those of chats do.
    #[serde(default, serialize_with = "masked")]
    pub(crate) webhook: Option<String>,
    /// A file with the key of signatures, 16 bytes or more.
    #[serde(default)]
    pub(crate) webhook_secret_file: Option<PathBuf>,
    /// Certificates to trust there, instead of those of this machine.
    #[serde(default)]
    pub(crate) webhook_ca: Option<PathBuf>,
}

/// The door of nodes.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nodes {
    pub(crate) listen: SocketAddr,
    /// By which names and addresses nodes dial it.
    #[serde(default)]
    pub(crate) names: Vec<String>,
    /// Where other servers dial it, as `HOST:PORT`; by default the first of the names with the port of `listen`.
    #[serde(default)]
    pub(crate) address: Option<String>,
    /// In development: what nodes show instead of certificates.
    #[serde(default, serialize_with = "masked")]
    pub(crate) token: Option<String>,
}

/// A node.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Node {
    /// Identity, records, spools, sandboxes.
    pub(crate) state: PathBuf,
    /// `https://HOST:PORT` of the server's door of nodes, or of several, which are dialled in turn; by default the one
    /// that enrolled this machine.
    #[serde(default, deserialize_with = "one_or_more")]
    pub(crate) server: Vec<String>,
    /// In development: what the server wants to be shown.
    #[serde(default, serialize_with = "masked")]
    pub(crate) token: Option<String>,
    /// What people call it; by default the name of the machine.
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// What sort of machine it is.
    #[serde(default)]
    pub(crate) kind: NodeKind,
    /// What it calls itself for placement, beside what its enrollment token has given it.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// Labels without a value.
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    /// The others as the options of `up`.
    #[serde(default = "slots")]
    pub(crate) slots: u32,
    #[serde(default = "sandboxes")]
    pub(crate) sandboxes: u32,
    #[serde(default = "spares")]
    pub(crate) spares: u32,
    #[serde(default)]
    pub(crate) roots: Vec<String>,
    #[serde(default)]
    pub(crate) egress_allow: Vec<String>,
    #[serde(default)]
    pub(crate) egress_trust: Vec<PathBuf>,
    #[serde(default)]
    pub(crate) pip_index: Option<String>,
    #[serde(default)]
    pub(crate) npm_registry: Option<String>,
    /// How to isolate: `linux`, or `fake` for tests, which runs nothing.
    #[serde(default = "driver")]
    pub(crate) driver: String,
}

fn lease_seconds() -> u64 {
    limits::LEASE_MS / 1000
}

/// Addresses of servers that a node tries.
const SERVERS_MAX: usize = 16;

/// One text, or a list of them.
fn one_or_more<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    struct Texts;
    impl<'de> serde::de::Visitor<'de> for Texts {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "an address, or a list of at most {SERVERS_MAX}")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<String>, E> {
            Ok(vec![text.to_owned()])
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(
            self,
            mut list: A,
        ) -> Result<Vec<String>, A::Error> {
            let mut all = Vec::new();
            while let Some(one) = list.next_element()? {
                all.push(one);
                if all.len() > SERVERS_MAX {
                    return Err(serde::de::Error::invalid_length(all.len(), &self));
                }
            }
            Ok(all)
        }
    }
    from.deserialize_any(Texts)
}

fn slots() -> u32 {
    64
}

fn sandboxes() -> u32 {
    500
}

fn spares() -> u32 {
    4
}

fn driver() -> String {
    "linux".to_owned()
}

/// What stands for a value that is not shown.
const MASK: &str = "********";

#[expect(clippy::ref_option, reason = "serde gives a field as it is")]
fn masked<S: Serializer>(value: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(_) => serializer.serialize_some(MASK),
        None => serializer.serialize_none(),
    }
}

/// Only the password is not shown, where it can be found; the whole otherwise.
#[expect(clippy::ref_option, reason = "serde gives a field as it is")]
fn masked_database<S: Serializer>(
    value: &Option<String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(url) => serializer.serialize_some(&without_password(url)),
        None => serializer.serialize_none(),
    }
}

fn without_password(url: &str) -> String {
    let lower = url.to_ascii_lowercase();
    if let Some((before, after)) = url.split_once("://") {
        // Of a password with `@` in it, the last one ends it.
        let Some((who, place)) = after.rsplit_once('@') else {
            let hides = lower.contains("password");
            return if hides {
                MASK.to_owned()
            } else {
                url.to_owned()
            };
        };
        let user = who.split_once(':').map_or(who, |(user, _)| user);
        let shown = if who.contains(':') {
            format!("{user}:{MASK}")
        } else {
            user.to_owned()
        };
        if place.to_ascii_lowercase().contains("password") {
            return MASK.to_owned();
        }
        return format!("{before}://{shown}@{place}");
    }
    if lower.contains("password") {
        let words = url.split_whitespace();
        let plain = words.filter(|word| !word.to_ascii_lowercase().starts_with("password"));
        let shown: Vec<&str> = plain.collect();
        // Quotes and spaces may hide where it ends.
        if lower.contains('\'') {
            return MASK.to_owned();
        }
        return format!("{} password={MASK}", shown.join(" "));
    }
    url.to_owned()
}

/// Reads a file, with the variables of this process.
pub(crate) fn read(path: &Path) -> Result<Config, Failure> {
    let text = text(path).map_err(|error| {
        let message = format!("failed to read {}: {}", path.display(), reason(&error));
        use std::io::ErrorKind::{FileTooLarge, InvalidData};
        let code = if matches!(error.kind(), FileTooLarge | InvalidData) {
            Code::ConfigInvalid
        } else {
            Code::FileMissing
        };
        Failure::new(code, message)
    })?;
    let variable = |name: &str| std::env::var(name).ok();
    parse(&text, variable).map_err(|why| {
        let message = format!("{}: {why}", path.display());
        Failure::new(Code::ConfigInvalid, message)
    })
}

fn text(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    // One byte more, to see that there is more: what is cut off must not be left out in silence.
    let read = std::fs::File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    if read as u64 > FILE_BYTES_MAX {
        let why = format!("it has more than {FILE_BYTES_MAX} bytes");
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, why));
    }
    Ok(text)
}

/// Reads a text, or says where it is wrong and why. Pure.
fn parse(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Config, String> {
    let document = Document::parse(text).map_err(|error| error.to_string())?;
    known::check(text, document.as_table())?;
    let mut with_values = document.clone().into_mut();
    put_in(&mut with_values, &variable)?;
    let config = toml_edit::de::from_document::<Config>(with_values);
    config.map_err(|error| {
        // What has values put in has no places any more; the key is said, and found in what was written.
        let said = error.to_string();
        let key = said
            .lines()
            .last()
            .and_then(|line| line.strip_prefix("in `"));
        match key.and_then(|key| key.strip_suffix('`')) {
            Some(key) => known::at(text, document.as_table(), key, error.message()),
            None => error.message().to_owned(),
        }
    })
}

/// Puts variables in the place of their names, in texts and nowhere else.
fn put_in(
    document: &mut DocumentMut,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<(), String> {
    for (key, item) in document.as_table_mut().iter_mut() {
        in_item(key.get(), item, variable)?;
    }
    Ok(())
}

fn in_item(
    at: &str,
    item: &mut Item,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<(), String> {
    if let Some(table) = item.as_table_like_mut() {
        for (key, item) in table.iter_mut() {
            in_item(&format!("{at}.{}", key.get()), item, variable)?;
        }
    } else if let Some(tables) = item.as_array_of_tables_mut() {
        for table in tables.iter_mut() {
            for (key, item) in table.iter_mut() {
                in_item(&format!("{at}.{}", key.get()), item, variable)?;
            }
        }
    } else if let Some(value) = item.as_value_mut() {
        in_value(at, value, variable)?;
    }
    Ok(())
}

fn in_value(
    at: &str,
    value: &mut Value,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<(), String> {
    if let Some(array) = value.as_array_mut() {
        for (number, value) in array.iter_mut().enumerate() {
            in_value(&format!("{at}[{number}]"), value, variable)?;
        }
    } else if let Some(text) = value.as_str() {
        let put = substituted(text, variable).map_err(|why| format!("{at}: {why}"))?;
        if put != text {
            *value = put.into();
        }
    }
    Ok(())
}

/// `${NAME}` becomes the value of the variable, `$$` becomes `$`. What a value says is not looked at again.
fn substituted(text: &str, variable: &impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut done = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        done.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            done.push('$');
            rest = after;
        } else if let Some((name, after)) = after.strip_prefix('{').and_then(|a| a.split_once('}'))
        {
            let value = variable(name);
            done.push_str(&value.ok_or_else(|| format!("the variable {name} is not set"))?);
            rest = after;
        } else {
            return Err("a $ begins ${NAME}; write $$ for one that does not".to_owned());
        }
    }
    done.push_str(rest);
    Ok(done)
}

impl Config {
    /// The part for a server, if it may be started so.
    pub(crate) fn for_server(self, dev: bool) -> Result<Serving, Failure> {
        let mode = self.mode(dev)?;
        valid::rates(&self.rates)?;
        if self.rates.off && mode == Mode::Production {
            return Err(development("`off` of [rates]"));
        }
        let mut server = self.server.ok_or_else(|| missing("server"))?;
        server.rates = self.rates;
        let bypass = self.dev.map(|dev| check_bypass(&dev, &server, mode));
        valid::server(&server)?;
        if let Some(nodes) = &server.nodes {
            check_door(nodes, mode)?;
        }
        if let Some(url) = &server.database {
            check_database(url, mode)?;
        }
        server.lease()?;
        Ok(Serving {
            server,
            mode,
            issuers: issuers::read(&self.issuers)?,
            bypass: bypass.transpose()?,
        })
    }

    /// The part for a node, if it may be started so.
    pub(crate) fn for_node(self, dev: bool) -> Result<(Node, Mode), Failure> {
        let mode = self.mode(dev)?;
        let node = self.node.ok_or_else(|| missing("node"))?;
        let plain = node.server.iter().any(|url| url.starts_with("http://"));
        if mode == Mode::Production && (plain || node.token.is_some()) {
            return Err(development("plain HTTP and a token that nodes share"));
        }
        if mode == Mode::Development && !(plain && node.token.is_some()) {
            let message = "in development a node needs `server` with http:// and `token`";
            return Err(Failure::new(Code::ConfigInvalid, message));
        }
        if mode == Mode::Development && node.server.len() > 1 {
            let message = "in development a node has one server";
            return Err(Failure::new(Code::ConfigInvalid, message));
        }
        valid::node(&node)?;
        Ok((node, mode))
    }

    /// `--dev` says what the file must say too: an option that somebody leaves in a unit must not open a
    /// production.
    fn mode(&self, dev: bool) -> Result<Mode, Failure> {
        if dev && self.mode != Mode::Development {
            return Err(development("--dev"));
        }
        Ok(self.mode)
    }
}

impl Node {
    /// What it calls itself: its labels, and its tags as such.
    pub(crate) fn all_labels(&self) -> Labels {
        let tags = self.tags.iter().map(|tag| (tag.clone(), String::new()));
        self.labels.clone().into_iter().chain(tags).collect()
    }
}

impl Server {
    /// How long leases are.
    pub(crate) fn lease(&self) -> Result<Lease, Failure> {
        Lease::of_seconds(self.lease_seconds).ok_or_else(|| {
            let message = format!(
                "`lease_seconds` of [server] is {}; it is {} to {}",
                self.lease_seconds,
                lease::SECONDS_MIN,
                lease::SECONDS_MAX
            );
            Failure::new(Code::ConfigInvalid, message)
        })
    }
}

fn missing(part: &str) -> Failure {
    let message = format!("the configuration has no part [{part}]");
    Failure::new(Code::ConfigInvalid, message)
}

fn development(what: &str) -> Failure {
    let message =
        format!("failed to start: {what} is for mode = \"development\", and this is production");
    Failure::new(Code::DevelopmentOnly, message)
}

/// Whoever reaches the port comes in: so it is on a loopback address, and nobody means it to be a production.
fn check_bypass(dev: &Dev, server: &Server, mode: Mode) -> Result<server::Bypass, Failure> {
    if mode == Mode::Production {
        return Err(development("[dev], which lets in who shows nothing,"));
    }
    if !server
        .listen
        .is_some_and(|listen| listen.ip().is_loopback())
    {
        let why = "is for a server that listens on a loopback address: `listen` of [server]";
        return Err(valid::wrong("dev.principal", why));
    }
    let named = dev.principal.split_once(':').and_then(|(kind, name)| {
        let kind = model::principal::PrincipalKind::parse(kind)?;
        kind.named(name).ok()
    });
    let principal = named.ok_or_else(|| {
        let why = format!("is `{}` and not such as user:alice", dev.principal);
        valid::wrong("dev.principal", &why)
    })?;
    let tenant = model::id::TenantId::local();
    Ok(server::Bypass { tenant, principal })
}

fn check_door(nodes: &Nodes, mode: Mode) -> Result<(), Failure> {
    let invalid = |message: &str| Err(Failure::new(Code::ConfigInvalid, message.to_owned()));
    match mode {
        Mode::Production if nodes.token.is_some() => Err(development(
            "`token` of [server.nodes], which all nodes share,",
        )),
        Mode::Production if nodes.names.is_empty() => invalid(
            "`names` of [server.nodes] is missing: by which names or addresses nodes dial this server",
        ),
        Mode::Development if !nodes.listen.ip().is_loopback() => {
            invalid("in development the door of nodes is on a loopback address: it is in the clear")
        }
        Mode::Development => match &nodes.token {
            Some(token) if token.len() >= TOKEN_BYTES_MIN => Ok(()),
            _ => invalid("`token` of [server.nodes] has to have 16 characters in development"),
        },
        Mode::Production => Ok(()),
    }
}

/// Short ones are guessed by the other users of the machine.
const TOKEN_BYTES_MIN: usize = 16;

/// What leaves this machine is encrypted, and the other end checked.
fn check_database(url: &str, mode: Mode) -> Result<(), Failure> {
    let place = store::postgres_place(url).map_err(|error| {
        // Of an address that cannot be read, nothing is repeated: it may have a password.
        let message = if matches!(error, store::BadAddress::Unreadable(_)) {
            "`database` of [server] is no address of a PostgreSQL".to_owned()
        } else {
            let why = std::error::Error::source(&error).map(|why| format!(": {why}"));
            let why = why.unwrap_or_default();
            format!("`database` of [server]: failed to {}{why}", reason(&error))
        };
        Failure::new(Code::ConfigInvalid, message)
    })?;
    if mode == Mode::Production && !place.is_local && !place.is_encrypted {
        let message =
            "`database` of [server] is on another machine, and sslmode=disable says not to encrypt";
        let hint = "take sslmode=disable out: then TLS is spoken, and the name and the authority are checked";
        return Err(Failure::new(Code::ConfigInvalid, message).hint(hint));
    }
    Ok(())
}

#[cfg(test)]
mod tests;

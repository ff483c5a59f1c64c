//! The index of packages that a sandbox finds in its proxy: a simple index for Python's (PEP 503, PEP 691) and a
//! registry for JavaScript's, with nothing in them but what its rules let be installed.
//!
//! Nobody reads a command line. What is not on the list is not in the index, a file that is asked for past it is denied,
//! and the hosts that serve all others are closed by name (`model::dependency`). A page is read and written anew, so that
//! nothing of it reaches a program that was not understood here; a file is passed on as it is, and cut before its last
//! bytes where it is not the one whose digest the page had. Of the sandbox's request nothing is sent outside but a name
//! that is on the list.
//!
//! Reading order: this file, `ask`, `fetch`; then `listing` over `simple` and `registry`, and `check`.

mod ask;
mod check;
mod fetch;
mod html;
mod link;
mod listing;
mod registry;
mod simple;

pub(crate) use check::Check;
pub(crate) use listing::Known;

use crate::answer::{Body, PROXY_ERROR, text};
use crate::decide::Refusal;
use crate::inspect::Roots;
use crate::proxy::Way;
use crate::reason::Reason;
use crate::record::Recording;
use crate::target::Target;
use ask::Asked;
use bytes::Bytes;
use hyper::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use link::Link;
use listing::{File, Listing};
use model::dependency::{Dependencies, Ecosystem, INDEX_PORT, pip};
use model::host::Host;
use model::network::Denial;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

/// Pages of an index that are held in memory at one time on a node, 64 MiB each at most.
const PAGES_OF_NODE_MAX: usize = 6;

/// Those of one sandbox, so that one cannot hold up all others.
pub(crate) const PAGES_OF_SANDBOX_MAX: usize = 2;

/// Where an index gets its packages: the simple index or the registry of somebody, by its URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source(Link);

/// The text is no URL of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("read https://HOST[:PORT]/PATH, without a password, a query or a fragment")]
pub struct BadSource;

impl FromStr for Source {
    type Err = BadSource;

    fn from_str(text: &str) -> Result<Source, BadSource> {
        let is_plain = !text.contains(['?', '#', '@']);
        let link = Link::parse(text.trim_end_matches('/')).filter(|_| is_plain);
        link.map(Source).ok_or(BadSource)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Where a node gets packages from. By default from where everybody does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// A simple index.
    pub pip: Source,
    /// A registry.
    pub npm: Source,
}

impl Default for Sources {
    fn default() -> Sources {
        let known = |host: &str, path: &str| {
            let target = Target {
                host: Host::Name(host.to_owned()),
                port: 443,
            };
            Source(Link::new(true, target, path))
        };
        Sources {
            pip: known("pypi.org", "/simple"),
            npm: known("registry.npmjs.org", ""),
        }
    }
}

/// What fetches for the indexes of all sandboxes of a node.
pub struct Index {
    sources: Sources,
    roots: Box<dyn Fn() -> io::Result<Roots> + Send + Sync>,
    /// Made when it is first wanted: what a machine trusts takes some milliseconds to read.
    tls: OnceLock<TlsConnector>,
    pages: Semaphore,
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index")
            .field("sources", &self.sources)
            .finish_non_exhaustive()
    }
}

impl Index {
    /// One that gets packages from there, and believes the authorities that this reads.
    pub fn new(
        sources: Sources,
        roots: impl Fn() -> io::Result<Roots> + Send + Sync + 'static,
    ) -> Index {
        Index {
            sources,
            roots: Box::new(roots),
            tls: OnceLock::new(),
            pages: Semaphore::new(PAGES_OF_NODE_MAX),
        }
    }

    fn tls(&self) -> Result<&TlsConnector, Reason> {
        if let Some(made) = self.tls.get() {
            return Ok(made);
        }
        let failed = |error: &dyn fmt::Display| {
            tracing::error!(%error, "no packages can be fetched over TLS");
            Reason::Internal
        };
        let roots = (self.roots)().map_err(|error| failed(&error))?;
        let config = crate::inspect::client(&roots).map_err(|error| failed(&error))?;
        let made = TlsConnector::from(Arc::new(config));
        Ok(self.tls.get_or_init(|| made))
    }

    fn source(&self, ecosystem: Ecosystem) -> &Link {
        match ecosystem {
            Ecosystem::Pip => &self.sources.pip.0,
            Ecosystem::Npm => &self.sources.npm.0,
        }
    }

    /// The hosts that are closed to sandboxes because they serve everything.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = (Ecosystem, Host)> {
        let all = Ecosystem::ALL.into_iter();
        all.map(|one| (one, self.source(one).target.host.clone()))
    }
}

/// What programs of a sandbox find in their environment where packages are held to a list: each variable is the only one
/// for somebody.
pub fn environment(dependencies: &Dependencies) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut say = |name: &str, value: &str| all.push((name.to_owned(), value.to_owned()));
    for (ecosystem, _) in dependencies.lists() {
        let host = ecosystem.index();
        match ecosystem {
            Ecosystem::Pip => {
                let url = format!("http://{host}/simple/");
                for name in [
                    "PIP_INDEX_URL",
                    "UV_DEFAULT_INDEX",
                    "UV_INDEX_URL",
                    "PDM_PYPI_URL",
                ] {
                    say(name, &url);
                }
                // It is not spoken to over TLS, because nobody is between.
                say("PIP_TRUSTED_HOST", host);
                say("UV_INSECURE_HOST", host);
                say("PIP_DISABLE_PIP_VERSION_CHECK", "1");
            }
            Ecosystem::Npm => {
                let url = format!("http://{host}/");
                for name in [
                    "npm_config_registry",
                    "NPM_CONFIG_REGISTRY",
                    "YARN_NPM_REGISTRY_SERVER",
                ] {
                    say(name, &url);
                }
                say("YARN_UNSAFE_HTTP_WHITELIST", host);
                // What npm asks a registry beside packages is not served.
                for name in [
                    "npm_config_audit",
                    "npm_config_fund",
                    "npm_config_update_notifier",
                ] {
                    say(name, "false");
                }
            }
        }
    }
    all
}

/// What an answer is.
enum Served {
    /// A page of ours.
    Page(&'static str, Vec<u8>),
    /// A file from outside, with its length where that was said.
    File(Box<fetch::Answer>, Box<Check>),
}

/// Answers one request to the index of an ecosystem.
pub(crate) async fn answer(
    way: &Way,
    ecosystem: Ecosystem,
    head: &Parts,
    mut recording: Recording,
) -> Response<Body> {
    recording.asks(&Target {
        host: Host::Name(ecosystem.index().to_owned()),
        port: INDEX_PORT,
    });
    match serve(way, ecosystem, head, &mut recording).await {
        Ok(Served::Page(kind, page)) => {
            recording.allowed();
            let length = page.len();
            of_kind(Body::Own(Some(page.into())), kind, Some(length as u64))
        }
        Ok(Served::File(answer, check)) => {
            recording.allowed();
            let length = answer.length;
            let recording = Box::new(recording);
            let body = Body::Checked {
                body: answer.body,
                check,
                recording,
            };
            of_kind(body, "application/octet-stream", length)
        }
        Err(refusal) => {
            let refusal = recording.denied(refusal);
            refused(ecosystem, &refusal)
        }
    }
}

fn of_kind(body: Body, kind: &'static str, length: Option<u64>) -> Response<Body> {
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.extend(length.map(|length| (CONTENT_LENGTH, HeaderValue::from(length))));
    // What a program keeps would be served by it after the list has changed.
    let no_store = HeaderValue::from_static("no-store");
    headers.insert(HeaderName::from_static("cache-control"), no_store);
    answer
}

/// As everywhere; npm shows a person only what stands in JSON.
fn refused(ecosystem: Ecosystem, refusal: &Refusal) -> Response<Body> {
    let what = text(refusal, ecosystem.index());
    let (kind, what): (_, Bytes) = match ecosystem {
        Ecosystem::Pip => ("text/plain; charset=utf-8", what.into()),
        Ecosystem::Npm => {
            let told = serde_json::json!({ "error": what }).to_string();
            ("application/json", told.into())
        }
    };
    let mut answer = of_kind(Body::Own(Some(what)), kind, None);
    *answer.status_mut() = StatusCode::from_u16(refusal.reason.status()).unwrap_or_default();
    let code = HeaderValue::from_static(refusal.reason.code());
    answer.headers_mut().insert(PROXY_ERROR, code);
    answer
}

async fn serve(
    way: &Way,
    ecosystem: Ecosystem,
    head: &Parts,
    recording: &mut Recording,
) -> Result<Served, Refusal> {
    way.check_caps()?;
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return Err(Reason::NotInIndex.into());
    }
    let asked = ask::read(ecosystem, head.uri.path()).ok_or(Reason::NotInIndex)?;
    let rules = way.rules();
    let wants_json = wants_json(head);
    recording.by(format!("dependencies.{ecosystem}: {asked}"));
    let listed = |name: &str| {
        rules
            .dependencies
            .versions(ecosystem, name)
            .next()
            .is_some()
    };
    match asked {
        Asked::All => Ok(simple::all(&rules.dependencies, wants_json)),
        Asked::Page(name) | Asked::File { name, .. } if !listed(&name) => Err(denied(
            ecosystem,
            &format!("`{name}` is in no version in the list"),
        )),
        Asked::Page(name) => {
            let listing = listing::of(way, (ecosystem, &name), recording).await?;
            Ok(page(ecosystem, &listing, &rules.dependencies, wants_json))
        }
        Asked::File {
            name,
            version,
            file,
        } => {
            if !rules.dependencies.lets(ecosystem, &name, &version) {
                let shown = format!("`{name}=={version}` is not in the list");
                return Err(denied(ecosystem, &shown));
            }
            let listing = listing::of(way, (ecosystem, &name), recording).await?;
            let mut files = listing.files.iter();
            let is_meant = |one: &&File| one.version == version && one.name == file;
            let file = files.find(is_meant).ok_or(Reason::NotInIndex)?;
            fetch_file(way, ecosystem, (&name, file), recording).await
        }
    }
}

/// A no that names the clause, what was asked for, and what is to be written.
fn denied(ecosystem: Ecosystem, what: &str) -> Refusal {
    Refusal {
        reason: Reason::Rules(Denial::DependencyNotAllowed),
        rule: Some(format!("dependencies.{ecosystem}: {what}")),
    }
}

fn page(ecosystem: Ecosystem, listing: &Listing, all: &Dependencies, wants_json: bool) -> Served {
    let files = listing.files.iter();
    let files: Vec<&File> = files
        .filter(|file| all.lets(ecosystem, &listing.name, &file.version))
        .collect();
    match ecosystem {
        Ecosystem::Pip => simple::page(&listing.name, &files, wants_json),
        Ecosystem::Npm => registry::page(listing, &files),
    }
}

async fn fetch_file(
    way: &Way,
    ecosystem: Ecosystem,
    (name, file): (&str, &File),
    recording: &mut Recording,
) -> Result<Served, Refusal> {
    let of = (name.to_owned(), file.version.clone());
    let answer = fetch::get(
        way,
        ecosystem,
        (&file.link, fetch::FILE),
        Some(of),
        recording,
    )
    .await?;
    let check = Box::new(Check::new(&file.digest));
    Ok(Served::File(Box::new(answer), check))
}

/// PEP 691: by the kinds that are named, without weights, as every client that names it prefers it.
fn wants_json(head: &Parts) -> bool {
    let json = simple::JSON.as_bytes();
    let mut accepts = head.headers.get_all(ACCEPT).iter();
    accepts.any(|value| {
        value
            .as_bytes()
            .windows(json.len())
            .any(|part| part == json)
    })
}

/// A version of pip in the one form that lists have.
fn plain(version: &pip::Version) -> String {
    version.to_string()
}

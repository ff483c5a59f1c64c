//! Looking into the HTTPS of a job or a sandbox that has rules about requests, or secrets for what leaves: the authority that its
//! programs trust, and where they find it.
//!
//! The authority is on the node's disk as long as the record beside it, because programs inside go on to trust it
//! after the node has died. What is looked into with which values is not: it is asked for again.

use crate::Node;
use ::egress::index::{Index, Sources};
use ::egress::inspect::rule::SecretField;
use ::egress::inspect::{Authority, Inspector, Roots, roots};
use scrub::Known;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file of the authority, beside the record, and what it is called before it is whole.
const FILE: &str = "authority";
const NEW: &str = "authority.new";

/// Inside: the authority alone, and with it all that the node trusts. On tmpfs, which no copy takes along.
const OWN: &str = "/dev/shm/egress/ca.pem";
const ALL: &str = "/dev/shm/egress/trust.pem";

/// Whom the node trusts outside: what its machine does, and whom its operator named.
#[derive(Debug)]
pub(crate) struct Trusted {
    pem: String,
    roots: Roots,
}

impl Trusted {
    /// Read once, when the first sandbox wants it.
    fn of(node: &Node) -> io::Result<&Trusted> {
        if let Some(known) = node.inner.trusted.get() {
            return Ok(known);
        }
        let pem = trusted_pem(&node.inner.config.egress_trust)?;
        let roots = Roots::of_pem(&pem);
        Ok(node.inner.trusted.get_or_init(|| Trusted { pem, roots }))
    }
}

/// What the machine trusts and what its operator named, in PEM.
fn trusted_pem(named: &[PathBuf]) -> io::Result<String> {
    let mut pem = roots::system()?;
    for path in named {
        pem.push('\n');
        pem.push_str(&roots::file(path)?);
    }
    Ok(pem)
}

/// What fetches packages for the sandboxes of a node: it believes the same.
pub(crate) fn index(sources: Sources, named: Vec<PathBuf>) -> Index {
    Index::new(sources, move || Ok(Roots::of_pem(&trusted_pem(&named)?)))
}

/// What looks into the HTTPS of one sandbox, and what its programs have to trust.
#[derive(Debug)]
pub(crate) struct Looks {
    pub(crate) inspector: Inspector,
    /// Files for the inside, by their paths.
    pub(crate) files: Vec<(&'static str, String)>,
}

/// Sets it up for whoever has its record in this directory; with the authority that is there, if one is.
pub(crate) fn open(
    node: &Node,
    dir: &Path,
    secrets: Vec<SecretField>,
    known: Option<Arc<Known>>,
) -> Result<Looks, String> {
    let failed =
        |error: &dyn std::fmt::Display| format!("its https cannot be looked into: {error}");
    let authority = match kept(dir) {
        Some(authority) => authority,
        None => make(dir).map_err(|error| failed(&error))?,
    };
    let trusted = Trusted::of(node).map_err(|error| failed(&error))?;
    let own = authority.certificate().to_owned();
    let all = format!("{}\n{own}", trusted.pem);
    let inspector = Inspector::new(secrets, authority, &trusted.roots);
    Ok(Looks {
        inspector: inspector.map_err(|error| failed(&error))?.hiding(known),
        files: vec![(OWN, own), (ALL, all)],
    })
}

fn kept(dir: &Path) -> Option<Authority> {
    Authority::from_text(&std::fs::read_to_string(dir.join(FILE)).ok()?)
}

fn make(dir: &Path) -> Result<Authority, Box<dyn std::error::Error>> {
    let authority = Authority::make(crate::job::now_ms() / 1000)?;
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(dir.join(NEW))?;
    file.write_all(authority.to_text().as_bytes())?;
    std::fs::rename(dir.join(NEW), dir.join(FILE))?;
    Ok(authority)
}

/// What programs find in their environment: each variable is the only one for somebody.
pub(crate) fn environment() -> impl Iterator<Item = (String, String)> {
    let all = [
        "SSL_CERT_FILE",
        "CURL_CA_BUNDLE",
        "REQUESTS_CA_BUNDLE",
        "PIP_CERT",
        "GIT_SSL_CAINFO",
        "CARGO_HTTP_CAINFO",
        "AWS_CA_BUNDLE",
    ];
    // These are added to what the program trusts by itself.
    let own = ["NODE_EXTRA_CA_CERTS", "DENO_CERT"];
    let all = all.map(|name| (name.to_owned(), ALL.to_owned()));
    let own = own.map(|name| (name.to_owned(), OWN.to_owned()));
    all.into_iter().chain(own)
}

//! The TCP port of `up`: where it is, by which names, and what it shows to those who want TLS.

use crate::authority::{Authority, SIGNED_FRESH_S, Signed};
use crate::cli::args::Up;
use crate::cli::failure::{Failure, reason};
use crate::cli::table;
use crate::private::{failed, write_private};
use crate::state::State;
use api::Code;
use api::client::Token;
use server::{Bypass, Domain, Door, Tls};
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpListener;

/// Below which sandboxes have names when nobody says. Clients refuse a certificate for `*.localhost`.
const DOMAIN: &str = "sbx.localhost";
/// How often it is looked whether another certificate is to be shown. Those who renew one do so weeks
/// before its end.
const LOOK: Duration = Duration::from_secs(3600);
/// A chain of certificates has some 10 KiB.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// Where to find the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) listen: SocketAddr,
    /// With TLS, by which domain.
    pub(crate) named: Option<Named>,
}

/// How clients find the port by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// The domain, with the port that clients have to write.
    pub(crate) domain: String,
    /// Below the state directory there is what they have to trust.
    pub(crate) is_self_made: bool,
}

/// Where a certificate comes from.
#[derive(Debug, Clone)]
enum Source {
    /// Our own authority, kept in this directory.
    Own(PathBuf),
    /// The files of a chain and of its key.
    Files(PathBuf, PathBuf),
}

/// Listens as it was asked, and begins to renew what is shown.
pub(crate) async fn door(
    state: &State,
    up: &Up,
    bypass: Option<Bypass>,
) -> Result<Option<Door>, Failure> {
    // What is left of another server must not be taken for ours.
    drop(std::fs::remove_file(state.address()));
    if up.no_listen {
        return Ok(None);
    }
    if !up.listen.ip().is_loopback() && up.tls.is_none() {
        let message = format!(
            "failed to listen on {}: without TLS only loopback addresses are served",
            up.listen
        );
        let hint = "use --tls and --domain; or 127.0.0.1:PORT, to which `ssh -L 7300:127.0.0.1:7300 HOST` \
                    leads from another machine";
        return Err(Failure::new(Code::InvalidArgument, message).hint(hint));
    }
    let domain = domain(up)?;
    let (source, tls) = match (&up.tls, &domain) {
        (Some(asked), Some(domain)) => {
            let source = source(asked, state, domain)?;
            let tls = show(&source, domain)?;
            (Some(source), Some(tls))
        }
        _ => (None, None),
    };
    let token = Token::new(state.token()?);
    let listener = TcpListener::bind(up.listen).await.map_err(|error| {
        let text = format!("failed to listen on {}: {}", up.listen, reason(&error));
        let failure = Failure::new(Code::InvalidArgument, text);
        failure.hint("name another port with --listen, or none with --no-listen")
    })?;
    let listen = listener.local_addr().unwrap_or(up.listen);
    let named = domain.as_ref().zip(source.as_ref());
    let named = named.map(|(domain, source)| Named {
        domain: written(domain, listen.port()),
        is_self_made: matches!(source, Source::Own(_)),
    });
    let address = Address { listen, named };
    write_private(&state.address(), &address.to_string())?;
    announce(state, &address);
    if let (Some(source), Some(domain), Some(tls)) = (source, domain.clone(), tls.clone()) {
        drop(tokio::spawn(renew(source, domain, tls)));
    }
    Ok(Some(Door::Tcp {
        listener,
        token,
        domain,
        tls,
        bypass,
    }))
}

fn announce(state: &State, address: &Address) {
    let token = state.dir().join("token");
    let url = match &address.named {
        Some(named) => format!("https://api.{}, that is {},", named.domain, address.listen),
        None => format!("http://{}", address.listen),
    };
    table::note(&format!(
        "and on {url} with the token in {}",
        token.display()
    ));
}

fn domain(up: &Up) -> Result<Option<Domain>, Failure> {
    let text = match (&up.domain, up.tls.as_deref()) {
        (Some(text), _) => text,
        (None, None) => return Ok(None),
        (None, Some("self")) => DOMAIN,
        (None, Some(_)) => {
            let message = "failed to serve a certificate of yours: its domain is not known";
            let hint = "name it with --domain: the certificate has to be for all names below it";
            return Err(Failure::new(Code::InvalidArgument, message).hint(hint));
        }
    };
    let bad = |error| Failure::new(Code::InvalidArgument, format!("failed to {error}"));
    text.parse().map(Some).map_err(bad)
}

/// The domain as clients write it: behind another port than 443 they must say so.
fn written(domain: &Domain, listen: u16) -> String {
    match domain.port().unwrap_or(listen) {
        443 => domain.name().to_owned(),
        port => format!("{}:{port}", domain.name()),
    }
}

/// `self`, or `CERT.pem,KEY.pem`.
fn source(asked: &str, state: &State, domain: &Domain) -> Result<Source, Failure> {
    if asked == "self" {
        return Ok(Source::Own(state.tls(domain.name())));
    }
    let Some((chain, key)) = asked.split_once(',') else {
        let message = format!("failed to take `{asked}` for a certificate");
        let hint =
            "say `self` for a self-made one, or name the files of your own as CERT.pem,KEY.pem";
        return Err(Failure::new(Code::InvalidArgument, message).hint(hint));
    };
    Ok(Source::Files(chain.into(), key.into()))
}

fn now_s() -> u64 {
    service::Clock::system().now_ms() / 1000
}

impl Source {
    fn read(&self, domain: &Domain) -> Result<Signed, Failure> {
        match self {
            Self::Own(dir) => Authority::open(dir, domain, now_s())?.sign(now_s()),
            Self::Files(chain, key) => Ok(Signed {
                chain: pem(chain)?,
                key: pem(key)?,
            }),
        }
    }
}

fn pem(path: &Path) -> Result<String, Failure> {
    let read = || {
        let mut text = String::new();
        let file = std::fs::File::open(path)?;
        file.take(PEM_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    };
    read().map_err(|error| match failed("read", path, &error).body() {
        Some(body) => Failure::new(Code::InvalidArgument, body.message.clone()),
        None => Failure::ours("read a certificate", &error),
    })
}

fn show(source: &Source, domain: &Domain) -> Result<Tls, Failure> {
    let signed = source.read(domain)?;
    let shown = Tls::new(domain, signed.chain.as_bytes(), signed.key.as_bytes());
    shown.map_err(|error| {
        let message = format!("failed to {error}");
        let hint = "--tls takes a chain and its key in PEM, the certificate of the domain first";
        Failure::new(Code::InvalidArgument, message).hint(hint)
    })
}

/// Shows a new certificate before the old one ends. One that cannot be read or used is told, and the one
/// before is shown on: whoever renews writes two files, one after the other.
async fn renew(source: Source, domain: Domain, tls: Tls) {
    let mut shown_at_s = now_s();
    let mut shown = String::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let is_fresh = now_s().saturating_sub(shown_at_s) < SIGNED_FRESH_S;
        if is_fresh && matches!(source, Source::Own(_)) {
            continue;
        }
        let signed = match source.read(&domain) {
            Ok(signed) if signed.chain == shown => continue,
            Ok(signed) => signed,
            Err(failure) => {
                tracing::error!(%failure, "failed to renew the certificate");
                continue;
            }
        };
        match tls.replace(signed.chain.as_bytes(), signed.key.as_bytes()) {
            Ok(()) => {
                (shown, shown_at_s) = (signed.chain, now_s());
                tracing::debug!("a new certificate is shown");
            }
            Err(error) => tracing::error!(%error, "failed to show a new certificate"),
        }
    }
}

impl std::fmt::Display for Address {
    /// As it stands in the state directory: an address; then, with TLS, whose certificate, and the domain.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.listen)?;
        let Some(named) = &self.named else {
            return Ok(());
        };
        let whose = if named.is_self_made { "self" } else { "given" };
        writeln!(f, "tls {whose} {}", named.domain)
    }
}

impl Address {
    /// Reads what [`Address`] writes.
    pub(crate) fn parse(text: &str) -> Option<Address> {
        let mut lines = text.lines();
        let listen = lines.next()?.parse().ok()?;
        let named = match lines.next() {
            None => None,
            Some(line) => {
                let (whose, domain) = line.strip_prefix("tls ")?.split_once(' ')?;
                domain.parse::<Domain>().ok()?;
                Some(Named {
                    domain: domain.to_owned(),
                    is_self_made: whose == "self",
                })
            }
        };
        Some(Address { listen, named })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_the_state_directory_can_be_read_again() {
        for text in [
            "127.0.0.1:7300\n",
            "127.0.0.1:7300\ntls self sbx.localhost:7300\n",
            "[::]:443\ntls given sbx.example\n",
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
        for bad in ["", "x", "127.0.0.1:1\nx", "127.0.0.1:1\ntls self $(x)"] {
            assert_eq!(Address::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn clients_write_the_port_that_was_named_or_the_one_that_is_listened_on() {
        let check = |domain: &str, expect| {
            assert_eq!(written(&domain.parse().unwrap(), 7300), expect);
        };
        check("sbx.localhost", "sbx.localhost:7300");
        check("sbx.example:8443", "sbx.example:8443");
        check("sbx.example:443", "sbx.example");
    }
}

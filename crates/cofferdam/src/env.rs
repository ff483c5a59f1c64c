//! `cofferdam env`: what the clients of another system must have in their environment to use this server.

use crate::authority;
use crate::cli::args::Place;
use crate::cli::failure::Failure;
use crate::cli::table;
use crate::reach;
use crate::state::State;
use crate::tcp::Address;
use api::Code;
use api::client::Endpoint;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Where the server is, as its clients must know it.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    way: Way,
    token: String,
}

/// How its clients find it.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// Everything at one address in the clear; headers say which sandbox is meant.
    Plain { authority: String },
    /// By names below a domain, through TLS.
    Named {
        domain: String,
        /// The directory with what has to be trusted, where the certificate is self-made.
        trust: Option<PathBuf>,
    },
}

/// Prints the variables of E2B's clients as lines for a shell.
pub(crate) async fn e2b(place: &Place) -> Result<ExitCode, Failure> {
    let found = server(place).await?;
    if service::is_jwt_text(&found.token) {
        let message = "a login has no form that E2B's clients take";
        let failure = Failure::new(Code::InvalidArgument, message);
        return Err(
            failure.hint("make a key with `cofferdam key create`, and name it with --token")
        );
    }
    table::print(&lines(&found.way, &server::e2b_api_key(&found.token))?)?;
    Ok(ExitCode::SUCCESS)
}

/// Neither an authority, nor a domain, nor a key has a character that means something to a shell.
fn lines(way: &Way, key: &str) -> Result<String, Failure> {
    let mut text = match way {
        Way::Plain { authority } => format!(
            "export E2B_API_URL=http://{authority}\n\
             export E2B_SANDBOX_URL=http://{authority}\n\
             export E2B_VOLUME_API_URL=http://{authority}\n"
        ),
        // The sandboxes' addresses are made from the domain, unless another is named.
        Way::Named { domain, .. } => format!(
            "unset E2B_SANDBOX_URL\n\
             export E2B_DOMAIN={domain}\n\
             export E2B_API_URL=https://api.{domain}\n\
             export E2B_VOLUME_API_URL=https://api.{domain}\n"
        ),
    };
    if let Way::Named {
        trust: Some(dir), ..
    } = way
    {
        let all = quoted(&authority::trust_file(dir))?;
        let own = quoted(&authority::certificate_file(dir))?;
        let lines = [
            format!("export SSL_CERT_FILE={all}\n"),
            format!("export NODE_EXTRA_CA_CERTS={own}\n"),
        ];
        text.extend(lines);
    }
    text.extend(["export E2B_API_KEY=", key, "\n"]);
    Ok(text)
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> Result<String, Failure> {
    let odd = || {
        let message =
            "the path of the state directory is not text, and a shell could not be told it";
        Failure::new(Code::StateUnusable, message).hint("name another with --state")
    };
    let text = path.to_str().ok_or_else(odd)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:@%+,".contains(&byte);
    if text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Ok(format!("'{}'", text.replace('\'', "'\\''")))
}

/// Where the server listens on TCP, and its token.
async fn server(place: &Place) -> Result<Found, Failure> {
    if let Some(url) = &place.url {
        return match reach::endpoint(url, place).await? {
            Endpoint::Tcp { authority, token } => Ok(Found {
                way: Way::Plain { authority },
                token: token.text().to_owned(),
            }),
            Endpoint::Dialed {
                authority,
                token: Some(token),
                ..
            } => Ok(Found {
                way: named(&authority)?,
                token: token.text().to_owned(),
            }),
            Endpoint::Unix(_) | Endpoint::Memory(_) | Endpoint::Dialed { .. } => Err(no_tcp()),
        };
    }
    let missing = || {
        let failure = Failure::new(Code::ServerUnreachable, "there is no server to use");
        failure.hint("start one with `cofferdam up`")
    };
    if reach::running(place).await?.is_none() {
        // What has the state of a fleet is started in another way.
        crate::compose::own_state(place)?;
        return Err(missing());
    }
    let state = State::of(place)?;
    let address = state.known_address().ok_or_else(no_tcp)?;
    let token = state.known_token().ok_or_else(no_tcp)?;
    let way = way(&state, address);
    Ok(Found { way, token })
}

fn way(state: &State, address: Address) -> Way {
    match address.named {
        None => Way::Plain {
            authority: address.listen.to_string(),
        },
        Some(named) => {
            let name = named.domain.split(':').next().unwrap_or_default();
            let trust = named.is_self_made.then(|| state.tls(name));
            Way::Named {
                domain: named.domain,
                trust,
            }
        }
    }
}

/// A server at `https://api.DOMAIN`, as it prints its own address.
fn named(authority: &str) -> Result<Way, Failure> {
    let domain = authority.strip_prefix("api.").ok_or_else(|| {
        let message =
            "E2B's clients find a server with TLS by its domain, and this URL does not say it";
        let failure = Failure::new(Code::InvalidArgument, message);
        failure.hint("name the server as https://api.DOMAIN, as it prints it at its start")
    })?;
    Ok(Way::Named {
        domain: domain.to_owned(),
        trust: None,
    })
}

fn no_tcp() -> Failure {
    let message = "the server has no TCP port, and E2B's clients speak nothing else";
    Failure::new(Code::ServerUnreachable, message).hint("start `cofferdam up` without --no-listen")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_can_read_the_lines() {
        let authority = "127.0.0.1:7300".to_owned();
        assert_eq!(
            lines(&Way::Plain { authority }, "e2b_00").unwrap(),
            "export E2B_API_URL=http://127.0.0.1:7300\n\
             export E2B_SANDBOX_URL=http://127.0.0.1:7300\n\
             export E2B_VOLUME_API_URL=http://127.0.0.1:7300\n\
             export E2B_API_KEY=e2b_00\n"
        );
    }

    #[test]
    fn with_tls_clients_are_told_the_domain_and_whom_to_trust() {
        let state = State::at(Path::new("/home/o'neil/x y"));
        let address = "127.0.0.1:7300\ntls self sbx.localhost:7300\n";
        let found = way(&state, Address::parse(address).unwrap());
        let dir = "'/home/o'\\''neil/x y/tls/sbx.localhost";
        assert_eq!(
            lines(&found, "e2b_00").unwrap(),
            format!(
                "unset E2B_SANDBOX_URL\n\
                 export E2B_DOMAIN=sbx.localhost:7300\n\
                 export E2B_API_URL=https://api.sbx.localhost:7300\n\
                 export E2B_VOLUME_API_URL=https://api.sbx.localhost:7300\n\
                 export SSL_CERT_FILE={dir}/trust.pem'\n\
                 export NODE_EXTRA_CA_CERTS={dir}/ca.pem'\n\
                 export E2B_API_KEY=e2b_00\n"
            )
        );
        let address = "[::]:443\ntls given sbx.example\n";
        let found = way(&state, Address::parse(address).unwrap());
        assert!(!lines(&found, "e2b_00").unwrap().contains("CERT"));
    }

    #[tokio::test]
    async fn a_server_that_is_named_needs_no_state() {
        let place = |url: &str, token: &str| Place {
            url: Some(url.to_owned()),
            token: Some(token.to_owned()),
            ..Place::default()
        };
        let found = server(&place("http://host:7300", "theirs")).await.unwrap();
        let authority = "host:7300".to_owned();
        assert_eq!(
            (found.way, found.token.as_str()),
            (Way::Plain { authority }, "theirs")
        );
        let refused = server(&place("unix:/s", "theirs")).await.unwrap_err();
        assert!(refused.to_string().contains("TCP"), "{refused}");
    }

    #[tokio::test]
    async fn without_a_server_there_is_nothing_to_print() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place {
            state: Some(dir.path().join("none")),
            ..Place::default()
        };
        let refused = server(&place).await.unwrap_err();
        assert!(refused.to_string().contains("no server"), "{refused}");
    }
}

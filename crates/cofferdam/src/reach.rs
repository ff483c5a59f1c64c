//! Finding the server that runs, and what it may be told about us.

use crate::cli::args::Place;
use crate::cli::failure::Failure;
use crate::logins;
use crate::state::State;
use crate::web::Dialer;
use api::Code;
use api::client::{BadUrl, Client, Endpoint, Token};
use std::net::IpAddr;

/// The server that `--url` names, or whose socket is in the state directory.
pub(crate) async fn running(place: &Place) -> Result<Option<Client>, Failure> {
    if let Some(url) = &place.url {
        return Ok(Some(Client::new(endpoint(url, place).await?)));
    }
    // Also where nobody listens: what is done here without a server is done as the owner, too.
    if place.token.is_some() {
        return Err(token_unused());
    }
    let state = State::of(place)?;
    // A socket in a directory that others may write to could be anybody's.
    if !state.is_there()? {
        return Ok(None);
    }
    let socket = state.socket();
    // A socket that nobody listens on is what a server leaves that was killed.
    match tokio::net::UnixStream::connect(&socket).await {
        Ok(_) => Ok(Some(Client::new(Endpoint::Unix(socket)))),
        Err(_) => Ok(None),
    }
}

/// Whether anybody but the owner can come to the server that [`running`] has found: one that is named may be
/// anywhere, and one with a socket alone knows nobody else. What it has written of its address counts only while it
/// runs.
pub(crate) fn others_come(place: &Place) -> bool {
    let is_listening = |state: State| state.known_address().is_some();
    place.url.is_some() || State::of(place).is_ok_and(is_listening)
}

/// The server that a URL names, with the token that it may see: the one that was named, or that of a login there.
pub(crate) async fn endpoint(url: &str, place: &Place) -> Result<Endpoint, Failure> {
    if url.starts_with("unix:") && place.token.is_some() {
        return Err(token_unused());
    }
    // The token in the state directory is for the server of this machine. A server elsewhere must not
    // see it: it would be a key to this machine.
    let ours = || State::of(place).ok()?.known_token();
    let ours = || is_on_this_machine(url).then(ours).flatten();
    let token = match &place.token {
        Some(token) => Some(token.clone()),
        None if url.starts_with("unix:") => None,
        None => logins::token(url).await?.or_else(ours),
    };
    with(url, place, token)
}

/// Whoever shows somebody's key means to act as them. Where it would go unseen, they would act as the owner: in another
/// tenant, and with every right.
fn token_unused() -> Failure {
    let message = "failed to use the token: a server takes one over TCP alone, and by its socket it knows only its \
                   owner";
    Failure::new(Code::InvalidArgument, message).hint(
        "name the server by its address as well, which it says at its start, such as \
         COFFERDAM_URL=http://127.0.0.1:7300; or unset COFFERDAM_TOKEN",
    )
}

/// The same with this token.
pub(crate) fn with_token(url: &str, place: &Place, token: &str) -> Result<Endpoint, Failure> {
    with(url, place, Some(token.to_owned()))
}

fn with(url: &str, place: &Place, token: Option<String>) -> Result<Endpoint, Failure> {
    if token
        .as_deref()
        .is_some_and(|token| !token.bytes().all(|b| b.is_ascii_graphic()))
    {
        let message = "failed to use the token: it has characters that no token has";
        let failure = Failure::new(Code::InvalidArgument, message);
        return Err(failure.hint("look at --token and COFFERDAM_TOKEN"));
    }
    if url.starts_with("https://") {
        return secured(url, place, token);
    }
    Endpoint::parse(url, token.map(Token::new)).map_err(|error| {
        let failure = Failure::new(Code::InvalidArgument, format!("failed to {error}"));
        failure.hint(match error {
            BadUrl::Scheme(_) | BadUrl::Authority(_) => {
                "use https://HOST[:PORT], http://HOST:PORT or unix:/PATH in --url and COFFERDAM_URL"
            }
            BadUrl::TokenMissing(_) => TOKEN_MISSING,
        })
    })
}

const TOKEN_MISSING: &str = "name the token of that server with COFFERDAM_TOKEN or --token, or log in with `cofferdam \
login`; the one in the state directory is only for a server on this machine";

/// A server that shows a certificate which this machine trusts, or which `--ca` names.
fn secured(url: &str, place: &Place, token: Option<String>) -> Result<Endpoint, Failure> {
    let refused = |why: &str| {
        let message = format!("failed to use `{url}`: {why}");
        Failure::new(Code::InvalidArgument, message)
    };
    let token = token.ok_or_else(|| refused("there is no token for it").hint(TOKEN_MISSING))?;
    let dialer = Dialer::to(url, place.ca.as_deref());
    let (authority, dialer) = dialer.map_err(|why| {
        refused(&why).hint("use https://HOST[:PORT]; --ca names a file of certificates to trust")
    })?;
    let token = Some(Token::new(token));
    Ok(Endpoint::Dialed {
        authority,
        dialer,
        token,
    })
}

fn is_on_this_machine(url: &str) -> bool {
    let plain = url.strip_prefix("http://");
    let authority = plain.or_else(|| url.strip_prefix("https://"));
    let authority = authority.unwrap_or_default().trim_end_matches('/');
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |address: IpAddr| address.is_loopback();
    host == "localhost" || address.parse().is_ok_and(is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_token_of_this_machine_is_sent_to_this_machine_only() {
        let here = [
            "http://127.0.0.1:7300",
            "http://127.9.9.9:1",
            "http://localhost:7300",
            "http://[::1]:7300",
        ];
        assert!(here.into_iter().all(is_on_this_machine));
        let elsewhere = [
            "http://host:7300",
            "http://10.0.0.1:7300",
            "http://localhost.evil.example:7300",
            "http://127.0.0.1.evil.example:7300",
            "http://127.0.0.1@evil.example:7300",
            "http://[2001:db8::1]:7300",
            "ftp://localhost:7300",
        ];
        assert!(!elsewhere.into_iter().any(is_on_this_machine));
    }

    #[tokio::test]
    async fn a_url_elsewhere_needs_a_token_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path());
        let ours = state.token().unwrap();
        let place = |url: &str, token: Option<&str>| Place {
            state: Some(dir.path().to_owned()),
            url: Some(url.to_owned()),
            token: token.map(str::to_owned),
            ..Place::default()
        };
        let sent =
            async |url: &str, token: Option<&str>| match endpoint(url, &place(url, token)).await {
                Ok(Endpoint::Tcp { token, .. }) => Ok(token.text().to_owned()),
                Ok(_) => Ok(String::new()),
                Err(failure) => Err(failure.to_string()),
            };
        assert_eq!(sent("http://127.0.0.1:7300", None).await, Ok(ours));
        assert_eq!(
            sent("http://host:7300", Some("theirs")).await,
            Ok("theirs".to_owned())
        );
        let refused = sent("https://host", None).await.unwrap_err();
        assert!(refused.contains("cofferdam login"), "{refused}");
        let refused = sent("http://host:7300", None).await.unwrap_err();
        assert!(refused.contains("COFFERDAM_TOKEN"), "{refused}");
        let wrong = sent("ftp://x", None).await.unwrap_err();
        assert!(wrong.starts_with("failed to use `ftp://x`"), "{wrong}");
        assert!(sent("http://host:1", Some("a\nb")).await.is_err());
    }

    #[test]
    fn others_come_to_a_server_that_is_named_or_says_where_it_listens() {
        let dir = tempfile::tempdir().unwrap();
        let place = |url: Option<&str>| Place {
            state: Some(dir.path().to_owned()),
            url: url.map(str::to_owned),
            ..Place::default()
        };
        assert!(!others_come(&place(None)));
        assert!(others_come(&place(Some("http://127.0.0.1:7300"))));
        std::fs::write(State::at(dir.path()).address(), "127.0.0.1:7300\n").unwrap();
        assert!(others_come(&place(None)));
    }

    #[tokio::test]
    async fn a_token_that_a_socket_would_not_be_shown_is_refused_and_nobody_acts_as_the_owner() {
        let dir = tempfile::tempdir().unwrap();
        let own = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(dir.path(), own).unwrap();
        let place = |url: Option<&str>, token: Option<&str>| Place {
            state: Some(dir.path().to_owned()),
            url: url.map(str::to_owned),
            token: token.map(str::to_owned),
            ..Place::default()
        };
        // Without a server, a command would act as the owner in its own process.
        for listens in [false, true] {
            let socket = State::at(dir.path()).socket();
            let _listener = listens.then(|| tokio::net::UnixListener::bind(&socket).unwrap());
            for url in [None, Some("unix:/s")] {
                let refused = running(&place(url, Some("theirs"))).await.unwrap_err();
                assert!(refused.is(Code::InvalidArgument), "{url:?}: {refused}");
                let body = refused.body().unwrap();
                assert!(body.hint.contains("COFFERDAM_URL"), "{}", body.hint);
            }
            let found = running(&place(None, None)).await.unwrap();
            assert_eq!(found.is_some(), listens);
        }
    }
}

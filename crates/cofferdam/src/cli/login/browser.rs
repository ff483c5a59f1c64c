//! A login in a browser on this machine: the code flow with PKCE (RFC 7636), whose answer comes to a loopback address that
//! is open for it alone (RFC 8252).
//!
//! The other users of the machine can reach that address. What they send has no `state` that is right; a code that
//! they get hold of is worth nothing without the verifier, which never leaves this process but to the provider.

use super::Provider;
use crate::cli::failure::Failure;
use crate::cli::table;
use crate::logins::{ANSWER_MAX, Tokens, failed};
use crate::private::random_name;
use crate::web::{Ask, post};
use api::people::LoginProvider;
use api::routes::query;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// How long a person may take.
const WAIT: Duration = Duration::from_secs(600);
/// How long a connection may take to say what it wants: whoever says nothing keeps the browser out for so long.
const HEAD: Duration = Duration::from_secs(2);
/// The longest head that is read; browsers send some KiB.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const PATH: &str = "/callback";

/// What a browser has brought.
#[derive(Debug, PartialEq, Eq)]
enum Brought {
    /// A code for us.
    Code(String),
    /// The provider's no.
    No(String),
    /// Something else, which is not for us.
    Nothing,
}

/// Lets a person log in, and gets the tokens.
pub(super) async fn login(
    provider: &Provider,
    named: &LoginProvider,
    ca: Option<&Path>,
) -> Result<Tokens, Failure> {
    let endpoint = provider.authorization_endpoint.as_deref();
    let endpoint = endpoint.ok_or_else(|| failed("the provider has no logins in a browser"))?;
    let failed_to_listen = |error: std::io::Error| Failure::ours("listen for the browser", &error);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await;
    let listener = listener.map_err(failed_to_listen)?;
    let port = listener.local_addr().map_err(failed_to_listen)?.port();
    let redirect = format!("http://127.0.0.1:{port}{PATH}");
    let (state, verifier) = (random_name::<16>()?, random_name::<32>()?);
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&verifier));
    let asked = query(&[
        ("response_type", Some("code".to_owned())),
        ("client_id", Some(named.client_id.clone())),
        ("redirect_uri", Some(redirect.clone())),
        ("scope", Some(named.scopes.join(" "))),
        ("state", Some(state.clone())),
        ("code_challenge", Some(challenge)),
        ("code_challenge_method", Some("S256".to_owned())),
    ]);
    // An address may have a query of its own.
    let asked = match endpoint.contains('?') {
        true => asked.replacen('?', "&", 1),
        false => asked,
    };
    table::note(&format!("open {endpoint}{asked}"));
    let heard = tokio::time::timeout(WAIT, code(&listener, &state, &named.issuer)).await;
    let code = heard.unwrap_or_else(|_| Err(failed("nobody has come back from the browser")))?;
    let form = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", redirect.as_str()),
        ("client_id", named.client_id.as_str()),
        ("code_verifier", verifier.as_str()),
    ];
    let most = ANSWER_MAX;
    let answer = post(&provider.token_endpoint, &form, Ask { ca, most }).await;
    let answer = answer.map_err(|why| failed(&format!("the provider: {why}")))?;
    let tokens = Tokens::read(&answer)?;
    match &tokens.error {
        None if answer.status == 200 => Ok(tokens),
        _ => Err(failed("the provider does not take its own code")),
    }
}

/// Waits for the browser, and for nobody else.
async fn code(listener: &TcpListener, state: &str, issuer: &str) -> Result<String, Failure> {
    loop {
        let accepted = listener.accept().await;
        let (mut stream, _) =
            accepted.map_err(|error| Failure::ours("listen for the browser", &error))?;
        let line = tokio::time::timeout(HEAD, first_line(&mut stream)).await;
        let brought = match line {
            Ok(Some(line)) => read(&line, state, issuer),
            Ok(None) | Err(_) => Brought::Nothing,
        };
        let (status, text) = match &brought {
            Brought::Code(_) => ("200 OK", "You are logged in. This window can be closed."),
            Brought::No(_) => ("200 OK", "The provider said no. This window can be closed."),
            Brought::Nothing => ("404 Not Found", "There is nothing here."),
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\
             cache-control: no-store\r\nreferrer-policy: no-referrer\r\nconnection: close\r\n\r\n{text}",
            text.len()
        );
        // The browser may have gone away: what it has brought counts all the same.
        drop(tokio::time::timeout(HEAD, stream.write_all(answer.as_bytes())).await);
        match brought {
            Brought::Code(code) => return Ok(code),
            Brought::No(why) => return Err(failed(&format!("the provider says `{why}`"))),
            Brought::Nothing => {}
        }
    }
}

/// The first line of a head that is whole.
async fn first_line(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read(&mut piece).await.ok()?;
        head.extend_from_slice(piece.get(..read)?);
        if read == 0 || head.len() > HEAD_BYTES_MAX {
            return None;
        }
    }
    let line = head.split(|byte| *byte == b'\r').next()?;
    String::from_utf8(line.to_vec()).ok()
}

/// What a request brings. One without the `state` of this login is somebody else's, and one with the name of another
/// issuer (RFC 9207) is for another login.
fn read(line: &str, state: &str, issuer: &str) -> Brought {
    let target = line
        .strip_prefix("GET ")
        .and_then(|rest| rest.split(' ').next());
    let asked = target.and_then(|target| target.strip_prefix(PATH)?.strip_prefix('?'));
    let Some(asked) = asked else {
        return Brought::Nothing;
    };
    let pairs: Option<Vec<(&str, String)>> = asked
        .split('&')
        .map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((name, decoded(value)?))
        })
        .collect();
    let pairs = pairs.unwrap_or_default();
    let one = |name: &str| {
        let mut all = pairs.iter().filter(|(key, _)| *key == name);
        all.next()
            .filter(|_| all.next().is_none())
            .map(|(_, value)| value.as_str())
    };
    if one("state") != Some(state) || one("iss").is_some_and(|iss| iss != issuer) {
        return Brought::Nothing;
    }
    match (one("code"), one("error")) {
        (Some(code), None) if !code.is_empty() => Brought::Code(code.to_owned()),
        (None, Some(error)) => Brought::No(error.chars().take(64).collect()),
        _ => Brought::Nothing,
    }
}

/// A value of a query.
fn decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                u8::from_str_radix(digits, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_the_state_of_this_login_is_for_it() {
        let read = |target: &str| {
            read(
                &format!("GET {target} HTTP/1.1"),
                "s1",
                "https://id.example",
            )
        };
        let code = |text: &str| Brought::Code(text.to_owned());
        assert_eq!(read("/callback?code=a%2Fb+c&state=s1"), code("a/b c"));
        let iss = "https%3A%2F%2Fid.example";
        assert_eq!(
            read(&format!("/callback?state=s1&iss={iss}&code=a")),
            code("a")
        );
        assert_eq!(
            read("/callback?error=access_denied&state=s1"),
            Brought::No("access_denied".to_owned())
        );
        for target in [
            "/",
            "/favicon.ico",
            "/callback",
            "/callback?code=a",
            "/callback?code=a&state=s2",
            "/callback?code=a&state=s1&state=s1",
            "/callback?code=a&code=b&state=s1",
            "/callback?code=&state=s1",
            "/callback?code=a&error=b&state=s1",
            "/callback?code=a&state=s1&iss=https%3A%2F%2Fother",
            "/callback?code=%zz&state=s1",
            "/callback?code=%ff&state=s1",
            "/callbackx?code=a&state=s1",
        ] {
            assert_eq!(read(target), Brought::Nothing, "{target}");
        }
        assert_eq!(
            super::read("POST /callback?code=a&state=s1", "s1", ""),
            Brought::Nothing
        );
    }
}

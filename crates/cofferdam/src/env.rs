//! `cofferdam env`: what the clients of another system must have in their environment to use this server.

use crate::cli::args::Place;
use crate::cli::failure::Failure;
use crate::cli::table;
use crate::reach;
use crate::state::State;
use api::Code;
use api::client::Endpoint;
use std::process::ExitCode;

/// Prints the variables of E2B's clients as lines for a shell.
pub(crate) async fn e2b(place: &Place) -> Result<ExitCode, Failure> {
    let (authority, token) = server(place).await?;
    table::print(&lines(&authority, &server::e2b_api_key(&token)))?;
    Ok(ExitCode::SUCCESS)
}

/// Neither an authority nor a key has a character that means something to a shell.
fn lines(authority: &str, key: &str) -> String {
    format!(
        "export E2B_API_URL=http://{authority}\n\
         export E2B_SANDBOX_URL=http://{authority}\n\
         export E2B_API_KEY={key}\n"
    )
}

/// Where the server listens on TCP, and its token.
async fn server(place: &Place) -> Result<(String, String), Failure> {
    if let Some(url) = &place.url {
        return match reach::endpoint(url, place)? {
            Endpoint::Tcp { authority, token } => Ok((authority, token.text().to_owned())),
            Endpoint::Unix(_) | Endpoint::Memory(_) => Err(no_tcp()),
        };
    }
    let missing = || {
        let failure = Failure::new(Code::ServerUnreachable, "there is no server to use");
        failure.hint("start one with `cofferdam up`")
    };
    reach::running(place).await?.ok_or_else(missing)?;
    let state = State::of(place)?;
    let found = state.known_address().zip(state.known_token());
    found.ok_or_else(no_tcp)
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
        assert_eq!(
            lines("127.0.0.1:7300", "e2b_00"),
            "export E2B_API_URL=http://127.0.0.1:7300\n\
             export E2B_SANDBOX_URL=http://127.0.0.1:7300\n\
             export E2B_API_KEY=e2b_00\n"
        );
    }

    #[tokio::test]
    async fn a_server_that_is_named_needs_no_state() {
        let place = |url: &str, token: &str| Place {
            state: None,
            url: Some(url.to_owned()),
            token: Some(token.to_owned()),
            secret_key: None,
            secret_key_before: Vec::new(),
        };
        let found = server(&place("http://host:7300", "theirs")).await.unwrap();
        assert_eq!(found, ("host:7300".to_owned(), "theirs".to_owned()));
        let refused = server(&place("unix:/s", "theirs")).await.unwrap_err();
        assert!(refused.to_string().contains("TCP"), "{refused}");
    }

    #[tokio::test]
    async fn without_a_server_there_is_nothing_to_print() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place {
            state: Some(dir.path().join("none")),
            url: None,
            token: None,
            secret_key: None,
            secret_key_before: Vec::new(),
        };
        let refused = server(&place).await.unwrap_err();
        assert!(refused.to_string().contains("no server"), "{refused}");
    }
}

//! What is inside a sandbox: commands, a terminal, files, ports.

pub(crate) mod copy;
pub(crate) mod exec;
pub(crate) mod log;
pub(crate) mod port;
pub(crate) mod shell;

use crate::cli::failure::Failure;
use crate::cli::sandbox::{known, no_sandbox};
use api::Code;
use api::client::Client;
use api::guest::{Guest, GuestError};
use api::sandbox::SandboxStateName;

/// A sandbox, and the user inside as whom something is done.
#[derive(Debug, Clone)]
struct Place {
    client: Client,
    id: String,
    user: Option<String>,
}

impl Place {
    fn new(client: &Client, id: &str, user: Option<String>) -> Result<Place, Failure> {
        Ok(Place {
            client: client.clone(),
            id: known(id)?.to_owned(),
            user,
        })
    }

    /// A connection for one request.
    async fn guest(&self) -> Result<Guest, Failure> {
        let guest = self.client.sandbox_guest(&self.id).await?;
        Ok(guest.as_user(self.user.as_deref()))
    }

    /// Why nobody tells how a command ended: the server may be gone, or the sandbox, or only its guest.
    async fn lost(&self, error: GuestError) -> Failure {
        if !matches!(error, GuestError::Closed) {
            return self.failure(error);
        }
        match self.client.sandbox_get(&self.id).await {
            Err(error) if error.is(Code::ServerUnreachable) => {
                let hint = format!(
                    "the command may go on in the sandbox; when the server is back, \
                     `cofferdam sandbox log {}` says how it ended",
                    self.id
                );
                Failure::from(error).hint(hint)
            }
            Ok(view) if view.state != SandboxStateName::Ready => {
                let message = format!(
                    "it ended with its place: the sandbox is {}",
                    view.state.as_str()
                );
                let hint = format!(
                    "`cofferdam sandbox get {}` shows what becomes of it",
                    self.id
                );
                Failure::new(Code::SandboxGone, message).hint(hint)
            }
            Ok(_) | Err(_) => self.failure(error),
        }
    }

    /// What is told of an error.
    fn failure(&self, error: GuestError) -> Failure {
        if matches!(&error, GuestError::Door(_)) && error.body().code == Code::NotFound.as_str() {
            return no_sandbox(&self.id);
        }
        let is_user = error.to_string().contains("does not allow the user 'root'");
        let failure = Failure::Told(Box::new(error.body()));
        if is_user {
            return failure.hint("`cofferdam sandbox create --allow-root` makes one that does");
        }
        failure
    }
}

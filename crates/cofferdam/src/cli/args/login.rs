//! What can be written about logging in. The doc comments here are the help.

use clap::Subcommand;

/// Who I am to a server.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum LoginCommand {
    Login(LoginArgs),
    /// Forget the login at a server, and take its refresh token back at the provider where that can be done
    Logout {
        /// The server, in place of --url
        #[arg(long, value_name = "URL")]
        server: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say who you are to the server: tenant, principal, role, scopes, and until when
    Whoami {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Log in at a server with the provider of identities that it names: open the address that is printed in a browser, on
/// any machine, and type the code. Commands with the same --url use the login then; it is renewed by itself.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LoginArgs {
    /// The server, in place of --url: https://HOST[:PORT], or http:// on this machine
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// Which provider, where the server names several
    #[arg(long, value_name = "URL")]
    pub(crate) issuer: Option<String>,
    /// In a browser on this machine, which brings the answer to a loopback address; no code is typed
    #[arg(long)]
    pub(crate) browser: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl LoginCommand {
    /// Whether errors are to be JSON too.
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Login(LoginArgs { json, .. })
            | Self::Logout { json, .. }
            | Self::Whoami { json } => *json,
        }
    }
}

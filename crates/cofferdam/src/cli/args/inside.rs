//! What can be written about the inside of a sandbox. The doc comments here are the help.

use crate::cli::units;
use std::time::Duration;

/// Run a command in it, with its streams and its exit code
#[derive(Debug, Clone, clap::Args)]
#[command(override_usage = "cofferdam sandbox exec [OPTIONS] ID -- COMMAND [ARGUMENT]...")]
pub(crate) struct SandboxExec {
    /// The sandbox's id
    pub(crate) id: String,
    /// A variable of its environment; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) env: Vec<String>,
    /// The directory to start in, inside the sandbox; the user's home when absent
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<String>,
    /// As whom: `user`, or `root` in a sandbox that allows it
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// How long it may run, such as 30s; without an end when absent
    #[arg(long, value_parser = units::duration, value_name = "TIME", allow_negative_numbers = true)]
    pub(crate) timeout: Option<Duration>,
    /// Print its number inside the sandbox and return at once; it goes on
    #[arg(long)]
    pub(crate) detach: bool,
    /// Print one JSON object and nothing else: how it ended, and the first 1 MiB of what it wrote, as
    /// `stdout.text` and `stderr.text`
    #[arg(long)]
    pub(crate) json: bool,
    /// The program and its arguments
    #[arg(
        last = true,
        required = true,
        value_name = "COMMAND",
        value_hint = clap::ValueHint::CommandWithArguments
    )]
    pub(crate) command: Vec<String>,
}

/// Open a terminal in it
#[derive(Debug, Clone, clap::Args)]
#[command(override_usage = "cofferdam sandbox shell [OPTIONS] ID [-- COMMAND [ARGUMENT]...]")]
pub(crate) struct SandboxShell {
    /// The sandbox's id
    pub(crate) id: String,
    /// The directory to start in, inside the sandbox; the user's home when absent
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<String>,
    /// As whom: `user`, or `root` in a sandbox that allows it
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// What to run on the terminal; a login shell when absent
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// Copy a file into it or out of it. Of its mode, only what is copied out keeps the permissions that
/// your umask leaves
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SandboxCp {
    /// What to copy: a path here, or ID:PATH; relative ones inside begin at the user's home
    #[arg(value_name = "SRC", value_hint = clap::ValueHint::FilePath)]
    pub(crate) from: String,
    /// Where to: a path here, or ID:PATH; what is there is replaced, and into a directory it goes under
    /// its own name
    #[arg(value_name = "DST", value_hint = clap::ValueHint::FilePath)]
    pub(crate) to: String,
    /// A directory, with all that is in it but links
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// As whom: `user`, or `root` in a sandbox that allows it
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
}

/// Listen on this machine's loopback for a port of it, until Ctrl-C
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SandboxPort {
    /// The sandbox's id
    pub(crate) id: String,
    /// The port inside, and the one here if it is to be another; 0 takes one that is free
    #[arg(value_name = "PORT[:LOCAL]", value_parser = ports)]
    pub(crate) ports: (u16, u16),
}

/// The port inside, and the one here.
fn ports(text: &str) -> Result<(u16, u16), String> {
    let port = |text: &str| {
        let port = text.parse::<u16>();
        port.map_err(|_| format!("`{text}` is not a port; write PORT or PORT:LOCAL"))
    };
    let (inside, here) = text.split_once(':').unwrap_or((text, text));
    match (port(inside)?, port(here)?) {
        (0, _) => Err("the port inside is 1 to 65535".to_owned()),
        both => Ok(both),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_the_same_number_here_unless_another_is_named() {
        assert_eq!(ports("8080"), Ok((8080, 8080)));
        assert_eq!(ports("8080:9"), Ok((8080, 9)));
        assert_eq!(ports("8080:0"), Ok((8080, 0)));
        for wrong in ["", "0", "0:1", "x", "1:x", "65536", "1:2:3"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
    }
}

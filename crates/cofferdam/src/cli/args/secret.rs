//! `cofferdam secret`.

use api::secret::SecretSource;
use clap::Subcommand;
use std::path::PathBuf;

/// What is taken out of output beside the values of secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scrub {
    /// What looks like a credential.
    Patterns,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SecretArgs {
    #[command(subcommand)]
    pub(crate) command: SecretCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum SecretCommand {
    /// Make a secret, or give the one of this name a new value. The value is read from standard input,
    /// without the newline at its end; on a terminal it is not shown
    Set {
        /// Its name: letters, digits and `_-.`
        name: String,
        /// Read the value from this file, as it is
        #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::FilePath)]
        file: Option<PathBuf>,
        /// Keep no value: fetch it from a provider of the server, PROVIDER:REFERENCE, whenever it is used
        #[arg(long, value_name = "SOURCE", conflicts_with = "file", value_parser = source)]
        from: Option<SecretSource>,
        /// A label; may be repeated
        #[arg(long, value_name = "KEY=VALUE")]
        label: Vec<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Give a secret a new value; what was made before keeps the old one
    Rotate {
        /// Its name
        name: String,
        /// Read the value from this file, as it is
        #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::FilePath)]
        file: Option<PathBuf>,
        /// Keep no value: fetch it from a provider of the server, PROVIDER:REFERENCE, whenever it is used
        #[arg(long, value_name = "SOURCE", conflicts_with = "file", value_parser = source)]
        from: Option<SecretSource>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List secrets, never their values
    Ls {
        /// At most so many, 1 to 500
        #[arg(
            long,
            value_name = "N",
            default_value_t = 100,
            value_parser = clap::value_parser!(u32).range(1..=500),
            allow_negative_numbers = true
        )]
        limit: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete a secret with all versions of its value
    Rm {
        /// Its name
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what happened to a secret, and who used it
    Events {
        /// Its name
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl SecretArgs {
    /// Whether errors are to be JSON too.
    pub(super) fn json(&self) -> bool {
        match &self.command {
            SecretCommand::Set { json, .. }
            | SecretCommand::Rotate { json, .. }
            | SecretCommand::Ls { json, .. }
            | SecretCommand::Rm { json, .. }
            | SecretCommand::Events { json, .. } => *json,
        }
    }
}

/// Reads `PROVIDER:REFERENCE`. The text is not repeated: somebody may have written a value.
fn source(text: &str) -> Result<SecretSource, String> {
    let wrong = "a source is PROVIDER:REFERENCE, with a provider of the server";
    let (provider, reference) = text.split_once(':').ok_or(wrong)?;
    Ok(SecretSource {
        provider: provider.to_owned(),
        reference: reference.to_owned(),
    })
}

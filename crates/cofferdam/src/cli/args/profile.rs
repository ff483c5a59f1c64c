//! `cofferdam profile`.

use clap::Subcommand;
use std::path::PathBuf;

/// Keep named recipes for sandboxes and jobs
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ProfileArgs {
    #[command(subcommand)]
    pub(crate) command: ProfileCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ProfileCommand {
    /// List profiles, newest first, also those that builds make
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
    /// Show what a profile says, as JSON that `put` takes
    Get {
        /// Which, maybe in an earlier version
        #[arg(value_name = "NAME[:VERSION]")]
        name: String,
        /// List its versions instead
        #[arg(long)]
        versions: bool,
        /// Print JSON, with more than what it says
        #[arg(long)]
        json: bool,
    },
    /// Write a profile: a new one, or the next version of one that is there. What was made with an earlier one
    /// stays as it is
    Put {
        /// Its name: small letters, digits and `_-./`
        name: String,
        /// What it says: TOML, or JSON where the name ends so; `-` is TOML on standard input
        #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete a profile with its versions and its builds
    Rm {
        /// Which
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl ProfileArgs {
    /// Whether errors are to be JSON too.
    pub(super) fn json(&self) -> bool {
        match &self.command {
            ProfileCommand::Ls { json, .. }
            | ProfileCommand::Get { json, .. }
            | ProfileCommand::Put { json, .. }
            | ProfileCommand::Rm { json, .. } => *json,
        }
    }
}

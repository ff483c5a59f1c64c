//! `cofferdam policy`.

use clap::Subcommand;
use std::path::PathBuf;

/// Keep rules about what may be asked for
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    pub(crate) command: PolicyCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum PolicyCommand {
    /// List policies
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a policy says, as JSON that `set` takes
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
    /// Write a policy: a new one, or the next version of one that is there. What waits for a node is decided again
    Set {
        /// Its name: small letters, digits and `_-.`
        name: String,
        /// What it says: TOML, or JSON where the name ends so; `-` is TOML on standard input
        #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete a policy with its versions
    Rm {
        /// Which
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what would become of a request, and which policy decides what. Ends with 1 where it is not allowed
    Test {
        /// The request as the API takes it, JSON with `job` or `sandbox`; `-` is standard input
        #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show by which policies a job or a sandbox was decided, and which decided what
    Explain {
        /// Which
        #[arg(value_name = "JOB|SANDBOX")]
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl PolicyArgs {
    /// Whether errors are to be JSON too.
    pub(super) fn json(&self) -> bool {
        match &self.command {
            PolicyCommand::Ls { json }
            | PolicyCommand::Get { json, .. }
            | PolicyCommand::Set { json, .. }
            | PolicyCommand::Rm { json, .. }
            | PolicyCommand::Test { json, .. }
            | PolicyCommand::Explain { json, .. } => *json,
        }
    }
}

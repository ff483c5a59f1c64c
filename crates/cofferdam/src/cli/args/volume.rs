//! What can be written about volumes. The doc comments here are the help.

use crate::cli::units;

/// Make, list and delete volumes: named directories that outlive sandboxes
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct VolumeArgs {
    #[command(subcommand)]
    pub(crate) command: VolumeCommand,
}

#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum VolumeCommand {
    /// Make a volume
    Create {
        /// Its name: letters, digits, `_` and `-`
        name: String,
        /// What it holds at most, such as 1G; 10G when absent
        #[arg(long, value_parser = units::size, value_name = "SIZE", allow_negative_numbers = true)]
        size: Option<u64>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List volumes
    Ls {
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a volume
    Get {
        /// Its name, or its id
        name: String,
        /// Print JSON, with the token that opens its content
        #[arg(long)]
        json: bool,
    },
    /// Delete a volume with all that is in it
    Rm {
        /// Its name, or its id
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl VolumeCommand {
    /// Whether errors are to be JSON too.
    pub(crate) fn json(&self) -> bool {
        match self {
            VolumeCommand::Create { json, .. }
            | VolumeCommand::Ls { json, .. }
            | VolumeCommand::Get { json, .. }
            | VolumeCommand::Rm { json, .. } => *json,
        }
    }
}

//! What can be asked about the record, as commands.

use crate::cli::units;
use clap::Subcommand;
use std::time::Duration;

#[derive(Debug, Clone, clap::Args)]
/// Read the record of what happened, and make sure that nobody has changed it
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    pub(crate) command: AuditCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum AuditCommand {
    /// Show what happened, the oldest first. That you have looked is in the record from then on
    Ls {
        #[command(flatten)]
        filter: AuditFilter,
        /// At most so many, 1 to 10000
        #[arg(
            long,
            value_name = "N",
            default_value_t = 50,
            value_parser = clap::value_parser!(u32).range(1..=10_000),
            allow_negative_numbers = true
        )]
        limit: u32,
        /// Print one JSON object for each, on a line of its own
        #[arg(long)]
        json: bool,
    },
    /// Write all of it, or what a filter names, as one JSON object on each line
    Export {
        #[command(flatten)]
        filter: AuditFilter,
    },
    /// Check every seal against its events, the seal before it, and what was signed. Fails when something was changed
    Verify {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AuditFilter {
    /// Only what happened within this time, such as 1h or 30m
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub(crate) since: Option<Duration>,
    /// Only what this principal did, by its id, such as user:alice
    #[arg(long, value_name = "ID")]
    pub(crate) principal: Option<String>,
    /// Only what happened to this job, sandbox, secret, ..., by its id
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
    /// Only this, such as job.finished, or all that begins with it, such as `secret.`
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<String>,
}

impl AuditArgs {
    /// Whether JSON was asked for.
    pub(crate) fn json(&self) -> bool {
        match &self.command {
            AuditCommand::Ls { json, .. } | AuditCommand::Verify { json } => *json,
            AuditCommand::Export { .. } => true,
        }
    }
}

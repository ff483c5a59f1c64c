//! What can be written about quotas. The doc comments here are the help.

use clap::Subcommand;

/// Say how much a tenant or a principal may have at a time, and see what is used of it
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct QuotaArgs {
    #[command(subcommand)]
    pub(crate) command: QuotaCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum QuotaCommand {
    /// Say how much somebody may have; what is not named stays as it is
    #[command(after_help = LIMITS)]
    Set {
        /// A tenant, or a principal of your own such as `user:alice`
        #[arg(value_name = "TENANT|PRINCIPAL")]
        of: String,
        /// A limit and the most, such as jobs=10 or memory_bytes=16GiB; `none` for no bound
        #[arg(value_name = "LIMIT=MOST", required = true)]
        limits: Vec<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List quotas with what is used of them: all in the first tenant, elsewhere your own
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a quota away: nothing bounds it then
    Rm {
        /// A tenant, or a principal of your own such as `user:alice`
        #[arg(value_name = "TENANT|PRINCIPAL")]
        of: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

const LIMITS: &str = "Limits: `jobs` that run, beyond which others wait; `jobs_waiting` in the queue; `sandboxes` \
that live; `cpu_millis`, `memory_bytes` and `disk_bytes` that they take together; `artifact_bytes` of files kept of jobs.";

impl QuotaCommand {
    /// Whether the answer is to be JSON.
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Set { json, .. } | Self::Ls { json } | Self::Rm { json, .. } => *json,
        }
    }
}

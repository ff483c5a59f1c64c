//! `cofferdam approval`.

use crate::cli::units;
use clap::Subcommand;
use std::time::Duration;

/// Look at what waits for a person, and say yes or no
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ApprovalArgs {
    #[command(subcommand)]
    pub(crate) command: ApprovalCommand,
}

/// A state that approvals can be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ApprovalStateArg {
    /// Nobody has decided
    Pending,
    /// A person said yes
    Approved,
    /// A person said no
    Rejected,
    /// Nobody decided in time
    Expired,
    /// What it was about is over
    Canceled,
}

/// What a yes is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ScopeArg {
    /// This one thing
    Once,
    /// Whatever the same principal asks for the same reasons, for a while
    Session,
    /// This one thing, and a proposal to change the policies that want it
    Rule,
}

/// A yes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct YesArgs {
    /// Which, `apv_...`
    pub(crate) id: String,
    /// What the yes is good for
    #[arg(long = "for", value_enum, default_value = "once", value_name = "SCOPE")]
    pub(crate) scope: ScopeArg,
    /// How long one for a session counts, such as 30m; at most 24h, 1h when absent
    #[arg(long, value_parser = units::duration, value_name = "TIME", allow_negative_numbers = true)]
    pub(crate) time: Option<Duration>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ApprovalCommand {
    /// List what waits for a person
    Ls {
        /// List what is in this state instead
        #[arg(long, value_name = "STATE", value_enum, conflicts_with = "all")]
        only: Option<ApprovalStateArg>,
        /// List all, decided ones too
        #[arg(long)]
        all: bool,
        /// At most so many
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what is asked, why it needs a yes, and what became of it
    Show {
        /// Which, `apv_...`
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say yes. Nobody says yes to what they asked for themselves
    Approve {
        #[command(flatten)]
        yes: YesArgs,
        /// Why; it is in the record
        #[arg(long, default_value = "")]
        comment: String,
    },
    /// Let something through without judging it, and say why
    Waive {
        #[command(flatten)]
        yes: YesArgs,
        /// Why; it is in the record
        #[arg(long, required = true)]
        comment: String,
    },
    /// Say no
    Reject {
        /// Which, `apv_...`
        id: String,
        /// Why; whoever asked is told
        #[arg(long, default_value = "")]
        comment: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a yes back that would still count; what it has let through goes on
    Revoke {
        /// Which, `apv_...`
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Ask that a sandbox may reach one more host
    Ask {
        /// The sandbox
        #[arg(long, value_name = "SANDBOX")]
        sandbox: String,
        /// The host, such as pypi.org:443
        #[arg(long, value_name = "HOST:PORT")]
        to: String,
        /// Why, for the person who decides
        #[arg(long, default_value = "")]
        why: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl ApprovalArgs {
    /// Whether errors are to be JSON too.
    pub(super) fn json(&self) -> bool {
        match &self.command {
            ApprovalCommand::Approve { yes, .. } | ApprovalCommand::Waive { yes, .. } => yes.json,
            ApprovalCommand::Ls { json, .. }
            | ApprovalCommand::Show { json, .. }
            | ApprovalCommand::Reject { json, .. }
            | ApprovalCommand::Revoke { json, .. }
            | ApprovalCommand::Ask { json, .. } => *json,
        }
    }
}

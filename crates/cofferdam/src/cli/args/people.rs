//! What can be written about tenants, principals and keys. The doc comments here are the help.

use clap::Subcommand;
use std::time::Duration;

use super::quota::QuotaArgs;
use crate::cli::units;

/// Who may ask.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum PeopleCommand {
    Tenant(TenantArgs),
    Principal(PrincipalArgs),
    Key(KeyArgs),
    Quota(QuotaArgs),
}

/// Make, list and delete tenants, each of which sees its own things alone
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TenantArgs {
    #[command(subcommand)]
    pub(crate) command: TenantCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum TenantCommand {
    /// Make a tenant, and print the key of its first admin, which is told this once
    Create {
        /// Its name: letters, digits and `_.@-`
        name: String,
        /// The name of its first admin
        #[arg(long, value_name = "NAME", default_value = "admin")]
        admin: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List tenants
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete a tenant that has nothing any more; nobody gets in then
    Rm {
        /// Its name, or its id
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Let people, agents and automations in, say what they may, list them, send them away
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PrincipalArgs {
    #[command(subcommand)]
    pub(crate) command: PrincipalCommand,
}

/// What acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// A person
    User,
    /// A program that a model steers
    Agent,
    /// A program that does what somebody wrote down
    Automation,
}

/// What it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum RoleArg {
    /// Runs code
    Member,
    /// Profiles, secrets, nodes and approvals too
    Operator,
    /// Principals, keys and the record too
    Admin,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum PrincipalCommand {
    /// Let one in. It can do nothing before it has a key: `cofferdam key create`
    Create {
        /// Its name: letters, digits and `_.@-`
        name: String,
        /// What acts
        #[arg(long, value_enum, default_value = "user")]
        kind: Kind,
        /// What it may
        #[arg(long, value_enum, default_value = "member")]
        role: RoleArg,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List them
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Give one another role, for all its keys, within a second
    Set {
        /// Its id, such as user:alice
        id: String,
        /// What it may from now on
        #[arg(long, value_enum)]
        role: RoleArg,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Send one away, and take its keys back; what it has made stays
    Rm {
        /// Its id, such as user:alice
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Make, list and take back keys, with which principals come in
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    pub(crate) command: KeyCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key, and print it, this once
    Create {
        /// For whom it stands, such as user:alice
        principal: String,
        /// What people call it
        #[arg(long, value_name = "NAME", default_value = "")]
        name: String,
        /// Narrow it to this, such as job:write or sandbox:read; may be repeated
        #[arg(long, value_name = "SCOPE")]
        scope: Vec<String>,
        /// How long it counts, such as 12h or 90d; without an end when absent
        #[arg(long, value_name = "TIME", value_parser = units::life)]
        expires: Option<Duration>,
        /// Print JSON, with the form of it that E2B's clients take
        #[arg(long)]
        json: bool,
    },
    /// List keys, never their texts
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a key back
    Rm {
        /// Its id
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl PeopleCommand {
    /// Whether errors are to be JSON too.
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Tenant(TenantArgs { command }) => match command {
                TenantCommand::Create { json, .. }
                | TenantCommand::Ls { json }
                | TenantCommand::Rm { json, .. } => *json,
            },
            Self::Principal(PrincipalArgs { command }) => match command {
                PrincipalCommand::Create { json, .. }
                | PrincipalCommand::Set { json, .. }
                | PrincipalCommand::Ls { json }
                | PrincipalCommand::Rm { json, .. } => *json,
            },
            Self::Key(KeyArgs { command }) => match command {
                KeyCommand::Create { json, .. }
                | KeyCommand::Ls { json }
                | KeyCommand::Rm { json, .. } => *json,
            },
            Self::Quota(args) => args.command.json(),
        }
    }
}

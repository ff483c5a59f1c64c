//! `cofferdam server`, `cofferdam node` and `cofferdam config`.

use crate::cli::units;
use clap::Subcommand;
use std::path::PathBuf;
use std::time::Duration;

/// Serve a fleet: a control plane without a node of its own, on PostgreSQL or SQLite. Nodes dial in
#[derive(Debug, Clone, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ServerArgs {
    /// The configuration, in TOML
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// Say on the command line too that this is for development: plain HTTP on loopback
    #[arg(long)]
    pub(crate) dev: bool,
    /// What this server has of these, all servers on its database are to have from now on; only while no other is
    /// there. May be repeated
    #[arg(long, value_name = "WHAT", value_parser = ["blobs", "node-authority", "secret-key", "token"])]
    pub(crate) adopt: Vec<String>,
    #[command(subcommand)]
    pub(crate) command: Option<ServerCommand>,
}

impl ServerArgs {
    /// Whether errors are to be JSON too.
    pub(super) fn json(&self) -> bool {
        matches!(self.command, Some(ServerCommand::Ls { json: true }))
    }
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ServerCommand {
    /// List the servers on the same database, when each was heard last, and which links it holds
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Be a node of a fleet, let machines in, and look after the nodes that there are
#[derive(Debug, Clone, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct NodeArgs {
    #[command(flatten)]
    pub(crate) run: NodeRun,
    #[command(subcommand)]
    pub(crate) command: Option<NodeCommand>,
}

impl NodeArgs {
    /// Whether errors are to be JSON too.
    pub(super) fn json(&self) -> bool {
        match &self.command {
            Some(
                NodeCommand::Ls { json }
                | NodeCommand::Get { json, .. }
                | NodeCommand::EnrollToken { json, .. }
                | NodeCommand::Reap { json, .. }
                | NodeCommand::Tape { json },
            ) => *json,
            None
            | Some(
                NodeCommand::Enroll { .. }
                | NodeCommand::Cordon { .. }
                | NodeCommand::Uncordon { .. }
                | NodeCommand::Drain { .. }
                | NodeCommand::Decommission { .. }
                | NodeCommand::Rm { .. },
            ) => false,
        }
    }
}

/// How a node is started.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct NodeRun {
    /// The configuration, in TOML: take jobs and sandboxes from the server that it names, until SIGTERM
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// Say on the command line too that this is for development
    #[arg(long)]
    pub(crate) dev: bool,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum NodeCommand {
    /// List nodes
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one node
    Get {
        /// Its id, or its name
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a token with which one machine can become a node, within the hour
    EnrollToken {
        /// A label that the node is to carry; may be repeated
        #[arg(long, value_name = "KEY=VALUE")]
        label: Vec<String>,
        /// A tag that the node is to carry; may be repeated
        #[arg(long, value_name = "TAG")]
        tag: Vec<String>,
        /// List the tokens that were made instead
        #[arg(long, conflicts_with_all = ["label", "tag", "revoke"])]
        ls: bool,
        /// Take a token back instead
        #[arg(long, value_name = "ID", conflicts_with_all = ["label", "tag"])]
        revoke: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make this machine a node, with the enrollment token in --token or COFFERDAM_TOKEN, where other users do not
    /// see it. Who it is, is kept in the state directory
    Enroll {
        /// The server's door of nodes: https://HOST:PORT
        #[arg(long, value_name = "URL")]
        server: String,
        /// What people call it; by default the name of the machine
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// Give a node no new work, for now
    Cordon {
        /// Its id, or its name
        id: String,
    },
    /// Give a node work again, after `cordon` or `drain`
    Uncordon {
        /// Its id, or its name
        id: String,
    },
    /// Give a node no new work, and wait until what it has is over; `uncordon` ends it
    Drain {
        /// Its id, or its name
        id: String,
        /// Do not wait
        #[arg(long, conflicts_with = "deadline")]
        no_wait: bool,
        /// End what it still has after this time, such as 10m: jobs are canceled, sandboxes taken away
        #[arg(long, value_parser = units::duration, value_name = "TIME")]
        deadline: Option<Duration>,
    },
    /// Believe a node no more, from now on and for good: its certificates count for nothing
    Decommission {
        /// Its id, or its name
        id: String,
    },
    /// Forget a node that was decommissioned; what it had is lost
    Rm {
        /// Its id, or its name
        id: String,
    },
    /// List what nodes of this machine have left behind and nobody has a record of, below --state and among the
    /// control groups; take it away with --apply
    Reap {
        /// Take it away
        #[arg(long)]
        apply: bool,
        /// What was not touched for so long is left behind, such as 24h
        #[arg(long, value_parser = units::duration, value_name = "TIME", default_value = "24h")]
        idle: Duration,
        /// What is so old is left behind, although it was touched since, such as 168h
        #[arg(long, value_parser = units::duration, value_name = "TIME", default_value = "168h")]
        age: Duration,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the last calls of the node with its state in --state to its server: when, how long, how large, and the
    /// code; no bodies and nothing secret
    Tape {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Look at configurations
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print what a configuration comes to, without what is secret, or say what is wrong with it
    Check {
        /// The file
        #[arg(value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
    },
}

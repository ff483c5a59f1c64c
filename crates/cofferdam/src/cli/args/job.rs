//! What can be written about jobs. The doc comments here are the help.

/// The states that jobs are listed by.
const STATES: [&str; 6] = [
    "awaiting_approval",
    "queued",
    "leased",
    "running",
    "stopping",
    "finished",
];

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct JobArgs {
    #[command(subcommand)]
    pub(crate) command: JobCommand,
}

#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum JobCommand {
    /// List jobs, newest first, or what was run in sandboxes that live on
    Ls(JobLs),
    /// Show one job: its outcome, what it used, what was enforced
    Get {
        /// Its id
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print what a job wrote
    Logs {
        /// Its id
        id: String,
        /// Go on until it has ended
        #[arg(short, long)]
        follow: bool,
        /// Print one JSON object per piece of output, each on a line of its own
        #[arg(long)]
        json: bool,
    },
    /// End a job
    Cancel {
        /// Its id
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the files that were kept of a job, or get one
    Artifacts {
        /// The job's id
        id: String,
        /// Get the file of this path, into this directory
        #[arg(long, value_name = "PATH")]
        get: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct JobLs {
    /// Only those in this state
    #[arg(long, value_name = "STATE", value_parser = STATES, conflicts_with_all = ["kind", "sandbox"])]
    pub(crate) only: Option<String>,
    /// `exec`: commands in sandboxes that live on; `step`: code in their contexts; `job`: the others
    #[arg(long, value_name = "KIND", value_parser = KINDS)]
    pub(crate) kind: Option<String>,
    /// Only what was run in this sandbox that lives on
    #[arg(long, value_name = "ID")]
    pub(crate) sandbox: Option<String>,
    /// At most so many, 1 to 500
    #[arg(
        long,
        value_name = "N",
        default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(1..=500),
        allow_negative_numbers = true
    )]
    pub(crate) limit: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What can be listed.
const KINDS: [&str; 3] = ["job", "exec", "step"];

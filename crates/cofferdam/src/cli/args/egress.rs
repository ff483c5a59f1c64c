//! What can be asked about the way out, as commands.

use crate::cli::units;
use clap::Subcommand;
use std::time::Duration;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct EgressArgs {
    #[command(subcommand)]
    pub(crate) command: EgressCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum EgressCommand {
    /// Show what a sandbox or a job has asked of the outside, and what became of it, the oldest first
    Log(EgressLog),
    /// Show the connections and requests that are under way now, the oldest first
    Connections {
        /// The id of a sandbox or a job; all when absent
        id: Option<String>,
        /// Show them anew every second, until you interrupt it
        #[arg(long)]
        follow: bool,
        /// At most so many, 1 to 500
        #[arg(
            long,
            value_name = "N",
            default_value_t = 100,
            value_parser = clap::value_parser!(u32).range(1..=500),
            allow_negative_numbers = true
        )]
        limit: u32,
        /// Print one JSON object for each, on a line of its own
        #[arg(long)]
        json: bool,
    },
    /// Say what would become of a URL, and by which rule. No name is resolved, and nothing is sent. Fails when it
    /// would be denied
    Test {
        /// http://HOST/..., https://HOST/... or HOST:PORT
        // Not `url`, which is the name of an option of all commands.
        #[arg(value_name = "URL")]
        target: String,
        /// The id of the sandbox by whose rules
        #[arg(long = "as", value_name = "ID")]
        sandbox: String,
        /// A field of the header that the request would have, for rules that require or refuse it; no secret, which
        /// others see in a command line: where a field is refused any value does. May be repeated
        #[arg(long = "header", value_parser = header, value_name = "NAME: VALUE")]
        headers: Vec<(String, String)>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Reads `NAME: VALUE`.
fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write 'NAME: VALUE'")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct EgressLog {
    /// The id of the sandbox or the job
    pub(crate) id: String,
    /// Only what was denied
    #[arg(long)]
    pub(crate) denied: bool,
    /// Only what went to this host, or with *.DOMAIN to any name below one
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// Only what was refused or failed for this reason, such as host_not_allowed
    #[arg(long, value_name = "CODE")]
    pub(crate) code: Option<String>,
    /// Only what was asked for within this time, such as 1h or 30m
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub(crate) since: Option<Duration>,
    /// Only what came after the record with this number
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) after: u64,
    /// Show each as it comes, until the sandbox or the job has ended
    #[arg(long, conflicts_with = "limit")]
    pub(crate) follow: bool,
    /// At most so many, 1 to 10000
    #[arg(
        long,
        value_name = "N",
        default_value_t = 50,
        value_parser = clap::value_parser!(u32).range(1..=10_000),
        allow_negative_numbers = true
    )]
    pub(crate) limit: u32,
    /// Print one JSON object for each, on a line of its own
    #[arg(long)]
    pub(crate) json: bool,
}

impl EgressArgs {
    /// Whether JSON was asked for.
    pub(crate) fn json(&self) -> bool {
        match &self.command {
            EgressCommand::Log(log) => log.json,
            EgressCommand::Connections { json, .. } | EgressCommand::Test { json, .. } => *json,
        }
    }
}

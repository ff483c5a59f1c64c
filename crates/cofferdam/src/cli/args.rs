//! What can be written on the command line. The doc comments here are the help.

use crate::cli::units;
use clap::{CommandFactory as _, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Run code that nobody has reason to trust where it can do no harm, and keep a record of what it did.
#[derive(Debug, Parser)]
#[command(name = "cofferdam", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes of `run`: the program's own; 124 its time was over; 125 \
cofferdam's own failure; 126 the program cannot be run; 127 there is no such program; 128+N signal N \
ended it.";

/// Where the server or its state is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Place {
    /// Directory of the database, the artifacts and the socket
    #[arg(long, global = true, env = "COFFERDAM_STATE", value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// A server to use: http://HOST:PORT or unix:/PATH; otherwise the one whose socket is in the state
    /// directory, otherwise none
    #[arg(long, global = true, env = "COFFERDAM_URL", value_name = "URL")]
    pub(crate) url: Option<String>,
    /// The token for a server at http://
    #[arg(
        long,
        global = true,
        env = "COFFERDAM_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub(crate) token: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one command in a sandbox of its own
    Run(Run),
    /// Look at jobs, read their output, cancel them
    Job(JobArgs),
    /// Serve: control plane and node in one process
    Up(Up),
    /// Say what this machine can and cannot enforce, and what to do about it
    Doctor(Doctor),
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Run one command in a sandbox of its own. It has no network, sees the programs of this machine
/// read-only, and can write to its home, /tmp, /var/tmp and /dev/shm, all of which are gone afterwards.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Run {
    /// The recipe for the sandbox
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// How long it may run
    #[arg(long, value_parser = units::duration, value_name = "TIME", default_value = "5m")]
    pub(crate) timeout: Duration,
    /// Processors it may use, such as 1 or 0.5
    #[arg(long, value_parser = units::cpus, value_name = "CPUS")]
    pub(crate) cpu: Option<u32>,
    /// Memory it may use, such as 512M
    #[arg(long, value_parser = units::size, value_name = "SIZE")]
    pub(crate) memory: Option<u64>,
    /// Processes and threads it may have
    #[arg(long, value_name = "N")]
    pub(crate) pids: Option<u32>,
    /// Storage it may fill, such as 1G
    #[arg(long, value_parser = units::size, value_name = "SIZE")]
    pub(crate) disk: Option<u64>,
    /// A variable of its environment; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) env: Vec<String>,
    /// A file to put into the sandbox, at DST or under its own name in the home; may be repeated
    #[arg(long, value_name = "SRC[:DST]")]
    pub(crate) file: Vec<String>,
    /// A file to get out of the sandbox when it has ended, into this directory; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(crate) out: Vec<String>,
    /// The directory to start in, inside the sandbox
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<String>,
    /// A directory with a root file system to use instead of this machine's programs
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Print one JSON object with the outcome, times, usage, what was enforced, and the artifacts
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the job's id and return at once; the job goes on
    #[arg(long, conflicts_with_all = ["out", "json"])]
    pub(crate) detach: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// Serve until SIGTERM or Ctrl-C. Sandboxes that still run then are found again at the next start.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Up {
    /// Where to listen for HTTP; the token is in the state directory
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7300")]
    pub(crate) listen: SocketAddr,
    /// Only the Unix socket, no TCP
    #[arg(long)]
    pub(crate) no_listen: bool,
    /// Jobs at one time
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) slots: u32,
    /// Sandboxes that are kept ready for the next jobs, each used once; 0 keeps none
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(..=64))]
    pub(crate) spares: u32,
    /// End when there has been nothing to do for this long
    #[arg(long, hide = true, value_parser = units::duration)]
    pub(crate) idle_exit: Option<Duration>,
    /// How to isolate: `linux`, or `fake` for tests of the control plane, which runs nothing
    #[arg(long, hide = true, default_value = "linux")]
    pub(crate) driver: String,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct JobArgs {
    #[command(subcommand)]
    pub(crate) command: JobCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum JobCommand {
    /// List jobs, newest first
    Ls {
        /// Only those in this state
        #[arg(long, value_name = "STATE")]
        only: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
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
    },
    /// End a job
    Cancel {
        /// Its id
        id: String,
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

/// Says `ok`, `warn`, `fail` or `skip` for each thing that isolation needs, and what to do. Fails when no
/// sandbox can be made.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Doctor {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl Args {
    /// Whether errors are to be JSON too.
    pub(crate) fn json(&self) -> bool {
        match &self.command {
            Command::Run(run) => run.json,
            Command::Doctor(doctor) => doctor.json,
            Command::Job(job) => match &job.command {
                JobCommand::Ls { json, .. }
                | JobCommand::Get { json, .. }
                | JobCommand::Artifacts { json, .. } => *json,
                JobCommand::Logs { .. } | JobCommand::Cancel { .. } => false,
            },
            Command::Up(_) | Command::Completions { .. } => false,
        }
    }
}

/// Prints completions.
pub(crate) fn completions(shell: clap_complete::Shell) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "cofferdam", &mut text);
    crate::cli::table::print(&String::from_utf8_lossy(&text));
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn everything_after_the_dashes_is_the_command() {
        let args = Args::try_parse_from(["cofferdam", "run", "--cpu", "0.5", "--", "ls", "--json"]);
        let Command::Run(run) = args.unwrap().command else {
            panic!("run")
        };
        assert_eq!(run.command, ["ls", "--json"]);
        assert_eq!(run.cpu, Some(500));
        assert!(!run.json);
    }
}

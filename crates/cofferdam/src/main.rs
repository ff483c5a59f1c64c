//! The program: a command line over the API, and the composition of a control plane and a node.
//!
//! `cli/` knows the API and nothing else: what it does, any client can do. `compose` puts the rooms
//! together: the same rooms for one command on a laptop and for a server. Data goes to standard output,
//! everything else to standard error; nothing is asked, whether there is a terminal or not.
//!
//! This room must never decide about a job, read a row, or talk to a sandbox: it starts those that do.
//! Its `cli/` half must never name a room but `api`, so that it works against any server.

mod cli;
mod compose;
mod doctor;
mod signals;
mod state;
mod up;

use clap::Parser as _;
use cli::args::{Args, Command};
use cli::failure::Failure;
use std::process::ExitCode;

/// Threads that run tasks: one more than a laptop's smallest number of processors, so that one that
/// waits for a disk holds nobody up.
const THREADS: usize = 3;

fn main() -> ExitCode {
    let args = Args::parse();
    start_log(&args);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return Failure::ours(&error).report(args.json()),
    };
    let json = args.json();
    let code = match runtime.block_on(dispatch(args)) {
        Ok(code) => code,
        Err(failure) => failure.report(json),
    };
    // A thread may be stuck reading a terminal; nobody waits for it.
    runtime.shutdown_background();
    code
}

async fn dispatch(args: Args) -> Result<ExitCode, Failure> {
    match args.command {
        Command::Run(run) => {
            let (client, here) = compose::client_for_run(&args.place, run.detach).await?;
            let code = cli::run::run(&client, here.as_ref().map(compose::Here::node), run).await;
            if let Some(here) = here {
                here.leave().await;
            }
            code
        }
        Command::Up(up) => up::up(&args.place, &up).await,
        Command::Job(job) => {
            let (client, _here) = compose::client(&args.place).await?;
            cli::job::job(&client, job).await
        }
        Command::Doctor(asked) => doctor::doctor(&args.place, &asked).await,
        Command::Completions { shell } => Ok(cli::args::completions(shell)),
    }
}

/// Logs go to standard error, and only warnings unless `COFFERDAM_LOG` says otherwise.
fn start_log(args: &Args) {
    use tracing_subscriber::EnvFilter;
    let default = if matches!(args.command, Command::Up(_)) {
        "info"
    } else {
        "error"
    };
    let filter =
        EnvFilter::try_from_env("COFFERDAM_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
}

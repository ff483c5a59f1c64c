//! The program: a command line over the API, and the composition of a control plane and a node.
//!
//! `cli/` knows the API and nothing else: what it does, any client can do. `compose` puts the rooms
//! together: the same rooms for one command on a laptop and for a server. Data goes to standard output,
//! everything else to standard error; nothing is asked, whether there is a terminal or not.
//!
//! This room must never decide about a job, read a row, or talk to a sandbox: it starts those that do.
//! Its `cli/` half must never name a room but `api`, so that it works against any server.

mod authority;
mod cli;
mod compose;
mod config;
mod dial;
mod doctor;
mod env;
mod identity;
mod issuers;
mod keys;
mod logins;
mod mcp;
mod node;
mod node_authority;
mod private;
mod providers;
mod reach;
mod reap;
mod replica;
mod roots;
mod server;
mod signals;
mod state;
mod sweep;
mod tape;
mod tcp;
mod up;
mod upkeep;
mod web;
mod webhook;

use cli::args::{
    Args, Command, ConfigCommand, Foreign, LoginCommand, NodeArgs, NodeCommand, Place, Run,
    ServerArgs,
};
use cli::failure::Failure;
use compose::Absent;
use std::process::ExitCode;

/// Threads that run tasks: one more than a laptop's smallest number of processors, so that one that
/// waits for a disk holds nobody up.
const THREADS: usize = 3;

/// The one argument with which the program is what evaluates modules of policies, and nothing else.
pub(crate) const REGO: &str = "__rego";

fn main() -> ExitCode {
    // Before anything is read or started: this process is given somebody's module.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == REGO)
    {
        return rego::serve();
    }
    let args = match cli::args::parse() {
        Ok(args) => args,
        Err(code) => return code,
    };
    start_log(&args);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return Failure::ours("start threads", &error).report(args.json()),
    };
    let (json, options) = (args.json(), args.options.clone());
    let code = match runtime.block_on(dispatch(args)) {
        Ok(code) => code,
        Err(failure) => failure.report_of(json, &options),
    };
    // A thread may be stuck reading a terminal; nobody waits for it.
    runtime.shutdown_background();
    code
}

async fn dispatch(args: Args) -> Result<ExitCode, Failure> {
    match args.command {
        Command::Run(run) => dispatch_run(&args.place, run).await,
        Command::Up(up) => up::up(&args.place, &up).await,
        Command::Server(asked) => dispatch_server(&args.place, asked).await,
        Command::Node(asked) => dispatch_node(&args.place, asked).await,
        Command::Config(asked) => match asked.command {
            ConfigCommand::Check { file } => config::check(&file),
        },
        Command::Job(job) => {
            let (client, _here) = compose::client(&args.place, Absent::Mistyped).await?;
            cli::job::job(&client, job).await
        }
        Command::Sandbox(sandbox) => {
            let client = compose::server(&args.place).await?;
            cli::sandbox::sandbox(&client, sandbox).await
        }
        Command::Egress(egress) => {
            let (client, _here) = compose::client(&args.place, Absent::Mistyped).await?;
            cli::egress::egress(&client, egress).await
        }
        Command::Audit(audit) => {
            let (client, _here) = compose::client(&args.place, Absent::Mistyped).await?;
            cli::audit::audit(&client, audit).await
        }
        Command::Secret(secret) => {
            let (client, _here) = compose::client(&args.place, Absent::Made).await?;
            cli::secret::secret(&client, secret).await
        }
        Command::Profile(profile) => {
            let (client, _here) = compose::client(&args.place, Absent::Made).await?;
            cli::profile::profile(&client, profile).await
        }
        Command::Policy(policy) => {
            let (client, _here) = compose::client(&args.place, Absent::Made).await?;
            cli::policy::policy(&client, policy).await
        }
        Command::Approval(approval) => {
            let (client, _here) = compose::client(&args.place, Absent::Made).await?;
            cli::approval::approval(&client, approval).await
        }
        Command::Volume(volume) => {
            let client = compose::server(&args.place).await?;
            cli::volume::volume(&client, volume).await
        }
        Command::Snapshot(snapshot) => {
            let client = compose::server(&args.place).await?;
            cli::snapshot::snapshot(&client, snapshot).await
        }
        Command::People(people) => {
            let (client, _here) = compose::client(&args.place, Absent::Made).await?;
            cli::people::people(&client, people).await
        }
        Command::Login(asked) => dispatch_login(&args.place, asked).await,
        Command::Doctor(asked) => doctor::doctor(&args.place, &asked).await,
        Command::Mcp(asked) => match asked.command {
            None => mcp::serve(&args.place).await,
            Some(command) => cli::mcp::install(&args.place, command),
        },
        Command::Env { of: Foreign::E2b } => env::e2b(&args.place).await,
        Command::Completions { shell } => cli::args::completions(shell),
    }
}

async fn dispatch_run(place: &Place, run: Run) -> Result<ExitCode, Failure> {
    let (client, here) = compose::client_for_run(place, run.detach, run.root.as_deref()).await?;
    let node = here.as_ref().map(compose::Here::node);
    let is_here = here.is_some();
    let others_come = move || !is_here && reach::others_come(place);
    let code = cli::run::run(&client, node, run, others_come).await;
    if let Some(here) = here {
        here.leave().await;
    }
    code
}

async fn dispatch_login(place: &Place, asked: LoginCommand) -> Result<ExitCode, Failure> {
    match asked {
        LoginCommand::Login(login) => cli::login::login(place, login).await,
        LoginCommand::Logout { server, json } => {
            cli::login::logout(place, server.as_deref(), json).await
        }
        LoginCommand::Whoami { json } => {
            let (client, _here) = compose::client(place, Absent::Mistyped).await?;
            cli::login::whoami(&client, json).await
        }
    }
}

async fn dispatch_server(place: &Place, asked: ServerArgs) -> Result<ExitCode, Failure> {
    match &asked.command {
        None => server::server(place, &asked).await,
        Some(command) => {
            let client = compose::server(place).await?;
            cli::fleet::server(&client, command).await
        }
    }
}

async fn dispatch_node(place: &Place, asked: NodeArgs) -> Result<ExitCode, Failure> {
    match asked.command {
        None => node::run(place, &asked.run).await,
        Some(NodeCommand::Enroll { server, name }) => node::enroll(place, &server, name).await,
        Some(NodeCommand::Reap {
            apply,
            idle,
            age,
            json,
        }) => {
            let now_ms = service::Clock::system().now_ms();
            let bounds = reap::Bounds { idle, age, now_ms };
            reap::reap(place, bounds, (apply, json)).await
        }
        Some(NodeCommand::Tape { json }) => tape::tape(place, json).await,
        Some(command) => {
            let client = compose::server(place).await?;
            cli::fleet::node(&client, command).await
        }
    }
}

/// Logs go to standard error: of `up` what a person who serves wants to know, of the others only errors,
/// because there standard error is the program's; unless `COFFERDAM_LOG` says otherwise. Colours are for
/// terminals: a log that goes to a file is read with other tools.
fn start_log(args: &Args) {
    use std::io::IsTerminal as _;
    use tracing_subscriber::EnvFilter;
    // The SDK of the Model Context Protocol has a line for every request, with what it says, and errors
    // for clients that have gone away.
    let is_node = matches!(&args.command, Command::Node(node) if node.command.is_none());
    let is_server = matches!(&args.command, Command::Server(server) if server.command.is_none());
    let serves = is_node || is_server || matches!(args.command, Command::Up(_));
    let default = if serves { "info,rmcp=off" } else { "error" };
    let filter =
        EnvFilter::try_from_env("COFFERDAM_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(!is_plain && std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
}

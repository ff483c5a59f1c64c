//! What can be written on the command line. The doc comments here are the help.

mod approval;
mod audit;
mod egress;
mod fleet;
mod inside;
mod job;
mod login;
mod mcp;
mod net;
mod people;
mod placement;
mod policy;
mod profile;
mod quota;
mod secret;
mod volume;

use crate::cli::failure::Failure;
use crate::cli::{units, usage};
use crate::keys::KeyPlace;
use crate::providers::Provider;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use model::limits::{NODE_JOBS_MAX, NODE_SANDBOXES_MAX};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

pub(crate) use self::audit::{AuditArgs, AuditCommand, AuditFilter};
pub(crate) use self::egress::{EgressArgs, EgressCommand, EgressLog};
pub(crate) use approval::{ApprovalArgs, ApprovalCommand, ApprovalStateArg, ScopeArg, YesArgs};
pub(crate) use fleet::{
    ConfigArgs, ConfigCommand, NodeArgs, NodeCommand, NodeRun, ServerArgs, ServerCommand,
};
pub(crate) use inside::{SandboxCp, SandboxExec, SandboxPort, SandboxShell};
pub(crate) use job::{JobArgs, JobCommand, JobLs};
pub(crate) use login::{LoginArgs, LoginCommand};
pub(crate) use mcp::{McpArgs, McpClient, McpCommand, McpInstall};
pub(crate) use net::{NetArgs, NetCommand, rule_text};
pub(crate) use people::{
    KeyCommand, Kind, PeopleCommand, PrincipalCommand, RoleArg, TenantCommand,
};
pub(crate) use placement::PlacementArgs;
pub(crate) use policy::{PolicyArgs, PolicyCommand};
pub(crate) use profile::{ProfileArgs, ProfileCommand};
pub(crate) use quota::QuotaCommand;
pub(crate) use secret::{Scrub, SecretArgs, SecretCommand};
pub(crate) use volume::{VolumeArgs, VolumeCommand};

/// Run code that nobody has reason to trust where it can do no harm, and keep a record of what it did.
#[derive(Debug, Parser)]
#[command(name = "cofferdam", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(subcommand)]
    pub(crate) command: Command,
    /// The long options that the command has, whether or not they were given.
    #[arg(skip)]
    pub(crate) options: Vec<String>,
}

const EXIT_CODES: &str = "Exit codes of `run` and `sandbox exec`: the program's own; 124 its time was over; 125 \
cofferdam's own failure, a wrong option among them; 126 the program cannot be run; 127 there is no such \
program; 128+N signal N ended it; 137 it was canceled; 141 nobody reads its output.";

const JSON_OF_RUN: &str = "Print one JSON object and nothing else: the outcome, times, usage, what was \
enforced, the artifacts, and what the command wrote, as `stdout.text` and `stderr.text`";

/// The most sandboxes that are kept ready: each holds memory and is used once.
pub(crate) const SPARES_MAX: u32 = 64;

/// Where the server or its state is.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Server and state")]
pub(crate) struct Place {
    /// Directory of the database, the artifacts and the socket, for this user alone; by default
    /// cofferdam in $XDG_STATE_HOME or ~/.local/state
    #[arg(
        long,
        global = true,
        env = "COFFERDAM_STATE",
        value_name = "DIR",
        value_hint = clap::ValueHint::DirPath,
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    pub(crate) state: Option<PathBuf>,
    /// A server to use: https://HOST[:PORT], http://HOST:PORT or unix:/PATH; otherwise the one whose socket is in the state
    /// directory, otherwise none
    #[arg(long, global = true, env = "COFFERDAM_URL", value_name = "URL")]
    pub(crate) url: Option<String>,
    /// The token for a server at http:// or https://; by default that of `cofferdam login`, and for one on this machine the
    /// one in the state directory
    #[arg(
        long,
        global = true,
        env = "COFFERDAM_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub(crate) token: Option<String>,
    /// A file of certificates to trust at https://, in place of those that this machine trusts
    #[arg(
        long,
        global = true,
        env = "COFFERDAM_CA",
        value_name = "FILE",
        value_hint = clap::ValueHint::FilePath,
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    pub(crate) ca: Option<PathBuf>,
    /// Where the master key of secrets is: file:PATH, env:NAME or exec:COMMAND; by default the file
    /// secret.key in the state directory, made on first use
    #[arg(
        long,
        global = true,
        env = "COFFERDAM_SECRET_KEY",
        hide_env_values = true,
        value_parser = KeyPlace::parse,
        value_name = "PLACE"
    )]
    pub(crate) secret_key: Option<KeyPlace>,
    /// Where a master key before it is, for a change of the key: what it seals is sealed with the new
    /// one at the start; may be repeated
    #[arg(long, global = true, value_parser = KeyPlace::parse, value_name = "PLACE")]
    pub(crate) secret_key_before: Vec<KeyPlace>,
    /// Where values of secrets are that are not kept here: NAME=env:PREFIX, NAME=file:DIRECTORY,
    /// NAME=exec:COMMAND or NAME=vault:URL; whoever may set secrets may read all that it can give; may be
    /// repeated
    #[arg(long, global = true, value_parser = Provider::parse, value_name = "PROVIDER")]
    pub(crate) secret_provider: Vec<Provider>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one command in a sandbox of its own
    Run(Run),
    /// Look at jobs, read their output, cancel them
    Job(JobArgs),
    /// Make sandboxes that live on, run commands in them, copy files, pause them, take them away
    Sandbox(SandboxArgs),
    /// Look at what sandboxes have asked of the outside, and what would become of a URL
    Egress(EgressArgs),
    Audit(AuditArgs),
    /// Keep values that sandboxes may use and nobody may read back
    Secret(SecretArgs),
    Profile(ProfileArgs),
    Policy(PolicyArgs),
    Approval(ApprovalArgs),
    Volume(VolumeArgs),
    /// Look at saved file systems of sandboxes, give them up
    Snapshot(SnapshotArgs),
    /// Serve: control plane and node in one process
    Up(Up),
    Server(ServerArgs),
    Node(NodeArgs),
    Config(ConfigArgs),
    #[command(flatten)]
    People(PeopleCommand),
    #[command(flatten)]
    Login(LoginCommand),
    /// Give a model tools to run code with: the Model Context Protocol on standard input and output
    Mcp(McpArgs),
    /// Say what this machine can and cannot enforce, and what to do about it
    Doctor(Doctor),
    /// Print what the clients of another system need to use the server that runs, for a shell:
    /// eval "$(cofferdam env e2b)"
    Env {
        /// Whose clients
        #[arg(value_enum, value_name = "SYSTEM")]
        of: Foreign,
    },
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// A system whose clients are served too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Foreign {
    /// E2B's SDKs and its command line
    E2b,
}

/// Run one command in a sandbox of its own. It has no network unless you give it one, sees the programs of this machine
/// read-only, and can write to its home, /tmp, /var/tmp and /dev/shm, all of which are gone afterwards.
#[derive(Debug, Clone, clap::Args)]
#[command(override_usage = "cofferdam run [OPTIONS] -- COMMAND [ARGUMENT]...")]
pub(crate) struct Run {
    /// The recipe for the sandbox: see `cofferdam profile`
    #[arg(long, value_name = "NAME[:VERSION]")]
    pub(crate) profile: Option<String>,
    /// How long it may run, such as 30s, 5m or 2h
    #[arg(
        long,
        value_parser = units::duration,
        value_name = "TIME",
        default_value = "5m",
        allow_negative_numbers = true
    )]
    pub(crate) timeout: Duration,
    /// Processors it may use, such as 1 or 0.5
    #[arg(long, value_parser = units::cpus, value_name = "CPUS", allow_negative_numbers = true)]
    pub(crate) cpu: Option<u32>,
    /// Memory it may use, such as 512M
    #[arg(long, value_parser = units::size, value_name = "SIZE", allow_negative_numbers = true)]
    pub(crate) memory: Option<u64>,
    /// Processes and threads it may have
    #[arg(long, value_parser = units::count, value_name = "N", allow_negative_numbers = true)]
    pub(crate) pids: Option<u32>,
    /// Storage it may fill, such as 1G. It is memory, and counts beside --memory
    #[arg(long, value_parser = units::size, value_name = "SIZE", allow_negative_numbers = true)]
    pub(crate) disk: Option<u64>,
    /// A variable of its environment; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) env: Vec<String>,
    /// A secret that it may use: as the file /dev/shm/secrets/NAME, or with =env:VARIABLE as a variable,
    /// which every child inherits; may be repeated
    #[arg(long, value_name = "NAME[=HOW]")]
    pub(crate) secret: Vec<String>,
    /// Take out of its output what looks like a credential too, such as a token of GitHub or a private key
    #[arg(long, value_name = "WHAT")]
    pub(crate) scrub: Option<Scrub>,
    #[command(flatten)]
    pub(crate) net: NetArgs,
    #[command(flatten)]
    pub(crate) placement: PlacementArgs,
    /// A file to put into the sandbox, at DST or under its own name in the home; may be repeated. DST
    /// begins after the last colon
    #[arg(long, value_name = "SRC[:DST]", value_hint = clap::ValueHint::FilePath)]
    pub(crate) file: Vec<String>,
    /// A file to get out of the sandbox when it has ended, into this directory; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(crate) out: Vec<String>,
    /// The directory to start in, inside the sandbox
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<String>,
    /// A root file system to use instead of this machine's programs: the name of one that `cofferdam up`
    /// was given, or a directory, which begins with `/` or `.`
    #[arg(long, value_name = "NAME|DIR", value_hint = clap::ValueHint::DirPath)]
    pub(crate) root: Option<String>,
    #[arg(long, help = JSON_OF_RUN)]
    pub(crate) json: bool,
    /// Print the job's id and return at once; the job goes on
    #[arg(long, conflicts_with = "out")]
    pub(crate) detach: bool,
    /// The program and its arguments
    #[arg(
        last = true,
        required = true,
        value_name = "COMMAND",
        value_hint = clap::ValueHint::CommandWithArguments
    )]
    pub(crate) command: Vec<String>,
}

/// Serve until SIGTERM or Ctrl-C. Sandboxes that still run then are found again at the next start.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Up {
    /// Where to listen for HTTP, on a loopback address unless there is TLS; the token is in the state
    /// directory
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7300", value_parser = address)]
    pub(crate) listen: SocketAddr,
    /// Speak TLS there: `self` with a certificate of our own, which `cofferdam env e2b` makes clients
    /// trust; or the files of yours, a chain and its key
    #[arg(
        long,
        value_name = "self|CERT.pem,KEY.pem",
        conflicts_with = "no_listen"
    )]
    pub(crate) tls: Option<String>,
    /// A domain below which sandboxes have names, {port}-{id}.NAME, and the port at which clients find
    /// it, if it is another; with `--tls self`, sbx.localhost when absent
    #[arg(long, value_name = "NAME[:PORT]", conflicts_with = "no_listen")]
    pub(crate) domain: Option<String>,
    /// Only the Unix socket, no TCP
    #[arg(long)]
    pub(crate) no_listen: bool,
    /// Jobs at one time
    #[arg(
        long,
        value_name = "N",
        default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(NODE_JOBS_MAX)),
        allow_negative_numbers = true
    )]
    pub(crate) slots: u32,
    /// Sandboxes that live on at one time
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(..=i64::from(NODE_SANDBOXES_MAX)))]
    pub(crate) sandboxes: u32,
    /// Sandboxes that are kept ready for the next jobs, each used once; 0 keeps none
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(..=i64::from(SPARES_MAX)))]
    pub(crate) spares: u32,
    /// How long such a sandbox is kept unused
    #[arg(long, hide = true, value_parser = units::duration, default_value = "10m")]
    pub(crate) spare_life: Duration,
    /// An address, or a block of them, that sandboxes with a way out may reach although it is not public: the
    /// machine itself, its network; may be repeated
    #[arg(long, value_name = "ADDRESS[/BITS][:PORT]")]
    pub(crate) egress_allow: Vec<String>,
    /// A root file system that sandboxes can have by this name, such as debian:bookworm=/srv/bookworm; may
    /// be repeated. Those in the directory `roots` of the state have the names of their directories
    #[arg(long, value_name = "NAME=DIR")]
    pub(crate) root: Vec<String>,
    /// A file with certificates of authorities, in PEM, that are believed when a secret is added to a request on its
    /// way out, beside those that this machine believes; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) egress_trust: Vec<PathBuf>,
    /// Where sandboxes that are held to a list of Python packages get them from, by way of an index of their own
    #[arg(long, value_name = "URL", default_value = "https://pypi.org/simple")]
    pub(crate) pip_index: String,
    /// The same of JavaScript packages
    #[arg(long, value_name = "URL", default_value = "https://registry.npmjs.org")]
    pub(crate) npm_registry: String,
    /// End when there has been nothing to do for this long
    #[arg(long, hide = true, value_parser = units::duration)]
    pub(crate) idle_exit: Option<Duration>,
    /// How to isolate: `linux`, or `fake` for tests of the control plane, which runs nothing
    #[arg(long, hide = true, default_value = "linux")]
    pub(crate) driver: String,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SandboxArgs {
    #[command(subcommand)]
    pub(crate) command: SandboxCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum SandboxCommand {
    /// Make one, and wait until it can be used
    Create(SandboxNew),
    /// List those that are not over, newest first
    Ls {
        /// Those that are over too
        #[arg(long)]
        all: bool,
        /// At most so many, 1 to 500
        #[arg(
            long,
            value_name = "N",
            default_value_t = 20,
            value_parser = clap::value_parser!(u32).range(1..=500),
            allow_negative_numbers = true
        )]
        limit: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one: where it is in its life, what was enforced
    Get {
        /// Its id
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    Exec(SandboxExec),
    Shell(SandboxShell),
    Cp(SandboxCp),
    Port(SandboxPort),
    /// Show what was run in it, newest first: when, by whom, and how it ended
    Log {
        /// Its id
        id: String,
        /// At most so many, 1 to 500
        #[arg(
            long,
            value_name = "N",
            default_value_t = 50,
            value_parser = clap::value_parser!(u32).range(1..=500),
            allow_negative_numbers = true
        )]
        limit: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Stop everything in it in its tracks, and keep it
    Pause {
        /// Its id
        id: String,
        /// End what runs in it, and keep its files
        #[arg(long)]
        no_memory: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Let one that is paused go on
    Resume {
        /// Its id
        id: String,
        /// Begin with its files alone: what ran in it ends
        #[arg(long)]
        no_memory: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say how long it lives from now on
    Ttl {
        /// Its id
        id: String,
        /// Such as 30m
        #[arg(value_parser = units::duration, allow_negative_numbers = true)]
        time: Duration,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what it may reach, or say it anew: with options, these are all the rules from now on
    Net(NetCommand),
    /// Save what was written in it, for others to begin with. Files are kept; what runs is not
    Snapshot {
        /// Its id
        id: String,
        /// What the snapshot is called, such as env or env:v1
        #[arg(long)]
        name: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make one that begins with a snapshot, and wait until it can be used
    Restore {
        /// The snapshot: its id or its name
        snapshot: String,
        #[command(flatten)]
        new: SandboxNew,
    },
    /// Make others that begin with what was written in it. What runs in it is not in them
    Fork(SandboxForkArgs),
    /// Give it another place, as it was asked to be at first: what runs in it ends, what was written is gone
    Recreate {
        /// Its id
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take it away; its record stays
    Rm {
        /// Its id
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SnapshotArgs {
    #[command(subcommand)]
    pub(crate) command: SnapshotCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// List those that are not deleted, newest first
    Ls {
        /// Only those of this sandbox
        #[arg(long, value_name = "ID")]
        sandbox: Option<String>,
        /// Only those that are called so
        #[arg(long)]
        name: Option<String>,
        /// At most so many, 1 to 500
        #[arg(
            long,
            value_name = "N",
            default_value_t = 20,
            value_parser = clap::value_parser!(u32).range(1..=500),
            allow_negative_numbers = true
        )]
        limit: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one
    Get {
        /// Its id, or its name: NAME or NAME:TAG
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Give it up. Sandboxes that began with it stay
    Rm {
        /// Its id, or its name: NAME or NAME:TAG
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SandboxForkArgs {
    /// Its id
    pub(crate) id: String,
    /// So many, 1 to 100
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=100),
        allow_negative_numbers = true
    )]
    pub(crate) count: u32,
    /// How long each lives, such as 30m; as long as the first when absent
    #[arg(long, value_parser = units::duration, value_name = "TIME", allow_negative_numbers = true)]
    pub(crate) ttl: Option<Duration>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag that people type"
)]
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SandboxNew {
    /// A name for people
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The recipe: see `cofferdam profile`
    #[arg(long, value_name = "NAME[:VERSION]")]
    pub(crate) profile: Option<String>,
    /// How long it lives, such as 30m; 15 minutes when absent, a day at most
    #[arg(long, value_parser = units::duration, value_name = "TIME", allow_negative_numbers = true)]
    pub(crate) ttl: Option<Duration>,
    /// Pause it when its time is over, instead of taking it away
    #[arg(long)]
    pub(crate) pause_on_expiry: bool,
    /// When it is paused so, end what runs in it, and keep its files
    #[arg(long, requires = "pause_on_expiry")]
    pub(crate) no_memory: bool,
    /// Allow commands as its own root, who is nobody outside: sudo, packages, snapshots need it
    #[arg(long)]
    pub(crate) allow_root: bool,
    /// Let it out to everything public: short for --net unrestricted
    #[arg(long)]
    pub(crate) internet: bool,
    /// A root file system to use instead of the node's programs: the name of one that `cofferdam up` was
    /// given, or a directory, which begins with `/` or `.`
    #[arg(long, value_name = "NAME|DIR", value_hint = clap::ValueHint::DirPath)]
    pub(crate) root: Option<String>,
    #[command(flatten)]
    pub(crate) net: NetArgs,
    #[command(flatten)]
    pub(crate) placement: PlacementArgs,
    /// Processors it may use, such as 1 or 0.5
    #[arg(long, value_parser = units::cpus, value_name = "CPUS", allow_negative_numbers = true)]
    pub(crate) cpu: Option<u32>,
    /// Memory it may use, such as 512M
    #[arg(long, value_parser = units::size, value_name = "SIZE", allow_negative_numbers = true)]
    pub(crate) memory: Option<u64>,
    /// Processes and threads it may have
    #[arg(long, value_parser = units::count, value_name = "N", allow_negative_numbers = true)]
    pub(crate) pids: Option<u32>,
    /// Storage it may fill, such as 1G. It is memory, unless it is more than 1 GiB, --allow-root is given and
    /// the node is root: then it is on the node's disk
    #[arg(long, value_parser = units::size, value_name = "SIZE", allow_negative_numbers = true)]
    pub(crate) disk: Option<u64>,
    /// A variable of every command in it; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) env: Vec<String>,
    /// A secret that it may use: as the file /dev/shm/secrets/NAME, or with =env:VARIABLE as a variable,
    /// which every child inherits; may be repeated
    #[arg(long, value_name = "NAME[=HOW]")]
    pub(crate) secret: Vec<String>,
    /// Take out of what its commands, terminals and contexts write what looks like a credential too, such as a token
    /// of GitHub or a private key
    #[arg(long, value_name = "WHAT")]
    pub(crate) scrub: Option<Scrub>,
    /// A volume in its files; needs --allow-root; may be repeated
    #[arg(long, value_name = "NAME:PATH[:ro]")]
    pub(crate) volume: Vec<String>,
    /// A label to find it by; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) metadata: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Says `ok`, `warn`, `fail` or `skip` for each thing that isolation needs, and what to do. Fails when no
/// sandbox can be made.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Doctor {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// An address to listen on.
fn address(text: &str) -> Result<SocketAddr, String> {
    let wrong = |_| "it is no address with a port, such as 127.0.0.1:7300".to_owned();
    text.parse().map_err(wrong)
}

/// Reads the command line of this process.
pub(crate) fn parse() -> Result<Args, ExitCode> {
    let words: Vec<OsString> = std::env::args_os().collect();
    parse_from(words.clone()).map_err(|error| usage::refuse(&error, &words))
}

fn parse_from(words: Vec<OsString>) -> Result<Args, clap::Error> {
    let mut whole = command();
    let matches = whole.try_get_matches_from_mut(words)?;
    let mut args = Args::from_arg_matches(&matches)?;
    args.options = options_of(&whole, &matches);
    // `COFFERDAM_URL= cofferdam ...` is how a shell says that there is none.
    args.place.state = args.place.state.filter(|dir| !dir.as_os_str().is_empty());
    args.place.url = args.place.url.filter(|url| !url.is_empty());
    args.place.token = args.place.token.filter(|token| !token.is_empty());
    args.place.ca = args.place.ca.filter(|path| !path.as_os_str().is_empty());
    Ok(args)
}

/// The long options of the command that was typed.
fn options_of(whole: &clap::Command, matches: &clap::ArgMatches) -> Vec<String> {
    let (mut command, mut matches) = (whole, matches);
    while let Some((name, below)) = matches.subcommand()
        && let Some(of_name) = command.find_subcommand(name)
    {
        (command, matches) = (of_name, below);
    }
    let longs = command.get_opts().filter_map(|option| option.get_long());
    longs.map(str::to_owned).collect()
}

impl Args {
    /// Whether errors are to be JSON too.
    pub(crate) fn json(&self) -> bool {
        match &self.command {
            Command::Run(run) => run.json,
            Command::Doctor(doctor) => doctor.json,
            Command::Job(job) => match &job.command {
                JobCommand::Ls(JobLs { json, .. })
                | JobCommand::Get { json, .. }
                | JobCommand::Logs { json, .. }
                | JobCommand::Cancel { json, .. }
                | JobCommand::Artifacts { json, .. } => *json,
            },
            Command::Sandbox(sandbox) => match &sandbox.command {
                SandboxCommand::Create(new) | SandboxCommand::Restore { new, .. } => new.json,
                SandboxCommand::Fork(fork) => fork.json,
                SandboxCommand::Exec(exec) => exec.json,
                SandboxCommand::Shell(_) | SandboxCommand::Cp(_) | SandboxCommand::Port(_) => false,
                SandboxCommand::Ls { json, .. }
                | SandboxCommand::Get { json, .. }
                | SandboxCommand::Log { json, .. }
                | SandboxCommand::Pause { json, .. }
                | SandboxCommand::Resume { json, .. }
                | SandboxCommand::Ttl { json, .. }
                | SandboxCommand::Net(NetCommand { json, .. })
                | SandboxCommand::Snapshot { json, .. }
                | SandboxCommand::Recreate { json, .. }
                | SandboxCommand::Rm { json, .. } => *json,
            },
            Command::Egress(egress) => egress.json(),
            Command::Audit(audit) => audit.json(),
            Command::Secret(secret) => secret.json(),
            Command::Profile(profile) => profile.json(),
            Command::Policy(policy) => policy.json(),
            Command::Approval(approval) => approval.json(),
            Command::Volume(volume) => volume.command.json(),
            Command::People(people) => people.json(),
            Command::Login(login) => login.json(),
            Command::Snapshot(snapshot) => match &snapshot.command {
                SnapshotCommand::Ls { json, .. }
                | SnapshotCommand::Get { json, .. }
                | SnapshotCommand::Rm { json, .. } => *json,
            },
            Command::Node(node) => node.json(),
            Command::Server(server) => server.json(),
            Command::Mcp(_)
            | Command::Up(_)
            | Command::Config(_)
            | Command::Env { .. }
            | Command::Completions { .. } => false,
        }
    }
}

/// Where the server or its state is, and what belongs to it.
const ALL_OF_PLACE: &[&str] = &[
    "state",
    "url",
    "token",
    "ca",
    "secret_key",
    "secret_key_before",
    "secret_provider",
];

/// The command line, with those of the common options hidden that a command has no use for. They are
/// accepted there all the same, because they stand in the environment of those who use a server.
pub(crate) fn command() -> clap::Command {
    let whole = Args::command();
    let unused: [(&str, &[&str]); 4] = [
        ("up", &["url", "token", "ca"]),
        ("doctor", &["url", "token", "ca"]),
        ("completions", ALL_OF_PLACE),
        ("config", ALL_OF_PLACE),
    ];
    unused.into_iter().fold(whole, |whole, (name, ids)| {
        let args = whole
            .get_arguments()
            .filter(|arg| ids.contains(&arg.get_id().as_str()));
        let hidden: Vec<clap::Arg> = args.map(|arg| arg.clone().hide(true)).collect();
        whole.mut_subcommand(name, |command| command.args(hidden))
    })
}

/// Prints completions.
pub(crate) fn completions(shell: clap_complete::Shell) -> Result<ExitCode, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command(), "cofferdam", &mut text);
    crate::cli::table::print(&String::from_utf8_lossy(&text))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests;

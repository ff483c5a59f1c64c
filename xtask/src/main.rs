//! The workshop: everything that a person or a machine does *to* Cofferdam rather than *with* it.
//!
//! `cargo xtask test` is what CI does and nothing more; `cargo xtask demo` is what a newcomer
//! types first. Each command says what it runs before it runs it, so that whoever wants one part
//! can copy the line.
//!
//! [`tidy`] keeps the house in order: which room may import which, where an outside crate lives,
//! how long a function may be. Its checks are pure functions over a [`tidy::Tree`], so that each
//! has a test that feeds it bad input, and they are tests themselves.
//!
//! This room must never be needed at run time, must never import another room of the workspace
//! (it drives the real binary, as a person does), and must never change a machine without having
//! printed the command that does it.

mod demo;
mod fuzz;
mod install;
mod process;
mod release;
mod say;
mod sdk;
mod skips;
mod suite;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use workspace::Workspace;

/// Builds, tests and shows Cofferdam.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Builds the one self-contained release binary
    Build,
    /// Installs what the tests need, then runs formatter, linter, tidy checks and every test
    Test {
        /// Only tests whose name contains one of these words; the checks before them still run
        filter: Vec<String>,
    },
    /// Runs the main job on real-looking data, then three hostile programs
    Demo,
    /// Measures against other systems on this machine; arguments are passed on
    Bench {
        /// What `bench` itself takes; try `-- --help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Searches for inputs that break what reads bytes of others, guided by the code that they reach
    Fuzz {
        /// Only targets whose room or name contains this word
        target: Option<String>,
        /// How long for each, in seconds
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Put what is found into the corpus, fuzz/corpus
        #[arg(long)]
        keep: bool,
    },
    /// Checks the rules of the house that the compiler does not know
    Tidy,
    /// Installs what the tests need (root on Debian or Ubuntu), or says how
    InstallDeps,
}

fn main() -> ExitCode {
    match run(Cli::parse().what) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(what: What) -> Result<()> {
    let workspace = Workspace::find()?;
    match what {
        What::Build => release::build(&workspace).map(drop),
        What::Test { filter } => suite::run(&workspace, &filter),
        What::Demo => demo::run(&workspace),
        What::Bench { args } => release::bench(&workspace, &args),
        What::Fuzz {
            target,
            seconds,
            keep,
        } => fuzz::run(&workspace, target.as_deref(), seconds, keep),
        What::Tidy => tidy::run(&workspace),
        What::InstallDeps => install::run(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}

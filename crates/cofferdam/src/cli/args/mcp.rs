//! `cofferdam mcp`.

use clap::Subcommand;

/// Without a command: serve one client on standard input and output, until it closes them. A server that
/// runs on the state directory is used; else control plane and node are in this process, and what they made
/// ends with it.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct McpArgs {
    #[command(subcommand)]
    pub(crate) command: Option<McpCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum McpCommand {
    /// Write us into the configuration of clients; those that are here when none is named
    Install(McpInstall),
    /// Take us out of the configuration of clients
    Uninstall(McpInstall),
}

#[derive(Debug, clap::Args)]
pub(crate) struct McpInstall {
    /// A client; may be repeated
    #[arg(long, value_enum, value_name = "CLIENT")]
    pub(crate) client: Vec<McpClient>,
    /// Say what would be written, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print what belongs into the configuration, for a person who puts it there
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) print: bool,
}

/// A client whose configuration we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum McpClient {
    /// Claude Code
    ClaudeCode,
    /// Claude Desktop
    ClaudeDesktop,
    /// Cursor
    Cursor,
    /// Visual Studio Code
    Vscode,
    /// Codex
    Codex,
    /// Zed
    Zed,
    /// Windsurf
    Windsurf,
    /// Gemini CLI
    Gemini,
}

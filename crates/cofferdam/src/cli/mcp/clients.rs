//! Where clients of the Model Context Protocol keep what servers they start: pure.

use crate::cli::args::McpClient;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Every client that we know.
pub(crate) const ALL: [McpClient; 8] = [
    McpClient::ClaudeCode,
    McpClient::ClaudeDesktop,
    McpClient::Cursor,
    McpClient::Vscode,
    McpClient::Codex,
    McpClient::Zed,
    McpClient::Windsurf,
    McpClient::Gemini,
];

/// The name under which clients know us.
pub(crate) const NAME: &str = "cofferdam";

/// How a configuration is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Toml,
}

/// What starts us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
}

/// What a client's configuration is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Config {
    pub(crate) name: &'static str,
    /// Where servers are, by name.
    pub(crate) key: &'static str,
    pub(crate) format: Format,
    /// Below the home directory; on macOS, where that is another place.
    file: &'static str,
    file_on_macos: Option<&'static str>,
    /// One of these is there where the client is. Below the home directory.
    signs: &'static [&'static str],
    /// Says that a server is started, and not reached.
    has_type: bool,
}

pub(crate) const fn config(client: McpClient) -> Config {
    let plain = Config {
        name: "",
        key: "mcpServers",
        format: Format::Json,
        file: "",
        file_on_macos: None,
        signs: &[],
        has_type: false,
    };
    match client {
        McpClient::ClaudeCode => Config {
            name: "Claude Code",
            file: ".claude.json",
            signs: &[".claude.json", ".claude"],
            has_type: true,
            ..plain
        },
        McpClient::ClaudeDesktop => Config {
            name: "Claude Desktop",
            file: ".config/Claude/claude_desktop_config.json",
            file_on_macos: Some("Library/Application Support/Claude/claude_desktop_config.json"),
            signs: &[".config/Claude", "Library/Application Support/Claude"],
            ..plain
        },
        McpClient::Cursor => Config {
            name: "Cursor",
            file: ".cursor/mcp.json",
            signs: &[".cursor"],
            ..plain
        },
        McpClient::Vscode => Config {
            name: "Visual Studio Code",
            key: "servers",
            file: ".config/Code/User/mcp.json",
            file_on_macos: Some("Library/Application Support/Code/User/mcp.json"),
            signs: &[".config/Code/User", "Library/Application Support/Code/User"],
            has_type: true,
            ..plain
        },
        McpClient::Codex => Config {
            name: "Codex",
            key: "mcp_servers",
            format: Format::Toml,
            file: ".codex/config.toml",
            signs: &[".codex"],
            ..plain
        },
        McpClient::Zed => Config {
            name: "Zed",
            key: "context_servers",
            file: ".config/zed/settings.json",
            signs: &[".config/zed"],
            ..plain
        },
        McpClient::Windsurf => Config {
            name: "Windsurf",
            file: ".codeium/windsurf/mcp_config.json",
            signs: &[".codeium/windsurf"],
            ..plain
        },
        McpClient::Gemini => Config {
            name: "Gemini CLI",
            file: ".gemini/settings.json",
            signs: &[".gemini"],
            ..plain
        },
    }
}

impl Config {
    /// Where it is kept.
    pub(crate) fn path(&self, home: &Path, is_macos: bool) -> PathBuf {
        let file = self.file_on_macos.filter(|_| is_macos);
        home.join(file.unwrap_or(self.file))
    }

    /// Where something is if the client is.
    pub(crate) fn signs(&self, home: &Path) -> Vec<PathBuf> {
        self.signs.iter().map(|sign| home.join(sign)).collect()
    }

    /// What it says of us.
    pub(crate) fn entry(&self, start: &Start) -> Value {
        let mut entry = json!({"command": start.program, "args": start.arguments});
        if self.has_type {
            entry["type"] = "stdio".into();
        }
        entry
    }

    /// All that a configuration without anything else says.
    pub(crate) fn whole(&self, start: &Start) -> String {
        match self.format {
            Format::Json => {
                let whole = json!({self.key: {NAME: self.entry(start)}});
                serde_json::to_string_pretty(&whole).unwrap_or_default() + "\n"
            }
            Format::Toml => {
                let quoted = |text: &String| Value::from(text.as_str()).to_string();
                let arguments: Vec<String> = start.arguments.iter().map(quoted).collect();
                format!(
                    "[{}.{NAME}]\ncommand = {}\nargs = [{}]\n",
                    self.key,
                    quoted(&start.program),
                    arguments.join(", ")
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Start {
        Start {
            program: "/usr/bin/cofferdam".to_owned(),
            arguments: vec![
                "mcp".to_owned(),
                "--state".to_owned(),
                "/s \"q\"".to_owned(),
            ],
        }
    }

    #[test]
    fn every_client_has_a_place_and_what_it_is_told() {
        for client in ALL {
            let config = config(client);
            let path = config.path(Path::new("/home/ada"), false);
            assert!(path.starts_with("/home/ada") && path != Path::new("/home/ada"));
            assert!(
                config.whole(&start()).contains("/usr/bin/cofferdam"),
                "{client:?}"
            );
            assert!(!config.signs.is_empty());
        }
    }

    #[test]
    fn what_is_told_is_what_these_clients_read() {
        let text = config(McpClient::Codex).whole(&start());
        let expect = "[mcp_servers.cofferdam]\ncommand = \"/usr/bin/cofferdam\"\n\
                      args = [\"mcp\", \"--state\", \"/s \\\"q\\\"\"]\n";
        assert_eq!(text, expect);
        let entry = config(McpClient::Vscode).entry(&start());
        assert_eq!(
            (&entry["type"], &entry["args"][0]),
            (&json!("stdio"), &json!("mcp"))
        );
        assert!(
            config(McpClient::Cursor)
                .entry(&start())
                .get("type")
                .is_none()
        );
    }
}

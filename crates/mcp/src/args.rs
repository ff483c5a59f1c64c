//! What the tools take. The comments are what a model reads.

use rmcp::model::JsonObject;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::refusal::Refusal;

/// The longest wait for one call. A client that goes away earlier cancels it.
const TIMEOUT_MAX_S: u32 = 3600;
/// What a call waits when nobody says.
const TIMEOUT_DEFAULT_S: u32 = 120;

/// Reads the arguments of a call. What is wrong with them is told to the model, which can correct it.
pub(crate) fn read<T: DeserializeOwned>(arguments: Option<JsonObject>) -> Result<T, Refusal> {
    let arguments = serde_json::Value::Object(arguments.unwrap_or_default());
    serde_json::from_value(arguments).map_err(|error| {
        let message = format!("the arguments cannot be used: {error}");
        Refusal::new(api::Code::InvalidArgument, message)
            .hint("correct them by the tool's input schema and call it again")
    })
}

/// The time that a call may take.
pub(crate) fn timeout(asked: Option<u32>) -> Result<Duration, Refusal> {
    let seconds = asked.unwrap_or(TIMEOUT_DEFAULT_S);
    if (1..=TIMEOUT_MAX_S).contains(&seconds) {
        return Ok(Duration::from_secs(seconds.into()));
    }
    Err(Refusal::argument("timeout_s", "is 1 to 3600"))
}

/// Text, or bytes in base64.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum Encoding {
    #[default]
    Text,
    Base64,
}

/// Limits; leave out what does not matter.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct Limits {
    /// Memory of all processes together, in MiB.
    pub(crate) memory_mib: Option<u32>,
    /// Processors, in thousandths: 1500 is one and a half.
    pub(crate) cpu_millis: Option<u32>,
    /// Processes and threads at one time.
    pub(crate) pids: Option<u32>,
    /// Everything written to files, in MiB.
    pub(crate) disk_mib: Option<u32>,
}

/// A file to put in place first.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct FileIn {
    /// Where; a relative path begins in /home/user.
    pub(crate) path: String,
    /// What is in it, at most 1 MiB.
    pub(crate) content: String,
    /// How `content` is written.
    #[serde(default)]
    pub(crate) encoding: Encoding,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Run {
    /// A line for `sh -c`, run in /home/user.
    pub(crate) command: String,
    /// Files to put in place first; at most 32, and 1 MiB together.
    #[serde(default)]
    pub(crate) files: Vec<FileIn>,
    /// Paths of files to keep when it has ended; at most 32. `artifact_read` reads them.
    #[serde(default)]
    pub(crate) artifacts: Vec<String>,
    /// Environment variables.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    /// Seconds until it is killed, 1 to 3600; 120 when absent.
    pub(crate) timeout_s: Option<u32>,
    /// A recipe of the server's owner, `NAME` or `NAME:VERSION`: what is there, and what may be reached.
    pub(crate) profile: Option<String>,
    #[serde(default)]
    pub(crate) limits: Limits,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SandboxCreate {
    /// A name to recognise it by; several may have the same.
    pub(crate) name: Option<String>,
    /// A recipe of the server's owner, `NAME` or `NAME:VERSION`: what is there, and what may be reached.
    pub(crate) profile: Option<String>,
    /// Seconds that it lives, from when it is ready, 1 to 86400; 900 when absent. Then it is gone with
    /// everything in it; `sandbox_extend` gives it more.
    pub(crate) ttl_s: Option<u32>,
    /// Whether programs inside may reach public addresses of the internet, through a proxy. Off when
    /// absent.
    #[serde(default)]
    pub(crate) internet: bool,
    /// Whether `sudo` and the user `root` can be used inside, as to install packages. Off when absent.
    #[serde(default)]
    pub(crate) root: bool,
    /// Environment variables of every command in it.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) limits: Limits,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SandboxList {
    /// Also those that are over.
    #[serde(default)]
    pub(crate) all: bool,
    /// The `cursor` of the page before.
    pub(crate) cursor: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SandboxExec {
    /// The sandbox, `sbx_...`.
    pub(crate) sandbox_id: String,
    /// A line for `sh -c`.
    pub(crate) command: String,
    /// Where it starts; /home/user when absent.
    pub(crate) cwd: Option<String>,
    /// Environment variables.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    /// What it reads from its standard input, at most 256 KiB.
    pub(crate) stdin: Option<String>,
    /// `user` or `root`; `user` when absent. `root` only where the sandbox was created with `root`.
    pub(crate) user: Option<String>,
    /// Start it and leave it running, as a server that listens at a port; its output is dropped, so send
    /// that to a file.
    #[serde(default)]
    pub(crate) background: bool,
    /// Seconds until it is killed, 1 to 3600; 120 when absent. Of a background command: none when absent.
    pub(crate) timeout_s: Option<u32>,
}

/// What a step is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum Language {
    Python,
    Javascript,
    Typescript,
    Bash,
}

impl Language {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Javascript => "javascript",
            Self::Typescript => "typescript",
            Self::Bash => "bash",
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SandboxStep {
    /// The sandbox, `sbx_...`.
    pub(crate) sandbox_id: String,
    /// The code. Its last expression is shown, as in a notebook.
    pub(crate) code: String,
    /// What it is written in.
    pub(crate) language: Language,
    /// A context from an earlier answer; the one of the language that is always there when absent.
    pub(crate) context_id: Option<String>,
    /// Make a new context for it, with variables of its own.
    #[serde(default)]
    pub(crate) new_context: bool,
    /// Seconds until it is interrupted, 1 to 3600; 120 when absent. What it remembers stays.
    pub(crate) timeout_s: Option<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileRead {
    /// The sandbox, `sbx_...`.
    pub(crate) sandbox_id: String,
    /// The file; a relative path begins in /home/user.
    pub(crate) path: String,
    /// Byte to begin at: the `next_offset` of an earlier answer; 0 when absent.
    #[serde(default)]
    pub(crate) offset: u64,
    /// As this user, `user` or `root`; `user` when absent.
    pub(crate) user: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileWrite {
    /// The sandbox, `sbx_...`.
    pub(crate) sandbox_id: String,
    /// The file; a relative path begins in /home/user. Directories above it are made.
    pub(crate) path: String,
    /// All that is to be in it, at most 1 MiB.
    pub(crate) content: String,
    /// How `content` is written.
    #[serde(default)]
    pub(crate) encoding: Encoding,
    /// As this user, `user` or `root`; `user` when absent.
    pub(crate) user: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileList {
    /// The sandbox, `sbx_...`.
    pub(crate) sandbox_id: String,
    /// The directory; /home/user when absent.
    pub(crate) path: Option<String>,
    /// How many levels, 1 to 5; 1 when absent.
    pub(crate) depth: Option<u32>,
    /// As this user, `user` or `root`; `user` when absent.
    pub(crate) user: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Port {
    /// The sandbox, `sbx_...`.
    pub(crate) sandbox_id: String,
    /// The port inside at which a program listens.
    #[schemars(range(min = 1))]
    pub(crate) port: u16,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Approval {
    /// The approval, `apv_...`, from the error `approval_needed`.
    pub(crate) approval_id: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ArtifactRead {
    /// The job, `job_...`, from the answer of `run`.
    pub(crate) job_id: String,
    /// The path that `run` was told to keep.
    pub(crate) path: String,
    /// Byte to begin at: the `next_offset` of an earlier answer; 0 when absent.
    #[serde(default)]
    pub(crate) offset: u64,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutputRead {
    /// The `cursor` of an earlier answer.
    pub(crate) cursor: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SandboxExtend {
    /// The sandbox, `sbx_...`.
    pub(crate) sandbox_id: String,
    /// Seconds that it lives from now on at least, 1 to 86400.
    pub(crate) ttl_s: u32,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SandboxDestroy {
    /// The sandbox, `sbx_...`.
    pub(crate) sandbox_id: String,
}

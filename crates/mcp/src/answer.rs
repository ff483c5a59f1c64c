//! What the tools say: for a program as a value that follows a schema, for a model as text.

use rmcp::model::{CallToolResult, ContentBlock};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write as _;

use crate::bound::{Kept, Shown};

/// The answer of a tool that did what it was asked for.
#[derive(Debug)]
pub(crate) struct Answer {
    content: Vec<ContentBlock>,
    structured: Value,
}

impl Answer {
    pub(crate) fn new(text: String, value: &impl Serialize) -> Self {
        Self {
            content: vec![ContentBlock::text(text)],
            // What has a schema is an object, and an object can be written.
            structured: serde_json::to_value(value).unwrap_or_default(),
        }
    }

    /// The same with something beside the text.
    pub(crate) fn with(mut self, more: impl IntoIterator<Item = ContentBlock>) -> Self {
        self.content.extend(more);
        self
    }

    pub(crate) fn into_result(self) -> CallToolResult {
        let mut result = CallToolResult::success(self.content);
        result.structured_content = Some(self.structured);
        result
    }
}

/// How something that ran has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum Status {
    /// Exit code 0.
    Succeeded,
    /// Another exit code, or an error of the code.
    Failed,
    /// It was killed or interrupted when its time was over.
    TimedOut,
    /// Somebody ended it.
    Canceled,
    /// It goes on in the background.
    Running,
}

impl Status {
    const fn words(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed out",
            Self::Canceled => "was canceled",
            Self::Running => "runs in the background",
        }
    }
}

/// What one stream wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
pub(crate) struct Output {
    /// All of it, or its first and last 8 KiB.
    pub(crate) text: String,
    /// How much was written, in bytes.
    pub(crate) total_bytes: u64,
    /// Where it goes on, for `output_read`, if not all is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cursor: Option<String>,
}

impl Output {
    /// What is shown; `cursor` makes one for the place from which it is left out.
    pub(crate) fn of(kept: Kept, cursor: impl FnOnce(Kept, usize) -> Option<String>) -> Self {
        let Shown { text, left_at } = kept.shown();
        Self {
            text,
            total_bytes: kept.total(),
            cursor: left_at.and_then(|at| cursor(kept, at)),
        }
    }
}

/// A command that ended, or was left running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Ended {
    /// How it ended.
    pub(crate) status: Status,
    /// 0 is success, 124 means that its time was over, 128 and N that signal N ended it. Absent while it
    /// runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exit_code: Option<i32>,
    /// How long it took, in milliseconds.
    pub(crate) duration_ms: u64,
    pub(crate) stdout: Output,
    pub(crate) stderr: Output,
    /// The job, for `artifact_read`; only of `run`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) job_id: Option<String>,
    /// The files that were kept; only of `run`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) artifacts: Vec<Artifact>,
    /// Its number inside; only of a background command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pid: Option<u32>,
    /// What else there is to know, and what to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

/// A file that was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
pub(crate) struct Artifact {
    /// Where it was; a name that the command chose.
    pub(crate) path: String,
    /// Its length.
    pub(crate) size_bytes: u64,
}

impl Ended {
    pub(crate) fn answer(&self) -> Answer {
        Answer::new(self.text(), self)
    }

    fn text(&self) -> String {
        let mut text = match self.exit_code {
            Some(code) => format!("{} with exit code {code}", self.status.words()),
            None => self.status.words().to_owned(),
        };
        let _ = write!(text, " after {} ms", self.duration_ms);
        if let Some(id) = &self.job_id {
            let _ = write!(text, " ({id})");
        }
        if let Some(pid) = self.pid {
            let _ = write!(text, " (pid {pid})");
        }
        stream(&mut text, "stdout", &self.stdout);
        stream(&mut text, "stderr", &self.stderr);
        for kept in &self.artifacts {
            let _ = write!(text, "\nartifact {} ({} bytes)", kept.path, kept.size_bytes);
        }
        note(&mut text, self.note.as_deref());
        text
    }
}

/// What a person was asked, and what they said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Approval {
    /// Which.
    pub(crate) approval_id: String,
    /// `pending`, `approved`, `rejected`, `expired` or `canceled`.
    pub(crate) state: String,
    /// What it is about: `job`, `sandbox`, `network`, `egress` or `policy`.
    pub(crate) about: String,
    /// Why a person has to say yes.
    pub(crate) reasons: Vec<String>,
    /// Who decided it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) decided_by: Option<String>,
    /// What they said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) comment: Option<String>,
    /// The command that waited for it, when that has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) run: Option<Ended>,
    /// What else there is to know, and what to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

impl Approval {
    pub(crate) fn answer(&self) -> Answer {
        let mut text = format!("{} is {}", self.approval_id, self.state);
        if let Some(by) = &self.decided_by {
            let _ = write!(text, " by {by}");
        }
        if let Some(comment) = &self.comment {
            let _ = write!(text, ": {comment}");
        }
        for reason in &self.reasons {
            let _ = write!(text, "\n- {reason}");
        }
        if let Some(run) = &self.run {
            let _ = write!(text, "\n{}", run.text());
        }
        note(&mut text, self.note.as_deref());
        Answer::new(text, self)
    }
}

/// A step in a context.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Stepped {
    /// How it ended.
    pub(crate) status: Status,
    pub(crate) stdout: Output,
    pub(crate) stderr: Output,
    /// What was shown, in order: each in the forms that it has, as `text`, `html`, `json`. Images are
    /// content of their own, and only named here.
    pub(crate) results: Vec<serde_json::Map<String, Value>>,
    /// Why the code failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<StepFailure>,
    /// The context, if another than that of the language was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) context_id: Option<String>,
    /// What else there is to know, and what to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

/// Why code failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
pub(crate) struct StepFailure {
    /// Such as `NameError`.
    pub(crate) name: String,
    pub(crate) message: String,
    pub(crate) traceback: String,
}

impl Stepped {
    pub(crate) fn answer(&self) -> Answer {
        let mut text = self.status.words().to_owned();
        stream(&mut text, "stdout", &self.stdout);
        stream(&mut text, "stderr", &self.stderr);
        for shown in &self.results {
            for (form, value) in shown {
                let value = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                let _ = write!(text, "\n--- result ({form}) ---\n{value}");
            }
        }
        if let Some(error) = &self.error {
            let more = if error.traceback.is_empty() {
                String::new()
            } else {
                format!("\n{}", error.traceback.trim_end())
            };
            let _ = write!(
                text,
                "\n--- error ---\n{}: {}{more}",
                error.name, error.message
            );
        }
        if let Some(id) = &self.context_id {
            let _ = write!(text, "\ncontext {id}");
        }
        note(&mut text, self.note.as_deref());
        Answer::new(text, self)
    }
}

fn stream(text: &mut String, name: &str, output: &Output) {
    if output.total_bytes == 0 {
        return;
    }
    let _ = write!(
        text,
        "\n--- {name} ---\n{}",
        output.text.trim_end_matches('\n')
    );
    if let Some(cursor) = &output.cursor {
        let _ = write!(
            text,
            "\n--- what was left out: output_read with cursor {cursor} ---"
        );
    }
}

fn note(text: &mut String, note: Option<&str>) {
    if let Some(note) = note {
        let _ = write!(text, "\nnote: {note}");
    }
}

/// A page of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct OutputPage {
    /// At most 16 KiB.
    pub(crate) text: String,
    /// Where it goes on; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cursor: Option<String>,
}

/// A part of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct FilePart {
    /// The path that was asked for.
    pub(crate) path: String,
    /// How long the whole file is.
    pub(crate) size_bytes: u64,
    /// At most 16 KiB of it, if it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
    /// At most 16 KiB of it in base64, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) base64: Option<String>,
    /// What kind of image it is, if it is one and beside this as content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<String>,
    /// Where it goes on, for `offset`; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_offset: Option<u64>,
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Written {
    pub(crate) path: String,
    pub(crate) size_bytes: u64,
}

/// What is in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Directory {
    pub(crate) path: String,
    /// At most 500.
    pub(crate) entries: Vec<Entry>,
    /// There are so many more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) left_out: Option<usize>,
}

/// Something in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
pub(crate) struct Entry {
    pub(crate) path: String,
    /// `file`, `directory` or `other`.
    pub(crate) kind: String,
    pub(crate) size_bytes: u64,
}

/// A sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Sandbox {
    /// The id, `sbx_...`: the other tools want it.
    pub(crate) sandbox_id: String,
    /// Only one that is `ready` can be used; `paused` ones are resumed by `sandbox_extend`.
    pub(crate) state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// Seconds until its time is over; only while it is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires_in_s: Option<u64>,
    /// It may reach the internet.
    pub(crate) internet: bool,
    /// `sudo` and the user `root` can be used in it.
    pub(crate) root: bool,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

impl Sandbox {
    pub(crate) fn line(&self) -> String {
        let mut line = format!("{} is {}", self.sandbox_id, self.state);
        if let Some(name) = &self.name {
            let _ = write!(line, ", named {name}");
        }
        if let Some(seconds) = self.expires_in_s {
            let _ = write!(line, ", for {seconds} s more");
        }
        if self.internet {
            line.push_str(", with internet");
        }
        if self.root {
            line.push_str(", with root");
        }
        if let Some(reason) = &self.reason {
            let _ = write!(line, ": {reason}");
        }
        line
    }
}

/// A page of sandboxes, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Sandboxes {
    pub(crate) sandboxes: Vec<Sandbox>,
    /// For the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cursor: Option<String>,
}

/// Where a port of a sandbox is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Address {
    /// For HTTP and WebSocket; other protocols use the same host and port.
    pub(crate) url: String,
    /// Until when, and for whom.
    pub(crate) note: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(text: &str, cursor: Option<&str>) -> Output {
        Output {
            text: text.to_owned(),
            total_bytes: text.len() as u64,
            cursor: cursor.map(str::to_owned),
        }
    }

    fn text(answer: Answer) -> String {
        let result = answer.into_result();
        assert_eq!(result.is_error, Some(false));
        result.content[0].as_text().unwrap().text.clone()
    }

    #[test]
    fn a_command_is_told_with_its_code_its_output_and_what_is_next() {
        let mut ended = Ended {
            status: Status::Failed,
            exit_code: Some(2),
            duration_ms: 12,
            stdout: output("one\ntwo\n", Some("out_1:8")),
            stderr: output("", None),
            job_id: Some("job_1".to_owned()),
            artifacts: vec![Artifact {
                path: "a.svg".to_owned(),
                size_bytes: 3,
            }],
            pid: None,
            note: Some("out of memory".to_owned()),
        };
        insta::assert_snapshot!(text(ended.answer()), @r"
        failed with exit code 2 after 12 ms (job_1)
        --- stdout ---
        one
        two
        --- what was left out: output_read with cursor out_1:8 ---
        artifact a.svg (3 bytes)
        note: out of memory
        ");
        ended.exit_code = None;
        ended.status = Status::Running;
        assert!(text(ended.answer()).starts_with("runs in the background after 12 ms"));
    }

    #[test]
    fn a_step_is_told_with_its_results_and_its_error() {
        let shown = serde_json::json!({"text": "2", "json": {"a": 1}});
        let stepped = Stepped {
            status: Status::Failed,
            stdout: output("hi\n", None),
            stderr: output("", None),
            results: vec![shown.as_object().unwrap().clone()],
            error: Some(StepFailure {
                name: "NameError".to_owned(),
                message: "no x".to_owned(),
                traceback: "line 1\n".to_owned(),
            }),
            context_id: Some("c".to_owned()),
            note: None,
        };
        insta::assert_snapshot!(text(stepped.answer()), @r#"
        failed
        --- stdout ---
        hi
        --- result (json) ---
        {"a":1}
        --- result (text) ---
        2
        --- error ---
        NameError: no x
        line 1
        context c
        "#);
    }
}

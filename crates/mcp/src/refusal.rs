//! Why a tool did not do what it was asked for, as a model is told it.

use api::client::ClientError;
use api::guest::GuestError;
use api::{Code, ErrorBody};
use rmcp::model::{CallToolResult, ContentBlock, MetaObject};
use serde_json::Value;

use crate::bound::cut;

/// The longest message or hint: a guest's own words are in it.
const TEXT_MAX_BYTES: usize = 4 * 1024;
/// The key of the body beside the text, for programs.
const META: &str = "cofferdam/error";

/// A stable code, what happened, and what to do next.
#[derive(Debug, Clone)]
pub(crate) struct Refusal(Box<ErrorBody>);

impl Refusal {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(code.body(message.into(), "")))
    }

    /// The same with another hint than the table's.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = hint.into();
        self
    }

    /// An argument that cannot be what was meant.
    pub(crate) fn argument(name: &str, what: &str) -> Self {
        Self::new(Code::InvalidArgument, format!("`{name}` {what}"))
            .hint("correct the argument and call the tool again")
    }

    /// The client does not want the answer any more.
    pub(crate) fn canceled() -> Self {
        Self::new(
            Code::Conflict,
            "the call was canceled, and what it ran was ended",
        )
        .hint("call the tool again if it is still wanted")
    }

    pub(crate) fn is(&self, code: Code) -> bool {
        self.0.code == code.as_str()
    }

    /// The answer of the tool. Without structured content: that of a tool follows its schema, or is absent.
    pub(crate) fn into_result(self) -> CallToolResult {
        let mut body = *self.0;
        body.message = cut(&body.message, TEXT_MAX_BYTES);
        body.hint = for_a_model(&body);
        let mut text = format!("error {}: {}", body.code, body.message);
        for detail in body.details.iter().take(16) {
            text.push_str("\n- ");
            text.push_str(&cut(&format!("{}: {}", detail.field, detail.message), 512));
        }
        text.push_str("\nnext: ");
        text.push_str(&body.hint);
        if body.retryable {
            text.push_str(" (the same call may succeed later)");
        }
        let mut result = CallToolResult::error(vec![ContentBlock::text(text)]);
        let mut meta = MetaObject::new();
        let body = serde_json::to_value(&body).unwrap_or(Value::Null);
        meta.0.insert(META.to_owned(), body);
        result.meta = Some(meta);
        result
    }
}

/// The hint in words of the tools, where the table's are those of another door.
fn for_a_model(body: &ErrorBody) -> String {
    let known = Code::parse(&body.code).filter(|code| code.row().hint == body.hint);
    let hint = match known {
        Some(Code::NotFound) => {
            "check the id: `sandbox_list` lists the sandboxes that there are, and a job's id is in the \
             answer of `run`"
        }
        Some(Code::SandboxGone) => {
            "its time was over or it was destroyed: `sandbox_create` makes a new one"
        }
        Some(Code::SandboxPaused) => "it is paused: `sandbox_extend` resumes it",
        Some(Code::PortClosed) => {
            "start the program that listens there first, with `sandbox_exec` and `background`, and give it a \
             moment"
        }
        Some(Code::GuestRefused) => "check the path and the user that the message names",
        Some(Code::LimitBeyondMachine) => "ask for less",
        _ => return cut(&body.hint, TEXT_MAX_BYTES),
    };
    hint.to_owned()
}

impl From<ErrorBody> for Refusal {
    fn from(body: ErrorBody) -> Self {
        Self(Box::new(body))
    }
}

impl From<ClientError> for Refusal {
    fn from(error: ClientError) -> Self {
        Self(Box::new(error.body()))
    }
}

impl From<GuestError> for Refusal {
    fn from(error: GuestError) -> Self {
        Self(Box::new(error.body()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(refusal: Refusal) -> String {
        let result = refusal.into_result();
        assert_eq!(result.is_error, Some(true));
        assert_eq!(result.structured_content, None);
        result.content[0].as_text().unwrap().text.clone()
    }

    #[test]
    fn a_model_is_told_what_went_wrong_and_what_to_do() {
        insta::assert_snapshot!(text(Refusal::new(Code::NotFound, "there is no such thing")), @r"
        error not_found: there is no such thing
        next: check the id: `sandbox_list` lists the sandboxes that there are, and a job's id is in the answer of `run`
        ");
        insta::assert_snapshot!(text(Refusal::new(Code::QueueFull, "too many jobs wait")), @r"
        error queue_full: too many jobs wait
        next: wait for jobs to finish, then send the request again (the same call may succeed later)
        ");
        insta::assert_snapshot!(text(Refusal::argument("timeout_s", "is 1 to 3600")), @r"
        error invalid_argument: `timeout_s` is 1 to 3600
        next: correct the argument and call the tool again
        ");
    }

    #[test]
    fn what_a_guest_says_is_bounded() {
        let long = "x".repeat(1 << 20);
        assert!(text(Refusal::new(Code::GuestRefused, long)).len() < 2 * TEXT_MAX_BYTES);
    }
}

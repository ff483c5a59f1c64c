//! Evaluates modules in Rego, in a process of its own.
//!
//! What enters is the text of a module and an input; what leaves is whether it allows that. A module is somebody's
//! program: it may loop, eat memory, nest until a stack ends. So the interpreter is not in the server but in a child,
//! with a limit on its data segment (`setrlimit(2)`, `RLIMIT_DATA`), a deadline of its own inside, and one outside after
//! which the parent kills it. Whatever happens to the child is a deny for who asked, and the next question starts a new
//! one.
//!
//! This room must never evaluate in the process that asks, never ask without a deadline, and never take anything but a
//! plain `true` for a yes. The interpreter has none of the built-in functions that reach the outside.
//!
//! Reading order: this file, `ask` (the parent), `serve` (the child).

mod ask;
#[cfg(test)]
#[path = "../../../fuzz/engine.rs"]
mod engine;
#[cfg(test)]
mod fuzz;
mod serve;

pub use ask::{Evaluator, REST};
pub use serve::serve;

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long a module may take inside the child: a thousand times what one takes that looks at a request.
const INSIDE: Duration = Duration::from_millis(50);
/// How long the parent waits for an answer. A call of one built-in function is not interrupted inside.
const OUTSIDE: Duration = Duration::from_millis(500);
/// How long a question may wait for its turn: as long as somebody waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions of one tenant that wait for those before them, each no longer than [`PATIENCE`]: a burst of requests that
/// take a moment each has room, and where each takes half a second it is the time that ends the wait.
const WAITING_MAX: usize = 1024;
/// Tenants whose questions wait at a time.
const TENANTS_MAX: usize = 1024;
/// The data of the child, in bytes: the interpreter with a hundred modules, and what one builds from a request.
const DATA_BYTES_MAX: u64 = 128 << 20;
/// The longest line in either direction: a module and an input, as JSON.
const LINE_BYTES_MAX: usize = 4 << 20;
/// The longest reason of a module that is passed on, in bytes.
const REASON_BYTES_MAX: usize = 512;

/// What a module says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Its `allow` is `true`.
    Allow,
    /// It is not, and why.
    Deny(String),
    /// It did not come to an end within its time and memory, which is a deny.
    Stopped,
    /// It was not asked, because it was stopped a moment ago, perhaps by quite another question of its tenant: a deny
    /// for who waits for an answer, and nothing about what can be asked again.
    Rests,
    /// It was not asked: too many wait. Nothing is decided by that.
    Busy,
}

/// What is known of a module before it is asked anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// It can be read.
    Good,
    /// It cannot, and why.
    Bad(String),
    /// It was not looked at: too many wait.
    Busy,
}

/// What the child is asked: one line.
#[derive(Debug, Serialize, Deserialize)]
struct Question {
    /// The text of the module.
    module: String,
    /// What it is about; only whether it can be read when absent.
    input: Option<serde_json::Value>,
}

/// What it answers: one line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    /// What the module says.
    Says(Verdict),
    /// It can be read.
    Good,
    /// It cannot, and where.
    Bad(String),
}

/// The beginning of a text.
fn cut(text: &str) -> String {
    let mut end = text.len().min(REASON_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

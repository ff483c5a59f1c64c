//! The tools that a model calls: the Model Context Protocol, on stdio and over HTTP.
//!
//! Enters: JSON-RPC from a client whose model may say anything, and what sandboxes wrote. Leaves: calls of
//! the typed client of `api`, and answers that are short, bounded, and say what to do next.
//!
//! Every tool is a client of `/v1` like any other, on whatever connection it was given: what its caller may
//! not do by REST, a tool may not do. This room must never see the database or a credential, never let a
//! model name a path of the host, never answer without a bound, and never end because of what it was sent.
//!
//! Reading order: `tool` is the list, `args` what they take, `answer` what they say, `bound` and `cursor`
//! how much of it; `call` is around every call; then the tools by noun. [`stdio`] and [`Door`] are the two
//! ways in.

mod answer;
mod approval;
mod args;
mod bound;
mod call;
mod cursor;
mod exec;
mod file;
mod http;
mod output;
mod port;
mod refusal;
mod run;
mod sandbox;
mod shelf;
mod stdio;
mod step;
mod tool;
mod tools;

pub use crate::http::Door;
pub use crate::stdio::{FRAME_MAX_BYTES, stdio};
pub use crate::tools::{Ports, Reaching, Tools, Way};

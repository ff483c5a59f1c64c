//! Whether the server is there and can work, on the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The process answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Always `ok`.
    pub status: String,
    /// The version of the binary.
    pub version: String,
}

/// Whether the process can do work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ready {
    /// Every check passed.
    pub ready: bool,
    /// The checks.
    pub checks: Vec<ReadyCheck>,
}

/// One thing that work needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReadyCheck {
    /// What: `store`, `nodes`, ...
    pub name: String,
    /// It is there.
    pub ok: bool,
    /// What is wrong, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

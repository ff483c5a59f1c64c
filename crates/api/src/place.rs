//! Where somebody wants a job or a sandbox to be.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the node of a job or a sandbox is to be. At most 8 labels in all, each side of at most 63 letters, digits
/// and `- _ . /`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// Labels that it must have. One without a value is a tag, and met by that tag alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub on: BTreeMap<String, String>,
    /// Labels that it should have. Another node gets it where no such node is there, or none takes it in 5 s.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prefer: BTreeMap<String, String>,
    /// Where it must stand, such as `eu/berlin`: there or below, by its label `location`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
}

impl Placement {
    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Placement::default()
    }
}

//! Files kept from a job, on the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One file that was kept from a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArtifactView {
    /// The id, `art_...`.
    pub id: String,
    /// Where it was, inside the sandbox. Untrusted text: a job chose the name.
    pub path: String,
    /// The SHA-256 of its bytes, as 64 lowercase hexadecimal digits.
    pub digest: String,
    /// Its length.
    pub size_bytes: u64,
    /// Its permission bits.
    pub mode: u32,
}

/// The files that were kept from a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArtifactList {
    /// The files, by path.
    pub artifacts: Vec<ArtifactView>,
}

//! Bytes kept by their digest, on the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Bytes that the server has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlobView {
    /// Their SHA-256, as 64 lowercase hexadecimal digits.
    pub digest: String,
    /// Their number.
    pub size_bytes: u64,
}

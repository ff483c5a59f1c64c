//! Secrets on the wire: values go in, and never come out again.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};
use zeroize::{Zeroize as _, Zeroizing};

use crate::encoding::Encoding;

/// A value as it travels. Shown by no `Debug`, and gone from memory when it is dropped.
#[derive(Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(transparent)]
pub struct SecretText(String);

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // The derived error would say what was there instead of a text: a number, which is the value.
        let text = String::deserialize(from);
        text.map(Self)
            .map_err(|_| D::Error::custom("a value is a text"))
    }
}

impl SecretText {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Whether there is none. No value is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

impl Drop for SecretText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A value that claims to be base64 and is not. Says nothing of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the value is not base64")]
pub struct BadValue;

/// Reads the bytes of a value.
///
/// # Errors
/// [`BadValue`] when the text claims to be base64 and is not.
pub fn value_bytes(text: &SecretText, encoding: Encoding) -> Result<Zeroizing<Vec<u8>>, BadValue> {
    match encoding {
        Encoding::Utf8 => Ok(Zeroizing::new(text.0.as_bytes().to_vec())),
        Encoding::Base64 => {
            let decoded = STANDARD.decode(&text.0);
            decoded.map(Zeroizing::new).map_err(|_| BadValue)
        }
    }
}

/// Writes a value for the wire: as it is where it is text.
#[must_use]
pub fn value_text(bytes: &[u8]) -> (SecretText, Encoding) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (SecretText(text.to_owned()), Encoding::Utf8),
        Err(_) => (SecretText(STANDARD.encode(bytes)), Encoding::Base64),
    }
}

fn utf8() -> Encoding {
    Encoding::Utf8
}

/// A new secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretCreate {
    /// One of a kind: 1 to 128 of letters, digits and `_-.`, beginning with a letter, a digit or `_`.
    pub name: String,
    /// 1 to 65,536 bytes. Absent with `from`.
    #[serde(default, skip_serializing_if = "SecretText::is_empty")]
    #[schema(value_type = String, write_only)]
    pub value: SecretText,
    /// How `value` is written.
    #[serde(default = "utf8")]
    pub encoding: Encoding,
    /// Keep no value: fetch it from there whenever it is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<SecretSource>,
    /// Labels: at most 32, keys of 128 bytes, values of 1024, 8192 bytes together.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// A new value of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretRotate {
    /// 1 to 65,536 bytes. Absent with `from`.
    #[serde(default, skip_serializing_if = "SecretText::is_empty")]
    #[schema(value_type = String, write_only)]
    pub value: SecretText,
    /// How `value` is written.
    #[serde(default = "utf8")]
    pub encoding: Encoding,
    /// Keep no value: fetch it from there whenever it is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<SecretSource>,
    /// Replaces the labels when it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
}

/// What is known of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretView {
    /// Its name for programs; another secret of the same name later has another.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The newest version, from 1. New jobs get this one.
    pub version: u64,
    /// Labels.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Where the value of the newest version is, if it is not kept here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<SecretSource>,
    /// Who made it.
    pub principal: String,
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When its newest version was made.
    pub updated_at_ms: u64,
}

/// Where a value is that is not kept here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretSource {
    /// A provider that the server was started with.
    pub provider: String,
    /// What it is asked for: 1 to 512 bytes.
    pub reference: String,
}

impl SecretSource {
    /// As it is written on a command line.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}:{}", self.provider, self.reference)
    }
}

/// A page of secrets, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretList {
    /// The secrets.
    pub secrets: Vec<SecretView>,
    /// Give it as `after` to get the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What `GET /v1/secrets` takes in the query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SecretListQuery {
    /// At most so many, 1 to 500; 50 when absent.
    #[serde(default)]
    pub limit: Option<u32>,
    /// The `next` of the page before.
    #[serde(default)]
    pub after: Option<String>,
}

/// A secret that a job or a sandbox is to use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretUse {
    /// Which.
    pub name: String,
    /// The version, fixed when the job is made. Not to be asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// How; a file when absent.
    #[serde(default)]
    pub how: SecretHow,
}

/// How a secret gets into a sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "as", rename_all = "snake_case", deny_unknown_fields)]
pub enum SecretHow {
    /// As a file `/dev/shm/secrets/NAME` that only the user inside reads.
    #[default]
    File,
    /// As an environment variable, which every child inherits.
    Env {
        /// Its name.
        var: String,
    },
    /// As a field of the header of https requests to a host, set on the node when they leave. It is never
    /// inside. Only for sandboxes with a way out.
    Header {
        /// A name, `*.NAME` for all below it; `:PORT` after it where it is not 443.
        #[schema(max_length = 261)]
        host: String,
        /// The field, such as `authorization`.
        #[schema(max_length = 128)]
        header: String,
        /// The value of the field, with one `{}` for the secret; just that when absent.
        #[serde(default = "only_the_secret")]
        #[schema(max_length = 1024)]
        format: String,
    },
    /// As the password of the proxy in `network.upstream`, which has it on the node and nobody inside.
    Upstream,
}

fn only_the_secret() -> String {
    "{}".to_owned()
}

/// A node asks for the secrets of a job or a sandbox that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretsAsk {
    /// Of its lease, or of the order.
    pub epoch: u64,
}

/// The secrets of a job or a sandbox, for its node alone. To be kept in memory and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretsGiven {
    /// In the order in which they were asked for.
    pub secrets: Vec<SecretGiven>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretGiven {
    /// Which.
    pub name: String,
    /// Which version.
    pub version: u64,
    /// How it is used.
    pub how: SecretHow,
    /// Its value.
    #[schema(value_type = String)]
    pub value: SecretText,
    /// How `value` is written.
    pub encoding: Encoding,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_travels_as_it_is_and_is_shown_by_nothing() {
        for bytes in [&b"hunter2"[..], b"\xff\x00", b""] {
            let (text, encoding) = value_text(bytes);
            assert_eq!(value_bytes(&text, encoding).unwrap().as_slice(), bytes);
        }
        let text = r#"{"name":"a","value":"hunter2"}"#;
        let asked: SecretCreate = serde_json::from_str(text).unwrap();
        assert!(!format!("{asked:?}").contains("hunter2"));
        let wrong = serde_json::from_str::<SecretCreate>(r#"{"name":"a","value":31337}"#);
        assert!(!wrong.unwrap_err().to_string().contains("31337"));
        let bad = value_bytes(&SecretText::new("hunter2!".to_owned()), Encoding::Base64);
        assert!(!bad.unwrap_err().to_string().contains("hunter2"));
    }
}

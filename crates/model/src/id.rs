//! Names of things. An id is a prefix that says what it names and a UUIDv7, so that ids sort by time.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The text is not an id of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id that starts with {prefix}")]
pub struct IdError {
    /// What it should have started with.
    pub prefix: &'static str,
}

macro_rules! uuid_id {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// What every id of this kind starts with.
            pub const PREFIX: &'static str = $prefix;

            /// The id for this moment and these random bytes.
            pub fn from_parts(unix_ms: u64, random: [u8; 10]) -> $name {
                let uuid = uuid::Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid();
                $name(format!("{}{}", $prefix, uuid.simple()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// When it was made, in milliseconds of Unix time: the first 48 bits (RFC 9562 section 5.7). Whoever
            /// made it chose them.
            pub fn unix_ms(&self) -> u64 {
                let digits = self.0.get($prefix.len()..$prefix.len() + 12);
                digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<$name, IdError> {
                let error = IdError { prefix: $prefix };
                let digits = text.strip_prefix($prefix).ok_or(error)?;
                let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
                if digits.len() == 32 && digits.bytes().all(hex) {
                    Ok($name(text.to_owned()))
                } else {
                    Err(error)
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<$name, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

uuid_id! {
    /// One command asked for, and how it ended.
    JobId = "job_";
    /// One isolated place.
    SandboxId = "sbx_";
    /// A saved file system of a sandbox.
    SnapshotId = "snp_";
    /// One machine, or one process that runs jobs by itself.
    NodeId = "node_";
    /// One file kept from a job.
    ArtifactId = "art_";
    /// A named value that a sandbox may use and nobody may read back.
    SecretId = "sec_";
    /// A named directory that outlives sandboxes.
    VolumeId = "vol_";
    /// A named recipe for a sandbox.
    ProfileId = "prf_";
    /// A named set of rules about what may be asked for.
    PolicyId = "pol_";
    /// A person's yes or no that something waits for.
    ApprovalId = "apv_";
    /// One try to carry out what a profile says.
    BuildId = "bld_";
    /// A token with which one node can be enrolled.
    EnrollTokenId = "ent_";
    /// One process that serves.
    ServerId = "srv_";
    /// A text that stands for a principal.
    KeyId = "key_";
}

macro_rules! text_id {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal, $max:literal, $allowed:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<$name, IdError> {
                let error = IdError { prefix: $prefix };
                let rest = text.strip_prefix($prefix).ok_or(error)?;
                let fits = !rest.is_empty() && rest.len() <= $max;
                if fits && rest.bytes().all($allowed) { Ok($name(text.to_owned())) } else { Err(error) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<$name, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

text_id! {
    /// Who owns everything below it.
    TenantId = "ten_", 40, |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    /// Who acts, such as `uid:1000` or `node:node_...`.
    PrincipalId = "", 128, |b: u8| b.is_ascii_alphanumeric() || b"_:.@-".contains(&b);
}

impl SandboxId {
    /// The id without its prefix: digits and small letters only, for protocols that allow nothing else.
    pub fn short(&self) -> &str {
        self.0.strip_prefix(SandboxId::PREFIX).unwrap_or(&self.0)
    }

    /// Reads what [`SandboxId::short`] wrote.
    ///
    /// # Errors
    /// [`IdError`] for any other text.
    pub fn from_short(text: &str) -> Result<SandboxId, IdError> {
        format!("{}{text}", SandboxId::PREFIX).parse()
    }
}

impl SnapshotId {
    /// The id without its prefix, as of a [`SandboxId`].
    pub fn short(&self) -> &str {
        self.0.strip_prefix(SnapshotId::PREFIX).unwrap_or(&self.0)
    }

    /// Reads what [`SnapshotId::short`] wrote.
    ///
    /// # Errors
    /// [`IdError`] for any other text.
    pub fn from_short(text: &str) -> Result<SnapshotId, IdError> {
        format!("{}{text}", SnapshotId::PREFIX).parse()
    }
}

impl ProfileId {
    /// The id without its prefix, as of a [`SandboxId`].
    pub fn short(&self) -> &str {
        self.0.strip_prefix(ProfileId::PREFIX).unwrap_or(&self.0)
    }

    /// Reads what [`ProfileId::short`] wrote.
    ///
    /// # Errors
    /// [`IdError`] for any other text.
    pub fn from_short(text: &str) -> Result<ProfileId, IdError> {
        format!("{}{text}", ProfileId::PREFIX).parse()
    }
}

impl BuildId {
    /// The id as a UUID with dashes (RFC 9562), for protocols that take nothing else.
    pub fn uuid(&self) -> String {
        let digits = self.0.strip_prefix(BuildId::PREFIX).unwrap_or(&self.0);
        let uuid = uuid::Uuid::try_parse(digits).unwrap_or_default();
        uuid.hyphenated().to_string()
    }

    /// Reads what [`BuildId::uuid`] wrote.
    ///
    /// # Errors
    /// [`IdError`] for any other text.
    pub fn from_uuid(text: &str) -> Result<BuildId, IdError> {
        let prefix = BuildId::PREFIX;
        let uuid = uuid::Uuid::try_parse(text).map_err(|_| IdError { prefix })?;
        format!("{prefix}{}", uuid.simple()).parse()
    }
}

impl TenantId {
    /// The first tenant: whoever runs the server. On a machine that serves only itself there is no other.
    pub fn local() -> TenantId {
        TenantId("ten_local".to_owned())
    }

    /// The id for this moment and these random bytes.
    pub fn from_parts(unix_ms: u64, random: [u8; 10]) -> TenantId {
        let uuid = uuid::Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid();
        TenantId(format!("ten_{}", uuid.simple()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_sorts_by_time() {
        let early = JobId::from_parts(1_700_000_000_000, [9; 10]);
        let late = JobId::from_parts(1_700_000_000_001, [0; 10]);
        assert!(early < late);
        assert_eq!(early.to_string().parse(), Ok(early));
    }

    #[test]
    fn a_short_id_of_a_sandbox_reads_back_and_has_plain_digits_only() {
        let id = SandboxId::from_parts(1_700_000_000_000, [9; 10]);
        assert!(id.short().bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_eq!(SandboxId::from_short(id.short()), Ok(id.clone()));
        assert!(SandboxId::from_short(id.as_str()).is_err());
    }

    #[test]
    fn a_build_is_a_uuid_for_those_who_want_one() {
        let id = BuildId::from_parts(1_700_000_000_000, [9; 10]);
        let uuid = id.uuid();
        assert_eq!((uuid.len(), BuildId::from_uuid(&uuid)), (36, Ok(id)));
        assert!(BuildId::from_uuid("x").is_err());
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        for text in [
            "",
            "job_",
            "job_1",
            "sbx_0190aaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "job_../../etc/passwd",
        ] {
            assert!(text.parse::<JobId>().is_err(), "{text}");
        }
        assert!(
            "job_0190AAAAAAAAAAAAAAAAAAAAAAAAAAAA"
                .parse::<JobId>()
                .is_err()
        );
        assert!("uid:1000".parse::<PrincipalId>().is_ok());
        assert!("a b".parse::<PrincipalId>().is_err());
        assert!("ten_Local".parse::<TenantId>().is_err());
    }
}

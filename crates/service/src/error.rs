//! What can be wrong: a stable code and a text for whoever asked, and the cause for our log.

use crate::seal::KeyError;
use model::job::Denied;
use model::spec::Invalid;
use store::StoreError;

/// Why something was not done. Its `Display` may be shown to whoever asked; the cause may not.
#[derive(Debug, thiserror::Error)]
#[expect(
    clippy::error_impl_error,
    reason = "it is read as `service::Error`, and is the only one of the room"
)]
pub enum Error {
    /// There is no such thing, or it is somebody else's: the two look the same from outside.
    #[error("there is no such thing")]
    NotFound,
    /// What was asked cannot be.
    #[error("the request is invalid: {}", first(.0))]
    Invalid(Vec<Invalid>),
    /// It contradicts what is.
    #[error("{message}")]
    Conflict {
        /// A stable code.
        code: &'static str,
        /// For a person.
        message: String,
    },
    /// A report for a lease that is not in force any more.
    #[error("the lease is not in force any more")]
    Stale,
    /// Whoever asks may not.
    #[error("{0}")]
    Forbidden(String),
    /// A node speaks of what another node has.
    #[error("another node has it")]
    NotYourLease,
    /// A node speaks of a lease without its token.
    #[error("the token of the lease is missing, or is another's")]
    LeaseToken,
    /// A token does not count. What is said is for whoever has shown it.
    #[error("{0}")]
    TokenInvalid(String),
    /// The keys of an issuer of tokens cannot be had.
    #[error("the keys of the issuer of this token cannot be had now")]
    IssuerAway,
    /// A bound was reached; later it may do.
    #[error("{message}")]
    TooMuch {
        /// A stable code.
        code: &'static str,
        /// For a person.
        message: String,
    },
    /// Too little storage is free for new work.
    #[error("too little storage is free for new work")]
    DiskFull,
    /// The master key of secrets cannot be used.
    #[error("the master key of secrets cannot be used: {0}")]
    SecretKey(KeyError),
    /// The database does not answer now.
    #[error("the database does not answer now")]
    Unavailable(#[source] Option<Box<dyn std::error::Error + Send + Sync>>),
    /// A bug of ours.
    #[error("something happened that should be impossible")]
    Internal {
        /// What was tried.
        what: &'static str,
        /// What came of it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// The stable code that stands for it on the wire. Of several findings, the first one's.
    pub fn code(&self) -> &'static str {
        match self {
            Error::NotFound => "not_found",
            Error::Invalid(found) => found.first().map_or("invalid_argument", |first| first.code),
            Error::Conflict { code, .. } | Error::TooMuch { code, .. } => code,
            Error::Stale => "stale_epoch",
            Error::Forbidden(_) => "forbidden",
            Error::NotYourLease => "not_your_lease",
            Error::LeaseToken => "lease_token_wrong",
            Error::TokenInvalid(_) => "token_invalid",
            Error::IssuerAway => "unavailable",
            Error::DiskFull => "disk_full",
            Error::SecretKey(error) => error.code(),
            Error::Unavailable(_) => "unavailable",
            Error::Internal { .. } => "internal",
        }
    }

    /// The cause with everything below it, for the log and never for an answer.
    pub fn cause(&self) -> String {
        let mut text = self.to_string();
        if let Error::Internal { what, .. } = self {
            text = (*what).to_owned();
        }
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            text.push_str(": ");
            text.push_str(&error.to_string());
            next = error.source();
        }
        text
    }

    pub(crate) fn internal(
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error::Internal {
            what,
            source: source.into(),
        }
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Error {
        Error::conflict_of("conflict", message)
    }

    pub(crate) fn conflict_of(code: &'static str, message: impl Into<String>) -> Error {
        let message = message.into();
        Error::Conflict { code, message }
    }

    /// A key of idempotency that does not fit the request.
    pub(crate) fn mismatch(message: &str) -> Error {
        Error::conflict_of("idempotency_mismatch", message)
    }

    pub(crate) fn invalid(
        field: impl Into<String>,
        code: &'static str,
        message: impl Into<String>,
    ) -> Error {
        Error::Invalid(vec![Invalid {
            field: field.into(),
            code,
            message: message.into(),
        }])
    }
}

fn first(found: &[Invalid]) -> String {
    found
        .first()
        .map(|first| format!("{}: {}", first.field, first.message))
        .unwrap_or_default()
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Error {
        match error {
            StoreError::Full => Error::DiskFull,
            StoreError::Conflict { what } => {
                Error::conflict(format!("{what} is there already, and is different"))
            }
            StoreError::Hole { what } => Error::conflict_of("output_hole", what),
            // Changed under us more often than we tried: as good as a database that is too busy.
            StoreError::Stale { .. } | StoreError::Unavailable(_) | StoreError::Closed => {
                Error::Unavailable(Some(Box::new(error)))
            }
            StoreError::NewerSchema { .. }
            | StoreError::Corrupt { .. }
            | StoreError::Database(_) => Error::internal("use the database", error),
        }
    }
}

impl From<Denied> for Error {
    fn from(denied: Denied) -> Error {
        match denied {
            Denied::StaleEpoch { .. } => Error::Stale,
            Denied::Finished | Denied::State { .. } => Error::conflict(denied.to_string()),
        }
    }
}

impl From<model::sandbox::Denied> for Error {
    fn from(denied: model::sandbox::Denied) -> Error {
        let code = match denied.state {
            "destroying" | "destroyed" | "failed" => "sandbox_gone",
            "paused" => "sandbox_paused",
            _ => "conflict",
        };
        Error::conflict_of(code, denied.to_string())
    }
}

/// Why a unit of work ended early: the database's word is undone, ours is an answer.
#[derive(Debug)]
pub(crate) enum Fail {
    /// The database's: everything is undone.
    Store(StoreError),
    /// Ours. The transaction is committed all the same, so it is said before anything is written.
    Ours(Error),
}

impl From<StoreError> for Fail {
    fn from(error: StoreError) -> Fail {
        Fail::Store(error)
    }
}

impl From<Error> for Fail {
    fn from(error: Error) -> Fail {
        Fail::Ours(error)
    }
}

impl From<Denied> for Fail {
    fn from(denied: Denied) -> Fail {
        Fail::Ours(denied.into())
    }
}

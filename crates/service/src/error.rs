//! Why something that was asked did not happen, without a word about how it was asked.

use model::job::Denied;
use model::spec::Invalid;
use store::StoreError;

/// Why not.
#[derive(Debug, thiserror::Error)]
#[expect(clippy::error_impl_error, reason = "`service::Error` says whose it is")]
pub enum Error {
    /// There is none, or none that the caller may know of.
    #[error("there is no such thing")]
    NotFound,
    /// The caller is of the wrong kind.
    #[error("this is not for the caller")]
    Forbidden,
    /// The request is wrong, in these places.
    #[error("the request is wrong")]
    Invalid(Vec<Invalid>),
    /// The key was used for another request.
    #[error("the key was used for another request")]
    IdempotencyMismatch,
    /// It contradicts what is there.
    #[error("{what} contradicts what was reported before")]
    Conflict {
        /// What.
        what: String,
    },
    /// The lease that the caller speaks for is not the job's.
    #[error("the lease is over")]
    StaleEpoch,
    /// Not in this state.
    #[error("the job is {state}")]
    WrongState {
        /// Its name.
        state: &'static str,
    },
    /// More work waits than is taken.
    #[error("too many jobs wait")]
    QueueFull,
    /// Too little room is left on the disk.
    #[error("too little room is left on the disk")]
    DiskFull,
    /// The database is away or busy; try again.
    #[error("the database does not answer")]
    Unavailable(#[source] Option<StoreError>),
    /// A mistake of ours. The text is for the log.
    #[error("{0}")]
    Internal(String),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Error {
        match error {
            StoreError::Full => Error::DiskFull,
            StoreError::Conflict { what } => Error::Conflict { what },
            StoreError::Stale { .. } | StoreError::Closed | StoreError::Unavailable(_) => {
                Error::Unavailable(Some(error))
            }
            StoreError::NewerSchema { .. }
            | StoreError::Corrupt { .. }
            | StoreError::Database(_) => Error::Internal(chain(&error)),
        }
    }
}

impl From<Denied> for Error {
    fn from(denied: Denied) -> Error {
        match denied {
            Denied::StaleEpoch { .. } => Error::StaleEpoch,
            Denied::Finished => Error::WrongState { state: "finished" },
            Denied::State { state } => Error::WrongState { state },
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    let sources = sources.map(|error| format!(": {error}"));
    std::iter::once(error.to_string()).chain(sources).collect()
}

//! What can go wrong with a database.

/// Why a unit of work did not happen.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else changed the row since it was read. Read again and decide again.
    #[error("change {what}: it was changed meanwhile")]
    Stale {
        /// Which row.
        what: String,
    },
    /// What is there contradicts what should be added.
    #[error("add {what}: something else is there")]
    Conflict {
        /// What.
        what: String,
    },
    /// A piece of a stream does not go on where the stream ends, and nobody has said what is missing.
    #[error("{what}")]
    Hole {
        /// What was to be added, and where the stream ends. It may be shown to whoever sent it.
        what: String,
    },
    /// The disk or the database is full. Nothing was changed.
    #[error("write to the database: it is full")]
    Full,
    /// A newer version of this program has changed the database.
    #[error("use a database of schema {found} with a program that knows {known}")]
    NewerSchema {
        /// Of the database.
        found: i64,
        /// Of this program.
        known: i64,
    },
    /// A row says something that it cannot say.
    #[error("read {what}")]
    Corrupt {
        /// Which row and column.
        what: String,
    },
    /// The database's threads have ended.
    #[error("reach the database: it is closed")]
    Closed,
    /// The database could not be reached, or is busy with something for too long. Try again; but if the
    /// connection broke, or the disk failed, during the commit, then the unit may have happened.
    #[error("reach the database")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Anything else that the database says, or a unit that is wrong in itself.
    #[error("run a statement")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        use rusqlite::{ErrorCode, ffi};
        let extended = error.sqlite_error().map(|error| error.extended_code);
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StoreError::Full,
            // The index of the log could not be made longer, which only a full disk refuses.
            _ if extended == Some(ffi::SQLITE_IOERR_SHMSIZE) => StoreError::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                StoreError::Unavailable(Box::new(error))
            }
            _ => StoreError::Database(Box::new(error)),
        }
    }
}

impl From<postgres::Error> for StoreError {
    fn from(error: postgres::Error) -> StoreError {
        use postgres::error::SqlState;
        match error.code() {
            Some(&SqlState::DISK_FULL) => StoreError::Full,
            Some(code) if will_pass(code) => StoreError::Unavailable(Box::new(error)),
            None if is_of_connection(&error) => StoreError::Unavailable(Box::new(error)),
            Some(_) | None => StoreError::Database(Box::new(error)),
        }
    }
}

/// Whether PostgreSQL says that it is not the statement's fault: the server stops or starts, has too
/// little of something, or somebody else has the lock for too long.
fn will_pass(code: &postgres::error::SqlState) -> bool {
    let code = code.code();
    let class = code.get(..2).unwrap_or_default();
    matches!(class, "08" | "53" | "57") || matches!(code, "25P03" | "55P03")
}

/// Whether an error without a word of the server is one of the way there, and not of our values.
fn is_of_connection(error: &postgres::Error) -> bool {
    use std::error::Error as _;
    let of_io = |source: &(dyn std::error::Error + 'static)| source.is::<std::io::Error>();
    error.is_closed() || error.source().is_none_or(of_io)
}

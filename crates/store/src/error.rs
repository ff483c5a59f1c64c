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
    /// The database could not be reached, or is busy with something for too long. Try again.
    #[error("reach the database")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Anything else that the database says.
    #[error("run a statement")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        use rusqlite::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StoreError::Full,
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
            None => StoreError::Unavailable(Box::new(error)),
            Some(_) if error.is_closed() => StoreError::Unavailable(Box::new(error)),
            Some(_) => StoreError::Database(Box::new(error)),
        }
    }
}

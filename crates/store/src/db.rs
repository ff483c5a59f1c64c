//! A transaction on either database, and the values that go in and out.

use crate::StoreError;
use crate::postgres::session::Session;
use bytes::BytesMut;
use postgres::types::{IsNull, ToSql, Type};
use std::sync::Arc;

/// A value in a statement or a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    Null,
    /// A number, a time in milliseconds, a size in bytes, or 0 and 1.
    Int(i64),
    /// Text, also JSON.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

impl From<i64> for Value {
    fn from(value: i64) -> Value {
        Value::Int(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Value {
        Value::Int(i64::from(value))
    }
}

impl From<u64> for Value {
    /// Numbers of ours are far below the largest that a database holds; one that is not is kept as
    /// that largest, so that it stays very large.
    fn from(value: u64) -> Value {
        Value::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Int(i64::from(value))
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Value {
        value.to_owned().into()
    }
}

impl From<String> for Value {
    /// PostgreSQL has no text with NUL. What a node says of a hostile command may have one, and must not
    /// make its report one that can never be stored.
    fn from(value: String) -> Value {
        Value::Text(if value.contains('\0') {
            value.replace('\0', "\u{fffd}")
        } else {
            value
        })
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Value {
        Value::Blob(value)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        use rusqlite::types::{ToSqlOutput, ValueRef};
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Int(value) => ValueRef::Integer(*value),
            Value::Text(value) => ValueRef::Text(value.as_bytes()),
            Value::Blob(value) => ValueRef::Blob(value),
        }))
    }
}

impl ToSql for Value {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Int(value) => value.to_sql(kind, out),
            Value::Text(value) => value.to_sql(kind, out),
            Value::Blob(value) => value.to_sql(kind, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    postgres::types::to_sql_checked!();
}

/// A row that was read; its values are taken by the names of their columns.
#[derive(Debug, Clone)]
pub struct Row {
    columns: Arc<[String]>,
    values: Vec<Value>,
}

impl Row {
    /// A row of PostgreSQL.
    pub(crate) fn of_postgres(
        row: &postgres::Row,
        columns: &Arc<[String]>,
    ) -> Result<Row, StoreError> {
        let value = |index: usize, kind: &Type| -> Result<Value, postgres::Error> {
            Ok(match *kind {
                Type::INT8 => row.try_get::<_, Option<i64>>(index)?.into(),
                Type::INT4 => row.try_get::<_, Option<i32>>(index)?.map(i64::from).into(),
                Type::BYTEA => row.try_get::<_, Option<Vec<u8>>>(index)?.into(),
                _ => row.try_get::<_, Option<String>>(index)?.into(),
            })
        };
        let kinds = row.columns().iter().enumerate();
        let values = kinds.map(|(index, column)| value(index, column.type_()));
        Ok(Row {
            columns: columns.clone(),
            values: values.collect::<Result<_, _>>()?,
        })
    }

    fn value(&self, column: &str) -> Result<&Value, StoreError> {
        let index = self.columns.iter().position(|name| name == column);
        index
            .and_then(|index| self.values.get(index))
            .ok_or_else(|| self.corrupt(column))
    }

    /// Says which row it is, by its first value, which is its key in all our statements.
    fn corrupt(&self, column: &str) -> StoreError {
        let key = match self.values.first() {
            Some(Value::Text(text)) => text.clone(),
            Some(Value::Int(number)) => number.to_string(),
            Some(Value::Null | Value::Blob(_)) | None => "a row".to_owned(),
        };
        StoreError::Corrupt {
            what: format!("column {column} of {key}"),
        }
    }

    /// Text.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it is something else.
    pub fn text(&self, column: &str) -> Result<String, StoreError> {
        self.text_or_null(column)?
            .ok_or_else(|| self.corrupt(column))
    }

    /// Text, or nothing.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it is something else.
    pub fn text_or_null(&self, column: &str) -> Result<Option<String>, StoreError> {
        match self.value(column)? {
            Value::Null => Ok(None),
            Value::Text(text) => Ok(Some(text.clone())),
            Value::Int(_) | Value::Blob(_) => Err(self.corrupt(column)),
        }
    }

    /// A number that is not negative.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it is something else.
    pub fn number(&self, column: &str) -> Result<u64, StoreError> {
        self.number_or_null(column)?
            .ok_or_else(|| self.corrupt(column))
    }

    /// A number that is not negative, or nothing.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it is something else.
    pub fn number_or_null(&self, column: &str) -> Result<Option<u64>, StoreError> {
        match self.value(column)? {
            Value::Null => Ok(None),
            Value::Int(number) => u64::try_from(*number)
                .map(Some)
                .map_err(|_| self.corrupt(column)),
            Value::Text(_) | Value::Blob(_) => Err(self.corrupt(column)),
        }
    }

    /// Bytes.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it is something else.
    pub fn bytes(&self, column: &str) -> Result<Vec<u8>, StoreError> {
        match self.value(column)? {
            Value::Blob(bytes) => Ok(bytes.clone()),
            Value::Null | Value::Int(_) | Value::Text(_) => Err(self.corrupt(column)),
        }
    }

    /// What a text means.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it means nothing.
    pub fn parsed<T: std::str::FromStr>(&self, column: &str) -> Result<T, StoreError> {
        self.text(column)?.parse().map_err(|_| self.corrupt(column))
    }

    /// What a JSON document says.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it says nothing of this type.
    pub fn json<T: serde::de::DeserializeOwned>(&self, column: &str) -> Result<T, StoreError> {
        serde_json::from_str(&self.text(column)?).map_err(|_| self.corrupt(column))
    }

    /// What a JSON document says, or nothing.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it says nothing of this type.
    pub fn json_or_null<T: serde::de::DeserializeOwned>(
        &self,
        column: &str,
    ) -> Result<Option<T>, StoreError> {
        let text = self.text_or_null(column)?;
        let parsed = text.map(|text| serde_json::from_str(&text)).transpose();
        parsed.map_err(|_| self.corrupt(column))
    }
}

/// Writes a JSON document; our types have no keys that are not text and no numbers that are none.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt {
        what: format!("a value to be written: {error}"),
    })
}

/// A transaction.
#[derive(Debug)]
pub struct Tx<'t> {
    conn: Conn<'t>,
    failed: bool,
}

pub(crate) enum Conn<'t> {
    Sqlite(&'t rusqlite::Connection),
    Postgres(&'t mut Session),
}

impl std::fmt::Debug for Conn<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Conn::Sqlite(_) => "sqlite",
            Conn::Postgres(_) => "postgres",
        })
    }
}

impl<'t> Tx<'t> {
    pub(crate) fn new(conn: Conn<'t>) -> Tx<'t> {
        Tx {
            conn,
            failed: false,
        }
    }

    /// Whether a statement has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Whether rows can be locked, and locked ones skipped.
    pub(crate) fn has_row_locks(&self) -> bool {
        matches!(self.conn, Conn::Postgres(_))
    }

    /// Runs a statement; returns how many rows it changed.
    ///
    /// # Errors
    /// What the database says.
    pub fn execute(&mut self, sql: &'static str, values: &[Value]) -> Result<u64, StoreError> {
        let changed = match &mut self.conn {
            Conn::Sqlite(conn) => execute_sqlite(conn, sql, values),
            Conn::Postgres(session) => session.execute(sql, values),
        };
        self.failed |= changed.is_err();
        changed
    }

    /// Runs a statement of which only the error counts. PostgreSQL is not waited for: what goes wrong is told by
    /// whatever is asked next, or instead of the commit, so nobody may live on it.
    ///
    /// # Errors
    /// What the database says, here or later.
    pub fn send(&mut self, sql: &'static str, values: &[Value]) -> Result<(), StoreError> {
        self.send_as(sql, values, None)
    }

    /// The same for a statement that changes one row, if `what` it is about is as it was when it was read.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when it is not, or what the database says; here or later.
    pub fn send_one(
        &mut self,
        sql: &'static str,
        values: &[Value],
        what: &str,
    ) -> Result<(), StoreError> {
        self.send_as(sql, values, Some(what))
    }

    fn send_as(
        &mut self,
        sql: &'static str,
        values: &[Value],
        one: Option<&str>,
    ) -> Result<(), StoreError> {
        if let Conn::Postgres(session) = &mut self.conn {
            let sent = session.send(sql, values, one.map(str::to_owned));
            self.failed |= sent.is_err();
            return sent;
        }
        match (self.execute(sql, values)?, one) {
            (1, _) | (_, None) => Ok(()),
            (_, Some(what)) => Err(StoreError::Stale {
                what: what.to_owned(),
            }),
        }
    }

    /// Runs a query.
    ///
    /// # Errors
    /// What the database says.
    pub fn query(&mut self, sql: &'static str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
        let rows = match &mut self.conn {
            Conn::Sqlite(conn) => query_sqlite(conn, sql, values),
            Conn::Postgres(session) => session.query(sql, values),
        };
        self.failed |= rows.is_err();
        rows
    }

    /// Runs a query about what no other unit that shares this transaction writes, or that may miss it as it would miss
    /// what is not committed yet: see [`crate::Store::write_shared`]. It sees what this unit has written.
    ///
    /// # Errors
    /// What the database says.
    pub fn query_apart(
        &mut self,
        sql: &'static str,
        values: &[Value],
    ) -> Result<Vec<Row>, StoreError> {
        let rows = match &mut self.conn {
            Conn::Sqlite(conn) => query_sqlite(conn, sql, values),
            Conn::Postgres(session) => session.query_apart(sql, values),
        };
        self.failed |= rows.is_err();
        rows
    }

    /// Has the answer to a query that units which share this transaction will ask, where that spares a message.
    pub(crate) fn foresee(&mut self, sql: &'static str, about: String, row: Row) {
        if let Conn::Postgres(session) = &mut self.conn {
            session.foresee(sql, about, row);
        }
    }

    /// Runs a query that has one row or none.
    ///
    /// # Errors
    /// What the database says.
    pub fn query_one(
        &mut self,
        sql: &'static str,
        values: &[Value],
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.query(sql, values)?.into_iter().next())
    }
}

fn execute_sqlite(
    conn: &rusqlite::Connection,
    sql: &str,
    values: &[Value],
) -> Result<u64, StoreError> {
    let mut statement = conn.prepare_cached(sql)?;
    check_placeholders(&statement);
    let changed = statement.execute(rusqlite::params_from_iter(values))?;
    Ok(changed as u64)
}

fn query_sqlite(
    conn: &rusqlite::Connection,
    sql: &str,
    values: &[Value],
) -> Result<Vec<Row>, StoreError> {
    let mut statement = conn.prepare_cached(sql)?;
    check_placeholders(&statement);
    let names = statement.column_names();
    let columns: Arc<[String]> = names.into_iter().map(str::to_owned).collect();
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let values = (0..columns.len()).map(|i| Ok(from_sqlite(row.get_ref(i)?)));
        let values = values.collect::<Result<_, rusqlite::Error>>()?;
        found.push(Row {
            columns: columns.clone(),
            values,
        });
    }
    Ok(found)
}

pub(crate) fn borrowed(values: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    let values = values.iter();
    values.map(|value| value as &(dyn ToSql + Sync)).collect()
}

/// SQLite numbers named placeholders by first appearance, PostgreSQL by their name. One text means the
/// same to both only if the two agree.
fn check_placeholders(statement: &rusqlite::Statement<'_>) {
    if cfg!(debug_assertions) {
        for index in 1..=statement.parameter_count() {
            let name = format!("${index}");
            assert_eq!(
                statement.parameter_name(index),
                Some(&*name),
                "placeholders out of order"
            );
        }
    }
}

fn from_sqlite(value: rusqlite::types::ValueRef<'_>) -> Value {
    use rusqlite::types::ValueRef;
    match value {
        ValueRef::Integer(number) => Value::Int(number),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
        // No column of ours holds fractions.
        ValueRef::Null | ValueRef::Real(_) => Value::Null,
    }
}

//! A connection of a worker, on which statements that nobody waits for are sent and looked at later.
//!
//! A message to the database and back costs more than most of our statements: two processes are woken for it. So a
//! transaction sends its `BEGIN` with its first statement, and each statement of which only the error counts with the
//! next one that is asked something ([`Session::send`]). Their answers come in the order in which they were sent, so
//! whoever waits for one has those before it.

use super::address::Address;
use crate::db::{Value, borrowed};
use crate::work::Kind;
use crate::{Row, StoreError};
use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, Error, Statement};

/// Bounds of what one unit waits for, so that a lock that somebody forgot, or a client that was stopped
/// in the middle, does not hold up all others for ever. A lock as long as SQLite waits for its own.
///
/// And what is outside of a transaction may change nothing: when a `BEGIN` fails, what was sent behind it would
/// otherwise be carried out, each statement for itself.
const SETTINGS: &str = "SET lock_timeout = '5s'; SET statement_timeout = '30s'; \
     SET idle_in_transaction_session_timeout = '30s'; SET default_transaction_read_only = on";
const WRITE: &str = "BEGIN READ WRITE";
/// All statements of it see the same moment, as they do on SQLite.
const READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// Answers that are not looked at yet. A transaction that sends more waits for them in between.
const SENT_MAX: usize = 256;

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// A statement that was sent.
struct Sent {
    answer: Answer<u64>,
    /// What is stale unless it has changed exactly one row.
    one: Option<String>,
}

/// What a connection has prepared, which spares a round trip for each use. The texts are in the program, so there
/// are not many.
type Prepared = HashMap<&'static str, (Statement, Arc<[String]>)>;

/// A connection, and the transaction that is open on it.
pub(crate) struct Session {
    client: Arc<Client>,
    runtime: Runtime,
    prepared: Prepared,
    sent: VecDeque<Sent>,
    /// Something was answered in this transaction, so the other end was there when it began.
    is_heard: bool,
    /// Nothing may be committed any more.
    is_broken: bool,
}

impl Session {
    pub(super) fn connect(address: &Address) -> Result<Session, StoreError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| StoreError::Unavailable(Box::new(error)))?;
        let client = runtime.block_on(open(address))?;
        Ok(Session {
            client: Arc::new(client),
            runtime,
            prepared: Prepared::new(),
            sent: VecDeque::new(),
            is_heard: false,
            is_broken: false,
        })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Begins a transaction, with the first statement of it.
    pub(super) fn begin(&mut self, kind: Kind) -> Result<(), StoreError> {
        (self.is_heard, self.is_broken) = (false, false);
        let text = match kind {
            Kind::Write => WRITE,
            Kind::Read => READ,
        };
        let answer = self.simple(text);
        self.keep(answer, None)
    }

    /// Runs a statement; returns how many rows it changed.
    pub(crate) fn execute(
        &mut self,
        sql: &'static str,
        values: &[Value],
    ) -> Result<u64, StoreError> {
        let (statement, _) = self.prepare(sql)?;
        let client = self.client.clone();
        self.ask(client.execute_raw(&statement, values))
    }

    /// Runs a query.
    pub(crate) fn query(
        &mut self,
        sql: &'static str,
        values: &[Value],
    ) -> Result<Vec<Row>, StoreError> {
        let (statement, columns) = self.prepare(sql)?;
        let client = self.client.clone();
        let values = borrowed(values);
        let rows = self.ask(client.query(&statement, &values))?;
        let rows = rows.iter();
        rows.map(|row| Row::of_postgres(row, &columns)).collect()
    }

    /// Sends a statement. What it does not do is told by whatever is asked next, or at the commit; with `one`, also
    /// when it changes no row or several.
    pub(crate) fn send(
        &mut self,
        sql: &'static str,
        values: &[Value],
        one: Option<String>,
    ) -> Result<(), StoreError> {
        if self.sent.len() >= SENT_MAX {
            self.ask(async { Ok(()) })?;
        }
        let (statement, _) = self.prepare(sql)?;
        let (client, values) = (self.client.clone(), values.to_vec());
        let answer = async move { client.execute_raw(&statement, values).await };
        self.keep(Box::pin(answer), one)
    }

    /// Ends the transaction. All of it has happened, or, with an error, nothing of it; but see [`CommitError`].
    pub(super) fn commit(&mut self) -> Result<(), CommitError> {
        // A row that is not as it was makes no error by itself, which would keep the database from the commit. And on a
        // connection that broke while nobody used it, nobody could tell whether a commit went through.
        let must_hear = self.is_broken || !self.is_heard;
        if must_hear || self.sent.iter().any(|sent| sent.one.is_some()) {
            self.ask(async { Ok(()) }).map_err(CommitError::Undone)?;
        }
        let mut sent = std::mem::take(&mut self.sent);
        let mut commit = self.simple("COMMIT");
        // It is on its way before anything is waited for.
        let first = commit
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        let (settled, committed) = self.runtime.block_on(async {
            let settled = settle(&mut sent).await;
            let committed = match first {
                Poll::Ready(committed) => committed,
                Poll::Pending => commit.await,
            };
            (settled, committed)
        });
        match (settled, committed) {
            // The database undoes it, and says so of the commit without calling it an error.
            (Err(error), Ok(_)) => Err(CommitError::Undone(error)),
            // The way there broke, perhaps behind the commit.
            (Err(error), Err(_)) => Err(CommitError::Unknown(error)),
            (Ok(()), Err(error)) => Err(CommitError::Unknown(error.into())),
            (Ok(()), Ok(_)) => Ok(()),
        }
    }

    /// Undoes the transaction. When that fails, the connection must not be used again.
    pub(super) fn roll_back(&mut self) -> Result<(), StoreError> {
        // Whatever they say, it is undone.
        self.sent.clear();
        let client = self.client.clone();
        Ok(self.runtime.block_on(client.batch_execute("ROLLBACK"))?)
    }

    fn simple(&self, text: &'static str) -> Answer<u64> {
        let client = self.client.clone();
        Box::pin(async move { client.batch_execute(text).await.map(|()| 0) })
    }

    /// Sends it now, and keeps its answer to be looked at.
    fn keep(&mut self, mut answer: Answer<u64>, one: Option<String>) -> Result<(), StoreError> {
        match answer
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            // It never left: its values cannot be written, or the connection is gone. What was sent before must not
            // be committed without it.
            Poll::Ready(Err(error)) => {
                self.is_broken = true;
                Err(error.into())
            }
            Poll::Ready(Ok(_)) => Ok(()),
            Poll::Pending => {
                self.sent.push_back(Sent { answer, one });
                Ok(())
            }
        }
    }

    /// Waits for an answer, and for all that were not looked at before it.
    fn ask<T>(
        &mut self,
        question: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, StoreError> {
        let sent = &mut self.sent;
        let (settled, answer) = self
            .runtime
            .block_on(async { tokio::join!(settle(sent), question) });
        if self.is_broken {
            return Err(settled
                .err()
                .unwrap_or_else(|| StoreError::Database(BROKEN.into())));
        }
        self.is_broken = settled.is_err() || answer.is_err();
        // What went wrong first is the reason of whatever went wrong behind it.
        settled?;
        let answer = answer?;
        self.is_heard = true;
        Ok(answer)
    }

    fn prepare(&mut self, sql: &'static str) -> Result<(Statement, Arc<[String]>), StoreError> {
        if let Some((statement, columns)) = self.prepared.get(sql) {
            return Ok((statement.clone(), columns.clone()));
        }
        let client = self.client.clone();
        let statement = self.ask(client.prepare(sql))?;
        let columns = statement.columns().iter();
        let columns: Arc<[String]> = columns.map(|column| column.name().to_owned()).collect();
        self.prepared
            .insert(sql, (statement.clone(), columns.clone()));
        Ok((statement, columns))
    }
}

const BROKEN: &str = "the unit went on after a statement that failed";

/// Why a transaction was not committed.
pub(super) enum CommitError {
    /// Nothing of it has happened.
    Undone(StoreError),
    /// It may have happened: the answer did not come.
    Unknown(StoreError),
}

async fn open(address: &Address) -> Result<Client, Error> {
    let client = match &address.tls {
        None => {
            let (client, connection) = address.config.connect(tokio_postgres::NoTls).await?;
            drop(tokio::spawn(connection));
            client
        }
        Some(tls) => {
            let (client, connection) = address.config.connect(tls.clone()).await?;
            drop(tokio::spawn(connection));
            client
        }
    };
    client.batch_execute(SETTINGS).await?;
    Ok(client)
}

/// Looks at all answers, up to the first that is wrong.
async fn settle(sent: &mut VecDeque<Sent>) -> Result<(), StoreError> {
    while let Some(Sent { answer, one }) = sent.pop_front() {
        let changed = answer.await?;
        if let Some(what) = one
            && changed != 1
        {
            return Err(StoreError::Stale { what });
        }
    }
    Ok(())
}

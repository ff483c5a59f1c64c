//! A connection of a worker, on which statements that nobody waits for are sent and looked at later.
//!
//! A message to the database and back costs more than most of our statements: two processes are woken for it. So a
//! transaction sends its `BEGIN` with its first statement, and each statement of which only the error counts with the
//! next one that is asked something ([`Session::send`]). Their answers come in the order in which they were sent, so
//! whoever waits for one has those before it.
//!
//! What is sent is gathered until then, and what is the same statement for other rows goes as one ([`rows`]). Only
//! statements on different tables change their order by that, and no table of ours knows of another; but the place of a
//! job is locked before the job, as a claim does, and stays so ([`mergeable`]).

use super::address::Address;
use super::rows::{self, Together};
use crate::db::{Value, borrowed};
use crate::work::Kind;
use crate::{Row, StoreError};
use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::error::{DbError, Severity};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Statement};

/// Bounds of what one unit waits for, so that a lock that somebody forgot, or a client that was stopped
/// in the middle, does not hold up all others for ever. A lock as long as SQLite waits for its own.
///
/// And what is outside of a transaction may change nothing: when a `BEGIN` fails, what was sent behind it would
/// otherwise be carried out, each statement for itself.
const SETTINGS: &str = "SET lock_timeout = '5s'; SET statement_timeout = '30s'; \
     SET idle_in_transaction_session_timeout = '30s'; SET default_transaction_read_only = on";
const WRITE: &str = "BEGIN READ WRITE";
/// For units that share it: less than after which PostgreSQL looks for a circle (`deadlock_timeout`, 1 s).
const SHARED: &str = "BEGIN READ WRITE; SET LOCAL lock_timeout = '50ms'";
/// All statements of it see the same moment, as they do on SQLite.
const READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// Answers that are not looked at yet. A transaction that sends more waits for them in between.
const SENT_MAX: usize = 256;

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// A statement that was sent.
struct Sent {
    answer: Answer<u64>,
    counted: Option<Counted>,
}

/// A statement that has to change so many rows.
struct Counted {
    rows: u64,
    /// What is stale otherwise.
    what: String,
}

/// The same statement for one row or for many, which is not sent yet.
struct Gathered {
    sql: &'static str,
    table: String,
    rows: Vec<Vec<Value>>,
    /// What each row is about, where each has to change one: the same is not there twice, because one statement changes
    /// a row once.
    ones: Option<HashSet<String>>,
}

/// A query and what it is about, if it is about something.
type Question = (&'static str, Option<String>);

/// A statement that the connection knows.
#[derive(Clone)]
struct Prepared {
    statement: Statement,
    columns: Arc<[String]>,
    /// The same for many rows, where each of them is counted, and where none is.
    together: [Option<Arc<Together>>; 2],
}

/// A connection, and the transaction that is open on it.
pub(crate) struct Session {
    client: Arc<Client>,
    runtime: Runtime,
    /// What is prepared, which spares a round trip for each use. The texts are in the program, so there are not many.
    prepared: HashMap<&'static str, Prepared>,
    /// The same for many rows, by their texts.
    together: HashMap<Arc<Together>, Statement>,
    gathered: Vec<Gathered>,
    /// What the unit that runs has written.
    own: usize,
    sent: VecDeque<Sent>,
    /// Answers that hold for the whole transaction, where several units share one.
    known: Option<HashMap<Question, Vec<Row>>>,
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
            prepared: HashMap::new(),
            together: HashMap::new(),
            gathered: Vec::new(),
            own: 0,
            sent: VecDeque::new(),
            known: None,
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
        self.gathered.clear();
        self.own = 0;
        let text = match kind {
            Kind::Write => WRITE,
            Kind::Shared => SHARED,
            Kind::Read => READ,
        };
        self.known = (kind == Kind::Shared).then(HashMap::new);
        let answer = self.simple(text);
        self.keep(answer, None)
    }

    /// What is written from here on is of the next unit.
    pub(crate) fn next_unit(&mut self) {
        self.own = 0;
    }

    /// Runs a statement; returns how many rows it changed.
    pub(crate) fn execute(
        &mut self,
        sql: &'static str,
        values: &[Value],
    ) -> Result<u64, StoreError> {
        self.own += 1;
        self.send_gathered()?;
        let statement = self.prepare(sql)?.statement;
        let client = self.client.clone();
        self.ask(client.execute_raw(&statement, values))
    }

    /// Runs a query.
    pub(crate) fn query(
        &mut self,
        sql: &'static str,
        values: &[Value],
    ) -> Result<Vec<Row>, StoreError> {
        self.send_gathered()?;
        self.look(sql, values)
    }

    /// Runs a query that need not see what other units that share this transaction have written, as if they were in
    /// transactions of their own which are not committed yet.
    pub(crate) fn query_apart(
        &mut self,
        sql: &'static str,
        values: &[Value],
    ) -> Result<Vec<Row>, StoreError> {
        if self.own > 0 {
            return self.query(sql, values);
        }
        let about = match values {
            [] => None,
            [Value::Text(id)] => Some(id.clone()),
            _ => return self.look(sql, values),
        };
        let question = (sql, about);
        let known = self.known.as_ref();
        if let Some(rows) = known.and_then(|known| known.get(&question)) {
            return Ok(rows.clone());
        }
        let rows = self.look(sql, values)?;
        if let Some(known) = self.known.as_mut().filter(|_| values.is_empty()) {
            known.insert(question, rows.clone());
        }
        Ok(rows)
    }

    /// Has the answer to a query that units of this transaction will ask.
    pub(crate) fn foresee(&mut self, sql: &'static str, about: String, row: Row) {
        if let Some(known) = &mut self.known {
            known.insert((sql, Some(about)), vec![row]);
        }
    }

    fn look(&mut self, sql: &'static str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
        let Prepared {
            statement, columns, ..
        } = self.prepare(sql)?;
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
        self.own += 1;
        let prepared = self.prepare(sql)?;
        let Some(together) = &prepared.together[usize::from(one.is_some())] else {
            self.send_gathered()?;
            return self.send_now(&prepared.statement, values, one);
        };
        let table = together.table.clone();
        match mergeable(&mut self.gathered, sql, &table, one.as_deref()) {
            Some(there) => {
                there.rows.push(values.to_vec());
                there
                    .ones
                    .iter_mut()
                    .for_each(|ones| ones.extend(one.clone()));
                if there.rows.len() >= SENT_MAX {
                    return self.send_gathered();
                }
            }
            None => self.gathered.push(Gathered {
                sql,
                table,
                rows: vec![values.to_vec()],
                ones: one.map(|one| HashSet::from([one])),
            }),
        }
        Ok(())
    }

    fn send_now(
        &mut self,
        statement: &Statement,
        values: &[Value],
        one: Option<String>,
    ) -> Result<(), StoreError> {
        if self.sent.len() >= SENT_MAX {
            self.ask(async { Ok(()) })?;
        }
        let (client, statement, values) = (self.client.clone(), statement.clone(), values.to_vec());
        let answer = async move { client.execute_raw(&statement, values).await };
        let counted = one.map(|what| Counted { rows: 1, what });
        self.keep(Box::pin(answer), counted)
    }

    /// Sends what was gathered, in its order.
    fn send_gathered(&mut self) -> Result<(), StoreError> {
        for all in std::mem::take(&mut self.gathered) {
            let prepared = self.prepare(all.sql)?;
            let together = prepared.together[usize::from(all.ones.is_some())].as_ref();
            match together.filter(|_| all.rows.len() > 1) {
                Some(together) => self.send_together(together, all)?,
                None => {
                    let one = all.ones.and_then(|ones| ones.into_iter().next());
                    for values in &all.rows {
                        self.send_now(&prepared.statement, values, one.clone())?;
                    }
                }
            }
        }
        Ok(())
    }

    fn send_together(&mut self, together: &Arc<Together>, all: Gathered) -> Result<(), StoreError> {
        let statement = match self.together.get(together) {
            Some(statement) => statement.clone(),
            None => {
                let client = self.client.clone();
                let statement = self.ask(client.prepare(&together.sql))?;
                self.together.insert(together.clone(), statement.clone());
                statement
            }
        };
        let rows = all.rows.len() as u64;
        let what = all.ones.and_then(|ones| ones.into_iter().next());
        let what = what.map(|one| format!("one of {rows}, such as {one}"));
        let counted = what.map(|what| Counted { rows, what });
        let client = self.client.clone();
        let answer = async move {
            let columns = rows::columns(&all.rows);
            let values: Vec<&(dyn ToSql + Sync)> = columns.iter().map(|one| one as _).collect();
            client.execute(&statement, &values).await
        };
        self.keep(Box::pin(answer), counted)
    }

    /// Ends the transaction. All of it has happened, or, with an error, nothing of it; but see [`CommitError`].
    pub(super) fn commit(&mut self) -> Result<(), CommitError> {
        self.send_gathered().map_err(CommitError::Undone)?;
        // A row that is not as it was makes no error by itself, which would keep the database from the commit. And on a
        // connection that broke while nobody used it, nobody could tell whether a commit went through.
        let must_hear = self.is_broken || !self.is_heard;
        if must_hear || self.sent.iter().any(|sent| sent.counted.is_some()) {
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
            (Ok(()), Err(error)) if is_refusal(&error) => Err(CommitError::Undone(error.into())),
            (Ok(()), Err(error)) => Err(CommitError::Unknown(error.into())),
            (Ok(()), Ok(_)) => Ok(()),
        }
    }

    /// Undoes the transaction. When that fails, the connection must not be used again.
    pub(super) fn roll_back(&mut self) -> Result<(), StoreError> {
        // Whatever they say, it is undone.
        self.sent.clear();
        self.gathered.clear();
        let client = self.client.clone();
        Ok(self.runtime.block_on(client.batch_execute("ROLLBACK"))?)
    }

    fn simple(&self, text: &'static str) -> Answer<u64> {
        let client = self.client.clone();
        Box::pin(async move { client.batch_execute(text).await.map(|()| 0) })
    }

    /// Sends it now, and keeps its answer to be looked at.
    fn keep(
        &mut self,
        mut answer: Answer<u64>,
        counted: Option<Counted>,
    ) -> Result<(), StoreError> {
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
                self.sent.push_back(Sent { answer, counted });
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

    fn prepare(&mut self, sql: &'static str) -> Result<Prepared, StoreError> {
        if let Some(prepared) = self.prepared.get(sql) {
            return Ok(prepared.clone());
        }
        let client = self.client.clone();
        let statement = self.ask(client.prepare(sql))?;
        let columns = statement.columns().iter();
        let columns: Arc<[String]> = columns.map(|column| column.name().to_owned()).collect();
        let together = [false, true]
            .map(|counted| rows::together(sql, statement.params(), counted).map(Arc::new));
        let prepared = Prepared {
            statement,
            columns,
            together,
        };
        self.prepared.insert(sql, prepared.clone());
        Ok(prepared)
    }
}

/// Where one more row of this statement may go: with the newest of its table, so that it passes no other statement on
/// that, unless it would pass the lock of a place.
fn mergeable<'g>(
    gathered: &'g mut [Gathered],
    sql: &'static str,
    table: &str,
    one: Option<&str>,
) -> Option<&'g mut Gathered> {
    let newest = gathered.iter().rposition(|all| all.table == table)?;
    let (all, later) = gathered.get_mut(newest..)?.split_first_mut()?;
    let fits = match (&all.ones, one) {
        (None, None) => true,
        (Some(ones), Some(one)) => !ones.contains(one),
        (None, Some(_)) | (Some(_), None) => false,
    };
    let mut later = later.iter();
    // A place that is new is nobody's to wait for.
    let locks = |one: &Gathered| one.table == rows::FIRST_LOCKED && !one.sql.starts_with("INSERT");
    (all.sql == sql && fits && !later.any(locks)).then_some(all)
}

/// Whether the database has said no and goes on. After worse it may stop before it knows itself what it has written.
fn is_refusal(error: &Error) -> bool {
    let severity = error.as_db_error().and_then(DbError::parsed_severity);
    severity == Some(Severity::Error)
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
    while let Some(Sent { answer, counted }) = sent.pop_front() {
        let changed = answer.await?;
        if let Some(Counted { rows, what }) = counted
            && changed != rows
        {
            return Err(StoreError::Stale { what });
        }
    }
    Ok(())
}

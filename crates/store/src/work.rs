//! A unit of work on its way to a database thread and its result on the way back.

use crate::{StoreError, Tx};
use model::id::JobId;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokio::sync::{mpsc, oneshot};

/// What a unit may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Change something.
    Write,
    /// The same, perhaps in one transaction with others of this kind.
    Shared,
    /// Only look.
    Read,
}

/// A unit of work whose result type is hidden, so that units of all kinds share a queue.
pub(crate) trait Work: Send {
    /// What the unit may do.
    fn kind(&self) -> Kind;

    /// The job that it will read first.
    fn about(&self) -> Option<&JobId>;

    /// Runs the unit and keeps its result. May be called again after the transaction was rolled back.
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError>;

    /// Tells whoever waits: the kept result, or that it did not come to it.
    fn done(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Unit<T, F> {
    kind: Kind,
    about: Option<JobId>,
    unit: F,
    result: Option<T>,
    tell: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Work for Unit<T, F>
where
    T: Send,
    F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send,
{
    fn kind(&self) -> Kind {
        self.kind
    }

    fn about(&self) -> Option<&JobId> {
        self.about.as_ref()
    }

    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        self.result = None;
        // A unit that panics must not take the thread with it, or one wrong request would close the
        // database to all others. Of what it saw, nothing is used again: its changes are undone.
        let ran = catch_unwind(AssertUnwindSafe(|| (self.unit)(tx)));
        let result = ran.map_err(|_| wrong("the unit panicked"))??;
        // PostgreSQL undoes a transaction of which a statement failed, even if it is then committed.
        if tx.has_failed() {
            return Err(wrong("the unit went on after a statement that failed"));
        }
        self.result = Some(result);
        Ok(())
    }

    fn done(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Unit { result, tell, .. } = *self;
        let result = outcome.and_then(|()| result.ok_or(StoreError::Closed));
        // Whoever asked may have gone away; the work is done all the same.
        drop(tell.send(result));
    }
}

fn wrong(what: &'static str) -> StoreError {
    StoreError::Database(what.into())
}

/// Brings a unit to a database and waits for its result.
pub(crate) async fn submit<T, F>(
    queue: &mpsc::Sender<Box<dyn Work>>,
    (kind, about): (Kind, Option<JobId>),
    unit: F,
) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
{
    let (tell, told) = oneshot::channel();
    let work: Box<dyn Work> = Box::new(Unit {
        kind,
        about,
        unit,
        result: None,
        tell,
    });
    queue.send(work).await.map_err(|_| StoreError::Closed)?;
    told.await.map_err(|_| StoreError::Closed)?
}

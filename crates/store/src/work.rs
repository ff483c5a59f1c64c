//! A unit of work on its way to a database thread and its result on the way back.

use crate::{StoreError, Tx};
use tokio::sync::{mpsc, oneshot};

/// A unit of work whose result type is hidden, so that units of all kinds share a queue.
pub(crate) trait Work: Send {
    /// Runs the unit and keeps its result. May be called again after the transaction was rolled back.
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError>;

    /// Tells whoever waits: the kept result, or that it did not come to it.
    fn done(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Unit<T, F> {
    unit: F,
    result: Option<T>,
    tell: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Work for Unit<T, F>
where
    T: Send,
    F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        self.result = Some((self.unit)(tx)?);
        Ok(())
    }

    fn done(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Unit { result, tell, .. } = *self;
        let result = outcome.and_then(|()| result.ok_or(StoreError::Closed));
        // Whoever asked may have gone away; the work is done all the same.
        drop(tell.send(result));
    }
}

/// Brings a unit to a database and waits for its result.
pub(crate) async fn submit<T, F>(
    queue: &mpsc::Sender<Box<dyn Work>>,
    unit: F,
) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
{
    let (tell, told) = oneshot::channel();
    let work: Box<dyn Work> = Box::new(Unit {
        unit,
        result: None,
        tell,
    });
    queue.send(work).await.map_err(|_| StoreError::Closed)?;
    told.await.map_err(|_| StoreError::Closed)?
}

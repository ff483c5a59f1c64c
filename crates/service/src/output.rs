//! Output of jobs, for whoever asked for them.

use crate::job::LOOK_AGAIN;
use crate::{Ctx, Error, Service};
use model::id::JobId;
use model::limits;
use std::pin::pin;
use std::time::Duration;
use store::Tx;
use store::job::JobRow;
use store::output::Segment;

impl Service {
    /// Pieces of a job's output after `after`, in the order of arrival, and the job as it was before
    /// they were read: if that has ended and there are no more pieces, there will be none.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn output_list(
        &self,
        ctx: &Ctx,
        id: &JobId,
        after: u64,
        limit: u32,
    ) -> Result<(JobRow, Vec<Segment>), Error> {
        let tenant = ctx.user()?.clone();
        let (id, limit) = (id.clone(), limit.min(limits::PAGE_MAX));
        let unit = move |tx: &mut Tx<'_>| {
            let Some(row) = store::job::get(tx, Some(&tenant), &id)? else {
                return Ok(None);
            };
            let segments = store::output::list(tx, &id, after, limit)?;
            Ok(Some((row, segments)))
        };
        self.inner.store.read(unit).await?.ok_or(Error::NotFound)
    }

    /// Like [`Service::output_list`], but waits up to `up_to` while there is nothing new.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn output_wait(
        &self,
        ctx: &Ctx,
        id: &JobId,
        after: u64,
        limit: u32,
        up_to: Duration,
    ) -> Result<(JobRow, Vec<Segment>), Error> {
        let until = tokio::time::Instant::now() + up_to;
        let waiting = self.inner.wake.wait_for(id);
        loop {
            let mut hint = pin!(waiting.hint());
            hint.as_mut().enable();
            let (row, segments) = self.output_list(ctx, id, after, limit).await?;
            let now = tokio::time::Instant::now();
            if !segments.is_empty() || row.state.outcome().is_some() || now >= until {
                return Ok((row, segments));
            }
            drop(tokio::time::timeout_at(until.min(now + LOOK_AGAIN), hint).await);
        }
    }
}

//! What jobs wrote.

use crate::job::{owned, until};
use crate::wake::{News, news};
use crate::{Ctx, Error, Service};
use model::access::Action;
use model::enforcement::StreamReport;
use model::id::JobId;
use model::limits;
use std::time::Duration;
use store::output::Segment;
use tokio::time::Instant;

/// The two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// The name in rows.
    pub fn as_str(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// A piece of one stream, as a node reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPiece {
    /// Which stream.
    pub stream: Stream,
    /// Where it starts in it.
    pub offset_bytes: u64,
    /// Bytes of the stream directly before it that were dropped: they come neither now nor later.
    pub dropped_before: u64,
    /// The bytes.
    pub data: Vec<u8>,
}

/// A page of what a job wrote, in the order of arrival.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPage {
    /// The pieces.
    pub segments: Vec<Segment>,
    /// Give this as `after` to read on.
    pub next: u64,
    /// The job has ended and nothing comes after this page.
    pub complete: bool,
    /// What became of standard output, when the job has ended.
    pub stdout: Option<StreamReport>,
    /// What became of standard error, when the job has ended.
    pub stderr: Option<StreamReport>,
}

impl Service {
    /// What a job wrote, after the piece with the number `after`.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn output_list(
        &self,
        ctx: &Ctx,
        id: &JobId,
        after: u64,
        limit: u32,
    ) -> Result<OutputPage, Error> {
        ctx.may(Action::JobRead)?;
        let limit = limit.clamp(1, limits::PAGE_MAX);
        let (ctx, id) = (ctx.clone(), id.clone());
        self.look(move |tx| {
            // The job first: if it has ended by then, all that it wrote is there.
            let row = owned(tx, &ctx, &id)?;
            let segments = store::output::list(tx, &id, after, limit)?;
            let ended = row.state.outcome().is_some();
            Ok(OutputPage {
                next: segments.last().map_or(after, |last| last.seq),
                complete: ended && segments.len() < limit as usize,
                segments,
                stdout: row.stdout.filter(|_| ended),
                stderr: row.stderr.filter(|_| ended),
            })
        })
        .await
    }

    /// The same, but waits until there is something, the job has ended, or the time is up.
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
    ) -> Result<OutputPage, Error> {
        ctx.may(Action::JobRead)?;
        let until = until(up_to, limits::JOB_WAIT_MAX_MS);
        // Before the look, so that what happens between the look and the wait is not missed.
        let mut jobs = self.wake().jobs();
        loop {
            let page = self.output_list(ctx, id, after, limit).await?;
            let enough = page.complete || !page.segments.is_empty();
            if enough || Instant::now() >= until {
                return Ok(page);
            }
            drop(news(&mut jobs, id, &[News::Output, News::Finished], until).await);
        }
    }
}

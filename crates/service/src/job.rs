//! Jobs, as those see them who asked for them.

use crate::change::{Note, apply};
use crate::error::Fail;
use crate::wake::{News, news};
use crate::{Ctx, Error, Service, page};
use model::access::Action;
use model::event::Event;
use model::id::JobId;
use model::job::{JobEvent, JobState};
use model::limits;
use std::time::Duration;
use store::job::JobRow;
use store::{Tx, event, job};
use tokio::time::Instant;

/// A page of jobs, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<JobRow>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<String>,
}

/// The job, if it is this tenant's.
pub(crate) fn owned(tx: &mut Tx<'_>, ctx: &Ctx, id: &JobId) -> Result<JobRow, Fail> {
    job::get(tx, Some(&ctx.tenant), id)?.ok_or(Fail::Ours(Error::NotFound))
}

/// When waiting ends: nobody waits for longer than `most_ms`.
pub(crate) fn until(up_to: Duration, most_ms: u64) -> Instant {
    Instant::now() + up_to.min(Duration::from_millis(most_ms))
}

impl Service {
    /// A job as it is now.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn job_get(&self, ctx: &Ctx, id: &JobId) -> Result<JobRow, Error> {
        ctx.may(Action::JobRead)?;
        let (ctx, id) = (ctx.clone(), id.clone());
        self.look(move |tx| owned(tx, &ctx, &id)).await
    }

    /// Jobs, newest first: of one state, if one is named, and after the page that ended with `before`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a `before` that no page ended with.
    pub async fn job_list(
        &self,
        ctx: &Ctx,
        state: Option<&str>,
        before: Option<&str>,
        limit: u32,
    ) -> Result<JobPage, Error> {
        ctx.may(Action::JobRead)?;
        let limit = limit.clamp(1, limits::PAGE_MAX);
        let before = before.map(cursor).transpose()?;
        let (tenant, state) = (ctx.tenant.clone(), state.map(str::to_owned));
        let mut jobs = self
            .look(move |tx| {
                let before = before.as_ref().map(|(ms, id)| (*ms, id));
                // One more than is shown tells whether there is another page.
                Ok(job::list(tx, &tenant, state.as_deref(), before, limit + 1)?)
            })
            .await?;
        let next = page::cut(&mut jobs, limit, |row| {
            format!("{}.{}", row.created_at_ms, row.id)
        });
        Ok(JobPage { jobs, next })
    }

    /// Asks a job to end. One that waits ends at once; for one that a node has, the node is told.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] for one that has ended otherwise.
    pub async fn job_cancel(&self, ctx: &Ctx, id: &JobId) -> Result<JobRow, Error> {
        ctx.may(Action::JobWrite)?;
        let note = Note::new(ctx, self.now_ms());
        let (ctx, id) = (ctx.clone(), id.clone());
        let (row, moved) = self
            .unit(move |tx| {
                let row = owned(tx, &ctx, &id)?;
                let moved = apply(tx, &row, &JobEvent::Cancel, note.clone())?;
                let is_new = moved.is_some();
                Ok((moved.unwrap_or(row), is_new))
            })
            .await?;
        if moved {
            self.announce(&row);
        }
        Ok(row)
    }

    /// A job when it has ended, or as it is when the time is up.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn job_wait(&self, ctx: &Ctx, id: &JobId, up_to: Duration) -> Result<JobRow, Error> {
        ctx.may(Action::JobRead)?;
        let ended = |row: &JobRow| row.state.outcome().is_some();
        self.wait_for(ctx, id, up_to, ended).await
    }

    /// A job when a node has it or it has ended, or as it is when the time is up.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn job_wait_leased(
        &self,
        ctx: &Ctx,
        id: &JobId,
        up_to: Duration,
    ) -> Result<JobRow, Error> {
        ctx.may(Action::JobRead)?;
        let placed = |row: &JobRow| row.state.lease().is_some() || row.state.outcome().is_some();
        self.wait_for(ctx, id, up_to, placed).await
    }

    async fn wait_for(
        &self,
        ctx: &Ctx,
        id: &JobId,
        up_to: Duration,
        enough: impl Fn(&JobRow) -> bool,
    ) -> Result<JobRow, Error> {
        let until = until(up_to, limits::JOB_WAIT_MAX_MS);
        // Before the look, so that what happens between the look and the wait is not missed.
        let mut jobs = self.wake().jobs();
        let mut row = self.job_get(ctx, id).await?;
        loop {
            if enough(&row) || Instant::now() >= until {
                return Ok(row);
            }
            let matter = [News::Leased, News::Finished];
            row = match news(&mut jobs, id, &matter, until).await {
                // The look before has shown that this caller may see it. News may be of an older
                // moment than the look, and then they are none.
                Some(told) if told.version >= row.version => JobRow::clone(&told),
                Some(_) => row,
                None => self.job_get(ctx, id).await?,
            };
        }
    }

    /// A job whose streams can be attached to.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] `not_attachable` for one that was not made for it, or
    /// has ended.
    pub async fn job_attachable(&self, ctx: &Ctx, id: &JobId) -> Result<JobRow, Error> {
        ctx.may(Action::JobWrite)?;
        let row = self.job_get(ctx, id).await?;
        let ended = matches!(row.state, JobState::Finished { .. });
        let message = match (row.spec.attach, ended) {
            (true, false) => return Ok(row),
            (true, true) => "the job has ended",
            (false, _) => "the job was not made to be attached to",
        };
        Err(Error::Conflict {
            code: "not_attachable",
            message: message.to_owned(),
        })
    }

    /// What happened to a job, after the event of version `after`.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn job_events(
        &self,
        ctx: &Ctx,
        id: &JobId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Event>, Error> {
        ctx.may(Action::JobRead)?;
        let limit = limit.clamp(1, limits::PAGE_MAX);
        let (ctx, id) = (ctx.clone(), id.clone());
        self.look(move |tx| {
            owned(tx, &ctx, &id)?;
            Ok(event::list(tx, "job", id.as_str(), after, limit)?)
        })
        .await
    }
}

/// Where a page begins, from the text that the page before ended with.
fn cursor(text: &str) -> Result<(u64, JobId), Error> {
    let wrong = || Error::invalid("before", "invalid_argument", "no page ended with this");
    let (ms, id) = text.split_once('.').ok_or_else(wrong)?;
    let ms = ms.parse().map_err(|_| wrong())?;
    Ok((ms, id.parse().map_err(|_| wrong())?))
}

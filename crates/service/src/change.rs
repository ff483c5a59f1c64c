//! Decide with `model`, write with `store`, and tell whoever waits.

use crate::error::Fail;
use crate::wake::News;
use crate::{Ctx, Error, Service, approval};
use model::enforcement::Enforced;
use model::id::{JobId, PrincipalId, SandboxId};
use model::job::{JobEvent, JobState, Step};
use serde_json::{Map, Value};
use store::job::{JobChange, JobEnd, JobRow};
use store::{StoreError, Tx};

/// How often a decision is made anew because somebody else changed the row meanwhile.
const TRIES: u32 = 4;
/// Reasons and details kept of what a node says: enough for a stack trace.
const TEXT_BYTES_MAX: usize = 4096;

/// What is known beside the event itself.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    pub(crate) principal: PrincipalId,
    pub(crate) at_ms: u64,
    pub(crate) why: Option<String>,
    pub(crate) driver: Option<String>,
    pub(crate) sandbox_id: Option<SandboxId>,
    pub(crate) enforcement: Option<Vec<Enforced>>,
    pub(crate) end: Option<JobEnd>,
}

impl Note {
    pub(crate) fn new(ctx: &Ctx, at_ms: u64) -> Note {
        Note {
            principal: ctx.principal.clone(),
            at_ms,
            why: None,
            driver: None,
            sandbox_id: None,
            enforcement: None,
            end: None,
        }
    }

    pub(crate) fn because(mut self, why: &str) -> Note {
        self.why = Some(cut(why));
        self
    }
}

/// The beginning of a text that somebody else chose the length of.
pub(crate) fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

/// What follows from an event, ready to be written; `None` when it was so already.
pub(crate) fn decide(
    row: &JobRow,
    event: &JobEvent,
    note: Note,
) -> Result<Option<JobChange>, Error> {
    let Step::Moved(state) = row.state.step(event)? else {
        return Ok(None);
    };
    let unstarted = matches!(row.state, JobState::Leased { .. });
    let attempt = match event {
        JobEvent::Lease { .. } => row.attempt.saturating_add(1),
        // Given back before its command was let go, so the try is given back too. That of a lost lease is
        // not: a job that ends every node that takes it would go round for ever.
        JobEvent::Release { .. } if unstarted => row.attempt.saturating_sub(1),
        JobEvent::Approve
        | JobEvent::Reject
        | JobEvent::Refuse { .. }
        | JobEvent::Started { .. }
        | JobEvent::Release { .. }
        | JobEvent::Cancel
        | JobEvent::Finish { .. }
        | JobEvent::LeaseLost { .. }
        | JobEvent::QueueTimeout
        | JobEvent::GiveUp { .. } => row.attempt,
    };
    Ok(Some(JobChange {
        attempt,
        kind: kind(event, &state),
        data: data(row, &state, attempt, note.why),
        principal: note.principal,
        at_ms: note.at_ms,
        driver: note.driver,
        sandbox_id: note.sandbox_id,
        enforcement: note.enforcement,
        end: note.end,
        state,
    }))
}

fn kind(event: &JobEvent, next: &JobState) -> &'static str {
    match next {
        JobState::AwaitingApproval => "job.awaiting_approval",
        JobState::Queued if matches!(event, JobEvent::Release { .. }) => "job.released",
        JobState::Queued if matches!(event, JobEvent::LeaseLost { .. }) => "job.requeued",
        JobState::Queued => "job.queued",
        JobState::Leased { .. } => "job.leased",
        JobState::Running { .. } => "job.running",
        JobState::Stopping { .. } => "job.stopping",
        JobState::Finished { .. } => "job.finished",
    }
}

fn data(row: &JobRow, next: &JobState, attempt: u32, why: Option<String>) -> String {
    let mut data = Map::new();
    if let Some((node, epoch)) = next.lease().or_else(|| row.state.lease()) {
        data.insert("node".to_owned(), node.as_str().into());
        data.insert("epoch".to_owned(), epoch.into());
        data.insert("attempt".to_owned(), attempt.into());
    }
    if let Some(outcome) = next.outcome() {
        data.insert("outcome".to_owned(), outcome.name().into());
        data.insert("exit_code".to_owned(), outcome.exit_code().into());
    }
    if let Some(why) = why {
        data.insert("why".to_owned(), why.into());
    }
    Value::Object(data).to_string()
}

/// Decides and writes in one go; `None` when it was so already.
pub(crate) fn apply(
    tx: &mut Tx<'_>,
    row: &JobRow,
    event: &JobEvent,
    note: Note,
) -> Result<Option<JobRow>, Fail> {
    let why = note.why.clone();
    let Some(change) = decide(row, event, note)? else {
        return Ok(None);
    };
    let moved = store::job::move_to(tx, row, &change)?;
    if row.state == JobState::AwaitingApproval {
        // Nobody is to say yes to what does not wait any more, whatever ended it.
        let why = why.as_deref().unwrap_or("the job does not wait any more");
        approval::close(tx, row.id.as_str(), (&change.principal, change.at_ms), why)?;
    }
    Ok(Some(moved))
}

impl Service {
    /// Carries out a unit that reads, decides and writes, again when somebody else was faster.
    pub(crate) async fn unit<T, F>(&self, unit: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, Fail> + Clone + Send + 'static,
    {
        let mut tries = 1;
        loop {
            let unit = unit.clone();
            let outcome = self.inner.store.write(move |tx| split(unit(tx))).await;
            match outcome {
                Err(StoreError::Stale { .. }) if tries < TRIES => tries += 1,
                outcome => return outcome?,
            }
        }
    }

    /// The same for what every job comes by, perhaps in one transaction with others like it. `about` is the job that it
    /// will read first.
    pub(crate) async fn shared_unit<T, F>(&self, about: Option<JobId>, unit: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, Fail> + Clone + Send + 'static,
    {
        let first = unit.clone();
        let store = &self.inner.store;
        match store.write_shared(about, move |tx| split(first(tx))).await {
            Err(StoreError::Stale { .. }) => self.unit(unit).await,
            outcome => outcome?,
        }
    }

    /// Carries out a unit that only reads.
    pub(crate) async fn look<T, F>(&self, unit: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, Fail> + Send + 'static,
    {
        self.inner.store.read(move |tx| split(unit(tx))).await?
    }

    /// Wakes whoever waits for what has just become of a job.
    pub(crate) fn announce(&self, row: &JobRow) {
        match &row.state {
            JobState::AwaitingApproval | JobState::Running { .. } => {}
            JobState::Queued => {
                self.wake().queue();
                self.quota_freed(&row.tenant);
            }
            JobState::Leased { .. } => self.wake().job_is(row, News::Leased),
            JobState::Stopping { node, .. } => self.wake().node(node),
            JobState::Finished { .. } => {
                self.wake().job_is(row, News::Finished);
                self.quota_freed(&row.tenant);
            }
        }
    }
}

fn split<T>(outcome: Result<T, Fail>) -> Result<Result<T, Error>, StoreError> {
    match outcome {
        Ok(value) => Ok(Ok(value)),
        Err(Fail::Ours(error)) => Ok(Err(error)),
        Err(Fail::Store(error)) => Err(error),
    }
}

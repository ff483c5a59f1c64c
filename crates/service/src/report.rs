//! What nodes report about jobs. The same report again is a duplicate, another one a conflict, one
//! under an old lease is refused.

use crate::job::change;
use crate::{Ctx, Error, Service};
use model::enforcement::{Enforced, StreamReport, Usage};
use model::id::{JobId, SandboxId};
use model::job::{JobEvent, JobState, Outcome, Step};
use model::limits;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use store::job::{JobEnd, JobRow};
use store::output::{Appended, Segment};
use store::{StoreError, Tx};

/// A sandbox is about to be let go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Of the lease.
    pub epoch: u64,
    /// What isolates it.
    pub driver: String,
    /// Its name.
    pub sandbox_id: Option<SandboxId>,
    /// What is in force.
    pub enforcement: Vec<Enforced>,
}

/// A job has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Of the lease.
    pub epoch: u64,
    /// Which try.
    pub attempt: u32,
    /// How.
    pub outcome: Outcome,
    /// What it used.
    pub usage: Option<Usage>,
    /// What was in force, where that is news.
    pub enforcement: Option<Vec<Enforced>>,
    /// What became of standard output.
    pub stdout: StreamReport,
    /// What became of standard error.
    pub stderr: StreamReport,
    /// For a person.
    pub detail: Option<String>,
    /// The last pieces of output.
    pub segments: Vec<Segment>,
}

/// How a report was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reported {
    /// It was known already.
    pub duplicate: bool,
    /// Somebody wants the job to end.
    pub cancel: bool,
}

/// How often a report is decided anew when somebody else was faster.
const TRIES: u32 = 4;

type Decided = Result<(Reported, Option<JobRow>), Error>;

impl Service {
    /// The command is about to be let go. From the answer on it may have run.
    ///
    /// # Errors
    /// [`Error::StaleEpoch`], [`Error::NotFound`], [`Error::WrongState`].
    pub async fn job_started(
        &self,
        ctx: &Ctx,
        id: &JobId,
        started: Started,
    ) -> Result<Reported, Error> {
        ctx.this_node()?;
        let now = self.now_ms();
        let ctx_of = ctx.clone();
        self.report(id, move |tx, row| {
            if let Err(error) = ctx_of.holder_of(row) {
                return Ok(Err(error));
            }
            let event = JobEvent::Started {
                epoch: started.epoch,
            };
            let cancel = row.cancel_requested;
            match row.state.step(&event) {
                Err(denied) => Ok(Err(denied.into())),
                Ok(Step::Unchanged) => Ok(Ok((
                    Reported {
                        duplicate: true,
                        cancel,
                    },
                    None,
                ))),
                Ok(Step::Moved(next)) => {
                    let data = "{}".to_owned();
                    let mut change = change(row, next, &event, data, &ctx_of.principal, now);
                    change.driver = Some(started.driver.clone());
                    change.sandbox_id.clone_from(&started.sandbox_id);
                    change.enforcement = Some(started.enforcement.clone());
                    let row = store::job::move_to(tx, row, &change)?;
                    Ok(Ok((
                        Reported {
                            duplicate: false,
                            cancel,
                        },
                        Some(row),
                    )))
                }
            }
        })
        .await
    }

    /// Pieces of output. Late ones of the job's last attempt are taken as long as they fit.
    ///
    /// # Errors
    /// [`Error::StaleEpoch`], [`Error::NotFound`], [`Error::Conflict`], [`Error::Invalid`].
    pub async fn job_output(
        &self,
        ctx: &Ctx,
        id: &JobId,
        epoch: u64,
        attempt: u32,
        segments: Vec<Segment>,
    ) -> Result<Reported, Error> {
        ctx.this_node()?;
        let (ctx_of, now) = (ctx.clone(), self.now_ms());
        let reported = self
            .report(id, move |tx, row| {
                if let Err(error) = ctx_of.holder_of(row) {
                    return Ok(Err(error));
                }
                if row.epoch != epoch || row.attempt != attempt {
                    return Ok(Err(Error::StaleEpoch));
                }
                let duplicate = match append(tx, row, &segments, now)? {
                    Ok(duplicate) => duplicate,
                    Err(error) => return Ok(Err(error)),
                };
                Ok(Ok((
                    Reported {
                        duplicate,
                        cancel: row.cancel_requested,
                    },
                    None,
                )))
            })
            .await?;
        self.inner.wake.job(id);
        Ok(reported)
    }

    /// A job has ended.
    ///
    /// # Errors
    /// [`Error::StaleEpoch`], [`Error::NotFound`], [`Error::Conflict`].
    pub async fn job_finished(
        &self,
        ctx: &Ctx,
        id: &JobId,
        finished: Finished,
    ) -> Result<Reported, Error> {
        ctx.this_node()?;
        let (ctx_of, now) = (ctx.clone(), self.now_ms());
        let hash = hash_of(&finished);
        let finished = Arc::new(finished);
        self.report(id, move |tx, row| {
            finish(tx, row, &ctx_of, &finished, &hash, now)
        })
        .await
    }

    /// A node gives a job back that it has not started.
    ///
    /// # Errors
    /// [`Error::StaleEpoch`], [`Error::NotFound`], [`Error::WrongState`] when it was let go.
    pub async fn job_release(&self, ctx: &Ctx, id: &JobId, epoch: u64) -> Result<Reported, Error> {
        ctx.this_node()?;
        self.holder(ctx, id).await?;
        let event = JobEvent::Release { epoch };
        let (row, moved) = self
            .step(ctx, None, id, event, r#"{"why":"given back"}"#)
            .await?;
        Ok(Reported {
            duplicate: !moved,
            cancel: row.cancel_requested,
        })
    }

    pub(crate) async fn holder(&self, ctx: &Ctx, id: &JobId) -> Result<JobRow, Error> {
        let id = id.clone();
        let row = self
            .inner
            .store
            .read(move |tx| store::job::get(tx, None, &id))
            .await?;
        let row = row.ok_or(Error::NotFound)?;
        ctx.holder_of(&row).map(|()| row)
    }

    /// Reads a job and decides about a report, in one transaction.
    async fn report<D>(&self, id: &JobId, decide: D) -> Result<Reported, Error>
    where
        D: Fn(&mut Tx<'_>, &JobRow) -> Result<Decided, StoreError> + Send + Sync + 'static,
    {
        let decide = Arc::new(decide);
        for _ in 0..TRIES {
            let (id, decide) = (id.clone(), decide.clone());
            let unit = move |tx: &mut Tx<'_>| match store::job::get(tx, None, &id)? {
                Some(row) => decide(tx, &row),
                None => Ok(Err(Error::NotFound)),
            };
            match self.inner.store.write(unit).await {
                Err(StoreError::Stale { .. }) => {}
                Err(error) => return Err(error.into()),
                Ok(decided) => {
                    let (reported, changed) = decided?;
                    if let Some(row) = changed {
                        self.changed(&row);
                    }
                    return Ok(reported);
                }
            }
        }
        Err(Error::Unavailable(None))
    }
}

/// Keeps pieces of output; true when all were there.
fn append(
    tx: &mut Tx<'_>,
    row: &JobRow,
    segments: &[Segment],
    now_ms: u64,
) -> Result<Result<bool, Error>, StoreError> {
    let mut duplicate = !segments.is_empty();
    for segment in segments {
        if segment.data.len() > limits::OUTPUT_SEGMENT_BYTES {
            let what = "a piece of output that is too long".to_owned();
            return Ok(Err(Error::Conflict { what }));
        }
        let segment = Segment {
            attempt: row.attempt,
            at_ms: now_ms,
            ..segment.clone()
        };
        match store::output::append(tx, &row.id, &segment) {
            Ok(Appended::Duplicate) => {}
            Ok(Appended::New) => duplicate = false,
            Err(StoreError::Conflict { what }) => return Ok(Err(Error::Conflict { what })),
            Err(error) => return Err(error),
        }
    }
    // A node that reports more than is kept of any job is broken or hostile.
    let most = 2 * (limits::OUTPUT_HEAD_BYTES + limits::OUTPUT_TAIL_BYTES);
    if !duplicate && store::output::bytes(tx, &row.id, row.attempt)? > most {
        return Err(StoreError::Conflict {
            what: "more output than is kept".to_owned(),
        });
    }
    Ok(Ok(duplicate))
}

fn finish(
    tx: &mut Tx<'_>,
    row: &JobRow,
    ctx: &Ctx,
    finished: &Finished,
    hash: &str,
    now_ms: u64,
) -> Result<Decided, StoreError> {
    if let Err(error) = ctx.holder_of(row) {
        return Ok(Err(error));
    }
    if row.epoch != finished.epoch {
        return Ok(Err(Error::StaleEpoch));
    }
    if row.state.outcome().is_some() {
        let same = row.report_hash.as_deref() == Some(hash);
        let what = "the outcome".to_owned();
        let known = Reported {
            duplicate: true,
            cancel: row.cancel_requested,
        };
        return Ok(if same {
            Ok((known, None))
        } else {
            Err(Error::Conflict { what })
        });
    }
    let event = event_of(row, finished);
    let next = match row.state.step(&event) {
        Ok(Step::Moved(next)) => next,
        Ok(Step::Unchanged) => return Ok(Ok((Reported::default(), None))),
        Err(denied) => return Ok(Err(denied.into())),
    };
    if let Err(error) = append(tx, row, &finished.segments, now_ms)? {
        return Ok(Err(error));
    }
    let outcome = next
        .outcome()
        .map(|outcome| format!(r#"{{"outcome":"{}"}}"#, outcome.name()));
    let data = outcome.unwrap_or_else(|| r#"{"why":"its sandbox was lost"}"#.to_owned());
    let mut change = change(row, next, &event, data, &ctx.principal, now_ms);
    change.enforcement.clone_from(&finished.enforcement);
    change.end = Some(JobEnd {
        usage: finished.usage,
        detail: finished.detail.clone(),
        stdout: Some(finished.stdout),
        stderr: Some(finished.stderr),
        report_hash: Some(hash.to_owned()),
    });
    let row = store::job::move_to(tx, row, &change)?;
    Ok(Ok((
        Reported {
            duplicate: false,
            cancel: row.cancel_requested,
        },
        Some(row),
    )))
}

/// A sandbox that was lost is no end of the job yet: its retry rule says what follows.
fn event_of(row: &JobRow, finished: &Finished) -> JobEvent {
    let Outcome::Lost { why } = &finished.outcome else {
        let (epoch, outcome) = (finished.epoch, finished.outcome.clone());
        return JobEvent::Finish { epoch, outcome };
    };
    JobEvent::LeaseLost {
        epoch: finished.epoch,
        retry: row.attempt < row.spec.retry.max_attempts,
        why: why.clone(),
    }
}

/// What makes two reports the same. `Debug` of plain values is as stable as this program, and a node
/// that repeats a report does so within its lifetime.
fn hash_of(finished: &Finished) -> String {
    let digest = Sha256::digest(format!("{finished:?}").as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

//! What nodes say about jobs. The same again is a duplicate, something else is a conflict, and who
//! speaks for a lease that is over is told so.

use crate::change::{Note, apply, cut, decide};
use crate::error::Fail;
use crate::late;
use crate::lose::{Says, lost};
use crate::output::OutputPiece;
use crate::place::count_failure;
use crate::wake::News;
use crate::{Ctx, Error, Service};
use model::enforcement::{Enforced, StreamReport, Usage};
use model::id::{JobId, NodeId, SandboxId};
use model::job::{JobEvent, JobState, Outcome};
use model::limits;
use sha2::{Digest as _, Sha256};
use store::job::{JobEnd, JobRow};
use store::output::{self, Appended, Segment};
use store::{Tx, job};

/// Clauses of one report of what is in force; the driver has about twenty.
const CLAUSES_MAX: usize = 128;
/// Output kept of one attempt: both streams, with both their ends, and a piece that straddles a bound.
const OUTPUT_BYTES_MAX: u64 = 2
    * (limits::OUTPUT_HEAD_BYTES + limits::OUTPUT_TAIL_BYTES + limits::OUTPUT_SEGMENT_BYTES as u64);

/// A sandbox is ready, and its command waits to be let go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Of the lease.
    pub epoch: u64,
    /// Which attempt.
    pub attempt: u32,
    /// What isolates it.
    pub driver: String,
    /// The sandbox.
    pub sandbox_id: Option<SandboxId>,
    /// What is in force.
    pub enforcement: Vec<Enforced>,
}

/// A job has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Of the lease.
    pub epoch: u64,
    /// Which attempt.
    pub attempt: u32,
    /// How. [`Outcome::Lost`] is judged by the job's retry rule.
    pub outcome: Outcome,
    /// What it used.
    pub usage: Option<Usage>,
    /// What was in force, if that is not what was reported at the start.
    pub enforcement: Option<Vec<Enforced>>,
    /// What became of standard output.
    pub stdout: StreamReport,
    /// What became of standard error.
    pub stderr: StreamReport,
    /// For a person.
    pub detail: Option<String>,
    /// The last of its output, stored in the same transaction.
    pub segments: Vec<OutputPiece>,
}

/// A report was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// The same was reported before.
    pub duplicate: bool,
    /// The job is to end: its command must not be let go.
    pub cancel: bool,
}

const DUPLICATE: Report = Report {
    duplicate: true,
    cancel: false,
};

impl Service {
    /// A sandbox is ready. Only when this has answered without `cancel` may the command be let go.
    ///
    /// # Errors
    /// [`Error::Stale`], [`Error::Conflict`], [`Error::NotFound`].
    pub async fn job_started(
        &self,
        ctx: &Ctx,
        id: &JobId,
        started: Started,
    ) -> Result<Report, Error> {
        let node = ctx.only_node()?.clone();
        self.check_lease(ctx, id.as_str(), Some(started.epoch))
            .await?;
        check_clauses(&started.enforcement)?;
        let note = Note {
            driver: Some(cut(&started.driver)),
            sandbox_id: started.sandbox_id.clone(),
            enforcement: Some(started.enforcement.clone()),
            ..Note::new(ctx, self.now_ms())
        };
        let id = id.clone();
        self.shared_unit(Some(id.clone()), move |tx| {
            let row = in_force(tx, &node, &id, started.epoch, started.attempt)?;
            let event = JobEvent::Started {
                epoch: started.epoch,
            };
            let moved = apply(tx, &row, &event, note.clone())?;
            let cancel = matches!(row.state, JobState::Stopping { .. });
            let duplicate = moved.is_none() && !cancel;
            let same = row.sandbox_id == started.sandbox_id && row.driver == note.driver;
            if duplicate && !same {
                return Err(Error::conflict("another sandbox was reported as started").into());
            }
            Ok(Report { duplicate, cancel })
        })
        .await
    }

    /// What a job wrote. Answered means stored.
    ///
    /// # Errors
    /// [`Error::Stale`], [`Error::Conflict`] for other bytes at the same place, or `output_hole` for a piece that does
    /// not go on where its stream ends, [`Error::Invalid`].
    pub async fn job_output(
        &self,
        ctx: &Ctx,
        id: &JobId,
        epoch: u64,
        attempt: u32,
        segments: Vec<OutputPiece>,
    ) -> Result<Report, Error> {
        let node = ctx.only_node()?.clone();
        self.check_lease(ctx, id.as_str(), Some(epoch)).await?;
        check_pieces(&segments)?;
        let at_ms = self.now_ms();
        let segments = pieces(segments, attempt, at_ms);
        let job = id.clone();
        let report = self
            .unit(move |tx| {
                let row = in_force(tx, &node, &job, epoch, attempt)?;
                check_room(tx, &row, &segments)?;
                let mut new = segments.is_empty();
                for (segment, dropped) in &segments {
                    new |= output::append(tx, &job, segment, *dropped)? == Appended::New;
                }
                Ok(Report {
                    duplicate: !new,
                    cancel: matches!(row.state, JobState::Stopping { .. }),
                })
            })
            .await?;
        self.wake().job(id, News::Output);
        Ok(report)
    }

    /// A job has ended. Its last output and its outcome are stored together. Of a job that was judged
    /// lost meanwhile, the report is kept as an event, and the outcome stays.
    ///
    /// # Errors
    /// [`Error::Stale`]; [`Error::Conflict`] when it ended otherwise before; [`Error::Invalid`].
    pub async fn job_finished(
        &self,
        ctx: &Ctx,
        id: &JobId,
        finished: Finished,
    ) -> Result<Report, Error> {
        let node = ctx.only_node()?.clone();
        self.check_lease(ctx, id.as_str(), Some(finished.epoch))
            .await?;
        check_finished(&finished)?;
        let at_ms = self.now_ms();
        let hash = hash_of(&finished)?;
        let note = note_of(ctx, &finished, hash.clone(), at_ms);
        let told_late = late::data(&finished);
        let segments = pieces(finished.segments, finished.attempt, at_ms);
        let (epoch, attempt, outcome) = (finished.epoch, finished.attempt, finished.outcome);
        let id = id.clone();
        let taken = self
            .shared_unit(Some(id.clone()), move |tx| {
                let row = spoken_for(tx, &node, &id, epoch)?;
                if row.state.lease().is_none() {
                    let told = told_before(&row, &outcome, &hash)?;
                    if told == Told::Late {
                        check_attempt(&row, attempt)?;
                        late::keep(tx, &row, &hash, &told_late, &note)?;
                    }
                    return Ok(Taken::Told(told));
                }
                check_attempt(&row, attempt)?;
                let event = event_of(&row, &outcome);
                let change = decide(&row, &event, note.clone())?;
                check_room(tx, &row, &segments)?;
                for (segment, dropped) in &segments {
                    output::append(tx, &id, segment, *dropped)?;
                }
                if change.is_some() && matches!(outcome, Outcome::Lost { .. }) {
                    count_failure(tx, &node, at_ms)?;
                }
                match change {
                    Some(change) => Ok(Taken::Moved(Box::new(job::move_to(tx, &row, &change)?))),
                    None => Ok(Taken::Told(Told::Before)),
                }
            })
            .await?;
        match taken {
            Taken::Moved(row) => {
                self.announce(&row);
                Ok(Report::default())
            }
            Taken::Told(Told::Late) => Ok(Report::default()),
            Taken::Told(Told::Before) => Ok(DUPLICATE),
        }
    }

    /// A node gives a job back before its command was let go.
    ///
    /// # Errors
    /// [`Error::Stale`]; [`Error::Conflict`] for one that runs.
    pub async fn job_release(
        &self,
        ctx: &Ctx,
        id: &JobId,
        epoch: u64,
        why: &str,
    ) -> Result<Report, Error> {
        let node = ctx.only_node()?.clone();
        self.check_lease(ctx, id.as_str(), Some(epoch)).await?;
        let note = Note::new(ctx, self.now_ms()).because(why);
        let event = move |_: &JobRow| JobEvent::Release { epoch };
        self.give_up(node, id.clone(), epoch, event, note).await
    }

    async fn give_up(
        &self,
        node: NodeId,
        id: JobId,
        epoch: u64,
        event: impl Fn(&JobRow) -> JobEvent + Clone + Send + 'static,
        note: Note,
    ) -> Result<Report, Error> {
        let moved = self
            .unit(move |tx| {
                let row = spoken_for(tx, &node, &id, epoch)?;
                if row.state.lease().is_none() {
                    // Of this epoch and without a lease: it was given up before.
                    return Ok(None);
                }
                apply(tx, &row, &event(&row), note.clone())
            })
            .await?;
        let Some(row) = moved else {
            return Ok(DUPLICATE);
        };
        self.announce(&row);
        Ok(Report::default())
    }
}

/// The job, if its last lease is or was this node's and of this epoch.
pub(crate) fn spoken_for(
    tx: &mut Tx<'_>,
    node: &NodeId,
    id: &JobId,
    epoch: u64,
) -> Result<JobRow, Fail> {
    let row = job::get(tx, None, id)?.ok_or(Fail::Ours(Error::NotFound))?;
    if row.epoch != epoch {
        return Err(Error::Stale.into());
    }
    // It learns only what it must have known to come here: that there is such a lease.
    if row.node.as_ref() != Some(node) {
        return Err(Error::NotYourLease.into());
    }
    Ok(row)
}

/// The job, if this node has it now.
pub(crate) fn in_force(
    tx: &mut Tx<'_>,
    node: &NodeId,
    id: &JobId,
    epoch: u64,
    attempt: u32,
) -> Result<JobRow, Fail> {
    let row = spoken_for(tx, node, id, epoch)?;
    if row.state.lease().is_none() {
        return Err(Error::Stale.into());
    }
    check_attempt(&row, attempt)?;
    Ok(row)
}

fn check_attempt(row: &JobRow, attempt: u32) -> Result<(), Fail> {
    if row.attempt == attempt {
        return Ok(());
    }
    let message = format!("the lease is of attempt {}, not {attempt}", row.attempt);
    Err(Error::conflict(message).into())
}

/// What a report of the end of a job is that has no lease any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// The same was told before.
    Before,
    /// The job was judged lost, and this is what its node knows.
    Late,
}

/// What became of a report of the end of a job.
enum Taken {
    Moved(Box<JobRow>),
    Told(Told),
}

fn told_before(row: &JobRow, outcome: &Outcome, hash: &str) -> Result<Told, Fail> {
    let lost = matches!(outcome, Outcome::Lost { .. });
    match &row.state {
        _ if row.report_hash.as_deref() == Some(hash) => Ok(Told::Before),
        _ if late::is_awaited(row) => Ok(Told::Late),
        // What was reported as lost may have been queued again, with no more trace than that.
        JobState::Queued if lost => Ok(Told::Before),
        JobState::Finished { .. } => {
            Err(Error::conflict("the job has ended, and not by this report").into())
        }
        JobState::AwaitingApproval
        | JobState::Queued
        | JobState::Leased { .. }
        | JobState::Running { .. }
        | JobState::Stopping { .. } => Err(Error::Stale.into()),
    }
}

/// The hash by which a report is known again. Lengths stand before what has none of its own, so that
/// two different reports cannot read the same.
fn hash_of(report: &Finished) -> Result<String, Error> {
    let parts = (
        report.epoch,
        report.attempt,
        &report.outcome,
        &report.usage,
        &report.enforcement,
        (&report.stdout, &report.stderr),
        &report.detail,
        report.segments.len(),
    );
    let text =
        serde_json::to_vec(&parts).map_err(|error| Error::internal("hash a report", error))?;
    let mut hash = Sha256::new();
    hash.update(text);
    for piece in &report.segments {
        hash.update(piece.stream.as_str());
        hash.update(piece.offset_bytes.to_be_bytes());
        hash.update((piece.data.len() as u64).to_be_bytes());
        hash.update(&piece.data);
    }
    Ok(hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn note_of(ctx: &Ctx, report: &Finished, hash: String, at_ms: u64) -> Note {
    let note = Note {
        enforcement: report.enforcement.clone(),
        end: Some(JobEnd {
            usage: report.usage,
            detail: report.detail.as_deref().map(cut),
            stdout: Some(report.stdout),
            stderr: Some(report.stderr),
            report_hash: Some(hash),
        }),
        ..Note::new(ctx, at_ms)
    };
    match &report.outcome {
        Outcome::Lost { why } | Outcome::Refused { why } => note.because(why),
        Outcome::Succeeded | Outcome::Failed { .. } | Outcome::TimedOut | Outcome::Canceled => note,
    }
}

/// What a reported outcome means for a job. Of a lost one nobody knows whether it ran to its end, so the
/// job's own rule says what follows.
fn event_of(row: &JobRow, outcome: &Outcome) -> JobEvent {
    let outcome = match outcome {
        Outcome::Lost { why } => return lost(row, Says::Node, &cut(why)),
        Outcome::Refused { why } => Outcome::Refused { why: cut(why) },
        Outcome::Succeeded | Outcome::Failed { .. } | Outcome::TimedOut | Outcome::Canceled => {
            outcome.clone()
        }
    };
    JobEvent::Finish {
        epoch: row.epoch,
        outcome,
    }
}

/// Each as it is stored, and how many bytes were dropped before it.
fn pieces(pieces: Vec<OutputPiece>, attempt: u32, at_ms: u64) -> Vec<(Segment, u64)> {
    let one = |piece: OutputPiece| {
        let segment = Segment {
            seq: 0,
            attempt,
            stream: piece.stream.as_str().to_owned(),
            offset_bytes: piece.offset_bytes,
            data: piece.data,
            at_ms,
        };
        (segment, piece.dropped_before)
    };
    pieces.into_iter().map(one).collect()
}

/// A node keeps to what is kept of a stream by itself; one that does not must not fill the disk.
fn check_room(tx: &mut Tx<'_>, row: &JobRow, segments: &[(Segment, u64)]) -> Result<(), Fail> {
    if segments.is_empty() {
        return Ok(());
    }
    let new: u64 = segments
        .iter()
        .map(|(segment, _)| segment.data.len() as u64)
        .sum();
    // A report that is repeated counts twice here, and its last half still has the margin.
    if output::bytes(tx, &row.id, row.attempt)?.saturating_add(new) > OUTPUT_BYTES_MAX {
        let message = "more output than is kept of a job";
        return Err(Error::invalid("segments", "too_long", message).into());
    }
    Ok(())
}

fn check_pieces(pieces: &[OutputPiece]) -> Result<(), Error> {
    let fits = |piece: &OutputPiece| {
        let end = piece.offset_bytes.checked_add(piece.data.len() as u64);
        piece.data.len() <= limits::OUTPUT_SEGMENT_BYTES
            && end.is_some_and(|end| i64::try_from(end).is_ok())
    };
    if pieces.iter().all(fits) {
        return Ok(());
    }
    let message = format!("a piece has at most {} bytes", limits::OUTPUT_SEGMENT_BYTES);
    Err(Error::invalid("segments", "too_long", message))
}

pub(crate) fn check_clauses(clauses: &[Enforced]) -> Result<(), Error> {
    if clauses.len() <= CLAUSES_MAX {
        return Ok(());
    }
    let message = format!("at most {CLAUSES_MAX} clauses");
    Err(Error::invalid("enforcement", "too_many", message))
}

fn check_finished(report: &Finished) -> Result<(), Error> {
    check_pieces(&report.segments)?;
    check_clauses(report.enforcement.as_deref().unwrap_or_default())?;
    if let Outcome::Failed { exit_code } = report.outcome
        && !(1..=255).contains(&exit_code)
    {
        let message = "must be from 1 to 255";
        return Err(Error::invalid("outcome.exit_code", "out_of_range", message));
    }
    Ok(())
}

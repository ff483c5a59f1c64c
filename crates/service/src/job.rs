//! Jobs: asking for one, looking at it, waiting for it, not wanting it any more.

use crate::poll::Place;
use crate::{Ctx, Error, Service, random};
use model::event::Event;
use model::id::{JobId, TenantId};
use model::job::{JobEvent, JobState, Step};
use model::limits;
use model::spec::{Invalid, JobSpec};
use std::pin::pin;
use std::time::Duration;
use store::idempotency::{KeyOwner, Remembered};
use store::job::{JobChange, JobRow, NewJob};
use store::{StoreError, Tx};

/// How often a decision is made again when somebody else was faster.
const TRIES: u32 = 4;
/// How long to rely on hints before looking again: another process may have made the change.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The key of a request that may be sent twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// What the client chose.
    pub key: String,
    /// Of the request, without how long to wait.
    pub request_hash: String,
}

/// What a transaction made of a request for a job.
enum Made {
    /// A job, and whether the node of the parked poll has it.
    New { row: Box<JobRow>, leased: bool },
    /// The key had made one before.
    Existing(Box<JobRow>),
}

impl Service {
    /// Asks for a job.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::QueueFull`], [`Error::DiskFull`], [`Error::IdempotencyMismatch`];
    /// nothing is created then.
    pub async fn job_create(
        &self,
        ctx: &Ctx,
        spec: JobSpec,
        key: Option<Idempotency>,
    ) -> Result<JobRow, Error> {
        ctx.user()?;
        spec.validate().map_err(Error::Invalid)?;
        if (self.inner.free_disk)() < limits::FREE_DISK_MIN_BYTES {
            return Err(Error::DiskFull);
        }
        let id = JobId::from_parts(self.now_ms(), random()?);
        let new = NewJob {
            id,
            tenant: ctx.tenant.clone(),
            principal: ctx.principal.clone(),
            state: JobState::Queued,
            spec,
            at_ms: self.now_ms(),
        };
        let owner = key.map(|key| owner_of(ctx, key));
        let place = self.inner.parking.take(new.spec.node.as_ref());
        let node = place.as_ref().map(|place| place.node.clone());
        let made = self
            .inner
            .store
            .write(move |tx| make(tx, &new, owner.as_ref(), node.as_ref()))
            .await;
        self.made(made, place).await
    }

    /// Hands a job that was leased at once to the poll that waits for it.
    async fn made(
        &self,
        made: Result<Result<Made, Error>, StoreError>,
        place: Option<Place>,
    ) -> Result<JobRow, Error> {
        match made.map_err(Error::from).flatten() {
            Ok(Made::New { row, leased: true }) => {
                let given = place.is_some_and(|place| place.give((*row).clone()));
                if !given {
                    // The node hung up between the two. It has not heard of the job.
                    self.give_back(&row).await?;
                }
                Ok(*row)
            }
            Ok(Made::New { row, leased: false }) => {
                self.inner.wake.queue.notify_waiters();
                Ok(*row)
            }
            Ok(Made::Existing(row)) => {
                place
                    .into_iter()
                    .for_each(|place| self.inner.parking.put_back(place));
                Ok(*row)
            }
            Err(error) => {
                place
                    .into_iter()
                    .for_each(|place| self.inner.parking.put_back(place));
                Err(error)
            }
        }
    }

    /// A job.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn job_get(&self, ctx: &Ctx, id: &JobId) -> Result<JobRow, Error> {
        let tenant = ctx.user()?.clone();
        let id = id.clone();
        let row = self
            .inner
            .store
            .read(move |tx| store::job::get(tx, Some(&tenant), &id))
            .await?;
        row.ok_or(Error::NotFound)
    }

    /// Jobs, newest first, at most `limit`; with `before`, those that follow it in that order.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no job `before`.
    pub async fn job_list(
        &self,
        ctx: &Ctx,
        state: Option<&'static str>,
        before: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<JobRow>, Error> {
        let tenant = ctx.user()?.clone();
        let limit = limit.min(limits::PAGE_MAX);
        let unit = move |tx: &mut Tx<'_>| {
            let before = match &before {
                None => None,
                Some(id) => match store::job::get(tx, Some(&tenant), id)? {
                    Some(row) => Some((row.created_at_ms, row.id)),
                    None => return Ok(None),
                },
            };
            let before = before.as_ref().map(|(ms, id)| (*ms, id));
            store::job::list(tx, &tenant, state, before, limit).map(Some)
        };
        self.inner.store.read(unit).await?.ok_or(Error::NotFound)
    }

    /// Does not want a job any more. One that waits ends at once; one that runs is told to.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::WrongState`] when it has ended otherwise.
    pub async fn job_cancel(&self, ctx: &Ctx, id: &JobId) -> Result<JobRow, Error> {
        let tenant = ctx.user()?.clone();
        let (row, moved) = self
            .step(ctx, Some(tenant), id, JobEvent::Cancel, "{}")
            .await?;
        if moved && let Some((node, _)) = row.state.lease() {
            self.inner.wake.node(node).notify_waiters();
        }
        Ok(row)
    }

    /// Waits until a job has ended, at most `up_to`, and returns it as it is then.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn job_wait(&self, ctx: &Ctx, id: &JobId, up_to: Duration) -> Result<JobRow, Error> {
        ctx.user()?;
        let until = tokio::time::Instant::now() + up_to;
        let waiting = self.inner.wake.wait_for(id);
        loop {
            let mut hint = pin!(waiting.hint());
            hint.as_mut().enable();
            let row = self.job_get(ctx, id).await?;
            let now = tokio::time::Instant::now();
            if row.state.outcome().is_some() || now >= until {
                return Ok(row);
            }
            // The result does not matter: whether woken or not, it looks again.
            drop(tokio::time::timeout_at(until.min(now + LOOK_AGAIN), hint).await);
        }
    }

    /// What happened to a job, after version `after`.
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
        self.job_get(ctx, id).await?;
        let id = id.clone();
        let limit = limit.min(limits::PAGE_MAX);
        let unit = move |tx: &mut Tx<'_>| store::event::list(tx, "job", id.as_str(), after, limit);
        Ok(self.inner.store.read(unit).await?)
    }

    /// Checks that a client can be attached to a job's streams.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::WrongState`] when it has ended or was not asked for with it.
    pub async fn job_attachable(&self, ctx: &Ctx, id: &JobId) -> Result<JobRow, Error> {
        let row = self.job_get(ctx, id).await?;
        if row.state.outcome().is_some() {
            return Err(Error::WrongState {
                state: row.state.name(),
            });
        }
        if !row.spec.attach {
            return Err(Error::WrongState {
                state: "not attachable",
            });
        }
        Ok(row)
    }

    /// Reads a job, lets `model` decide, and writes what follows, in one transaction. Returns the job
    /// and whether it has changed.
    pub(crate) async fn step(
        &self,
        ctx: &Ctx,
        tenant: Option<TenantId>,
        id: &JobId,
        event: JobEvent,
        data: &'static str,
    ) -> Result<(JobRow, bool), Error> {
        let now = self.now_ms();
        let principal = ctx.principal.clone();
        for _ in 0..TRIES {
            let (id, event, principal) = (id.clone(), event.clone(), principal.clone());
            let tenant = tenant.clone();
            let unit = move |tx: &mut Tx<'_>| {
                let Some(row) = store::job::get(tx, tenant.as_ref(), &id)? else {
                    return Ok(Err(Error::NotFound));
                };
                let next = match row.state.step(&event) {
                    Ok(Step::Moved(next)) => next,
                    Ok(Step::Unchanged) => return Ok(Ok((row, false))),
                    Err(denied) => return Ok(Err(denied.into())),
                };
                let change = change(&row, next, &event, data.to_owned(), &principal, now);
                Ok(Ok((store::job::move_to(tx, &row, &change)?, true)))
            };
            match self.inner.store.write(unit).await {
                Err(StoreError::Stale { .. }) => {}
                Err(error) => return Err(error.into()),
                Ok(decided) => {
                    let (row, moved) = decided?;
                    if moved {
                        self.changed(&row);
                    }
                    return Ok((row, moved));
                }
            }
        }
        Err(Error::Unavailable(None))
    }

    /// Wakes whoever waits for what has just happened to a job.
    pub(crate) fn changed(&self, row: &JobRow) {
        self.inner.wake.job(&row.id);
        if row.state == JobState::Queued {
            self.inner.wake.queue.notify_waiters();
        }
    }
}

fn owner_of(ctx: &Ctx, key: Idempotency) -> (KeyOwner, String) {
    let owner = KeyOwner {
        tenant: ctx.tenant.clone(),
        principal: ctx.principal.clone(),
        operation: "job.create".to_owned(),
        key: key.key,
    };
    (owner, key.request_hash)
}

/// The transaction of a new job: everything that can be in its way, the job, and the lease of the node
/// that waits for it.
fn make(
    tx: &mut Tx<'_>,
    new: &NewJob,
    key: Option<&(KeyOwner, String)>,
    node: Option<&model::id::NodeId>,
) -> Result<Result<Made, Error>, StoreError> {
    if let Some((owner, request_hash)) = key
        && let Some(before) = store::idempotency::get(tx, owner)?
    {
        return existing(tx, &new.tenant, &before, request_hash);
    }
    let wrong = missing_files(tx, new)?
        .into_iter()
        .chain(beyond_machine(tx, new)?);
    let wrong: Vec<Invalid> = wrong.collect();
    if !wrong.is_empty() {
        return Ok(Err(Error::Invalid(wrong)));
    }
    if store::job::count_queued(tx, &new.tenant, limits::QUEUE_MAX)? >= limits::QUEUE_MAX {
        return Ok(Err(Error::QueueFull));
    }
    if let Some((owner, request_hash)) = key {
        let (request_hash, resource_id) = (request_hash.clone(), new.id.to_string());
        let remember = Remembered {
            request_hash,
            resource_id,
        };
        store::idempotency::put(tx, owner, &remember, new.at_ms)?;
    }
    let row = store::job::insert(tx, new)?;
    let Some(node) = node else {
        return Ok(Ok(Made::New {
            row: Box::new(row),
            leased: false,
        }));
    };
    let row = crate::poll::lease(tx, &row, node, new.at_ms)?;
    Ok(Ok(Made::New {
        row: Box::new(row),
        leased: true,
    }))
}

fn existing(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    before: &Remembered,
    request_hash: &str,
) -> Result<Result<Made, Error>, StoreError> {
    if before.request_hash != request_hash {
        return Ok(Err(Error::IdempotencyMismatch));
    }
    let Ok(id) = before.resource_id.parse() else {
        return Ok(Err(Error::NotFound));
    };
    let row = store::job::get(tx, Some(tenant), &id)?;
    Ok(row
        .map(|row| Made::Existing(Box::new(row)))
        .ok_or(Error::NotFound))
}

/// Files that were never sent, or not by this tenant.
fn missing_files(tx: &mut Tx<'_>, new: &NewJob) -> Result<Vec<Invalid>, StoreError> {
    let mut missing = Vec::new();
    for (index, file) in new.spec.files.iter().enumerate() {
        let upload = store::upload::get(tx, &new.tenant, &file.digest)?;
        if upload.is_none_or(|upload| upload.size_bytes != file.size_bytes) {
            missing.push(Invalid {
                field: format!("files[{index}]"),
                code: "file_missing",
                message: format!("the bytes of `{}` were not sent before", file.path),
            });
        }
    }
    Ok(missing)
}

/// Limits that no node that is known could ever hold.
fn beyond_machine(tx: &mut Tx<'_>, new: &NewJob) -> Result<Vec<Invalid>, StoreError> {
    let asked = &new.spec.limits;
    if *asked == model::spec::AskedLimits::default() {
        return Ok(Vec::new());
    }
    let nodes = store::node::list(tx, limits::PAGE_MAX)?;
    let most = |fact: &str| {
        nodes
            .iter()
            .filter_map(|node| node.facts.get(fact)?.parse::<u64>().ok())
            .max()
    };
    let pairs = [
        (
            "limits.memory_bytes",
            asked.memory_bytes,
            most("memory_bytes"),
        ),
        ("limits.disk_bytes", asked.disk_bytes, most("memory_bytes")),
        (
            "limits.cpu_millis",
            asked.cpu_millis.map(u64::from),
            most("cpus").map(|n| n * 1000),
        ),
    ];
    let beyond = pairs.into_iter().filter_map(|(field, asked, most)| {
        let most = most.filter(|most| asked.is_some_and(|asked| asked > *most))?;
        let message = format!("no node has more than {most}");
        Some(Invalid {
            field: field.to_owned(),
            code: "limit_beyond_machine",
            message,
        })
    });
    Ok(beyond.collect())
}

/// The row's change that an event means.
pub(crate) fn change(
    row: &JobRow,
    next: JobState,
    event: &JobEvent,
    data: String,
    principal: &model::id::PrincipalId,
    at_ms: u64,
) -> JobChange {
    // An attempt that ended before the command was let go was none.
    let unstarted = matches!(row.state, JobState::Leased { .. }) && next == JobState::Queued;
    let kind = match (&next, event) {
        (JobState::Queued, JobEvent::Release { .. }) => "job.released",
        (JobState::Queued, JobEvent::LeaseLost { .. }) => "job.requeued",
        (JobState::Queued, _) => "job.queued",
        (JobState::AwaitingApproval, _) => "job.awaiting_approval",
        (JobState::Leased { .. }, _) => "job.leased",
        (JobState::Running { .. }, _) => "job.running",
        (JobState::Stopping { .. }, _) => "job.stopping",
        (JobState::Finished { .. }, _) => "job.finished",
    };
    JobChange {
        state: next,
        attempt: if unstarted {
            row.attempt.saturating_sub(1)
        } else {
            row.attempt
        },
        kind,
        data,
        principal: principal.clone(),
        at_ms,
        driver: None,
        sandbox_id: None,
        enforcement: None,
        end: None,
    }
}

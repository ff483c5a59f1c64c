//! How a job comes to be: checked, bounded, and, when a node waits, leased in the same commit.

use crate::approval::ask::{self, Ask};
use crate::approval::yes;
use crate::capacity::Root;
use crate::change::{Note, apply};
use crate::error::Fail;
use crate::hand::Undelivered;
use crate::oldest::LATE_MS;
use crate::permit::module::of_job;
use crate::permit::{check_current, is_changed};
use crate::place::row_gets_work;
use crate::profile::ProfileAsk;
use crate::quota::Book;
use crate::quota::admit::{self, Entry};
use crate::wake::{For, Parked};
use crate::{Ctx, Error, Service, locked, random};
use model::access::Action;
use model::approval::Subject;
use model::id::{JobId, NodeId, TenantId};
use model::job::{JobEvent, JobState};
use model::limits;
use model::node::Scheduling;
use model::policy::Refusal;
use model::spec::{Invalid, JobSpec};
use std::collections::HashMap;
use std::str::FromStr;
use store::approval::ApprovalRow;
use store::idempotency::{self, KeyOwner, Remembered};
use store::job::{JobRow, NewJob};
use store::upload::UploadRow;
use store::{Tx, job, queue, upload};

/// Jobs that may be queued after a count before it is made again, at least, and which part of those that there is room
/// for: a count reads every place in the queue, also those that are dead and that the database has not cleared up, and
/// other processes queue jobs too.
const ROOM_STEP: u64 = 1000;
const ROOM_PART: u64 = 10;
/// A count begins where the one before found the oldest, and so passes nothing that is dead. A job that was given back
/// has its old place, which may be before that: all are counted so often, in milliseconds.
const COUNT_ALL_MS: u64 = 600_000;
/// The count is made anew while so many of them are left, by one request: if they were used up, all that come while it
/// is made would make it too.
const ROOM_AHEAD: u64 = 256;
/// Tenants whose count is remembered.
const ROOM_TENANTS_MAX: usize = 1024;

/// A key under which a request may be sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// Chosen by whoever asks.
    pub key: String,
    /// Of the request, without what only concerns the answer.
    pub request_hash: String,
}

/// How many jobs each tenant may queue, or sandboxes it may make, before they are counted again.
#[derive(Debug, Default)]
pub(crate) struct Room(HashMap<TenantId, Left>);

#[derive(Debug, Default)]
struct Left {
    places: u64,
    /// What was queued before is over, as the last count has seen it.
    from_ms: u64,
    /// When somebody began to count all.
    all_ms: u64,
}

impl Room {
    /// Takes a place; false when it is time to count.
    pub(crate) fn take(&mut self, tenant: &TenantId) -> bool {
        match self.0.get_mut(tenant) {
            Some(left) if left.places > 0 => {
                left.places -= 1;
                left.places != ROOM_AHEAD
            }
            _ => false,
        }
    }

    /// From where on to count; 0 is everywhere, which is for one at a time.
    fn from(&mut self, tenant: &TenantId, now_ms: u64) -> u64 {
        let Some(left) = self.0.get_mut(tenant) else {
            return 0;
        };
        if now_ms.abs_diff(left.all_ms) < COUNT_ALL_MS {
            return left.from_ms;
        }
        left.all_ms = now_ms;
        0
    }

    /// There are so many, of which `most` may be; the oldest was queued then.
    pub(crate) fn counted(
        &mut self,
        tenant: &TenantId,
        (there, oldest_ms): (u64, u64),
        (most, now_ms): (u64, u64),
    ) {
        if self.0.len() >= ROOM_TENANTS_MAX {
            self.0.clear();
        }
        let free = most.saturating_sub(there);
        let step = (free / ROOM_PART).max(ROOM_STEP).min(free);
        let left = self.0.entry(tenant.clone()).or_insert_with(|| Left {
            all_ms: now_ms,
            ..Left::default()
        });
        left.places = step.saturating_sub(1);
        left.from_ms = oldest_ms.min(now_ms).saturating_sub(LATE_MS);
    }
}

/// Everything that the transaction needs; made once, used for every try of it.
#[derive(Clone)]
struct Plan {
    new: NewJob,
    key: Option<(KeyOwner, Remembered)>,
    disk_is_full: bool,
    /// From when on those that wait are counted, if they are.
    count: Option<u64>,
    lease_to: Option<NodeId>,
    /// A person has to say yes first.
    asks: Option<ApprovalRow>,
    note: Note,
    quotas: Book,
}

impl Plan {
    /// Whether nobody else waits for a row that this job writes or locks. Those that do have an order for each job, and
    /// the jobs of one transaction have none among them.
    fn locks_nothing(&self) -> bool {
        let new = &self.new;
        self.key.is_none() && new.spec.files.is_empty() && !self.quotas.may_bound(&new.tenant)
    }
}

/// A command in one line, in which one can see where its words end.
fn words(argv: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    let word = |word: &String| match !word.is_empty() && word.chars().all(plain) {
        true => word.clone(),
        false => format!("{word:?}"),
    };
    argv.iter().map(word).collect::<Vec<_>>().join(" ")
}

enum Made {
    /// New; and how many waited, if they were counted.
    New(JobRow, Option<(u64, u64)>),
    /// Made by an earlier request with the same key.
    There(JobRow),
}

impl Service {
    /// Takes a job in.
    ///
    /// With a key, the same request again answers the job that the first one made, as it is now.
    ///
    /// # Errors
    /// [`Error::Invalid`] with all that is wrong, among it `blob_missing`, `limit_beyond_machine` and
    /// `unknown_root`;
    /// [`Error::Conflict`] `idempotency_mismatch`; [`Error::TooMuch`] `queue_full`, `quota_exceeded`;
    /// [`Error::DiskFull`].
    pub async fn job_create(
        &self,
        ctx: &Ctx,
        spec: JobSpec,
        idempotency: Option<Idempotency>,
    ) -> Result<JobRow, Error> {
        self.job_create_by(ctx, (spec, None), idempotency).await
    }

    /// The same, perhaps with a profile of somebody's. What the request does not say is then as it is there.
    ///
    /// # Errors
    /// Those of [`Service::job_create`]; [`Error::Invalid`] `unknown_profile`, `beyond_profile` and
    /// `profile_not_for_jobs`, or `policy_refused`, `policy_unenforceable` and `approval_needed`.
    pub async fn job_create_by(
        &self,
        ctx: &Ctx,
        (mut spec, profile): (JobSpec, Option<ProfileAsk>),
        idempotency: Option<Idempotency>,
    ) -> Result<JobRow, Error> {
        ctx.may(Action::JobWrite)?;
        Service::root_may(ctx, spec.root.as_deref())?;
        if let Some(row) = self.job_made_before(ctx, idempotency.as_ref()).await? {
            return Ok(row);
        }
        if let Some(asked) = profile {
            // All that is wrong is named at once, whoever finds it.
            let wrong = spec.validate().err().unwrap_or_default();
            spec = match self.job_by_profile(ctx, &asked, spec).await {
                Err(Error::Invalid(found)) => {
                    let all = found.into_iter().chain(wrong);
                    return Err(Error::Invalid(all.collect()));
                }
                other => other?,
            };
        }
        spec.validate().map_err(Error::Invalid)?;
        let mut tries = 1;
        loop {
            let permitted = self.permitted_job(ctx, spec.clone()).await?;
            match self.job_make(ctx, permitted, idempotency.clone()).await {
                Err(error) if is_changed(&error, tries) => tries += 1,
                made => return made,
            }
            self.policies_forget();
        }
    }

    /// What the first request with this key has made, where policies could refuse the same request by now: it is there,
    /// and who asks again has to learn that.
    async fn job_made_before(
        &self,
        ctx: &Ctx,
        idempotency: Option<&Idempotency>,
    ) -> Result<Option<JobRow>, Error> {
        let Some(asked) = idempotency else {
            return Ok(None);
        };
        if matches!(self.effective(ctx, &[]).await, Ok(None)) {
            return Ok(None);
        }
        let key = key_of(ctx, "job.create", asked.clone(), "");
        let tenant = ctx.tenant.clone();
        self.look(move |tx| there(tx, &tenant, Some(&key))).await
    }

    /// The same, when everything is said and decided.
    async fn job_make(
        &self,
        ctx: &Ctx,
        (mut spec, waits): (JobSpec, Vec<Refusal>),
        idempotency: Option<Idempotency>,
    ) -> Result<JobRow, Error> {
        self.place_on_root(spec.root.as_deref(), &mut spec.node)
            .await?;
        if spec.node.is_some() {
            spec.queue_timeout_ms.get_or_insert(limits::PINNED_QUEUE_MS);
        }
        let nobody = self
            .check_capacity(
                (&spec.limits, &spec.placement),
                Root::Read,
                spec.node.as_ref(),
            )
            .await?;
        self.pin_secrets(ctx, &mut spec.secrets).await?;
        let wish = spec.wish();
        let kind = (For::Jobs, self.strategy());
        let parked = match waits.is_empty() {
            true => self
                .wake()
                .take_parked(kind, spec.node.as_ref(), wish.as_ref()),
            false => None,
        };
        let mut plan = self.plan(ctx, spec, idempotency, parked.as_ref())?;
        plan.new.why = nobody;
        if !waits.is_empty() {
            self.wait_for_yes(ctx, &mut plan, &waits)?;
        }
        // In a task of its own: whoever asks may go away at any line, and then a job that was leased
        // must still reach the poll that it was leased for.
        let service = self.clone();
        let task = tokio::spawn(async move { Box::pin(service.carry_out(plan, parked)).await });
        match task.await {
            Ok(made) => made,
            Err(error) => Err(Error::internal("create a job", error)),
        }
    }

    /// Nobody gets the job before a person has said yes.
    fn wait_for_yes(&self, ctx: &Ctx, plan: &mut Plan, all: &[Refusal]) -> Result<(), Error> {
        let new = &mut plan.new;
        let permit = new.spec.permit.as_ref().map(|permit| &permit.permit);
        let ask = Ask {
            subject: Subject::Job,
            subject_id: new.id.to_string(),
            digest: String::new(),
            summary: words(&new.spec.argv),
            request: of_job(ctx, "job.create", &new.spec)["request"].take(),
            reasons: ask::reasons(all),
            why: String::new(),
            permit,
        };
        let row = self.approval_new(ctx, ask)?;
        if let Some(permit) = &mut new.spec.permit {
            permit.asked = Some(ask::asked(&row));
        }
        new.state = JobState::AwaitingApproval;
        plan.asks = Some(row);
        Ok(())
    }

    fn plan(
        &self,
        ctx: &Ctx,
        spec: JobSpec,
        idempotency: Option<Idempotency>,
        parked: Option<&Parked>,
    ) -> Result<Plan, Error> {
        let at_ms = self.now_ms();
        let id = JobId::from_parts(at_ms, random()?);
        Ok(Plan {
            key: idempotency.map(|asked| key_of(ctx, "job.create", asked, id.as_str())),
            disk_is_full: self.is_full_with(0),
            count: self.is_to_count(&ctx.tenant, at_ms),
            lease_to: parked.map(|poll| poll.node.clone()),
            asks: None,
            note: Note::new(ctx, at_ms),
            quotas: self.inner.quotas.clone(),
            new: NewJob {
                id,
                tenant: ctx.tenant.clone(),
                principal: ctx.principal.clone(),
                state: JobState::Queued,
                spec,
                at_ms,
                why: None,
            },
        })
    }

    /// From when on to count what waits, if it is time to.
    fn is_to_count(&self, tenant: &TenantId, now_ms: u64) -> Option<u64> {
        let mut room = locked(&self.inner.room);
        match room.take(tenant) {
            true => None,
            false => Some(room.from(tenant, now_ms)),
        }
    }

    async fn carry_out(&self, plan: Plan, parked: Option<Parked>) -> Result<JobRow, Error> {
        let (tenant, now_ms) = (plan.new.tenant.clone(), plan.new.at_ms);
        let shares = plan.locks_nothing();
        let unit = move |tx: &mut Tx<'_>| create(tx, &plan);
        let made = match shares {
            true => self.shared_unit(None, unit).await?,
            false => self.unit(unit).await?,
        };
        let row = match made {
            Made::There(row) => return Ok(row),
            Made::New(row, counted) => {
                if let Some(queued) = counted {
                    let mut room = locked(&self.inner.room);
                    room.counted(&tenant, queued, (limits::QUEUE_MAX, now_ms));
                }
                row
            }
        };
        // A poll that was taken and gets nothing is dropped, which lets it look at the queue again.
        if let (JobState::Leased { .. }, Some(poll)) = (&row.state, parked) {
            poll.hand_jobs(Undelivered::new(self, vec![row.clone()]));
        }
        self.announce(&row);
        Ok(row)
    }
}

/// What an earlier request with the same key has made.
fn there(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    key: Option<&(KeyOwner, Remembered)>,
) -> Result<Option<JobRow>, Fail> {
    let Some((owner, asked)) = key else {
        return Ok(None);
    };
    let Some(there) = idempotency::get(tx, owner)? else {
        return Ok(None);
    };
    let row = match made_before::<JobId>(asked, &there)? {
        Some(id) => job::get(tx, Some(tenant), &id)?,
        None => None,
    };
    let gone = || Error::mismatch("what the key was used for is gone");
    Ok(Some(row.ok_or_else(gone)?))
}

fn create(tx: &mut Tx<'_>, plan: &Plan) -> Result<Made, Fail> {
    if let Some(row) = there(tx, &plan.new.tenant, plan.key.as_ref())? {
        return Ok(Made::There(row));
    }
    if plan.disk_is_full {
        return Err(Error::DiskFull.into());
    }
    let stamps = check_current(tx, plan.new.spec.permit.as_deref())?;
    let permit = plan.new.spec.permit.as_ref();
    let yes = permit.and_then(|permit| permit.yes.as_ref());
    yes::check(tx, yes, plan.new.at_ms)?;
    if let Some(row) = &plan.asks {
        ask::check_room(tx, row)?;
    }
    check_pin(tx, plan)?;
    let counted = count(tx, plan)?;
    let by = admit::By {
        book: &plan.quotas,
        stamp: stamps.quotas,
    };
    let entry = admit::job(tx, &by, &plan.new)?;
    let uploads = find_files(tx, plan)?;
    // From here on it is written. What a job names is new again, so that a pass that forgets old
    // uploads at this moment does not forget these.
    for upload in &uploads {
        upload::put(tx, upload)?;
    }
    let node = match &plan.lease_to {
        // Whoever waited longer goes first.
        Some(node)
            if entry == Entry::Open
                && queue::is_empty(tx, node)?
                && gets_work(tx, node, plan.new.at_ms)? =>
        {
            Some(node)
        }
        _ => None,
    };
    let row = match node {
        Some(node) => insert_leased(tx, plan, node)?,
        None => {
            let row = job::insert_unplaced(tx, &plan.new)?;
            if row.state == JobState::Queued {
                queue::insert_as(tx, &row, entry == Entry::Held)?;
            }
            row
        }
    };
    if let Some(row) = &plan.asks {
        ask::write(tx, row)?;
    }
    if let Some((owner, asked)) = &plan.key {
        idempotency::put(tx, owner, asked, plan.new.at_ms)?;
    }
    Ok(Made::New(row, counted))
}

/// A job that a node has from its first moment on.
fn insert_leased(tx: &mut Tx<'_>, plan: &Plan, node: &NodeId) -> Result<JobRow, Fail> {
    let row = job::insert_unplaced(tx, &plan.new)?;
    match lease(tx, &row, node, plan.note.clone())? {
        Some(leased) => Ok(leased),
        None => {
            queue::insert(tx, &row)?;
            Ok(row)
        }
    }
}

/// A job that only one node may take would wait in vain for one that is not there.
fn check_pin(tx: &mut Tx<'_>, plan: &Plan) -> Result<(), Fail> {
    let Some(pin) = &plan.new.spec.node else {
        return Ok(());
    };
    let node = store::node::get(tx, pin)?;
    if node.is_some_and(|node| node.state.scheduling != Scheduling::Decommissioned) {
        return Ok(());
    }
    Err(Error::invalid("node", "invalid_argument", "there is no such node").into())
}

/// Whose key it is and what is made under it.
pub(crate) fn key_of(
    ctx: &Ctx,
    operation: &str,
    asked: Idempotency,
    resource_id: &str,
) -> (KeyOwner, Remembered) {
    let owner = KeyOwner {
        tenant: ctx.tenant.clone(),
        principal: ctx.principal.clone(),
        operation: operation.to_owned(),
        key: asked.key,
    };
    let remember = Remembered {
        request_hash: asked.request_hash,
        resource_id: resource_id.to_owned(),
    };
    (owner, remember)
}

/// What an earlier request with the same key made, if it was the same request.
pub(crate) fn made_before<Id: FromStr>(
    asked: &Remembered,
    there: &Remembered,
) -> Result<Option<Id>, Error> {
    if asked.request_hash != there.request_hash {
        return Err(Error::mismatch("the key was used for another request"));
    }
    Ok(there.resource_id.parse().ok())
}

fn count(tx: &mut Tx<'_>, plan: &Plan) -> Result<Option<(u64, u64)>, Fail> {
    let Some(from_ms) = plan.count else {
        return Ok(None);
    };
    let most = limits::QUEUE_MAX;
    let (queued, oldest_ms) = job::count_queued(tx, &plan.new.tenant, from_ms, most)?;
    if queued >= most {
        return Err(Fail::Ours(Error::TooMuch {
            code: "queue_full",
            message: format!("{queued} jobs wait already"),
        }));
    }
    Ok(Some((queued, oldest_ms.unwrap_or(plan.new.at_ms))))
}

/// The uploads that the job's files name, each of the same tenant: a digest alone opens nothing.
fn find_files(tx: &mut Tx<'_>, plan: &Plan) -> Result<Vec<UploadRow>, Fail> {
    let mut found = Vec::new();
    let mut wrong = Vec::new();
    for (index, file) in plan.new.spec.files.iter().enumerate() {
        let there = upload::get(tx, &plan.new.tenant, &file.digest)?;
        let mut say = |part: &str, message: &str| {
            wrong.push(Invalid {
                field: format!("files[{index}].{part}"),
                code: "blob_missing",
                message: message.to_owned(),
            });
        };
        match there {
            None => say("digest", "no bytes with this digest were sent"),
            Some(there) if there.size_bytes != file.size_bytes => {
                say("size_bytes", "the bytes with this digest are not so many");
            }
            Some(there) => found.push(UploadRow {
                created_at_ms: plan.new.at_ms,
                ..there
            }),
        }
    }
    // In one order for everybody: two jobs that name the same files would else wait for each other's rows.
    found.sort_by(|one, other| one.digest.cmp(&other.digest));
    if wrong.is_empty() {
        Ok(found)
    } else {
        Err(Error::Invalid(wrong).into())
    }
}

/// Whether a node may be given work: it is here, renews its leases, and nobody has closed it.
pub(crate) fn gets_work(tx: &mut Tx<'_>, node: &NodeId, now_ms: u64) -> Result<bool, Fail> {
    let node = store::node::get(tx, node)?;
    Ok(node.is_some_and(|node| row_gets_work(&node, now_ms)))
}

/// Gives a queued job to a node, with an epoch that no report has carried yet.
pub(crate) fn lease(
    tx: &mut Tx<'_>,
    row: &JobRow,
    node: &NodeId,
    note: Note,
) -> Result<Option<JobRow>, Fail> {
    let event = JobEvent::Lease {
        node: node.clone(),
        epoch: row.epoch + 1,
    };
    apply(tx, row, &event, note)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_out_by_a_tenth_of_those_that_are_free_and_counted_from_the_oldest_on() {
        let (mut room, one) = (Room::default(), TenantId::local());
        assert!(!room.take(&one));
        assert_eq!(room.from(&one, 5_000), 0);
        room.counted(&one, (0, 4_000), (100_000, 5_000));
        assert_eq!(room.0[&one].places, 9_999);
        assert_eq!(room.from(&one, 6_000), 4_000 - LATE_MS);
        // Near the end no more than before, and never more than there are.
        room.counted(&one, (99_000, 6_000), (100_000, 6_000));
        assert_eq!(room.0[&one].places, 999);
        room.counted(&one, (99_998, 6_000), (100_000, 6_000));
        assert!(room.take(&one));
        assert!(!room.take(&one));
        // All of them by one, while others go on.
        assert_eq!(room.from(&one, 5_000 + COUNT_ALL_MS), 0);
        assert_eq!(room.from(&one, 5_001 + COUNT_ALL_MS), 6_000 - LATE_MS);
    }

    #[test]
    fn one_counts_ahead_while_others_have_places() {
        let (mut room, one) = (Room::default(), TenantId::local());
        room.counted(&one, (0, 0), (ROOM_STEP, 0));
        let taken: Vec<bool> = (0..ROOM_STEP - 1).map(|_| room.take(&one)).collect();
        assert_eq!(taken.iter().filter(|is_free| !**is_free).count(), 1);
        assert!(!room.take(&one));
    }
}

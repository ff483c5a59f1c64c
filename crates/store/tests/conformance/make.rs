//! Jobs, nodes and changes for the cases.

use std::collections::BTreeMap;

use model::id::{JobId, NodeId, PrincipalId, TenantId};
use model::job::{JobEvent, JobState, Outcome, Step};
use model::spec::{AskedLimits, InputFile, JobSpec, Retry};
use store::job::{JobChange, JobRow, NewJob};
use store::{StoreError, Tx, job};

use crate::db::Db;

pub(crate) fn tenant(name: &str) -> TenantId {
    format!("ten_{name}").parse().unwrap()
}

pub(crate) fn principal() -> PrincipalId {
    "uid:1000".parse().unwrap()
}

fn random(number: u64) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[2..].copy_from_slice(&number.to_be_bytes());
    bytes
}

pub(crate) fn node(number: u64) -> NodeId {
    NodeId::from_parts(0, random(number))
}

pub(crate) fn job_id(number: u64) -> JobId {
    JobId::from_parts(0, random(number))
}

pub(crate) fn spec() -> JobSpec {
    JobSpec {
        profile: "default".to_owned(),
        argv: vec!["echo".to_owned(), "ö \"quoted\" \u{1f600}".to_owned()],
        env: BTreeMap::from([("A".to_owned(), "b\nc".to_owned())]),
        cwd: Some("/tmp".to_owned()),
        root: None,
        timeout_ms: 1000,
        limits: AskedLimits {
            pids: Some(1 << 20),
            ..AskedLimits::default()
        },
        files: vec![InputFile {
            path: "in".to_owned(),
            digest: "0".repeat(64),
            size_bytes: 3,
            mode: 0o644,
        }],
        outputs: vec!["out".to_owned()],
        attach: false,
        retry: Retry { max_attempts: 2 },
        queue_timeout_ms: None,
        placement: model::place::Placement::default(),
        node: None,
        secrets: Vec::new(),
        scrub_patterns: false,
        network: model::network::NetworkRules::default(),
        made_by: None,
        permit: None,
    }
}

/// A job that will be queued, at the time of its number.
pub(crate) fn new_job(number: u64) -> NewJob {
    NewJob {
        id: job_id(number),
        tenant: tenant("a"),
        principal: principal(),
        state: JobState::Queued,
        spec: spec(),
        at_ms: number,
        why: None,
    }
}

pub(crate) fn insert(db: &Db, new: NewJob) -> JobRow {
    db.write(move |tx| job::insert(tx, &new)).unwrap()
}

/// What an event makes of a job, as the service would write it; `None` where it makes nothing of it.
pub(crate) fn change(row: &JobRow, event: &JobEvent, at_ms: u64) -> Option<JobChange> {
    let Ok(Step::Moved(state)) = row.state.step(event) else {
        return None;
    };
    let attempt = match event {
        JobEvent::Lease { .. } => row.attempt + 1,
        JobEvent::Release { .. } => row.attempt - 1,
        JobEvent::Approve
        | JobEvent::Reject
        | JobEvent::Refuse { .. }
        | JobEvent::Started { .. }
        | JobEvent::Cancel
        | JobEvent::Finish { .. }
        | JobEvent::LeaseLost { .. }
        | JobEvent::QueueTimeout
        | JobEvent::GiveUp { .. } => row.attempt,
    };
    Some(JobChange {
        state,
        attempt,
        kind: "job.moved",
        data: format!("{{\"at\":{at_ms}}}"),
        principal: principal(),
        at_ms,
        driver: None,
        sandbox_id: None,
        enforcement: None,
        end: None,
    })
}

/// Writes a move that is legal.
pub(crate) fn advance(
    tx: &mut Tx<'_>,
    row: &JobRow,
    event: &JobEvent,
    at_ms: u64,
) -> Result<JobRow, StoreError> {
    job::move_to(tx, row, &change(row, event, at_ms).unwrap())
}

/// The same, in a unit of its own.
pub(crate) fn moved(db: &Db, row: &JobRow, event: &JobEvent, at_ms: u64) -> JobRow {
    let (row, event) = (row.clone(), event.clone());
    db.write(move |tx| advance(tx, &row, &event, at_ms))
        .unwrap()
}

pub(crate) fn lease(row: &JobRow, node: NodeId) -> JobEvent {
    JobEvent::Lease {
        node,
        epoch: row.epoch + 1,
    }
}

pub(crate) fn started(row: &JobRow) -> JobEvent {
    JobEvent::Started { epoch: row.epoch }
}

pub(crate) fn finish(row: &JobRow) -> JobEvent {
    JobEvent::Finish {
        epoch: row.epoch,
        outcome: Outcome::Failed { exit_code: 3 },
    }
}

pub(crate) fn lost(row: &JobRow, retry: bool) -> JobEvent {
    JobEvent::LeaseLost {
        epoch: row.epoch,
        retry,
        why: "silent".to_owned(),
    }
}

/// A job that node 1 has.
pub(crate) fn leased_job(db: &Db, number: u64) -> JobRow {
    let row = insert(db, new_job(number));
    moved(db, &row, &lease(&row, node(1)), number)
}

pub(crate) fn get(db: &Db, id: &JobId) -> Option<JobRow> {
    let id = id.clone();
    db.read(move |tx| job::get(tx, None, &id))
}

/// Checks what is true of every job at all times: as many events as versions, and a place in the queue
/// exactly while it is queued.
pub(crate) fn check_in_step(db: &Db, row: &JobRow) {
    let id = || row.id.as_str().into();
    assert_eq!(get(db, &row.id).as_ref(), Some(row));
    let places = db.count("SELECT COUNT(*) AS n FROM queue WHERE job_id = $1", &[id()]);
    assert_eq!(places, u64::from(row.state == JobState::Queued), "{row:?}");
    let job = row.id.clone();
    let events = db.read(move |tx| store::event::list(tx, "job", job.as_str(), 0, 1000));
    let versions: Vec<u64> = events.iter().map(|event| event.version).collect();
    assert_eq!(versions, (1..=row.version).collect::<Vec<_>>());
}

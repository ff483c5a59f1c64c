//! Quotas: what is used is what is there, whatever happened, and of those who want the last of it one gets it.

use std::collections::BTreeMap;

use model::id::{ArtifactId, PrincipalId, TenantId};
use model::job::{JobEvent, JobState};
use model::quota::{Amounts, Limit, Whose};
use model::sandbox::SandboxState;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use store::artifact::ArtifactRow;
use store::job::{self, JobRow, NewJob};
use store::quota::{self, QuotaRow};
use store::sandbox::{self, NewSandbox, SandboxChange, SandboxRow};
use store::{StoreError, policy, prune, queue};

use crate::db::{Db, race};
use crate::make::{
    advance, change, finish, insert, job_id, lease, lost, new_job, node, started, tenant,
};
use crate::sandboxes::new_sandbox;

fn principal(number: u64) -> PrincipalId {
    format!("user:p{number}").parse().unwrap()
}

fn whose(number: u64) -> Whose {
    Whose::Principal(principal(number))
}

fn row(whose: Whose, jobs: u64) -> QuotaRow {
    QuotaRow {
        tenant: tenant("a"),
        whose,
        most: Amounts::from([(Limit::Jobs, jobs)]),
        made_by: principal(9),
        updated_at_ms: 7,
    }
}

fn used(db: &Db, of: &TenantId, whose: &Whose) -> Amounts {
    let (of, whose) = (of.clone(), whose.clone());
    db.read(move |tx| quota::used(tx, (&of, &whose), &Limit::ALL))
}

pub(crate) fn a_quota_is_read_as_it_was_said_and_counts_by_a_stamp(db: &Db) {
    let stamp = || db.read(policy::stamps).quotas;
    assert_eq!(stamp(), None);
    let all = [row(Whose::Tenant, 1), row(whose(1), 2), row(whose(2), 3)];
    for one in all.clone() {
        db.write(move |tx| quota::put(tx, &one)).unwrap();
    }
    let first = stamp().unwrap();
    let again = row(Whose::Tenant, 5);
    let put = again.clone();
    db.write(move |tx| quota::put(tx, &put)).unwrap();
    assert_ne!(stamp(), Some(first));
    let get = |whose: Whose| db.read(move |tx| quota::get(tx, &tenant("a"), &whose));
    assert_eq!(get(Whose::Tenant), Some(again.clone()));
    let listed = |of: Option<&'static str>, after: Option<Whose>, limit| {
        db.read(move |tx| {
            let (of, a) = (of.map(tenant), tenant("a"));
            let after = after.as_ref().map(|whose| (&a, whose));
            quota::list(tx, of.as_ref(), after, limit)
        })
    };
    let rows = [again, all[1].clone(), all[2].clone()];
    assert_eq!(listed(Some("a"), None, 9), rows);
    assert_eq!(listed(None, None, 2), rows[..2]);
    assert_eq!(listed(None, Some(whose(1)), 9), rows[2..]);
    assert_eq!(listed(Some("a"), Some(Whose::Tenant), 1), rows[1..2]);
    assert_eq!(listed(Some("b"), None, 9), []);
    let delete = |whose: Whose| db.write(move |tx| quota::delete(tx, &tenant("a"), &whose));
    assert!(delete(whose(1)).unwrap());
    assert!(!delete(whose(1)).unwrap());
    assert_eq!(db.read(|tx| quota::count(tx, &tenant("a"))), 2);
    db.write(|tx| store::tenant::delete(tx, &tenant("a")))
        .unwrap();
    assert_eq!(stamp(), None);
}

pub(crate) fn of_many_that_want_the_last_of_a_quota_no_more_get_it_than_there_is(db: &Db) {
    let most = 3;
    db.write(move |tx| quota::put(tx, &row(Whose::Tenant, most)))
        .unwrap();
    let got = race(8, |thread| {
        let other = db.again();
        let take = |number: u64| {
            other.write(move |tx| {
                quota::lock(tx, [(&tenant("a"), &Whose::Tenant)])?;
                let used = quota::used(tx, (&tenant("a"), &Whose::Tenant), &[Limit::Jobs])?;
                if used[&Limit::Jobs] >= most {
                    return Ok(false);
                }
                let row = job::insert_unplaced(tx, &new_job(number))?;
                advance(tx, &row, &lease(&row, node(1)), 50)?;
                Ok(true)
            })
        };
        let numbers = thread as u64 * 4..thread as u64 * 4 + 4;
        let taken = numbers.filter(|number| take(*number).unwrap());
        taken.count()
    });
    assert_eq!(got.iter().sum::<usize>() as u64, most);
    assert_eq!(used(db, &tenant("a"), &Whose::Tenant)[&Limit::Jobs], most);
}

pub(crate) fn what_is_held_is_found_by_no_claim_until_it_is_let_go(db: &Db) {
    for number in 0..6 {
        let new = NewJob {
            principal: principal(number % 2),
            ..new_job(number)
        };
        insert(db, new);
    }
    let claim = || {
        let claim = db.write(|tx| queue::claim(tx, &node(1), 9, 100, &[]));
        claim
            .unwrap()
            .into_iter()
            .map(|row| row.id)
            .collect::<Vec<_>>()
    };
    let hold =
        |whose: Whose, limit| db.write(move |tx| queue::hold(tx, &tenant("a"), &whose, limit));
    assert_eq!(hold(whose(0), 2).unwrap(), 2);
    assert_eq!(claim().len(), 4);
    assert_eq!(hold(whose(0), 9).unwrap(), 1);
    assert_eq!(claim(), [1, 3, 5].map(job_id));
    assert_eq!(hold(Whose::Tenant, 9).unwrap(), 3);
    assert_eq!(claim(), []);
    assert!(db.read(|tx| queue::is_empty(tx, &node(1))));
    assert!(!db.read(queue::has_any));
    // They wait all the same.
    assert_eq!(
        used(db, &tenant("a"), &Whose::Tenant)[&Limit::JobsWaiting],
        6
    );
    assert_eq!(used(db, &tenant("a"), &whose(1))[&Limit::JobsWaiting], 3);
    assert_eq!(
        db.read(|tx| queue::next_tenant(tx, None)),
        Some(tenant("a"))
    );
    assert_eq!(
        db.read(|tx| queue::next_tenant(tx, Some(&tenant("a")))),
        None
    );
    let next = |after: Option<PrincipalId>| {
        db.read(move |tx| queue::next_principal(tx, &tenant("a"), after.as_ref()))
    };
    assert_eq!(next(None), Some(principal(0)));
    assert_eq!(next(Some(principal(0))), Some(principal(1)));
    assert_eq!(next(Some(principal(1))), None);
    let any = Amounts::new();
    let held = db.read(move |tx| queue::held(tx, (&tenant("a"), &principal(1)), &any, 2));
    let ids: Vec<_> = held.into_iter().map(|held| held.id).collect();
    assert_eq!(ids, [1, 3].map(job_id));
    db.write(|tx| queue::release(tx, &job_id(3))).unwrap();
    assert_eq!(claim(), [job_id(3)]);
}

pub(crate) fn what_is_larger_than_a_quota_is_held_alone_and_hides_nothing_smaller(db: &Db) {
    for number in 0..6 {
        let mut new = NewJob {
            principal: principal(number % 2),
            ..new_job(number)
        };
        new.spec.limits.memory_bytes = Some(number << 20);
        insert(db, new);
    }
    let hold = |whose: Whose, most: Amounts, limit| {
        db.write(move |tx| queue::hold_larger(tx, (&tenant("a"), &whose), &most, limit))
            .unwrap()
    };
    let memory = |most: u64| Amounts::from([(Limit::MemoryBytes, most << 20)]);
    let nothing_named = Amounts::new();
    assert_eq!(hold(Whose::Tenant, nothing_named, 9), 0);
    assert_eq!(hold(whose(0), memory(3), 9), 1);
    assert_eq!(hold(Whose::Tenant, memory(2), 1), 1);
    assert_eq!(hold(Whose::Tenant, memory(2), 9), 1);
    assert_eq!(hold(Whose::Tenant, memory(2), 9), 0);
    // A limit that was named is a wish, which a node with as much is granted.
    let wishes = db.read(|tx| queue::wishes(tx, &node(1), "", 9)).into_iter();
    let granted: Vec<queue::Granted> = wishes
        .map(|text| queue::Granted {
            text,
            before_ms: 100,
        })
        .collect();
    let claimed = db.write(move |tx| queue::claim(tx, &node(1), 9, 100, &granted));
    let claimed: Vec<_> = claimed.unwrap().into_iter().map(|row| row.id).collect();
    assert_eq!(claimed, [0, 1, 2].map(job_id));
    let held = |most: Amounts, limit| {
        let held = db
            .read(move |tx| queue::held(tx, (&tenant("a"), &principal(1)), &most, limit))
            .into_iter();
        held.map(|held| (held.id, held.takes.memory_bytes >> 20))
            .collect::<Vec<_>>()
    };
    let both = [(job_id(3), 3), (job_id(5), 5)];
    assert_eq!(held(Amounts::new(), 9), both);
    assert_eq!(held(Amounts::new(), 1), [(job_id(3), 3)]);
    assert_eq!(held(memory(3), 9), [(job_id(3), 3)]);
    assert!(held(memory(2), 9).is_empty());
}

/// What the test knows of a job or a sandbox: whose it is, whether it counts, and what it takes.
#[derive(Debug, Clone)]
struct Known {
    of: u64,
    takes: (u64, u64, u64),
}

#[derive(Debug, Default)]
struct World {
    jobs: Vec<(JobRow, Known)>,
    sandboxes: Vec<(SandboxRow, Known)>,
    kept: Vec<(u64, usize)>,
    made: u64,
}

/// What happens next: what, to which one, how much.
type Act = (u8, usize, u64);

fn new_of(number: u64, of: u64, amount: u64) -> (NewJob, Known) {
    let mut new = new_job(number);
    new.principal = principal(of);
    new.spec.limits.memory_bytes = (amount > 0).then_some(amount << 20);
    new.spec.limits.cpu_millis = (amount > 3).then_some(u32::try_from(amount).unwrap() * 10);
    let takes = model::quota::taken(&new.spec.limits);
    let takes = (takes.cpu_millis, takes.memory_bytes, takes.disk_bytes);
    (new, Known { of, takes })
}

fn ended(row: &SandboxRow) -> SandboxChange {
    SandboxChange {
        state: SandboxState::Destroyed,
        kind: "sandbox.destroyed",
        data: "{}".to_owned(),
        principal: row.principal.clone(),
        at_ms: 2000,
        epoch: row.epoch,
        node: None,
        ttl_ms: row.ttl_ms,
        expires_at_ms: None,
        due_at_ms: None,
        driver: None,
        enforcement: None,
        reason: None,
        execs: None,
    }
}

fn act(db: &Db, world: &mut World, (what, which, amount): Act) {
    world.made += 1;
    let number = world.made;
    match what {
        0 | 1 => {
            let (new, known) = new_of(number, amount % 2, amount);
            world.jobs.push((insert(db, new), known));
        }
        2 => {
            let (job, known) = new_of(number, amount % 2, amount);
            let new = NewSandbox {
                principal: job.principal,
                spec: model::sandbox_spec::SandboxSpec {
                    limits: job.spec.limits,
                    ..crate::sandboxes::spec()
                },
                ..new_sandbox(number)
            };
            let row = db.write(move |tx| sandbox::insert(tx, &new)).unwrap();
            world.sandboxes.push((row, known));
        }
        3 if !world.sandboxes.is_empty() => {
            let at = which % world.sandboxes.len();
            let (row, _) = world.sandboxes.swap_remove(at);
            db.write(move |tx| sandbox::move_to(tx, &row, &ended(&row)))
                .unwrap();
        }
        4 if !world.jobs.is_empty() => {
            let at = which % world.jobs.len();
            // Of a job that is gone nothing is kept.
            if matches!(world.jobs[at].0.state, JobState::Finished { .. }) {
                return;
            }
            let id = world.jobs[at].0.id.clone();
            let whose = (
                world.jobs[at].0.tenant.clone(),
                world.jobs[at].0.principal.clone(),
            );
            let row = ArtifactRow {
                id: ArtifactId::from_parts(number, [0; 10]),
                job_id: id,
                attempt: 1,
                path: number.to_string(),
                digest: "0".repeat(64),
                size_bytes: amount,
                mode: 0o644,
                created_at_ms: number,
            };
            db.write(move |tx| store::artifact::insert(tx, &row, (&whose.0, &whose.1)))
                .unwrap();
            world.kept.push((amount, at));
        }
        5 => {
            // What was kept long enough goes with its files.
            db.write(|tx| prune::jobs_older(tx, 10_000, 100)).unwrap();
            let gone = |at: usize| {
                let made = &world.jobs[at].0;
                matches!(made.state, JobState::Finished { .. })
            };
            let kept = std::mem::take(&mut world.kept);
            world.kept = kept.into_iter().filter(|(_, at)| !gone(*at)).collect();
        }
        _ if !world.jobs.is_empty() => {
            let at = which % world.jobs.len();
            move_on(db, &mut world.jobs[at].0, what, 1000 + number);
        }
        _ => {}
    }
}

/// Something happens to a job, if it can.
fn move_on(db: &Db, row: &mut JobRow, what: u8, at_ms: u64) {
    let event = match what {
        6 | 7 => lease(row, node(1)),
        8 => started(row),
        9 => JobEvent::Release { epoch: row.epoch },
        10 => lost(row, true),
        11 => JobEvent::Cancel,
        12 => JobEvent::QueueTimeout,
        _ => finish(row),
    };
    let Some(change) = change(row, &event, at_ms) else {
        return;
    };
    let from = row.clone();
    match db.write(move |tx| job::move_to(tx, &from, &change)) {
        Ok(next) => *row = next,
        // It was pruned.
        Err(StoreError::Stale { .. }) => {}
        Err(error) => panic!("{error:?}"),
    }
}

/// What there is by what the test knows, counted without a database.
fn expected(world: &World, of: Option<u64>) -> Amounts {
    let mut all: BTreeMap<Limit, u64> = Limit::ALL.map(|limit| (limit, 0)).into();
    let mut add = |limit, amount| *all.get_mut(&limit).unwrap() += amount;
    let is_theirs = |known: &Known| of.is_none_or(|of| of == known.of);
    let mut takes = |known: &Known, what| {
        add(what, 1);
        add(Limit::CpuMillis, known.takes.0);
        add(Limit::MemoryBytes, known.takes.1);
        add(Limit::DiskBytes, known.takes.2);
    };
    for (row, known) in world.jobs.iter().filter(|(_, known)| is_theirs(known)) {
        if row.state.lease().is_some() {
            takes(known, Limit::Jobs);
        }
    }
    for (_, known) in world.sandboxes.iter().filter(|(_, known)| is_theirs(known)) {
        takes(known, Limit::Sandboxes);
    }
    for (row, known) in world.jobs.iter().filter(|(_, known)| is_theirs(known)) {
        if row.state == JobState::Queued && is_theirs(known) {
            add(Limit::JobsWaiting, 1);
        }
    }
    for (bytes, at) in &world.kept {
        if is_theirs(&world.jobs[*at].1) {
            add(Limit::ArtifactBytes, *bytes);
        }
    }
    all
}

pub(crate) fn what_is_used_is_what_is_there_after_any_sequence(db: &Db) {
    let mut runner = TestRunner::new(Config {
        cases: 12,
        failure_persistence: None,
        ..Config::default()
    });
    let acts = prop::collection::vec((0..15_u8, 0..8_usize, 0..9_u64), 1..60);
    let world = std::cell::RefCell::new(World::default());
    let outcome = runner.run(&acts, |acts| {
        let mut world = world.borrow_mut();
        for one in acts {
            act(db, &mut world, one);
        }
        for of in [None, Some(0), Some(1)] {
            let whose = of.map_or(Whose::Tenant, whose);
            let counted = used(db, &tenant("a"), &whose);
            prop_assert_eq!(&counted, &expected(&world, of), "{:?}", whose);
        }
        Ok::<(), TestCaseError>(())
    });
    outcome.unwrap();
}

//! What goes when it has been kept long enough, and what is found silent or late.

use model::id::{ArtifactId, JobId, TenantId};
use model::node::{Connectivity, NodeState, Scheduling};
use store::artifact::{self, ArtifactRow};
use store::job::{JobRow, LateReport, NewJob};
use store::node::{self, NodeRow};
use store::output::{self, Segment};
use store::upload::{self, UploadRow};
use store::{StoreError, job, prune, queue};

use crate::db::Db;
use crate::make::{finish, get, insert, lease, moved, new_job, node as node_id, principal, tenant};

/// A job of a tenant that was made and has ended at the time of its number.
fn ended(db: &Db, tenant: &TenantId, number: u64) -> JobRow {
    let new = NewJob {
        id: JobId::from_parts(number, [0; 10]),
        tenant: tenant.clone(),
        ..new_job(number)
    };
    let row = insert(db, new);
    let row = moved(db, &row, &lease(&row, node_id(1)), number);
    let (id, attempt, of) = (row.id.clone(), row.attempt, tenant.clone());
    db.write(move |tx| {
        let piece = Segment {
            seq: 0,
            attempt,
            stream: "stdout".to_owned(),
            offset_bytes: 0,
            data: vec![1],
            at_ms: number,
        };
        output::append(tx, &id, &piece, 0)?;
        artifact::insert(tx, &file(&id, number), (&of, &principal()))
    })
    .unwrap();
    moved(db, &row, &finish(&row), number)
}

fn file(job: &JobId, number: u64) -> ArtifactRow {
    ArtifactRow {
        id: ArtifactId::from_parts(number, [0; 10]),
        job_id: job.clone(),
        attempt: 1,
        path: "out".to_owned(),
        digest: format!("{number:064x}"),
        size_bytes: 1,
        mode: 0o600,
        created_at_ms: number,
    }
}

fn left(db: &Db, rows: &[JobRow]) -> Vec<u64> {
    let there = |row: &&JobRow| get(db, &row.id).is_some();
    let left = rows.iter().filter(there);
    left.map(|row| row.created_at_ms).collect()
}

pub(crate) fn old_jobs_go_oldest_first_with_all_that_belongs_to_them(db: &Db) {
    let a = tenant("a");
    let waiting = insert(db, new_job(1));
    let rows: Vec<JobRow> = (10..16).map(|number| ended(db, &a, number)).collect();
    let prune = |before, limit| db.write(move |tx| prune::jobs_older(tx, before, limit));
    assert_eq!(prune(10, 9).unwrap(), 0);
    assert_eq!(prune(14, 3).unwrap(), 3);
    assert_eq!(left(db, &rows), [13, 14, 15]);
    assert_eq!(prune(14, 3).unwrap(), 1);
    assert_eq!(prune(14, 3).unwrap(), 0);
    assert!(get(db, &waiting.id).is_some());
    for table in [
        "SELECT COUNT(*) AS n FROM output_segment",
        "SELECT COUNT(*) AS n FROM artifact",
    ] {
        assert_eq!(db.count(table, &[]), 2);
    }
    // What happened stays as long as the record is kept.
    let events = "SELECT COUNT(*) AS n FROM event_inbox";
    assert_eq!(db.count(events, &[]), 6 * 3 + 1);
}

pub(crate) fn jobs_beyond_a_number_go_for_each_tenant(db: &Db) {
    let (a, b) = (tenant("a"), tenant("b"));
    let of_a: Vec<JobRow> = (10..16).map(|number| ended(db, &a, number)).collect();
    let of_b: Vec<JobRow> = (20..23).map(|number| ended(db, &b, number)).collect();
    let prune = |keep, before, limit| {
        let a = a.clone();
        db.write(move |tx| prune::jobs_beyond(tx, &a, keep, before, limit))
    };
    assert_eq!(prune(6, 99, 9).unwrap(), 0);
    assert_eq!(prune(3, 12, 9).unwrap(), 2);
    assert_eq!(prune(3, 99, 9).unwrap(), 1);
    assert_eq!(left(db, &of_a), [13, 14, 15]);
    assert_eq!(prune(0, 99, 2).unwrap(), 2);
    assert_eq!(left(db, &of_a), [15]);
    assert_eq!(left(db, &of_b).len(), 3);
    let tenants = |after: Option<TenantId>, limit| {
        db.read(move |tx| prune::tenants(tx, after.as_ref(), limit))
    };
    assert_eq!(tenants(None, 9), [a.clone(), b.clone()]);
    assert_eq!(tenants(None, 1), std::slice::from_ref(&a));
    assert_eq!(tenants(Some(a.clone()), 9), std::slice::from_ref(&b));
    assert_eq!(tenants(Some(b), 9), []);
}

pub(crate) fn blobs_are_named_by_files_and_by_uploads(db: &Db) {
    let digest = |start: &str| format!("{start}{}", "0".repeat(62));
    let (of_job, sent) = (digest("ab"), digest("ac"));
    let (artifact, upload) = (
        ArtifactRow {
            digest: of_job.clone(),
            ..file(&JobId::from_parts(1, [0; 10]), 1)
        },
        UploadRow {
            tenant: tenant("a"),
            digest: sent.clone(),
            size_bytes: 1,
            created_at_ms: 1,
        },
    );
    db.write(move |tx| {
        artifact::insert(tx, &artifact, (&tenant("a"), &principal()))?;
        upload::put(tx, &upload)
    })
    .unwrap();
    let named = |part| db.read(move |tx| prune::named_blobs(tx, part));
    assert_eq!(named(0xab), [of_job].into());
    assert_eq!(named(0xac), [sent].into());
    assert!(named(0xaa).is_empty() && named(0xff).is_empty());
}

pub(crate) fn a_late_report_is_an_event_and_changes_nothing_else(db: &Db) {
    let row = ended(db, &tenant("a"), 5);
    let late = LateReport {
        kind: "job.reported_late",
        data: "{}".to_owned(),
        principal: principal(),
        at_ms: 9,
    };
    let keep = |row: &JobRow| {
        let (row, late) = (row.clone(), late.clone());
        db.write(move |tx| job::keep_late(tx, &row, "hash", &late))
    };
    let kept = keep(&row).unwrap();
    let wanted = JobRow {
        version: row.version + 1,
        report_hash: Some("hash".to_owned()),
        ..row.clone()
    };
    assert_eq!(kept, wanted);
    crate::make::check_in_step(db, &kept);
    assert!(matches!(keep(&row), Err(StoreError::Stale { .. })));
    let queued = insert(db, new_job(6));
    assert!(matches!(keep(&queued), Err(StoreError::Stale { .. })));
}

fn node_row(number: u64, lease_expires_at_ms: u64) -> NodeRow {
    NodeRow {
        id: node_id(number),
        name: "here".to_owned(),
        incarnation: "a".to_owned(),
        version: "1".to_owned(),
        slots: 1,
        drivers: Vec::new(),
        facts: std::collections::BTreeMap::new(),
        state: NodeState {
            connectivity: Connectivity::Online,
            scheduling: Scheduling::Active,
        },
        lease_expires_at_ms,
        registered_at_ms: 1,
        labels: model::place::Labels::new(),
        trouble: model::place::Trouble::default(),
        report: None,
    }
}

pub(crate) fn silent_nodes_are_found_and_written_only_as_they_were_seen(db: &Db) {
    for (number, until) in [(1, 30), (2, 10), (3, 20)] {
        db.write(move |tx| node::upsert(tx, &node_row(number, until)))
            .unwrap();
    }
    let silent = |before| db.read(move |tx| node::silent(tx, before, 9));
    let online = |before| db.read(move |tx| node::silent_online(tx, before, 9));
    assert_eq!(silent(30), [node_row(2, 10), node_row(3, 20)]);
    assert_eq!(silent(30), online(30));
    let offline = NodeState {
        connectivity: Connectivity::Offline,
        scheduling: Scheduling::Active,
    };
    let write = |row: NodeRow| db.write(move |tx| node::move_to(tx, &row, offline));
    write(node_row(2, 10)).unwrap();
    assert_eq!(online(30), [node_row(3, 20)]);
    assert_eq!(silent(30).len(), 2);
    let heard = write(node_row(3, 19));
    assert!(matches!(heard, Err(StoreError::Stale { .. })));
}

pub(crate) fn what_waits_for_a_node_alone_is_found_when_that_is_silent_or_gone(db: &Db) {
    let pinned = |number, pin| {
        let mut new = new_job(number);
        new.spec.node = Some(node_id(pin));
        insert(db, new)
    };
    insert(db, new_job(1));
    let (waits, silent, gone) = (pinned(2, 1), pinned(3, 2), pinned(4, 3));
    for (number, until) in [(1, 30), (2, 10)] {
        db.write(move |tx| node::upsert(tx, &node_row(number, until)))
            .unwrap();
    }
    let found = |now| db.read(move |tx| queue::pinned_to_silent(tx, now, 9));
    assert_eq!(found(10), std::slice::from_ref(&gone));
    assert_eq!(found(11), [silent, gone]);
    let of_first = db.read(|tx| queue::pinned_to(tx, &node_id(1), 9));
    assert_eq!(of_first, [waits]);
}

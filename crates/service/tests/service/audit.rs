//! The record of what happened, and what somebody can do to it who writes to the database or beside it.

use crate::*;
use service::{AuditQuery, Checked, Flaw, head_pass, seal_pass};
use std::path::PathBuf;
use store::audit;

impl World {
    fn signing(&self) -> PathBuf {
        let dir = self.dir.path().join("audit");
        self.service.audit_heads_in(dir.clone());
        dir
    }

    async fn check(&self) -> Checked {
        self.service.audit_check(&user(), 0).await.unwrap()
    }

    async fn flaws(&self) -> Vec<(u64, Flaw)> {
        self.check().await.flaws
    }

    async fn sealed(&self) -> u64 {
        let (events, more) = seal_pass(&self.service).await.unwrap();
        assert!(!more);
        events
    }

    /// Somebody who has the database.
    async fn tamper(&self, sql: &'static str) {
        let change = move |tx: &mut store::Tx<'_>| {
            tx.execute("DROP TRIGGER event_is_never_changed", &[])?;
            tx.execute(sql, &[])
        };
        assert!(self.store().write(change).await.unwrap() > 0, "{sql}");
    }
}

/// Three seals over something.
async fn three() -> World {
    let world = World::new();
    world.signing();
    for _ in 0..3 {
        world.create(spec()).await;
        world.clock.advance(1000);
        assert!(world.sealed().await > 0);
        head_pass(&world.service).await.unwrap();
    }
    world
}

#[tokio::test]
async fn what_happened_is_read_in_its_order_and_that_it_was_read_is_in_it() {
    let world = World::new();
    let (_, row) = world.running(spec()).await;
    let all = AuditQuery::default();
    let page = world
        .service
        .audit_list(&user(), all.clone(), 100)
        .await
        .unwrap();
    let kinds: Vec<&str> = page.events.iter().map(|one| &*one.event.kind).collect();
    let expected = [
        "node.online",
        "job.queued",
        "job.leased",
        "job.running",
        "audit.read",
    ];
    assert_eq!((kinds, page.more), (expected.to_vec(), false));
    let of = |query: AuditQuery| async {
        let page = world.service.audit_list(&user(), query, 100).await.unwrap();
        let kinds = page.events.into_iter().map(|one| one.event.kind);
        kinds.collect::<Vec<_>>()
    };
    let job = AuditQuery {
        resource_id: Some(row.id.to_string()),
        ..all.clone()
    };
    assert_eq!(of(job).await, ["job.queued", "job.leased", "job.running"]);
    let kind = |kind: &str| AuditQuery {
        kind: Some(kind.to_owned()),
        ..all.clone()
    };
    assert_eq!(of(kind("job.running")).await, ["job.running"]);
    assert_eq!(of(kind("job.r")).await, Vec::<String>::new());
    assert_eq!(of(kind("node.")).await, ["node.online"]);
    let mine = AuditQuery {
        principal: Some(user().principal.to_string()),
        ..kind("job.")
    };
    assert_eq!(of(mine).await, ["job.queued"]);
    let later = AuditQuery {
        from_ms: Some(world.clock.now_ms() + 1),
        ..all.clone()
    };
    assert_eq!(of(later).await, Vec::<String>::new());
    // Page by page.
    let first = world
        .service
        .audit_list(&user(), all.clone(), 2)
        .await
        .unwrap();
    assert_eq!((first.events.len(), first.more), (2, true));
    let rest = AuditQuery {
        after: first.next,
        ..all
    };
    let rest = world.service.audit_list(&user(), rest, 100).await.unwrap();
    assert_eq!(rest.events[0].event.kind, "job.leased");
}

/// Attack: A node, and another tenant, read the record of what happened.
#[tokio::test]
async fn neither_a_node_nor_another_tenant_reads_it() {
    let world = three().await;
    let all = AuditQuery::default();
    let refused = world.service.audit_list(&node(1), all.clone(), 9).await;
    assert_eq!(refused.unwrap_err().code(), "forbidden");
    let refused = world.service.audit_check(&node(1), 0).await;
    assert_eq!(refused.unwrap_err().code(), "forbidden");
    let other = Ctx {
        tenant: "ten_other".parse().unwrap(),
        ..user()
    };
    let page = world.service.audit_list(&other, all, 9).await.unwrap();
    let kinds: Vec<&str> = page.events.iter().map(|one| &*one.event.kind).collect();
    assert_eq!(kinds, ["audit.read"]);
    let checked = world.service.audit_check(&other, 0).await.unwrap();
    // What it has read and checked itself.
    assert_eq!((checked.events, checked.flaws), (2, vec![]));
}

#[tokio::test]
async fn a_record_that_nobody_touched_is_well_and_goes_on_after_a_restart() {
    let world = three().await;
    let before = world.check().await;
    assert_eq!((before.flaws, before.more), (vec![], false));
    assert_eq!(
        before.head.map(|head| (head.number, head.is_ours)),
        Some((3, true))
    );
    let again = world.again();
    again.audit_heads_in(world.dir.path().join("audit"));
    again.job_create(&user(), spec(), None).await.unwrap();
    assert!(seal_pass(&again).await.unwrap().0 > 0);
    head_pass(&again).await.unwrap();
    assert_eq!(world.flaws().await, []);
}

#[tokio::test]
async fn two_that_seal_at_one_time_seal_each_event_once() {
    let world = World::new();
    let other = world.again();
    for _ in 0..20 {
        world.create(spec()).await;
        let (one, two) = tokio::join!(seal_pass(&world.service), seal_pass(&other));
        assert!(one.unwrap().0 + two.unwrap().0 <= 1);
    }
    let checked = world.check().await;
    assert_eq!((checked.flaws, checked.events), (vec![], 21));
}

/// Attack: The record of what happened is changed in the database: another actor, an event less, a seal less, another
/// order.
#[tokio::test]
async fn whatever_is_changed_in_the_database_is_found() {
    for (sql, flaw) in [
        (
            "UPDATE event_inbox SET principal = 'uid:0' WHERE position = 2",
            (2, Flaw::Changed),
        ),
        (
            "DELETE FROM event_inbox WHERE position = 1",
            (1, Flaw::Count),
        ),
        ("DELETE FROM audit_seal WHERE number = 2", (3, Flaw::Gap)),
        ("DELETE FROM audit_seal WHERE number = 1", (2, Flaw::Gap)),
        (
            "UPDATE audit_seal SET before = digest WHERE number = 2",
            (2, Flaw::Order),
        ),
        (
            "UPDATE audit_seal SET events = 2 WHERE number = 3",
            (3, Flaw::Order),
        ),
    ] {
        let world = three().await;
        world.tamper(sql).await;
        assert!(world.flaws().await.contains(&flaw), "{sql}");
    }
}

/// Who can make seals fit what he changed is seen by what was signed elsewhere.
#[tokio::test]
async fn a_record_that_was_cut_off_or_made_anew_is_found_by_what_was_signed() {
    let world = three().await;
    world.tamper("DELETE FROM audit_seal").await;
    world
        .store()
        .write(|tx| tx.execute("DELETE FROM event_inbox", &[]))
        .await
        .unwrap();
    let flaws = world.flaws().await;
    assert!(flaws.contains(&(3, Flaw::Cut)), "{flaws:?}");
    for _ in 0..3 {
        world.create(spec()).await;
        world.sealed().await;
    }
    let flaws = world.flaws().await;
    assert!(flaws.contains(&(3, Flaw::Head)), "{flaws:?}");
}

#[tokio::test]
async fn what_was_signed_cannot_be_changed_either() {
    let world = three().await;
    let path = world.dir.path().join("audit/heads.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 3);
    let last = world
        .store()
        .read(|tx| audit::last(tx, &TenantId::local()))
        .await
        .unwrap();
    let digest = last.unwrap().digest;
    std::fs::write(&path, text.replace(&digest, &"0".repeat(64))).unwrap();
    assert_eq!(world.flaws().await, [(3, Flaw::Signature)]);
    // A line that a power failure has cut is none.
    std::fs::write(&path, format!("{text}{{\"tenant\":\"ten_local\",\"num")).unwrap();
    assert_eq!(world.flaws().await, []);
}

#[tokio::test]
async fn the_record_of_a_job_outlives_it_and_goes_after_a_quarter_with_a_sealed_end() {
    let world = World::new();
    world.signing();
    let (node, row) = world.running(spec()).await;
    let end = world
        .service
        .job_finished(&node, &row.id, finished(&row, Outcome::Succeeded));
    end.await.unwrap();
    world.sealed().await;
    head_pass(&world.service).await.unwrap();
    world.clock.advance(limits::RETAIN_JOBS_MS + 1);
    let pass = service::loops::prune_pass(&world.service).await.unwrap();
    assert_eq!((pass.jobs, pass.events), (1, 0));
    assert_eq!(world.flaws().await, []);
    world.clock.advance(limits::RETAIN_AUDIT_MS);
    world.create(spec()).await;
    world.sealed().await;
    let pass = service::loops::prune_pass(&world.service).await.unwrap();
    assert!(pass.events > 0);
    let checked = world.check().await;
    assert_eq!((checked.flaws, checked.retired.is_some()), (vec![], true));
}

/// A process that dies before a seal is written has sealed nothing, and one that dies before a head is signed leaves
/// the one before: the next process goes on from there.
#[tokio::test]
async fn what_was_not_signed_is_signed_by_the_next_process() {
    let world = three().await;
    world.create(spec()).await;
    world.sealed().await;
    let again = world.again();
    again.audit_heads_in(world.dir.path().join("audit"));
    assert_eq!(head_pass(&again).await.unwrap(), 1);
    assert_eq!(head_pass(&again).await.unwrap(), 0);
    let head = world.check().await.head.unwrap();
    assert_eq!((head.number, head.is_ours), (4, true));
}

/// Attack: The beginning of the record is taken away as if it were old.
///
/// The beginning of the record can only go by its age, or because there is more behind it than is kept.
#[tokio::test]
async fn who_takes_the_beginning_away_as_if_it_were_old_is_found() {
    for sql in [
        "UPDATE audit_seal SET retired = 1 WHERE number = 2",
        "UPDATE audit_seal SET retired = 1, sealed_at_ms = 1 WHERE number = 2",
        "UPDATE audit_seal SET retired = 1, total = 0 WHERE number = 2",
    ] {
        let world = three().await;
        world
            .tamper("DELETE FROM event_inbox WHERE position <= 2")
            .await;
        let rest = |tx: &mut store::Tx<'_>| {
            tx.execute("DELETE FROM audit_seal WHERE number = 1", &[])?;
            tx.execute(sql, &[])
        };
        world.store().write(rest).await.unwrap();
        let flaws = world.flaws().await;
        let found = |flaw| flaws.contains(&(2, flaw));
        assert!(
            found(Flaw::Early) || found(Flaw::Changed),
            "{sql}: {flaws:?}"
        );
    }
}

/// Seals that were made anew are signed neither by the process that signed the others nor by the next one.
#[tokio::test]
async fn another_record_than_the_one_that_was_signed_is_not_signed() {
    let world = three().await;
    world.tamper("DELETE FROM audit_seal").await;
    for _ in 0..2 {
        world.create(spec()).await;
        world.sealed().await;
    }
    let refused = head_pass(&world.service).await.unwrap_err();
    assert!(refused.cause().contains("seal 3"), "{}", refused.cause());
    for _ in 0..2 {
        world.create(spec()).await;
        world.sealed().await;
    }
    assert!(head_pass(&world.service).await.is_err());
    let again = world.again();
    again.audit_heads_in(world.dir.path().join("audit"));
    assert!(head_pass(&again).await.is_err());
    assert!(world.flaws().await.contains(&(3, Flaw::Head)));
    // Whoever signed both all the same: what was signed first counts.
    let path = world.dir.path().join("audit/heads.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let last = text.lines().last().unwrap();
    let forged = last.replace("\"digest\":\"", "\"digest\":\"0");
    std::fs::write(&path, format!("{text}{forged}\n")).unwrap();
    assert!(world.flaws().await.contains(&(3, Flaw::Head)));
}

#[tokio::test]
async fn a_check_from_behind_the_end_finds_nothing_wrong() {
    let world = three().await;
    for after in [3, 4, u64::from(u32::MAX), i64::MAX.unsigned_abs(), u64::MAX] {
        let checked = world.service.audit_check(&user(), after).await.unwrap();
        assert_eq!((checked.flaws, checked.more), (vec![], false), "{after}");
    }
}

//! Snapshots, and sandboxes that begin with them, with these tests as their node.

use crate::sandboxes::{ask, names, said_ready};
use crate::*;
use model::id::{SandboxId, SnapshotId};
use model::sandbox::{SandboxState, Want};
use model::snapshot::SnapshotState;
use service::{Error, Fork, SandboxAsk, SandboxRow, SandboxSaid, SnapshotRef, SnapshotRow};
use service::{Idempotency, SnapshotFilter};

impl World {
    async fn copying(&self, row: &SandboxRow) -> SnapshotRow {
        let ctx = user();
        let made = self.service.snapshot_create(&ctx, &row.id, None, None);
        made.await.unwrap()
    }

    async fn snapshot(&self, id: &SnapshotId) -> SnapshotRow {
        self.service.snapshot_get(&user(), id).await.unwrap()
    }

    /// A snapshot that is ready, of a sandbox that stands.
    async fn copied(&self, row: &SandboxRow) -> SnapshotRow {
        let copy = self.copying(row).await;
        self.says(row, SandboxSaid::Saved { bytes: 7 }).await;
        self.snapshot(&copy.id).await
    }

    async fn delete(&self, id: &SnapshotId) -> SnapshotRow {
        self.service.snapshot_delete(&user(), id).await.unwrap()
    }

    /// What the node is to remove, by its next heartbeat.
    async fn to_remove(&self, has: &[&SnapshotId]) -> Vec<SnapshotId> {
        let has = has.iter().copied().cloned().collect();
        self.service.snapshot_beat(&node(1), has).await.unwrap()
    }
}

fn from(copy: &SnapshotRow) -> SandboxAsk {
    SandboxAsk {
        from: Some(SnapshotRef::Id(copy.id.clone())),
        ..ask()
    }
}

fn key() -> Option<Idempotency> {
    Some(Idempotency {
        key: "k1234567".to_owned(),
        request_hash: "h".to_owned(),
    })
}

#[tokio::test]
async fn a_copy_leaves_the_sandbox_as_it_was_with_its_time() {
    let world = World::new();
    let row = world.ready(ask()).await;
    let copy = world.copying(&row).await;
    let during = world.sandbox(&row.id).await;
    let snapshot = copy.id.clone();
    let paused = false;
    let state = SandboxState::Snapshotting {
        paused,
        memory: true,
        snapshot,
    };
    assert_eq!((&during.state, during.epoch), (&state, row.epoch + 1));
    let works = world.works(&node(1), NOW).await;
    assert_eq!(
        works.iter().map(|work| work.want).collect::<Vec<_>>(),
        [Want::Snapshot]
    );
    world.clock.advance(1000);
    let (service, id) = (world.service.clone(), copy.id.clone());
    let waiting = tokio::spawn(async move { service.snapshot_wait(&user(), &id, LONG).await });
    let after = world.says(&row, SandboxSaid::Saved { bytes: 7 }).await;
    let ready = waiting.await.unwrap().unwrap();
    assert_eq!((ready.state, ready.bytes), (SnapshotState::Ready, Some(7)));
    assert_eq!(after.state, SandboxState::Ready);
    assert_eq!(after.expires_at_ms, row.expires_at_ms);
    assert_eq!(after.ready_at_ms, row.ready_at_ms);
    let said = SandboxSaid::Saved { bytes: 7 };
    let ctx = node(1);
    let again = world
        .service
        .sandbox_report(&ctx, &row.id, after.epoch, said, None);
    assert!(again.await.unwrap().duplicate);
}

#[tokio::test]
async fn a_copy_of_a_paused_sandbox_leaves_it_paused_and_one_that_fails_leaves_it_too() {
    let world = World::new();
    let row = Box::pin(world.paused()).await;
    let copy = world.copying(&row).await;
    let during = world.service.sandbox_set_timeout(&user(), &row.id, 5).await;
    assert_eq!(during.unwrap_err().code(), "sandbox_paused");
    let why = "no disk".to_owned();
    let after = world.says(&row, SandboxSaid::NotSaved { why }).await;
    assert_eq!(after.state, SandboxState::Paused { memory: true });
    assert_eq!(after.due_at_ms, row.due_at_ms);
    let why = "no disk".to_owned();
    assert_eq!(
        world.snapshot(&copy.id).await.state,
        SnapshotState::Failed { why }
    );
    // What the node has of it all the same is nobody's.
    assert_eq!(world.to_remove(&[&copy.id]).await, [copy.id]);
}

#[tokio::test]
async fn whoever_ends_a_sandbox_ends_the_copy_that_is_made_of_it() {
    let world = World::new();
    let row = world.ready(ask()).await;
    let copy = world.copying(&row).await;
    let ctx = user();
    let other = world.service.snapshot_create(&ctx, &row.id, None, None);
    assert_eq!(other.await.unwrap_err().code(), "conflict");
    world
        .service
        .sandbox_destroy(&user(), &row.id)
        .await
        .unwrap();
    let state = world.snapshot(&copy.id).await.state;
    assert!(matches!(state, SnapshotState::Failed { .. }), "{state:?}");
    let node = node(1);
    let late = world.service.sandbox_report(
        &node,
        &row.id,
        row.epoch + 1,
        SandboxSaid::Saved { bytes: 7 },
        None,
    );
    assert_eq!(late.await.unwrap_err().code(), "stale_epoch");
}

#[tokio::test]
async fn an_order_to_copy_that_nobody_carries_out_is_given_up_and_the_sandbox_stays() {
    let world = World::new();
    let row = world.ready(ask()).await;
    let copy = world.copying(&row).await;
    service::loops::due_pass(&world.service).await.unwrap();
    let (beats, step) = (limits::SANDBOX_ORDER_MS / 10_000 + 1, 10_000);
    for _ in 0..beats {
        world.clock.advance(step);
        world.beat(&[names(&world.sandbox(&row.id).await)]).await;
    }
    service::loops::due_pass(&world.service).await.unwrap();
    let state = world.snapshot(&copy.id).await.state;
    let why = "its node did not copy it in time".to_owned();
    assert_eq!(state, SnapshotState::Failed { why });
    let after = world.sandbox(&row.id).await;
    assert!(
        matches!(after.state, SandboxState::Ready),
        "{:?}",
        after.state
    );
}

#[tokio::test]
async fn a_sandbox_begins_with_a_snapshot_on_its_node_and_takes_over_what_was_not_said() {
    let world = World::new();
    let mut first = ask();
    first.spec.env = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
    first.spec.limits.pids = Some(60);
    first.spec.allow_root = true;
    let row = world.ready(first).await;
    let copy = world.copied(&row).await;
    let mut second = from(&copy);
    second.spec.env = BTreeMap::from([("B".to_owned(), "2".to_owned())]);
    let begun = world.make(second).await;
    assert_eq!(begun.spec.layers.first(), Some(&copy.id));
    assert_eq!(begun.spec.node, Some(node_id(1)));
    assert_eq!(
        (begun.spec.env.len(), begun.spec.limits.pids),
        (2, Some(60))
    );
    assert!(begun.spec.allow_root);
    let mut wrong = from(&copy);
    wrong.spec.root = Some("/other".to_owned());
    let refused = world.service.sandbox_create(&user(), wrong, None).await;
    assert_eq!(refused.unwrap_err().code(), "invalid_argument");
    let theirs = world
        .service
        .sandbox_create(&stranger(), from(&copy), None)
        .await;
    assert_eq!(theirs.unwrap_err().code(), "not_found");
    for id in [copy.id.clone(), SnapshotId::from_parts(0, [0; 10])] {
        let got = world.service.snapshot_get(&stranger(), &id).await;
        assert_eq!(got.unwrap_err().code(), "not_found");
        let deleted = world.service.snapshot_delete(&stranger(), &id).await;
        assert_eq!(deleted.unwrap_err().code(), "not_found");
    }
}

#[tokio::test]
async fn a_snapshot_that_is_given_up_goes_after_the_last_that_stands_on_it_and_twice_is_once() {
    let world = World::new();
    let row = world.ready(ask()).await;
    let copy = world.copied(&row).await;
    let begun = world.ready(from(&copy)).await;
    let deleting = world.delete(&copy.id).await;
    assert_eq!(deleting.state, SnapshotState::Deleting);
    assert_eq!(world.delete(&copy.id).await.version, deleting.version);
    let late = world
        .service
        .sandbox_create(&user(), from(&copy), None)
        .await;
    assert_eq!(late.unwrap_err().code(), "not_found");
    assert_eq!(world.to_remove(&[&copy.id]).await, []);
    world
        .service
        .sandbox_destroy(&user(), &begun.id)
        .await
        .unwrap();
    assert_eq!(world.to_remove(&[&copy.id]).await, []);
    world.says(&begun, SandboxSaid::Destroyed).await;
    assert_eq!(world.to_remove(&[&copy.id]).await.first(), Some(&copy.id));
    let polled = world.poll(&node(1), NOW).await;
    assert_eq!(polled.remove_snapshots.first(), Some(&copy.id));
    assert_eq!(world.poll(&node(1), NOW).await.remove_snapshots, []);
    let other = world.service.snapshot_removed(&node(2), &copy.id).await;
    assert_eq!(other.unwrap_err().code(), "not_found");
    for _ in 0..2 {
        world
            .service
            .snapshot_removed(&node(1), &copy.id)
            .await
            .unwrap();
    }
    assert_eq!(world.snapshot(&copy.id).await.state, SnapshotState::Deleted);
    assert_eq!(world.delete(&copy.id).await.state, SnapshotState::Deleted);
    let page = world
        .service
        .snapshot_list(&user(), SnapshotFilter::default(), None, 10)
        .await;
    assert_eq!(page.unwrap().snapshots, []);
}

#[tokio::test]
async fn a_node_that_removes_what_is_kept_is_refused_and_one_that_names_too_much_too() {
    let world = World::new();
    let row = world.ready(ask()).await;
    let copy = world.copied(&row).await;
    let removed = world.service.snapshot_removed(&node(1), &copy.id).await;
    assert_eq!(removed.unwrap_err().code(), "conflict");
    let many = vec![copy.id.clone(); limits::NODE_SNAPSHOTS_MAX as usize + 1];
    let beat = world.service.snapshot_beat(&node(1), many).await;
    assert_eq!(beat.unwrap_err().code(), "too_many");
    assert_eq!(world.to_remove(&[&copy.id]).await, []);
}

#[tokio::test]
async fn a_fork_makes_sandboxes_like_the_first_and_its_copy_goes_with_the_last_of_them() {
    let world = World::new();
    let mut first = ask();
    first.metadata = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
    let row = world.ready(first).await;
    let (service, id) = (world.service.clone(), row.id.clone());
    let fork = Fork {
        count: 3,
        ttl_ms: Some(9),
    };
    let forking =
        tokio::spawn(async move { service.sandbox_fork(&user(), &id, fork, key(), LONG).await });
    let copying = async {
        while !matches!(
            world.sandbox(&row.id).await.state,
            SandboxState::Snapshotting { .. }
        ) {
            tokio::task::yield_now().await;
        }
        world.says(&row, SandboxSaid::Saved { bytes: 7 }).await
    };
    copying.await;
    let made: Vec<SandboxRow> = forking
        .await
        .unwrap()
        .unwrap()
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(made.len(), 3);
    let copy = made[0].spec.snapshot().unwrap().clone();
    for one in &made {
        assert_eq!((one.ttl_ms, &one.metadata), (9, &row.metadata));
        assert_eq!(one.spec.layers.first(), Some(&copy));
    }
    assert_eq!(world.snapshot(&copy).await.state, SnapshotState::Deleting);
    assert_eq!(world.to_remove(&[&copy]).await, []);
    let again = world
        .service
        .sandbox_fork(&user(), &row.id, fork, key(), LONG)
        .await;
    let mut again: Vec<SandboxId> = again
        .unwrap()
        .into_iter()
        .map(|one| one.unwrap().id)
        .collect();
    let mut ids: Vec<SandboxId> = made.iter().map(|one| one.id.clone()).collect();
    ids.sort_unstable();
    again.sort_unstable();
    assert_eq!(again, ids);
    for id in &ids {
        world.service.sandbox_destroy(&user(), id).await.unwrap();
    }
    assert_eq!(world.to_remove(&[&copy]).await, [copy]);
    for count in [0, limits::FORK_MAX + 1] {
        let fork = Fork {
            count,
            ttl_ms: None,
        };
        let refused = world
            .service
            .sandbox_fork(&user(), &row.id, fork, None, LONG)
            .await;
        assert_eq!(refused.unwrap_err().code(), "invalid_argument");
    }
}

#[tokio::test]
async fn what_a_fork_leaves_that_died_in_the_middle_is_given_up_by_a_pass() {
    let world = World::new();
    let row = world.ready(ask()).await;
    let (service, id) = (world.service.clone(), row.id.clone());
    let fork = Fork {
        count: 1,
        ttl_ms: None,
    };
    let forking =
        tokio::spawn(async move { service.sandbox_fork(&user(), &id, fork, None, LONG).await });
    let copy = loop {
        let state = world.sandbox(&row.id).await.state;
        if let SandboxState::Snapshotting { snapshot, .. } = state {
            break snapshot;
        }
        tokio::task::yield_now().await;
    };
    forking.abort();
    assert!(forking.await.unwrap_err().is_cancelled());
    world.says(&row, SandboxSaid::Saved { bytes: 7 }).await;
    assert_eq!(world.snapshot(&copy).await.state, SnapshotState::Ready);
    world.clock.advance(limits::FORK_MS + 1);
    service::loops::prune_pass(&world.service).await.unwrap();
    assert_eq!(world.snapshot(&copy).await.state, SnapshotState::Deleting);
}

#[tokio::test]
async fn a_sandbox_made_anew_keeps_its_snapshot_and_one_that_failed_needs_it_to_be_there() {
    let world = World::new();
    let row = world.ready(ask()).await;
    let copy = world.copied(&row).await;
    let begun = world.ready(from(&copy)).await;
    world.delete(&copy.id).await;
    // Its bytes are there for as long as it stands.
    let recreate = async || {
        world
            .service
            .sandbox_recreate(&user(), &begun.id, None)
            .await
    };
    recreate().await.unwrap();
    world.says(&begun, SandboxSaid::Destroyed).await;
    assert_eq!(world.sandbox(&begun.id).await.spec, begun.spec);
    let why = "fell".to_owned();
    world.says(&begun, SandboxSaid::Failed { why }).await;
    assert_eq!(recreate().await.unwrap_err().code(), "not_found");
}

#[tokio::test]
async fn what_cannot_be_copied_is_refused_and_the_same_key_is_the_same_snapshot() {
    let world = World::new();
    let row = world.ready(ask()).await;
    let name: model::snapshot::SnapshotName = "env:v1".parse().unwrap();
    let made = world
        .service
        .snapshot_create(&user(), &row.id, Some(name.clone()), key())
        .await
        .unwrap();
    world.says(&row, SandboxSaid::Saved { bytes: 7 }).await;
    let again = world
        .service
        .snapshot_create(&user(), &row.id, Some(name.clone()), key())
        .await
        .unwrap();
    assert_eq!(
        (again.id, again.state),
        (made.id.clone(), SnapshotState::Ready)
    );
    let named = SnapshotRef::Name(name);
    assert_eq!(
        world
            .service
            .snapshot_find(&user(), &named)
            .await
            .unwrap()
            .id,
        made.id
    );
    let full = world.with_free(|| Some(limits::FREE_DISK_MIN_BYTES - 1));
    let refused = full
        .snapshot_create(&user(), &row.id, None, None)
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::DiskFull), "{refused:?}");
    let waiting = world.make(ask()).await;
    let early = world
        .service
        .snapshot_create(&user(), &waiting.id, None, None)
        .await;
    assert_eq!(early.unwrap_err().code(), "conflict");
    world
        .service
        .sandbox_destroy(&user(), &row.id)
        .await
        .unwrap();
    let late = world
        .service
        .snapshot_create(&user(), &row.id, None, None)
        .await;
    assert_eq!(late.unwrap_err().code(), "sandbox_gone");
}

#[tokio::test]
async fn snapshots_that_stand_on_each_other_are_bounded() {
    let world = World::new();
    let mut row = world.ready(ask()).await;
    for _ in 0..limits::SNAPSHOT_LAYERS_MAX {
        let copy = world.copied(&row).await;
        let begun = world.make(from(&copy)).await;
        world.works(&node(1), NOW).await;
        row = world.says(&begun, said_ready()).await;
    }
    let deeper = world
        .service
        .snapshot_create(&user(), &row.id, None, None)
        .await;
    assert_eq!(deeper.unwrap_err().code(), "snapshot_too_deep");
}

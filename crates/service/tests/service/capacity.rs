//! What no machine has, and what there is no room for, is refused before anything is written.

use crate::*;
use service::Error;

fn asking(limits: AskedLimits) -> JobSpec {
    JobSpec { limits, ..spec() }
}

/// The fields that are said to be beyond every machine.
async fn beyond(world: &World, spec: JobSpec) -> Vec<String> {
    match world.service.job_create(&user(), spec, None).await {
        Ok(_) => Vec::new(),
        Err(Error::Invalid(found)) => {
            assert!(found.iter().all(|one| one.code == "limit_beyond_machine"));
            found.into_iter().map(|one| one.field).collect()
        }
        Err(error) => vec![error.to_string()],
    }
}

async fn jobs(world: &World) -> usize {
    let page = world.service.job_list(&user(), None, None, 500).await;
    page.unwrap().jobs.len()
}

#[tokio::test]
async fn a_limit_that_no_machine_has_creates_nothing() {
    const GIB: u64 = 1 << 30;
    let world = World::new();
    let none = AskedLimits::default();
    let memory = |memory| AskedLimits {
        memory_bytes: Some(memory),
        ..none
    };
    let disk = |disk| AskedLimits {
        disk_bytes: Some(disk),
        ..none
    };
    let both = |memory_bytes, disk_bytes| AskedLimits {
        memory_bytes: Some(memory_bytes),
        disk_bytes: Some(disk_bytes),
        ..none
    };
    let cpu = |cpu| AskedLimits {
        cpu_millis: Some(cpu),
        ..none
    };
    world.register(&node(1), "a").await;
    // The machine has 4 GiB and two processors; a job that does not say has 512 MiB.
    let cases: [(AskedLimits, &[&str]); 8] = [
        (memory(4 * GIB), &[]),
        (memory(4 * GIB + 1), &["limits.memory_bytes"]),
        (disk(3 * GIB + GIB / 2), &[]),
        (disk(3 * GIB + GIB / 2 + 1), &["limits.disk_bytes"]),
        (both(GIB, 3 * GIB), &[]),
        (both(GIB, 3 * GIB + 1), &["limits.disk_bytes"]),
        (both(5 * GIB, GIB), &["limits.memory_bytes"]),
        (cpu(2001), &["limits.cpu_millis"]),
    ];
    let mut made = 0;
    for (limits, wrong) in cases {
        assert_eq!(beyond(&world, asking(limits)).await, wrong, "{limits:?}");
        made += usize::from(wrong.is_empty());
        assert_eq!(jobs(&world).await, made);
    }
}

#[tokio::test]
async fn a_number_of_processes_is_bounded_by_us() {
    let world = World::new();
    let pids = |pids| {
        asking(AskedLimits {
            pids: Some(pids),
            ..AskedLimits::default()
        })
    };
    let (ctx, most) = (user(), limits::PIDS_MAX);
    let made = world.service.job_create(&ctx, pids(most + 1), None);
    assert_eq!(made.await.unwrap_err().code(), "out_of_range");
    world.register(&node(1), "a").await;
    assert_eq!(beyond(&world, pids(limits::PIDS_MAX)).await.len(), 0);
}

#[tokio::test]
async fn a_job_has_to_fit_on_one_machine_and_a_pinned_one_on_its_own() {
    let world = World::new();
    world.register(&node(1), "a").await;
    let facts = [("memory_bytes", "1073741824"), ("cpus", "64")];
    let wide = NodeHello {
        facts: facts.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..hello("a")
    };
    world.service.node_register(&node(2), wide).await.unwrap();
    let asked = |memory_bytes, cpu_millis| AskedLimits {
        memory_bytes: Some(memory_bytes),
        cpu_millis: Some(cpu_millis),
        ..AskedLimits::default()
    };
    let large = asked(2 << 30, 2000);
    assert_eq!(beyond(&world, asking(large)).await.len(), 0);
    let both = asked(2 << 30, 64_000);
    assert_eq!(beyond(&world, asking(both)).await.len(), 1);
    let pinned = JobSpec {
        node: Some(node_id(2)),
        ..asking(large)
    };
    assert_eq!(beyond(&world, pinned).await, ["limits.memory_bytes"]);
}

#[tokio::test]
async fn a_full_disk_takes_no_job() {
    let world = World::new();
    let full = world.with_free(|| Some(limits::FREE_DISK_MIN_BYTES - 1));
    let made = full.job_create(&user(), spec(), None).await;
    assert_eq!(made.unwrap_err().code(), "disk_full");
    assert_eq!(jobs(&world).await, 0);
    let enough = world.with_free(|| Some(limits::FREE_DISK_MIN_BYTES));
    enough.job_create(&user(), spec(), None).await.unwrap();
}

/// So many jobs of the tenant wait, without a row of their own.
async fn fill_queue(world: &World, places: u64) {
    let fill = move |tx: &mut store::Tx<'_>| {
        tx.execute(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < $1) \
             INSERT INTO queue (job_id, tenant, not_before_ms, queued_at_ms) \
             SELECT printf('job_%032x', n), 'ten_local', 0, 0 FROM n",
            &[places.into()],
        )
    };
    assert_eq!(world.store().write(fill).await.unwrap(), places);
}

#[tokio::test]
async fn a_queue_that_is_full_takes_no_more_of_this_tenant_until_one_has_left() {
    let world = World::new();
    fill_queue(&world, limits::QUEUE_MAX - 2).await;
    let create = |ctx: Ctx| {
        let service = world.service.clone();
        async move { service.job_create(&ctx, spec(), None).await }
    };
    let first = create(user()).await.unwrap();
    create(user()).await.unwrap();
    let refused = create(user()).await.unwrap_err();
    assert!(matches!(refused, Error::TooMuch { .. }));
    assert_eq!(refused.code(), "queue_full");
    assert_eq!(jobs(&world).await, 2);
    create(stranger()).await.unwrap();
    world.service.job_cancel(&user(), &first.id).await.unwrap();
    create(user()).await.unwrap();
    assert_eq!(create(user()).await.unwrap_err().code(), "queue_full");
    // Counted anew in another process, which remembers nothing.
    let made = world.again().job_create(&user(), spec(), None).await;
    assert_eq!(made.unwrap_err().code(), "queue_full");
}

#[tokio::test]
async fn a_large_storage_is_bounded_by_the_disk_of_a_node_that_keeps_it_there_and_else_by_memory() {
    const GIB: u64 = 1 << 30;
    let world = World::new();
    let facts = |keeps: &str| {
        let facts = [
            ("memory_bytes", "4294967296"),
            ("disk_bytes", "107374182400"),
            ("volumes", keeps),
        ];
        facts.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    };
    let says = |keeps| NodeHello {
        facts: facts(keeps),
        ..hello("a")
    };
    let made = async |disk: u64, allow_root: bool| {
        let mut ask = crate::sandboxes::ask();
        ask.spec.allow_root = allow_root;
        ask.spec.limits.disk_bytes = Some(disk);
        world.service.sandbox_create(&user(), ask, None).await
    };
    world
        .service
        .node_register(&node(1), says("no"))
        .await
        .unwrap();
    assert!(made(20 * GIB, true).await.is_err());
    world
        .service
        .node_register(&node(1), says("yes"))
        .await
        .unwrap();
    made(20 * GIB, true).await.unwrap();
    for (disk, allow_root) in [(101 * GIB, true), (20 * GIB, false)] {
        let refused = made(disk, allow_root).await.unwrap_err();
        assert_eq!(refused.code(), "limit_beyond_machine", "{disk}");
    }
}

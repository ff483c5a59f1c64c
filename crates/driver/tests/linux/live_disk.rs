//! A storage on the disk: as large as was asked, no part of the memory, and gone with its sandbox.

use crate::life::kill;
use crate::live_client::Served;
use crate::live_root::{MIB, with_root, writable_world};
use crate::live_save::{FILL, HASH, restore, save, saving_world};
use crate::outside::guest_and_launcher;
use crate::world::{DEFAULTS, World, until};
use driver::driver::Driver as _;
use model::spec::AskedLimits;

const DISK: u64 = 1500 * MIB;

/// Much more disk than memory.
const LIMITS: AskedLimits = AskedLimits {
    memory_bytes: Some(128 * MIB),
    disk_bytes: Some(DISK),
    ..DEFAULTS
};

/// A world with storage on the disk.
macro_rules! disk_world {
    ($world:expr) => {{
        let world = $world;
        if let Some(why) = &world.host.no_volumes {
            println!("skipped: volumes cannot be kept here: {why}");
            return;
        }
        world
    }};
}

async fn serve(world: &World) -> Served<'_> {
    world.serve_with(with_root(LIMITS), true).await
}

/// Loop devices with a file of this world, and what they say that it is.
fn attached(world: &World) -> Vec<String> {
    let dir = world.dir.path().display().to_string();
    let devices = std::fs::read_dir("/sys/block").into_iter().flatten();
    let files = devices.filter_map(|entry| {
        std::fs::read_to_string(entry.ok()?.path().join("loop/backing_file")).ok()
    });
    files.filter(|file| file.starts_with(&dir)).collect()
}

#[tokio::test]
async fn a_large_storage_is_on_the_disk_and_no_part_of_the_memory() {
    let world = disk_world!(writable_world!());
    let served = serve(&world).await;
    let clause = |name: &str| {
        let mut clauses = served.plan.enforced.iter();
        let clause = clauses.find(|one| one.clause == name).expect("a clause");
        (clause.how.clone(), clause.value.clone().unwrap_or_default())
    };
    let (by, value) = clause("disk");
    assert!(by.contains("ext4"), "{by}");
    assert_eq!(value, format!("{DISK} bytes"));
    assert_eq!(clause("memory").1, format!("{} bytes", 128 * MIB));
    // Where secrets are is in memory all the same.
    let memory = "stat -f -c %T /dev/shm /run; stat -c %a /dev/shm /run";
    assert_eq!(served.sh(memory).await.0, "tmpfs\ntmpfs\n1777\n755\n");
    // Nobody but the sandbox has it: no name, no mount of the host's.
    let files = attached(&world);
    assert!(
        matches!(files.as_slice(), [one] if one.contains("(deleted)")),
        "{files:?}"
    );
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains("ext4 /dev/loop"), "{mounts}");
    // Far more than the memory, and in every part of the root.
    let wrote = "head -c 300000000 /dev/zero > ~/big && stat -c '%s %U' ~/big";
    assert_eq!(served.sh(wrote).await, ("300000000 user\n".to_owned(), 0));
    let changed = "rm /etc/hosts && echo own > /etc/hosts && echo x > /usr/local/x && chown 33:42 /usr/local/x
        stat -c '%u:%g' /usr/local/x; cat /etc/hosts; rmdir /media && ls -d /media";
    let (said, code) = served.as_root(changed).await;
    assert!(said.starts_with("33:42\nown\n") && code != 0, "{said}");
    // What is not written yet is given up and not waited for.
    served.sh("head -c 900000000 /dev/zero > ~/more").await;
    let start = std::time::Instant::now();
    served.destroy().await;
    assert!(
        start.elapsed() < std::time::Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    assert!(
        until(|| attached(&world).is_empty()).await,
        "{:?}",
        attached(&world)
    );
}

#[tokio::test]
async fn a_storage_on_the_disk_holds_no_more_than_was_asked_and_gives_no_rights() {
    let world = disk_world!(writable_world!());
    let served = serve(&world).await;
    let fill = "fallocate -l 1600M ~/big 2>&1; df -k --output=size / | tail -1; rm -f ~/big";
    let (said, _) = served.sh(fill).await;
    assert!(said.contains("No space left"), "{said}");
    let size = said
        .lines()
        .last()
        .and_then(|line| line.trim().parse().ok());
    assert!(
        size.is_some_and(|kib: u64| kib <= DISK >> 10 && kib > DISK >> 11),
        "{said}"
    );
    // A device file on it opens no device, and a program with another's id gives nobody that id.
    let made = "mknod ~/disk b 7 0 2>/dev/null || mknod ~/disk c 1 3 2>/dev/null; cp /usr/bin/id /usr/local/bin/myid && chmod 4755 /usr/local/bin/myid";
    served.as_root(made).await;
    let (said, _) = served.sh("(cat < ~/disk) 2>/dev/null; myid -u").await;
    assert_eq!(said, "1000\n");
    served.destroy().await;
}

#[tokio::test]
async fn what_was_saved_from_the_disk_is_found_whole_in_another() {
    let world = disk_world!(saving_world!());
    let served = serve(&world).await;
    served.root_sh(FILL).await;
    let before = served.root_sh(HASH).await;
    let layer = save(&served, "one").await.expect("a copy");
    served.destroy().await;
    let other = restore(&world, &[&layer]).await;
    assert_eq!(other.root_sh(HASH).await, before);
    other.destroy().await;
}

#[tokio::test]
async fn a_launcher_that_is_killed_leaves_no_storage_on_the_disk() {
    let world = disk_world!(writable_world!());
    let served = serve(&world).await;
    let namespace = served.sh("readlink /proc/self/ns/pid").await.0;
    let (_, launcher) = guest_and_launcher(namespace.trim());
    kill(launcher);
    assert!(
        until(|| attached(&world).is_empty()).await,
        "{:?}",
        attached(&world)
    );
    world
        .linux
        .destroy(&served.plan.handle)
        .await
        .expect("gone");
}

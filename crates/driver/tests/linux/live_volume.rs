//! Volumes: the same files in several sandboxes, within their quota, with nothing left on the host.

use crate::live_client::Served;
use crate::live_root::{MIB, with_root, writable_world};
use crate::world::{DEFAULTS, World, until};
use driver::driver::{Driver as _, DriverError, Mode, Spec, Volume};
use std::path::{Path, PathBuf};

/// A world in which a volume can be kept.
macro_rules! volume_world {
    () => {{
        let world = writable_world!();
        if let Some(why) = &world.host.no_volumes {
            println!("skipped: volumes cannot be kept here: {why}");
            return;
        }
        world
    }};
}

fn image(world: &World) -> PathBuf {
    world.dir.path().join("volume.ext4")
}

fn volume(image: &Path, target: &str) -> Volume {
    Volume {
        image: image.to_owned(),
        is_new: true,
        size_bytes: 16 * MIB,
        target: target.to_owned(),
        read_only: false,
    }
}

fn having(volumes: Vec<Volume>) -> Spec {
    Spec {
        volumes,
        ..with_root(DEFAULTS)
    }
}

async fn serve(world: &World, volumes: Vec<Volume>) -> Served<'_> {
    world.serve_with(having(volumes), true).await
}

/// Why it does not stand.
async fn falls(world: &World, spec: Spec) -> String {
    let plan = world.linux.plan(&spec, &world.host).expect("a plan");
    let why = match world.linux.start(&plan).await {
        Err(DriverError::SetUp { step, .. }) => step,
        Err(error) => error.to_string(),
        Ok(()) => {
            let ended = world.linux.ended(&plan.handle).await.expect("an end");
            ended.failure.expect("a failure")
        }
    };
    world.linux.destroy(&plan.handle).await.expect("gone");
    why
}

/// Loop devices that have the file, and mounts of volumes that this process sees.
fn attached(image: &Path) -> Vec<String> {
    let name = image.display().to_string();
    let devices = std::fs::read_dir("/sys/block").into_iter().flatten();
    let devices = devices.filter_map(|entry| {
        let path = entry.ok()?.path();
        let file = std::fs::read_to_string(path.join("loop/backing_file")).ok()?;
        file.starts_with(&name).then(|| path.display().to_string())
    });
    devices.collect()
}

async fn nothing_is_left(image: &Path) {
    assert!(
        until(|| attached(image).is_empty()).await,
        "{:?}",
        attached(image)
    );
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains("idmapped - ext4 /dev/loop"), "{mounts}");
}

#[tokio::test]
async fn several_sandboxes_have_one_volume_and_see_the_same_owners() {
    let world = volume_world!();
    let image = image(&world);
    let one = serve(&world, vec![volume(&image, "/data")]).await;
    let other = serve(&world, vec![volume(&image, "/home/user/in/there")]).await;
    assert_eq!(attached(&image).len(), 1, "one file system, one device");
    let made = "echo mine > /data/mine; stat -c '%u:%g' /data /data/mine; ls -A /data";
    assert_eq!(one.sh(made).await.0, "1000:1000\n1000:1000\nmine\n");
    one.root_sh("echo root > /data/root; chmod 600 /data/root; chown 33:44 /data/root")
        .await;
    let seen = "stat -c '%u:%g %a' /home/user/in/there/*; cat /home/user/in/there/mine";
    assert_eq!(other.sh(seen).await.0, "1000:1000 644\n33:44 600\nmine\n");
    let (_, code) = other.sh("cat /home/user/in/there/root 2>/dev/null").await;
    assert_ne!(code, 0, "it is another user's");
    // What is on the way there is the user's where what is above it is.
    let way = other
        .sh("stat -c '%U' /home/user/in; cat ~/in/there/mine")
        .await
        .0;
    assert_eq!(way, "user\nmine\n");
    other.sh("echo back >> /home/user/in/there/mine").await;
    assert_eq!(one.sh("cat /data/mine").await.0, "mine\nback\n");
    one.destroy().await;
    other.destroy().await;
    nothing_is_left(&image).await;
    // It outlives them all.
    let kept = Volume {
        is_new: false,
        ..volume(&image, "/data")
    };
    let later = serve(&world, vec![kept]).await;
    assert_eq!(later.sh("cat /data/mine").await.0, "mine\nback\n");
    later.destroy().await;
}

#[tokio::test]
async fn a_volume_holds_no_more_than_its_size_in_bytes_and_in_files() {
    let world = volume_world!();
    let image = image(&world);
    let served = serve(&world, vec![volume(&image, "/data")]).await;
    let fill = "(head -c 20000000 /dev/zero > /data/big) 2>&1; stat -c %s /data/big";
    let (said, _) = served.sh(fill).await;
    assert!(said.contains("No space left"), "{said}");
    let size = said
        .lines()
        .last()
        .and_then(|line| line.parse::<u64>().ok());
    assert!(size.is_some_and(|size| size < 16 * MIB), "{said}");
    let files = "rm /data/big; i=0; while [ $i -lt 20000 ] && command : 2>/dev/null > /data/$i; do i=$((i+1)); done; echo $i";
    let made = served.as_root(files).await.0;
    let made: u32 = made
        .trim()
        .lines()
        .last()
        .and_then(|n| n.parse().ok())
        .expect("a number");
    assert!(made < 20_000, "{made}");
    let elsewhere = served.sh("echo fine > ~/x && cat ~/x").await.0;
    assert_eq!(elsewhere, "fine\n");
    served.destroy().await;
    let file = std::fs::metadata(&image).expect("a file");
    assert_eq!(file.len(), 16 * MIB);
}

#[tokio::test]
async fn a_volume_gives_no_rights_and_one_that_is_read_only_is_not_written() {
    let world = volume_world!();
    let image = image(&world);
    let mut only_read = volume(&image, "/mnt/read");
    only_read.read_only = true;
    let served = serve(&world, vec![volume(&image, "/data"), only_read]).await;
    let flags = served
        .sh("grep -E ' /(data|mnt/read) ' /proc/self/mountinfo | cut -d' ' -f6")
        .await
        .0;
    assert!(
        flags
            .lines()
            .all(|line| line.contains("nosuid") && line.contains("nodev")),
        "{flags}"
    );
    let wrote = "echo x > /data/x; cat /mnt/read/x; echo y > /mnt/read/y 2>&1 || echo refused";
    let said = served.root_sh(wrote).await;
    assert!(
        said.starts_with("x\n") && said.contains("refused\n"),
        "{said}"
    );
    let remount = "mount -o remount,rw /mnt/read 2>/dev/null || echo no; umount /data 2>/dev/null || echo no; \
                   mknod /data/null c 1 3 2>/dev/null || echo no; mknod /data/loop b 7 0 2>/dev/null || echo no";
    assert_eq!(served.root_sh(remount).await, "no\nno\nno\nno\n");
    let (_, code) = served.as_root("ls /dev/loop* 2>/dev/null").await;
    assert_ne!(code, 0, "the device is not inside");
    served.destroy().await;
    nothing_is_left(&image).await;
}

#[tokio::test]
async fn links_of_a_workload_lead_a_volume_nowhere() {
    let world = volume_world!();
    let image = image(&world);
    let served = world.serve(true).await;
    served
        .root_sh("ln -s /etc /data; mkdir /way; ln -s ../etc /way/in; echo x > /file")
        .await;
    let handle = &served.plan.handle;
    let layer = world.dir.path().join("layer");
    let paused = world.linux.pause(handle, true).await;
    let saved = match paused {
        Ok(()) => world.linux.save(handle, &layer).await,
        Err(error) => Err(error),
    };
    served.destroy().await;
    if let Err(error) = saved {
        println!("skipped: {error}");
        return;
    }
    for (target, step) in [
        ("/data", "find /data"),
        ("/data/x", "find /data"),
        ("/way/in/x", "find /way/in"),
        ("/file", "find /file"),
        ("/file/x", "find /file"),
    ] {
        let spec = Spec {
            layers: vec![layer.clone()],
            ..having(vec![volume(&image, target)])
        };
        let why = falls(&world, spec).await;
        assert!(why.starts_with(step), "{target}: {why}");
    }
    nothing_is_left(&image).await;
}

#[tokio::test]
async fn one_that_was_lost_is_not_made_anew_and_half_a_one_is() {
    let world = volume_world!();
    let image = image(&world);
    let lost = Volume {
        is_new: false,
        ..volume(&image, "/data")
    };
    let why = falls(&world, having(vec![lost])).await;
    assert_eq!(why, "find the volume at /data");
    assert!(!image.exists());
    // What a maker leaves that dies in the middle.
    std::fs::write(image.with_extension("new"), "half").expect("a file");
    let served = serve(&world, vec![volume(&image, "/data")]).await;
    assert_eq!(served.sh("ls -A /data; echo kept > /data/x").await.0, "");
    served.destroy().await;
    assert!(!image.with_extension("new").exists());
    // Whoever comes twice with the same order finds what the first one made.
    let again = serve(&world, vec![volume(&image, "/data")]).await;
    assert_eq!(again.sh("cat /data/x").await.0, "kept\n");
    again.destroy().await;
    // Not a file system, and not one of ours.
    std::fs::write(&image, vec![0; 1 << 20]).expect("a file");
    let why = falls(&world, having(vec![volume(&image, "/data")])).await;
    assert_eq!(why, "mount the volume at /data");
    nothing_is_left(&image).await;
}

#[tokio::test]
async fn a_pause_keeps_a_volume_and_a_copy_does_not_take_it() {
    let world = volume_world!();
    let image = image(&world);
    let served = serve(&world, vec![volume(&image, "/data")]).await;
    served.sh("echo kept > /data/x").await;
    let handle = &served.plan.handle;
    if let Err(error) = world.linux.pause(handle, true).await {
        println!("skipped: {error}");
        served.destroy().await;
        return;
    }
    let layer = world.dir.path().join("layer");
    world.linux.save(handle, &layer).await.expect("a copy");
    // Another goes on meanwhile.
    let other = serve(&world, vec![volume(&image, "/data")]).await;
    assert_eq!(
        other.sh("cat /data/x; echo more >> /data/x").await.0,
        "kept\n"
    );
    other.destroy().await;
    world.linux.pause(handle, false).await.expect("awake");
    assert_eq!(served.sh("cat /data/x").await.0, "kept\nmore\n");
    served.destroy().await;
    let spec = Spec {
        layers: vec![layer],
        ..with_root(DEFAULTS)
    };
    let copy = world.serve_with(spec, true).await;
    assert_eq!(copy.sh("ls -A /data; echo end").await.0, "end\n");
    copy.destroy().await;
    nothing_is_left(&image).await;
}

#[tokio::test]
async fn what_cannot_be_held_is_refused_by_name() {
    let world = volume_world!();
    let image = image(&world);
    let refused = |spec: Spec| {
        let refused = world.linux.plan(&spec, &world.host).expect_err("refused");
        refused
            .into_iter()
            .map(|one| one.clause)
            .collect::<Vec<_>>()
    };
    let job = Spec {
        mode: Mode::Job,
        ..having(vec![volume(&image, "/data")])
    };
    assert_eq!(refused(job), ["volumes"]);
    let many = (0..9).map(|n| volume(&image, &format!("/v{n}"))).collect();
    assert_eq!(refused(having(many)), ["volumes"]);
}

//! What was written in a sandbox, saved, and found again in others.

use crate::live_client::Served;
use crate::live_root::{with_root, writable_world};
use crate::world::{DEFAULTS, World};
use driver::driver::{Driver as _, DriverError, Spec};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Pauses, saves, and lets it go on.
pub(crate) async fn save(served: &Served<'_>, name: &str) -> Result<PathBuf, DriverError> {
    let linux = &served.world.linux;
    let handle = &served.plan.handle;
    let to = served.world.dir.path().join(name);
    linux.pause(handle, true).await?;
    let saved = linux.save(handle, &to).await;
    linux.pause(handle, false).await?;
    saved.map(|_| to)
}

pub(crate) async fn restore<'w>(world: &'w World, layers: &[&Path]) -> Served<'w> {
    let spec = Spec {
        layers: layers.iter().map(|layer| layer.to_path_buf()).collect(),
        ..with_root(DEFAULTS)
    };
    world.serve_with(spec, true).await
}

/// Sandboxes can be saved where they can be paused.
macro_rules! saving_world {
    () => {{
        let world = writable_world!();
        let served = world.serve(true).await;
        let paused = world.linux.pause(&served.plan.handle, true).await;
        served.destroy().await;
        if let Err(error) = paused {
            println!("skipped: {error}");
            return;
        }
        world
    }};
}
pub(crate) use saving_world;

/// Names, kinds, modes, owners, sizes, times, links and contents of all that the tests write.
pub(crate) const HASH: &str = "cd /; for d in usr/local/t etc/t opt/t home/user/t root/t var/lib/t tmp/t var/tmp/t app; do
    [ -e $d ] || continue; find $d -type d -printf '%p %y %m %U:%G %T@\\n' -o -printf '%p %y %m %U:%G %n %T@ %l %s\\n' | LC_ALL=C sort
    find $d -type f -print0 | LC_ALL=C sort -z | xargs -0r sha256sum; done | sha256sum";

/// Of everything something, in every place that can be written.
pub(crate) const FILL: &str = "for d in usr/local/t etc/t opt/t root/t var/lib/t tmp/t var/tmp/t app home/user/t; do
    cd /; mkdir -p $d; cd $d
    echo $d > file; head -c 300000 /dev/urandom > big; ln -s ../nowhere link; ln file second; mkdir -m 2750 sub; chown 33:42 sub
    chown 1000:1000 big; chmod 640 big; truncate -s 100M sparse; echo end >> sparse; touch -d '2001-02-03 04:05:06.789' file
    mkdir -m 1777 empty; done; chown -R 1000:1000 /home/user/t; cd /home/user/t
    n=$(head -c 255 /dev/zero | tr '\\0' n); echo long > $n; printf x > \"$(printf 'bad\\377\\376name')\"
    d=deep; mkdir $d; cd $d; i=0; while [ $i -lt 200 ]; do mkdir d; cd d; i=$((i+1)); done; echo bottom > file";

#[tokio::test]
async fn what_was_saved_is_found_whole_in_two_others() {
    let world = saving_world!();
    let served = world.serve(true).await;
    served.root_sh(FILL).await;
    let python =
        "python3 -c \"import os; os.setxattr('/usr/local/t/file','user.mine',b'\\x00value')\"";
    let has_python = served.as_root(python).await.1 == 0;
    let before = served.root_sh(HASH).await;
    let layer = save(&served, "one").await.expect("a copy");
    assert_eq!(served.root_sh(HASH).await, before);
    served.destroy().await;
    for _ in 0..2 {
        let other = restore(&world, &[&layer]).await;
        assert_eq!(other.root_sh(HASH).await, before);
        let room = other.root_sh("du -k /usr/local/t/sparse | cut -f1").await;
        assert!(
            room.trim().parse::<u32>().is_ok_and(|kib| kib < 100),
            "{room}"
        );
        if has_python {
            let read =
                "python3 -c \"import os; print(os.getxattr('/usr/local/t/file','user.mine'))\"";
            assert_eq!(other.root_sh(read).await, "b'\\x00value'\n");
        }
        // It is the other's own: written, and not by all who are made of it.
        let change = "echo more >> /usr/local/t/file; rm -r /etc/t; echo x > /app/new";
        other.root_sh(change).await;
        let script = "echo mine >> ~/t/big && echo ok; (: >> /etc/passwd) 2>/dev/null || echo no";
        assert_eq!(other.sh(script).await.0, "ok\nno\n");
        other.destroy().await;
    }
}

#[tokio::test]
async fn what_was_removed_stays_removed_through_three_layers() {
    let world = saving_world!();
    let served = world.serve(true).await;
    served
        .root_sh(
            "rm /usr/bin/env /etc/hosts; rm -rf /usr/include /usr/games; mkdir /usr/games; echo 1 > /usr/games/one
            mkdir -p /app/d /app/e; echo 1 > /app/d/f; echo 1 > /app/e/g; echo 1 > /home/user/kept",
        )
        .await;
    let one = save(&served, "one").await.expect("a copy");
    served.destroy().await;
    let second = restore(&world, &[&one]).await;
    let look = "ls /usr/bin/env /etc/hosts /usr/include 2>/dev/null || true; ls -A /usr/games";
    assert_eq!(second.root_sh(look).await, "one\n");
    // A directory becomes a file, a file a directory, and what was removed is there again.
    second
        .root_sh(
            "rm -r /app/d; echo file > /app/d; rm -r /app/e; mkdir /app/e; echo back > /usr/bin/env; rm -r /usr/games
            echo f > /usr/games; echo 2 > /home/user/kept; touch /etc/t2",
        )
        .await;
    let two = save(&second, "two").await.expect("a copy");
    second.destroy().await;
    let third = restore(&world, &[&one, &two]).await;
    let look = "cat /app/d /usr/bin/env /usr/games /home/user/kept; ls -A /app/e; ls /etc/t2";
    assert_eq!(third.root_sh(look).await, "file\nback\nf\n2\n/etc/t2\n");
    third
        .root_sh(
            "rm /app/d; mkdir /app/d; rm /usr/games; mkdir /usr/games; echo 3 > /home/user/kept
            rm /usr/bin/env /etc/t2; rmdir /app/e",
        )
        .await;
    let three = save(&third, "three").await.expect("a copy");
    third.destroy().await;
    let last = restore(&world, &[&one, &two, &three]).await;
    let look = "ls -A /app /app/d /usr/games; cat /home/user/kept; ls /usr/bin/env /etc/t2 /app/e 2>/dev/null || true";
    assert_eq!(
        last.root_sh(look).await,
        "/app:\nd\n\n/app/d:\n\n/usr/games:\n3\n"
    );
    last.destroy().await;
    // The first alone is as it was.
    let again = restore(&world, &[&one]).await;
    let look = "cat /app/d/f /app/e/g /usr/games/one /home/user/kept";
    assert_eq!(again.root_sh(look).await, "1\n1\n1\n1\n");
    again.destroy().await;
}

fn walk(dir: &Path, act: &mut impl FnMut(&Path, &std::fs::Metadata)) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let meta = path.symlink_metadata().expect("a file");
        act(&path, &meta);
        if meta.is_dir() {
            walk(&path, act);
        }
    }
}

/// Attributes that would mean something to an overlay, a socket, and devices.
const MARKS: &str = "python3 -c \"
import os, socket
for n, v in (('opaque', b'y'), ('redirect', b'/../../../etc'), ('metacopy', b''), ('whiteout', b'y')):
    try: os.setxattr('/srv/marked', 'user.overlay.' + n, v)
    except OSError: pass
s = socket.socket(socket.AF_UNIX); s.bind('/srv/socket')
for d in (0, 1 << 8 | 3):
    try: os.mknod('/srv/device', 0o20666, d); print('made')
    except OSError: pass
\"";

/// Attack: Whoever saves a sandbox is led out of it by its files, as root.
#[tokio::test]
async fn a_trap_for_whoever_saves_catches_nobody() {
    let world = saving_world!();
    let secret = world.dir.path().join("secret");
    std::fs::create_dir(&secret).expect("a directory");
    std::fs::write(secret.join("key"), "of the host").expect("a file");
    let secret = secret.display().to_string();
    let served = world.serve(true).await;
    let script = format!(
        "rm -rf /usr/local; ln -s /etc /usr/local; ln -s {secret} /srv/out; ln -s {secret}/key /home/user/key
        ln -s /proc/self/root /srv/root; ln -s ../../../../../../../..{secret} /opt/up
        mkdir /srv/a; rmdir /srv/a; ln -s {secret} /srv/a
        mkfifo /srv/pipe; cp /bin/sh /srv/sh; chmod 6755 /srv/sh; mkdir -p /srv/marked/sub; echo x > /srv/marked/sub/f
        mv /var/mail /var/m2; ln -s / /var/mail"
    );
    served.root_sh(&script).await;
    let (seen, _) = served.as_root(MARKS).await;
    assert!(!seen.contains("made"), "{seen}");
    let layer = save(&served, "one").await.expect("a copy");
    let meta = layer.metadata().expect("a directory");
    assert_eq!((meta.mode() & 0o777, meta.uid()), (0o700, 0));
    let mut seen = 0;
    walk(&layer, &mut |path, meta| {
        seen += 1;
        let kind = meta.file_type();
        assert!(
            !kind.is_fifo() && !kind.is_socket() && !kind.is_block_device(),
            "{path:?}"
        );
        assert!(!kind.is_char_device() || meta.rdev() == 0, "{path:?}");
        assert!(!kind.is_file() || meta.mode() & 0o6000 == 0, "{path:?}");
        assert!(meta.uid() < 65536 && meta.gid() < 65536, "{path:?}");
        if kind.is_file() {
            let bytes = std::fs::read(path).expect("a file");
            assert!(
                !bytes.windows(11).any(|part| part == b"of the host"),
                "{path:?}"
            );
        }
    });
    assert!(seen > 10);
    served.destroy().await;
    let other = restore(&world, &[&layer]).await;
    let look =
        "readlink /usr/local /srv/out /srv/a; cat /srv/marked/sub/f; ls /srv; stat -c %a /srv/sh";
    let expected = format!("/etc\n{secret}\n{secret}\nx\na\nmarked\nout\nroot\nsh\n755\n");
    assert_eq!(other.root_sh(look).await, expected);
    other.destroy().await;
}

#[tokio::test]
async fn what_cannot_be_saved_is_refused_and_changes_nothing() {
    let world = saving_world!();
    let served = world.serve(true).await;
    let to = world.dir.path().join("saved");
    let running = world.linux.save(&served.plan.handle, &to).await;
    assert!(
        matches!(running, Err(DriverError::CannotSave { .. })),
        "{running:?}"
    );
    assert!(!to.exists());
    let nest = "cd /srv; i=0; while [ $i -lt 700 ]; do mkdir d; cd d; i=$((i+1)); done";
    served.root_sh(nest).await;
    let deep = save(&served, "deep").await;
    assert!(
        matches!(&deep, Err(DriverError::CannotSave { why }) if why.contains("512")),
        "{deep:?}"
    );
    served.root_sh("rm -r /srv/d; echo fine > /srv/f").await;
    let layer = save(&served, "fine").await.expect("a copy");
    let there = save(&served, "fine").await;
    assert!(there.is_err(), "{there:?}");
    served.destroy().await;
    let gone = world.linux.save(&served.plan.handle, &to).await;
    assert!(gone.is_err(), "{gone:?}");
    // A layer that is not there is a sandbox that is not there.
    let spec = Spec {
        layers: vec![layer.join("nothing")],
        ..with_root(DEFAULTS)
    };
    let plan = world.linux.plan(&spec, &world.host).expect("a plan");
    let started = world.linux.start(&plan).await;
    assert!(
        matches!(started, Err(DriverError::SetUp { .. })),
        "{started:?}"
    );
    world
        .linux
        .destroy(&plan.handle)
        .await
        .expect("nothing left");
    let spec = Spec {
        layers: vec![layer; 17],
        ..with_root(DEFAULTS)
    };
    let refused = world.linux.plan(&spec, &world.host).expect_err("too many");
    assert_eq!(refused[0].clause, "layers");
}

#[tokio::test]
async fn sixteen_layers_are_one_root() {
    let world = saving_world!();
    let mut layers: Vec<PathBuf> = Vec::new();
    for at in 0..16 {
        let below: Vec<&Path> = layers.iter().map(PathBuf::as_path).collect();
        let served = restore(&world, &below).await;
        served
            .root_sh(&format!(
                "echo {at} > /usr/local/{at}; echo {at} > /srv/last"
            ))
            .await;
        layers.push(save(&served, &format!("layer{at}")).await.expect("a copy"));
        served.destroy().await;
    }
    let below: Vec<&Path> = layers.iter().map(PathBuf::as_path).collect();
    let served = restore(&world, &below).await;
    let seen = served
        .root_sh("cat /srv/last; cd /usr/local; cat 0 7 15")
        .await;
    assert_eq!(seen, "15\n0\n7\n15\n");
    served.destroy().await;
}

#[tokio::test]
async fn others_start_while_one_is_saved_and_one_that_is_destroyed_is_not_waited_for() {
    let world = saving_world!();
    let limits = model::spec::AskedLimits {
        disk_bytes: Some(512 << 20),
        ..DEFAULTS
    };
    let served = world.serve_with(with_root(limits), true).await;
    served.root_sh("head -c 300M /dev/zero > /srv/big").await;
    let handle = &served.plan.handle;
    world.linux.pause(handle, true).await.expect("a pause");
    let to = world.dir.path().join("big");
    let saving = world.linux.save(handle, &to);
    let meanwhile = async {
        let other = world.serve(true).await;
        other.root_sh("true").await;
        other.destroy().await;
        served.destroy().await;
    };
    let (saved, ()) = tokio::join!(saving, meanwhile);
    // It was as fast as the others, or it was stopped.
    if let Err(error) = saved {
        assert!(
            matches!(error, DriverError::Io { .. } | DriverError::Gone),
            "{error:?}"
        );
    }
}

/// Two processes with a pipe between them, and a number that only their memory holds.
const COUNT: &str = "(i=0; while [ ! -e /tmp/stop ]; do i=$((i+1)); echo $i; done) | while read n; do echo $n; done > /tmp/counted; echo over";

#[tokio::test]
async fn a_thousand_pauses_lose_no_byte() {
    let world = saving_world!();
    let served = world.serve(true).await;
    let sum = "sha256sum /srv/file /dev/shm/file";
    let write = "head -c 5M /dev/urandom > /srv/file; head -c 5M /dev/urandom > /dev/shm/file";
    let before = served.root_sh(&format!("{write}; {sum}")).await;
    let counting = served.start(COUNT).await;
    for _ in 0..1000 {
        let handle = &served.plan.handle;
        world.linux.pause(handle, true).await.expect("a pause");
        world.linux.pause(handle, false).await.expect("a resume");
    }
    served.sh(": > /tmp/stop").await;
    assert_eq!(counting.run().await, ("over\n".to_owned(), 0));
    assert_eq!(served.root_sh(sum).await, before);
    // Each number once and in order.
    let check =
        "n=$(wc -l < /tmp/counted); [ $n -gt 100 ] && seq $n | cmp - /tmp/counted && echo whole";
    assert_eq!(served.root_sh(check).await, "whole\n");
    served.destroy().await;
}

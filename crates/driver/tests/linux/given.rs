//! Roots that an operator has given, good ones and traps.

use crate::live_client::Served;
use crate::live_root::with_root;
use crate::outside::program;
use crate::world::{DEFAULTS, World, text};
use driver::conformance::{command, spec};
use driver::driver::{Driver as _, Mode, Plan, Spec};
use driver::host::{Ids, Root};
use driver::root::{self, Unusable};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// A few programs with what they are linked with, users, and something in every corner that a sandbox
/// covers on another root.
const ROOT: &str = "set -e; cd \"$1\"; mkdir -p usr/bin usr/lib usr/lib64 usr/local/bin etc srv root var/lib/app home/user home/other
    for p in sh ls touch cat stat id rm mkdir; do cp -L /usr/bin/$p usr/bin/; done
    for l in $(ldd usr/bin/* | grep -o '/[^ ]*' | grep -v : | sort -u); do cp -L $l usr/lib/; cp -L $l usr/lib64/; done
    ln -s usr/bin bin; ln -s usr/lib lib; ln -s usr/lib64 lib64
    echo root:x:0:0:root:/root:/bin/sh > etc/passwd; echo app:x:42:42::/srv:/bin/false >> etc/passwd
    echo s > srv/secret; chmod 600 srv/secret; echo o > srv/open; echo mine > etc/known
    echo v > var/lib/app/state; echo r > root/file; echo h > home/user/there; chmod 755 . ";

/// One in the directory of a world, after more was done to it.
fn make(world: &World, name: &str, more: &str) -> PathBuf {
    let dir = world.dir.path().join(name);
    std::fs::create_dir(&dir).expect("a directory");
    let made = program("sh")
        .args(["-c", &format!("{ROOT}; {more}"), "sh"])
        .arg(&dir)
        .output()
        .expect("a shell");
    assert!(made.status.success(), "{}", text(&made.stderr));
    dir
}

fn look(world: &World, dir: &Path) -> Result<Root, Unusable> {
    let name = "test:1".parse().expect("a name");
    root::given(name, dir, world.host.uid, &world.host.ids)
}

fn on(root: Root, mode: Mode) -> Spec {
    Spec {
        root: Some(root),
        mode,
        ..spec(DEFAULTS)
    }
}

fn root_clause(plan: &Plan) -> (String, String) {
    let mut clauses = plan.enforced.iter();
    let clause = clauses
        .find(|each| each.clause == "root")
        .expect("a clause");
    (clause.how.clone(), clause.value.clone().unwrap_or_default())
}

/// Whether all of it is shown, or only what a node without overlays can show of it.
fn is_whole(world: &World) -> bool {
    world.host.ids == Ids::Root && world.host.no_writable_root.is_none()
}

/// What a sandbox's user reads of what is closed to others. Where there is one id he is whoever runs the node,
/// and owns the root that the test has made.
fn own_secret(world: &World) -> &'static str {
    match world.host.ids {
        Ids::Single => "s\n",
        Ids::Root | Ids::Subordinate { .. } => "",
    }
}

async fn job(world: &World, root: &Root, script: &str) -> (Option<i32>, String) {
    let mut prepared = world.start(&on(root.clone(), Mode::Job), |_| {}).await;
    let ran = prepared
        .run(command(&["/bin/sh", "-c", script]))
        .await
        .expect("an end");
    world.destroy(&prepared).await;
    (ran.exited.code, text(&ran.stdout) + &text(&ran.stderr))
}

#[tokio::test]
async fn all_of_a_given_root_is_there_and_only_the_sandbox_sees_what_its_root_writes() {
    let world = world!();
    let dir = make(&world, "root", "");
    let root = look(&world, &dir).expect("a root");
    let spec = Spec {
        root: Some(root.clone()),
        ..with_root(DEFAULTS)
    };
    let plan = world.linux.plan(&spec, &world.host).expect("a plan");
    let (how, value) = root_clause(&plan);
    let identity = &root.given.as_ref().expect("given").identity;
    assert!(value.starts_with(&format!("test:1 {identity}")), "{value}");
    if !is_whole(&world) {
        assert!(
            how == "read-only mounts" && value.contains("cannot be written: the node is not root")
        );
        return;
    }
    assert_eq!(value, format!("test:1 {identity}"));
    let served = world.serve_with(spec, true).await;
    let script = "cat /srv/secret /etc/known /var/lib/app/state /root/file; stat -c %u:%g /srv/open /etc /home/user
        id -un app; id -un 1000; touch /srv/x /usr/bin/y /etc/z /var/lib/app/w /root/v; rm -r /home/other";
    assert_eq!(
        served.root_sh(script).await,
        "s\nmine\nv\nr\n0:0\n0:0\n1000:1000\napp\nuser\n"
    );
    let script = "cat /srv/secret 2>/dev/null || echo closed; cat there; (: > /srv/x) 2>/dev/null || echo no
        touch mine /tmp/t /var/tmp/t /dev/shm/s && sudo id -u; ls -d /home/*; ls /proc/1 > /dev/null && echo proc; echo > /dev/null";
    assert_eq!(
        served.sh(script).await.0,
        "closed\nh\nno\n0\n/home/user\nproc\n"
    );
    served.destroy().await;
    let left: Vec<bool> = ["srv/x", "home/user/mine", "tmp"]
        .map(|name| dir.join(name).exists())
        .into();
    assert_eq!(left, [false; 3]);
    assert!(dir.join("home/other").exists());
}

#[tokio::test]
async fn a_job_has_a_given_root_too_and_writes_where_jobs_write() {
    let world = world!();
    let root = look(&world, &make(&world, "root", "")).expect("a root");
    let script = "cat /etc/known; id -un; touch f /tmp/f /var/tmp/f /dev/shm/f && echo yes
        for d in / /srv /etc /usr/bin /var/lib/app; do touch $d/f 2>/dev/null && echo $d; done; cat /srv/secret 2>/dev/null
        [ -e /usr/bin/python3 ] && echo host; true";
    let (code, seen) = job(&world, &root, script).await;
    let expected = ["mine\nuser\nyes\n", own_secret(&world)].concat();
    assert_eq!((code, seen), (Some(0), expected));
    let plan = world
        .linux
        .plan(&on(root, Mode::Job), &world.host)
        .expect("a plan");
    let (_, value) = root_clause(&plan);
    assert_eq!(
        value.contains("no root inside"),
        is_whole(&world),
        "{value}"
    );
}

#[tokio::test]
async fn where_no_overlay_can_be_had_a_given_root_is_read() {
    let mut host = driver::host::Host::probe();
    host.no_writable_root = Some("taken away for the test".to_owned());
    let world = match World::on(host, driver::linux::Linger::No) {
        Ok(world) => world,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    let root = look(&world, &make(&world, "root", "")).expect("a root");
    let script = "cat /etc/known; id -un; cat /srv/open; touch /srv/f 2>/dev/null || echo no; cat /srv/secret 2>/dev/null; true";
    let (code, seen) = job(&world, &root, script).await;
    let expected = ["mine\nuser\no\nno\n", own_secret(&world)].concat();
    assert_eq!((code, seen), (Some(0), expected));
}

/// What somebody may put into an image so that a sandbox, or whoever makes one, goes astray.
const TRAPS: &str = "rm -r home; ln -s /root home; mkdir -p trap; echo trap > proc; ln -s /etc tmp; ln -s /root run; rm -rf root; ln -s /var/tmp root
    mkdir dev; echo x > dev/null; ln -s /etc/shadow etc/resolv.conf; ln -s /root/secret etc/hosts; mkdir etc/hostname; ln -s / etc/nsswitch.conf
    ln -s / sys; mkfifo trap/pipe; cp usr/bin/id trap/setuid; chmod 4755 trap/setuid; mkdir -p .theirs .ours .empty/file; echo x > .in
    mkdir -p var/lib/dpkg; ln -s /etc var/tmp; ln -s / usr/local/bin/sudo; ln -s ../../../../../../etc/shadow srv/up";

/// Attack: A root full of links and devices that lead to the host.
#[tokio::test]
async fn an_image_that_is_full_of_traps_shows_nothing_of_the_host() {
    let world = world!();
    let nodes = match world.host.uid {
        0 => {
            "; mknod trap/null c 1 3; mknod trap/hidden c 0 0; mknod trap/disk b 8 0; chmod 666 trap/null trap/disk"
        }
        _ => "",
    };
    let root = look(&world, &make(&world, "root", &format!("{TRAPS}{nodes}"))).expect("a root");
    let script = "cat /etc/shadow /srv/up 2>/dev/null; stat -c %F /proc /tmp /home/user /dev/shm /var/tmp
        id -u; [ -u /trap/setuid ] && /trap/setuid -u; echo > /dev/null && echo null; (echo > /trap/null) 2>/dev/null && echo device
        cat /trap/disk 2>/dev/null; touch /tmp/t t && echo written; ls /sys; cat /proc/self/comm";
    let (code, seen) = job(&world, &root, script).await;
    let expected =
        "directory\ndirectory\ndirectory\ndirectory\ndirectory\n1000\n1000\nnull\nwritten\ncat\n";
    assert_eq!((code, &*seen), (Some(0), expected));
    if !is_whole(&world) {
        return;
    }
    let spec = Spec {
        root: Some(root),
        ..with_root(DEFAULTS)
    };
    let served = world.serve_with(spec, true).await;
    let script = "cat /etc/shadow; cat /srv/up; cat /etc/resolv.conf /etc/hostname; id -u; ls /home /sys
        (echo > /trap/null) 2>/dev/null || echo no device; cat /trap/disk 2>/dev/null || echo no disk";
    let shadow = "root:*:20000:0:99999:7:::\nuser:*:20000:0:99999:7:::\n";
    let seen = served.root_sh(script).await;
    // A link of the image ends at the image's own file.
    assert!(
        seen.starts_with(&format!(
            "{shadow}{shadow}nameserver 198.18.0.1\nsandbox\n0\n/home:\nuser\n"
        )),
        "{seen}"
    );
    assert!(seen.ends_with("no device\nno disk\n"), "{seen}");
    assert_eq!(served.sh("sudo id -u").await.0, "0\n");
    served.destroy().await;
}

/// Attack: A root whose directories and lists of users are links, pipes or something else.
#[tokio::test]
async fn what_leads_elsewhere_or_is_not_what_its_name_says_is_no_root() {
    let world = world!();
    let said = |name: &str, more: &str| {
        let dir = make(&world, name, more);
        look(&world, &dir).expect_err(name).to_string()
    };
    for (at, (more, why)) in [
        (
            "rm -r etc; ln -s /etc etc",
            "`etc` in it is a link; it must be a directory",
        ),
        (
            "rm -r var; ln -s / var",
            "`var` in it is a link; it must be a directory",
        ),
        (
            "rm -r var/lib; ln -s /var/lib var/lib",
            "`var/lib` in it is a link; it must be a directory",
        ),
        (
            "rm etc/passwd; ln -s /etc/passwd etc/passwd",
            "`etc/passwd` in it is not to be read as a file",
        ),
        (
            "rm etc/passwd; mkfifo etc/passwd",
            "`etc/passwd` in it is not to be read as a file",
        ),
        (
            "mkdir etc/group",
            "`etc/group` in it is not to be read as a file",
        ),
        (
            "head -c 20000 /dev/zero > etc/group",
            "`etc/group` in it is longer than 12288 bytes",
        ),
        (
            "rm -r usr bin; ln -s /bin bin",
            "there is neither `bin/sh` nor `usr/bin`",
        ),
        (
            "rm -r usr; ln -s /usr usr",
            "`usr` in it is a link; it must be a directory",
        ),
        ("chmod 777 .", "can be written by others"),
        ("chmod 775 .", "can be written by others"),
    ]
    .into_iter()
    .enumerate()
    {
        let said = said(&format!("root{at}"), more);
        assert!(said.contains(why), "{more}: {said}");
    }
}

#[tokio::test]
async fn what_is_no_directory_or_may_be_changed_by_others_is_no_root() {
    let world = world!();
    assert!(matches!(look(&world, Path::new("/")), Err(Unusable::Host)));
    assert!(matches!(
        look(&world, Path::new("/no/such")),
        Err(Unusable::Unread { .. })
    ));
    let file = world.dir.path().join("file");
    std::fs::write(&file, "x").expect("a file");
    assert!(matches!(
        look(&world, &file),
        Err(Unusable::NotADirectory(_))
    ));
    let open = world.dir.path().join("open");
    std::fs::create_dir(&open).expect("a directory");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).expect("a mode");
    let moved = open.join("root");
    std::fs::rename(make(&world, "good", ""), &moved).expect("a move");
    assert!(matches!(look(&world, &moved), Err(Unusable::Writable(path)) if path == open));
    if world.host.uid == 0 {
        let dir = make(&world, "theirs", "chown 12345 .");
        assert!(matches!(
            look(&world, &dir),
            Err(Unusable::Owner { uid: 12345, .. })
        ));
    }
}

#[tokio::test]
async fn the_identity_is_the_same_for_a_copy_and_another_after_a_change() {
    let world = world!();
    let of = |dir: &Path| {
        look(&world, dir)
            .expect("a root")
            .given
            .expect("given")
            .identity
    };
    let dir = make(&world, "root", "");
    let copy = world.dir.path().join("copy");
    let copied = program("cp").arg("-a").args([&dir, &copy]).status();
    assert!(copied.expect("cp").success());
    let first = of(&dir);
    assert_eq!((of(&copy), first.len()), (first.clone(), 32));
    // What a sandbox covers is not of the root.
    std::fs::create_dir(copy.join("dev")).expect("a directory");
    std::fs::write(copy.join("dev/x"), "").expect("a file");
    assert_eq!(of(&copy), first);
    std::fs::write(copy.join("etc/known"), "other").expect("a file");
    let other = look(&world, &copy).expect("a root");
    assert_ne!(other.given.as_ref().expect("given").identity, first);
    // And so is its launcher: the one of before shows what was there then.
    let launcher = |root: Root| {
        let plan = world
            .linux
            .plan(&on(root, Mode::Job), &world.host)
            .expect("a plan");
        plan.handle.body
    };
    std::fs::write(copy.join("etc/known"), "third").expect("a file");
    let third = look(&world, &copy).expect("a root");
    assert_ne!(launcher(other), launcher(third));
}

#[tokio::test]
async fn what_was_written_over_a_given_root_is_saved_and_found_again() {
    let world = world!();
    let root = look(&world, &make(&world, "root", "")).expect("a root");
    if !is_whole(&world) {
        let layered = Spec {
            layers: vec!["/nowhere".into()],
            ..on(root, Mode::Live { allow_root: true })
        };
        assert!(world.linux.plan(&layered, &world.host).is_err());
        return;
    }
    let first = world
        .serve_with(on(root.clone(), Mode::Live { allow_root: true }), true)
        .await;
    first
        .root_sh("rm -r /srv; touch /etc/new; echo more >> /etc/known")
        .await;
    let layer = match save(&first).await {
        Ok(layer) => layer,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    first.destroy().await;
    for allow_root in [true, false] {
        let spec = Spec {
            layers: vec![layer.clone()],
            ..on(root.clone(), Mode::Live { allow_root })
        };
        let again = world.serve_with(spec, allow_root).await;
        assert!(root_clause(&again.plan).1.contains(", 1 layer"));
        let seen = again
            .sh("ls -d /srv /etc/new 2>/dev/null; cat /etc/known")
            .await
            .0;
        assert_eq!(seen, "/etc/new\nmine\nmore\n");
        again.destroy().await;
    }
}

async fn save(served: &Served<'_>) -> Result<PathBuf, driver::driver::DriverError> {
    let (linux, handle) = (&served.world.linux, &served.plan.handle);
    let to = served.world.dir.path().join("layer");
    linux.pause(handle, true).await?;
    let saved = linux.save(handle, &to).await;
    linux.pause(handle, false).await?;
    saved.map(|_| to)
}

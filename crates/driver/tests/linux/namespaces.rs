//! The seven namespaces, and that nothing passes between the mounts inside and outside.

use crate::outside::{guest_and_launcher, link};
use crate::world::{DEFAULTS, World};
use driver::host::Root;

/// As `/proc/<pid>/ns` names them.
const NAMESPACES: [&str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

fn own(pid: i32) -> Vec<Option<String>> {
    let names = NAMESPACES
        .iter()
        .map(|name| link(pid, &format!("ns/{name}")));
    names.collect()
}

/// Attack: A namespace that is shared with the host, the launcher or a neighbour is looked for.
#[tokio::test]
async fn a_sandbox_shares_no_namespace_with_the_host_its_launcher_or_another_sandbox() {
    let world = world!();
    // Both live at once: the number of a namespace is given out again when it is gone.
    let one = world.live(DEFAULTS, "echo ready; sleep 30").await;
    let other = world.live(DEFAULTS, "echo ready; sleep 30").await;
    let (guest, launcher) = guest_and_launcher(&one.pid_ns);
    let (neighbour, _) = guest_and_launcher(&other.pid_ns);
    let inside = own(guest);
    assert!(inside.iter().all(Option::is_some), "{inside:?}");
    let me = rustix::process::getpid().as_raw_nonzero().get();
    for (whose, pid) in [
        ("host", me),
        ("launcher", launcher),
        ("neighbour", neighbour),
    ] {
        for ((name, ours), theirs) in NAMESPACES.iter().zip(&inside).zip(own(pid)) {
            assert_ne!(
                ours, &theirs,
                "the {name} namespace is shared with the {whose}"
            );
        }
    }
}

#[tokio::test]
async fn a_sandbox_has_a_name_of_its_own() {
    let world = world!();
    assert_eq!(
        world.sh("uname -n; cat /etc/hostname").await,
        "sandbox\nsandbox\n"
    );
}

/// Attack: Other processes of the machine are looked for, with their command lines and environments.
#[tokio::test]
async fn only_the_processes_of_the_sandbox_are_seen() {
    let world = world!();
    // The shell looks by itself: the guest, and the shell.
    assert_eq!(
        world.sh("set -- /proc/[0-9]*; echo $#; echo $$").await,
        "2\n2\n"
    );
}

/// Attack: A mount is to pass between a sandbox and a host that shares all of its own.
///
/// Runs in a mount namespace whose mounts are all shared, as systemd makes those of a machine, so
/// that whatever is not made private is seen on the other side. They are shared with nobody else.
#[tokio::test]
async fn mounts_do_not_pass_between_a_sandbox_and_a_host_that_shares_all_of_its_own() {
    const NAME: &str =
        "namespaces::mounts_do_not_pass_between_a_sandbox_and_a_host_that_shares_all_of_its_own";
    const AGAIN: &str = "mount --make-rshared / && exec \"$0\" --exact \"$1\" --nocapture";
    let world = world!();
    if world.host.uid != 0 {
        println!("skipped: only root can share its mounts");
        return;
    }
    if std::env::var_os("SHARED_MOUNTS").is_none() {
        let own = std::env::current_exe().unwrap();
        let mut again = crate::outside::program("unshare");
        again.args(["--mount", "--propagation", "private", "sh", "-c", AGAIN]);
        again.arg(own).arg(NAME).env("SHARED_MOUNTS", "1");
        let again = again.output().unwrap();
        assert!(again.status.success(), "{again:?}");
        return;
    }
    mounts_stay_where_they_are(&world).await;
}

async fn mounts_stay_where_they_are(world: &World) {
    let below = world.dir.path().join("root/open/below");
    drop(crate::probe::root(world));
    std::fs::create_dir(&below).expect("a directory");
    let root = Root::read(&world.dir.path().join("root")).expect("a root");
    let before = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let mut spec = driver::conformance::spec(DEFAULTS);
    spec.root = Some(root);
    let mut prepared = world.start(&spec, |_| {}).await;
    let after = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert_eq!(before, after, "mounts of a sandbox are seen outside");
    let run = |name: &str, args: &[&str]| {
        let mut program = crate::outside::program(name);
        let status = program.args(args).arg(&below).status();
        assert!(status.expect("a program").success());
    };
    run("mount", &["-t", "tmpfs", "late"]);
    let argv = ["/bin/probe", "cat", "/proc/self/mountinfo"];
    let seen = crate::probe::run(&mut prepared, &argv).await.join("\n");
    run("umount", &[]);
    assert!(seen.contains(" /open "), "{seen}");
    assert!(
        !seen.contains("/open/below"),
        "a later mount is seen inside: {seen}"
    );
    world.destroy(&prepared).await;
}

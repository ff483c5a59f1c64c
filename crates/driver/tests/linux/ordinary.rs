//! All of it again as an ordinary user, who has no right but to make a user namespace.
//!
//! Root can become one: the tests are copied to where he can read them, and run again with his id, in
//! a mount namespace in which the machine's lists of users and of subordinate ids say what the case
//! needs. Where the tests are run by an ordinary user, all of them are his already.

use crate::ids::EXPECTED;
use crate::outside::program;
use crate::world::text;
use driver::host::find_program;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Nobody's on any machine that we know of.
const UID: u32 = 61_234;

/// What the run as an ordinary user may skip, and why.
const SKIPPED: [&str; 3] = [
    // The device is for root alone on most machines.
    "skipped: /dev/net/tun: Permission denied (os error 13)",
    "skipped: only root can share its mounts",
    "skipped: there is no python3 to listen with",
];

/// Where `newuidmap` and this process look, replaced for the case; then the tests as that user.
const AGAIN: &str = r#"
for file in passwd subuid subgid; do
    [ ! -e /etc/$file ] || mount --bind "$1/$file" /etc/$file
done
cd "$1/home"
exec setpriv --reuid "$2" --regid "$2" "$3" "$1/tests" \
    --skip ordinary:: --test-threads 2 --show-output
"#;

/// Runs everything again; what it printed.
fn again(ids: &str, ranges: &str, groups: &str) -> String {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let open = |path: &Path| {
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(path, mode).expect("a mode");
    };
    open(dir.path());
    let home = dir.path().join("home");
    std::fs::create_dir(&home).expect("a directory");
    std::os::unix::fs::chown(&home, Some(UID), Some(UID)).expect("an owner");
    let own = std::env::current_exe().expect("a test has a path");
    std::fs::copy(own, dir.path().join("tests")).expect("a copy");
    open(&dir.path().join("tests"));
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let users = format!(
        "{users}ordinary:x:{UID}:{UID}::{}:/bin/sh\n",
        home.display()
    );
    for (name, content) in [("passwd", &*users), ("subuid", ranges), ("subgid", ranges)] {
        std::fs::write(dir.path().join(name), content).expect("a file");
        let mode = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(dir.path().join(name), mode).expect("a mode");
    }
    let ran = program("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-ec",
            AGAIN,
            "sh",
        ])
        .arg(dir.path())
        .args([&UID.to_string(), groups])
        .env("TMPDIR", &home)
        .env(EXPECTED, ids)
        .output()
        .expect("unshare");
    let output = format!("{}\n{}", text(&ran.stdout), text(&ran.stderr));
    assert!(ran.status.success(), "{output}");
    output
}

/// The skipped are those that we know.
fn check(output: &str) {
    let skipped = output.lines().filter(|line| line.starts_with("skipped: "));
    let unknown: Vec<&str> = skipped.filter(|line| !SKIPPED.contains(line)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    assert!(output.contains("test result: ok. "), "{output}");
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn every_wall_stands_for_an_ordinary_user_with_a_single_id() {
    drop(world!());
    if !is_root() {
        println!("skipped: only root can become another user");
        return;
    }
    check(&again("single", "", "--clear-groups"));
}

#[test]
fn every_wall_stands_for_an_ordinary_user_with_subordinate_ids() {
    drop(world!());
    if !is_root() {
        println!("skipped: only root can become another user");
        return;
    }
    let lists = ["/etc/subuid", "/etc/subgid"];
    let tools = ["newuidmap", "newgidmap"];
    if tools.iter().any(|tool| find_program(tool).is_none())
        || lists.iter().any(|list| !Path::new(list).exists())
    {
        println!("skipped: newuidmap is not installed");
        return;
    }
    // Groups that he is in, the sandbox must not be in; with a single id they could not be left.
    let ranges = "ordinary:700000000:65536\n";
    check(&again("subordinate", ranges, "--groups=4,27"));
}

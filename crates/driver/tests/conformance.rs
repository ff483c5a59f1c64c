//! The conformance suite over every driver that this machine can run.

use driver::conformance::{self, command, prepare, spec};
use driver::fake::{Fake, Knobs};
use driver::host::Host;
use driver::linux::{Linger, Linux};
use model::spec::AskedLimits;

#[tokio::test]
async fn the_fake_driver_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::new(dir.path(), Knobs::default()).unwrap();
    conformance::check(&fake, &Host::probe(), &["fake", "exit=0"])
        .await
        .unwrap();
}

#[tokio::test]
async fn the_linux_driver_conforms() {
    let host = Host::probe();
    if let Some(why) = &host.no_user_namespaces {
        println!("skipped: {why}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let linux = Linux::new(dir.path(), host.clone(), Linger::No).unwrap();
    conformance::check(&linux, &host, &["true"]).await.unwrap();
}

#[tokio::test]
async fn output_and_exit_code_of_a_real_command_arrive() {
    let host = Host::probe();
    let dir = tempfile::tempdir().unwrap();
    let linux = Linux::new(dir.path(), host.clone(), Linger::No).unwrap();
    let mut prepared = prepare(&linux, &host, &spec(AskedLimits::default()))
        .await
        .unwrap();
    let script = "echo out; echo err >&2; id -u; pwd; exit 3";
    let ran = prepared.run(command(&["sh", "-c", script])).await.unwrap();
    assert_eq!(ran.exited.code, Some(3), "{ran:?}");
    assert_eq!(
        String::from_utf8(ran.stdout).unwrap(),
        "out\n1000\n/home/user\n"
    );
    assert_eq!(String::from_utf8(ran.stderr).unwrap(), "err\n");
}

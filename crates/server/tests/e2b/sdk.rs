//! The real SDK of E2B, where there is one: `COFFERDAM_E2B_PYTHON` names a Python that has it.

use std::process::Stdio;

use crate::world::World;

const SCRIPT: &str = r#"
import os
from e2b import Sandbox, SandboxException, SandboxQuery
s = Sandbox.create(timeout=60, metadata={"k 1": "v"})
assert s.is_running()
r = s.commands.run("echo hi")
assert r.stdout == "ran echo hi\n" and r.exit_code == 0, r
s.files.write("a.txt", "text")
assert s.files.read("a.txt") == "text"
assert s.files.exists("b.txt") is False
import urllib.request
assert urllib.request.urlopen(s.download_url("a.txt")).read() == b"text"
assert s.get_host(3000) == f"3000-{s.sandbox_id}.localhost:{os.environ['PORT']}", s.get_host(3000)
assert [x.sandbox_id for x in Sandbox.list(query=SandboxQuery(metadata={"k 1": "v"})).next_items()] == [s.sandbox_id]
assert s.get_info().metadata == {"k 1": "v"}
s.set_timeout(30)
assert s.get_metrics() == []
same = Sandbox.connect(s.sandbox_id)
assert same.sandbox_id == s.sandbox_id
s.pause()
assert not s.is_running()
same = s.connect()
assert same.is_running()
assert s.kill() is True
assert s.kill() is False
assert not s.is_running()
try:
    Sandbox.create("no-such-template")
    raise SystemExit("a template that is not there")
except SandboxException as error:
    assert "was not found" in str(error), error
print("all is well")
"#;

#[tokio::test]
async fn the_sdk_of_e2b_does_its_work() {
    let Some(python) = std::env::var_os("COFFERDAM_E2B_PYTHON") else {
        println!("skipped: COFFERDAM_E2B_PYTHON names no Python with the SDK of E2B");
        return;
    };
    let world = World::new().await;
    let url = format!("http://{}", world.tcp);
    #[expect(
        clippy::disallowed_methods,
        reason = "the environment is cleared, and the program is the test's"
    )]
    let mut command = std::process::Command::new(python);
    command
        .args(["-c", SCRIPT])
        .env_clear()
        .env("E2B_API_URL", &url)
        .env("E2B_SANDBOX_URL", &url)
        .env("E2B_API_KEY", World::key())
        .env("PORT", world.tcp.port().to_string())
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

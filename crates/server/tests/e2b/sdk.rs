//! The real SDKs of E2B, where there are any: `COFFERDAM_E2B_PYTHON` lists Pythons that have one, and
//! `COFFERDAM_E2B_JS` directories with one in their `node_modules`, like `PATH`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::world::World;

const PYTHON: &str = r#"
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
assert [m.disk_total for m in s.get_metrics()] == [9]
same = Sandbox.connect(s.sandbox_id)
assert same.sandbox_id == s.sandbox_id
s.pause()
assert not s.is_running()
same = s.connect()
assert same.is_running()
try:
    from e2b import Secret
    from e2b.exceptions import SecretNotFoundException
except ImportError:
    Secret = None # An older release has none.
if Secret:
    made = Secret.create("api-key", "canary", metadata={"for": "tests"})
    assert (made.name, made.version, made.metadata) == ("api-key", 1, {"for": "tests"}), made
    assert Secret.update("api-key", "second").version == 2
    assert Secret.update(made.secret_id, "third", metadata={}).metadata == {}
    assert Secret.get_info("api-key").secret_id == made.secret_id
    Secret.create("b", "x")
    pages = Secret.list(limit=1)
    assert [x.name for x in pages.next_items()] == ["api-key"] and pages.has_next
    assert [x.name for x in pages.next_items()] == ["b"] and not pages.has_next
    assert Secret.exists("b") and Secret.destroy("b") and not Secret.exists("b")
    assert Secret.destroy("b") is False
    try:
        Secret.update("b", "x")
        raise SystemExit("a secret that is not there")
    except SecretNotFoundException:
        pass
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

const JS: &str = r#"
import assert from 'node:assert'
import { Sandbox } from 'e2b'
const s = await Sandbox.create({ timeoutMs: 60_000, metadata: { 'k 1': 'v' } })
assert(await s.isRunning())
const r = await s.commands.run('echo hi')
assert.equal(r.stdout, 'ran echo hi\n')
await s.files.write('a.txt', 'text')
assert.equal(await s.files.read('a.txt'), 'text')
assert.equal(await s.files.exists('b.txt'), false)
assert.equal(await (await fetch(await s.downloadUrl('a.txt'))).text(), 'text')
assert.equal(s.getHost(3000), `3000-${s.sandboxId}.localhost:${process.env.PORT}`)
const page = await Sandbox.list({ query: { metadata: { 'k 1': 'v' } } }).nextItems()
assert.deepEqual(page.map((x) => x.sandboxId), [s.sandboxId])
await s.setTimeout(30_000)
const same = await Sandbox.connect(s.sandboxId)
assert.equal(same.sandboxId, s.sandboxId)
await s.pause()
assert(!(await s.isRunning()))
assert(await (await s.connect()).isRunning())
assert.equal(await s.kill(), true)
assert.equal(await Sandbox.kill(s.sandboxId), false)
await assert.rejects(Sandbox.create('no-such-template'), /was not found/)
"#;

/// What a program prints that fails, with a server of ours in its environment.
async fn run(mut command: Command) {
    let world = World::new().await;
    let url = format!("http://{}", world.tcp);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
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

#[expect(
    clippy::disallowed_methods,
    reason = "`run` clears the environment, and the programs are the test's"
)]
fn program(path: &Path) -> Command {
    Command::new(path)
}

/// The places in a list like `PATH`.
fn places(variable: &str) -> Vec<PathBuf> {
    let list = std::env::var_os(variable).unwrap_or_default();
    let paths = std::env::split_paths(&list);
    paths.filter(|path| !path.as_os_str().is_empty()).collect()
}

#[tokio::test]
async fn the_python_sdk_of_e2b_does_its_work() {
    let pythons = places("COFFERDAM_E2B_PYTHON");
    if pythons.is_empty() {
        println!("skipped: COFFERDAM_E2B_PYTHON names no Python with the SDK of E2B");
    }
    for python in pythons {
        let mut command = program(&python);
        command.args(["-c", PYTHON]);
        run(command).await;
    }
}

#[tokio::test]
async fn the_javascript_sdk_of_e2b_does_its_work() {
    let dirs = places("COFFERDAM_E2B_JS");
    if dirs.is_empty() {
        println!("skipped: COFFERDAM_E2B_JS names no directory with the SDK of E2B");
    }
    for dir in dirs {
        let mut command = program(Path::new("node"));
        command
            .args(["--input-type=module", "-e", JS])
            .current_dir(dir);
        run(command).await;
    }
}

# What a user of E2B does in a day, with the unmodified SDK, in real sandboxes.
import hashlib
import os
import socket
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from e2b import (
    CommandExitException,
    InvalidArgumentException,
    NotFoundException,
    PtySize,
    Sandbox,
    SandboxQuery,
    TimeoutException,
)


def refused(error, call):
    try:
        call()
    except error as raised:
        return raised
    raise AssertionError(f"{error.__name__} was not raised")


def until(so):
    end = time.monotonic() + 30
    while not so():
        assert time.monotonic() < end, "patience is over"
        time.sleep(0.01)


# Names below localhost are this machine; the resolver of the C library may not know it, the SDK does.
resolve = socket.getaddrinfo
socket.getaddrinfo = lambda host, *more, **named: resolve(
    "127.0.0.1" if str(host).endswith(".localhost") else host, *more, **named
)

s = Sandbox.create(timeout=120, metadata={"of": "this test"}, envs={"GIVEN": "yes"})
run = s.commands.run

# Commands.
assert run("echo $GIVEN $MORE; id -un; pwd", envs={"MORE": "too"}, cwd="/tmp").stdout == "yes too\nuser\n/tmp\n"
assert run("id -u", user="root").stdout == "0\n"
assert refused(CommandExitException, lambda: run("echo no >&2; exit 3")).exit_code == 3
assert refused(CommandExitException, lambda: run("there-is-no-such-program")).exit_code == 127
refused(TimeoutException, lambda: run("sleep 60", timeout=0.5))
refused(InvalidArgumentException, lambda: run("true", cwd="/nowhere"))
assert len(run("head -c 3000000 /dev/zero | tr '\\0' x").stdout) == 3_000_000

cat = run("cat", background=True, stdin=True)
s.commands.send_stdin(cat.pid, "typed\n")
s.commands.close_stdin(cat.pid)
assert cat.wait().stdout == "typed\n"

counter = run("for i in 1 2 3 4; do echo $i; sleep 0.3; done", background=True)
counter.disconnect()
assert counter.pid in [process.pid for process in s.commands.list()]
assert s.commands.connect(counter.pid).wait().stdout.endswith("4\n")

sleeper = run("sleep 60", background=True)
assert s.commands.kill(sleeper.pid) and not s.commands.kill(999_999)
refused(CommandExitException, sleeper.wait)

with ThreadPoolExecutor(16) as many:
    numbers = list(many.map(lambda n: run(f"echo {n}").stdout, range(64)))
assert numbers == [f"{n}\n" for n in range(64)]

# A terminal.
seen = []
terminal = s.pty.create(PtySize(24, 80))
s.pty.resize(terminal.pid, PtySize(17, 61))
s.pty.send_stdin(terminal.pid, b"stty size; echo $TERM; exit 7\n")
assert refused(CommandExitException, lambda: terminal.wait(on_pty=seen.append)).exit_code == 7
assert b"17 61" in b"".join(seen) and b"xterm-256color" in b"".join(seen)

# Files.
content = os.urandom(8 << 20)
s.files.write("large", content)
assert hashlib.sha256(s.files.read("large", format="bytes")).digest() == hashlib.sha256(content).digest()
assert s.files.make_dir("a/b") and not s.files.make_dir("a/b")
s.files.write_files([{"path": "a/x", "data": "1"}, {"path": "a/b/y", "data": "2"}])
assert sorted(entry.name for entry in s.files.list("a", depth=2)) == ["b", "x", "y"]
s.files.rename("a/x", "a/z")
assert s.files.exists("a/z") and not s.files.exists("a/x")
assert s.files.get_info("a/z").owner == "user"
s.files.remove("a")
refused(NotFoundException, lambda: s.files.read("a/z"))
refused(NotFoundException, lambda: s.files.list("a"))
watch = s.files.watch_dir("/home/user")
s.files.write("watched", "now")
until(lambda: any(event.name == "watched" for event in watch.get_new_events()))
watch.stop()
assert urllib.request.urlopen(s.download_url("watched", use_signature_expiration=60)).read() == b"now"

# A port.
server = run("python3 -m http.server 8123 --bind 127.0.0.1", background=True)
if "E2B_SANDBOX_URL" in os.environ:
    headers = {"E2b-Sandbox-Id": s.sandbox_id, "E2b-Sandbox-Port": "8123"}
    page = urllib.request.Request(os.environ["E2B_SANDBOX_URL"] + "/watched", headers=headers)
else:
    page = urllib.request.Request(f"https://{s.get_host(8123)}/watched")


def answers():
    try:
        return urllib.request.urlopen(page).read() == b"now"
    except urllib.error.HTTPError as error:
        assert error.code == 502 and b"port is not open" in error.read()
        return False


until(answers)

# Its life.
assert [x.sandbox_id for x in Sandbox.list(query=SandboxQuery(metadata={"of": "this test"})).next_items()] == [s.sandbox_id]
s.set_timeout(300)
now = s.get_metrics()[-1]
assert 0 < now.mem_used < now.mem_total == 512 << 20 and 8 << 20 <= now.disk_used < now.disk_total, now
memory = run("x=remembered; echo on; read line; echo $x", background=True, stdin=True)
s.pause()
assert not s.is_running()
again = Sandbox.connect(s.sandbox_id)
again.commands.send_stdin(memory.pid, "\n")
assert again.commands.run("cat watched").stdout == "now"
assert s.kill() and not s.kill() and not s.is_running()
print("all is well", flush=True)
# Not by way of the SDK's own end, in which its transport aborts now and then.
__import__("os")._exit(0)

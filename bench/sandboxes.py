#!/usr/bin/env python3
"""Measures sandboxes that live on as a user of E2B's Python SDK sees them.

    cofferdam up --sandboxes 1000 &
    eval "$(cofferdam env e2b)"
    pip install e2b && python3 bench/sandboxes.py

With `PODMAN_EXEC="podman exec CONTAINER /bin/true"`, of a container that runs, that is measured beside it.
Each figure is of all calls; none is left out.
"""

import json
import os
import shlex
import socket
import statistics
import struct
import subprocess
import tempfile
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

from e2b import Sandbox

CREATES = 100
COMMANDS = 200
IDLE = 490
FILE_BYTES = 100 << 20


def timed(call):
    start = time.perf_counter()
    result = call()
    return (time.perf_counter() - start) * 1000, result


def percentile(times, share):
    times = sorted(times)
    return times[min(len(times) - 1, int(len(times) * share))]


def show(name, times):
    figures = [percentile(times, share) for share in (0.5, 0.95, 0.99)]
    print("{:<48} p50 {:7.2f} ms  p95 {:7.2f}  p99 {:7.2f}".format(name, *figures))


def create():
    return Sandbox.create(timeout=600)


def create_and_run():
    sandbox = create()
    sandbox.commands.run("true")
    return sandbox


def private_kib():
    """Private memory of all guests on this machine, in KiB, and how many there are."""
    total = count = 0
    for process in os.listdir("/proc"):
        try:
            if "cofferdam-guest" not in os.readlink(f"/proc/{process}/exe"):
                continue
            with open(f"/proc/{process}/smaps_rollup") as rollup:
                total += sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))
            count += 1
        except OSError:
            continue
    return total, count


class Raw:
    """Starts a program in a sandbox with nothing between but a connection that is kept: what any client
    pays, whatever it is written in."""

    def __init__(self, sandbox):
        address = urllib.parse.urlsplit(os.environ["E2B_SANDBOX_URL"])
        self.socket = socket.create_connection((address.hostname, address.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answers = self.socket.makefile("rb")
        body = json.dumps({"process": {"cmd": "/bin/true"}, "stdin": False}).encode()
        body = b"\0" + struct.pack(">I", len(body)) + body
        head = [
            "POST /process.Process/Start HTTP/1.1",
            f"host: {address.netloc}",
            "content-type: application/connect+json",
            "connect-protocol-version: 1",
            f"e2b-sandbox-id: {sandbox.sandbox_id}",
            "e2b-sandbox-port: 49983",
            f"x-access-token: {sandbox._envd_access_token}",
            f"content-length: {len(body)}",
        ]
        self.request = "\r\n".join(head).encode() + b"\r\n\r\n" + body

    def true(self):
        self.socket.sendall(self.request)
        status = self.answers.readline()
        while self.answers.readline().strip():
            pass
        answer = b""
        while length := int(self.answers.readline(), 16):
            answer += self.answers.read(length)
            self.answers.readline()
        self.answers.readline()
        assert b" 200 " in status and b'"exitCode":0' in answer, (status, answer)


def spawn_true():
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)


class Bare:
    """`fork` and `exec` of `true` by a process that has next to no memory to copy: this one, with Python and
    the SDK in it, would take several times as long for the fork. It measures itself, from before the fork
    until `true` is reaped."""

    SOURCE = r"""
        #include <stdio.h>
        #include <sys/wait.h>
        #include <time.h>
        #include <unistd.h>
        static double now(void) {
            struct timespec t;
            clock_gettime(CLOCK_MONOTONIC, &t);
            return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
        }
        int main(void) {
            char *argv[] = {"true", 0}, *environ[] = {0};
            while (getchar() == '\n') {
                double start = now();
                pid_t pid = fork();
                if (pid == 0) { execve("/bin/true", argv, environ); _exit(1); }
                int status = 1;
                if (waitpid(pid, &status, 0) != pid || status) return 1;
                printf("%.6f\n", now() - start);
                fflush(stdout);
            }
        }
    """

    def __init__(self, directory):
        binary = os.path.join(directory, "bare")
        command = ["cc", "-O2", "-x", "c", "-o", binary, "-"]
        subprocess.run(command, input=self.SOURCE, text=True, check=True)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([binary], stdin=pipe, stdout=pipe, text=True)

    def true(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def in_turns(calls, count):
    """Times of each call, in turns, so that whatever else the machine does hits all of them. Of each there
    are ten in a row, as a program makes them; the first of them pays for the change, and is not left out.
    A call that gives a number has measured itself."""
    times = {name: [] for name in calls}
    for _ in range(count // 10):
        for name, call in calls.items():
            for _ in range(10):
                took, told = timed(call)
                times[name].append(told if isinstance(told, float) else took)
    for name in calls:
        show(name, times[name])
    return {name: statistics.median(of) for name, of in times.items()}


def kill_all(sandboxes):
    with ThreadPoolExecutor(20) as many:
        list(many.map(lambda sandbox: sandbox.kill(), sandboxes))


first = []
for _ in range(CREATES):
    took, sandbox = timed(create_and_run)
    first.append(took)
    sandbox.kill()
    time.sleep(0.02)
show("create until `true` has returned", first)

sandbox = create()
raw = Raw(sandbox)
clean = {"PATH": "/usr/bin:/bin"}
bare, spawn = "bare `fork` and `exec` of `true`", "bare `posix_spawn` of `true`"
http, sdk, bash = "`true` by HTTP, connection kept", "`true` by the SDK", "`bash -c true` here"
compiled = tempfile.TemporaryDirectory()
medians = in_turns(
    {
        bare: Bare(compiled.name).true,
        spawn: spawn_true,
        http: raw.true,
        sdk: lambda: sandbox.commands.run("true"),
        bash: lambda: subprocess.run(["/bin/bash", "-c", "true"], env=clean, check=True),
    },
    COMMANDS,
)
for other in (bare, spawn):
    print(f"{'`true` by HTTP, beside a ' + other:<60} {medians[http] / medians[other]:.2f} times")
if ask := shlex.split(os.environ.get("PODMAN_EXEC", "")):
    podman = [timed(lambda: subprocess.run(ask, check=True))[0] for _ in range(20)]
    show("`podman exec` of `true`", podman)
    print(f"{'`podman exec` beside `true` by HTTP':<48} {statistics.median(podman) / medians[http]:.0f} times")

content = os.urandom(1 << 20) * (FILE_BYTES >> 20)
took, _ = timed(lambda: sandbox.files.write("file", content))
print(f"{'upload of 100 MiB':<48} {FILE_BYTES / took / 1000:.0f} MB/s")
took, back = timed(lambda: sandbox.files.read("file", format="bytes"))
assert bytes(back) == content
print(f"{'download of 100 MiB':<48} {FILE_BYTES / took / 1000:.0f} MB/s")
sandbox.kill()

with ThreadPoolExecutor(100) as many:
    together = list(many.map(lambda _: timed(create), range(100)))
show("each of 100 creates at once", [took for took, _ in together])
kill_all(sandbox for _, sandbox in together)

early = [timed(create) for _ in range(10)]
late = [timed(create) for _ in range(IDLE)]
show("create, the first ten", [took for took, _ in early])
show(f"create, the next {IDLE} while all stay", [took for took, _ in late])
total, count = private_kib()
if count:
    print(f"{'private memory of one idle guest':<48} {total / count:.0f} KiB, of {count}")
kill_all(sandbox for _, sandbox in early + late)

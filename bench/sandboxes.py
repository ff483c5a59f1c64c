#!/usr/bin/env python3
"""Measures sandboxes that live on as a user of E2B's Python SDK sees them.

    cofferdam up --sandboxes 1000 &
    eval "$(cofferdam env e2b)"
    pip install e2b && python3 bench/sandboxes.py

Each figure is of all calls; none is left out.
"""

import os
import subprocess
import time
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
show("`true` in a sandbox that is there", [timed(lambda: sandbox.commands.run("true"))[0] for _ in range(COMMANDS)])
clean = {"PATH": "/usr/bin:/bin"}
bare = [timed(lambda: subprocess.run(["/bin/bash", "-c", "true"], env=clean, check=True))[0] for _ in range(COMMANDS)]
show("`bash -c true` here, for comparison", bare)

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

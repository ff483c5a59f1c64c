#!/usr/bin/env python3
"""Measures the way of 1 GiB into a sandbox and out again, as a user of E2B's Python SDK sees it, and the
most memory that any process of ours had on the way.

    cofferdam up &
    eval "$(cofferdam env e2b)"
    pip install e2b && python3 bench/large.py [PATH OF cofferdam]

What a sandbox gets when nobody says is a disk of 1 GiB, into which 1 GiB and a home do not fit, and E2B's
clients cannot say. So the sandbox is made with the command line, and used through the SDK.
"""

import json
import os
import subprocess
import sys
import threading
import time

from e2b import Sandbox

SIZE = 1 << 30
TIMES = 3
OURS = ("cofferdam", "cofferdam-jail", "cofferdam-guest")


def resident():
    """The resident memory of our processes now, in KiB, the largest of each name."""
    seen = {}
    for process in os.listdir("/proc"):
        try:
            program = os.readlink(f"/proc/{process}/exe").removesuffix(" (deleted)")
            name = os.path.basename(program).removeprefix("memfd:")
            if name not in OURS:
                continue
            with open(f"/proc/{process}/status") as status:
                lines = dict(line.split(":", 1) for line in status if ":" in line)
            seen[name] = max(seen.get(name, 0), int(lines["VmRSS"].split()[0]))
        except (OSError, KeyError, ValueError):
            continue
    return seen


class Watch(threading.Thread):
    """Looks every 20 ms, until told to stop."""

    def __init__(self):
        super().__init__(daemon=True)
        self.most, self.over = {}, False

    def run(self):
        while not self.over:
            for name, kib in resident().items():
                self.most[name] = max(self.most.get(name, 0), kib)
            time.sleep(0.02)


def rate(name, call):
    for _ in range(TIMES):
        before, watch = resident(), Watch()
        watch.start()
        start = time.perf_counter()
        call()
        took = time.perf_counter() - start
        watch.over = True
        watch.join()
        memory = [f"{process} {before.get(process, 0)} -> {watch.most.get(process, 0)}" for process in OURS]
        print(f"{name:<9} {SIZE / took / 1e6:6.0f} MB/s   KiB: {', '.join(memory)}", flush=True)


program = sys.argv[1] if len(sys.argv) > 1 else "cofferdam"
made = [program, "sandbox", "create", "--disk", "2G", "--memory", "4G", "--ttl", "30m", "--json"]
made = json.loads(subprocess.run(made, stdout=subprocess.PIPE, check=True).stdout)
sandbox = Sandbox.connect(made["id"].removeprefix("sbx_"), timeout=1800)
content = os.urandom(SIZE)
rate("upload", lambda: sandbox.files.write("large", content))


def read():
    assert sum(len(piece) for piece in sandbox.files.read("large", format="stream")) == SIZE


rate("download", read)
sandbox.kill()

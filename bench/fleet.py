#!/usr/bin/env python3
"""Measures the control plane of a fleet: what a million finished jobs cost, many nodes that are heard, the recovery
after a kill.

    python3 bench/fleet.py PATH_OF_cofferdam [finished|heartbeats|recovery|pinned|start ...]

Each measure has a server of its own, in development mode on loopback, once on SQLite and once on a PostgreSQL of
its own (which needs `initdb` and `pg_ctl`, and as root the user `postgres`). Nodes are simulated by this file: what
they say is what a node says, and nothing runs. Only `start` has a real node, which dials in over TLS with a
certificate of its own, as in production. It changes nothing on the machine outside a temporary directory.
"""

import asyncio
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

TOKEN = "a token of sixteen and more"
CALLS = 300
FEW, MANY = 1_000, 1_000_000
NODES = 10_000
HEARTBEAT_S = 30
IN_FLIGHT = 1_000
PINNED = 100_000
STARTS = 300
START_GOAL_MS = 10


# -- a server and its database -------------------------------------------------------------------------------------

class Postgres:
    def __init__(self, dir):
        self.dir = dir
        os.chmod(dir, 0o755)
        self.own = os.path.join(dir, "postgres")
        os.mkdir(self.own)
        self.who = []
        if os.getuid() == 0:
            shutil.chown(self.own, "postgres")
            self.who = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"]
        bins = sorted(os.listdir("/usr/lib/postgresql")) if os.path.isdir("/usr/lib/postgresql") else []
        self.bin = f"/usr/lib/postgresql/{bins[-1]}/bin/" if bins else ""
        data = os.path.join(self.own, "data")
        self.run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C")
        self.run("pg_ctl", "-D", data, "-w", "-l", os.path.join(self.own, "log"), "start",
                 "-o", f"-k '{self.own}' -c listen_addresses=")
        self.address = f"host={self.own} user=postgres dbname=postgres"

    def run(self, program, *args):
        subprocess.run([*self.who, self.bin + program, *args], check=True, cwd=self.own,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def sql(self, text):
        subprocess.run(["psql", "-q", "-v", "ON_ERROR_STOP=1", "-h", self.own, "-U", "postgres", "-c", text],
                       check=True, stdout=subprocess.DEVNULL)

    def end(self):
        self.run("pg_ctl", "-D", os.path.join(self.own, "data"), "-m", "immediate", "stop")


class Server:
    def __init__(self, program, database, production=False):
        self.program = program
        self.production = production
        self.dir = tempfile.mkdtemp()
        self.state = os.path.join(self.dir, "state")
        self.postgres = Postgres(self.dir) if database == "PostgreSQL" else None
        with socket.create_server(("127.0.0.1", 0)) as one:
            self.port = one.getsockname()[1]
        line = f'database = "{self.postgres.address}"\n' if self.postgres else ""
        mode, token = ("production", "") if production else ("development", f'token = "{TOKEN}"\n')
        with open(os.path.join(self.dir, "server.toml"), "w") as file:
            file.write(f'mode = "{mode}"\n[server]\nstate = "{self.state}"\n{line}[server.nodes]\n'
                       f'listen = "127.0.0.1:{self.port}"\nnames = ["127.0.0.1"]\n{token}')
        self.start()

    def start(self):
        config = os.path.join(self.dir, "server.toml")
        log = open(os.path.join(self.dir, "log"), "a")
        dev = [] if self.production else ["--dev"]
        self.process = subprocess.Popen([self.program, "server", *dev, "--config", config], stderr=log,
                                        env=self.environment())
        while self.process.poll() is None:
            try:
                if self.call("GET", "/readyz")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.005)
        sys.exit(open(os.path.join(self.dir, "log")).read())

    def environment(self):
        return {"PATH": os.environ["PATH"], "HOME": self.dir, "COFFERDAM_STATE": self.state}

    def call(self, method, path, body=None):
        stream = socket.socket(socket.AF_UNIX)
        stream.connect(os.path.join(self.state, "cofferdam.sock"))
        connection = http.client.HTTPConnection("localhost")
        connection.sock = stream
        return ask(connection, method, path, body)

    def connection(self):
        """For many calls, one after the other."""
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(os.path.join(self.state, "cofferdam.sock"))
        return connection

    def sql(self, text):
        if self.postgres:
            return self.postgres.sql(text)
        with sqlite3.connect(os.path.join(self.state, "cofferdam.db"), timeout=60) as database:
            database.executescript(text)

    def cpu(self):
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self):
        self.kill()
        if self.postgres:
            self.postgres.end()
        shutil.rmtree(self.dir)


def ask(connection, method, path, body=None, headers=None):
    text = None if body is None else json.dumps(body)
    headers = dict(headers or {}, **({"content-type": "application/json"} if text else {}))
    connection.request(method, path, text, headers)
    answer = connection.getresponse()
    text = answer.read()
    return answer.status, json.loads(text) if text.startswith((b"{", b"[")) else {}


# -- a node that does nothing --------------------------------------------------------------------------------------

def node_id():
    return f"node_{int(time.time() * 1000):012x}7{secrets.token_hex(2)[:3]}8{secrets.token_hex(8)[:15]}"


def bearer(node):
    return {"authorization": f"Bearer dev.{node}.{TOKEN}"}


def hello(slots=1):
    return {"name": "bench", "incarnation": "a", "version": "0", "slots": slots, "drivers": ["fake"],
            "facts": {"memory_bytes": str(1 << 40), "cpus": "64"}}


class Node:
    def __init__(self, server, slots=1):
        self.id = node_id()
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port)
        self.slots = slots
        self.say("register", hello(slots))

    def say(self, what, body):
        status, answer = ask(self.connection, "POST", f"/node/v1/{what}", body, bearer(self.id))
        assert status == 200, (what, status, answer)
        return answer

    def poll(self, wait_ms=0, slots=None):
        asked = {"incarnation": "a", "free_slots": slots or self.slots, "wait_ms": wait_ms}
        return self.say("poll", asked)["leases"]

    def started(self, lease):
        self.say(f"jobs/{lease['job_id']}/started", {"epoch": lease["epoch"], "attempt": lease["attempt"],
                                                     "driver": "fake", "enforcement": []})

    def finished(self, lease):
        self.say(f"jobs/{lease['job_id']}/finished", {"epoch": lease["epoch"], "attempt": lease["attempt"],
                                                      "outcome": {"kind": "succeeded"}})


# -- what a million finished jobs cost -----------------------------------------------------------------------------

def columns(server, table, skip):
    if server.postgres:
        text = subprocess.run(["psql", "-qAt", "-h", server.postgres.own, "-U", "postgres", "-c",
                               "SELECT column_name FROM information_schema.columns "
                               f"WHERE table_name = '{table}'"], capture_output=True, text=True).stdout
        names = text.split()
    else:
        with sqlite3.connect(os.path.join(server.state, "cofferdam.db")) as database:
            names = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    return [name for name in names if name not in skip]


def multiply(server, job, first, last):
    """Copies of a job that has ended, with its events, older and older; all within the hour in which none goes."""
    if server.postgres:
        numbers = f"SELECT n FROM generate_series({first}, {last}) AS s(n)"
        number = "'job_' || lpad(to_hex(created_at_ms - n), 12, '0') || '7' || lpad(to_hex(n), 19, '0')"
        event = "'job_' || lpad(to_hex(j.created_at_ms - n), 12, '0') || '7' || lpad(to_hex(n), 19, '0')"
    else:
        numbers = (f"WITH RECURSIVE s(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM s WHERE n < {last}) "
                   "SELECT n FROM s")
        number = "'job_' || printf('%012x7%019x', created_at_ms - n, n)"
        event = "'job_' || printf('%012x7%019x', j.created_at_ms - n, n)"
    rest = ", ".join(columns(server, "job", ("id", "created_at_ms")))
    server.sql(f"INSERT INTO job (id, created_at_ms, {rest}) SELECT {number}, created_at_ms - n, {rest} "
               f"FROM job, ({numbers}) AS m WHERE id = '{job}'")
    names = columns(server, "event_inbox", ("position", "resource_id"))
    listed, taken = ", ".join(names), ", ".join(f"e.{name}" for name in names)
    server.sql(f"INSERT INTO event_inbox (resource_id, {listed}) SELECT {event}, {taken} FROM event_inbox e "
               f"JOIN job j ON j.id = e.resource_id, ({numbers}) AS m WHERE e.resource_id = '{job}'")
    server.sql("ANALYZE")


def median(call):
    """Of 300 calls, or of as many as five seconds have room for."""
    times = []
    while len(times) < CALLS and sum(times) < 5_000:
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


def looks(server, node, job):
    # It was idle while rows were written.
    node.connection.close()
    connection = server.connection()

    def get(path):
        status, answer = ask(connection, "GET", path)
        assert status == 200, (path, status, answer)
        return answer

    middle = get("/v1/jobs?limit=500")["next"]
    made = []

    def create():
        status, answer = ask(connection, "POST", "/v1/jobs", {"argv": ["true"]})
        assert status in (200, 201, 202), answer
        made.append(answer["id"])

    calls = {
        "list, the first page": lambda: get("/v1/jobs"),
        "list, a page further back": lambda: get(f"/v1/jobs?before={middle}"),
        "list of those that run": lambda: get("/v1/jobs?state=running"),
        "list of those that wait": lambda: get("/v1/jobs?state=queued"),
        "get": lambda: get(f"/v1/jobs/{job}"),
        "events of one": lambda: get(f"/v1/jobs/{job}/events"),
        "poll": node.poll,
        "list of nodes": lambda: get("/v1/nodes"),
    }
    measured = {name: median(call) for name, call in calls.items()}
    measured["create"] = median(create)
    while leases := node.poll(slots=64):
        for lease in leases:
            node.started(lease)
            node.finished(lease)
    return measured


def finished(program):
    for database in ("SQLite", "PostgreSQL"):
        server = Server(program, database)
        node = Node(server, 64)
        _, job = server.call("POST", "/v1/jobs", {"argv": ["true"]})
        (lease,) = node.poll()
        node.started(lease)
        node.finished(lease)
        multiply(server, job["id"], 1, FEW)
        few = looks(server, node, job["id"])
        start = time.perf_counter()
        multiply(server, job["id"], FEW + 1, MANY)
        print(f"{database}: {MANY} jobs and their events written in {time.perf_counter() - start:.0f} s")
        many = looks(server, node, job["id"])
        for name in few:
            ratio = many[name] / few[name]
            verdict = "held" if ratio <= 2 else "**missed**"
            print(f"| {database}: {name} | {few[name]:.2f} ms | {many[name]:.2f} ms | {ratio:.2f} | {verdict} |",
                  flush=True)
        server.end()


# -- many nodes ----------------------------------------------------------------------------------------------------

async def say(reader, writer, node, what, body):
    text = json.dumps(body)
    writer.write((f"POST /node/v1/{what} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer dev.{node}.{TOKEN}\r\n"
                  f"content-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n{text}").encode())
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    length = int(lower.split(b"content-length:")[1].split(b"\r\n")[0])
    body = await reader.readexactly(length)
    assert head.startswith(b"HTTP/1.1 200"), (what, head, body)


async def many_nodes(server):
    """All nodes on a few hundred connections: what is measured is the work of the server, not its sockets."""
    ids, lanes, times, stop = [node_id() for _ in range(NODES)], 200, [], time.monotonic() + 20 + HEARTBEAT_S

    async def lane(number):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        own = ids[number::lanes]
        for one in own:
            await say(reader, writer, one, "register", hello())
        ready.append(number)
        await began.wait()
        begin = time.monotonic()
        pause = HEARTBEAT_S / len(own)
        for turn in range(len(own)):
            await asyncio.sleep(max(0, begin + (turn + number / lanes) * pause - time.monotonic()))
            await say(reader, writer, own[turn], "heartbeat", {"incarnation": "a"})
            start = time.perf_counter()
            await say(reader, writer, own[turn], "poll", {"incarnation": "a", "free_slots": 1, "wait_ms": 0})
            times.append((time.perf_counter() - start) * 1000)
        writer.close()

    ready, began = [], asyncio.Event()
    tasks = [asyncio.create_task(lane(number)) for number in range(lanes)]
    while len(ready) < lanes:
        for task in tasks:
            if task.done():
                task.result()
        await asyncio.sleep(0.1)
    cpu, begin = server.cpu(), time.monotonic()
    began.set()
    await asyncio.gather(*tasks)
    took = time.monotonic() - begin
    times.sort()
    return (server.cpu() - cpu) / took, times, took


def heartbeats(program):
    for database in ("SQLite", "PostgreSQL"):
        server = Server(program, database)
        cores, times, took = asyncio.run(many_nodes(server))
        p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
        print(f"| {database}: {NODES} nodes, a heartbeat and a poll each in {took:.0f} s | {cores:.2f} cores; "
              f"poll p50 {p50:.1f} ms, p99 {p99:.1f} | 0.5 cores, p99 50 ms |", flush=True)
        server.end()


# -- after a kill --------------------------------------------------------------------------------------------------

def recovery(program):
    for database in ("SQLite", "PostgreSQL"):
        server = Server(program, database)
        node = Node(server, IN_FLIGHT)
        connection = server.connection()
        for _ in range(IN_FLIGHT):
            ask(connection, "POST", "/v1/jobs", {"argv": ["true"]})
        leases = []
        while len(leases) < IN_FLIGHT:
            leases += node.poll(1000, IN_FLIGHT - len(leases))
        for lease in leases:
            node.started(lease)
        server.kill()
        start = time.perf_counter()
        server.start()
        up = time.perf_counter() - start
        node.connection.close()
        held = node.say("register", hello(IN_FLIGHT))["held"]
        ask_again = server.connection()
        status, _ = ask(ask_again, "POST", "/v1/jobs", {"argv": ["true"]})
        (more,) = node.poll(1000, 1)
        took = time.perf_counter() - start
        assert len(held) == IN_FLIGHT, len(held)
        for lease in leases + [more]:
            node.finished(lease) if lease in leases else (node.started(lease), node.finished(lease))
        over = time.perf_counter() - start
        _, left = server.call("GET", "/v1/jobs?state=running")
        assert not left["jobs"], left
        print(f"| {database}: kill -9 of a server with {IN_FLIGHT} jobs in flight | answers after {up:.2f} s, has "
              f"told its node all of them and leased the next job after {took:.2f} s, all outcomes taken after "
              f"{over:.2f} s | 5 s |", flush=True)
        server.end()


# -- from a request to the start ----------------------------------------------------------------------------------

class RealNode:
    """A node process that was enrolled, and whose requests and links are TLS with certificates at both ends."""

    def __init__(self, server, driver):
        self.state = os.path.join(server.dir, "node")
        self.log = os.path.join(server.dir, "node.log")
        config = os.path.join(server.dir, "node.toml")
        with open(config, "w") as file:
            file.write(f'[node]\nstate = "{self.state}"\nslots = 4\nspares = 4\ndriver = "{driver}"\n')
        run = dict(env=server.environment(), check=True, capture_output=True, text=True)
        token = subprocess.run([server.program, "node", "enroll-token"], **run).stdout.strip()
        run["env"] = dict(run["env"], COFFERDAM_TOKEN=token)
        subprocess.run([server.program, "--state", self.state, "node", "enroll", "--server",
                        f"https://127.0.0.1:{server.port}"], **run)
        self.process = subprocess.Popen([server.program, "node", "--config", config], stderr=open(self.log, "a"),
                                        env=server.environment())
        while not any(one["connectivity"] == "online" for one in server.call("GET", "/v1/nodes")[1]["nodes"]):
            if self.process.poll() is not None:
                sys.exit(open(self.log).read())
            time.sleep(0.01)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def starts(server, argv):
    """For one job after the other, an idle node each time: from before the request is sent to what the record says
    of the stages. Clients, servers and nodes have one clock; the record has whole milliseconds."""
    connection = server.connection()
    stages = {name: [] for name in ("created", "leased", "started", "finished")}
    for number in range(STARTS + 20):
        begin = time.time() * 1000
        status, job = ask(connection, "POST", "/v1/jobs?wait=10s", {"argv": argv})
        assert status in (200, 201, 202) and job["outcome"]["kind"] == "succeeded", job
        # The node is idle again, and a spare sandbox stands ready.
        time.sleep(0.05)
        if number < 20:
            continue
        for name in stages:
            stages[name].append(max(0, job[f"{name}_at_ms"] - begin))
    return stages


def start(program):
    for database in ("SQLite", "PostgreSQL"):
        for driver, argv in (("fake", ["fake"]), ("linux", ["true"])):
            server = Server(program, database, production=True)
            node = RealNode(server, driver)
            stages = starts(server, argv)
            texts = []
            for name, times in stages.items():
                times.sort()
                texts.append(f"{name} p50 {times[len(times) // 2]:.1f} ms, p99 {times[len(times) * 99 // 100]:.1f}")
            p50 = stages["started"][len(stages["started"]) // 2]
            verdict = "held" if p50 <= START_GOAL_MS else "**missed**"
            print(f"| {database}, driver {driver}: from the request of a job to its start | {'; '.join(texts)} | "
                  f"started p50 {START_GOAL_MS} ms | {verdict} |", flush=True)
            node.end()
            server.end()


# -- what waits for one node alone ----------------------------------------------------------------------------------

def pinned(program):
    for database in ("SQLite", "PostgreSQL"):
        server = Server(program, database)
        own, other = Node(server), Node(server)
        before = median(lambda: other.poll())
        # Jobs that wait for the first node, which never asks again.
        series = ("generate_series(1, %d) AS s(n)" if server.postgres else
                  "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < %d) SELECT n FROM s)")
        server.sql("INSERT INTO queue (job_id, tenant, pinned_node, not_before_ms, queued_at_ms) "
                   f"SELECT 'job_' || n, 'ten_a', '{own.id}', n, n FROM " + series % PINNED)
        other.connection.close()
        after = median(lambda: other.poll())
        verdict = "held" if after <= 2 * before else "**missed**"
        print(f"| {database}: poll of a node beside {PINNED} jobs that wait for another alone | {before:.2f} ms | "
              f"{after:.2f} ms | {after / before:.2f} | {verdict} |", flush=True)
        server.end()


def main():
    program = os.path.abspath(sys.argv[1])
    measures = {"finished": finished, "heartbeats": heartbeats, "recovery": recovery, "pinned": pinned,
                "start": start}
    for name in sys.argv[2:] or measures:
        measures[name](program)


main()

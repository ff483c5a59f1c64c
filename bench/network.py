#!/usr/bin/env python3
"""Measures the way out of a sandbox beside the bare kernel, all in one run.

    sudo python3 bench/network.py PATH_OF_cofferdam [ROUNDS]

It goes into a network namespace of its own with one address more, which sandboxes may reach, so it needs root and
changes nothing on the machine. A server, a client and, as the limit of what a proxy can be, a relay of two
descriptors and `splice(2)` are this same file. The client runs on the host (direct, relay) and in a sandbox
(through CONNECT, through the TUN device), with the same code and the same sizes. Rounds take turns; a figure is the
median of all rounds, and none is left out.
"""

import http.client
import json
import os
import selectors
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ADDRESS = "198.51.100.1"
BYTES = 1 << 30
PIECE = 256 << 10
CONNECTS = 300
PROXY = ("127.0.0.1", 3128)


# -- what runs on both sides ---------------------------------------------------------------------------------------

def tunnel(port, proxy):
    """A connection to the server, through the proxy or not."""
    if not proxy:
        return socket.create_connection((ADDRESS, port))
    stream = socket.create_connection(PROXY)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.sendall(f"CONNECT {ADDRESS}:{port} HTTP/1.1\r\nhost: {ADDRESS}:{port}\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        more = stream.recv(4096)
        assert more, "no answer of the proxy"
        head += more
    assert head.startswith(b"HTTP/1.1 200"), head
    return stream


def download(port, proxy):
    stream = tunnel(port, proxy)
    room, got = bytearray(PIECE), 0
    start = time.perf_counter()
    stream.sendall(b"get\n")
    while count := stream.recv_into(room):
        got += count
    took = time.perf_counter() - start
    assert got == BYTES, got
    return BYTES / took / 1e6


def upload(port, proxy):
    stream = tunnel(port, proxy)
    piece = memoryview(bytes(PIECE))
    start = time.perf_counter()
    stream.sendall(b"put\n")
    for _ in range(BYTES // PIECE):
        stream.sendall(piece)
    stream.shutdown(socket.SHUT_WR)
    assert stream.recv(1) == b"."
    return BYTES / (time.perf_counter() - start) / 1e6


def one_connect(port, proxy):
    start = time.perf_counter()
    stream = tunnel(port, proxy)
    took = time.perf_counter() - start
    stream.close()
    return took * 1000


def connects(port, proxy, count=CONNECTS):
    times = []
    for _ in range(count):
        times.append(one_connect(port, proxy))
        time.sleep(0.001)
    return times


def held(port, proxy, count):
    """Connections that stay, and how long each of others takes meanwhile."""
    stay = [tunnel(port, proxy) for _ in range(count)]
    times = connects(port, proxy)
    if "--tell" in sys.argv:
        print("held", flush=True)
        sys.stdin.readline()
    for stream in stay:
        stream.close()
    return times


def at_once(port, proxy, count):
    """So many connects begun in one moment; how long each takes until it is answered."""
    waiting, times = selectors.DefaultSelector(), []
    head = f"CONNECT {ADDRESS}:{port} HTTP/1.1\r\nhost: {ADDRESS}:{port}\r\n\r\n".encode()
    streams = []
    for _ in range(count):
        stream = socket.socket()
        stream.setblocking(False)
        start = time.perf_counter()
        stream.connect_ex(PROXY if proxy else (ADDRESS, port))
        waiting.register(stream, selectors.EVENT_WRITE, start)
        streams.append(stream)
    while len(times) < count:
        for key, _ in waiting.select(30):
            if proxy and key.events == selectors.EVENT_WRITE:
                key.fileobj.send(head)
                waiting.modify(key.fileobj, selectors.EVENT_READ, key.data)
                continue
            if proxy:
                assert key.fileobj.recv(4096).startswith(b"HTTP/1.1 200")
            waiting.unregister(key.fileobj)
            times.append((time.perf_counter() - key.data) * 1000)
    for stream in streams:
        stream.close()
    return times


CALLS = {
    "download": lambda port, proxy: download(port, proxy),
    "upload": lambda port, proxy: upload(port, proxy),
    "connects": lambda port, proxy: connects(port, proxy),
    "held": lambda port, proxy: held(port, proxy, int(sys.argv[5])),
    "at_once": lambda port, proxy: at_once(port, proxy, int(sys.argv[5])),
}


# -- what runs outside ---------------------------------------------------------------------------------------------

def serve(listener):
    while True:
        stream, _ = listener.accept()
        threading.Thread(target=answer, args=(stream,), daemon=True).start()


def answer(stream):
    asked = stream.recv(4)
    if asked == b"get\n":
        piece = memoryview(bytes(PIECE))
        for _ in range(BYTES // PIECE):
            stream.sendall(piece)
    elif asked == b"put\n":
        room = bytearray(PIECE)
        while stream.recv_into(room):
            pass
        stream.sendall(b".")
    stream.close()


def hold(listener):
    """Takes connections and keeps them until the other end goes, in one thread."""
    ready = selectors.DefaultSelector()
    listener.setblocking(False)
    ready.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            if key.fileobj is not listener:
                ready.unregister(key.fileobj)
                key.fileobj.close()
                continue
            try:
                while True:
                    stream, _ = listener.accept()
                    ready.register(stream, selectors.EVENT_READ)
            except BlockingIOError:
                pass


def relay(listener, port):
    while True:
        one, _ = listener.accept()
        other = socket.create_connection((ADDRESS, port))
        for ends in ((one, other), (other, one)):
            threading.Thread(target=splice, args=ends, daemon=True).start()


def splice(one, other):
    """The least that a proxy can do."""
    import fcntl

    leave, enter = os.pipe()
    fcntl.fcntl(enter, 1031, 1 << 20)  # F_SETPIPE_SZ
    while count := os.splice(one.fileno(), enter, 1 << 20):
        while count:
            count -= os.splice(leave, other.fileno(), count)
    other.shutdown(socket.SHUT_WR)
    os.close(leave)
    os.close(enter)


def listener():
    listener = socket.create_server((ADDRESS, 0), backlog=2048)
    return listener, listener.getsockname()[1]


def forked(what, *args):
    child = os.fork()
    if child == 0:
        try:
            what(*args)
        finally:
            os._exit(0)
    return child


class Cofferdam:
    def __init__(self, program):
        self.program, self.state = program, tempfile.mkdtemp()
        os.chmod(self.state, 0o700)
        self.environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "COFFERDAM_STATE": self.state, "HOME": self.state}
        up = ["up", "--no-listen", "--egress-allow", ADDRESS]
        self.up = subprocess.Popen([program, *up], env=self.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.time() + 30
        while not os.path.exists(self.state + "/cofferdam.sock") and time.time() < until:
            time.sleep(0.01)

    def call(self, *args, **more):
        return subprocess.run([self.program, *args], env=self.environ, check=True, stdout=subprocess.PIPE, **more).stdout

    def create(self, *network):
        made = self.call("sandbox", "create", "--ttl", "1h", *network).decode()
        return next(word for word in made.split() if word.startswith("sbx_"))

    def measure(self, sandbox, what, port, proxy, *args):
        """What this file measures inside."""
        inside = ["python3", "/tmp/network.py", "inside", what, str(port), proxy, *map(str, args)]
        return json.loads(self.call("sandbox", "exec", sandbox, "--", *inside))

    def http(self, method, path, body=None):
        connection = http.client.HTTPConnection("cofferdam")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.state + "/cofferdam.sock")
        connection.request(method, path, body and json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status < 300, text
        return json.loads(text) if text else None

    def end(self):
        self.up.terminate()
        self.up.wait()
        shutil.rmtree(self.state, ignore_errors=True)


def percentile(times, share):
    times = sorted(times)
    return times[min(len(times) - 1, int(len(times) * share))]


def show(name, text):
    print(f"{name:<52} {text}", flush=True)


def streams(cofferdam, sandbox, rounds, server, relayed):
    for what, call in (("download", download), ("upload", upload)):
        rates = {"direct": [], "relay": [], "CONNECT": [], "TUN": []}
        for _ in range(rounds):
            rates["direct"].append(call(server, False))
            rates["relay"].append(call(relayed, False))
            rates["CONNECT"].append(cofferdam.measure(sandbox, what, server, "proxy"))
            rates["TUN"].append(cofferdam.measure(sandbox, what, server, "tun"))
        middle = {way: statistics.median(all) for way, all in rates.items()}
        direct = middle["direct"]
        for way, rate in middle.items():
            low, high = min(rates[way]), max(rates[way])
            show(f"{what} of 1 GiB, {way}", f"{rate:6.0f} MB/s ({low:.0f} to {high:.0f})  {rate / direct:4.0%} of direct")
        show(f"{what}, CONNECT of what the bare relay does", f"{middle['CONNECT'] / middle['relay']:4.0%}")


def latency(cofferdam, sandbox, holder):
    direct = connects(holder, False)
    for way in ("proxy", "tun"):
        times = cofferdam.measure(sandbox, "connects", holder, way)
        added = percentile(times, 0.5) - percentile(direct, 0.5)
        figures = " ".join(f"p{int(share * 100)} {percentile(times, share):.3f} ms" for share in (0.5, 0.95, 0.99))
        show(f"connect, {way}", f"{figures}; direct p50 {percentile(direct, 0.5):.3f}; added p50 {added:.3f} ms")


def thousand(cofferdam, sandbox, holder):
    for what in ("held", "at_once"):
        figures = {}
        for count in (10, 1000):
            times = cofferdam.measure(sandbox, what, holder, "proxy", count)
            figures[count] = percentile(times, 0.99)
            show(f"connect, {count} {what}", f"p50 {percentile(times, 0.5):.3f} ms p99 {figures[count]:.3f}")
        show(f"  p99 of 1,000 beside ten, {what}", f"{figures[1000] / figures[10]:.2f}")
    direct = {count: percentile(at_once(holder, False, count), 0.99) for count in (10, 1000)}
    show("  the same without a proxy, at_once", f"p99 {direct[10]:.3f} and {direct[1000]:.3f} ms, {direct[1000] / direct[10]:.2f}")


def resident(names):
    """KiB that are private, and descriptors, of our processes by name."""
    seen = {}
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            program = os.readlink(f"/proc/{process}/exe").removesuffix(" (deleted)")
            name = os.path.basename(program).removeprefix("memfd:")
            if name not in names:
                continue
            with open(f"/proc/{process}/smaps_rollup") as rollup:
                kib = sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))
            old = seen.get(name, (0, 0))
            seen[name] = (old[0] + kib, old[1] + len(os.listdir(f"/proc/{process}/fd")))
        except OSError:
            continue
    return seen


def idle(cofferdam, sandbox, holder):
    names = (os.path.basename(cofferdam.program), "cofferdam-guest")
    before = resident(names)
    inside = ["python3", "/tmp/network.py", "inside", "held", str(holder), "proxy", "1000", "--tell"]
    call = [cofferdam.program, "sandbox", "exec", sandbox, "--", *inside]
    client = subprocess.Popen(call, env=cofferdam.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert client.stdout.readline() == b"held\n"
    after = resident(names)
    client.communicate(b"\n")
    for name in names:
        kib, files = (late - early for late, early in zip(after[name], before[name]))
        show(f"1,000 idle tunnels, {name}", f"{kib} KiB private memory, {files} descriptors more")


def without(cofferdam):
    """What a sandbox costs and has that nobody gave a network."""
    times = {"none": [], "unrestricted": []}
    for _ in range(40):
        for mode, all in times.items():
            start = time.perf_counter()
            made = cofferdam.http("POST", "/v1/sandboxes?wait=30s", {"network": {"mode": mode}})
            all.append((time.perf_counter() - start) * 1000)
            cofferdam.http("DELETE", f"/v1/sandboxes/{made['id']}")
            time.sleep(0.03)
    for mode, all in times.items():
        show(f"create, network {mode}", f"p50 {percentile(all, 0.5):.2f} ms p95 {percentile(all, 0.95):.2f}")
    script = "ls /proc/sys/net/ipv4/conf | tr '\\n' ' '; grep -c ':0C38 ' /proc/net/tcp; env | grep -ci _proxy"
    for mode in times:
        sandbox = cofferdam.create("--net", mode)
        call = [cofferdam.program, "sandbox", "exec", sandbox, "--", "sh", "-c", script]
        has = subprocess.run(call, env=cofferdam.environ, stdout=subprocess.PIPE).stdout.decode().split()
        show(f"inside, network {mode}", f"devices and settings {has[:-2]}, sockets at the proxy's port {has[-2]}, proxy variables {has[-1]}")


def outside():
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    (serving, server), (holding, holder), (relaying, relayed) = listener(), listener(), listener()
    children = [forked(serve, serving), forked(hold, holding), forked(relay, relaying, server)]
    cofferdam = Cofferdam(sys.argv[2])
    try:
        sandbox = cofferdam.create("--net", "unrestricted")
        cofferdam.call("sandbox", "cp", os.path.abspath(__file__), f"{sandbox}:/tmp/network.py")
        latency(cofferdam, sandbox, holder)
        thousand(cofferdam, sandbox, holder)
        idle(cofferdam, sandbox, holder)
        streams(cofferdam, sandbox, rounds, server, relayed)
        without(cofferdam)
    finally:
        cofferdam.end()
        for child in children:
            os.kill(child, 15)


def main():
    if sys.argv[1] == "inside":
        what, port, proxy = sys.argv[2:5]
        print(json.dumps(CALLS[what](int(port), proxy == "proxy")))
    elif sys.argv[1] == "outside":
        outside()
    else:
        setup = f"ip link set lo up; ip address add {ADDRESS}/32 dev lo; exec \"$@\""
        again = [sys.executable, os.path.abspath(__file__), "outside", os.path.abspath(sys.argv[1]), *sys.argv[2:]]
        os.execvp("unshare", ["unshare", "-n", "sh", "-c", setup, "sh", *again])


main()

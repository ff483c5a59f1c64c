# What E2B's clients say about a network: lists when a sandbox is made, and others while it lives. The server was
# started with 127.0.0.1 open, and PORT answers there.
import http.server
import os
import socket
import socketserver
import sys
import threading
import time
import urllib.error
import urllib.request

from e2b import Sandbox

if not hasattr(Sandbox, "update_network"):
    print("this release does not change networks")
    sys.exit(77)

PORT = os.environ["PORT"]
ALL = "0.0.0.0/0"


def refused(call):
    try:
        call()
    except Exception as error:
        return "400" in str(error)
    return False


def status(sandbox, host):
    line = f"unset no_proxy NO_PROXY; curl -s -m 10 -o /dev/null -w '%{{http_code}}' http://{host}:{PORT}/; true"
    return sandbox.commands.run(line).stdout.strip()


def tunnel(sandbox, host):
    line = f"unset no_proxy NO_PROXY; curl -s -p -m 10 -o /dev/null http://{host}:{PORT}/ && echo in"
    try:
        return sandbox.commands.run(line).stdout.strip() == "in"
    except Exception as error:
        return getattr(error, "exit_code", 0) == 0


def echoed(sandbox):
    line = "unset no_proxy NO_PROXY; curl -s -m 10 -H 'x-plain: mine' http://127.0.0.77/"
    return sandbox.commands.run(line).stdout.strip()


class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.headers["x-plain"].encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Proxy(socketserver.StreamRequestHandler):
    """SOCKS5 with a login; what it was told and asked for is in `said`."""

    said = []

    def handle(self):
        read = self.rfile.read
        assert read(3) == b"\x05\x01\x02"
        self.wfile.write(b"\x05\x02")
        assert read(1) == b"\x01"
        user, password = read(read(1)[0]), read(read(1)[0])
        self.wfile.write(b"\x01\x00")
        assert read(4) == b"\x05\x01\x00\x01"
        to = (socket.inet_ntoa(read(4)), int.from_bytes(read(2), "big"))
        Proxy.said.append((user, password, to))
        outside = socket.create_connection(to)
        self.wfile.write(b"\x05\x00\x00\x01" + bytes(6))
        threading.Thread(target=self.carry, args=(outside, self.connection), daemon=True).start()
        self.carry(self.connection, outside)

    @staticmethod
    def carry(one, other):
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)


class Names(socketserver.DatagramRequestHandler):
    """A server of DNS that knows one name: the loopback."""

    def handle(self):
        question = self.rfile.read()
        is_known = question[12:25] == b"\x05asked\x05names\x00"
        is_a = is_known and question[26] == 1
        head = question[:2] + (b"\x81\x80" if is_known else b"\x81\x83") + b"\x00\x01\x00" + bytes([is_a]) + bytes(4)
        answer = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\x7f\x00\x00\x01" if is_a else b""
        self.wfile.write(head + question[12:] + answer)


def served(server):
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"127.0.0.1:{server.server_address[1]}"


SERVE = """
import http.server, ssl
class Say(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "13")
        self.end_headers()
        self.wfile.write(b"spoken in TLS")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 8443), Say)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tmp/c.pem", "/tmp/k.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""

made = []


def create(**options):
    made.append(Sandbox.create(timeout=120, **options))
    return made[-1]


try:
    # Denied but for one; allowed entries count first.
    some = create(network={"deny_out": lambda ctx: [ctx.all_traffic], "allow_out": ["127.0.0.1"]})
    assert status(some, "127.0.0.1") == "200" and tunnel(some, "127.0.0.1")
    assert status(some, "127.0.0.2") == "403" and not tunnel(some, "127.0.0.2")
    info = some.get_info()
    assert info.network["allow_out"] == ["127.0.0.1"], info.network
    assert info.network["deny_out"] == [ALL], info.network

    # Denied in one place only.
    most = create(network={"deny_out": ["127.0.0.1"]})
    assert status(most, "127.0.0.1") == "403"
    assert status(most, "127.0.0.3") == "200"

    # Both lists name it.
    both = create(network={"deny_out": ["127.0.0.0/8"], "allow_out": ["127.0.0.1"]})
    assert status(both, "127.0.0.1") == "200" and status(both, "127.0.0.2") == "403"

    # Names.
    names = create(network={"deny_out": [ALL], "allow_out": ["localhost"]})
    assert status(names, "127.0.0.1") == "403"
    assert status(names, "localhost") == "200"

    # Everything else replaces what there was, at once.
    names.update_network({"deny_out": ["127.0.0.1"]})
    assert status(names, "127.0.0.1") == "403" and status(names, "127.0.0.3") == "200"
    names.update_network({})
    assert status(names, "127.0.0.1") == "200"
    names.update_network({"allow_internet_access": False})
    assert status(names, "127.0.0.1") == "403"

    # One without a network gets one.
    none = create(allow_internet_access=False)
    assert status(none, "127.0.0.1") == "000"
    none.update_network({})
    assert status(none, "127.0.0.1") == "200", status(none, "127.0.0.1")

    # What is no rule, or not known here.
    for wrong in [
        {"deny_out": ["example.com"]},
        {"allow_out": ["example.com"]},
        {"allow_out": ["*.example.com"], "deny_out": ["10.0.0.0/8"]},
        {"rules": {"a.example": [{"transform": {"headers": {"a": "${e2b.secrets.none}"}}}]}},
        {"rules": {"10.0.0.0/8": [{"transform": {"headers": {"a": "b"}}}]}},
        {"egress_proxy": {"address": "a.example", "username": "u", "password": "in clear"}},
        {"egress_proxy": {"address": "a.example:1080", "password": "in clear"}},
        {"dns_servers": ["dns.example"]},
    ]:
        assert refused(lambda: names.update_network(wrong)), wrong
    assert status(names, "127.0.0.1") == "403", "and nothing has changed"

    # Through a proxy, whose password is in the request and in nothing that is answered.
    via = served(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Proxy))
    proxy = {"address": via, "username": "u", "password": "in clear"}
    some.update_network({"egress_proxy": proxy})
    for other in [create(network={"egress_proxy": proxy}), some]:
        Proxy.said.clear()
        assert status(other, "127.0.0.1") == "200", Proxy.said
        assert Proxy.said[-1] == (b"u", b"in clear", ("127.0.0.1", int(PORT))), Proxy.said
        assert "in clear" not in str(other.get_info()), other.get_info()

    # Names by servers of ours.
    names_by = served(socketserver.ThreadingUDPServer(("127.0.0.1", 0), Names))
    known = create(network={"dns_servers": [names_by]})
    assert status(known, "asked.names") == "200", status(known, "asked.names")
    assert status(known, "other.names") == "502", status(known, "other.names")
    known.update_network({})
    assert status(known, "asked.names") == "502"

    # Headers that everybody may see, from the beginning and later; an update without them takes them away.
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.77", 80), Echo)
    except OSError:
        print("skipped: port 80 is not ours to listen at")
    else:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        rules = {"127.0.0.77": [{"transform": {"headers": {"x-plain": "one"}}}]}
        plain = create(network={"rules": rules})
        assert echoed(plain) == "one", echoed(plain)
        assert plain.get_info().network["rules"] == rules, plain.get_info().network
        for other in [plain, none]:
            rules["127.0.0.77"][0]["transform"]["headers"]["x-plain"] = "two"
            other.update_network({"rules": rules})
            assert echoed(other) == "two", echoed(other)
            other.update_network({})
            assert echoed(other) == "mine", echoed(other)

    # A port whose program speaks TLS.
    tls = create(network={"https_ports": [8443]})
    tls.commands.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout /tmp/k.pem "
        "-out /tmp/c.pem -days 2 -subj /CN=localhost 2>&1"
    )
    tls.files.write("/tmp/serve.py", SERVE)
    tls.commands.run("python3 /tmp/serve.py", background=True)
    headers = {"E2b-Sandbox-Id": tls.sandbox_id, "E2b-Sandbox-Port": "8443"}
    page = urllib.request.Request(os.environ["E2B_SANDBOX_URL"] + "/x", headers=headers)
    for left in range(100, -1, -1):
        try:
            assert urllib.request.urlopen(page, timeout=10).read() == b"spoken in TLS"
            break
        except urllib.error.HTTPError:
            assert left, "nobody answers"
            time.sleep(0.1)
    assert tls.get_info().network["https_ports"] == [8443], tls.get_info().network
finally:
    for sandbox in made:
        sandbox.kill()

# What E2B's clients say about a network: lists when a sandbox is made, and others while it lives. The server was
# started with 127.0.0.1 open, and PORT answers there.
import inspect
import os
import sys

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
        {"rules": {"a.example": [{"transform": {"headers": {"a": "b"}}}]}},
    ]:
        assert refused(lambda: names.update_network(wrong)), wrong
    assert status(names, "127.0.0.1") == "403", "and nothing has changed"
finally:
    for sandbox in made:
        sandbox.kill()

# Secrets in rules that come while a sandbox lives. OUTSIDE speaks TLS, shows the field `authorization` that it was sent,
# and the server trusts it.
import os
import sys

from e2b import Sandbox

try:
    from e2b import Secret
except ImportError:
    Secret = None
if Secret is None or not hasattr(Sandbox, "update_network"):
    print("this release does not change networks, or knows no secrets")
    sys.exit(77)

OUTSIDE = os.environ["OUTSIDE"]
ASK = f"unset no_proxy NO_PROXY; curl -s -m 20 https://{OUTSIDE}/ || echo failed $?"


def rules(*names):
    fill = lambda name: {"transform": {"headers": {"authorization": "Bearer " + Secret.fill(name)}}}
    return {"rules": {OUTSIDE: [fill(name) for name in names]}}


def told(sandbox):
    return sandbox.commands.run(ASK).stdout.strip()


Secret.create("one", "value-of-the-first")
Secret.create("two", "value-of-the-second")
sandbox = Sandbox.create(timeout=120)
try:
    # It was made without any, so nobody looks in, and what OUTSIDE shows is believed by nobody.
    assert told(sandbox) == "failed 60", told(sandbox)
    sandbox.update_network(rules("one"))
    assert told(sandbox) == "Bearer [secret one]", told(sandbox)
    sandbox.update_network(rules("two"))
    assert told(sandbox) == "Bearer [secret two]", told(sandbox)
    try:
        sandbox.update_network(rules("three"))
        raise AssertionError("there is no such secret")
    except AssertionError:
        raise
    except Exception as error:
        assert "400" in str(error) and "three" in str(error), error
    assert told(sandbox) == "Bearer [secret two]", told(sandbox)
    sandbox.update_network({})
    assert told(sandbox) == "none", told(sandbox)
    sandbox.update_network(rules("one"))
    assert told(sandbox) == "Bearer [secret one]", told(sandbox)
finally:
    sandbox.kill()

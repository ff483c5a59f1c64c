"""What users of E2B's SDK do with snapshots and forks, in real sandboxes."""

import sys

from e2b import Sandbox, SandboxException

first = Sandbox.create(timeout=120, metadata={"app": "snap"}, envs={"KEPT": "yes"})
first.files.write("/home/user/data/one.txt", "before")
first.commands.run("ln -s one.txt data/link && chmod 700 data && mkdir -p data/deep/er")
counter = first.commands.run("while :; do date +%N > /home/user/beat; sleep 0.02; done", background=True)

try:
    snapshot = first.create_snapshot(name="Day/Env:v1")
except SandboxException as error:
    assert "could not be copied" in str(error) or "while it is copied" in str(error), error
    assert first.files.read("/home/user/data/one.txt") == "before"
    print("snapshots cannot be made here:", error)
    sys.exit(77)

assert snapshot.names == ["day/env:v1"], snapshot
first.files.write("/home/user/data/one.txt", "after")
beat = first.files.read("/home/user/beat")
assert any(first.files.read("/home/user/beat") != beat for _ in range(200)), "it goes on"

for template in (snapshot.snapshot_id, "day/env:v1"):
    second = Sandbox.create(template, timeout=60)
    assert second.files.read("/home/user/data/one.txt") == "before"
    assert second.files.read("/home/user/data/link") == "before"
    shown = second.commands.run("stat -c %a data; echo $KEPT; cat /proc/[0-9]*/comm")
    assert shown.stdout.startswith("700\nyes\n"), shown.stdout
    assert "sleep" not in shown.stdout, "no process is in a snapshot"
    second.files.write("/home/user/data/one.txt", "its own")
third = second.create_snapshot(mode="filesystem")
assert Sandbox.create(third.snapshot_id).files.read("/home/user/data/one.txt") == "its own"
assert first.files.read("/home/user/data/one.txt") == "after"

forks = first.fork(count=3, timeout=60)
assert [fork.files.read("/home/user/data/one.txt") for fork in forks] == ["after"] * 3, forks
assert forks[0].get_info().metadata == {"app": "snap"}

pages = first.list_snapshots()
assert [one.snapshot_id for one in pages.next_items()] == [snapshot.snapshot_id]
everything = Sandbox.list_snapshots(limit=1)
assert everything.next_items()[0].snapshot_id == third.snapshot_id and everything.has_next
assert everything.next_items()[0].names == ["day/env:v1"] and not everything.has_next

try:
    first.create_snapshot(mode="full")
    raise AssertionError("a snapshot has no memory")
except SandboxException as error:
    assert "keeps files" in str(error), error

assert Sandbox.delete_snapshot(snapshot.snapshot_id) is True
assert Sandbox.delete_snapshot(snapshot.snapshot_id) is False
try:
    Sandbox.create(snapshot.snapshot_id)
    raise AssertionError("it is deleted")
except SandboxException as error:
    assert "was not found" in str(error), error
# What stands on it stands.
assert second.files.read("/home/user/data/one.txt") == "its own"
for one in [first, second, *forks]:
    one.kill()

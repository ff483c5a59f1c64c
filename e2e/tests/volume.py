"""What users of E2B's SDK do with volumes, in real sandboxes."""

import asyncio
import io
import os
import sys

from e2b import AsyncVolume, Sandbox, Volume
from e2b.exceptions import AuthenticationException, NotFoundException, SandboxException, VolumeException


def raises(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError("nothing was raised")


try:
    volume = Volume.create("day-one")
except VolumeException as error:
    assert "no node" in str(error), error
    print("volumes cannot be kept here")
    sys.exit(77)
assert volume.token
raises(VolumeException, lambda: Volume.create("day-one"))
raises(VolumeException, lambda: Volume.create("no good"))
assert [one.name for one in Volume.list()] == ["day-one"]
assert Volume.get_info(volume.volume_id).token == volume.token

assert volume.list("/") == []
written = volume.write_file("/a.txt", "hello", uid=1001, gid=1002, mode=0o640)
assert (written.uid, written.gid, written.mode, written.size) == (1001, 1002, 0o640, 5), written
assert volume.read_file("a.txt") == "hello"
raises(VolumeException, lambda: volume.write_file("/a.txt", "other", force=False))
volume.write_file("/a.txt", b"other", force=True)
assert volume.read_file("/a.txt", format="bytes") == b"other"
big = os.urandom(5_000_000)
volume.write_file("/new/way/big", io.BytesIO(big), force=True)
assert b"".join(volume.read_file("/new/way/big", format="stream")) == big
volume.write_file("/empty", "")
assert volume.read_file("/empty") == "" and volume.get_info("/empty").size == 0

volume.make_dir("/d/e", force=True, uid=7, gid=8, mode=0o750)
made = volume.get_info("/d/e")
assert (made.type.value, made.uid, made.gid, made.mode & 0o777) == ("directory", 7, 8, 0o750), made
raises(VolumeException, lambda: volume.make_dir("/d"))
raises(NotFoundException, lambda: volume.make_dir("/not/there"))
volume.make_dir("/d", force=True)
assert [one.path for one in volume.list("/", depth=2)] == ["/a.txt", "/d", "/d/e", "/empty", "/new", "/new/way"]
raises(VolumeException, lambda: volume.list("/", depth=11))
changed = volume.update_metadata("/a.txt", uid=1000, gid=1000, mode=0o600)
assert (changed.uid, changed.gid, changed.mode) == (1000, 1000, 0o600), changed
assert not volume.exists("/nothing")
for call in (
    lambda: volume.read_file("/nothing"),
    lambda: volume.read_file("/d"),
    lambda: volume.list("/a.txt"),
    lambda: volume.remove("/nothing"),
    lambda: volume.update_metadata("/nothing", mode=1),
    lambda: list(volume.read_file("/nothing", format="stream")),
):
    raises(NotFoundException, call)

# In sandboxes, two at a time.
one = Sandbox.create(volume_mounts={"/mnt/data": volume})
two = Sandbox.create(volume_mounts={"/home/user/deep/er": "day-one"})
assert one.get_info().volume_mounts == [{"name": "day-one", "path": "/mnt/data"}]
assert one.files.read("/mnt/data/a.txt") == "other"
one.files.write("/mnt/data/from-one", "one")
assert two.files.read("/home/user/deep/er/from-one") == "one"
assert volume.read_file("/from-one") == "one"
assert two.commands.run("sudo sh -c 'echo root > ~user/deep/er/root'").exit_code == 0
assert (volume.get_info("/root").uid, one.commands.run("stat -c %u /mnt/data/root").stdout) == (0, "0\n")

# What a workload has laid leads nowhere.
two.commands.run(
    "cd deep/er; ln -s /etc/passwd out; ln -s ../../../../etc/shadow up; mkfifo pipe; ln -s /proc/self/root all; ln -s . here"
)
for path in ("/out", "/up", "/pipe", "/all/etc/passwd", "/../../etc/passwd", "/all"):
    raises(NotFoundException, lambda: volume.read_file(path))
assert volume.get_info("/out").target == "/etc/passwd" and volume.get_info("/pipe").type.value == "unknown"
assert volume.read_file("/here/here/from-one") == "one"
volume.remove("/here")
assert volume.exists("/from-one")

# The state of it all.
raises(VolumeException, lambda: Volume.destroy(volume.volume_id))
raises(SandboxException, lambda: Sandbox.create(volume_mounts={"/x": "no-such"}))
raises(SandboxException, lambda: Sandbox.create(volume_mounts={"/proc/x": volume}))
raises(SandboxException, lambda: Sandbox.create(volume_mounts={"/x": volume, "/x/y": volume}))
ids = {item.sandbox_id for item in Sandbox.list().next_items()}
assert ids == {one.sandbox_id, two.sandbox_id}, "no other is to be seen"
one.kill()
two.kill()
again = Volume.connect(volume.volume_id)
assert again.read_file("/from-one") == "one"
other = Volume(volume.volume_id, "day-one", token="0" * 64)
raises(AuthenticationException, lambda: other.list("/"))


async def at_once():
    same = await AsyncVolume.connect(volume.volume_id)
    await asyncio.gather(*(same.write_file(f"/many/{n}", str(n), force=True) for n in range(30)))
    read = await asyncio.gather(*(same.read_file(f"/many/{n}") for n in range(30)))
    assert read == [str(n) for n in range(30)]
    assert len(await same.list("/many")) == 30
    await same.remove("/many")
    assert not await same.exists("/many")


asyncio.run(at_once())
assert Volume.destroy(volume.volume_id) is True
assert Volume.destroy(volume.volume_id) is False
raises(NotFoundException, lambda: Volume.get_info(volume.volume_id))
raises(NotFoundException, lambda: again.read_file("/from-one"))
fresh = Volume.create("day-one")
assert fresh.list("/") == [] and fresh.volume_id != volume.volume_id

"""What users of E2B's SDK do with pauses that keep the files and nothing else, in real sandboxes."""

import sys
import time

from e2b import CommandExitException, Sandbox, SandboxState

BOOT = "/proc/sys/kernel/random/boot_id"


def boot(sandbox):
    inside = sandbox.commands.run(f"cat {BOOT}").stdout.strip()
    assert sandbox.files.read(BOOT).strip() == inside and len(inside) == 36, inside
    return inside


def programs(sandbox):
    # The shell that looks, and what stands ready for the next command.
    return sandbox.commands.run("cat /proc/[0-9]*/comm").stdout.split()


s = Sandbox.create(timeout=120, envs={"KEPT": "yes"})
other = Sandbox.create(timeout=120)
first = boot(s)
with open(BOOT) as machine:
    assert len({first, boot(other), machine.read().strip()}) == 3
s.files.write("/home/user/marker.txt", "persisted")
s.commands.run("echo deep > /tmp/also")
sleeper = s.commands.run("sleep 1000", background=True)

# With its memory it goes on where it was.
s.pause()
assert s.connect().is_running()
assert boot(s) == first and "sleep" in programs(s)

# Without, it begins again with its files.
assert s.pause(mode="filesystem") is True
assert s.pause(mode="filesystem") is False and not s.is_running()
assert s.get_info().state == SandboxState.PAUSED
again = s.connect()
assert again.sandbox_id == s.sandbox_id and again.is_running()
assert again.files.read("/home/user/marker.txt") == "persisted"
assert again.commands.run("cat /tmp/also; echo $KEPT").stdout == "deep\nyes\n"
second = boot(again)
assert second not in (first, boot(other)) and "sleep" not in programs(again)
try:
    sleeper.wait()
    raise AssertionError("it has ended")
except CommandExitException as ended:
    assert ended.exit_code == 137, ended

# A full pause can be brought back without its memory, too.
s.commands.run("sleep 1000", background=True)
s.pause(strict=True)
s.connect(on_resume="reboot")
assert boot(s) not in (first, second) and "sleep" not in programs(s)
assert s.files.read("marker.txt") == "persisted"
third = boot(s)
assert s.connect(on_resume="reboot") and boot(s) == third, "one that runs is not touched"

# At the end of its time.
brief = Sandbox.create(timeout=2, lifecycle={"on_timeout": {"action": "pause", "mode": "filesystem"}})
brief.files.write("brief", "kept")
brief.commands.run("sleep 1000", background=True)
before = boot(brief)
end = time.monotonic() + 30
while brief.get_info().state != SandboxState.PAUSED:
    assert time.monotonic() < end
    time.sleep(0.1)
assert not brief.is_running()
brief.connect(timeout=60)
assert brief.files.read("brief") == "kept" and boot(brief) != before
assert "sleep" not in programs(brief)
for one in (s, other, brief):
    one.kill()
print("all is well", flush=True)
# Not by way of the SDK's own end, in which its transport aborts now and then.
__import__("os")._exit(0)

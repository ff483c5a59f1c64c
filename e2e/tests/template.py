"""What users of E2B's SDK do with templates, in real sandboxes."""

import os
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request

from e2b import BuildException, Sandbox, Template, TemplateException, wait_for_port, wait_for_timeout

context = tempfile.mkdtemp()
os.makedirs(os.path.join(context, "folder/deep"))
with open(os.path.join(context, "folder/test.txt"), "w") as file:
    file.write("a file")
with open(os.path.join(context, "folder/deep/run.sh"), "w") as file:
    file.write("echo ran")
os.chmod(os.path.join(context, "folder/test.txt"), 0o640)
os.symlink("test.txt", os.path.join(context, "folder/near.txt"))
os.symlink("nowhere", os.path.join(context, "folder/dangling.txt"))


def build(template, name, **options):
    lines = []
    options.setdefault("on_build_logs", lambda entry: lines.append(entry.message))
    return Template.build(template, name, **options), "\n".join(lines)


def fails(template, method, *words):
    """A build that fails where this method was called."""
    try:
        build(template, f"fails-{method}")
    except BuildException as error:
        shown = "".join(traceback.format_exception(error))
        assert all(word in str(error) for word in words), str(error)
        if method:
            # The SDK points at the line that asked for what failed. This script has no file to show lines of.
            assert "<string>" in shown or "template.py" in shown, shown
        return str(error)
    raise AssertionError(f"{method} did not fail")


# The first one says whether anything can be saved here.
try:
    build(Template().from_base_image(), "first")
except BuildException as error:
    assert "save" in str(error) or "stop what runs" in str(error), error
    print("templates cannot be built here:", error)
    sys.exit(77)

# Files, commands, variables, a directory, a user; what is started with every sandbox.
def recipe(force):
    return (
        Template(file_context_path=context)
        .from_base_image()
        .copy("folder/*", "folder", force_upload=force)
        .copy("folder/deep/run.sh", "/opt/tool/", user="root", mode=0o755)
        .copy("folder/near.txt", "resolved.txt", resolve_symlinks=True)
        .run_cmd("cat folder/test.txt folder/near.txt && test -L folder/dangling.txt")
        .set_envs({"WORD": 'it\'s "one" thing', "PATH": "${PATH}:/opt/tool"})
        .run_cmd('[[ "$PATH" == *:/opt/tool ]] && run.sh && echo "word: $WORD" && echo warn >&2')
        .set_workdir("/app/inner")
        .run_cmd("pwd && id -un && touch mine")
        .run_cmd("id -u > /etc/who", user="root")
        .make_symlink("/etc/who", "who")
        .set_start_cmd("echo begun >> /app/inner/starts; exec python3 -m http.server 8123", wait_for_port(8123))
    )


began = time.time()
made, log = build(recipe(True), "Day-Env:v1", cpu_count=1, memory_mb=768, skip_cache=True)
print(f"built in {time.time() - began:.2f} s", file=sys.stderr)
for line in [
    "[builder 4/10] [stdout]: a file",
    "[builder 6/10] [stdout]: ran",
    "word: it's \"one\" thing",
    "[builder 6/10] [stderr]: warn",
    "[builder 8/10] [stdout]: /app/inner",
    "[builder 8/10] [stdout]: user",
    "Waiting for template to be ready",
]:
    assert line in log, (line, log)
assert made.tags == ["v1"], made
assert Template.exists("day-env") and Template.exists("base") and not Template.exists("not-there")

for template in ("day-env:v1", f"{made.template_id}:v1"):
    box = Sandbox.create(template, timeout=60, envs={"MORE": "too"})
    shown = box.commands.run('pwd; echo "$WORD $MORE"; run.sh; cat who starts; stat -c "%U %a" /opt/tool/run.sh ~/folder/test.txt')
    expect = '/app/inner\nit\'s "one" thing too\nran\n0\nbegun\nroot 755\nuser 640\n'
    assert shown.stdout == expect, shown.stdout
    assert box.files.read("/home/user/resolved.txt") == "a file"
    assert box.commands.run("curl -s --noproxy '*' localhost:8123/starts").stdout == "begun\n"
    info = box.get_info()
    assert (info.cpu_count, info.memory_mb) == (1, 768), info
    # What it starts is started in those that begin with this one, too.
    if template.startswith("day"):
        fork = box.fork()[0]
        assert fork.commands.run("cat /app/inner/starts").stdout == "begun\nbegun\n"
        fork.kill()
    box.kill()
try:
    Sandbox.create("day-env")
    raise AssertionError("there is no tag `default`")
except Exception as error:
    assert "not found" in str(error), error

# The same again is there already; what comes after that is done.
again, log = build(recipe(None), "day-env:v2", cpu_count=1, memory_mb=768)
assert log.count("CACHED") == 10 and "an earlier build has done all of this" in log, log
longer = Template(file_context_path=context).from_template("day-env:v2").run_cmd("cat /app/inner/who; pwd; echo $WORD")
_, log = build(longer, "longer")
assert "[stdout]: 0" in log and "[stdout]: /app/inner" in log and "it's" in log, log
box = Sandbox.create("longer", timeout=60)
assert box.commands.run("cat starts").stdout == "begun\n", "what the base starts is started here, too"
box.kill()
_, log = build(Template().from_base_image().run_cmd("true").run_cmd("date +%N"), "dates")
_, more = build(Template().from_base_image().run_cmd("true").run_cmd("date +%N").run_cmd("echo new"), "dates")
assert more.count("CACHED") == 2 and "[stdout]: new" in more, more
_, more = build(Template().from_base_image().run_cmd("true").skip_cache().run_cmd("date +%N"), "dates")
assert "CACHED [builder 2/2]" not in more, more

# The root of a sandbox, and its default user.
root = Template().from_dockerfile("FROM e2bdev/base\nWORKDIR /srv\nENV A=1\nRUN id -un\nUSER root\n")
_, log = build(root, "rooted")
assert "[stdout]: root" in log, log
box = Sandbox.create("rooted", timeout=60)
assert box.commands.run("id -un; pwd; echo $A").stdout == "root\n/srv\n1\n"
assert box.commands.run("id -un", user="user").stdout == "user\n"
box.kill()

# What fails says where and why.
base = lambda: Template(file_context_path=context).from_base_image().skip_cache()
fails(Template().from_image("ubuntu:22.04"), "from_image", "ubuntu:22.04", "base")
fails(Template().from_image("base", username="a", password="hidden"), "from_image", "from a registry")
fails(Template().from_template("this-does-not-exist"), "from_template", "was not found")
fails(base().run_cmd("echo ok").run_cmd("exit 3"), "run_cmd", "failed to run command 'exit 3': exit status 3")
no_user = "failed to run command 'whoami': command failed: unauthenticated: invalid username: 'root123'"
fails(base().run_cmd("whoami", user="root123"), "run_cmd", no_user)
fails(base().set_user("; exit 1"), "set_user", "is no name of a user")
fails(base().set_user("root").set_workdir("/etc/passwd"), "set_workdir", "failed to create workdir")
fails(base().make_symlink("a", "/etc/passwd"), "make_symlink", "exit status")
fails(base().remove("/nonexistent"), "remove", "exit status")
fails(base().set_start_cmd("exit 4", wait_for_timeout(2000)), "set_start_cmd", "exit status 4")
fails(base().copy("folder/test.txt", "x", user="nobody-such"), "copy", "failed to copy")
assert not Template.exists("fails-never")

# In the background, watched from outside.
slow = Template.build_in_background(base().run_cmd("sleep 1; echo slept"), "slow")
assert Template.get_build_status(slow).status.value == "building"
entries, offset = [], 0
while True:
    status = Template.get_build_status(slow, logs_offset=offset)
    entries += [entry.message for entry in status.log_entries]
    offset += len(status.log_entries)
    if status.status.value not in ("building", "waiting") and not status.log_entries:
        break
    time.sleep(0.1)
assert status.status.value == "ready" and "[builder 1/1] [stdout]: slept" in entries, entries
many = Template.build_in_background(base().run_cmd("seq 1 250"), "many")
while Template.get_build_status(many).status.value == "building":
    time.sleep(0.1)
pages = [len(Template.get_build_status(many, logs_offset=at).log_entries) for at in (0, 100, 200, 300)]
assert pages[:2] == [100, 100] and 50 <= pages[2] <= 99 and pages[3] == 0, pages

# What a ready command that only waits is for is waited for once, and not with each sandbox.
begun = time.monotonic()
Template.build(base().set_start_cmd("touch /tmp/up; exec sleep 1000", "sleep 4"), "waits")
assert time.monotonic() - begun >= 4
begun = time.monotonic()
box = Sandbox.create("waits", timeout=60)
assert time.monotonic() - begun < 3, "a create waits for what the build has waited for"
assert box.commands.run("cat /tmp/up; pgrep -c sleep").stdout == "1\n"
box.kill()

# Tags.
tagged = Template.assign_tags("day-env:v1", ["Production", "stable"])
assert (sorted(tagged.tags), tagged.build_id) == (["production", "stable"], made.build_id), tagged
assert Template.assign_tags("day-env:stable", "default").tags == ["default"]
box = Sandbox.create("day-env", timeout=60)
assert box.commands.run("run.sh").stdout == "ran\n"
box.kill()
Template.remove_tags("day-env", "production")
tags = {tag.tag: tag.build_id for tag in Template.get_tags("day-env")}
assert tags == {"v1": made.build_id, "v2": again.build_id, "stable": made.build_id, "default": made.build_id}, tags
for wrong in (
    lambda: Template.remove_tags("day-env", "production"),
    lambda: Template.remove_tags("nothing-here", "x"),
    lambda: Template.assign_tags("day-env:v1", ":no-name"),
    lambda: Template.assign_tags("day-env:v1", "day-env:"),
    lambda: Template.assign_tags("day-env:none", "x"),
    lambda: Template.get_tags("nothing-here"),
):
    try:
        wrong()
        raise AssertionError("a tag that cannot be")
    except TemplateException:
        pass

# Nobody sends files without a key or a signature, and a build has no sandbox that anybody sees.
url = f"{os.environ['E2B_API_URL']}/templates/{made.template_id}/files/{'a' * 64}"
for query in ("", "?expires=9999999999&signature=" + "0" * 64):
    try:
        urllib.request.urlopen(urllib.request.Request(url + query, data=b"x", method="PUT"))
        raise AssertionError("files without a key")
    except urllib.error.HTTPError as error:
        assert error.code == 401, error
assert not Sandbox.list().next_items(), "all sandboxes were killed"

# Gone is gone, and what stood on it stays.
box = Sandbox.create("day-env:stable", timeout=60)
assert Sandbox.delete_snapshot(made.template_id)
assert not Template.exists("day-env")
assert box.commands.run("run.sh").stdout == "ran\n"
box.kill()
assert not Sandbox.delete_snapshot(made.template_id)

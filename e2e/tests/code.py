# What a user of E2B's code interpreter does, with the unmodified SDK, in real sandboxes.
import asyncio
import base64
import os
import sys
import threading
import time

from e2b import NotFoundException, SandboxException, TimeoutException
from e2b_code_interpreter import AsyncSandbox, Sandbox


def refused(error, call):
    try:
        call()
    except error as raised:
        return raised
    raise AssertionError(f"{error.__name__} was not raised")


s = Sandbox.create(timeout=120, envs={"GIVEN": "yes"})
run = s.run_code

# Statefulness, results and errors.
first = run("x = 1")
assert first.error is None and first.results == [] and first.execution_count == 1
assert run("x += 1; x").text == "2"
assert run("'text'").text == "text" and run("import os; os.environ['GIVEN']").text == "yes"
failed = run("def f():\n    raise KeyError('k')\nf()")
assert failed.error.name == "KeyError" and failed.error.value == "'k'" and "line 2, in f" in failed.error.traceback
shown = run("class H:\n  def _repr_html_(self): return '<b>1</b>'\n  def _repr_json_(self): return {'a': 1}\ndisplay(H())\nH()")
assert [r.is_main_result for r in shown.results] == [False, True]
assert shown.results[1].html == "<b>1</b>" and shown.results[1].json == {"a": 1}
assert run("import asyncio\nawait asyncio.sleep(0.01)\n3").text == "3"
assert run("!echo from a shell").logs.stdout == ["from a shell\n"]

assert run("\n    right = 1\n    if right:\n        right += 1\n    right\n    ").text == "2"
assert run("\n  %%bash\n  echo from a cell").logs.stdout == ["from a cell\n"]
assert run("from IPython.display import display\ndisplay({'text/latex': r'\\x'}, raw=True)").results[0].formats() == ["latex"]

# Streaming.
seen, times = [], []
streamed = run(
    "import time, sys\nfor i in range(3):\n    print(i)\n    time.sleep(0.2)\nprint('e', file=sys.stderr)\ndisplay(5)\n1/0",
    on_stdout=lambda m: (seen.append(m.line), times.append(time.monotonic())),
    on_stderr=lambda m: seen.append(m.line),
    on_result=lambda r: seen.append(r.text),
    on_error=lambda e: seen.append(e.name),
)
assert seen == ["0\n", "1\n", "2\n", "e\n", "5", "ZeroDivisionError"], seen
assert times[2] - times[0] > 0.3 and streamed.logs.stdout == ["0\n", "1\n", "2\n"]

# Variables of one execution.
assert run("os.environ['ONCE']", envs={"ONCE": "1"}).text == "1"
assert run("os.environ.get('ONCE')").text is None

# Contexts.
made = s.create_code_context(cwd="/tmp")
assert made.cwd == "/tmp" and made.language == "python"
assert run("import os; y = 9; os.getcwd()", context=made).text == "/tmp"
assert run("y").error.name == "NameError" and run("y", context=made).text == "9"
assert made.id in [c.id for c in s.list_code_contexts()]
languages = [c.language for c in s.list_code_contexts()]
assert languages[0] == "python" and s.list_code_contexts()[-1].id == made.id, languages
new = s.create_code_context(language="python", cwd="/home/user/test/deep")
assert run("import os; os.getcwd()", context=new).text == new.cwd == "/home/user/test/deep"
s.remove_code_context(new)
s.restart_code_context(made)
assert run("y", context=made).error.name == "NameError"
s.remove_code_context(made)
refused(NotFoundException, lambda: run("1", context=made))
refused(NotFoundException, lambda: s.remove_code_context("nobody"))
refused(SandboxException, lambda: run("1", language="r"))
refused(SandboxException, lambda: s.create_code_context(cwd="/proc/nowhere"))

# A program inside sees that code can be run.
health = s.commands.run('curl -s -o /dev/null -w "%{http_code}" http://0.0.0.0:49999/health || true').stdout
assert health in ("200", ""), health

# Other languages.
bash = s.create_code_context(language="bash")
run("a=1; cd /tmp", context=bash)
assert run("echo $a $PWD", context=bash).logs.stdout == ["1 /tmp\n"]
assert run("exit_with() { return 3; }; exit_with", language="bash").error.value == "3"
if s.commands.run("command -v node || true").stdout:
    assert run("const n = await Promise.resolve(20); n + 1", language="js").text == "21"
    assert run("console.log(n)", language="javascript").logs.stdout == ["20\n"]

# A time that is over interrupts the code, and the context remembers.
run("kept = 'so'")
refused(TimeoutException, lambda: run("while True: pass", timeout=1))
assert run("kept").text == "so"
assert run("import os; os._exit(5)").error.name == "UnexpectedEndOfExecution"
assert run("1").text == "1"

# A sandbox that is killed meanwhile ends it.
threading.Timer(0.5, s.kill).start()
start = time.monotonic()
refused(Exception, lambda: run("import time; time.sleep(60)"))
assert time.monotonic() - start < 10


async def others():
    async with await AsyncSandbox.create() as one:
        assert (await one.run_code("1 + 1")).text == "2"
        both = [await one.create_code_context(), await one.create_code_context()]
        start = time.monotonic()
        await asyncio.gather(*(one.run_code("import time; time.sleep(0.5)", context=c) for c in both))
        assert time.monotonic() - start < 0.95


asyncio.run(others())

# Charts and tables, where there is a directory with the libraries.
libraries = os.environ.get("COFFERDAM_E2B_LIBRARIES")
if libraries:
    s = Sandbox.create(timeout=300)
    with open(libraries, "rb") as archive:
        s.files.write("/tmp/libraries.tar.gz", archive, request_timeout=120)
    s.commands.run("mkdir /tmp/l && tar xzf /tmp/libraries.tar.gz -C /tmp/l && rm /tmp/libraries.tar.gz", timeout=120)
    run = s.run_code
    run("import sys; sys.path.insert(0, '/tmp/l')")
    line = run("import matplotlib.pyplot as plt\nplt.plot([1, 2, 3], [4, 5, 6], label='l')\nplt.xlabel('Time (s)'); plt.title('T')\nplt.show()")
    assert line.error is None, line.error.traceback
    [drawn] = line.results
    assert base64.b64decode(drawn.png)[:4] == b"\x89PNG"
    chart = drawn.chart
    assert chart.type == "line" and chart.title == "T" and chart.x_unit == "s" and chart.x_scale == "linear"
    assert chart.elements[0].points == [(1, 4), (2, 5), (3, 6)]
    assert run("plt.scatter([1, 2], [3, 4]); None").results[0].chart.type == "scatter"
    bars = run("plt.bar(['a', 'b'], [1, 2]); plt.ylabel('n')").results[-1].chart
    assert [(b.label, b.value) for b in bars.elements] == [("a", 1), ("b", 2)]
    flat = run("plt.barh(['a', 'b'], [1, 2]);").results[-1].chart
    assert [(b.label, b.value) for b in flat.elements] == [("a", 1), ("b", 2)]
    pie = run("plt.pie([1, 3], labels=['x', 'y']);").results[-1].chart
    assert [(w.label, w.angle) for w in pie.elements] == [("x", 90.0), ("y", 270.0)]
    box = run("plt.boxplot([[1, 2, 3, 4, 100]]);").results[-1].chart
    assert box.type == "box_and_whisker" and box.elements[0].median == 3 and box.elements[0].outliers == [100]
    both = run("f, a = plt.subplots(1, 2); a[0].plot([1]); a[1].bar(['q'], [1]); f.suptitle('S');").results[-1].chart
    assert both.type == "superchart" and both.title == "S" and [c.type for c in both.elements] == ["line", "bar"]
    days = run("import datetime as d; plt.plot([d.date(2026, 1, 1), d.date(2026, 1, 3)], [1, 2]);").results[-1].chart
    assert days.x_scale == "datetime" and days.elements[0].points[0][0].startswith("2026-01-01")
    log = run("plt.plot([1, 10], [1, 10]); plt.yscale('log');").results[-1].chart
    assert log.y_scale == "log"
    named = run("plt.plot(['a', 'b'], [1, 2]);").results[-1].chart
    assert named.x_scale == "categorical" and named.elements[0].points[0][0] in ("a", 0), named.elements[0].points
    unknown = run("import numpy as np; plt.imshow(np.zeros((2, 2)));").results[-1].chart
    assert unknown.type == "unknown"
    table = run("import pandas as pd; pd.DataFrame({'a': [1, 2], 'b': [float('nan'), 'x'], 't': pd.to_datetime(['2026-01-01', None])})")
    assert table.error is None, table.error.traceback
    assert table.results[0].data == {"a": [1, 2], "b": [None, "x"], "t": ["2026-01-01T00:00:00", None]}, table.results[0].data
    assert "<table" in table.results[0].html
    s.kill()
print("all is well", flush=True)
# Not by way of the SDK's own end, in which its transport aborts now and then.
__import__("os")._exit(0)

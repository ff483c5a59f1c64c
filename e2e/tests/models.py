# What a client of the Model Context Protocol does, with the official Python SDK: on stdio without a server,
# and over HTTP with one, in the protocol of today and in those before.
import asyncio
import os
import time
import urllib.request

import httpx2
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

HERE, URL, TOKEN = (os.environ[name] for name in ("COFFERDAM", "MCP_URL", "MCP_TOKEN"))
MODES = ("auto", "legacy", "2026-07-28")


def text(result):
    return result.content[0].text


async def refused(client, code, name, arguments):
    result = await client.call_tool(name, arguments)
    assert result.is_error and text(result).startswith(f"error {code}: "), text(result)
    assert "\nnext: " in text(result)


async def day(client, here):
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert len(tools) == 14 and tools["file_read"].annotations.read_only_hint, tools.keys()
    assert tools["sandbox_destroy"].annotations.destructive_hint and tools["run"].output_schema

    async def call(name, /, **arguments):
        result = await client.call_tool(name, arguments)
        assert not result.is_error, text(result)
        return result.structured_content

    # One command, with files in and out; a large output goes on by a cursor.
    done = await call(
        "run",
        command="cat in.txt; seq 1 30000 > long.txt; cat long.txt; echo no >&2; exit 3",
        files=[{"path": "in.txt", "content": "from outside\n"}],
        artifacts=["long.txt", "none.txt"],
    )
    assert (done["status"], done["exit_code"], done["stderr"]["text"]) == ("failed", 3, "no\n"), done
    assert done["stdout"]["text"].startswith("from outside\n1\n") and done["stdout"]["text"].endswith("30000\n")
    assert done["artifacts"][0]["size_bytes"] == 168894 and "none.txt" in done["note"], done
    whole, cursor = "", done["stdout"]["cursor"]
    while cursor:
        page = await call("output_read", cursor=cursor)
        whole, cursor = whole + page["text"], page.get("cursor")
    assert whole.endswith("29999\n30000\n") and len(whole) == 168894 + 13 - 8192, len(whole)
    part = await call("artifact_read", job_id=done["job_id"], path="long.txt", offset=168888)
    assert part["text"] == "30000\n" and "next_offset" not in part, part
    await refused(client, "not_found", "artifact_read", {"job_id": done["job_id"], "path": "x"})

    # A sandbox: commands, steps that remember, files, a port.
    made = await call("sandbox_create", name="day", ttl_s=300)
    box = made["sandbox_id"]
    assert made["state"] == "ready" and 290 < made["expires_in_s"] <= 300 and not made["internet"]
    listed = await call("sandbox_list")
    assert box in [one["sandbox_id"] for one in listed["sandboxes"]]
    done = await call("sandbox_exec", sandbox_id=box, command="cat; pwd", stdin="in", cwd="/tmp", env={"A": "b"})
    assert done["stdout"]["text"] == "in/tmp\n" and done["exit_code"] == 0, done
    done = await call("sandbox_exec", sandbox_id=box, command="seq 1 30000")
    page = await call("output_read", cursor=done["stdout"]["cursor"])
    assert len(page["text"]) > 16000 and page["cursor"], page
    done = await call("sandbox_exec", sandbox_id=box, command="sleep 60", timeout_s=1)
    assert (done["status"], done["exit_code"]) == ("timed_out", 124) and "timeout_s" in done["note"]
    await call("sandbox_step", sandbox_id=box, language="python", code="x = 41")
    step = await client.call_tool("sandbox_step", {"sandbox_id": box, "language": "python", "code": "x + 1"})
    assert step.structured_content["results"] == [{"text": "42"}], step
    step = await call("sandbox_step", sandbox_id=box, language="python", code="while True: pass", timeout_s=1)
    assert step["status"] == "timed_out"
    step = await call("sandbox_step", sandbox_id=box, language="python", code="print(x)\n1/0")
    assert step["stdout"]["text"] == "41\n" and step["error"]["name"] == "ZeroDivisionError", step
    step = await call("sandbox_step", sandbox_id=box, language="bash", code="cd /tmp")
    step = await call("sandbox_step", sandbox_id=box, language="bash", code="pwd")
    assert step["stdout"]["text"] == "/tmp\n", step
    other = await call("sandbox_step", sandbox_id=box, language="python", code="x = 0", new_context=True)
    again = {"sandbox_id": box, "language": "python", "code": "x", "context_id": other["context_id"]}
    assert (await call("sandbox_step", **again))["results"] == [{"text": "0"}]
    shown = "from base64 import b64encode\nclass I:\n  def _repr_png_(self): return b64encode(b'png').decode()\nI()"
    step = await client.call_tool("sandbox_step", {"sandbox_id": box, "language": "python", "code": shown})
    assert (step.content[1].type, step.content[1].mime_type) == ("image", "image/png"), step

    await call("file_write", sandbox_id=box, path="d/\u00e4.txt", content="\u00e4" * 10000)
    part = await call("file_read", sandbox_id=box, path="d/\u00e4.txt")
    rest = await call("file_read", sandbox_id=box, path="d/\u00e4.txt", offset=part["next_offset"])
    assert part["text"] + rest["text"] == "\u00e4" * 10000
    await call("file_write", sandbox_id=box, path="b", content="/w==", encoding="base64")
    assert (await call("file_read", sandbox_id=box, path="b"))["base64"] == "/w=="
    listed = await call("file_list", sandbox_id=box, depth=2)
    assert "/home/user/d/\u00e4.txt" in [entry["path"] for entry in listed["entries"]], listed

    serve = "python3 -m http.server 8000 > log 2>&1"
    left = await call("sandbox_exec", sandbox_id=box, command=serve, background=True)
    assert left["status"] == "running" and left["pid"] > 0
    for _ in range(200):
        found = await client.call_tool("port", {"sandbox_id": box, "port": 8000})
        if not found.is_error:
            break
        await asyncio.sleep(0.05)
    url = found.structured_content["url"]
    if here:
        listing = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=10).read())
    else:
        # Not every resolver knows names below localhost.
        name = url.removeprefix("http://")
        ask = urllib.request.Request(URL.removesuffix("/mcp") + "/", headers={"Host": name})
        listing = await asyncio.to_thread(lambda: urllib.request.urlopen(ask, timeout=10).read())
    assert b"d/" in listing, listing
    await refused(client, "port_closed", "port", {"sandbox_id": box, "port": 8001})

    # A call that is not wanted any more ends what it ran.
    began = time.monotonic()
    try:
        await client.call_tool("sandbox_exec", {"sandbox_id": box, "command": "exec sleep 54321"}, 1)
        raise AssertionError("it took no time")
    except Exception as error:
        assert "sleep" not in str(error)
    assert time.monotonic() - began < 20
    for _ in range(200):
        done = await call("sandbox_exec", sandbox_id=box, command="cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        if "sleep 54321" not in done["stdout"]["text"]:
            break
        await asyncio.sleep(0.05)
    else:
        raise AssertionError("what was canceled goes on")

    # News of what takes long, for those who want it.
    news = []

    async def heard(progress, total, message):
        news.append((progress, message))

    await client.call_tool("sandbox_exec", {"sandbox_id": box, "command": "sleep 6"}, progress_callback=heard)
    assert news and "running for 5 s" in news[0][1], news

    # What is wrong is told, and ends nothing.
    await refused(client, "invalid_argument", "run", {"command": "true", "no_such": 1})
    await refused(client, "invalid_argument", "run", {"command": 1})
    await refused(client, "invalid_argument", "run", {"command": "true", "timeout_s": 0})
    await refused(client, "limit_beyond_machine", "run", {"command": "true", "limits": {"memory_mib": 2**24}})
    await refused(client, "not_found", "sandbox_exec", {"sandbox_id": "../../jobs", "command": "true"})
    await refused(client, "not_found", "sandbox_exec", {"sandbox_id": "sbx_" + "0" * 32, "command": "true"})
    await refused(client, "not_found", "output_read", {"cursor": "out_" + "0" * 32 + ":0"})
    await refused(client, "not_found", "output_read", {"cursor": "job_" + "0" * 32 + ":stdout:0"})
    await refused(client, "guest_refused", "file_read", {"sandbox_id": box, "path": "../../etc/shadow"})
    await refused(client, "guest_refused", "file_read", {"sandbox_id": box, "path": "/no/such"})
    try:
        await client.call_tool("no_such", {})
        raise AssertionError("there is no such tool")
    except Exception as error:
        assert "no such tool" in str(error), error

    longer = await call("sandbox_extend", sandbox_id=box, ttl_s=600)
    assert longer["expires_in_s"] > 500
    await call("sandbox_destroy", sandbox_id=box)
    await refused(client, "sandbox_gone", "sandbox_exec", {"sandbox_id": box, "command": "true"})


async def on_stdio(mode, state):
    server = StdioServerParameters(command=HERE, args=["mcp", "--state", os.environ[state]])
    async with Client(server, mode=mode) as client:
        assert mode == "2026-07-28" or client.server_info.name == "cofferdam"
        await day(client, True)


async def over_http(mode):
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
        async with Client(streamable_http_client(URL, http_client=http), mode=mode) as client:
            await day(client, False)
        asked = await http.post(URL, json={}, headers=headers | {"Origin": "http://evil.example"})
        assert asked.status_code == 403, asked


async def main():
    # All side by side, as on a machine with many clients: those without a server, those that find one, and
    # those that are told its address.
    days = [on_stdio(mode, state) for mode in MODES for state in ("MCP_STATE", "MCP_STATE_OF_UP")]
    await asyncio.gather(*days, *(over_http(mode) for mode in MODES))
    print("all is well")


asyncio.run(main())

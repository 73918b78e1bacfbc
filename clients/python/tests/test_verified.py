"""`verified()` is the credential of the request at hand, or an error: never another caller's."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import subprocess
import sys
from types import SimpleNamespace

import httpx
import pytest
from world import AUDIENCE, free_port, spiffe_id

from mayfly.asgi import MayflyMiddleware, verified

HERE = pathlib.Path(__file__).resolve().parent
MCP1 = HERE.parent / ".venv/mcp1"


def guarded(app):
    """The application behind the middleware; the token is who shows it."""
    verifier = SimpleNamespace(audience="https://a.example", issuer="https://i.example")
    verifier.check = lambda token, **_: SimpleNamespace(credential_id=token.reveal())
    transport = httpx.ASGITransport(MayflyMiddleware(app, verifier))
    return httpx.AsyncClient(transport=transport, base_url="https://a.example")


def as_(who):
    return {"authorization": f"Bearer {who}"}


async def answer(send, text, headers=()):
    await send({"type": "http.response.start", "status": 200, "headers": [*headers]})
    await send({"type": "http.response.body", "body": text.encode()})


async def test_each_request_has_its_own_and_so_have_the_tasks_that_it_starts():
    async def app(scope, receive, send):
        async def child():
            await asyncio.sleep(0.01)
            return verified().credential_id

        async with asyncio.TaskGroup() as tasks:
            found = tasks.create_task(child())
            other = tasks.create_task(asyncio.to_thread(lambda: verified().credential_id))
        await answer(send, f"{found.result()} {other.result()} {scope['mayfly'].credential_id}")

    async with guarded(app) as http:
        answers = await asyncio.gather(*(http.get("/", headers=as_(f"c{n}")) for n in range(20)))
        assert [a.text for a in answers] == [f"c{n} c{n} c{n}" for n in range(20)]
    with pytest.raises(LookupError):
        verified()


async def test_a_task_that_outlives_its_request_has_none():
    kept = []

    async def app(scope, receive, send):
        async def later():
            await asyncio.sleep(0.1)
            return verified()

        kept.append(asyncio.create_task(later()))
        await answer(send, "")

    async with guarded(app) as http:
        await http.get("/", headers=as_("a"))
    with pytest.raises(LookupError, match="over"):
        await kept[0]


@pytest.mark.parametrize("ended", [True, False])
async def test_a_task_that_serves_a_session_has_none_of_the_caller_who_began_it(ended):
    """As the first major version of the MCP SDK does it: all calls of a session are handled in the context of its first."""
    calls: asyncio.Queue = asyncio.Queue()
    done = asyncio.Event()
    tasks = []

    async def session():
        while True:
            told = await calls.get()
            try:
                told.set_result(verified().credential_id)
            except LookupError as none:
                told.set_result(f"none: {none}")

    async def app(scope, receive, send):
        if scope["path"] == "/begin":
            tasks.append(asyncio.create_task(session()))
            await send({"type": "http.response.start", "status": 200, "headers": [(b"mcp-session-id", b"s")]})
            if not ended:
                # It streams on, as a session's first answer may.
                await done.wait()
            await send({"type": "http.response.body", "body": b""})
            return
        told = asyncio.get_running_loop().create_future()
        await calls.put(told)
        await answer(send, await told, [(b"mcp-session-id", b"s")])

    async with guarded(app) as http:
        first = asyncio.create_task(http.get("/begin", headers=as_("a")))
        await asyncio.sleep(0.1)
        second = await http.get("/call", headers=as_("b") | {"mcp-session-id": "s"})
        done.set()
        await first
        tasks[0].cancel()
    assert second.text.startswith("none: "), second.text


def told(response):
    """The result in an answer of MCP over HTTP, which may be an event stream."""
    data = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: {")]
    return json.loads(data[-1] if data else response.text)


async def test_a_tool_in_a_session_of_the_first_major_version_of_the_sdk_has_its_callers(world, mayfly, tmp_path):
    port = free_port()
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAYFLY_")} | world.svid("mcp/echo", at=tmp_path / "mcp1")
    env |= {"ISSUER": world.issuer, "AUDIENCE": AUDIENCE, "PYTHONPATH": str(MCP1)}
    child = subprocess.Popen([sys.executable, str(HERE / "mcp1_server.py"), str(port)], env=env)
    accept = {"accept": "application/json, text/event-stream"}
    try:
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=accept, timeout=20) as http,
            mayfly.task("two of them", upstreams={"echo": "echo:read"}, callers=[spiffe_id("mcp/echo")]) as task,
            task.credential("echo", scope="echo:read", purpose="the first") as one,
            task.credential("echo", scope="echo:read", purpose="the second") as two,
        ):

            async def say(cred, session, method, params, number=None):
                body = {"jsonrpc": "2.0", "method": method, "params": params} | ({} if number is None else {"id": number})
                return await http.post("/mcp", json=body, headers={**cred.headers, **session})

            async with asyncio.timeout(30):
                while True:
                    try:
                        if (await http.get("/mcp")).status_code == 401:
                            break
                    except httpx.TransportError:
                        assert child.poll() is None
                    await asyncio.sleep(0.1)
            hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
            begun = await say(one, {}, "initialize", hello, 1)
            assert begun.status_code == 200, begun.text
            session = {"mcp-session-id": begun.headers["mcp-session-id"]}
            await say(one, session, "notifications/initialized", {})
            assert one.credential_id != two.credential_id
            for number, (cred, tool) in enumerate([(two, "who"), (one, "who"), (two, "who_in_a_thread"), (two, "who")], 2):
                result = told(await say(cred, session, "tools/call", {"name": tool, "arguments": {}}, number))
                assert result["result"]["content"][0]["text"] == cred.credential_id, result
            # Not what the call says of itself: the credential that it came with.
            params = {"name": "where", "arguments": {}, "_meta": {"mayfly/task": "task_" + "a" * 26}}
            result = told(await say(two, session, "tools/call", params, 9))
            assert result["result"]["content"][0]["text"] == task.id, result
    finally:
        child.terminate()
        child.wait(10)

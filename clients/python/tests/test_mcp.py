"""A real MCP client, a server on the official SDK, a real mayfly, and an upstream that verifies: each a process of its own."""

from __future__ import annotations

import asyncio
import os
import pathlib
import subprocess
import sys
from types import SimpleNamespace

import httpx
import pytest
from mcp import Client, StdioServerParameters, stdio_client
from world import World, spiffe_id

import mayfly as m
from mayfly import Mayfly
from mayfly.mcp import META, OWN_CLAIMS, task_of

EXAMPLES = pathlib.Path(__file__).resolve().parents[1] / "examples"


def environment(more):
    return {k: v for k, v in os.environ.items() if not k.startswith("MAYFLY_")} | more


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """One of this module's own: a follower that left is waited for by `revoke --wait` until its feed is too old."""
    world = World(tmp_path_factory.mktemp("mcp"))
    yield world
    world.stop()


@pytest.fixture(scope="module")
def service(world):
    """examples/echo_upstream.py, verifying as service/echo."""
    env = environment(world.svid("service/echo", at=world.home / "service") | {"ECHO_ISSUER": world.issuer})
    command = [sys.executable, "-m", "uvicorn", "echo_upstream:app", "--port", str(world.echo_port), "--log-level", "warning"]
    with open(world.home / "upstream.log", "wb") as log:
        child = subprocess.Popen(command, cwd=EXAMPLES, env=env, stdout=log, stderr=log)
    yield child
    child.terminate()
    child.wait(10)


@pytest.fixture
async def upstream(world, service):
    """A client of that upstream, once it is ready."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{world.echo_port}", timeout=10) as http:
        async with asyncio.timeout(20):
            while True:
                try:
                    if (await http.get("/healthz")).status_code == 200:
                        break
                except httpx.TransportError:
                    assert service.poll() is None, (world.home / "upstream.log").read_text()
                await asyncio.sleep(0.1)
        yield http


def server(world, folder):
    """examples/mcp_server.py on stdio, as mcp/echo."""
    env = environment(world.svid("mcp/echo", at=folder))
    return stdio_client(StdioServerParameters(command=sys.executable, args=["mcp_server.py"], env=env, cwd=EXAMPLES))


def agents_task(mayfly):
    return mayfly.task(
        "look something up", upstreams={"echo": "echo:read"}, tools=["search", "read_all"], callers=[spiffe_id("mcp/echo")]
    )


async def test_a_tool_call_works_in_the_agents_task_and_in_one_of_its_own(world, mayfly, upstream, tmp_path):
    since = world.head()
    async with Client(server(world, tmp_path / "mcp")) as client, agents_task(mayfly) as task:
        result = await client.call_tool("search", {"query": "moths"}, meta={META: task.id})
        assert not result.is_error and "nothing like moths" in result.content[0].text
        result = await client.call_tool("search", {"query": "bees"})
        assert not result.is_error
        issued = world.audit("credential issued", since)
        assert [r["body"]["task"] == task.id for r in issued] == [True, False]
        assert {r["author"]["spiffe_id"] for r in issued} == {spiffe_id("mcp/echo")}
        assert all(r["body"]["tool"] == "search" for r in issued)


async def test_one_credential_is_renewed_while_svids_rotate_and_refused_right_after_its_revocation(
    world, mayfly, upstream, tmp_path
):
    since = world.head()
    async with Client(server(world, tmp_path / "mcp")) as client, agents_task(mayfly) as task:

        async def read(pages):
            return await client.call_tool("read_all", {"pages": pages, "ttl": 3}, meta={META: task.id})

        async def rotate():
            for _ in range(3):
                await asyncio.sleep(0.8)
                await asyncio.to_thread(world.svid, "service/echo", at=world.home / "service")
                for name, folder in (("mcp/echo", "mcp"), ("agent/demo", "svid")):
                    await asyncio.to_thread(world.svid, name, at=tmp_path / folder)

        result, _ = await asyncio.gather(read(60), rotate())
        assert not result.is_error, result.content
        records = await asyncio.to_thread(world.audit, "credential issued", since)
        mine = [r["body"] for r in records if r["body"].get("tool") == "read_all"]
        assert len(mine) >= 2 and all(r["task"] == task.id for r in mine), "it was renewed on the way"

        # The agent's own credential goes straight to the upstream, beside the server's.
        async with task.credential("echo", scope="echo:read", purpose="beside") as cred:
            reading = asyncio.create_task(read(100_000))
            await asyncio.sleep(0.5)
            assert (await upstream.get("/pages/1", headers=cred.headers)).status_code == 200
            await asyncio.to_thread(world.revoke, "--task", task.id)
            refused = await upstream.get("/pages/1", headers=cred.headers)
            assert refused.status_code == 401 and refused.json()["reason"] == "revoked"
            assert 'error="invalid_token"' in refused.headers["www-authenticate"]
        result = await asyncio.wait_for(reading, 5)
        assert result.is_error and "401" in result.content[0].text


async def test_the_middleware_asks_for_what_it_should(world, mayfly, upstream):
    metadata = "https://echo.dev.mayfly.internal/.well-known/oauth-protected-resource"
    answer = await upstream.get("/pages/1")
    assert answer.status_code == 401 and answer.headers["www-authenticate"] == f'Bearer resource_metadata="{metadata}"'
    described = (await upstream.get("/.well-known/oauth-protected-resource")).json()
    assert described == {
        "resource": "https://echo.dev.mayfly.internal",
        "authorization_servers": [world.issuer],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["echo:read", "echo:write"],
    }
    async with mayfly.credential("echo", scope="echo:read", tool="search", arguments={"query": "a"}, purpose="p") as cred:
        assert (await upstream.get("/search", params={"query": "a"}, headers=cred.headers)).status_code == 200
        other = await upstream.get("/search", params={"query": "b"}, headers=cred.headers)
        assert other.status_code == 403 and other.json()["reason"] == "arguments"
        lacking = await upstream.post("/items", headers=cred.headers)
        assert lacking.status_code == 403
        challenge = lacking.headers["www-authenticate"]
        assert 'error="insufficient_scope"' in challenge and 'scope="echo:write"' in challenge and metadata in challenge
        headers = dict(cred.headers)
        token = cred.token.reveal()
    async with asyncio.timeout(5):
        # The task that the call opened has ended: its end reaches the upstream by the feed.
        while (await upstream.get("/search", params={"query": "a"}, headers=headers)).status_code != 401:
            await asyncio.sleep(0.05)
    for bad in ("Basic eDp5", "Bearer", "Bearer x", f"Bearer {token}x", f"Bearer {token} {token}"):
        answer = await upstream.get("/pages/1", headers={"authorization": bad})
        assert answer.status_code == 401 and 'error="invalid_token"' in answer.headers["www-authenticate"], bad
    twice = [("authorization", f"Bearer {token}"), ("authorization", f"Bearer {token}")]
    assert (await upstream.get("/pages/1", headers=twice)).status_code == 401


async def test_an_agent_is_told_why_its_tool_got_no_credential(world, mayfly, upstream, tmp_path):
    async with Client(server(world, tmp_path / "mcp")) as client:
        async with mayfly.task("reads nothing", upstreams={"echo": "echo:write"}, callers=[spiffe_id("mcp/echo")]) as task:
            result = await client.call_tool("search", {"query": "moths"}, meta={META: task.id})
        assert result.is_error and "OUTSIDE_TASK" in result.content[0].text, result.content


NAMED, OTHER = "task_" + "a" * 26, "task_" + "b" * 26


def call(meta=None, scope=None):
    """A tool call's context, as the SDK gives it."""
    request = None if scope is None else SimpleNamespace(scope=scope)
    return SimpleNamespace(request_context=SimpleNamespace(meta=meta, request=request))


async def test_what_names_no_task_is_refused_and_never_taken_for_none(mayfly):
    assert task_of(call({META: NAMED})) == NAMED
    # As the first major version of the SDK gives it.
    assert task_of(call(SimpleNamespace(model_extra={META: NAMED}))) == NAMED
    assert task_of(call({META: NAMED}).request_context) == NAMED, "the request's context itself, as lower layers have it"
    for other in ({}, None, SimpleNamespace(model_extra=None), SimpleNamespace(model_extra={})):
        assert task_of(call(other)) is None
    for bad in ("task_x", "", 7, None, True, NAMED + "\n", NAMED.upper(), [NAMED], {"id": NAMED}, " " + NAMED):
        for meta in ({META: bad}, SimpleNamespace(model_extra={META: bad})):
            with pytest.raises(m.InvalidRequest, match="mayfly/task"):
                mayfly.task_of(call(meta))
    assert task_of(None) is None and mayfly.task_of(None) is None
    with pytest.raises(TypeError, match="Context"):
        mayfly.task_of("not a context")


async def test_where_a_token_came_meta_names_no_task(mayfly):
    meta = {META: NAMED}
    claims = {OWN_CLAIMS: {"tasks": [{"id": "task_" + "c" * 26}, {"id": OTHER}]}}
    token = lambda claims: {"user": SimpleNamespace(access_token=SimpleNamespace(claims=claims))}  # noqa: E731
    assert task_of(call(meta, token(claims))) == OTHER
    assert task_of(call(meta, {"mayfly": SimpleNamespace(task_id=OTHER)})) == OTHER
    # Of another issuer, without a task, verified by nobody.
    headers = [(b"Authorization", b"Bearer x")]
    for scope in (
        token({"iss": "https://other.example"}), token({}), token(None), token({OWN_CLAIMS: {}}),
        token({OWN_CLAIMS: {"tasks": []}}),
        {"mayfly": SimpleNamespace(task_id="")}, {"headers": headers},
    ):  # fmt: skip
        assert mayfly.task_of(call(meta, scope)) is None, scope
        with pytest.raises(m.InvalidRequest, match="belongs to no task"):
            mayfly.task_of(call(meta, scope), require_task=True)
    for bad in ({"tasks": [{"id": "x"}]}, {"tasks": [{}]}, {"tasks": ["x"]}, {"tasks": "x"}, {"tasks": None}, "x", 7):
        with pytest.raises(m.InvalidRequest):
            mayfly.task_of(call(meta, token({OWN_CLAIMS: bad})))
    # No token: as before.
    assert task_of(call(meta, {"headers": [(b"accept", b"*/*")]})) == NAMED


async def test_a_server_can_require_a_task_of_every_call(world, tmp_path):
    env = world.svid("mcp/echo", at=tmp_path)
    async with Mayfly.from_env(env) as mayfly:
        assert mayfly.task_of(call({META: NAMED}), require_task=True) == NAMED
        with pytest.raises(m.InvalidRequest, match="belongs to no task"):
            mayfly.task_of(call(), require_task=True)
        with pytest.raises(m.InvalidRequest, match="belongs to no task"):
            async with mayfly.credential("echo", scope="echo:read", purpose="p", require_task=True):
                pass
        with pytest.raises(m.InvalidRequest, match="task: is empty"):
            async with mayfly.credential("echo", scope="echo:read", purpose="p", task=""):
                pass
        assert mayfly._leases.exchanges == 0
    async with Mayfly.from_env(env, require_task=True) as mayfly:
        with pytest.raises(m.InvalidRequest, match="belongs to no task"):
            mayfly.task_of(call())
        with pytest.raises(m.InvalidRequest, match="belongs to no task"):
            async with mayfly.credential("echo", scope="echo:read", purpose="p"):
                pass
        async with mayfly.task("its own", upstreams={"echo": "echo:read"}) as task, task.credential("echo", scope="echo:read"):
            pass
    assert Mayfly.from_env(env | {"MAYFLY_TASK": OTHER}, require_task=True).task_of(call()) == OTHER


def test_the_task_of_a_server_on_stdio_comes_from_the_environment(world):
    env = world.svid("mcp/echo") | {"MAYFLY_TASK": "task_" + "a" * 26}
    assert Mayfly.from_env(env).task_of(None) == "task_" + "a" * 26


async def test_a_server_that_may_not_act_in_a_task_is_refused(world, mayfly, mayfly_echo):
    async with mayfly.task("mine alone", upstreams={"echo": "echo:read"}) as task:
        with pytest.raises(m.MayflyError) as no:
            async with mayfly_echo.credential("echo", scope="echo:read", task=task.id):
                pass
        assert no.value.reason in ("NOT_YOURS", "NOT_FOUND")

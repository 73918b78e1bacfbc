"""HTTP sessions that outlast a credential: `httpx.Auth` that renews, and tries again once after a 401."""

from __future__ import annotations

import asyncio
import contextlib

import httpx
import httpx2
import pytest
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from test_mcp_http import by_the_middleware, serving
from world import AUDIENCE, spiffe_id

import mayfly as m
from mayfly.verify import Verifier


@contextlib.asynccontextmanager
async def upstream(world, answers=()):
    """Where the echo upstream's credentials go; what it was shown. Its first answers are those given, then 200."""
    shown, left = [], list(answers)

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        body = b""
        while (message := await receive()).get("more_body"):
            body += message["body"]
        shown.append((dict(scope["headers"]).get(b"authorization", b"").decode(), body + message["body"]))
        await send({"type": "http.response.start", "status": left.pop(0) if left else 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    config = uvicorn.Config(app, port=world.echo_port, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.02)
    try:
        yield shown
    finally:
        server.should_exit = True
        await task


@pytest.mark.parametrize("kit", [httpx, httpx2])
async def test_requests_carry_a_credential_that_is_renewed_before_it_ends(world, mayfly, kit):
    url = f"http://127.0.0.1:{world.echo_port}/x"
    async with upstream(world) as shown, mayfly.task("session", upstreams={"echo": "echo:read"}) as task:
        async with task.auth("echo", scope="echo:read", ttl=2) as auth, kit.AsyncClient(auth=auth) as http:
            assert "eyJ" not in repr(auth)
            for _ in range(8):
                assert (await http.get(url)).status_code == 200
                await asyncio.sleep(0.6)
        tokens = list(dict.fromkeys(token for token, _ in shown))
        assert len(shown) == 8 and 3 <= len(tokens) < 8 and all(t.startswith("Bearer eyJ") for t in tokens)


async def test_a_401_is_answered_with_another_credential_once(world, mayfly):
    url = f"http://127.0.0.1:{world.echo_port}/x"
    async with upstream(world, [401]) as shown:
        async with mayfly.auth("echo", scope="echo:read", purpose="session") as auth, httpx.AsyncClient(auth=auth) as http:

            async def body():
                yield b"once "
                yield b"more"

            assert (await http.post(url, content=body())).status_code == 200
    assert [sent for _, sent in shown] == [b"once more"] * 2
    assert shown[0][0] != shown[1][0]
    async with upstream(world, [401, 401, 401]) as shown:
        async with mayfly.auth("echo", scope="echo:read", purpose="session") as auth, httpx.AsyncClient(auth=auth) as http:
            assert (await http.get(url)).status_code == 401
    assert len(shown) == 2, "once"


async def test_many_requests_that_are_refused_at_once_get_one_other_credential(world, mayfly):
    url = f"http://127.0.0.1:{world.echo_port}/x"
    async with upstream(world, [401] * 10) as shown:
        async with mayfly.auth("echo", scope="echo:read", purpose="session") as auth, httpx.AsyncClient(auth=auth) as http:
            answers = await asyncio.gather(*(http.get(url) for _ in range(10)))
    assert {a.status_code for a in answers} == {200} and len({token for token, _ in shown}) == 2


async def test_a_credential_goes_to_its_upstream_alone(world, mayfly):
    async with mayfly.auth("echo", scope="echo:read", purpose="session") as auth, httpx.AsyncClient(auth=auth) as http:
        for other in ("http://127.0.0.1:1/", "http://localhost:9/", f"https://127.0.0.1:{world.echo_port}/"):
            with pytest.raises(m.InvalidRequest, match="goes to another place"):
                await http.get(other)
    with pytest.raises(m.InvalidRequest, match="one call"):
        async with mayfly.auth("echo", scope="echo:read", purpose="session", arguments={}):
            pass
    with pytest.raises(RuntimeError, match="AsyncClient"):
        httpx.Client(auth=auth).get("http://127.0.0.1:1/")


async def test_a_session_whose_task_is_over_says_why(world, mayfly):
    url = f"http://127.0.0.1:{world.echo_port}/x"
    async with upstream(world) as shown, mayfly.task("session", upstreams={"echo": "echo:read"}) as task:
        async with task.auth("echo", scope="echo:read", ttl=2) as auth, httpx.AsyncClient(auth=auth) as http:
            assert (await http.get(url)).status_code == 200
            await asyncio.to_thread(world.revoke, "--task", task.id)
            await asyncio.sleep(2)
            with pytest.raises((m.Denied, m.NotActive)):
                await http.get(url)
    assert len(shown) == 1


async def test_an_mcp_session_lives_longer_than_its_credential(world, mayfly, mayfly_echo):
    verifier = Verifier(mayfly_echo, issuer=world.issuer, audience=AUDIENCE, upstreams=["echo"], follower="mcp-session")
    async with verifier, serving(by_the_middleware(mayfly_echo, verifier)) as url:
        terms = {"upstreams": {"echo": "echo:read"}, "callers": [spiffe_id("mcp/echo")]}
        async with mayfly.task("a session", **terms) as task, task.auth("echo", scope="echo:read", ttl=2, url=url) as auth:
            async with httpx2.AsyncClient(auth=auth) as http, Client(streamable_http_client(url, http_client=http)) as client:
                for _ in range(5):
                    result = await client.call_tool("where", {})
                    assert result.content[0].text == task.id
                    await asyncio.sleep(1)

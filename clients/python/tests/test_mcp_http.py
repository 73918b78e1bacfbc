"""MCP over HTTP: the task of a tool call comes from the inbound token, which the SDK or our middleware verified."""

from __future__ import annotations

import asyncio
import contextlib

import httpx2
import pytest
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import Context, MCPServer
from world import AUDIENCE, free_port, spiffe_id

from mayfly.asgi import MayflyMiddleware
from mayfly.mcp import META, TokenVerifier
from mayfly.verify import Verifier


def tools(mayfly, **settings):
    """A server whose one tool says which task it works in, and what it got in it."""
    mcp = MCPServer("echo", **settings)

    @mcp.tool()
    async def where(ctx: Context) -> str:
        async with mayfly.credential("echo", scope="echo:read", purpose="where", task=mayfly.task_of(ctx)) as cred:
            return cred.task_id

    return mcp


def by_the_sdk(mayfly, verifier):
    auth = AuthSettings(
        issuer_url=verifier.issuer, resource_server_url=AUDIENCE, validate_token_resource=True, required_scopes=["echo:read"]
    )
    return tools(mayfly, token_verifier=TokenVerifier(verifier), auth=auth).streamable_http_app()


def by_the_middleware(mayfly, verifier):
    return MayflyMiddleware(tools(mayfly).streamable_http_app(), verifier, scopes={"*": "echo:read"})


@contextlib.asynccontextmanager
async def serving(app):
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        server.should_exit = True
        await task


@pytest.mark.parametrize("guarded", [by_the_sdk, by_the_middleware])
async def test_the_inbound_token_names_the_task(world, mayfly, mayfly_echo, guarded):
    verifier = Verifier(mayfly_echo, issuer=world.issuer, audience=AUDIENCE, upstreams=["echo"], follower="mcp-http")
    async with verifier, serving(guarded(mayfly_echo, verifier)) as url:
        async with mayfly.task("http", upstreams={"echo": "echo:read echo:write"}, callers=[spiffe_id("mcp/echo")]) as task:
            async with task.credential("echo", scope="echo:read") as cred, httpx2.AsyncClient(headers=cred.headers) as http:
                async with Client(streamable_http_client(url, http_client=http)) as client:
                    result = await client.call_tool("where", {})
                    assert result.content[0].text == task.id
                    # What a message says of itself does not outdo what was verified.
                    other = await client.call_tool("where", {}, meta={META: "task_" + "a" * 26})
                    assert other.content[0].text == task.id
            async with task.credential("echo", scope="echo:write") as cred, httpx2.AsyncClient(headers=cred.headers) as http:
                answer = await http.post(url, json={})
                assert answer.status_code == 403 and 'error="insufficient_scope"' in answer.headers["www-authenticate"]
        async with httpx2.AsyncClient() as http:
            answer = await http.post(url, json={})
            assert answer.status_code == 401 and "resource_metadata=" in answer.headers["www-authenticate"]
            described = await http.get(url.replace("/mcp", "/.well-known/oauth-protected-resource"))
            assert described.json()["authorization_servers"] == [world.issuer]

"""An MCP server on the official SDK that gets a credential for each tool call, and gives it back.

pip install 'mayfly-client[mcp]' httpx
MAYFLY_ADDRESS=... MAYFLY_SVID=... MAYFLY_KEY=... MAYFLY_BUNDLE=... MAYFLY_SERVER_ID=... python mcp_server.py
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from mayfly import Mayfly
from mayfly.mcp import tool_errors

mayfly = Mayfly.from_env()
http = httpx.AsyncClient(timeout=10)


@asynccontextmanager
async def lifespan(_: MCPServer) -> AsyncIterator[None]:
    async with mayfly, http:
        yield


mcp = MCPServer("echo", lifespan=lifespan)


@mcp.tool()
async def search(query: str, ctx: Context) -> str:
    """Searches the echo upstream."""
    with tool_errors():
        async with mayfly.credential(
            "echo",
            scope=["echo:read"],
            tool="search",
            arguments={"query": query},
            purpose="search for whoever asked",
            task=mayfly.task_of(ctx),  # the agent's; None opens one of our own: require_task=True refuses that
        ) as cred:
            answer = await http.get(f"{cred.base_url}/search", params={"query": query}, headers=cred.headers)
            cred.used(outcome=answer.status_code)
            return str(good(answer).json()["found"])


@mcp.tool()
async def read_all(pages: int, ctx: Context, ttl: float = 60) -> int:
    """Reads page after page with one credential, and renews it on the way."""
    task = mayfly.task_of(ctx)
    with tool_errors():
        async with mayfly.credential(
            "echo", scope=["echo:read"], tool="read_all", purpose="read all pages", task=task, ttl=ttl
        ) as cred:
            for page in range(pages):
                if cred.expires_in < ttl / 2:
                    await cred.renew()
                answer = await http.get(f"{cred.base_url}/pages/{page}", headers=cred.headers)
                cred.used(outcome=answer.status_code)
                good(answer)
    return pages


def good(answer: httpx.Response) -> httpx.Response:
    """The answer, or what the agent is told instead."""
    if answer.is_error:
        raise ToolError(f"the upstream answered {answer.status_code}")
    return answer


if __name__ == "__main__":
    mcp.run()

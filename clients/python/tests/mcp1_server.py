"""A server on the first major version of the `mcp` SDK, stateful, behind our middleware. Run by test_verified.py in a process
of its own, where that version is found."""

from __future__ import annotations

import contextlib
import os
import sys

import uvicorn
from mcp.server.fastmcp import Context, FastMCP

from mayfly import Mayfly
from mayfly.asgi import MayflyMiddleware, verified
from mayfly.mcp import tool_errors
from mayfly.verify import Verifier

mayfly = Mayfly.from_env()
verifier = Verifier(
    mayfly, issuer=os.environ["ISSUER"], audience=os.environ["AUDIENCE"], upstreams=["echo"], follower=f"mcp1-{os.getpid()}"
)
mcp = FastMCP("echo")


@mcp.tool()
async def who() -> str:
    """Whose credential it is."""
    return verified().credential_id


@mcp.tool()
async def where(ctx: Context) -> str:
    """The task of the call, and in which it works."""
    with tool_errors():
        task = mayfly.task_of(ctx, require_task=True)
        async with mayfly.credential("echo", scope="echo:read", task=task, purpose="where") as cred:
            return cred.task_id


@mcp.tool()
def who_in_a_thread() -> str:
    """The same, in a tool that is no coroutine."""
    return verified().credential_id


app = mcp.streamable_http_app()
inner = app.router.lifespan_context


@contextlib.asynccontextmanager
async def lifespan(of):
    async with mayfly, verifier, inner(of):
        yield


app.router.lifespan_context = lifespan
uvicorn.run(MayflyMiddleware(app, verifier), port=int(sys.argv[1]), log_level="warning")

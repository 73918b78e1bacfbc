"""A relying service: an ASGI application that lets through what mayfly issued for it, and nothing that was revoked.

pip install mayfly-client starlette uvicorn
MAYFLY_ADDRESS=... MAYFLY_SVID=... (as service/echo) uvicorn echo_upstream:app --port 7780
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from mayfly import Mayfly
from mayfly.asgi import MayflyMiddleware, verified
from mayfly.verify import Verifier

mayfly = Mayfly.from_env()
verifier = Verifier(
    mayfly,
    issuer=os.environ.get("ECHO_ISSUER", "https://dev.mayfly.internal/dev"),
    audience="https://echo.dev.mayfly.internal",
    upstreams=["echo"],
)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    async with mayfly, verifier:
        yield


async def search(request: Request) -> JSONResponse:
    query = request.query_params["query"]
    # A credential that was issued for one call serves for that call.
    verified().require(tool="search", arguments={"query": query})
    return JSONResponse({"found": f"nothing like {query}", "for": verified().subject, "task": verified().task_id})


async def page(request: Request) -> JSONResponse:
    await asyncio.sleep(0.05)
    return JSONResponse({"page": request.path_params["number"], "credential": verified().credential_id})


async def write(_: Request) -> JSONResponse:
    return JSONResponse({"written": True})


async def healthz(_: Request) -> JSONResponse:
    return JSONResponse({"ready": verifier.ready}, status_code=200 if verifier.ready else 503)


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/search", search),
        Route("/pages/{number:int}", page),
        Route("/items", write, methods=["POST"]),
        Route("/healthz", healthz),
    ],
    middleware=[
        Middleware(MayflyMiddleware, verifier=verifier, scopes={"GET": "echo:read", "*": "echo:write"}, public=["/healthz"]),
    ],
)

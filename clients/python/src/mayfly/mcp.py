"""For servers on the official `mcp` SDK: the task of a tool call, and the check of inbound tokens. The SDK is not needed to
import this."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal, overload

from ._ask import wrong
from ._secret import Secret
from .errors import MayflyError

if TYPE_CHECKING:
    from mcp.server.auth.provider import AccessToken

    from .verify import Verifier

# The key of the task in `_meta` of a request.
META = "mayfly/task"
OWN_CLAIMS = "https://mayfly.dev/claims"
_TASK = re.compile(r"task_[a-z2-7]{26}\Z")


@overload
def task_of(ctx: object, *, require_task: Literal[True]) -> str: ...
@overload
def task_of(ctx: object, *, require_task: bool = False) -> str | None: ...
def task_of(ctx: object, *, require_task: bool = False) -> str | None:
    """The task that a tool call belongs to: that of the inbound token; where no token came, the one that `_meta` names.

    Args:
        ctx: the `Context` of the official `mcp` SDK, or its request context.
        require_task: a call that belongs to no task is refused.

    Raises:
        InvalidRequest: the token or `_meta` names a task that is none, or `require_task` is set and nothing names one.
    """
    task = found(ctx).task
    return required(task) if require_task else task


@dataclass(frozen=True, slots=True)
class Found:
    """What a tool call says of its task."""

    task: str | None
    token: bool
    """A token came with the call. Then `_meta`, which whoever sends the call writes, does not name the task."""
    ours: bool = False
    """The token is one of mayfly's, verified. Then nothing else names the task."""


def found(ctx: object) -> Found:
    """Looks for the task of a tool call; see `task_of`."""
    if ctx is None:
        return Found(None, token=False)
    request = getattr(ctx, "request_context", ctx)
    if not hasattr(request, "meta") and not hasattr(request, "request"):
        raise TypeError(f"ctx is a {type(ctx).__name__}; right would be the Context that the mcp SDK gives to a tool")
    inbound = _by_token(getattr(request, "request", None))
    return inbound if inbound.token else Found(_by_meta(getattr(request, "meta", None)), token=False)


def required(task: str | None) -> str:
    """The task, where one is required.

    Raises:
        InvalidRequest: there is none.
    """
    if task is None:
        raise wrong(
            "task",
            f"this call belongs to no task; right would be a credential of the agent's task, or its id in `_meta` as {META!r}",
        )
    return task


@contextmanager
def tool_errors() -> Iterator[None]:
    """Tells the agent why mayfly said no: the SDK hides the text of every other exception from it. No message holds a secret.

    Raises:
        ToolError: for a `MayflyError` in its scope.
    """
    try:
        from mcp.server.mcpserver.exceptions import ToolError
    except ImportError:
        # As its first major version has it.
        from mcp.server.fastmcp.exceptions import ToolError  # type: ignore[import-not-found,no-redef]

    try:
        yield
    except MayflyError as no:
        raise ToolError(str(no)) from no


def _by_token(request: object) -> Found:
    scope = getattr(request, "scope", None)
    if not isinstance(scope, Mapping):
        return Found(None, token=False)
    # What our own middleware verified lies in the ASGI scope of the HTTP request.
    if (verified := scope.get("mayfly")) is not None:
        return Found(verified.task_id or None, token=True, ours=True)
    token = getattr(scope.get("user"), "access_token", None)
    if token is not None:
        claims = getattr(token, "claims", None)
        return Found(_claimed(claims), token=True, ours=isinstance(claims, Mapping) and OWN_CLAIMS in claims)
    # One that nobody verified here names no task, and keeps `_meta` from naming one.
    shown = any(name.lower() == b"authorization" for name, _ in scope.get("headers") or ())
    return Found(None, token=shown)


def _claimed(claims: object) -> str | None:
    own = claims.get(OWN_CLAIMS) if isinstance(claims, Mapping) else None
    if own is None:
        return None
    tasks = own.get("tasks", []) if isinstance(own, Mapping) else None
    if tasks == []:
        return None
    last = tasks[-1] if isinstance(tasks, list) else None
    return _task(f"{OWN_CLAIMS} of the inbound token", last.get("id") if isinstance(last, Mapping) else None)


def _by_meta(meta: object) -> str | None:
    # The first major version of the SDK gives an object with what it does not know beside.
    names = meta if isinstance(meta, Mapping) else getattr(meta, "model_extra", None) or {}
    return _task(f"_meta[{META!r}]", names[META]) if META in names else None


def _task(where: str, text: object) -> str:
    # Refused, and never taken for none: without a task the call would have one of the server's own, with all the server's rights.
    if not isinstance(text, str) or not _TASK.match(text):
        raise wrong(where, "is no task id; right would be task_ and 26 characters of a-z and 2-7")
    return text


@cache
def _answers_503() -> type[Exception]:
    """The exception by which a token verifier says that it cannot know: Starlette answers it with 503 instead of 400.

    The SDK knows only good tokens and bad ones, and answers 401 to the bad ones: whoever holds a good one would throw it away.
    It gives no way to answer otherwise, so this extends what Starlette's middleware answers to an `AuthenticationError`, for this
    one exception.
    """
    from starlette.authentication import AuthenticationError
    from starlette.middleware.authentication import AuthenticationMiddleware
    from starlette.requests import HTTPConnection
    from starlette.responses import JSONResponse, Response

    class RevocationsUnknown(AuthenticationError):
        """What was revoked is not known here now."""

    before = AuthenticationMiddleware.default_on_error

    def answer(conn: HTTPConnection, exc: Exception) -> Response:
        if not isinstance(exc, RevocationsUnknown):
            return before(conn, exc)
        body = {"error": "temporarily_unavailable", "reason": exc.args[0], "error_description": exc.args[1]}
        return JSONResponse(body, 503, {"retry-after": "1", "cache-control": "no-store"})

    AuthenticationMiddleware.default_on_error = staticmethod(answer)  # type: ignore[method-assign]
    return RevocationsUnknown


class TokenVerifier:
    """`token_verifier=` of the SDK's `MCPServer`: inbound tokens are credentials of mayfly's for this server.

    The SDK asks for the scopes of its `AuthSettings`; revocations, audience and the rest are the verifier's.
    """

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        # Before the application is built: its middleware takes what it answers with it.
        self._unknown = _answers_503()

    async def verify_token(self, token: str) -> AccessToken | None:
        """The SDK's view of a good token; `None` for one that is not, which is answered 401. Where the revocations are not known
        the request is answered 503, as `MayflyMiddleware` does."""
        from mcp.server.auth.provider import AccessToken

        from .verify import UNKNOWN, Refused

        try:
            good = self._verifier.check(Secret(token))
        except Refused as refused:
            if refused.reason in UNKNOWN:
                raise self._unknown(refused.reason, refused.message) from None
            return None
        return AccessToken(
            token=token,
            client_id=good.caller,
            scopes=list(good.scopes),
            expires_at=good.claims["exp"],
            resource=good.claims["aud"],
            subject=good.claims["sub"],
            claims=dict(good.claims),
        )

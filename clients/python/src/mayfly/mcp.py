"""For servers on the official `mcp` SDK: the task of a tool call, and the verification of inbound tokens. The SDK is
not needed to import this module."""

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

# The name of the task in a request's `_meta`.
META = "mayfly/task"
OWN_CLAIMS = "https://mayfly.dev/claims"
_TASK = re.compile(r"task_[a-z2-7]{26}\Z")


@overload
def task_of(ctx: object, *, require_task: Literal[True]) -> str: ...
@overload
def task_of(ctx: object, *, require_task: bool = False) -> str | None: ...
def task_of(ctx: object, *, require_task: bool = False) -> str | None:
    """The task that a tool call belongs to: the task of the inbound token; without a token, the task that `_meta`
    names.

    Args:
        ctx: the `Context` of the official `mcp` SDK, or its request context.
        require_task: a call that belongs to no task is refused.

    Raises:
        InvalidRequest: the token or `_meta` names a malformed task id, or `require_task` is set and nothing names a
            task.
    """
    task = found(ctx).task
    return required(task) if require_task else task


@dataclass(frozen=True, slots=True)
class Found:
    """The task of a tool call and how it was found."""

    task: str | None
    token: bool
    """A token came with the call. `_meta`, which the caller writes, then does not determine the task."""
    ours: bool = False
    """The token is a verified mayfly token. Then nothing else determines the task."""


def found(ctx: object) -> Found:
    """Finds the task of a tool call; see `task_of`."""
    if ctx is None:
        return Found(None, token=False)
    request = getattr(ctx, "request_context", ctx)
    if not hasattr(request, "meta") and not hasattr(request, "request"):
        raise TypeError(f"ctx is a {type(ctx).__name__}; right would be the Context that the mcp SDK gives to a tool")
    inbound = _by_token(getattr(request, "request", None))
    return inbound if inbound.token else Found(_by_meta(getattr(request, "meta", None)), token=False)


def required(task: str | None) -> str:
    """Returns the task, where one is required.

    Raises:
        InvalidRequest: there is no task.
    """
    if task is None:
        raise wrong(
            "task",
            f"this call belongs to no task; right would be a credential of the agent's task, or its id in `_meta` as {META!r}",
        )
    return task


@contextmanager
def tool_errors() -> Iterator[None]:
    """Reports a refusal by mayfly to the agent: the SDK hides the text of every other exception. No message contains a
    secret.

    Raises:
        ToolError: for a `MayflyError` in its scope.
    """
    try:
        from mcp.server.mcpserver.exceptions import ToolError
    except ImportError:
        # The name in the SDK's first major version.
        from mcp.server.fastmcp.exceptions import ToolError  # type: ignore[import-not-found,no-redef]

    try:
        yield
    except MayflyError as no:
        raise ToolError(str(no)) from no


def _by_token(request: object) -> Found:
    scope = getattr(request, "scope", None)
    if not isinstance(scope, Mapping):
        return Found(None, token=False)
    # Our own middleware puts the verified token into the ASGI scope of the HTTP request.
    if (verified := scope.get("mayfly")) is not None:
        return Found(verified.task_id or None, token=True, ours=True)
    token = getattr(scope.get("user"), "access_token", None)
    if token is not None:
        claims = getattr(token, "claims", None)
        return Found(_claimed(claims), token=True, ours=isinstance(claims, Mapping) and OWN_CLAIMS in claims)
    # An unverified token names no task, and prevents `_meta` from naming one.
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
    # The first major version of the SDK gives an object that holds unknown members separately.
    names = meta if isinstance(meta, Mapping) else getattr(meta, "model_extra", None) or {}
    return _task(f"_meta[{META!r}]", names[META]) if META in names else None


def _task(where: str, text: object) -> str:
    # A malformed id is refused and never treated as absent: without a task the call would run in a task of the server's
    # own, with all the server's rights.
    if not isinstance(text, str) or not _TASK.match(text):
        raise wrong(where, "is no task id; right would be task_ and 26 characters of a-z and 2-7")
    return text


@cache
def _answers_503() -> type[Exception]:
    """The exception by which a token verifier reports that it cannot decide: Starlette answers it with 503 instead of
    400.

    The SDK knows only valid and invalid tokens, and answers 401 to invalid ones, so a client would discard a valid
    token. Since the SDK allows no other answer, this extends the handler of Starlette's middleware for an
    `AuthenticationError`, for this one exception.
    """
    from starlette.authentication import AuthenticationError
    from starlette.middleware.authentication import AuthenticationMiddleware
    from starlette.requests import HTTPConnection
    from starlette.responses import JSONResponse, Response

    class RevocationsUnknown(AuthenticationError):
        """The revocations are currently unknown."""

    before = AuthenticationMiddleware.default_on_error

    def answer(conn: HTTPConnection, exc: Exception) -> Response:
        if not isinstance(exc, RevocationsUnknown):
            return before(conn, exc)
        body = {"error": "temporarily_unavailable", "reason": exc.args[0], "error_description": exc.args[1]}
        return JSONResponse(body, 503, {"retry-after": "1", "cache-control": "no-store"})

    AuthenticationMiddleware.default_on_error = staticmethod(answer)  # type: ignore[method-assign]
    return RevocationsUnknown


class TokenVerifier:
    """`token_verifier=` of the SDK's `MCPServer`: inbound tokens are mayfly credentials for this server.

    The SDK checks the scopes of its `AuthSettings`; the verifier checks revocations, audience and everything else.
    """

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        # Created before the application is built, because the middleware takes its error handler at that time.
        self._unknown = _answers_503()

    async def verify_token(self, token: str) -> AccessToken | None:
        """The SDK's view of a valid token; `None` for an invalid token, which is answered 401. Where the revocations
        are unknown the request is answered 503, as by `MayflyMiddleware`."""
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

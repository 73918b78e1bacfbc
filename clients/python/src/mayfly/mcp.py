"""For servers on the official `mcp` SDK: the task of a tool call, and the check of inbound tokens. The SDK is not needed to
import this."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ._secret import Secret
from .errors import MayflyError

if TYPE_CHECKING:
    from mcp.server.auth.provider import AccessToken

    from .verify import Verifier

# The key of the task in `_meta` of a request.
META = "mayfly/task"
OWN_CLAIMS = "https://mayfly.dev/claims"
_TASK = re.compile(r"task_[a-z2-7]{26}\Z")


def task_of(ctx: object) -> str | None:
    """The task that a tool call belongs to: by the verified inbound token, else by `_meta`. See `Mayfly.task_of`."""
    request = getattr(ctx, "request_context", None) if ctx is not None else None
    return _by_token(request) or _by_meta(getattr(request, "meta", None))


@contextmanager
def tool_errors() -> Iterator[None]:
    """Tells the agent why mayfly said no: the SDK hides the text of every other exception from it. No message holds a secret.

    Raises:
        ToolError: for a `MayflyError` in its scope.
    """
    from mcp.server.mcpserver.exceptions import ToolError

    try:
        yield
    except MayflyError as no:
        raise ToolError(str(no)) from no


def _by_token(request: object) -> str | None:
    # What our own middleware verified lies in the ASGI scope of the HTTP request.
    scope = getattr(getattr(request, "request", None), "scope", None)
    if isinstance(scope, Mapping):
        if (verified := scope.get("mayfly")) is not None:
            return str(verified.task_id) or None
        token = getattr(scope.get("user"), "access_token", None)
        if token is not None:
            return _claimed(getattr(token, "claims", None))
    return None


def _claimed(claims: Any) -> str | None:
    tasks = (claims or {}).get(OWN_CLAIMS, {}).get("tasks") or []
    return _task(tasks[-1].get("id")) if tasks else None


def _by_meta(meta: object) -> str | None:
    if meta is None:
        return None
    if isinstance(meta, Mapping):
        return _task(meta.get(META))
    # The first major version of the SDK gives an object with what it does not know beside.
    return _task((getattr(meta, "model_extra", None) or {}).get(META))


def _task(text: object) -> str | None:
    return text if isinstance(text, str) and _TASK.match(text) else None


class TokenVerifier:
    """`token_verifier=` of the SDK's `MCPServer`: inbound tokens are credentials of mayfly's for this server.

    The SDK asks for the scopes of its `AuthSettings`; revocations, audience and the rest are the verifier's.
    """

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier

    async def verify_token(self, token: str) -> AccessToken | None:
        """The SDK's view of a good token; `None` for one that is not."""
        from mcp.server.auth.provider import AccessToken

        from .verify import Refused

        try:
            good = self._verifier.check(Secret(token))
        except Refused:
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

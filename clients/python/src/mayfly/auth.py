"""Authentication for HTTP clients whose sessions outlast a credential: see `Mayfly.auth`. No HTTP client is needed to
import this module."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from . import errors
from ._ask import wrong
from ._credential import Credential

# A credential is renewed when a third of its lifetime is left, but not earlier than this many seconds before its end.
SHARE = 1 / 3
MARGIN = 30.0
UNAUTHORIZED = 401
PORTS = {"http": 80, "https": 443}


def _bases() -> tuple[type, ...]:
    """`Auth` of `httpx`, and of `httpx2` (used by the MCP SDK since its second major version), where they are
    installed."""
    found = []
    for name in ("httpx", "httpx2"):
        try:
            found.append(importlib.import_module(name).Auth)
        except ImportError:
            continue
    return tuple(found) or (object,)


if TYPE_CHECKING:
    import httpx
    import httpx2

    class _Base(httpx.Auth, httpx2.Auth):  # type: ignore[misc]
        pass

else:
    _Base = type("_Base", _bases(), {})


class CredentialAuth(_Base):
    """For `auth=` of an `AsyncClient` of `httpx` or `httpx2`. Returned by `Mayfly.auth` and `Task.auth`."""

    requires_request_body = True

    def __init__(self, get: Callable[[], AbstractAsyncContextManager[Credential]], url: str | None) -> None:
        self._get, self._url = get, url
        self._held: Credential | None = None
        self._stack = AsyncExitStack()
        self._changing = asyncio.Lock()
        self._over = False

    def __repr__(self) -> str:
        return f"<CredentialAuth {self._held!r}>"

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Refuses: mayfly's client has no blocking interface."""
        raise RuntimeError("this authenticates requests of an AsyncClient; right would be httpx.AsyncClient")
        yield

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """Sends the request with a valid credential, and once more with another one where it is answered 401."""
        # A repeated request needs its body again.
        await request.aread()
        shown = await self._show(request, None)
        response = yield request
        if response.status_code == UNAUTHORIZED:
            await self._show(request, shown)
            yield request

    async def _show(self, request: Any, refused: str | None) -> str:
        credential = await self._current(refused)
        allowed = _origin(urlsplit(self._url or credential.base_url))
        if _origin(urlsplit(str(request.url))) != allowed:
            raise wrong(
                "url", f"the request goes to another place than {allowed}; a credential goes to its upstream and nowhere else"
            )
        for name, value in credential.headers.items():
            request.headers[name] = value
        return credential.credential_id

    async def _current(self, refused: str | None) -> Credential:
        async with self._changing:
            if self._over:
                raise errors.Closed("the session was ended")
            held = self._held
            if held is None:
                return await self._another()
            if held.credential_id == refused:
                held._doubt()
                return await self._another()
            left, life = held.expires_in, held.issued.life
            if left > min(MARGIN, life * SHARE):
                return held
            try:
                await held.renew()
            except (errors.NotActive, errors.NotFound, errors.Denied):
                # The credential cannot be renewed any more. A new one is requested and decided anew.
                return await self._another()
            except errors.MayflyError:
                if left <= 0:
                    raise
            return held

    async def _another(self) -> Credential:
        before, self._stack, self._held = self._stack, AsyncExitStack(), None
        await before.aclose()
        self._held = await self._stack.enter_async_context(self._get())
        return self._held

    async def _end(self) -> None:
        self._over = True
        async with self._changing:
            self._held = None
            await self._stack.aclose()


def _origin(url: SplitResult) -> str:
    return f"{url.scheme}://{(url.hostname or '').lower()}:{url.port or PORTS.get(url.scheme, 0)}"

"""ASGI middleware that admits only mayfly credentials, with the metadata of RFC 9728."""

from __future__ import annotations

import hashlib
import json
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, cast
from urllib.parse import urlsplit

from ._secret import Secret
from .verify import INSUFFICIENT, UNKNOWN, Refused, Verified, Verifier

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Needs = Mapping[str, str] | Callable[[Scope], str]

WELL_KNOWN = "/.well-known/oauth-protected-resource"
SCHEME = "bearer"
# RFC 6455, section 7.4.1.
POLICY_VIOLATION = 1008

# The header by which the MCP SDK identifies a session. The response to a request that began a session has it.
SESSION = b"mcp-session-id"


class _Request:
    """A request in progress. Tasks that it starts inherit it in their context, and some of them outlive it or serve
    requests of others."""

    __slots__ = ("began_session", "over", "verified")

    def __init__(self, verified: Verified) -> None:
        self.verified = verified
        self.over = False
        self.began_session = False


_current: ContextVar[_Request] = ContextVar("mayfly_verified")


def verified() -> Verified:
    """The credential of the request that is being handled. In a tool of an MCP server: of the request that brought the
    tool call.

    Raises:
        LookupError: there is none: outside of a request, at a public path, in a task that outlived its request, or in a
            task that serves an MCP session, which also handles requests of other callers.
    """
    message = _mcp_message()
    if message is not None:
        # The first major version of the SDK handles all calls of a session in the context of the request that began it.
        scope = getattr(getattr(message, "request", None), "scope", None)
        good = scope.get("mayfly") if isinstance(scope, Mapping) else None
        if good is None:
            raise LookupError("this MCP call came by no request that MayflyMiddleware let through")
        return cast("Verified", good)
    request = _current.get()
    if request.over:
        raise LookupError("the request whose credential this would be is over")
    if request.began_session:
        raise LookupError("this task serves an MCP session, whose requests may be of several callers; call verified() in a tool")
    return request.verified


def _mcp_message() -> object | None:
    """The MCP call that is being handled in this context, from the SDK's own context variable, where it has one
    (version 1)."""
    var = getattr(sys.modules.get("mcp.server.lowlevel.server"), "request_ctx", None)
    return var.get(None) if isinstance(var, ContextVar) else None


class MayflyMiddleware:
    """Admits a request only with a valid credential, available as `scope["mayfly"]` and from `verified()`.

    A `Refused` raised by `verified().require(...)` in the application, before the response has begun, is also answered
    403.

    Args:
        app: the application.
        verifier: the verifier; the application's lifespan must enter it.
        resource: this service's own URL (RFC 8707), `https://host[/path]`. RFC 9728 metadata is at
            `/.well-known/oauth-protected-resource[/path]`. Left out: the verifier's audience.
        scopes: the required scope: by method, like `{"GET": "echo:read", "*": "echo:write"}`, where a method without an
            entry is refused; or a function of the ASGI scope that returns the required scope, empty for none. Left out:
            none.
        public: paths that need no credential, like `/healthz`.
        scopes_supported: for the metadata. Left out: the scopes of `scopes`, where that is a mapping.
    """

    def __init__(
        self,
        app: App,
        verifier: Verifier,
        *,
        resource: str | None = None,
        scopes: Needs | None = None,
        public: Iterable[str] = (),
        scopes_supported: Iterable[str] | None = None,
    ) -> None:
        self._app, self._verifier = app, verifier
        self._resource = resource or verifier.audience
        parts = urlsplit(self._resource)
        if parts.scheme not in ("https", "http") or not parts.netloc or parts.query or parts.fragment:
            raise ValueError(f"resource is {self._resource!r}; right would be an https URL without query and fragment (RFC 9728)")
        self._metadata_path = WELL_KNOWN + parts.path.rstrip("/")
        self._metadata_url = f"{parts.scheme}://{parts.netloc}{self._metadata_path}"
        self._needs: Needs = scopes or {}
        self._public = frozenset(public)
        if scopes_supported is None and isinstance(self._needs, Mapping):
            scopes_supported = dict.fromkeys(s for s in self._needs.values() if s)
        self._scopes_supported = list(scopes_supported or ())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind, path = scope["type"], scope.get("path", "")
        if kind not in ("http", "websocket"):
            await self._app(scope, receive, send)
        elif kind == "http" and scope["method"] in ("GET", "HEAD") and path in (self._metadata_path, WELL_KNOWN):
            await self._metadata(scope, send)
        elif path in self._public:
            await self._app(scope, receive, send)
        else:
            await self._guarded(scope, receive, send)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            token = bearer(scope)
            if token is None:
                await self._answer(scope, receive, send, 401, self._challenge(None, ""))
                return
            good = self._verifier.check(token, scope=self._need(scope), certificate_sha256=certificate_sha256(scope))
        except Refused as refused:
            await self._refuse(scope, receive, send, refused)
            return
        began = False
        request = _Request(good)
        in_session = SESSION in (name.lower() for name, _ in scope["headers"])

        async def sending(message: Message) -> None:
            nonlocal began
            began = True
            if not in_session and any(name.lower() == SESSION for name, _ in message.get("headers") or ()):
                request.began_session = True
            await send(message)

        mark = _current.set(request)
        try:
            await self._app({**scope, "mayfly": good}, receive, sending)
        except Refused as refused:
            if began:
                raise
            await self._refuse(scope, receive, send, refused)
        finally:
            request.over = True
            _current.reset(mark)

    def _need(self, scope: Scope) -> str:
        if not isinstance(self._needs, Mapping):
            return self._needs(scope)
        if not self._needs:
            return ""
        # A web socket begins as a GET request; HEAD is GET without a body.
        method = scope.get("method", "GET")
        need = self._needs.get("GET" if method == "HEAD" else method, self._needs.get("*"))
        if need is None:
            raise Refused("scope", f"no scope serves for {method}")
        return need

    def _challenge(self, error: str | None, description: str, scope: str = "") -> list[tuple[bytes, bytes]]:
        says = [("error", error), ("error_description", description if error else None), ("scope", scope or None)]
        says.append(("resource_metadata", self._metadata_url))
        return [(b"www-authenticate", b"Bearer " + ", ".join(f'{n}="{quoted(v)}"' for n, v in says if v).encode())]

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, refused: Refused) -> None:
        if refused.reason in INSUFFICIENT:
            headers = self._challenge("insufficient_scope", refused.message, refused.scope)
            await self._answer(scope, receive, send, 403, headers, "insufficient_scope", refused)
        elif refused.reason in UNKNOWN:
            # Not a defect of the token: after a 401 its holder would discard a valid token.
            await self._answer(scope, receive, send, 503, [(b"retry-after", b"1")], "temporarily_unavailable", refused)
        else:
            headers = self._challenge("invalid_token", refused.message)
            await self._answer(scope, receive, send, 401, headers, "invalid_token", refused)

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        status: int,
        headers: list[tuple[bytes, bytes]],
        error: str = "",
        refused: Refused | None = None,
    ) -> None:
        prefix = ""
        if scope["type"] == "websocket":
            if "websocket.http.response" not in (scope.get("extensions") or {}):
                await receive()
                await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": error or "no credential"})
                return
            prefix = "websocket."
        body = {"error": error, "reason": refused.reason, "error_description": refused.message} if refused else {}
        await respond(send, status, body, [*headers, (b"cache-control", b"no-store")], prefix)

    async def _metadata(self, scope: Scope, send: Send) -> None:
        body = {
            "resource": self._resource,
            "authorization_servers": [self._verifier.issuer],
            "bearer_methods_supported": ["header"],
        }
        if self._scopes_supported:
            body["scopes_supported"] = self._scopes_supported
        await respond(send, 200, body, [(b"cache-control", b"max-age=300")], head=scope["method"] == "HEAD")


async def respond(
    send: Send, status: int, body: Mapping[str, Any], headers: list[tuple[bytes, bytes]], prefix: str = "", head: bool = False
) -> None:
    """Sends a small JSON response."""
    data = json.dumps(body).encode() if body else b""
    kind = [(b"content-type", b"application/json")] if data else []
    length = [(b"content-length", str(len(data)).encode())]
    await send({"type": f"{prefix}http.response.start", "status": status, "headers": [*kind, *length, *headers]})
    await send({"type": f"{prefix}http.response.body", "body": b"" if head else data})


def bearer(scope: Scope) -> Secret | None:
    """The request's one bearer token (RFC 6750, section 2.1); `None` where it has no credentials.

    Raises:
        Refused: `malformed`: several headers, another scheme, or no token.
    """
    found = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
    if not found:
        return None
    if len(found) > 1:
        raise Refused("malformed", "several Authorization headers")
    scheme, _, token = found[0].decode("latin-1").partition(" ")
    if scheme.lower() != SCHEME or not token.strip():
        raise Refused("malformed", "the Authorization header is no bearer token")
    return Secret(token.strip())


def certificate_sha256(scope: Scope) -> bytes:
    """SHA-256 of the client certificate of the TLS session, from the ASGI TLS extension; empty where the server does
    not provide it. Never from a header, which any client could write."""
    chain = ((scope.get("extensions") or {}).get("tls") or {}).get("client_cert_chain") or ()
    for pem in chain:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).digest()
    return b""


def quoted(text: str) -> str:
    """A text in the form of a quoted string (RFC 9110, section 5.6.4)."""
    return "".join(c if " " <= c <= "~" else "?" for c in text).replace("\\", "\\\\").replace('"', '\\"')

"""The connection: one gRPC channel per SVID. It is replaced without a failed call when the SVID or the server's
certificate changes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_before_delay, wait_random_exponential

from . import _fork, _trace, errors
from ._identity import Identity, Source
from ._probe import CONNECT, Server, probe

log = logging.getLogger("mayfly")

# The longest wait for the answer of one attempt, seconds. The call's own deadline covers all attempts together.
ATTEMPT = 5.0
# How long calls may continue after their connection was replaced, seconds.
DRAIN = 70.0
AGENT = "mayfly-python/0.1.0"

T = TypeVar("T")
_BACKOFF = wait_random_exponential(multiplier=0.05, max=2)


def tryable(error: BaseException) -> bool:
    """Whether the same request may be sent again: nothing was decided, or the server said when to retry. Never after a
    denial."""
    if isinstance(error, errors.LimitReached):
        return error.retry_after is not None
    if isinstance(error, errors.IdentityError):
        # An identity that is not available yet.
        return error.retry_after is not None
    return isinstance(error, errors.Unavailable) or (
        isinstance(error, errors.NotAuthenticated) and error.reason == "SVID_NO_LONGER_VALID"
    )


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    after = getattr(error, "retry_after", None)
    pause = _BACKOFF(state)
    return pause if after is None else float(after) + min(pause, 1.0)


async def persist(attempt: Callable[[float], Awaitable[T]], timeout: float) -> T:
    """Retries until the call succeeds, is refused, or `timeout` seconds are over. `attempt` is given the remaining
    seconds.

    Raises:
        MayflyError: the refusal, or the last failure.
    """
    until = time.monotonic() + timeout
    tries = AsyncRetrying(
        stop=stop_before_delay(timeout),
        wait=_wait,
        retry=retry_if_exception(tryable),
        reraise=True,
    )
    last: errors.MayflyError | None = None
    try:
        async with asyncio.timeout(timeout):
            async for one in tries:
                with one:
                    try:
                        return await attempt(max(0.001, until - time.monotonic()))
                    except errors.MayflyError as wrong:
                        last = wrong
                        raise
    except TimeoutError:
        if isinstance(last, errors.IdentityError):
            raise last from None
        before = f"; before that: {last}" if last else ""
        raise errors.TimedOut(f"no answer within {timeout:g} s{before}") from None
    raise AssertionError("unreachable: the last failure is raised")


class Link:
    """A channel opened with one SVID to one verified server."""

    def __init__(self, channel: grpc.aio.Channel, identity: Identity, server: Server) -> None:
        self.channel = channel
        self.identity = identity
        self.server = server
        self.suspect = False
        self.retired = False
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._stubs: dict[type[Any], Any] = {}

    def stub(self, kind: type[Any]) -> Any:
        """The stub of a service on this channel."""
        if kind not in self._stubs:
            self._stubs[kind] = kind(self.channel)
        return self._stubs[kind]

    def enter(self) -> None:
        self._calls += 1
        self._idle.clear()

    def leave(self) -> None:
        self._calls -= 1
        if not self._calls:
            self._idle.set()

    async def retire(self) -> None:
        """Closes the channel once no call is in progress."""
        self.retired = True
        try:
            async with asyncio.timeout(DRAIN):
                await self._idle.wait()
        except TimeoutError:
            log.warning("calls on a replaced connection did not end within %d s", DRAIN)
        finally:
            await self.channel.close(grace=1.0)


class Connection:
    """Provides the current link. Belongs to one event loop."""

    def __init__(self, host: str, port: int, server_id: str | None, source: Source) -> None:
        self._host, self._port, self._server_id = host, port, server_id
        self._source = source
        self._link: Link | None = None
        self._making: asyncio.Task[Link] | None = None
        self._closed = False
        self._renewing: asyncio.Task[None] | None = None
        self._draining: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self.on_link: Callable[[Link], None] = lambda link: None
        self.made = 0
        """How many links were opened."""

    def start(self) -> None:
        """Starts watching the SVID."""
        self._source.start(self._changed.set)
        self._renewing = asyncio.create_task(self._renew(), name="mayfly-rotation")

    async def identity(self) -> Identity:
        """The current SVID."""
        return await self._source.get()

    async def link(self) -> Link:
        """The current link; a new one where there is none or the current one failed.

        Raises:
            Unavailable, ServerCertificateError, NotAuthenticated, IdentityError: no link can be opened.
            Closed: the client was closed.
        """
        _fork.begin()
        link = self._link
        if link is not None and not link.suspect:
            return link
        return await self._connect()

    async def _connect(self) -> Link:
        """One connection attempt for all waiting callers. If one of them is cancelled, the others continue to wait."""
        if self._closed:
            raise errors.Closed("the client was closed")
        if self._making is None or self._making.done():
            self._making = asyncio.create_task(self._attempt(), name="mayfly-connect")
            # Everybody who waited may have been cancelled.
            self._making.add_done_callback(lambda task: task.cancelled() or task.exception())
        making = self._making
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            if making.cancelled() and self._closed:
                raise errors.Closed("the client was closed") from None
            raise

    async def _attempt(self) -> Link:
        return self._swap(await self._make())

    async def _make(self) -> Link:
        identity = await self._source.get()
        server = await probe(self._host, self._port, identity, self._server_id)
        credentials = grpc.ssl_channel_credentials(server.certificate, identity.key, identity.chain)
        # The address that was probed: gRPC would try the addresses in its own order and wait much longer for a silent one.
        address = server.address
        options = [
            ("grpc.ssl_target_name_override", server.name),
            ("grpc.primary_user_agent", AGENT),
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            # Each link has its own connection: with the shared pool a new SVID could use a connection of the old one.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        channel = grpc.aio.secure_channel(address, credentials, options=options)
        try:
            async with asyncio.timeout(CONNECT):
                await channel.channel_ready()
        except BaseException as wrong:
            await channel.close()
            if isinstance(wrong, TimeoutError):
                raise errors.Unavailable(f"no gRPC connection to {address} within {CONNECT:g} s") from None
            raise
        return Link(channel, identity, server)

    def _swap(self, new: Link) -> Link:
        old, self._link = self._link, new
        self.made += 1
        log.debug("connected to %s as %s", new.server.spiffe_id, new.identity.spiffe_id)
        if old is not None:
            old.retired = True
            task = asyncio.create_task(old.retire(), name="mayfly-drain")
            self._draining.add(task)
            task.add_done_callback(self._draining.discard)
            self.on_link(new)
        return new

    async def _renew(self) -> None:
        """After a change of the SVID: opens the new connection first, then drains the old one."""
        attempt = 0
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._link is None and self._making is None:
                # No call was made yet: the first call uses the current SVID.
                continue
            try:
                # A connection attempt in progress may have started with the old SVID.
                while (await self._connect()).identity.fingerprint != (await self._source.get()).fingerprint:
                    pass
                attempt = 0
            except errors.MayflyError as wrong:
                log.warning("no connection could be made with the new SVID yet; the old connection stays in use: %s", wrong)
                attempt = min(attempt + 1, 6)
                await asyncio.sleep(0.1 * 2**attempt)
                self._changed.set()

    @asynccontextmanager
    async def on(self, link: Link | None = None) -> AsyncIterator[Link]:
        """Provides a link that is not closed during use. gRPC errors are raised as errors of this package."""
        link = link or await self.link()
        link.enter()
        try:
            yield link
        except grpc.aio.AioRpcError as wrong:
            error = errors.from_rpc(wrong)
            if isinstance(error, errors.Unavailable) and not error.reason:
                link.suspect = True
            if error.reason == "SVID_NO_LONGER_VALID":
                link.suspect = True
                current = self._source.current
                if current is None or current.fingerprint == link.identity.fingerprint:
                    # There is no newer SVID to try.
                    raise errors.IdentityError(
                        f"mayfly no longer accepts the SVID of {link.identity.spiffe_id}: {error.message}"
                    ) from None
            raise error from None
        finally:
            link.leave()

    async def unary(self, service: type[Any], method: str, request: Any, timeout: float, attempt: float = ATTEMPT) -> Any:
        """One call, retried where that is safe. The request has a `request_id` or is idempotent.

        Raises:
            MayflyError: the refusal, or the last failure.
        """

        async def once(left: float) -> Any:
            async with self.on() as link:
                return await getattr(link.stub(service), method)(request, timeout=min(left, attempt), metadata=_trace.metadata())

        return await persist(once, timeout)

    async def aclose(self) -> None:
        """Closes everything; calls in progress get a second."""
        self._closed = True
        for task in (self._renewing, self._making):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self._source.aclose()
        for task in list(self._draining):
            task.cancel()
        await asyncio.gather(*self._draining, return_exceptions=True)
        if self._link is not None:
            await self._link.channel.close(grace=1.0)
            self._link = None

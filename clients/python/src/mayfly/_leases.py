"""Shared credentials: one exchange for equal requests. A credential is shared until shortly before it expires, and
released when it has no holder."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, timedelta
from typing import Any, TypeVar

from . import _clock, errors
from ._ask import DEFAULT_TTL, duration, request_id
from ._clock import Instant
from ._connection import ATTEMPT, Connection, persist
from ._issued import Issued, issued
from ._stream import Streams
from .v1 import task_service_pb2, task_service_pb2_grpc, token_service_pb2, token_service_pb2_grpc

log = logging.getLogger("mayfly")

T = TypeVar("T")

# How long the end of a scope waits for releasing, seconds. After that, releasing continues in the background for as
# long as a call may take.
GIVE_BACK_WAIT = 2.0
# How long closing waits for exchanges in progress, seconds: as long as a slow one takes. Exchanges that wait for an
# approval are given up then.
CLOSE_WAIT = 3.0
# A shared credential is not handed out any more when less than this is left, seconds, or less than a fifth of its
# lifetime; randomly up to twice as early, so that many servers do not renew at the same time.
MARGIN = 30.0
# Most credentials kept for sharing.
KEPT = 1000
# How much longer than its credential a call's own task is extended, seconds, so that the renewal, which is decided a
# moment later, gets its full lifetime. Policy counts whole seconds, so a policy that allows the lifetime allows this
# too.
AHEAD = 0.5
# How often a request waits for an equal one that is in progress, and then looks again, before it is sent anyway.
ROUNDS = 3


class Lease:
    """One credential, in progress or issued, and the number of its holders."""

    def __init__(
        self, exchange: Callable[[], Awaitable[Issued]], inline: bool, ttl: float | None, *, in_batch: bool = False
    ) -> None:
        self.holders = 0
        self.inline = inline
        self.in_batch = in_batch
        """Exchanged together with others: it also fails when another of them is refused."""
        self.ttl = ttl
        """The requested lifetime, seconds; `None`: no particular one."""
        self.ids: list[str] = []
        self.issued: Issued | None = None
        self.ended = False
        self.key: bytes | None = None
        self.renewing = asyncio.Lock()
        self.given_back: asyncio.Task[None] | None = None
        self.linger: asyncio.TimerHandle | None = None
        self._asked = self._began = self.arrived = _clock.now()
        self._life = self._fresh_for = 0.0
        self.task: asyncio.Task[Issued] = asyncio.create_task(self._run(exchange), name="mayfly-exchange")

    async def _run(self, exchange: Callable[[], Awaitable[Issued]]) -> Issued:
        return self.put(await exchange())

    def put(self, new: Issued, asked: Instant | None = None) -> Issued:
        """Stores the issued credential. Its lifetime is measured by local clocks, from before it can have been decided."""
        # An approval may have taken most of the time since the request.
        self._began = (asked or self._asked).not_before(ATTEMPT)
        self.arrived = _clock.now()
        self._life = new.life
        self._fresh_for = new.life - min(MARGIN, new.life / 5) * random.uniform(1, 2)
        self.ids.append(new.credential_id)
        self.issued = new
        return new

    @property
    def fresh(self) -> bool:
        """Whether the credential may be handed out: it is in progress, or has enough time left."""
        if self.ended:
            return False
        return not self.task.done() or (self.issued is not None and self._began.passed() < self._fresh_for)

    @property
    def left(self) -> float:
        """The remaining lifetime in seconds."""
        return self._life - self._began.passed()


class Leases:
    """The leases of one client."""

    def __init__(self, connection: Connection, timeout: float, idle: float, streams: Streams | None) -> None:
        self._connection, self._timeout, self._idle, self._streams = connection, timeout, idle, streams
        self._shared: dict[bytes, Lease] = {}
        self._all: set[Lease] = set()
        self._closed = False
        # Whether a call's own task may be opened with a `max_ttl`, so that it can be extended.
        self._extensible = True
        self.exchanges = 0
        """Exchanges that were answered with a credential."""

    async def take(self, ask: token_service_pb2.ExchangeRequest) -> Lease:
        """A credential for this request, shared where possible.

        Raises:
            MayflyError: why there is none.
        """
        for _ in range(ROUNDS):
            lease = self._join(await self._find(ask))
            try:
                await self._wait([lease])
                return lease
            except Exception:
                # What refused a batch may be another request of the batch, so this one is made again.
                if not lease.in_batch or self._closed:
                    raise
        lease = self._join(self._begin(ask))
        await self._wait([lease])
        return lease

    async def take_all(self, asks: Sequence[token_service_pb2.ExchangeRequest]) -> list[Lease]:
        """Credentials for all requests, in their order, or none. Shared ones are used where they exist; all others are
        exchanged in one call, and are shared afterwards.

        Raises:
            MayflyError: why there are none.
        """
        keys = [await self._key(ask) for ask in asks]
        for _ in range(ROUNDS):
            found = [self._shared.get(key) for key in keys if key is not None]
            under_way = [lease.task for lease in found if lease is not None and not lease.task.done()]
            if not under_way:
                break
            # Whatever becomes of them: nothing is begun yet that could be refused with them.
            await asyncio.wait(under_way)
        if self._closed:
            raise errors.Closed("the client was closed")
        leases = self._begin_all(asks, keys)
        await self._wait(leases)
        return leases

    def _join(self, lease: Lease) -> Lease:
        """Adds one holder."""
        lease.holders += 1
        if lease.linger is not None:
            lease.linger.cancel()
            lease.linger = None
        return lease

    async def _wait(self, leases: Sequence[Lease]) -> None:
        """Waits until all leases that the caller joined are issued. If one is not, the caller leaves all of them."""
        try:
            for lease in leases:
                # A cancelled caller leaves; the others continue to wait.
                await asyncio.shield(lease.task)
            if self._closed:
                raise errors.Closed("the client was closed while this waited")
        except asyncio.CancelledError:
            for lease in leases:
                self._leave(lease)
            me = asyncio.current_task()
            if any(lease.task.cancelled() for lease in leases) and not (me and me.cancelling()):
                raise errors.Closed("the client was closed while this waited") from None
            raise
        except BaseException:
            for lease in leases:
                self._leave(lease)
            raise

    async def _find(self, ask: token_service_pb2.ExchangeRequest) -> Lease:
        key = await self._key(ask)
        if self._closed:
            raise errors.Closed("the client was closed")
        if key is None:
            return self._begin(ask)
        lease = self._shared.get(key)
        if lease is not None and lease.fresh:
            return lease
        lease = self._begin(ask)
        self._share(key, lease)
        return lease

    def _share(self, key: bytes, lease: Lease) -> None:
        before = self._shared.get(key)
        if before is not None:
            self._forget(before)
        if len(self._shared) >= KEPT:
            self._forget(next(iter(self._shared.values())))
        self._shared[key] = lease
        lease.key = key

    def _begin_all(self, asks: Sequence[token_service_pb2.ExchangeRequest], keys: Sequence[bytes | None]) -> list[Lease]:
        """One lease for each request, joined. Equal requests have the same one, except where they may not share."""
        leases: dict[int, Lease] = {}
        fresh: list[int] = []
        first: dict[bytes, int] = {}
        for n, key in enumerate(keys):
            if key is not None and key in first:
                continue
            known = None
            if key is not None:
                first[key], known = n, self._shared.get(key)
            if known is not None and known.task.done() and known.fresh:
                leases[n] = known
            else:
                fresh.append(n)
        if fresh:
            batch = asyncio.create_task(self._exchange_all([asks[n] for n in fresh]), name="mayfly-exchange")
            for place, n in enumerate(fresh):
                leases[n] = self._lease(asks[n], functools.partial(_nth, batch, place), in_batch=True)
        every = [self._join(leases[n if key is None else first[key]]) for n, key in enumerate(keys)]
        for n in fresh:
            if (key := keys[n]) is not None:
                self._share(key, leases[n])
        return every

    async def _key(self, ask: token_service_pb2.ExchangeRequest) -> bytes | None:
        """The key that equal requests share; `None` for a request that is not shared. A digest, so that no token is
        stored for it."""
        if ask.WhichOneof("task") != "task_id" or ask.HasField("arguments"):
            return None
        said = ask.SerializeToString(deterministic=True)
        if ask.HasField("key_binding"):
            # Bound to the current SVID: useless after the SVID is rotated.
            said += (await self._connection.identity()).leaf_sha256
        return hashlib.sha256(said).digest()

    def _begin(self, ask: token_service_pb2.ExchangeRequest) -> Lease:
        return self._lease(ask, lambda: self._fitted([ask], lambda: self._exchanged(ask)))

    def _lease(
        self, ask: token_service_pb2.ExchangeRequest, exchange: Callable[[], Awaitable[Issued]], *, in_batch: bool = False
    ) -> Lease:
        ttl = errors.seconds(ask.ttl) if ask.HasField("ttl") else None
        lease = Lease(exchange, ask.WhichOneof("task") == "open_task", ttl, in_batch=in_batch)
        self._all.add(lease)
        lease.task.add_done_callback(lambda _: self._arrived(lease))
        return lease

    async def _fitted(self, asks: Sequence[token_service_pb2.ExchangeRequest], exchange: Callable[[], Awaitable[T]]) -> T:
        """Exchanges with tasks that can be extended, where the server allows tasks to live that long."""

        def fit() -> None:
            for ask in asks:
                ask.request_id = request_id()
                if ask.open_task.HasField("max_ttl") and not self._extensible:
                    ask.open_task.ClearField("max_ttl")

        fit()
        try:
            return await exchange()
        except errors.InvalidRequest as no:
            # The server's longest task lifetime is shorter than requested: open the task with the credential's lifetime instead.
            extensible = any(ask.open_task.HasField("max_ttl") for ask in asks)
            if not extensible or not any(v.field.endswith("max_ttl") for v in no.field_violations):
                raise
            self._extensible = False
            fit()
            return await exchange()

    async def _exchange_all(self, asks: Sequence[token_service_pb2.ExchangeRequest]) -> list[Issued]:
        return await self._fitted(asks, lambda: self._exchanged_all(asks))

    async def _exchanged_all(self, asks: Sequence[token_service_pb2.ExchangeRequest]) -> list[Issued]:
        batch = token_service_pb2.BatchExchangeRequest(exchanges=asks, all_or_nothing=True)
        stub = token_service_pb2_grpc.TokenServiceStub
        try:
            # The request ids are kept on a retry, so a repeat is answered with the same credentials.
            results = (await self._connection.unary(stub, "BatchExchange", batch, self._timeout, ATTEMPT)).results
        except errors.MayflyError as no:
            errors.name_upstream(no, [ask.upstream for ask in asks])
            raise
        try:
            if len(results) != len(asks) or any(one.WhichOneof("result") != "issued" for one in results):
                raise errors.Fault("the server answered a batch without a credential for each of its exchanges")
            every = [issued(one.issued) for one in results]
        except Exception:
            # All or none also where this client does not understand one of them.
            for one, ask in zip(results, asks, strict=False):
                if one.WhichOneof("result") == "issued":
                    own = ask.WhichOneof("task") == "open_task"
                    await self._end(own, one.issued.task_id, [one.issued.credential_id])
            raise
        self.exchanges += len(every)
        return every

    async def _exchanged(self, ask: token_service_pb2.ExchangeRequest) -> Issued:
        waits = ask.wait_for_approval.seconds + ask.wait_for_approval.nanos / 1e9
        total, attempt = self._timeout + waits, ATTEMPT + waits
        if self._streams is not None and not waits:
            streams = self._streams

            async def once(left: float) -> Any:
                try:
                    async with asyncio.timeout(min(left, attempt)):
                        return await streams.ask(ask)
                except TimeoutError:
                    raise errors.TimedOut("no answer on the stream yet") from None

            answer = await persist(once, total)
        else:
            stub = token_service_pb2_grpc.TokenServiceStub
            answer = (await self._connection.unary(stub, "Exchange", ask, total, attempt)).issued
        self.exchanges += 1
        return issued(answer)

    def _arrived(self, lease: Lease) -> None:
        if lease.task.cancelled() or lease.task.exception() is not None:
            self._forget(lease)
            self._all.discard(lease)
        elif lease.holders == 0:
            # Every caller that waited has been cancelled.
            self._unheld(lease)

    async def renew(self, lease: Lease, ttl: float | None) -> Issued:
        """Replaces a lease's credential by a new one, for all holders."""
        before = lease.issued
        async with lease.renewing:
            assert lease.issued is not None
            if lease.issued is not before:
                return lease.issued
            life = lease.ttl if ttl is None else ttl
            if lease.inline:
                await self._extend(lease, lease.issued, DEFAULT_TTL if life is None else life)
            asked = _clock.now()
            ask = token_service_pb2.RenewRequest(
                credential_id=lease.issued.credential_id, ttl=duration("ttl", life), request_id=request_id()
            )
            stub = token_service_pb2_grpc.TokenServiceStub
            new = lease.put(issued((await self._connection.unary(stub, "Renew", ask, self._timeout)).issued), asked)
            lease.ttl = life
            return new

    async def _extend(self, lease: Lease, before: Issued, life: float) -> None:
        """Extends a task that a call opened for itself, because no renewed credential outlives its task."""
        # By the server's clock, and never ahead of it.
        server_now = before.issued_at + timedelta(seconds=time.monotonic() - lease.arrived.steady)
        ask = task_service_pb2.ExtendTaskRequest(task_id=before.task_id, request_id=request_id())
        ask.deadline.FromDatetime((server_now + timedelta(seconds=life + AHEAD)).astimezone(UTC))
        stub = task_service_pb2_grpc.TaskServiceStub
        # The server refuses a deadline before the present one; then the task already lives long enough.
        with contextlib.suppress(errors.InvalidRequest):
            await self._connection.unary(stub, "ExtendTask", ask, self._timeout)

    async def leave(self, lease: Lease) -> None:
        """Removes one holder. After the last one, waits a short time for releasing, which then continues in the
        background."""
        self._leave(lease)
        if lease.given_back is not None and lease.holders == 0:
            await asyncio.wait([lease.given_back], timeout=GIVE_BACK_WAIT)

    def _leave(self, lease: Lease) -> None:
        lease.holders -= 1
        if lease.holders == 0 and lease.task.done():
            self._unheld(lease)

    def _unheld(self, lease: Lease) -> None:
        if lease.issued is None or lease.ended:
            self._all.discard(lease)
            return
        kept = lease.key is not None and self._shared.get(lease.key) is lease and lease.fresh
        if kept and self._idle > 0 and not self._closed:
            lease.linger = asyncio.get_running_loop().call_later(self._idle, self._lingered, lease)
        else:
            self._give_back(lease)

    def _lingered(self, lease: Lease) -> None:
        lease.linger = None
        if lease.holders == 0 and not lease.ended:
            self._give_back(lease)

    def _give_back(self, lease: Lease) -> None:
        if lease.ended:
            return
        lease.ended = True
        self._forget(lease)
        lease.given_back = asyncio.create_task(self._return(lease), name="mayfly-give-back")
        lease.given_back.add_done_callback(lambda _: self._all.discard(lease))

    def _forget(self, lease: Lease) -> None:
        if lease.key is not None and self._shared.get(lease.key) is lease:
            del self._shared[lease.key]
            if lease.linger is not None:
                lease.linger.cancel()
                lease.linger = None
                self._give_back(lease)

    async def _return(self, lease: Lease) -> None:
        if lease.issued is None or (lease.left <= 0 and not lease.inline):
            return
        # Releasing the first credential of a line ends its renewals; where the first one is over, the last one must be
        # released itself.
        await self._end(lease.inline, lease.issued.task_id, dict.fromkeys((lease.ids[0], lease.ids[-1])))

    async def _end(self, own_task: bool, task_id: str, credentials: Iterable[str]) -> None:
        """Completes a task that was opened for a credential, or else releases the credentials."""
        credential = ""
        try:
            if own_task:
                done = task_service_pb2.CompleteTaskRequest(task_id=task_id)
                await self._connection.unary(task_service_pb2_grpc.TaskServiceStub, "CompleteTask", done, self._timeout)
            else:
                for credential in credentials:
                    with contextlib.suppress(errors.NotActive, errors.NotFound):
                        ask = token_service_pb2.ReleaseRequest(credential_id=credential)
                        await self._connection.unary(token_service_pb2_grpc.TokenServiceStub, "Release", ask, self._timeout)
        except (errors.NotActive, errors.NotFound):
            # The credential has ended already: expired, with its task, or by a revocation.
            return
        except errors.MayflyError as wrong:
            log.warning("%s was not given back and ends by its time: %s", credential or task_id, wrong)

    def doubt(self, lease: Lease) -> None:
        """An upstream refused the credential, perhaps because it was revoked: it is not handed out again, and the next
        caller exchanges anew."""
        if lease.holders > 0:
            self._forget(lease)

    def drop_task(self, task_id: str) -> None:
        """A task is over, and with it every credential of the task."""
        for lease in list(self._all):
            if lease.issued is not None and lease.issued.task_id == task_id:
                lease.ended = True
                if lease.linger is not None:
                    lease.linger.cancel()
                    lease.linger = None
                self._forget(lease)
                if lease.holders == 0:
                    self._all.discard(lease)

    async def aclose(self) -> None:
        """Releases every credential."""
        self._closed = True
        under_way = [lease.task for lease in self._all if not lease.task.done()]
        if under_way:
            # The server may have issued a credential, and only its answer says which one to release.
            await asyncio.wait(under_way, timeout=CLOSE_WAIT)
        for lease in list(self._all):
            if not lease.task.done():
                lease.task.cancel()
            elif not lease.ended:
                self._give_back(lease)
        waits = [lease.given_back for lease in self._all if lease.given_back is not None]
        if waits:
            await asyncio.wait(waits, timeout=self._timeout)


async def _nth(batch: asyncio.Task[list[Issued]], place: int) -> Issued:
    return (await batch)[place]

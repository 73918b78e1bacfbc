"""Tasks: opened, kept alive and ended by `async with mayfly.task(...)`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Unpack

from . import errors
from ._ask import Ask, CredentialRequest
from ._credential import Credential
from .v1 import task_pb2, task_service_pb2, task_service_pb2_grpc

if TYPE_CHECKING:
    from ._client import Mayfly
    from .auth import CredentialAuth

log = logging.getLogger("mayfly")

STATES = {number: name.removeprefix("TASK_STATE_") for name, number in task_pb2.TaskState.items()}
OVER = {"COMPLETED", "CANCELLED", "EXPIRED", "REVOKED"}


class Task:
    """An open task. Every credential issued in it ends with it."""

    def __init__(self, mayfly: Mayfly, message: task_pb2.Task) -> None:
        self._mayfly = mayfly
        self._read(message)
        interval = message.terms.heartbeat_interval
        self._interval = errors.seconds(interval) if message.terms.HasField("heartbeat_interval") else None
        self._beats: asyncio.Task[None] | None = None
        self.ended = asyncio.Event()
        """Set when mayfly ended the task while this side was still working in it: a missed heartbeat, a revocation, a
        deadline."""

    def _read(self, message: task_pb2.Task) -> None:
        self.id = message.task_id
        self.state = STATES[message.state]
        self.deadline = message.deadline.ToDatetime(UTC)
        self.approval_id = message.approval_id

    def __repr__(self) -> str:
        return f"<Task {self.id} {self.state} until {self.deadline:%Y-%m-%dT%H:%M:%SZ}>"

    def credential(
        self, upstream: str, *, scope: str | Sequence[str], **ask: Unpack[Ask]
    ) -> AbstractAsyncContextManager[Credential]:
        """`Mayfly.credential` in this task."""
        return self._mayfly.credential(upstream, scope=scope, task=self.id, **ask)

    def credentials(self, requests: Sequence[CredentialRequest]) -> AbstractAsyncContextManager[tuple[Credential, ...]]:
        """`Mayfly.credentials` in this task."""
        return self._mayfly.credentials(requests, task=self.id)

    def auth(
        self, upstream: str, *, scope: str | Sequence[str], url: str | None = None, **ask: Unpack[Ask]
    ) -> AbstractAsyncContextManager[CredentialAuth]:
        """`Mayfly.auth` in this task."""
        return self._mayfly.auth(upstream, scope=scope, task=self.id, url=url, **ask)

    async def extend(self, deadline: datetime, *, wait_for_approval: float | None = None) -> None:
        """Moves the deadline, never past the maximum fixed at opening.

        Args:
            deadline: the new deadline, with its time zone.
            wait_for_approval: seconds to wait where opening needed an approval.
        """
        from ._ask import duration, request_id

        ask = task_service_pb2.ExtendTaskRequest(
            task_id=self.id,
            request_id=request_id(),
            wait_for_approval=duration("wait_for_approval", wait_for_approval),
        )
        ask.deadline.FromDatetime(deadline.astimezone(UTC))
        self._read((await self._call("ExtendTask", ask, wait_for_approval or 0.0)).task)

    async def refresh(self) -> None:
        """Reads `state` and `deadline` again."""
        self._read((await self._call("GetTask", task_service_pb2.GetTaskRequest(task_id=self.id))).task)

    def _begin(self) -> None:
        if self._interval is not None:
            self._beats = asyncio.create_task(self._beat(self._interval), name="mayfly-heartbeat")

    async def _beat(self, interval: float) -> None:
        ask = task_service_pb2.HeartbeatTaskRequest(task_id=self.id)
        while True:
            await asyncio.sleep(interval / 3)
            try:
                answer = await self._call("HeartbeatTask", ask)
                self.state = STATES[answer.state]
            except (errors.NotActive, errors.NotFound, errors.Denied) as over:
                log.warning("the task %s is over: %s", self.id, over)
                self.ended.set()
                return
            except errors.MayflyError as wrong:
                # There is time for another heartbeat before this one counts as missed.
                log.warning("no heartbeat for %s: %s", self.id, wrong)

    async def _end(self, method: str, reason: str) -> None:
        if self._beats is not None:
            self._beats.cancel()
            await asyncio.gather(self._beats, return_exceptions=True)
        kind = getattr(task_service_pb2, f"{method}Request")
        try:
            answer = await self._call(method, kind(task_id=self.id, reason=reason[:256]))
            self._read(answer.task)
        except (errors.NotActive, errors.NotFound) as over:
            log.info("the task %s had ended: %s", self.id, over)
        except errors.MayflyError as wrong:
            # The result of the body stands. The task ends at its deadline, or because heartbeats stop.
            log.warning("%s was not told to end: %s", self.id, wrong)
        finally:
            self._mayfly._leases.drop_task(self.id)

    async def _call(self, method: str, ask: Any, more: float = 0.0) -> Any:
        stub = task_service_pb2_grpc.TaskServiceStub
        timeout = self._mayfly._timeout
        return await self._mayfly._connection.unary(stub, method, ask, timeout + more, min(timeout, 5.0) + more)

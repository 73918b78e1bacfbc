"""Use reports, sent in the background: bounded, in batches, the rest at the end. Reports that cannot be sent are
counted and never waited for."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Literal

from google.protobuf import timestamp_pb2

from . import errors
from ._connection import Connection
from .v1 import audit_service_pb2, audit_service_pb2_grpc

log = logging.getLogger("mayfly")

# Most queued reports. A thousand fit into one call (audit_service.proto, ReportUseRequest.uses).
WAITING = 1000
# How long reports are collected before they are sent, seconds.
GATHER = 1.0
CALL = 5.0

Outcome = Literal["accepted", "refused", "failed"]
REFUSED = audit_service_pb2.USE_OUTCOME_REFUSED
_NUMBERS = {
    "accepted": audit_service_pb2.USE_OUTCOME_ACCEPTED,
    "refused": REFUSED,
    "failed": audit_service_pb2.USE_OUTCOME_FAILED,
}


def outcome_of(outcome: int | Outcome | None) -> audit_service_pb2.UseOutcome:
    """The outcome for an HTTP status: 401 and 403 are refused, other errors failed."""
    if outcome is None:
        outcome = "accepted"
    elif isinstance(outcome, int):
        outcome = "refused" if outcome in (401, 403) else "accepted" if outcome < 400 else "failed"
    if outcome not in _NUMBERS:
        raise ValueError(f"outcome is {outcome!r}; right would be an HTTP status or one of {', '.join(_NUMBERS)}")
    return _NUMBERS[outcome]


class Uses:
    """The use reports of one client."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: dict[tuple[str, str, int], audit_service_pb2.Use] = {}
        self._task: asyncio.Task[None] | None = None
        self._sending = asyncio.Lock()
        self._told = False
        self.sent = 0
        """Uses that mayfly counted."""
        self.dropped = 0
        """Uses that were not reported: too many were queued, or mayfly did not accept them."""

    def add(self, credential_id: str, tool: str, outcome: audit_service_pb2.UseOutcome, count: int) -> None:
        """Adds a use; equal uses are counted together."""
        key = (credential_id, tool, int(outcome))
        use = self._waiting.get(key)
        if use is None:
            if len(self._waiting) >= WAITING:
                self.dropped += count
                return
            use = self._waiting[key] = audit_service_pb2.Use(credential_id=credential_id, tool=tool, outcome=outcome)
        use.count += count
        use.at.CopyFrom(now())
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._later(), name="mayfly-uses")

    async def _later(self) -> None:
        pause = GATHER
        while self._waiting:
            await asyncio.sleep(pause)
            pause = GATHER if await self._send() else min(pause * 2, 30.0)

    async def _send(self) -> bool:
        async with self._sending:
            return await self._report()

    async def _report(self) -> bool:
        batch, self._waiting = self._waiting, {}
        uses = list(batch.values())
        try:
            async with asyncio.timeout(CALL), self._connection.on() as link:
                stub = link.stub(audit_service_pb2_grpc.AuditServiceStub)
                answer = await stub.ReportUse(audit_service_pb2.ReportUseRequest(uses=uses), timeout=CALL)
        except errors.MayflyError as wrong:
            # Uses that mayfly refused or that were never sent were not counted and may be sent again. For other errors
            # the outcome is unknown.
            again = bool(wrong.reason) or not wrong.code
            self._back(uses) if again else self._drop(uses)
            return False
        except TimeoutError:
            self._drop(uses)
            return False
        problems = {p.index: p.problem for p in answer.problems}
        for index, problem in problems.items():
            self._refused(uses[index], problem.reason, problem.message)
        self.sent += sum(use.count for index, use in enumerate(uses) if index not in problems)
        return True

    def _refused(self, use: audit_service_pb2.Use, reason: str, message: str) -> None:
        if reason == "LIMIT_REACHED":
            self._back([use])
            return
        self._drop([use])
        if not self._told:
            self._told = True
            log.info("mayfly takes no use reports from here (%s); only a server of the upstream may report: %s", reason, message)

    def _back(self, uses: list[audit_service_pb2.Use]) -> None:
        for use in uses:
            key = (use.credential_id, use.tool, use.outcome)
            if key in self._waiting:
                self._waiting[key].count += use.count
            elif len(self._waiting) < WAITING:
                self._waiting[key] = use
            else:
                self.dropped += use.count

    def _drop(self, uses: list[audit_service_pb2.Use]) -> None:
        self.dropped += sum(use.count for use in uses)

    async def aclose(self) -> None:
        """Sends the queued uses once."""
        # Lets a report in progress finish: if it were cut off, its outcome would be unknown.
        async with self._sending:
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
        if self._waiting:
            await self._send()
        self._drop(list(self._waiting.values()))
        self._waiting.clear()


def now() -> timestamp_pb2.Timestamp:
    """The present time, to the millisecond."""
    ms = time.time_ns() // 1_000_000
    return timestamp_pb2.Timestamp(seconds=ms // 1000, nanos=ms % 1000 * 1_000_000)

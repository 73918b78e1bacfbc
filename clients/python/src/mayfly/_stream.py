"""Exchanges over one stream, for high rates. There is one stream per link; a new link opens a new stream."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import grpc

from . import errors
from ._connection import Connection, Link
from .v1 import token_service_pb2, token_service_pb2_grpc

# Most exchanges in progress. The server stops reading at 1,024.
IN_FLIGHT = 512


class Stream:
    """One StreamExchange call and the callers that wait for its answers."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.over = False
        self.pending: dict[str, asyncio.Future[Any]] = {}
        self._out: asyncio.Queue[Any] = asyncio.Queue(IN_FLIGHT)
        self._call = link.stub(token_service_pb2_grpc.TokenServiceStub).StreamExchange()
        self._tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._read())]
        link.enter()

    async def ask(self, request: token_service_pb2.ExchangeRequest) -> Any:
        """Sends an exchange and waits for its answer. If an exchange with the same id is in progress, it is not sent
        again."""
        waits = self.pending.get(request.request_id)
        if waits is None:
            waits = self.pending[request.request_id] = asyncio.get_running_loop().create_future()
            await self._out.put(token_service_pb2.StreamExchangeRequest(exchange=request))
        return await asyncio.shield(waits)

    async def _write(self) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while (message := await self._out.get()) is not None:
                await self._call.write(message)
            await self._call.done_writing()

    async def _read(self) -> None:
        end: errors.MayflyError = errors.Unavailable("the stream ended")
        try:
            while (answer := await self._call.read()) is not grpc.aio.EOF:
                self._take(answer)
        except grpc.aio.AioRpcError as wrong:
            end = errors.from_rpc(wrong)
            if isinstance(end, errors.Unavailable):
                self.link.suspect = self.link.suspect or not end.reason
            elif end.reason == "SVID_NO_LONGER_VALID":
                self.link.suspect = True
        except asyncio.CancelledError:
            pass
        finally:
            self.over = True
            self.link.leave()
            self._tasks[0].cancel()
            for waits in self.pending.values():
                if not waits.done():
                    waits.set_exception(end)
                    # The caller may have been cancelled.
                    waits.exception()
            self.pending.clear()

    def _take(self, answer: token_service_pb2.StreamExchangeResponse) -> None:
        waits = self.pending.pop(answer.request_id, None)
        if waits is None or waits.done():
            return
        if answer.WhichOneof("result") == "issued":
            waits.set_result(answer.issued)
        else:
            if answer.problem.reason == "SVID_NO_LONGER_VALID":
                self.link.suspect = True
            waits.set_exception(errors.from_problem(answer.problem))
            waits.exception()

    def finish(self) -> None:
        """No further exchange follows; the stream ends when everything is answered."""
        self._tasks.append(asyncio.create_task(self._out.put(None)))

    async def aclose(self) -> None:
        self._call.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Streams:
    """Provides the current stream."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stream: Stream | None = None
        self._room = asyncio.Semaphore(IN_FLIGHT)
        self.opened = 0
        """How many streams were opened."""
        connection.on_link = self._moved

    def _moved(self, link: Link) -> None:
        # The old link is closed when its stream has ended, and the stream ends when everything is answered.
        if self._stream is not None and not self._stream.over and self._stream.link is not link:
            self._stream.finish()
            self._stream = None

    async def ask(self, request: token_service_pb2.ExchangeRequest) -> Any:
        """Makes an exchange on the current stream."""
        async with self._room:
            link = await self._connection.link()
            stream = self._stream
            if stream is None or stream.over or stream.link is not link:
                stream = self._stream = Stream(link)
                self.opened += 1
            return await stream.ask(request)

    async def aclose(self) -> None:
        if self._stream is not None:
            await self._stream.aclose()

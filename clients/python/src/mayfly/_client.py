"""The client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, Self, TypeVar, Unpack, overload

from . import _ask, _fork, _settings, errors
from ._arguments import Json
from ._ask import Ask, CredentialRequest, Kind, SubjectToken
from ._connection import ATTEMPT, Connection
from ._credential import Credential
from ._identity import POLL, source
from ._leases import CLOSE_WAIT, GIVE_BACK_WAIT, Leases
from ._secret import Secret
from ._settings import Files, WorkloadApi
from ._stream import Streams
from ._task import Task
from ._uses import Uses
from .auth import CredentialAuth
from .mcp import found, required
from .v1 import task_service_pb2, task_service_pb2_grpc

# The longest duration of one call with all its attempts, seconds, excluding the wait for an approval.
TIMEOUT = 10.0
# How long a shared credential without holders is kept, seconds.
IDLE = 5.0

T = TypeVar("T")


class Mayfly:
    """A client of one mayfly server, as one workload. Nothing is sent before the first call. The client belongs to the
    event loop of that call.

    Args:
        address: `host:port` (or `https://host:port`) of the server's workload listener.
        identity: the X.509-SVID: `Files` or `WorkloadApi`. A rotated SVID is used automatically, and no call fails
            because of it.
        server_id: the SPIFFE ID that the server must have. Left out: the server must be in the client's own trust
            domain and have the address's DNS name.
        timeout: longest duration of one call in seconds, all its attempts together.
        idle: how long a shared credential without holders is kept for the next call, in seconds; 0 releases it at once.
        stream: exchanges go over one stream, for rates of hundreds a second. Exchanges that wait for an approval never
            do.
        poll: seconds between two checks of the files of an SVID.
        require_task: every call of `task_of` and `credential` that names no task is refused, instead of opening a task
            for it. For servers whose own rights exceed those of their callers.

    Raises:
        ValueError: the address is invalid.
    """

    def __init__(
        self,
        address: str,
        identity: Files | WorkloadApi,
        *,
        server_id: str | None = None,
        timeout: float = TIMEOUT,
        idle: float = IDLE,
        stream: bool = False,
        poll: float = POLL,
        require_task: bool = False,
    ) -> None:
        host, port = _settings.address(address)
        self._timeout = timeout
        self._require_task = require_task
        self._connection = Connection(host, port, server_id, source(identity, server_id, poll))
        self._streams = Streams(self._connection) if stream else None
        self._leases = Leases(self._connection, timeout, idle, self._streams)
        self._uses = Uses(self._connection)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._env_task: str | None = None
        # Tasks that are being opened, or ended without anybody waiting.
        self._aside: set[asyncio.Task[Any]] = set()

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None, **settings: Any) -> Self:
        """A client with settings from the environment: `MAYFLY_ADDRESS`; `MAYFLY_SVID`, `MAYFLY_KEY` and
        `MAYFLY_BUNDLE` (files), else `SPIFFE_ENDPOINT_SOCKET`; `MAYFLY_SERVER_ID`; `MAYFLY_TASK`, the task of a server
        on stdio.

        Args:
            env: used instead of the process's environment.
            settings: the keyword arguments of `Mayfly`.

        Raises:
            ValueError: names the missing variable and what would be valid.
        """
        import os

        env = os.environ if env is None else env
        address, identity, server_id = _settings.from_env(env)
        settings.setdefault("server_id", server_id)
        client = cls(address, identity, **settings)
        client._env_task = env.get("MAYFLY_TASK") or None
        return client

    def __repr__(self) -> str:
        return f"<Mayfly {self._connection._host}:{self._connection._port}>"

    def _start(self) -> None:
        _fork.begin()
        loop = asyncio.get_running_loop()
        if self._closed:
            raise errors.Closed("the client was closed")
        if self._loop is None:
            self._loop = loop
            self._connection.start()
        elif self._loop is not loop:
            raise errors.Closed("the client belongs to another event loop; make one for each")

    async def __aenter__(self) -> Self:
        self._start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Releases every credential, sends the remaining use reports, and closes the connection. Further calls do
        nothing."""
        if self._closed or self._loop is None or _fork.is_copy():
            # In a forked process, everything that is open belongs to the parent.
            self._closed = True
            return
        self._closed = True
        until = time.monotonic() + CLOSE_WAIT
        # Waits for tasks that are being opened, and then for ending them.
        while self._aside and (left := until - time.monotonic()) > 0:
            await asyncio.wait(self._aside, timeout=left)
        await self._leases.aclose()
        await self._uses.aclose()
        if self._streams is not None:
            await self._streams.aclose()
        await self._connection.aclose()

    @asynccontextmanager
    async def credential(
        self,
        upstream: str,
        *,
        scope: str | Sequence[str],
        tool: str = "",
        arguments: Json | None = None,
        purpose: str = "",
        task: str | Task | None = None,
        kind: Kind | None = None,
        ttl: float | None = None,
        wait_for_approval: float | None = None,
        subject_token: SubjectToken | None = None,
        parent: Secret | str | None = None,
        binding: str = "",
        authorization_details: str = "",
        key_binding: Literal["svid"] | bytes | None = None,
        certificate_request: bytes | None = None,
        ssh_public_key: str | None = None,
        require_task: bool = False,
    ) -> AsyncIterator[Credential]:
        """A credential for one upstream, released at the end of the scope.

        Concurrent equal requests share one exchange. A later equal request gets the same credential until shortly
        before it expires. A credential for `arguments`, or with a task of its own, is never shared. A call is retried
        where that is safe, always as the same request, and never after a denial.

        Args:
            upstream: the registered upstream's name.
            scope: 1 to 8 scopes, as a list or as one text with spaces. All are granted or none.
            tool: the tool that the credential is for. It is valid for no other tool.
            arguments: the arguments of the tool call that the credential is for, a JSON object. It is valid for no
                other arguments. mayfly keeps only their digest, except sealed while an approval waits.
            purpose: the purpose, at most 512 bytes. Required where the call opens its own task.
            task: the task's id, as from `task_of`. `None` opens a task for this call in the same round trip; it ends
                with the scope.
            kind: left out: the upstream's only kind.
            ttl: lifetime in seconds, 1 to 3600. Left out: 300. The least of all bounds applies.
            wait_for_approval: seconds to wait, at most 60, where a person must approve.
            subject_token: the subject on whose behalf the credential is requested.
            parent: a mayfly credential under which this workload acts.
            binding: the binding under which to decide. Left out: any binding that permits the request.
            authorization_details: RFC 9396, a JSON array.
            key_binding: `"svid"` binds the credential to this workload's SVID; 32 bytes bind it to the JWK with that
                thumbprint.
            certificate_request: for the kind `x509`: PKCS #10, DER.
            ssh_public_key: for the kind `ssh`: in OpenSSH's format.
            require_task: a call without `task` is refused, and no task is opened.

        Raises:
            Denied: policy, a lock, a revocation or a bound refused; see `rule` and `way_out`.
            ApprovalNeeded: nobody approved in time; `approval_id` is the pending approval.
            NotActive, NotFound: the task or upstream is over, or unknown to this caller.
            InvalidRequest: a field is invalid; the error names it.
            LimitReached, Unavailable, TimedOut: no answer within `timeout`.
            IdentityError, NotAuthenticated, ServerCertificateError: one side has no certificate that the other accepts.
        """
        self._start()
        named = task.id if isinstance(task, Task) else task
        ask = _ask.exchange(
            upstream,
            scope,
            task=required(named) if require_task or self._require_task else named,
            tool=tool,
            arguments=arguments,
            purpose=purpose,
            kind=kind,
            ttl=ttl,
            wait_for_approval=wait_for_approval,
            subject_token=subject_token,
            parent=parent,
            binding=binding,
            authorization_details=authorization_details,
            key_binding=key_binding,
            certificate_request=certificate_request,
            ssh_public_key=ssh_public_key,
        )
        lease = await self._leases.take(ask)
        held = Credential(self, lease, tool)
        try:
            yield held
        finally:
            held._over = True
            await self._leases.leave(lease)

    @asynccontextmanager
    async def credentials(
        self,
        requests: Sequence[CredentialRequest],
        *,
        task: str | Task | None = None,
        require_task: bool = False,
    ) -> AsyncIterator[tuple[Credential, ...]]:
        """Up to eight credentials in one call, released at the end of the scope: all are issued or none. If one is
        refused, what upstreams had made for the others is undone, and the error's `upstream` names the one that was
        refused.

        The credentials come in the order of the requests, and are shared, retried and renewed like those of
        `credential`. A request whose credential is shared already is not sent again. Requests without a task open one
        each.

        Args:
            requests: 1 to 8 requests. They may name the same upstream.
            task: the task of all of them; `None` opens a task for each, which ends with the scope.
            require_task: a call without `task` is refused, and no task is opened.

        Raises:
            MayflyError: as `credential`. `ApprovalNeeded` is raised at once: send the same requests again once the
                approval was given.
        """
        self._start()
        requests = list(requests)
        named = task.id if isinstance(task, Task) else task
        asks = _ask.exchanges(requests, required(named) if require_task or self._require_task else named)
        leases = [await self._leases.take(asks[0])] if len(asks) == 1 else await self._leases.take_all(asks)
        held = tuple(Credential(self, lease, request.tool) for lease, request in zip(leases, requests, strict=True))
        try:
            yield held
        finally:
            for one in held:
                one._over = True
            await asyncio.gather(*(self._leases.leave(lease) for lease in leases))

    @asynccontextmanager
    async def auth(
        self,
        upstream: str,
        *,
        scope: str | Sequence[str],
        task: str | Task | None = None,
        url: str | None = None,
        **ask: Unpack[Ask],
    ) -> AsyncIterator[CredentialAuth]:
        """Authentication for an HTTP client whose session outlasts a credential: `httpx.AsyncClient(auth=...)`, and
        thus for an MCP client over HTTP. Each request carries a valid credential, which is renewed before it expires. A
        request that is answered 401 is sent once more with another credential.

        Args:
            upstream, scope, task, ask: as for `credential`, except `arguments`, which belong to a single call.
            url: requests may go to this URL's origin only. Left out: the upstream's origin. A request to another origin
                is refused before it is sent.

        Raises:
            MayflyError: from a request of the HTTP client, when no credential can be obtained any more.
        """
        if ask.get("arguments") is not None:
            raise _ask.wrong("arguments", "are those of one call; a session has many")
        how = CredentialAuth(lambda: self.credential(upstream, scope=scope, task=task, **ask), url)
        try:
            yield how
        finally:
            await how._end()

    @asynccontextmanager
    async def task(
        self,
        purpose: str,
        *,
        upstreams: Mapping[str, str | Sequence[str]],
        tools: Sequence[str] = (),
        any_tool: bool = False,
        kinds: Sequence[Kind] = (),
        callers: Sequence[str] = (),
        key_bound: bool = False,
        ttl: float | None = None,
        max_ttl: float | None = None,
        heartbeat: float | None = None,
        parent: str | Task | None = None,
        subject_token: SubjectToken | None = None,
        parent_credential: Secret | str | None = None,
        wait_for_approval: float | None = None,
    ) -> AsyncIterator[Task]:
        """Opens a task, keeps it alive, and ends it: the task is completed at the end of the scope, or cancelled if the
        scope ends with an exception.

        Args:
            purpose: the purpose, 1 to 512 bytes, for people.
            upstreams: the upstreams that the task may get credentials for, each with its scopes.
            tools: the tools that an exchange in the task may name; `any_tool` for all that policy permits.
            kinds: the credential kinds; left out: those of the upstreams.
            callers: SPIFFE IDs of further callers that may act in the task: the MCP servers that work for it.
            key_bound: every credential of the task must be bound to a key.
            ttl: lifetime in seconds. Left out: an hour.
            max_ttl: longest lifetime including extensions, in seconds.
            heartbeat: the dead man's switch, seconds, 5 to 3600: the task ends when this process sends no heartbeat for
                so long. Heartbeats are sent in the background.
            parent: the parent task. A child task is never wider than its parent.
            subject_token: the subject on whose behalf the task is opened.
            parent_credential: a mayfly credential under which this workload acts.
            wait_for_approval: seconds to wait where opening needs an approval. Without it the task may be returned in
                the state `PENDING_APPROVAL`.

        Raises:
            MayflyError: as `credential`.
        """
        self._start()
        ask = task_service_pb2.OpenTaskRequest(
            terms=_ask.terms(
                purpose=purpose,
                upstreams=upstreams,
                tools=tools,
                any_tool=any_tool,
                kinds=kinds,
                callers=callers,
                key_bound=key_bound,
                ttl=ttl,
                max_ttl=max_ttl,
                heartbeat=heartbeat,
                parent=parent.id if isinstance(parent, Task) else parent,
            ),
            subject_token=_ask.subject(subject_token),
            parent_credential=_ask.parent_credential(parent_credential),
            request_id=_ask.request_id(),
            wait_for_approval=_ask.duration("wait_for_approval", wait_for_approval),
        )
        waits = wait_for_approval or 0.0
        stub = task_service_pb2_grpc.TaskServiceStub
        opening = self._keep(self._connection.unary(stub, "OpenTask", ask, self._timeout + waits, ATTEMPT + waits))
        try:
            # A cancelled caller leaves; a task that the server opens meanwhile is ended.
            answer = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(self._never_held)
            raise
        opened = Task(self, answer.task)
        opened._begin()
        try:
            yield opened
        except BaseException as why:
            ending = self._keep(opened._end("CancelTask", type(why).__name__))
            await asyncio.wait([ending], timeout=GIVE_BACK_WAIT)
            raise
        await opened._end("CompleteTask", "")

    def _keep(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs the work to its end even if its caller leaves. Closing waits for it for a short time."""
        task = asyncio.create_task(work, name="mayfly-task")
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)
        return task

    def _never_held(self, opening: asyncio.Task[task_service_pb2.OpenTaskResponse]) -> None:
        if not opening.cancelled() and opening.exception() is None:
            self._keep(Task(self, opening.result().task)._end("CancelTask", "CancelledError"))

    @overload
    def task_of(self, ctx: object = None, *, require_task: Literal[True]) -> str: ...
    @overload
    def task_of(self, ctx: object = None, *, require_task: bool = False) -> str | None: ...
    def task_of(self, ctx: object = None, *, require_task: bool = False) -> str | None:
        """The task that an MCP tool call belongs to: the task of the inbound token; without a token, the task that
        `mayfly/task` in the request's `_meta` names; without either, `MAYFLY_TASK`. `None` where nothing names a task:
        `credential` then opens a task with all the rights of this workload.

        A task's id is not a secret: mayfly checks whether this workload may act in the task.

        Args:
            ctx: the `Context` of the official `mcp` SDK.
            require_task: a call that belongs to no task is refused, instead of opening a task for it.

        Raises:
            InvalidRequest: the named task id is malformed, or `require_task` is set and nothing names a task.
        """
        what = found(ctx)
        task = what.task if what.ours else what.task or self._env_task
        return required(task) if require_task or self._require_task else task

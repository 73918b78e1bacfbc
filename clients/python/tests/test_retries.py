"""What is sent again and what is not: against a server of the test's own, which says no in every way that mayfly can."""

from __future__ import annotations

import asyncio
import contextlib
import time

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from mayfly.v1 import issued_pb2, task_service_pb2, task_service_pb2_grpc, token_service_pb2, token_service_pb2_grpc
from world import SERVER_ID, free_port

import mayfly as m
from mayfly import Mayfly

Code = grpc.StatusCode
ECHO = {"scope": ["echo:read"], "purpose": "test"}


def refusal(code, reason, retry_after=None, message="no", field="ttl", **metadata):
    """A status as mayfly's server writes it."""
    details = [error_details_pb2.ErrorInfo(reason=reason, domain="mayfly.dev", metadata=metadata)]
    if retry_after is not None:
        details.append(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=int(retry_after * 1e9))))
    if code is Code.INVALID_ARGUMENT:
        wrong = error_details_pb2.BadRequest.FieldViolation(field=field, description="is 7 days; right would be 1 s to 1 h")
        details.append(error_details_pb2.BadRequest(field_violations=[wrong]))
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return code, status.SerializeToString()


def issued_for(letter):
    """A credential, the ids of which are made of a letter."""
    issued = issued_pb2.Issued(credential_id="cred_" + letter * 26, task_id="task_" + letter * 26, kind=1)
    issued.bearer_token.token, issued.bearer_token.header_name = "secret-token", "authorization"
    issued.issued_at.GetCurrentTime()
    issued.expires_at.FromSeconds(issued.issued_at.seconds + 300)
    return issued


class Double(token_service_pb2_grpc.TokenServiceServicer, task_service_pb2_grpc.TaskServiceServicer):
    """Answers exchanges with what is left in `answers`, then with a credential; slow where that is a number."""

    def __init__(self):
        self.answers, self.asked, self.completed, self.metadata = [], [], [], []
        self.batches, self.spoil = [], lambda results: results

    async def Exchange(self, request, context):
        self.asked.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        await self._refuse(context)
        return token_service_pb2.ExchangeResponse(issued=issued_for("a"))

    async def BatchExchange(self, request, context):
        self.batches.append(request)
        await self._refuse(context)
        results = [token_service_pb2.ExchangeResult(issued=issued_for("abcdefgh"[n])) for n in range(len(request.exchanges))]
        return token_service_pb2.BatchExchangeResponse(results=self.spoil(results))

    async def _refuse(self, context):
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, float):
            await asyncio.sleep(answer)
        elif answer is not None:
            code, details = answer
            if details:
                context.set_trailing_metadata((("grpc-status-details-bin", details),))
            await context.abort(code, status_pb2.Status.FromString(details).message or "no")

    async def CompleteTask(self, request, context):
        self.completed.append(request.task_id)
        return task_service_pb2.CompleteTaskResponse()


@pytest.fixture
async def double(world, tmp_path):
    """The double behind mTLS, and a client of it."""
    chain, key = world.make("mayfly", dns=("localhost",))
    double, port = Double(), free_port()
    server = grpc.aio.server()
    token_service_pb2_grpc.add_TokenServiceServicer_to_server(double, server)
    task_service_pb2_grpc.add_TaskServiceServicer_to_server(double, server)
    tls = grpc.ssl_server_credentials([(key, chain)], world.bundle.read_bytes(), require_client_auth=True)
    server.add_secure_port(f"127.0.0.1:{port}", tls)
    await server.start()
    env = world.svid("agent/demo", at=tmp_path / "s") | {"MAYFLY_ADDRESS": f"127.0.0.1:{port}", "MAYFLY_SERVER_ID": SERVER_ID}
    async with Mayfly.from_env(env, timeout=5) as double.client:
        yield double
    await server.stop(0)


async def one(double):
    async with double.client.credential("echo", **ECHO) as cred:
        return cred.credential_id


AGAIN = [
    (Code.UNAVAILABLE, b""),
    refusal(Code.UNAVAILABLE, "NOT_READY"),
    refusal(Code.UNAVAILABLE, "CLOCK_SKEW"),
    refusal(Code.ABORTED, "DECIDED_ON_OLD_STATE"),
    refusal(Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    refusal(Code.RESOURCE_EXHAUSTED, "LIMIT_REACHED", retry_after=0.1),
    refusal(Code.RESOURCE_EXHAUSTED, "DISK_RESERVE", retry_after=0.1),
    (Code.CANCELLED, b""),
]


@pytest.mark.parametrize("answer", AGAIN, ids=lambda a: a[0].name)
async def test_the_same_request_is_sent_again(double, answer):
    double.answers = [answer, answer]
    assert await one(double)
    assert len(double.asked) == 3 and len({r.request_id for r in double.asked}) == 1
    assert len({r.SerializeToString(deterministic=True) for r in double.asked}) == 1
    assert len(double.completed) == 1


NEVER = [
    (refusal(Code.PERMISSION_DENIED, "DENIED_BY_POLICY", rule="r", way_out="ask the owner"), m.Denied),
    (refusal(Code.PERMISSION_DENIED, "LOCKED"), m.Denied),
    (refusal(Code.FAILED_PRECONDITION, "APPROVAL_NEEDED", approval_id="appr_1"), m.ApprovalNeeded),
    (refusal(Code.FAILED_PRECONDITION, "TASK_NOT_ACTIVE"), m.NotActive),
    (refusal(Code.NOT_FOUND, "NOT_FOUND"), m.NotFound),
    (refusal(Code.INVALID_ARGUMENT, "INVALID_FIELD"), m.InvalidRequest),
    (refusal(Code.UNAUTHENTICATED, "NOT_AUTHENTICATED"), m.NotAuthenticated),
    (refusal(Code.UNIMPLEMENTED, "NOT_SERVED"), m.NotServed),
    ((Code.INTERNAL, b""), m.Fault),
    ((Code.PERMISSION_DENIED, b""), m.Denied),
]


@pytest.mark.parametrize(("answer", "error"), NEVER, ids=lambda a: getattr(a, "__name__", None))
async def test_a_refusal_is_sent_once_and_says_why(double, answer, error):
    double.answers = [answer]
    with pytest.raises(error) as no:
        await one(double)
    assert len(double.asked) == 1 and no.value.code == answer[0].name and "secret-token" not in str(no.value)
    if error is m.ApprovalNeeded:
        assert no.value.approval_id == "appr_1"
    if error is m.InvalidRequest:
        assert no.value.field_violations == (m.FieldViolation("ttl", "is 7 days; right would be 1 s to 1 h"),)
    if no.value.rule:
        assert str(no.value) == "DENIED_BY_POLICY: no (rule: r); ask the owner"


async def test_who_should_come_back_later_than_the_deadline_does_not_wait(double):
    double.answers = [refusal(Code.RESOURCE_EXHAUSTED, "LIMIT_REACHED", retry_after=0.9)] * 9
    began = time.monotonic()
    with pytest.raises(m.LimitReached) as no:
        await one(double)
    assert time.monotonic() - began <= 5.2 and 2 <= len(double.asked) <= 6 and no.value.retry_after == pytest.approx(0.9)


async def test_an_answer_that_is_late_for_one_attempt_is_asked_for_again(double, monkeypatch):
    monkeypatch.setattr("mayfly._leases.ATTEMPT", 0.3)
    double.answers = [1.0]
    assert await one(double)
    assert len(double.asked) == 2 and len({r.request_id for r in double.asked}) == 1


async def test_a_server_that_only_waits_times_out(double, monkeypatch):
    monkeypatch.setattr("mayfly._leases.ATTEMPT", 1.0)
    double.client._leases._timeout = 1.5
    double.answers = [9.0] * 9
    began = time.monotonic()
    with pytest.raises(m.TimedOut):
        await one(double)
    assert time.monotonic() - began < 2.0


async def test_whoever_gives_up_waiting_ends_at_once(double):
    double.answers = [9.0]
    waiting = asyncio.create_task(one(double))
    await asyncio.sleep(0.3)
    began = time.monotonic()
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    assert time.monotonic() - began < 0.2

"""Typed errors. Everything that this package raises for a server's answer is a `MayflyError`.

A refusal says why: `reason` from mayfly's closed list, the `rule` that refused, and the `way_out`: who can change that,
and the command for it. No message contains a token, a key or an argument.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from .v1 import types_pb2

DETAILS = "grpc-status-details-bin"
DOMAIN = "mayfly.dev"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """An invalid field of the request."""

    field: str
    """The field's path in the request, like `open_task.upstreams`."""
    description: str
    """What is wrong and what would be valid."""


class MayflyError(Exception):
    """The base of all errors.

    Attributes:
        message: what was refused or failed, for people.
        code: the gRPC status's name, like `PERMISSION_DENIED`; empty where no server answered.
        reason: one of mayfly's closed list, like `DENIED_BY_POLICY`; empty where mayfly did not refuse.
        rule: the rule that refused: a sequence number, a policy's id, the name of a bound. May be empty.
        way_out: who can change that, and the command for it. May be empty.
        approval_id: the pending approval. Empty except for `ApprovalNeeded`.
        field_violations: the invalid fields.
        retry_after: seconds until a retry may succeed; `None` where the server does not say.
        upstream: of several credentials asked for at once, the upstream of the one that was refused. Empty otherwise.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        reason: str = "",
        rule: str = "",
        way_out: str = "",
        approval_id: str = "",
        field_violations: tuple[FieldViolation, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.rule = rule
        self.way_out = way_out
        self.approval_id = approval_id
        self.field_violations = field_violations
        self.retry_after = retry_after
        self.upstream = ""

    def __str__(self) -> str:
        text = f"{self.reason}: {self.message}" if self.reason else self.message
        if self.rule:
            text += f" (rule: {self.rule})"
        if self.way_out:
            text += f"; {self.way_out}"
        return text


class Denied(MayflyError):
    """Policy, a lock, a revocation or a bound refused. Not retried: the same request gets the same answer."""


class ApprovalNeeded(MayflyError):
    """A person must approve first; `approval_id` is the pending approval. Send the same request again once the approval
    was given."""


class NotActive(MayflyError):
    """The task, credential or upstream is over, held or not approved, or no lifetime is left."""


class NotFound(MayflyError):
    """No such task, credential or upstream, as far as this caller may know."""


class InvalidRequest(MayflyError, ValueError):
    """A field is invalid; `field_violations` says which one and what would be valid."""


class NotAuthenticated(MayflyError):
    """mayfly does not accept the SVID."""


class LimitReached(MayflyError):
    """A bound was reached; `retry_after` says when to retry."""


class NotServed(MayflyError):
    """This server does not implement the request."""


class Fault(MayflyError):
    """A fault of mayfly; the message has a number to give to its operator."""


class Unavailable(MayflyError):
    """No server answered before the deadline. As far as is known, nothing was done."""


class TimedOut(Unavailable):
    """The deadline passed. It is unknown whether the request was carried out; a credential or task that it may have
    created ends on its own."""


class IdentityError(MayflyError):
    """There is no usable X.509-SVID: files that do not match, or no answer from the SPIFFE Workload API."""


class ServerCertificateError(MayflyError):
    """The server's certificate is not acceptable: another SPIFFE ID, another trust domain, or no DNS name besides the
    URI."""


class Closed(MayflyError):
    """The client was closed, or belongs to another event loop."""


_BY_REASON: dict[str, type[MayflyError]] = {
    "APPROVAL_NEEDED": ApprovalNeeded,
    "TASK_NOT_ACTIVE": NotActive,
    "CREDENTIAL_NOT_ACTIVE": NotActive,
    "UPSTREAM_NOT_ACTIVE": NotActive,
    "NO_LIFE_LEFT": NotActive,
    "DISK_RESERVE": Unavailable,
}
_BY_CODE: dict[int, type[MayflyError]] = {
    # Sent by a server that is shutting down: no caller on this side cancelled.
    1: Unavailable,
    3: InvalidRequest,
    4: TimedOut,
    5: NotFound,
    6: InvalidRequest,
    7: Denied,
    8: LimitReached,
    9: Denied,
    10: Unavailable,
    11: InvalidRequest,
    12: NotServed,
    14: Unavailable,
    16: NotAuthenticated,
}
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


def of(code: int, message: str, reason: str = "", **more: Any) -> MayflyError:
    """The error for a status code and a reason."""
    kind = _BY_REASON.get(reason) or _BY_CODE.get(code, Fault)
    if kind is Fault and "RST_STREAM" in message:
        kind = Unavailable
    return kind(message, code=_NAMES.get(code, str(code)), reason=reason, **more)


def seconds(duration: duration_pb2.Duration) -> float:
    """A duration as seconds."""
    return duration.seconds + duration.nanos / 1e9


def from_problem(problem: types_pb2.Problem) -> MayflyError:
    """The error of one item of a stream or batch."""
    fields = tuple(FieldViolation(v.field, v.description) for v in problem.field_violations)
    after = seconds(problem.retry_after) if problem.HasField("retry_after") else None
    return of(
        problem.code,
        problem.message,
        problem.reason,
        rule=problem.rule,
        way_out=problem.way_out,
        approval_id=problem.approval_id,
        field_violations=fields,
        retry_after=after,
    )


# The name that the server gives to an exchange of a batch.
_PLACE = re.compile(r"exchanges\[(\d{1,3})\]")


def name_upstream(error: MayflyError, upstreams: Sequence[str]) -> None:
    """Names the upstream where the server named the place of its exchange in the batch."""
    said = (error.message, *(v.field for v in error.field_violations))
    place = next((found for found in map(_PLACE.match, said) if found), None)
    if place is None or int(place[1]) >= len(upstreams):
        return
    error.upstream = upstreams[int(place[1])]

    def named(text: str) -> str:
        return error.upstream + text[place.end() :] if text.startswith(place[0]) else text

    _reword(error, named(error.message), [named(v.field) for v in error.field_violations])


def of_request(error: MayflyError, upstream: str, place: str) -> None:
    """Says to which of several requests an error belongs that was found before anything was sent."""
    name, error.upstream = upstream or place, upstream
    _reword(error, f"{name}: {error.message}", [f"{name}.{v.field}" for v in error.field_violations])


def _reword(error: MayflyError, message: str, fields: Sequence[str]) -> None:
    error.message, error.args = message, (message,)
    renamed = zip(fields, error.field_violations, strict=True)
    error.field_violations = tuple(FieldViolation(name, v.description) for name, v in renamed)


def from_rpc(error: grpc.aio.AioRpcError) -> MayflyError:
    """The error of a failed call, with the details of its google.rpc.Status."""
    code = int(error.code().value[0])
    message = error.details() or error.code().name
    status = status_pb2.Status()
    for name, value in error.trailing_metadata() or ():
        if name == DETAILS and isinstance(value, bytes):
            status.ParseFromString(value)
    reason, more = "", {}
    fields: list[FieldViolation] = []
    after: float | None = None
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(info) and info.domain == DOMAIN:
            reason = info.reason
            more = {name: info.metadata.get(name, "") for name in ("rule", "way_out", "approval_id")}
        elif detail.Unpack(bad):
            fields += [FieldViolation(v.field, v.description) for v in bad.field_violations]
        elif detail.Unpack(retry):
            after = seconds(retry.retry_delay)
    return of(code, message, reason, field_violations=tuple(fields), retry_after=after, **more)

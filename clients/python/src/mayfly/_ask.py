"""Builds requests: converts Python values to the API's messages and checks them before anything is sent."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import Literal, TypedDict, cast

from google.protobuf import duration_pb2

from ._arguments import Json, canonical
from ._secret import Secret, revealed
from .errors import FieldViolation, InvalidRequest, of_request
from .v1 import task_pb2, token_service_pb2, types_pb2

Kind = Literal["jwt", "reference", "x509", "ssh", "postgres", "oauth", "aws", "github", "secret", "mysql", "redis", "federation"]

_SUBJECT_TOKENS = {
    "jwt-svid": types_pb2.SUBJECT_TOKEN_TYPE_JWT_SVID,
    "oidc": types_pb2.SUBJECT_TOKEN_TYPE_OIDC,
    "mayfly": types_pb2.SUBJECT_TOKEN_TYPE_MAYFLY,
}


@dataclass(frozen=True, slots=True)
class SubjectToken:
    """A subject token: the subject on whose behalf the caller acts (RFC 8693).

    Attributes:
        token: as received; never forwarded to an upstream.
        type: a JWT-SVID, a token of an OIDC issuer, or a mayfly credential.
    """

    token: Secret | str = field(repr=False)
    type: Literal["jwt-svid", "oidc", "mayfly"]


class Ask(TypedDict, total=False):
    """The keyword arguments of `Mayfly.credential` besides upstream, scope and task."""

    tool: str
    arguments: Json | None
    purpose: str
    kind: Kind | None
    ttl: float | None
    wait_for_approval: float | None
    subject_token: SubjectToken | None
    parent: Secret | str | None
    binding: str
    authorization_details: str
    key_binding: Literal["svid"] | bytes | None
    certificate_request: bytes | None
    ssh_public_key: str | None


def wrong(name: str, what: str) -> InvalidRequest:
    """The error for a field that is invalid before it is sent."""
    return InvalidRequest(f"{name}: {what}", reason="INVALID_FIELD", field_violations=(FieldViolation(name, what),))


def duration(name: str, seconds: float | None) -> duration_pb2.Duration | None:
    """Seconds as a duration, to the millisecond."""
    if seconds is None:
        return None
    if not 0 <= seconds <= 7 * 24 * 3600:
        raise wrong(name, f"{seconds} is no number of seconds up to a week")
    whole = round(seconds * 1000)
    return duration_pb2.Duration(seconds=whole // 1000, nanos=whole % 1000 * 1_000_000)


def names(name: str, given: str | Sequence[str]) -> list[str]:
    """A list of names; a text is split at its spaces, as OAuth writes scopes."""
    return given.split() if isinstance(given, str) else list(given)


def kind_of(kind: Kind | None) -> types_pb2.CredentialKind:
    """The kind's number."""
    if kind is None:
        return types_pb2.CREDENTIAL_KIND_UNSPECIFIED
    try:
        return cast("types_pb2.CredentialKind", types_pb2.CredentialKind.Value(f"CREDENTIAL_KIND_{kind.upper()}"))
    except ValueError:
        raise wrong("kind", f"{kind!r} is none that this client knows") from None


def request_id() -> str:
    """A request id, the same for all attempts of a request, which makes retries safe."""
    return f"py-{uuid.uuid4().hex}"


def terms(
    *,
    purpose: str,
    upstreams: Mapping[str, str | Sequence[str]],
    tools: Sequence[str] = (),
    any_tool: bool = False,
    kinds: Sequence[Kind] = (),
    callers: Sequence[str] = (),
    key_bound: bool = False,
    ttl: float | None = None,
    max_ttl: float | None = None,
    heartbeat: float | None = None,
    parent: str | None = None,
) -> task_pb2.TaskTerms:
    """The terms of a task."""
    if not purpose:
        raise wrong("purpose", "is empty; a task says what it is for: people read it in approvals and in the audit")
    if not upstreams:
        raise wrong("upstreams", "is empty; right would be a mapping of an upstream's name to its scopes")
    return task_pb2.TaskTerms(
        purpose=purpose,
        upstreams=[task_pb2.Allowance(upstream=u, scopes=names("upstreams", s)) for u, s in upstreams.items()],
        tools=list(tools),
        any_tool=any_tool,
        kinds=[kind_of(k) for k in kinds],
        callers=list(callers),
        key_bound=key_bound,
        ttl=duration("ttl", ttl),
        max_ttl=duration("max_ttl", max_ttl),
        heartbeat_interval=duration("heartbeat", heartbeat),
        parent_task_id=parent or "",
    )


def subject(token: SubjectToken | None) -> types_pb2.SubjectToken | None:
    """The subject token as a message."""
    if token is None:
        return None
    return types_pb2.SubjectToken(token=revealed(token.token), type=_SUBJECT_TOKENS[token.type])


def parent_credential(parent: Secret | str | None) -> types_pb2.ParentCredential | None:
    """The parent credential as a message."""
    return None if parent is None else types_pb2.ParentCredential(token=revealed(parent))


def exchange(
    upstream: str,
    scope: str | Sequence[str],
    *,
    task: str | None,
    tool: str = "",
    arguments: Json | None = None,
    purpose: str = "",
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
) -> token_service_pb2.ExchangeRequest:
    """An exchange without a request id. Without a task it opens one that allows exactly this exchange."""
    scopes = names("scope", scope)
    if not upstream:
        raise wrong("upstream", "is empty; right would be a registered upstream's name")
    if not scopes:
        raise wrong("scope", "is empty; right would be 1 to 8 scopes")
    if task == "":
        # A task id that was lost must not be treated as a request for a new task, which would have all the rights of
        # this workload.
        raise wrong("task", "is empty; right would be a task's id, or None for a task of its own")
    ask = token_service_pb2.ExchangeRequest(
        upstream=upstream,
        scopes=scopes,
        kind=kind_of(kind),
        ttl=duration("ttl", ttl),
        tool=tool,
        purpose=purpose,
        subject_token=subject(subject_token),
        parent_credential=parent_credential(parent),
        authorization_details=authorization_details,
        binding=binding,
        wait_for_approval=duration("wait_for_approval", wait_for_approval),
    )
    if arguments is not None:
        ask.arguments.json = canonical(arguments).decode()
    if key_binding == "svid":
        ask.key_binding.caller_svid.SetInParent()
    elif isinstance(key_binding, bytes):
        ask.key_binding.jwk_thumbprint = key_binding
    elif key_binding is not None:
        raise wrong("key_binding", f"{key_binding!r}; right would be 'svid' or a JWK's SHA-256 thumbprint, 32 bytes")
    if certificate_request is not None:
        ask.certificate_request = certificate_request
    if ssh_public_key is not None:
        ask.ssh_public_key = ssh_public_key
    if task is not None:
        ask.task_id = task
    else:
        # The task lives as long as the credential, and is extended with its renewal: see `Leases.renew`.
        own = terms(
            purpose=purpose,
            upstreams={upstream: scopes},
            tools=[tool] if tool else [],
            ttl=ttl or DEFAULT_TTL,
            max_ttl=max(ttl or DEFAULT_TTL, LONGEST_WORK),
        )
        if kind is not None:
            own.kinds.append(kind_of(kind))
        ask.open_task.CopyFrom(own)
    return ask


# Most credentials of one call: as many as `mayfly get` and `mayfly exec` ask for at once.
AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class CredentialRequest:
    """One of the credentials that `Mayfly.credentials` gets in one call. The fields are the arguments of
    `Mayfly.credential`, except the task, which is that of the call, and `wait_for_approval`: a call for several
    credentials does not wait for an approval."""

    upstream: str
    _: KW_ONLY
    scope: str | Sequence[str]
    tool: str = ""
    arguments: Json | None = field(default=None, repr=False)
    purpose: str = ""
    kind: Kind | None = None
    ttl: float | None = None
    subject_token: SubjectToken | None = None
    parent: Secret | str | None = field(default=None, repr=False)
    binding: str = ""
    authorization_details: str = ""
    key_binding: Literal["svid"] | bytes | None = None
    certificate_request: bytes | None = None
    ssh_public_key: str | None = None


def exchanges(requests: Sequence[CredentialRequest], task: str | None) -> list[token_service_pb2.ExchangeRequest]:
    """The exchanges for several requests. An error names the request that is wrong."""
    if not 1 <= len(requests) <= AT_ONCE:
        raise wrong("requests", f"are {len(requests)}; right would be 1 to {AT_ONCE}")
    asks = []
    for n, request in enumerate(requests):
        try:
            asks.append(exchange(**{f.name: getattr(request, f.name) for f in fields(request)}, task=task))
        except InvalidRequest as no:
            of_request(no, request.upstream, f"requests[{n}]")
            raise
    return asks


# Longest lifetime, including extensions, of a task that a call opens for itself, seconds: the longest that a server allows
# (`limits.task_ttl`).
LONGEST_WORK = 24 * 3600.0
# The lifetime of a credential without a requested one, seconds (token_service.proto, ExchangeRequest.ttl).
DEFAULT_TTL = 300.0

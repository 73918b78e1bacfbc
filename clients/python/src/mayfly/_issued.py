"""An issued credential. Every secret in it is hidden."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from ._secret import Secret
from .v1 import issued_pb2, types_pb2


@dataclass(frozen=True, slots=True)
class BearerToken:
    """A token for an HTTP header, to be sent to `base_url` and nowhere else."""

    token: Secret
    header_name: str
    scheme: str
    base_url: str


@dataclass(frozen=True, slots=True)
class DatabaseLogin:
    """A login to a database. `server_ca_pem`: roots for verifying the server; empty for those of the system. `plaintext`:
    the server takes no TLS, as only one on the host of mayfly may."""

    host: str
    port: int
    database: str
    user: str
    password: Secret
    server_ca_pem: str
    plaintext: bool = False


@dataclass(frozen=True, slots=True)
class Certificate:
    """An X.509 certificate for the key of the request: DER, leaf first, and its root."""

    chain: tuple[bytes, ...]
    root: bytes


@dataclass(frozen=True, slots=True)
class SshCertificate:
    """An SSH certificate for the key of the request, in OpenSSH's format."""

    certificate: str
    authority: str
    principals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """Temporary AWS keys."""

    access_key_id: str
    secret_access_key: Secret
    session_token: Secret
    region: str


@dataclass(frozen=True, slots=True)
class StaticSecret:
    """A static secret that is not used in a header. `value.reveal()` is its bytes as Latin-1 text; `.encode("latin-1")`
    gives the bytes."""

    value: Secret


Answer = BearerToken | DatabaseLogin | Certificate | SshCertificate | AwsKeys | StaticSecret


@dataclass(frozen=True, slots=True)
class Issued:
    """One credential."""

    answer: Answer
    credential_id: str
    task_id: str
    kind: str
    upstream: str
    scopes: tuple[str, ...]
    expires_at: datetime
    issued_at: datetime
    renewable_until: datetime | None
    bound_by: str
    approval_id: str
    irrevocable: bool
    seq: int = field(repr=False)
    decision_revision: int = field(repr=False)

    @property
    def life(self) -> float:
        """The lifetime in seconds, from the decision to the expiry, by the server's clock."""
        return (self.expires_at - self.issued_at).total_seconds()


def _answer(m: issued_pb2.Issued) -> Answer:
    match m.WhichOneof("answer"):
        case "bearer_token":
            b = m.bearer_token
            return BearerToken(Secret(b.token), b.header_name, b.scheme, b.base_url)
        case "database_login":
            d = m.database_login
            return DatabaseLogin(d.host, d.port, d.database, d.user, Secret(d.password), d.server_ca_pem, d.plaintext)
        case "certificate":
            return Certificate(tuple(m.certificate.chain), m.certificate.root)
        case "ssh_certificate":
            s = m.ssh_certificate
            return SshCertificate(s.certificate, s.authority, tuple(s.principals))
        case "aws_keys":
            a = m.aws_keys
            return AwsKeys(a.access_key_id, Secret(a.secret_access_key), Secret(a.session_token), a.region)
        case "static_secret":
            return StaticSecret(Secret(m.static_secret.value.decode("latin-1")))
        case other:
            raise ValueError(f"the server answered with a {other} that this client does not know")


def issued(m: issued_pb2.Issued) -> Issued:
    """Converts an answer from the wire."""
    return Issued(
        answer=_answer(m),
        credential_id=m.credential_id,
        task_id=m.task_id,
        kind=types_pb2.CredentialKind.Name(m.kind).removeprefix("CREDENTIAL_KIND_").lower(),
        upstream=m.upstream,
        scopes=tuple(m.scopes),
        expires_at=m.expires_at.ToDatetime(UTC),
        issued_at=m.issued_at.ToDatetime(UTC),
        renewable_until=m.renewable_until.ToDatetime(UTC) if m.HasField("renewable_until") else None,
        bound_by=m.bound_by,
        approval_id=m.approval_id,
        irrevocable=m.irrevocable,
        seq=m.seq,
        decision_revision=m.decision_revision,
    )

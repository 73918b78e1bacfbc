"""mayfly: credentials that live no longer than the task they were made for.

    mayfly = Mayfly.from_env()
    async with mayfly.credential("github", scope=["issues:write"], tool="create_issue", purpose="file a bug") as cred:
        response = await http.post(f"{cred.base_url}/repos/...", headers=cred.headers)
        cred.used(outcome=response.status_code)

`Mayfly` gets credentials and opens tasks. `mayfly.verify.Verifier` checks them for relying services,
`mayfly.asgi.MayflyMiddleware` does it for an ASGI application, and `mayfly.mcp` is for servers on the official `mcp` SDK.
All of it is asyncio.
"""

from __future__ import annotations

from . import _environment, errors  # noqa: F401  # isort: skip
from ._arguments import arguments_sha256, arguments_sha256_of_json
from ._ask import Ask, CredentialRequest, Kind, SubjectToken
from ._client import Mayfly
from ._credential import Credential
from ._issued import (
    Answer,
    AwsKeys,
    BearerToken,
    Certificate,
    DatabaseLogin,
    Issued,
    SshCertificate,
    StaticSecret,
)
from ._secret import Secret, SecretHeaders
from ._settings import Files, WorkloadApi
from ._task import Task
from .auth import CredentialAuth
from .errors import (
    ApprovalNeeded,
    Closed,
    Denied,
    Fault,
    FieldViolation,
    IdentityError,
    InvalidRequest,
    LimitReached,
    MayflyError,
    NotActive,
    NotAuthenticated,
    NotFound,
    NotServed,
    ServerCertificateError,
    TimedOut,
    Unavailable,
)

__all__ = [
    "Answer",
    "ApprovalNeeded",
    "Ask",
    "AwsKeys",
    "BearerToken",
    "Certificate",
    "Closed",
    "Credential",
    "CredentialAuth",
    "CredentialRequest",
    "DatabaseLogin",
    "Denied",
    "Fault",
    "FieldViolation",
    "Files",
    "IdentityError",
    "InvalidRequest",
    "Issued",
    "Kind",
    "LimitReached",
    "Mayfly",
    "MayflyError",
    "NotActive",
    "NotAuthenticated",
    "NotFound",
    "NotServed",
    "Secret",
    "SecretHeaders",
    "ServerCertificateError",
    "SshCertificate",
    "StaticSecret",
    "SubjectToken",
    "Task",
    "TimedOut",
    "Unavailable",
    "WorkloadApi",
    "arguments_sha256",
    "arguments_sha256_of_json",
    "errors",
]

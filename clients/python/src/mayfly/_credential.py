"""The credential object in the body of `async with mayfly.credential(...)`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NoReturn

from ._issued import Answer, BearerToken, Issued
from ._leases import Lease
from ._secret import Secret, SecretHeaders
from ._uses import REFUSED, Outcome, outcome_of
from .errors import Closed

if TYPE_CHECKING:
    from ._client import Mayfly


class Credential:
    """A credential for the duration of its scope. Its `repr` shows no secret; it cannot be serialized as JSON or
    pickled."""

    __slots__ = ("_lease", "_mayfly", "_over", "_tool")

    def __init__(self, mayfly: Mayfly, lease: Lease, tool: str) -> None:
        self._mayfly, self._lease, self._tool = mayfly, lease, tool
        self._over = False

    @property
    def _issued(self) -> Issued:
        if self._over:
            raise Closed("the credential was given back at the end of its scope")
        assert self._lease.issued is not None
        return self._lease.issued

    @property
    def _bearer(self) -> BearerToken:
        answer = self._issued.answer
        if not isinstance(answer, BearerToken):
            raise TypeError(f"a credential of kind {self._issued.kind} has no token for a header; see `answer`")
        return answer

    @property
    def headers(self) -> SecretHeaders:
        """The header to send, for `headers=` of an HTTP client: to `base_url` and nowhere else. Read it for each
        request, since it changes with renewals.

        Raises:
            TypeError: the kind has no token for a header.
        """
        b = self._bearer
        token = b.token.reveal()
        return SecretHeaders({b.header_name: f"{b.scheme} {token}" if b.scheme else token})

    @property
    def base_url(self) -> str:
        """The base URL of the upstream, without a trailing slash."""
        return self._bearer.base_url.rstrip("/")

    @property
    def token(self) -> Secret:
        """The token itself; `token.reveal()` gives the text."""
        return self._bearer.token

    @property
    def answer(self) -> Answer:
        """The issued credential by its kind: a bearer token, a database login, a certificate, AWS keys, a static
        secret."""
        return self._issued.answer

    @property
    def expires_at(self) -> datetime:
        """The expiry, UTC by the server's clock."""
        return self._issued.expires_at

    @property
    def expires_in(self) -> float:
        """The remaining lifetime in seconds, by the wall clock or the monotonic clock, whichever gives less."""
        return max(0.0, self._lease.left)

    @property
    def credential_id(self) -> str:
        """The credential's id. Not a secret."""
        return self._issued.credential_id

    @property
    def task_id(self) -> str:
        """The credential's task, also where this call opened it."""
        return self._issued.task_id

    @property
    def issued(self) -> Issued:
        """The server's whole answer."""
        return self._issued

    def used(self, outcome: int | Outcome | None = None, *, count: int = 1) -> None:
        """Reports a use in the background. mayfly accepts reports from servers of the upstream only, and aggregates
        them by minute. A credential whose use was refused is not shared any further: the next call asks mayfly again.

        Args:
            outcome: an HTTP status, or `"accepted"`, `"refused"`, `"failed"` (accepted, and failed). Left out:
                accepted.
            count: the number of uses.
        """
        if count < 1:
            raise ValueError(f"count is {count}; right would be at least 1")
        how = outcome_of(outcome)
        self._mayfly._uses.add(self.credential_id, self._tool, how, count)
        if how == REFUSED:
            self._mayfly._leases.doubt(self._lease)

    def _doubt(self) -> None:
        self._mayfly._leases.doubt(self._lease)

    async def renew(self, *, ttl: float | None = None) -> None:
        """Replaces this credential by a new one for the same request, decided anew and never past
        `issued.renewable_until`. `headers`, `token` and the other properties then belong to the new credential; the old
        one stays valid until it expires. A task that the call opened for itself is extended too.

        Args:
            ttl: lifetime of the new credential in seconds; left out: as requested for the old one.

        Raises:
            NotActive: the credential has ended or cannot be renewed.
            Denied: policy refuses now.
        """
        _ = self._issued
        await self._mayfly._leases.renew(self._lease, ttl)

    def __repr__(self) -> str:
        issued = self._lease.issued
        return (
            f"<Credential {issued.credential_id} for {issued.upstream} until {issued.expires_at:%H:%M:%S}Z>"
            if issued
            else "<Credential>"
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Credential is not written anywhere: it cannot be pickled")

"""Verification for relying services: checks credentials offline, and follows revocations. Fails closed.

The order of checks: the rule of the signing key; signature, issuer, audience, lifetime and possession; the revocation
rules against the token's decision revision; the requirements of the use. Without a complete and fresh feed everything
is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import secrets
import socket
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Self

from tenacity import wait_random_exponential

from . import _fork, errors
from ._arguments import Json, arguments_sha256
from ._client import Mayfly
from ._connection import Link
from ._identity import _Attempt
from ._secret import Secret, revealed
from ._verify.claims import Claims, fits
from ._verify.follower import BadFeed, Bounds, Follower, Moment
from ._verify.jws import Keys, Parts
from ._verify.reason import INSUFFICIENT, REASONS, UNKNOWN, Reason, Refused
from .v1 import (
    feed_pb2,
    key_service_pb2,
    key_service_pb2_grpc,
    revocation_service_pb2,
    revocation_service_pb2_grpc,
)

__all__ = ["INSUFFICIENT", "REASONS", "UNKNOWN", "Reason", "Refused", "Verified", "Verifier"]

log = logging.getLogger("mayfly")

# Most tokens whose verified signature is remembered. Only their digests are stored.
VERIFIED = 16_384
# The longest silence of a feed, seconds. Heartbeats arrive every few seconds.
SILENCE = 30.0
# While the revocations are unknown, the interval of the log message about it, seconds, so that it is not logged for each refused
# credential.
SAY_AGAIN = 10.0
# Longest wait for a unary answer besides the feed, seconds.
CALL = 5.0


class Verified:
    """A credential that was accepted for the use at hand, with its claims."""

    __slots__ = ("_claims", "kid")

    def __init__(self, claims: Claims, kid: str) -> None:
        self._claims = claims
        self.kid = kid

    @property
    def claims(self) -> Mapping[str, Any]:
        """All claims, read-only."""
        return MappingProxyType(self._claims.raw)

    @property
    def credential_id(self) -> str:
        """The credential's id (`jti`)."""
        return str(self._claims.raw["jti"])

    @property
    def caller(self) -> str:
        """The SPIFFE ID of the caller that the credential was issued to (`client_id`)."""
        return str(self._claims.raw["client_id"])

    @property
    def subject(self) -> str:
        """The subject (`sub`)."""
        return str(self._claims.raw["sub"])

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes."""
        return tuple(self._claims.scopes)

    @property
    def tool(self) -> str:
        """The tool that the credential is restricted to; empty for any."""
        return self._claims.tool

    @property
    def task_id(self) -> str:
        """The credential's task; empty for none."""
        return self._claims.tasks[-1] if self._claims.tasks else ""

    @property
    def task_path(self) -> tuple[str, ...]:
        """The task path from the root to the credential's task."""
        return tuple(self._claims.tasks)

    @property
    def upstream(self) -> str:
        """The upstream that the credential is for."""
        return self._claims.upstream

    @property
    def expires_at(self) -> datetime:
        """The expiry, UTC."""
        return datetime.fromtimestamp(self._claims.raw["exp"], UTC)

    def require(
        self, *, scope: str = "", tool: str = "", arguments: Json | None = None, arguments_digest: bytes | None = None
    ) -> None:
        """Checks the requirements of a use once they are known: in a handler, after the body was read.

        Args:
            scope: the required scope.
            tool: the calling tool; compared where the credential names one.
            arguments: the arguments of this call, compared where the credential names some. A service that acts on
                arguments must pass them, or an approval for one call would be valid for any call.
            arguments_digest: their `mayfly.arguments_sha256` instead.

        Raises:
            Refused: `scope`, `tool` or `arguments`.
        """
        claims = self._claims
        if scope and scope not in claims.scopes:
            raise Refused("scope", f"it lacks the scope {scope}", scope)
        if tool and claims.tool and tool != claims.tool:
            raise Refused("tool", f"it was issued for the tool {claims.tool}")
        if claims.arguments:
            try:
                digest = arguments_sha256(arguments) if arguments is not None else arguments_digest
            except errors.InvalidRequest as no:
                # No credential can name such arguments, so this one was issued for others.
                raise Refused("arguments", no.message) from None
            # Compared in constant time, so that a caller cannot learn the digest of approved arguments byte by byte.
            if digest is not None and not hmac.compare_digest(digest, claims.arguments):
                raise Refused("arguments", "it was issued for other arguments")

    def __repr__(self) -> str:
        return f"<Verified {self.credential_id} of {self.caller}>"


class Checker:
    """The state of a relying service and its check of credentials. No IO and no clock."""

    def __init__(self, issuer: str, audience: str, bounds: Bounds | None = None) -> None:
        self.issuer, self.audience = issuer, audience
        self.bounds = bounds or Bounds()
        self.follower = Follower(self.bounds)
        self.keys = Keys('{"keys":[]}')
        self._good: OrderedDict[bytes, tuple[Claims, str]] = OrderedDict()

    def set_keys(self, keys: Keys) -> None:
        """Sets the issuer's keys. Tokens signed with other keys must be verified again."""
        if keys != self.keys:
            self.keys = keys
            self._good.clear()

    def check(self, token: str, now: Moment, certificate: bytes = b"") -> Verified:
        """Checks a credential, except for the requirements of its use.

        Raises:
            Refused: why not.
        """
        name = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        known = self._good.get(name)
        if known is None:
            known = self._read(token)
            self._good[name] = known
            if len(self._good) > VERIFIED:
                self._good.popitem(last=False)
        else:
            self._good.move_to_end(name)
        claims, kid = known
        self.stands(claims, kid, now, certificate)
        return Verified(claims, kid)

    def stands(self, claims: Claims, kid: str, now: Moment, certificate: bytes = b"") -> None:
        """Checks everything that may have changed about a token whose signature was verified: issuer, audience, time,
        key binding and revocation.

        Raises:
            Refused: why not.
        """
        follower, bounds = self.follower, self.bounds
        if follower.rules.revokes_key(kid):
            raise Refused("key_revoked", f"the key {kid} was revoked")
        fits(claims, self.issuer, self.audience, follower.time(now), bounds.max_ttl, bounds.skew, certificate)
        follower.check(claims, kid, now)

    def _read(self, token: str) -> tuple[Claims, str]:
        parts = Parts(token)
        # Checked before anything in the token is believed, because whoever stole a key chooses every claim.
        if self.follower.rules.revokes_key(parts.kid):
            raise Refused("key_revoked", f"the key {parts.kid} was revoked")
        return Claims(self.keys.verify(parts)), parts.kid


class Verifier:
    """Verifies credentials for one relying service, and follows revocations during `async with verifier:`.

    Args:
        mayfly: the client whose connection is used. Its workload must be a server of the upstreams.
        issuer: the accepted `iss`, like `https://mayfly.example/prod`.
        audience: the accepted `aud`: the upstream's audience.
        upstreams: the upstreams that the service serves, 1 to 64.
        follower: the follower's name, unique among the workload's instances. Left out: host name, process id and a
            random number. A process that was forked adds its process id to a given name.
    """

    def __init__(
        self, mayfly: Mayfly, *, issuer: str, audience: str, upstreams: Iterable[str], follower: str | None = None
    ) -> None:
        self._mayfly = mayfly
        self._upstreams = [upstreams] if isinstance(upstreams, str) else list(upstreams)
        self._given, self._made_in = follower, os.getpid()
        self._named: tuple[int, str] | None = None
        self._checker = Checker(issuer, audience)
        self._task: asyncio.Task[None] | None = None
        self._acks: asyncio.Task[None] | None = None
        self._fresh = asyncio.Event()
        self._applied = asyncio.Event()
        # The newest sequence number of this stream to acknowledge, and whether the rollback of the server was logged.
        self._told = -1
        self._said_rolled_back = False
        self._said_unknown = float("-inf")
        self.acknowledged = 0
        """The sequence number that was last acknowledged to mayfly."""

    @property
    def follower(self) -> str:
        """The follower's name. It is made in the process that follows: workers forked from the process that created the
        verifier (`gunicorn --preload`) need different names, or `mayfly revoke --wait` would wait for only one of them.
        """
        pid = os.getpid()
        if self._named is None or self._named[0] != pid:
            name = self._given or f"{socket.gethostname()[:64]}-{pid}-{secrets.token_hex(4)}"
            if self._given and pid != self._made_in:
                name = f"{self._given[:112]}-{pid}"
            self._named = (pid, name[:128])
        return self._named[1]

    @property
    def issuer(self) -> str:
        """The accepted `iss`."""
        return self._checker.issuer

    @property
    def audience(self) -> str:
        """The accepted `aud`."""
        return self._checker.audience

    @property
    def applied(self) -> int:
        """The sequence number up to which the feed was applied."""
        return self._checker.follower.applied

    @property
    def ready(self) -> bool:
        """Whether the verifier has the revocations and the keys and can accept credentials. Suitable for a readiness
        probe."""
        return not _fork.is_copy() and self._checker.follower.fresh(moment()) is None and bool(self._checker.keys)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def start(self, wait: float = 10.0) -> None:
        """Starts following, and waits up to `wait` seconds until the verifier is ready. After that it continues to try
        in the background and refuses everything meanwhile."""
        _fork.begin()
        if self._task is None:
            self._mayfly._start()
            self._task = asyncio.create_task(self._follow(), name="mayfly-follow")
        try:
            async with asyncio.timeout(wait):
                await self._fresh.wait()
        except TimeoutError:
            log.warning("the revocations are not known yet: every credential is refused until they are")

    async def aclose(self) -> None:
        """Stops following."""
        tasks = [t for t in (self._task, self._acks) if t is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def check(
        self,
        token: str | Secret,
        *,
        scope: str = "",
        tool: str = "",
        arguments: Json | None = None,
        certificate_sha256: bytes = b"",
    ) -> Verified:
        """Checks a credential for one use. No IO: it returns at once.

        Args:
            token: the token as received.
            scope, tool, arguments: as `Verified.require`.
            certificate_sha256: SHA-256 of the client certificate of the TLS session, never from a header.

        Raises:
            Refused: with its reason from the closed list.
        """
        try:
            if _fork.is_copy():
                # Only the parent process follows revocations.
                raise Refused(
                    "not_whole", "this process was forked off the one that follows the revocations, and knows none since"
                )
            good = self._checker.check(revealed(token), moment(), certificate_sha256)
        except Refused as refused:
            if refused.reason in UNKNOWN and time.monotonic() - self._said_unknown >= SAY_AGAIN:
                self._said_unknown = time.monotonic()
                log.warning("every credential is refused: %s", refused.message)
            raise
        good.require(scope=scope, tool=tool, arguments=arguments)
        return good

    async def _follow(self) -> None:
        wait, attempt = wait_random_exponential(multiplier=0.1, max=2), 0
        while True:
            attempt += 1
            try:
                if await self._follow_once():
                    attempt = 0
                    continue
            except errors.Closed:
                log.warning("the client was closed before its verifier: soon every credential is refused")
                return
            except (errors.MayflyError, BadFeed, ValueError, TimeoutError) as wrong:
                log.debug("the feed ended: %s", wrong)
                if isinstance(wrong, errors.MayflyError) and wrong.reason == "COMPACTED":
                    self._checker.follower.resync()
                if isinstance(wrong, errors.MayflyError) and went_back(wrong):
                    self._distrusts(wrong.message)
                elif isinstance(wrong, errors.Denied):
                    log.warning("mayfly does not let this workload follow: %s", wrong)
            if self.ready:
                attempt = min(attempt, 3)
            await asyncio.sleep(wait(_Attempt(attempt)))  # type: ignore[arg-type]

    async def _follow_once(self) -> bool:
        """Follows until the feed breaks. `True`: the connection was replaced, and following continues on the new one."""
        async with self._mayfly._connection.on() as link:
            await self._load_keys(link)
            follower = self._checker.follower
            resume, seen = follower.begin_stream(), follower.seen()
            request = feed_pb2.WatchRevocationsRequest(
                follower=self.follower, resume_after=resume, upstreams=self._upstreams, seen=seen
            )
            # Acknowledgements count per stream: the server of this stream may not be the one that received the earlier ones.
            self._told = -1
            stream = link.stub(revocation_service_pb2_grpc.RevocationServiceStub).WatchRevocations(request)
            try:
                while True:
                    async with asyncio.timeout(SILENCE):
                        message = await stream.read()
                    if not isinstance(message, feed_pb2.WatchRevocationsResponse):
                        return False
                    if not await self._take(message, link):
                        return False
                    if link.retired:
                        return True
            finally:
                stream.cancel()

    async def _take(self, message: feed_pb2.WatchRevocationsResponse, link: Link) -> bool:
        follower = self._checker.follower
        trusted = follower.rolled_back is None
        taken = follower.take(message, moment())
        if follower.rolled_back is not None:
            if trusted:
                self._distrusts(follower.rolled_back)
            return False
        if taken in ("gap", "no_snapshot"):
            log.warning("the feed has a %s; it begins anew", "gap" if taken == "gap" else "beginning without a snapshot")
            return False
        if self.applied > self._told and not (message.HasField("snapshot") and not message.snapshot.last):
            self._told = self.applied
            self._applied.set()
            if self._acks is None:
                self._acks = asyncio.create_task(self._acknowledge(), name="mayfly-acknowledge")
        # A new key is published before it signs, so loading keys with each heartbeat is early enough. A compromised key
        # is refused by its rule at once.
        if message.WhichOneof("event") == "heartbeat":
            await self._load_keys(link)
            if self.ready:
                self._fresh.set()
        return True

    def _distrusts(self, why: str) -> None:
        follower = self._checker.follower
        if follower.rolled_back is None or not self._said_rolled_back:
            log.error(
                "the server runs on an older copy of its ledger: every credential is refused until it begins a new generation"
                " (an operator runs: mayfly server recover): %s",
                why,
            )
        self._said_rolled_back = True
        follower.distrust(why)

    async def _acknowledge(self) -> None:
        """Acknowledges the newest applied sequence number. The feed does not wait for it."""
        while True:
            await self._applied.wait()
            self._applied.clear()
            applied = self.applied
            ask = revocation_service_pb2.AcknowledgeRevocationsRequest(follower=self.follower, applied_seq=applied)
            try:
                stub = revocation_service_pb2_grpc.RevocationServiceStub
                await self._mayfly._connection.unary(stub, "AcknowledgeRevocations", ask, CALL)
                self.acknowledged = applied
            except errors.MayflyError as wrong:
                log.debug("not acknowledged: %s", wrong)

    async def _load_keys(self, link: Link) -> None:
        ask = key_service_pb2.GetJwksRequest(issuer=self.issuer)
        answer = await link.stub(key_service_pb2_grpc.KeyServiceStub).GetJwks(ask, timeout=CALL)
        self._checker.set_keys(Keys(answer.jwks))


def went_back(refusal: errors.MayflyError) -> bool:
    """Whether the server reports that its ledger is behind what was seen here. Earlier versions report it by the field
    alone."""
    return refusal.reason == "LEDGER_ROLLED_BACK" or any(v.field == "resume_after" for v in refusal.field_violations)


def moment() -> Moment:
    """The present time by both clocks."""
    return Moment(time.time_ns() // 1_000_000, time.monotonic_ns() // 1_000_000)

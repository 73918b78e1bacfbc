"""X.509-SVIDs from files or the SPIFFE Workload API. They are watched, so that a rotated SVID is used automatically."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from spiffe import TrustDomain, WorkloadApiClient
from spiffe.workloadapi.x509_context import X509Context
from tenacity import wait_random_exponential

from ._settings import Files, WorkloadApi
from .errors import IdentityError

log = logging.getLogger("mayfly")

# How often files are checked, seconds: as often as the server checks its own.
POLL = 2.0
# How long one attempt waits for the first SVID, seconds: SPIRE's agent needs a moment for a workload that it has never seen.
PATIENCE = 2.0
BUNDLE_BYTES = 1024 * 1024
SCHEME = "spiffe://"


def whole(path: Path) -> bytes:
    """Reads a regular file. A device or a pipe is refused: it may have no end, and a read of it may never return."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise IdentityError(f"{path}: it is not a regular file")
            text = file.read(BUNDLE_BYTES + 1)
    except OSError as wrong:
        raise IdentityError(f"{path}: {wrong.strerror}") from None
    if len(text) > BUNDLE_BYTES:
        raise IdentityError(f"{path}: it has more than {BUNDLE_BYTES} bytes")
    return text


@dataclass(frozen=True, slots=True)
class Identity:
    """An SVID with its key, and the roots that the server is verified with. The key is in memory only and in no `repr`."""

    spiffe_id: str
    not_after: datetime
    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)
    bundle: bytes = field(repr=False)
    fingerprint: str = field(repr=False)
    """A digest of all material above, to detect changes."""
    leaf_sha256: bytes = field(repr=False)

    @property
    def trust_domain(self) -> str:
        return trust_domain_of(self.spiffe_id)


def trust_domain_of(spiffe_id: str) -> str:
    """The name of a SPIFFE ID's trust domain."""
    return spiffe_id.removeprefix(SCHEME).split("/", 1)[0]


def spiffe_id_of(certificate: x509.Certificate) -> str:
    """The SPIFFE ID in a certificate's one URI.

    Raises:
        IdentityError: the certificate has no URI, several, or one that is not a SPIFFE ID.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        uris = []
    if len(uris) != 1 or not uris[0].startswith(SCHEME):
        raise IdentityError(f"the certificate has the URIs {uris}; an X509-SVID has exactly one, a SPIFFE ID")
    return uris[0]


def identity(chain: bytes, key: bytes, bundle: bytes) -> Identity:
    """An identity from PEM. Verifies that the key belongs to the certificate, and that the certificate has a SPIFFE ID
    and has not expired.

    Raises:
        IdentityError: says what is wrong.
    """
    try:
        leaf = x509.load_pem_x509_certificates(chain)[0]
        private = load_pem_private_key(key, None)
    except (ValueError, TypeError, IndexError) as wrong:
        # The parser's message may quote its input.
        raise IdentityError("the SVID or its key cannot be read as PEM") from wrong.with_traceback(None)
    public = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*public) != leaf.public_key().public_bytes(*public):
        raise IdentityError("the key does not belong to the SVID; perhaps the two files are being replaced", retry_after=HALF)
    not_after = leaf.not_valid_after_utc
    if not_after <= datetime.now(UTC):
        raise IdentityError(f"the SVID ended at {not_after:%Y-%m-%dT%H:%M:%SZ}")
    der = leaf.public_bytes(Encoding.DER)
    seen = hashlib.sha256(b"\0".join((chain, key, bundle))).hexdigest()
    return Identity(spiffe_id_of(leaf), not_after, chain, key, bundle, seen, hashlib.sha256(der).digest())


def bundle_pem(data: bytes) -> bytes:
    """A bundle as PEM, from PEM or SPIFFE JWKS.

    Raises:
        IdentityError: the bundle is neither, or has no X.509 authority.
    """
    try:
        if data.lstrip()[:1] == b"{":
            keys = [k for k in json.loads(data)["keys"] if k.get("use") == "x509-svid"]
            roots = [x509.load_der_x509_certificate(base64.b64decode(k["x5c"][0])) for k in keys]
        else:
            roots = x509.load_pem_x509_certificates(data)
    except (ValueError, KeyError, TypeError, IndexError) as wrong:
        raise IdentityError("the bundle is neither PEM nor SPIFFE JWKS") from wrong
    if not roots:
        raise IdentityError("the bundle has no X.509 authority")
    return b"".join(root.public_bytes(Encoding.PEM) for root in roots)


# Pause before a pair of files that does not match is read again, seconds, and how often it is read.
HALF = 0.1
HALVES = 10


class Source(ABC):
    """Provides the current identity and reports changes. Belongs to one event loop."""

    def __init__(self) -> None:
        self.current: Identity | None = None
        self.wrong: str = "no SVID has come yet"
        self._arrived = asyncio.Event()
        self._on_change: Callable[[], None] = lambda: None

    def start(self, on_change: Callable[[], None]) -> None:
        """Starts watching. `on_change` is called in the loop after each new identity except the first."""
        self._on_change = on_change
        self._begin()

    @abstractmethod
    def _begin(self) -> None: ...

    @abstractmethod
    async def aclose(self) -> None:
        """Stops watching."""

    async def get(self) -> Identity:
        """The current identity; waits for the first one.

        Raises:
            IdentityError: no identity arrived in time, or the current one has expired.
        """
        try:
            # `asyncio.wait_for` of Python 3.11 loses a cancellation that arrives in the same loop iteration as the
            # awaited result.
            async with asyncio.timeout(PATIENCE):
                await self._arrived.wait()
        except TimeoutError:
            raise IdentityError(f"no X509-SVID yet: {self.wrong}", retry_after=0.1) from None
        assert self.current is not None
        if self.current.not_after <= datetime.now(UTC):
            raise IdentityError(
                f"the SVID ended at {self.current.not_after:%Y-%m-%dT%H:%M:%SZ}, and no new one came: {self.wrong}"
            )
        return self.current

    def take(self, new: Identity) -> None:
        """Puts a new identity into effect."""
        old, self.current = self.current, new
        self.wrong = ""
        self._arrived.set()
        if old is not None and old.fingerprint != new.fingerprint:
            log.info("the SVID of %s was replaced; the new one ends at %s", new.spiffe_id, new.not_after.isoformat())
            self._on_change()

    def refuse(self, wrong: str) -> None:
        """Records why there is no new identity; the current one stays in effect."""
        if wrong != self.wrong:
            log.warning("no new SVID: %s", wrong)
        self.wrong = wrong


class FileSource(Source):
    """Files, checked every two seconds. A pair that does not match, in the middle of its replacement, is read again."""

    def __init__(self, files: Files, poll: float = POLL) -> None:
        super().__init__()
        self._files = files
        self._poll = poll
        self._task: asyncio.Task[None] | None = None

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._watch(), name="mayfly-svid")

    async def get(self) -> Identity:
        if self.current is None or self.current.not_after <= datetime.now(UTC):
            # A missing file is an error at once: nobody should wait half a minute for a typing error. In the middle of
            # a rotation, however, certificate and key may not match yet and are read again.
            for left in reversed(range(HALVES)):
                try:
                    self.take(await asyncio.to_thread(self._read))
                    break
                except IdentityError as wrong:
                    if wrong.retry_after is None or left == 0:
                        raise
                await asyncio.sleep(HALF)
        return await super().get()

    async def _watch(self) -> None:
        seen: object = None
        while True:
            try:
                stamp = await asyncio.to_thread(self._stamp)
                if stamp != seen or self.current is None:
                    self.take(await asyncio.to_thread(self._read))
                    seen = stamp
            except (IdentityError, OSError) as wrong:
                self.refuse(str(wrong))
            await asyncio.sleep(self._poll)

    def _stamp(self) -> object:
        stats = [path.stat() for path in (self._files.svid, self._files.key, self._files.bundle)]
        return [(s.st_mtime_ns, s.st_ino, s.st_size) for s in stats]

    def _read(self) -> Identity:
        texts = [whole(path) for path in (self._files.svid, self._files.key, self._files.bundle)]
        try:
            return identity(texts[0], texts[1], bundle_pem(texts[2]))
        except IdentityError as wrong:
            raise IdentityError(f"{self._files.svid}: {wrong.message}", retry_after=wrong.retry_after) from None

    async def aclose(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class WorkloadApiSource(Source):
    """The SPIFFE Workload API. Contacted again without end while its agent is away or does not know this workload yet."""

    def __init__(self, api: WorkloadApi, server_domain: str | None) -> None:
        super().__init__()
        self._api = api
        self._domain = server_domain
        self._task: asyncio.Task[None] | None = None

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._watch(), name="mayfly-workload-api")

    async def _watch(self) -> None:
        loop, wait, attempt = asyncio.get_running_loop(), wait_random_exponential(multiplier=0.1, max=5), 0
        while True:
            ended: asyncio.Future[str] = loop.create_future()
            came = False

            def on_success(context: X509Context, ended: asyncio.Future[str] = ended) -> None:
                nonlocal came
                came = True
                loop.call_soon_threadsafe(self._received, context, ended)

            def on_error(wrong: Exception, ended: asyncio.Future[str] = ended) -> None:
                loop.call_soon_threadsafe(finish, ended, str(wrong))

            client = stream = None
            try:
                # The constructor looks for the socket, and the library's reconnecting does not follow our pauses, so
                # reconnecting is done here.
                client = await asyncio.to_thread(WorkloadApiClient, self._api.socket)
                stream = client.stream_x509_contexts(on_success, on_error, retry_connect=False)
                self.refuse(await ended)
            except asyncio.CancelledError:
                raise
            except Exception as wrong:
                self.refuse(f"the SPIFFE Workload API at {self._api.socket}: {wrong}")
            finally:
                if stream:
                    stream.cancel()
                if client:
                    client.close()
            attempt = 1 if came else attempt + 1
            await asyncio.sleep(wait(_Attempt(attempt)))  # type: ignore[arg-type]

    def _received(self, context: X509Context, ended: asyncio.Future[str]) -> None:
        try:
            self.take(self._identity(context))
        except IdentityError as wrong:
            self.refuse(wrong.message)
        except Exception as wrong:
            finish(ended, f"the SPIFFE Workload API sent what cannot be read: {type(wrong).__name__}")

    def _identity(self, context: X509Context) -> Identity:
        svid = context.default_svid
        domain = self._domain or svid.spiffe_id.trust_domain.name
        bundle = context.x509_bundle_set.get_bundle_for_trust_domain(TrustDomain(domain))
        if bundle is None:
            raise IdentityError(f"the Workload API gives no bundle of {domain}, the server's trust domain; federate with it")
        chain = b"".join(c.public_bytes(Encoding.PEM) for c in svid.cert_chain)
        key = svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        roots = sorted(root.public_bytes(Encoding.PEM) for root in bundle.x509_authorities)
        return identity(chain, key, b"".join(roots))

    async def aclose(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


@dataclass(slots=True)
class _Attempt:
    """The part of tenacity's state that a wait function reads."""

    attempt_number: int


def finish(future: asyncio.Future[Any], value: Any) -> None:
    """Sets a result unless one was set before."""
    if not future.done():
        future.set_result(value)


def source(identity: Files | WorkloadApi, server_id: str | None, poll: float = POLL) -> Source:
    """The source for a setting."""
    if isinstance(identity, Files):
        return FileSource(identity, poll)
    return WorkloadApiSource(identity, trust_domain_of(server_id) if server_id else None)

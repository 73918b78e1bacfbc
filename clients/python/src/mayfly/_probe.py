"""Verifies the server's certificate before gRPC connects.

grpcio has no hook for SPIFFE verification: it only knows roots and DNS names. The certificate is therefore verified
here, with the bundle and by its SPIFFE ID, and the channel is then opened with that one certificate as its only root.
The peer of the channel is thus the verified server, whatever its DNS name.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from dataclasses import dataclass, replace
from typing import Any

from cryptography import x509

from ._identity import Identity, spiffe_id_of, trust_domain_of
from .errors import IdentityError, NotAuthenticated, ServerCertificateError, Unavailable

# Longest wait for a connection and its handshake, and for the server's first bytes, seconds.
CONNECT = 5.0
FIRST_WORD = 1.0
# The same for an address that is not the server's last: a round trip across the world and a busy server, so that the
# next address can be tried within the time of a call. Addresses beyond the fourth are not tried, since no time would be
# left for them.
ADDRESS = 1.5
ADDRESSES = 4
# RFC 9113, section 3.4: the client's connection preface, and an empty SETTINGS frame.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


@dataclass(frozen=True, slots=True)
class Server:
    """A server whose certificate was verified."""

    spiffe_id: str
    name: str
    """The DNS name that gRPC must expect."""
    certificate: bytes
    """PEM."""
    address: str = ""
    """The address that answered, with its port."""


def context(identity: Identity) -> ssl.SSLContext:
    """TLS 1.3 that trusts only the bundle."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    # An SVID is verified by its URI, below. A bundle's roots need not be self-signed or follow the web's certificate profile.
    tls.check_hostname = False
    tls.verify_flags = (tls.verify_flags & ~ssl.VERIFY_X509_STRICT) | ssl.VERIFY_X509_PARTIAL_CHAIN
    tls.load_verify_locations(cadata=identity.bundle.decode("ascii"))
    tls.set_alpn_protocols(["h2"])
    return tls


def show(tls: ssl.SSLContext, identity: Identity) -> bool:
    """Passes the SVID to OpenSSL, which needs a file: an in-memory file is used. Where that is not available, the
    server sees no client certificate here, and gRPC finds out whether the server accepts the SVID."""
    create = getattr(os, "memfd_create", None)
    if create is None:
        return False
    file = create("svid", os.MFD_CLOEXEC)
    try:
        os.write(file, identity.chain + b"\n" + identity.key)
        os.lseek(file, 0, os.SEEK_SET)
        tls.load_cert_chain(f"/proc/self/fd/{file}")
    except OSError:
        return False
    finally:
        os.close(file)
    return True


async def probe(host: str, port: int, identity: Identity, server_id: str | None) -> Server:
    """Connects, verifies the server's certificate and returns the parameters for gRPC.

    Raises:
        ServerCertificateError: says what is wrong with the certificate and what would be valid.
        NotAuthenticated: the server does not accept the client's SVID.
        Unavailable: no address answers.
    """
    return await asyncio.to_thread(_probe, host, port, identity, server_id)


def _probe(host: str, port: int, identity: Identity, server_id: str | None) -> Server:
    where = f"{host}:{port}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as wrong:
        raise Unavailable(f"no connection to {where}: {wrong}") from None
    addresses = list(dict.fromkeys((family, at) for family, _, _, _, at in found))[:ADDRESSES]
    failed: list[str] = []
    for left, (family, at) in zip(reversed(range(len(addresses))), addresses, strict=True):
        try:
            return _look(family, at, host, port, identity, server_id, more=left > 0)
        except Unavailable as wrong:
            failed.append(f"{at[0]}: {wrong.message}" if len(addresses) > 1 else wrong.message)
    raise Unavailable(f"no connection to {where}: {'; '.join(failed)}")


def _look(
    family: int, at: tuple[Any, ...], host: str, port: int, identity: Identity, server_id: str | None, *, more: bool
) -> Server:
    # Uses a blocking socket, which reads nothing between the handshake and reading the certificate. An alert from a
    # server that does not accept the client, if read too early, would make the certificate unavailable.
    where = f"{host}:{port}"
    tls = context(identity)
    shown = show(tls, identity)
    try:
        with socket.socket(family, socket.SOCK_STREAM) as plain:
            plain.settimeout(ADDRESS if more else CONNECT)
            plain.connect(at)
            with tls.wrap_socket(plain, server_hostname=host) as secure:
                der = secure.getpeercert(binary_form=True)
                if der is None:
                    raise ServerCertificateError(f"the server at {where} shows no certificate")
                server = check(der, where, host, identity, server_id)
                if (shown or more) and not _spoke(secure, where, identity) and more:
                    raise Unavailable("silence after the handshake")
                address = f"[{at[0]}]:{port}" if ":" in at[0] else f"{at[0]}:{port}"
                return replace(server, address=address)
    except ssl.SSLCertVerificationError as wrong:
        raise ServerCertificateError(
            f"the certificate of {where} does not verify with the bundle: {wrong.verify_message}; "
            "right would be the bundle of the server's trust domain"
        ) from None
    except (OSError, ValueError) as wrong:
        raise Unavailable(str(wrong) or "timed out") from None


def _spoke(secure: ssl.SSLSocket, where: str, identity: Identity) -> bool:
    # With TLS 1.3 the server verifies the client's certificate after the client's handshake is complete; its first
    # bytes show the result.
    secure.settimeout(FIRST_WORD)
    try:
        secure.sendall(PREFACE)
        secure.recv(1)
    except TimeoutError:
        return False
    except ssl.SSLError as wrong:
        reason = (wrong.reason or "").lower().replace("_", " ")
        raise NotAuthenticated(f"the server at {where} does not accept the SVID of {identity.spiffe_id}: {reason}") from None
    return True


def check(der: bytes, where: str, host: str, identity: Identity, server_id: str | None) -> Server:
    """Verifies the server's identity.

    Raises:
        ServerCertificateError: it is another server, or grpcio would refuse its certificate.
    """
    certificate = x509.load_der_x509_certificate(der)
    try:
        found = spiffe_id_of(certificate)
    except IdentityError as wrong:
        raise ServerCertificateError(f"the server at {where} shows no X509-SVID: {wrong.message}") from None
    if server_id is not None and found != server_id:
        raise ServerCertificateError(f"the server at {where} is {found}; expected {server_id} (MAYFLY_SERVER_ID)")
    alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    names = [n for n in alternatives.get_values_for_type(x509.DNSName) if "*" not in n]
    if not names:
        raise ServerCertificateError(
            f"the certificate of {found} at {where} has no DNS name beside its URI, and gRPC for Python refuses one with "
            "only a URI; right would be a DNS name: with SPIRE, `-dns NAME` on the server's registration entry or "
            "`dnsNameTemplates` in its ClusterSPIFFEID; `mayfly server validate` warns of the same"
        )
    if server_id is None:
        domain = trust_domain_of(found)
        if domain != identity.trust_domain or host.lower() not in (n.lower() for n in names):
            raise ServerCertificateError(
                f"the server at {where} is {found} with the DNS names {names}; without MAYFLY_SERVER_ID it has to be of "
                f"{identity.trust_domain} and have the DNS name {host}"
            )
    name = host if host in names else names[0]
    return Server(found, name, ssl.DER_cert_to_PEM_cert(der).encode())

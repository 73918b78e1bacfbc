"""Settings: the server's address and the client's identity, from the environment variables that the command line reads
too."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PORT = 443


@dataclass(frozen=True, slots=True)
class Files:
    """An SVID in files, as spiffe-helper or cert-manager write them.

    Attributes:
        svid: the X.509-SVID and its chain, PEM, leaf first.
        key: its private key, PEM.
        bundle: the trust bundle of the server's trust domain, PEM or SPIFFE JWKS.
    """

    svid: Path
    key: Path
    bundle: Path


@dataclass(frozen=True, slots=True)
class WorkloadApi:
    """The SPIFFE Workload API.

    Attributes:
        socket: the address of its agent, like `unix:///run/spire/agent.sock`.
    """

    socket: str


def address(text: str) -> tuple[str, int]:
    """Host and port of `host:port` or `https://host:port`.

    Raises:
        ValueError: for any other text.
    """
    rest = text.removeprefix("https://").removesuffix("/")
    host, colon, port = rest.rpartition(":")
    if not colon or rest.endswith("]"):
        host, port = rest, str(PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not host or "/" in rest or ":" in port or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"MAYFLY_ADDRESS is {text!r}; right would be host:port of the workload listener")
    return host, int(port)


def from_env(env: Mapping[str, str] | None = None) -> tuple[str, Files | WorkloadApi, str | None]:
    """Address, identity and the server's SPIFFE ID from `MAYFLY_ADDRESS`; `MAYFLY_SVID`, `MAYFLY_KEY` and
    `MAYFLY_BUNDLE`, or `SPIFFE_ENDPOINT_SOCKET`; `MAYFLY_SERVER_ID`.

    Raises:
        ValueError: names the missing variable.
    """
    env = os.environ if env is None else env
    where = env.get("MAYFLY_ADDRESS")
    if not where:
        raise ValueError("MAYFLY_ADDRESS is not set; right would be host:port of the server's workload listener")
    address(where)
    names = ("MAYFLY_SVID", "MAYFLY_KEY", "MAYFLY_BUNDLE")
    given = [env.get(name) for name in names]
    server_id = env.get("MAYFLY_SERVER_ID") or None
    svid, key, bundle = given
    if svid and key and bundle:
        return where, Files(Path(svid), Path(key), Path(bundle)), server_id
    if any(given):
        missing = ", ".join(name for name, value in zip(names, given, strict=True) if not value)
        raise ValueError(f"{missing} not set; an SVID from files needs {', '.join(names)}")
    if socket := env.get("SPIFFE_ENDPOINT_SOCKET"):
        return where, WorkloadApi(socket), server_id
    raise ValueError(
        f"no identity: set {', '.join(names)} for an SVID in files, or SPIFFE_ENDPOINT_SOCKET for the SPIFFE Workload API"
    )

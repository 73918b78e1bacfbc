"""Parsing of a compact JWS, and the keys that verify it. Parsing is strict, since tokens are untrusted input."""

from __future__ import annotations

import binascii
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NoReturn

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from jwt.algorithms import ECAlgorithm

from .reason import Refused

# Longest token, bytes (mayfly's limits, TOKEN_BYTES).
TOKEN_BYTES = 128 * 1024
# Longest header that is cached, characters: mayfly's headers are under 100. Longer, foreign headers must not fill the memory.
HEADER = 256
TYP = "at+jwt"

_ES256 = ECAlgorithm(ECAlgorithm.SHA256)
# Maps base64url to base64. All other characters become one that base64 refuses.
_TO_BASE64 = bytes(
    {ord("-"): ord("+"), ord("_"): ord("/")}.get(b, b if chr(b).isascii() and chr(b).isalnum() else ord("!")) for b in range(256)
)
_LAST = {c: i for i, c in enumerate(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")}


def unbase64url(text: bytes) -> bytes:
    """Decodes base64url without padding, with its unused bits zero (RFC 4648, section 3.5).

    Raises:
        ValueError: the text is invalid.
    """
    rest = len(text) % 4
    if rest == 1 or (rest and _LAST.get(text[-1], 63) & (15 if rest == 2 else 3)):
        raise ValueError("not base64url")
    return binascii.a2b_base64(text.translate(_TO_BASE64) + b"=" * (-len(text) % 4), strict_mode=True)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


_decode = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant).decode


def from_json(data: bytes) -> Any:
    """Parses JSON without duplicate names.

    Raises:
        ValueError: the data is invalid.
    """
    try:
        return _decode(data.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deep") from None


def shown(text: object) -> str:
    """A short ASCII form of untrusted text, for a message."""
    return ascii(text)[:80]


@lru_cache(maxsize=1024)
def _header(part: str) -> tuple[str, str | None, str, str | None]:
    """`alg`, `typ`, `kid` and the name of any other parameter. Cached, because all tokens of a key have the same
    header."""
    try:
        header = from_json(unbase64url(part.encode("ascii")))
    except ValueError as wrong:
        raise Refused("malformed", f"header: {wrong}") from None
    if not isinstance(header, dict):
        raise Refused("malformed", "header: no JSON object")
    alg, typ, kid = (header.pop(name, None) for name in ("alg", "typ", "kid"))
    if any(value is not None and type(value) is not str for value in (alg, typ, kid)):
        raise Refused("malformed", "header: alg, typ and kid are texts")
    other = min(header) if header else None
    return alg or "", typ, kid or "", other


class Parts:
    """The parts of a compact JWS. Nothing is verified yet."""

    __slots__ = ("alg", "kid", "other", "payload", "signature", "signed", "typ")

    def __init__(self, token: str) -> None:
        # Counted in bytes; a token that is not ASCII is refused below.
        if len(token) > TOKEN_BYTES or len(token.encode("utf-8", "surrogatepass")) > TOKEN_BYTES:
            raise Refused("too_long", f"the token has more than {TOKEN_BYTES} bytes")
        parts = token.split(".")
        if len(parts) != 3:
            raise Refused("malformed", "a compact JWS has three parts with a dot between them")
        header, self.payload, self.signature = parts
        read = _header if len(header) <= HEADER else _header.__wrapped__
        self.alg, self.typ, self.kid, self.other = read(header)
        self.signed = token[: len(header) + 1 + len(self.payload)]


class Keys:
    """The public keys of one issuer (RFC 7517)."""

    def __init__(self, jwks: str) -> None:
        """Raises:
        ValueError: no JWK set, or two keys of one `kid`.
        """
        self._keys: dict[str, EllipticCurvePublicKey | None] = {}
        found = json.loads(jwks)
        if not isinstance(found, dict) or not isinstance(found.get("keys"), list):
            raise ValueError("not a JWK set")
        for jwk in found["keys"]:
            if not isinstance(jwk, dict) or not isinstance(jwk.get("kty"), str):
                raise ValueError("not a JWK set: a key without kty")
            kid = jwk.get("kid")
            if not isinstance(kid, str) or not _verifies(jwk):
                continue
            if kid in self._keys:
                raise ValueError(f"not a JWK set: two keys have the kid {kid!r}")
            self._keys[kid] = _point(jwk)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Keys) and self._keys == other._keys

    __hash__ = None  # type: ignore[assignment]

    def has(self, kid: str) -> bool:
        """Whether the issuer publishes this key."""
        return kid in self._keys

    def verify(self, parts: Parts) -> bytes:
        """The payload, after header and signature were verified."""
        if parts.alg != "ES256":
            raise Refused("algorithm", f"algorithm {shown(parts.alg)} is not one that this issuer signs with (ES256)")
        if parts.typ != TYP:
            raise Refused("typ", f"typ {shown(parts.typ)} is not {TYP}")
        if parts.other is not None:
            raise Refused("header_parameter", f"the header holds {shown(parts.other)}, which this issuer never writes")
        if parts.kid not in self._keys:
            raise Refused("unknown_key", f"the issuer has no key {shown(parts.kid)}")
        try:
            signature, signed, key = (
                unbase64url(parts.signature.encode("ascii")),
                parts.signed.encode("ascii"),
                self._keys[parts.kid],
            )
        except ValueError:
            raise Refused("signature", "the signature does not fit") from None
        if key is None or len(signature) != 64 or not _ES256.verify(signed, key, signature):
            raise Refused("signature", "the signature does not fit")
        return payload(parts)


def payload(parts: Parts) -> bytes:
    """The decoded payload."""
    try:
        return unbase64url(parts.payload.encode("ascii"))
    except ValueError:
        raise Refused("malformed", "the payload is not base64url") from None


def _verifies(jwk: Mapping[str, Any]) -> bool:
    ops = jwk.get("key_ops")
    return (
        jwk["kty"] == "EC"
        and jwk.get("crv") == "P-256"
        and jwk.get("alg") in (None, "ES256")
        and jwk.get("use") in (None, "sig")
        and (ops is None or (isinstance(ops, list) and "verify" in ops))
    )


def _point(jwk: Mapping[str, Any]) -> EllipticCurvePublicKey | None:
    try:
        x, y = (unbase64url(jwk[name].encode("ascii")) for name in ("x", "y"))
        if len(x) != 32 or len(y) != 32:
            raise ValueError("a coordinate has 32 bytes")
    except (KeyError, ValueError, AttributeError):
        raise ValueError(f"not a JWK set: key {jwk['kid']!r} has no P-256 point") from None
    try:
        return EllipticCurvePublicKey.from_encoded_point(SECP256R1(), b"\x04" + x + y)
    except ValueError:
        # A point off the curve verifies nothing.
        return None

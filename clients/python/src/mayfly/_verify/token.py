"""A token taken apart and read strictly: what is not known to be right is refused. Order and meaning are those of mayfly's
own verifier."""

from __future__ import annotations

import binascii
import hmac
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NoReturn

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from jwt.algorithms import ECAlgorithm

from .reason import Refused

# Longest token, bytes (mayfly's limits, TOKEN_BYTES).
TOKEN_BYTES = 128 * 1024
# Deepest task path, most ancestors, and longest chain of actors.
DEPTH = 8
SCHEME = "spiffe://"
OWN = "https://mayfly.dev/claims"
OWN_VERSION = 1
TYP = "at+jwt"
SEQ_END = 1 << 53
U64_END = 1 << 64
U32_END = 1 << 32

_ES256 = ECAlgorithm(ECAlgorithm.SHA256)
# Base64url to base64; everything that is neither becomes what base64 refuses.
_TO_BASE64 = bytes(
    {ord("-"): ord("+"), ord("_"): ord("/")}.get(b, b if chr(b).isascii() and chr(b).isalnum() else ord("!")) for b in range(256)
)
_LAST = {c: i for i, c in enumerate(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")}
_ID = {"task": re.compile(r"task_[a-z2-7]{25}[aeimquy4]\Z"), "cred": re.compile(r"cred_[a-z2-7]{25}[aeimquy4]\Z")}
_HEX = re.compile(r"(?:[0-9a-f]{2})*\Z")


def unbase64url(text: bytes) -> bytes:
    """Base64url without padding, its unused bits zero (RFC 4648, section 3.5).

    Raises:
        ValueError: it is not.
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
    """JSON without duplicate names.

    Raises:
        ValueError: it is none.
    """
    try:
        return _decode(data.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deep") from None


def shown(text: object) -> str:
    """What a stranger wrote, short and in ASCII, for a message."""
    return ascii(text)[:80]


@lru_cache(maxsize=1024)
def _header(part: str) -> tuple[str, str | None, str, str | None]:
    """`alg`, `typ`, `kid` and the name of another parameter. Few differ: all of a key's tokens have the same."""
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
    """A compact JWS taken apart. Nothing of it is believed yet."""

    __slots__ = ("alg", "kid", "other", "payload", "signature", "signed", "typ")

    def __init__(self, token: str) -> None:
        # Counted in bytes; one that is not ASCII is refused below.
        if len(token) > TOKEN_BYTES or len(token.encode("utf-8", "surrogatepass")) > TOKEN_BYTES:
            raise Refused("too_long", f"the token has more than {TOKEN_BYTES} bytes")
        parts = token.split(".")
        if len(parts) != 3:
            raise Refused("malformed", "a compact JWS has three parts with a dot between them")
        header, self.payload, self.signature = parts
        self.alg, self.typ, self.kid, self.other = _header(header)
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
        """Whether the issuer publishes such a key."""
        return kid in self._keys

    def verify(self, parts: Parts) -> bytes:
        """The payload, after header and signature were found right."""
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
    """The payload's bytes."""
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
        # Off the curve it verifies nothing.
        return None


class Claims:
    """The claims of a token of ours, read strictly, and the facts that a revocation can aim at."""

    __slots__ = (
        "actors",
        "ancestors",
        "arguments",
        "binding",
        "credentials",
        "environment",
        "identities",
        "known_names",
        "policy",
        "raw",
        "revision",
        "scopes",
        "subject_token",
        "svid",
        "tasks",
        "tool",
        "trust_domain",
        "upstream",
        "version",
    )

    raw: dict[str, Any]
    tool: str
    upstream: str

    def __init__(self, data: bytes) -> None:
        try:
            self._read(from_json(data))
        except (ValueError, KeyError, TypeError, AttributeError) as wrong:
            raise Refused("claims", f"claims: {type(wrong).__name__}: {shown(str(wrong))}") from None

    def _read(self, raw: dict[str, Any]) -> None:
        if type(raw) is not dict:
            raise ValueError("no JSON object")
        self.raw = raw
        self.known_names: frozenset[str] | None = None
        own = raw[OWN]
        sub, client, jti = raw["sub"], raw["client_id"], raw["jti"]
        version, self.revision, self.policy = own["v"], own["r"], own["policy_version"]
        domain, environment, upstream, scope = own["trust_domain"], own["environment"], own["upstream"], raw["scope"]
        self.binding, self.tool, arguments = own.get("binding", ""), own.get("tool", ""), own.get("arguments", "")
        for text in (
            raw["iss"],
            sub,
            raw["aud"],
            client,
            jti,
            scope,
            domain,
            environment,
            upstream,
            self.binding,
            self.tool,
            arguments,
        ):
            if type(text) is not str:
                raise ValueError("a claim that is no text")
        for number in (raw["exp"], raw["iat"], raw["nbf"], self.policy, self.revision, version):
            if type(number) is not int or not 0 <= number < U64_END:
                raise ValueError("a claim that is no whole number")
        if version >= U32_END or self.revision >= SEQ_END:
            raise ValueError("a number out of its range")
        if not _ID["cred"].match(jti) or not _HEX.match(arguments):
            raise ValueError("jti is no credential id, or arguments no digest")
        self.version, self.environment, self.upstream, self.trust_domain = version, environment, upstream, domain
        self.arguments = bytes.fromhex(arguments) if arguments else b""
        self.scopes = [s for s in scope.split(" ") if s]
        issuer = own.get("sub_iss")
        if issuer is None:
            issuer = domain
        elif type(issuer) is not str:
            raise ValueError("sub_iss is no text")
        self.identities: list[tuple[str, str]] = [(domain, client)]
        if sub != client or issuer != domain:
            self.identities.append((issuer, sub))
        self.tasks: list[str] = []
        for task in own["tasks"]:
            self._task(task)
        self.credentials: list[str] = [jti]
        self.ancestors = 0
        if "ancestors" in own:
            self._ancestors(own["ancestors"])
        self._rests_on(own)
        if "cnf" in raw:
            _cnf(raw["cnf"])
        self.actors = 0
        if raw.get("act") is not None:
            self._actors(raw["act"])

    def _task(self, task: dict[str, Any]) -> None:
        name, owner = task["id"], task["owner"]
        pair = (owner["iss"], owner["sub"])
        if not _ID["task"].match(name) or type(pair[0]) is not str or type(pair[1]) is not str:
            raise ValueError("a task without id and owner")
        self.tasks.append(name)
        if pair not in self.identities:
            self.identities.append(pair)

    def _ancestors(self, ancestors: list[dict[str, Any]]) -> None:
        if type(ancestors) is not list:
            raise ValueError("ancestors are no list")
        for ancestor in ancestors:
            name, caller = ancestor["id"], ancestor["caller"]
            if not _ID["cred"].match(name) or type(caller) is not str:
                raise ValueError("an ancestor without id and caller")
            self.credentials.append(name)
            self.identities.append((trust_domain_of(caller), caller))
            self.ancestors += 1

    def _rests_on(self, own: dict[str, Any]) -> None:
        self.subject_token: tuple[str, str] | None = None
        self.svid: tuple[str, str, str] | None = None
        if (token := own.get("subject_token")) is not None:
            issuer, name = token["iss"], token["id"]
            if type(issuer) is not str or type(name) is not str:
                raise ValueError("a subject token without issuer and id")
            self.subject_token = (issuer, name)
            # What rests on a credential by its task alone has it as no ancestor.
            if _ID["cred"].match(name):
                self.credentials.append(name)
        if (svid := own.get("svid")) is not None:
            self.svid = (svid["trust_anchor"], svid["issuing_key"], svid["serial"])
            for text in self.svid:
                if not _HEX.match(text):
                    raise ValueError("svid holds no digests")

    def _actors(self, act: dict[str, Any] | None) -> None:
        while act is not None:
            self.actors += 1
            pair = (act["iss"], act["sub"])
            if type(pair[0]) is not str or type(pair[1]) is not str:
                raise ValueError("an actor without issuer and subject")
            self.identities.append(pair)
            act = act.get("act")

    @property
    def names(self) -> frozenset[str]:
        """Every target that a revocation of this can have, by the name that rules give it; a key's and a policy's aside."""
        if self.known_names is None:
            self.known_names = frozenset(self._names())
        return self.known_names

    def _names(self) -> Iterator[str]:
        yield "everything"
        for name in self.credentials:
            yield f"credential:{name}"
        for name in self.tasks:
            yield f"task:{name}"
        for issuer, sub in self.identities:
            if issuer:
                yield named("subject", issuer, sub)
            if sub.startswith(SCHEME):
                yield f"caller:{sub}"
                yield f"trust-domain:{trust_domain_of(sub)}"
                parts = sub.split("/")
                for end in range(3, len(parts) + 1):
                    yield "prefix:" + "/".join(parts[:end])
        if self.svid is not None:
            anchor, issuing_key, serial = self.svid
            yield f"trust-anchor:{anchor}"
            yield f"trust-domain:{self.trust_domain}"
            yield named("svid", self.trust_domain, issuing_key, serial)
        if self.subject_token is not None:
            yield named("subject-token", *self.subject_token)
        if self.upstream:
            yield f"upstream:{self.upstream}"
            for scope in self.scopes:
                yield named("upstream-scope", self.upstream, scope)
        for sort, name in (("binding", self.binding), ("tool", self.tool), ("environment", self.environment)):
            if name:
                yield f"{sort}:{name}"


def named(sort: str, *parts: str) -> str:
    """The name of a target of several parts. No name that is registered has a control character between its parts."""
    return f"{sort}:" + "\0".join(parts)


def _cnf(cnf: Any) -> None:
    if cnf is not None:
        for name in ("x5t#S256", "jkt"):
            value = cnf.get(name)
            if value is not None and type(value) is not str:
                raise ValueError("cnf holds no text")


def trust_domain_of(spiffe_id: str) -> str:
    """The trust domain in a SPIFFE ID; empty for what is none."""
    return spiffe_id[len(SCHEME) :].split("/", 1)[0] if spiffe_id.startswith(SCHEME) else ""


def fits(c: Claims, issuer: str, audience: str, now: int, max_ttl: int, skew: int, certificate: bytes) -> None:
    """Whether the token is for us, now, and of whoever shows it. Milliseconds.

    Raises:
        Refused: with the first thing that is not so.
    """
    raw = c.raw
    if c.version > OWN_VERSION:
        raise Refused("newer_version", f"claims of version {c.version} are newer than this verifier")
    if raw["iss"] != issuer:
        raise Refused("issuer", f"iss {shown(raw['iss'])} is not the expected issuer")
    if raw["aud"] != audience:
        raise Refused("audience", f"aud {shown(raw['aud'])} is not this service")
    exp, iat = raw["exp"], raw["iat"]
    # A key rule is the only one that a stolen key cannot get round, and it may take a while to come: until then
    # nothing lives longer.
    if not 0 < (exp - iat) * 1000 <= max_ttl:
        raise Refused("life", f"its life of {max(0, exp - iat)} s is longer than the issuer allows")
    # Skew is given where it waits for a beginning, never where it would put off an end.
    if now >= exp * 1000:
        raise Refused("expired", "it has expired")
    if max(raw["nbf"], iat) * 1000 > now + skew:
        raise Refused("not_yet", "it is not good yet")
    if len(c.tasks) > DEPTH or c.ancestors > DEPTH or c.actors > DEPTH:
        raise Refused("claims", "more tasks, ancestors or actors than there can be")
    cnf = raw.get("cnf")
    if cnf is not None and not _possessed(cnf, certificate):
        raise Refused("possession", "it is bound to a key that was not proven")


def _possessed(cnf: Mapping[str, str | None], certificate: bytes) -> bool:
    thumbprint = cnf.get("x5t#S256")
    if thumbprint is None or cnf.get("jkt") is not None or not certificate:
        return False
    try:
        return hmac.compare_digest(unbase64url(thumbprint.encode("ascii")), certificate)
    except ValueError:
        return False

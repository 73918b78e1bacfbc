"""The claims of a mayfly token, parsed strictly: everything that is not known to be right is refused. The order and
meaning of the checks are those of mayfly's Rust verifier."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator, Mapping
from typing import Any

from .jws import from_json, shown, unbase64url
from .reason import Refused

# Deepest task path, most ancestors, and longest actor chain.
DEPTH = 8
# Most other grants that a credential depends on: openings of its tasks, the joining of a break-glass task, its own
# ancestors, and those of each opening.
GROUNDS = DEPTH + 1 + DEPTH + (DEPTH + 1) * (DEPTH + 1)
SCHEME = "spiffe://"
OWN = "https://mayfly.dev/claims"
# Version 2 adds `rests_on`.
OWN_VERSION = 2
SEQ_END = 1 << 53
U64_END = 1 << 64
U32_END = 1 << 32

# 16 bytes in base32: the last character has two unused bits, which are 0.
TASK_ID = re.compile(r"task_[a-z2-7]{25}[aeimquy4]\Z")
CREDENTIAL_ID = re.compile(r"cred_[a-z2-7]{25}[aeimquy4]\Z")
_HEX = re.compile(r"(?:[0-9a-f]{2})*\Z")


class _Grant:
    """The names of a grant by which a revocation can reach the grant."""

    __slots__ = (
        "binding",
        "credentials",
        "environment",
        "identities",
        "policy",
        "scopes",
        "subject_token",
        "svid",
        "tasks",
        "tool",
        "trust_domain",
        "upstream",
    )


class Ground(_Grant):
    """Another grant that a credential rests on, with everything by which that can be revoked."""

    __slots__ = ("kid",)

    def __init__(self, raw: dict[str, Any]) -> None:
        if type(raw) is not dict:
            raise ValueError("a ground that is no object")
        texts = [raw.get(name, "") for name in ("upstream", "scope", "binding", "tool", "environment", "kid", "trust_domain")]
        if any(type(text) is not str for text in texts):
            raise ValueError("a ground with a member that is no text")
        self.upstream, scope, self.binding, self.tool, self.environment, self.kid, self.trust_domain = texts
        self.scopes = [s for s in scope.split(" ") if s]
        self.policy = raw.get("policy_version", 0)
        if type(self.policy) is not int or not 0 <= self.policy < U64_END:
            raise ValueError("a ground whose policy_version is no whole number")
        self.credentials = _ids(raw, "credentials", CREDENTIAL_ID)
        self.tasks = _ids(raw, "tasks", TASK_ID)
        parties = raw.get("parties", [])
        if type(parties) is not list:
            raise ValueError("parties are no list")
        self.identities = [(party["iss"], party["sub"]) for party in parties]
        if any(type(text) is not str for pair in self.identities for text in pair):
            raise ValueError("a party without issuer and subject")
        self.subject_token = _token(raw)
        self.svid = _svid(raw)


class Claims(_Grant):
    """The claims of a mayfly token, parsed strictly, and the facts that revocation rules match."""

    __slots__ = (
        "actors",
        "ancestors",
        "arguments",
        "audience",
        "begins",
        "bound",
        "crowded",
        "ends",
        "grounds",
        "issuer",
        "known_names",
        "life",
        "raw",
        "revision",
        "untouched",
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
        # The follower's state when it last found nothing that applies to this token; valid as long as the state stays the same
        # (`Follower.check`).
        self.untouched: object = None
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
        if not CREDENTIAL_ID.match(jti) or not _HEX.match(arguments):
            raise ValueError("jti is no credential id, or arguments no digest")
        # Converted to milliseconds once, because they are compared at each check.
        self.issuer, self.audience = raw["iss"], raw["aud"]
        self.life, self.ends = (raw["exp"] - raw["iat"]) * 1000, raw["exp"] * 1000
        self.begins = max(raw["nbf"], raw["iat"]) * 1000
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
        self.bound: Mapping[str, str | None] | None = raw.get("cnf")
        _cnf(self.bound)
        self.actors = 0
        if raw.get("act") is not None:
            self._actors(raw["act"])
        grounds = own.get("rests_on", [])
        if type(grounds) is not list:
            raise ValueError("rests_on is no list")
        self.grounds = [Ground(ground) for ground in grounds]
        crowded = len(self.tasks) > DEPTH or self.ancestors > DEPTH or self.actors > DEPTH
        self.crowded = crowded or len(self.grounds) > GROUNDS

    def _task(self, task: dict[str, Any]) -> None:
        name, owner = task["id"], task["owner"]
        pair = (owner["iss"], owner["sub"])
        if not TASK_ID.match(name) or type(pair[0]) is not str or type(pair[1]) is not str:
            raise ValueError("a task without id and owner")
        self.tasks.append(name)
        if pair not in self.identities:
            self.identities.append(pair)

    def _ancestors(self, ancestors: list[dict[str, Any]]) -> None:
        if type(ancestors) is not list:
            raise ValueError("ancestors are no list")
        for ancestor in ancestors:
            name, caller = ancestor["id"], ancestor["caller"]
            if not CREDENTIAL_ID.match(name) or type(caller) is not str:
                raise ValueError("an ancestor without id and caller")
            self.credentials.append(name)
            self.identities.append((trust_domain_of(caller), caller))
            self.ancestors += 1

    def _rests_on(self, own: dict[str, Any]) -> None:
        self.subject_token = _token(own)
        self.svid = _svid(own)
        # A credential that depends on a presented credential only through its task does not list it as an ancestor.
        if self.subject_token is not None and CREDENTIAL_ID.match(self.subject_token[1]):
            self.credentials.append(self.subject_token[1])

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
        """The names of all targets that match this credential, in the form that rules use, except keys and policies."""
        if self.known_names is None:
            self.known_names = frozenset(self._names())
        return self.known_names

    def _names(self) -> Iterator[str]:
        yield "everything"
        yield from _names_of(self)
        for ground in self.grounds:
            yield from _names_of(ground)

    @property
    def policies(self) -> Iterator[tuple[str, int]]:
        """The environments and policy set versions that the credential was decided with: its own, and those of all
        grants that it depends on."""
        yield self.environment, self.policy
        for ground in self.grounds:
            if ground.environment:
                yield ground.environment, ground.policy

    @property
    def keys(self) -> list[str]:
        """The keys that signed the grants that this credential depends on."""
        return [ground.kid for ground in self.grounds if ground.kid]


def _names_of(grant: Claims | Ground) -> Iterator[str]:
    for name in grant.credentials:
        yield f"credential:{name}"
    for name in grant.tasks:
        yield f"task:{name}"
    for issuer, sub in grant.identities:
        if issuer:
            yield named("subject", issuer, sub)
        if sub.startswith(SCHEME):
            yield f"caller:{sub}"
            yield f"trust-domain:{trust_domain_of(sub)}"
            parts = sub.split("/")
            for end in range(3, len(parts) + 1):
                yield "prefix:" + "/".join(parts[:end])
    if grant.svid is not None:
        anchor, issuing_key, serial = grant.svid
        yield f"trust-anchor:{anchor}"
        yield f"trust-domain:{grant.trust_domain}"
        yield named("svid", grant.trust_domain, issuing_key, serial)
    if grant.subject_token is not None:
        yield named("subject-token", *grant.subject_token)
    if grant.upstream:
        yield f"upstream:{grant.upstream}"
        for scope in grant.scopes:
            yield named("upstream-scope", grant.upstream, scope)
    for sort, name in (("binding", grant.binding), ("tool", grant.tool), ("environment", grant.environment)):
        if name:
            yield f"{sort}:{name}"


def _ids(raw: dict[str, Any], name: str, form: re.Pattern[str]) -> list[str]:
    ids = raw.get(name, [])
    if type(ids) is not list or not all(form.match(one) for one in ids):
        raise ValueError(f"{name} are no list of ids")
    return ids


def _token(raw: dict[str, Any]) -> tuple[str, str] | None:
    if (token := raw.get("subject_token")) is None:
        return None
    issuer, name = token["iss"], token["id"]
    if type(issuer) is not str or type(name) is not str:
        raise ValueError("a subject token without issuer and id")
    return issuer, name


def _svid(raw: dict[str, Any]) -> tuple[str, str, str] | None:
    if (svid := raw.get("svid")) is None:
        return None
    digests = (svid["trust_anchor"], svid["issuing_key"], svid["serial"])
    for text in digests:
        if not _HEX.match(text):
            raise ValueError("svid holds no digests")
    return digests


def named(sort: str, *parts: str) -> str:
    """The name of a target of several parts. No registered name contains a control character, so the separator is
    unambiguous."""
    return f"{sort}:" + "\0".join(parts)


def _cnf(cnf: Any) -> None:
    if cnf is not None:
        for name in ("x5t#S256", "jkt"):
            value = cnf.get(name)
            if value is not None and type(value) is not str:
                raise ValueError("cnf holds no text")


def trust_domain_of(spiffe_id: str) -> str:
    """The trust domain in a SPIFFE ID; empty for a text that is not a SPIFFE ID."""
    return spiffe_id[len(SCHEME) :].split("/", 1)[0] if spiffe_id.startswith(SCHEME) else ""


def fits(c: Claims, issuer: str, audience: str, now: int, max_ttl: int, skew: int, certificate: bytes) -> None:
    """Checks issuer, audience, time and key binding of a token. Times in milliseconds.

    Raises:
        Refused: with the first check that fails.
    """
    if c.version > OWN_VERSION:
        raise Refused("newer_version", f"claims of version {c.version} are newer than this verifier")
    if c.issuer != issuer:
        raise Refused("issuer", f"iss {shown(c.issuer)} is not the expected issuer")
    if c.audience != audience:
        raise Refused("audience", f"aud {shown(c.audience)} is not this service")
    # A stolen key can evade every rule except its own, which may take a while to arrive. The bound on lifetimes limits
    # the damage until then.
    if not 0 < c.life <= max_ttl:
        raise Refused("life", f"its life of {max(0, c.life // 1000)} s is longer than the issuer allows")
    # Skew is allowed for the beginning of validity only, never to postpone its end.
    if now >= c.ends:
        raise Refused("expired", "it has expired")
    if c.begins > now + skew:
        raise Refused("not_yet", "it is not good yet")
    if c.crowded:
        raise Refused("claims", "more tasks, ancestors, actors or grounds than there can be")
    if c.bound is not None and not _possessed(c.bound, certificate):
        raise Refused("possession", "it is bound to a key that was not proven")


def _possessed(cnf: Mapping[str, str | None], certificate: bytes) -> bool:
    thumbprint = cnf.get("x5t#S256")
    if thumbprint is None or cnf.get("jkt") is not None or not certificate:
        return False
    try:
        return hmac.compare_digest(unbase64url(thumbprint.encode("ascii")), certificate)
    except ValueError:
        return False

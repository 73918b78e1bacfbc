"""The rules that revocations make: a few dictionary probes for one credential, however many rules there are.

A revocation at seq `v` covers what was decided at `r < v`. A signing key's rule ignores `r`: whoever stole the key chooses it.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from functools import lru_cache

from .token import Claims, trust_domain_of

SIGNING_KEY = "signing_key"
SORTS = (
    "credential", "task", "caller", "prefix", "trust_domain", "trust_anchor", "subject", "upstream", "upstream_scope", "binding", "tool",
    "environment", "policy_below", SIGNING_KEY, "svid", "subject_token", "everything",
)  # fmt: skip
FOREVER = 1 << 64


@lru_cache(maxsize=65_536)
def prefixes(spiffe_id: str) -> tuple[str, ...]:
    """The ID and every prefix of whole segments."""
    parts = spiffe_id.split("/")
    return tuple("/".join(parts[:n]) for n in range(3, len(parts) + 1))


class Rules:
    """All rules in force, by the sort of their target."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[Hashable, int]] = {sort: {} for sort in SORTS}
        self._until: dict[tuple[str, Hashable], int] = {}
        self._newest = dict.fromkeys(SORTS, 0)
        self._newest_of_all = 0
        self._ends: list[tuple[int, int, str, Hashable]] = []
        self._count = 0
        # One table per sort, at hand.
        t = self._tables
        self._credential, self._task, self._caller, self._prefix = t["credential"], t["task"], t["caller"], t["prefix"]
        self._domain, self._anchor, self._subject, self._upstream = t["trust_domain"], t["trust_anchor"], t["subject"], t["upstream"]
        self._scope, self._binding, self._tool, self._environment = t["upstream_scope"], t["binding"], t["tool"], t["environment"]
        self._policy, self._svid, self._subject_token = t["policy_below"], t["svid"], t["subject_token"]
        self._everything, self._key = t["everything"], t[SIGNING_KEY]

    def __len__(self) -> int:
        return sum(len(table) for table in self._tables.values())

    def add(self, sort: str, key: Hashable, revoked: int, until: int | None) -> None:
        """Puts a rule into force. `until` in milliseconds, `None` for ever; a signing key's is kept for ever."""
        end = FOREVER if until is None or sort == SIGNING_KEY else until
        table = self._tables[sort]
        table[key] = max(table.get(key, 0), revoked)
        at = (sort, key)
        self._until[at] = max(self._until.get(at, 0), end)
        self._newest[sort] = max(self._newest[sort], revoked)
        self._newest_of_all = max(self._newest_of_all, revoked)
        if end < FOREVER:
            self._count += 1
            heapq.heappush(self._ends, (end // 1000 + 1, self._count, sort, key))

    def expire(self, now: int, most: int) -> None:
        """Drops up to `most` rules that nothing alive can still run into."""
        ends = self._ends
        for _ in range(most):
            if not ends or ends[0][0] > now // 1000:
                return
            _, _, sort, key = heapq.heappop(ends)
            if self._until.get((sort, key), FOREVER) < now:
                del self._until[(sort, key)], self._tables[sort][key]

    def revokes_key(self, kid: str) -> bool:
        """Whether a signing key was revoked."""
        return kid in self._key

    def covers(self, c: Claims) -> tuple[str, Hashable] | None:  # noqa: PLR0912
        """The sort and key of a rule by which it is revoked. Sorts with nothing newer than its revision are not asked."""
        r = c.revision
        if r >= self._newest_of_all:
            return None
        newest = self._newest
        if self._everything.get(True, 0) > r:
            return "everything", True
        if newest["credential"] > r:
            for name in c.credentials:
                if self._credential.get(name, 0) > r:
                    return "credential", name
        if newest["task"] > r:
            for name in c.tasks:
                if self._task.get(name, 0) > r:
                    return "task", name
        if (hit := self._by_identity(c, r)) is not None:
            return hit
        if c.svid is not None:
            anchor, issuing_key, serial = c.svid
            if self._anchor.get(anchor, 0) > r:
                return "trust_anchor", anchor
            if newest["svid"] > r and self._svid.get((c.trust_domain, issuing_key, serial), 0) > r:
                return "svid", serial
        if c.subject_token is not None and self._subject_token.get(c.subject_token, 0) > r:
            return "subject_token", c.subject_token
        return self._by_resource(c, r)

    def _by_identity(self, c: Claims, r: int) -> tuple[str, Hashable] | None:
        newest = self._newest
        subjects, callers = newest["subject"] > r, newest["caller"] > r
        below, domains = newest["prefix"] > r, newest["trust_domain"] > r
        if not (subjects or callers or below or domains):
            return None
        for pair in c.identities:
            issuer, sub = pair
            if subjects and issuer and self._subject.get(pair, 0) > r:
                return "subject", pair
            if sub[:9] != "spiffe://":
                continue
            if callers and self._caller.get(sub, 0) > r:
                return "caller", sub
            if domains and self._domain.get(domain := trust_domain_of(sub), 0) > r:
                return "trust_domain", domain
            if below:
                for prefix in prefixes(sub):
                    if self._prefix.get(prefix, 0) > r:
                        return "prefix", prefix
        # An SVID's trust domain is the caller's own.
        if domains and c.svid is not None and self._domain.get(c.trust_domain, 0) > r:
            return "trust_domain", c.trust_domain
        return None

    def _by_resource(self, c: Claims, r: int) -> tuple[str, Hashable] | None:
        newest, upstream = self._newest, c.upstream
        if upstream:
            if self._upstream.get(upstream, 0) > r:
                return "upstream", upstream
            if newest["upstream_scope"] > r:
                for scope in c.scopes:
                    if self._scope.get((upstream, scope), 0) > r:
                        return "upstream_scope", (upstream, scope)
        if c.binding and self._binding.get(c.binding, 0) > r:
            return "binding", c.binding
        if c.tool and self._tool.get(c.tool, 0) > r:
            return "tool", c.tool
        environment = c.environment
        if environment:
            if self._environment.get(environment, 0) > r:
                return "environment", environment
            if newest["policy_below"] > r:
                # Few: each names a change of policy.
                for at, revoked in self._policy.items():
                    name, version = at  # type: ignore[misc]
                    if name == environment and version > c.policy and revoked > r:
                        return "policy_below", at
        return None

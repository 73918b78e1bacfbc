"""Revocation rules: checking one credential takes a few look-ups in one table, regardless of the number of rules.

A revocation at sequence number `v` covers everything decided at `r < v`. The rule of a signing key ignores `r`, because
whoever stole the key chooses `r`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

FOREVER = 1 << 64


class Rules:
    """All rules in force, by the name of their target as written by `Claims.names` and `named`."""

    def __init__(self) -> None:
        self._revoked: dict[str, int] = {}
        self._names = self._revoked.keys()
        self._keys: set[str] = set()
        # By environment, then version. There are few, since each names a change of policy.
        self._policy: dict[str, dict[int, int]] = {}
        self._until: dict[object, int] = {}
        self._newest = 0
        self._ends: list[tuple[int, int, str | tuple[str, int]]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._revoked) + len(self._keys) + sum(map(len, self._policy.values()))

    def add(self, name: str, revoked: int, until: int | None) -> None:
        """Adds a rule. `until` in milliseconds, `None` for ever."""
        self._revoked[name] = max(self._revoked.get(name, 0), revoked)
        self._note(name, revoked, until)

    def add_key(self, kid: str) -> None:
        """Adds the rule of a signing key, which is kept for ever."""
        self._keys.add(kid)

    def add_policy(self, environment: str, version: int, revoked: int, until: int | None) -> None:
        """Adds a rule for everything permitted by an environment's policy sets below a version."""
        versions = self._policy.setdefault(environment, {})
        versions[version] = max(versions.get(version, 0), revoked)
        self._note((environment, version), revoked, until)

    def _note(self, at: str | tuple[str, int], revoked: int, until: int | None) -> None:
        end = FOREVER if until is None else until
        self._newest = max(self._newest, revoked)
        self._until[at] = max(self._until.get(at, 0), end)
        if end < FOREVER:
            self._count += 1
            heapq.heappush(self._ends, (end // 1000 + 1, self._count, at))

    def expire(self, now: int, most: int) -> None:
        """Drops up to `most` rules that can no longer match anything that is live."""
        ends = self._ends
        for _ in range(most):
            if not ends or ends[0][0] > now // 1000:
                return
            at = heapq.heappop(ends)[2]
            if self._until.get(at, FOREVER) >= now:
                continue
            del self._until[at]
            if isinstance(at, str):
                del self._revoked[at]
            else:
                del self._policy[at[0]][at[1]]

    def revokes_key(self, kid: str) -> bool:
        """Whether a signing key was revoked."""
        return kid in self._keys

    def covers(self, names: frozenset[str], policies: Iterable[tuple[str, int]], revision: int) -> str | None:
        """The target of a rule that covers a credential; `None` where no rule does. `policies`: environments with the
        versions of their policy sets. A decision that saw every rule needs no look-up."""
        if revision >= self._newest:
            return None
        if not self._names.isdisjoint(names):
            for name in names:
                if self._revoked.get(name, 0) > revision:
                    return name
        for environment, policy in policies:
            for version, revoked in self._policy.get(environment, {}).items():
                if version > policy and revoked > revision:
                    return f"policy-below:{environment} {version}"
        return None

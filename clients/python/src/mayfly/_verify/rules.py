"""The rules that revocations make: a few probes of one table for one credential, however many rules there are.

A revocation at seq `v` covers what was decided at `r < v`. A signing key's rule ignores `r`: whoever stole the key chooses it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

FOREVER = 1 << 64


class Rules:
    """All rules in force, each under the name of its target: what `Claims.names` and `named` write."""

    def __init__(self) -> None:
        self._revoked: dict[str, int] = {}
        self._names = self._revoked.keys()
        self._keys: set[str] = set()
        # By environment, then version: few, for each names a change of policy.
        self._policy: dict[str, dict[int, int]] = {}
        self._until: dict[object, int] = {}
        self._newest = 0
        self._ends: list[tuple[int, int, str | tuple[str, int]]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._revoked) + len(self._keys) + sum(map(len, self._policy.values()))

    def add(self, name: str, revoked: int, until: int | None) -> None:
        """Puts a rule into force. `until` in milliseconds, `None` for ever."""
        self._revoked[name] = max(self._revoked.get(name, 0), revoked)
        self._note(name, revoked, until)

    def add_key(self, kid: str) -> None:
        """A signing key: its rule is kept for ever."""
        self._keys.add(kid)

    def add_policy(self, environment: str, version: int, revoked: int, until: int | None) -> None:
        """What an environment's policy set permitted below a version."""
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
        """Drops up to `most` rules that nothing alive can still run into."""
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
        """The target of a rule by which a credential is revoked; `None` where nothing does. `policies`: environments, and the
        versions of their policy sets. A decision that saw every rule needs no probe."""
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

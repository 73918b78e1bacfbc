"""Why a credential is refused: a closed list, the same in every language."""

from __future__ import annotations

from typing import Literal, get_args

Reason = Literal[
    "too_long", "malformed", "algorithm", "typ", "header_parameter", "key_revoked", "unknown_key", "signature", "claims",
    "newer_version", "issuer", "audience", "expired", "not_yet", "life", "possession", "not_whole", "rolled_back", "stale",
    "revoked", "held", "scope", "tool", "arguments",
]  # fmt: skip
REASONS: tuple[Reason, ...] = get_args(Reason)
# The token is valid but not sufficient for this use: 403.
INSUFFICIENT: frozenset[Reason] = frozenset({"scope", "tool", "arguments"})
# Not a defect of the token: the revocations are unknown. 503.
UNKNOWN: frozenset[Reason] = frozenset({"not_whole", "rolled_back", "stale"})


class Refused(Exception):
    """A credential is refused.

    Attributes:
        reason: one of the closed list.
        message: what is wrong, for people. Contains nothing secret.
        scope: the missing scope; empty for other reasons.
    """

    def __init__(self, reason: Reason, message: str, scope: str = "") -> None:
        super().__init__(f"{reason}: {message}")
        self.reason: Reason = reason
        self.message = message
        self.scope = scope

"""Secrets that must not be revealed by accident."""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

HIDDEN = "[secret]"


class Secret:
    """A secret text. Only `reveal()` returns it; `repr`, `str`, formatting, JSON and pickle do not."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself, for the one place that needs it."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({HIDDEN})"

    def __str__(self) -> str:
        return HIDDEN

    def __format__(self, spec: str) -> str:
        return format(HIDDEN, spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        return bool(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not written anywhere: it cannot be pickled or copied")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: Any) -> Secret:
        return self


class SecretHeaders(Mapping[str, str]):
    """HTTP headers with secret values, for `headers=` of an HTTP client. Its `repr` shows the names only; it cannot be
    serialized as JSON."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"SecretHeaders({dict.fromkeys(self._values, HIDDEN)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("SecretHeaders are not written anywhere: they cannot be pickled")


def revealed(value: str | Secret) -> str:
    """The text of a secret that may be given as plain text."""
    return value.reveal() if isinstance(value, Secret) else value

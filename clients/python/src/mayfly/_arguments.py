"""Arguments of a tool call in their one written form (RFC 8785), and its digest.

Two calls must never have one digest, or what was approved for the one serves for the other. So what a reader of JSON would change
is refused: a number that a double does not hold, a name that stands twice, half of a surrogate pair.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation, Overflow
from typing import Any, NoReturn

import rfc8785

from .errors import FieldViolation, InvalidRequest

# Integers that a double holds, each of them alone: up to 2^53 - 1 (RFC 7493, section 2.2).
EXACT = 2**53 - 1
# Below this RFC 8785 writes a number without an exponent, so a whole one is an integer to who reads it.
AS_INTEGER = 1e21
# Deepest nesting of arguments, as the server takes them.
DEPTH = 64

Json = Mapping[str, Any]


def canonical(arguments: Json) -> bytes:
    """The RFC 8785 form of a tool call's arguments.

    Raises:
        InvalidRequest: they are no JSON object, or hold what JSON cannot carry exactly.
    """
    if not isinstance(arguments, Mapping):
        refuse("", f"is a {type(arguments).__name__}; right would be a JSON object")
    plain = dict(arguments)
    _look(plain, "", 0)
    try:
        return rfc8785.dumps(plain)
    except (rfc8785.CanonicalizationError, TypeError, ValueError, RecursionError) as no:
        refuse("", f"is no JSON object: {type(no).__name__}")


def arguments_sha256(arguments: Json) -> bytes:
    """SHA-256 of the RFC 8785 form: what a credential for these arguments names.

    Raises:
        InvalidRequest: as `canonical`.
    """
    return hashlib.sha256(canonical(arguments)).digest()


def arguments_sha256_of_json(text: str | bytes) -> bytes:
    """The same of arguments as JSON text, as they came over the wire. It refuses what reading them first would hide: a name that
    stands twice in one object, and a number with more digits than a double holds.

    Raises:
        InvalidRequest: the text is no JSON object, or one that two readers could take for two.
    """
    try:
        read = json.loads(
            text.decode() if isinstance(text, bytes) else text,
            object_pairs_hook=_once,
            parse_float=_exact,
            parse_constant=lambda _: refuse("", "holds NaN or Infinity, which is no JSON"),
        )
    except InvalidRequest:
        raise
    except (ValueError, RecursionError):
        # What the parser says may quote what it read.
        refuse("", "is no JSON text")
    return arguments_sha256(read)


def refuse(path: str, what: str) -> NoReturn:
    """Refuses arguments for what lies at a path (RFC 6901). No value is quoted."""
    where = f"{path} " if path else ""
    raise InvalidRequest(
        f"arguments: {where}{what}", reason="INVALID_FIELD", field_violations=(FieldViolation("arguments", f"{where}{what}"),)
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        refuse("", "has a name twice in one object; right would be each name once")
    return members


def _exact(text: str) -> float:
    value = float(text)
    try:
        # As many digits as tell this double from all others: those that it is written with.
        exact = math.isfinite(value) and Decimal(text) == Decimal(repr(value))
    except (InvalidOperation, Overflow):
        exact = False
    if not exact:
        refuse("", "has a number with more digits than a double holds; right would be fewer digits, or a string")
    return value


def _look(value: Any, path: str, depth: int) -> None:
    if depth >= DEPTH and isinstance(value, Mapping | list | tuple):
        refuse("", f"is nested deeper than {DEPTH}")
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        _whole(value, path)
    elif isinstance(value, int):
        if abs(value) > EXACT:
            refuse(path, "is an integer beyond 2^53 - 1, which a double does not hold; right would be a string")
    elif isinstance(value, float):
        if not math.isfinite(value):
            refuse(path, "is NaN or infinite, which is no JSON")
        if EXACT < abs(value) < AS_INTEGER:
            refuse(path, "is a number beyond 2^53 - 1, which others read as an integer; right would be a string")
    elif isinstance(value, Mapping):
        for name, member in value.items():
            if not isinstance(name, str):
                refuse(path, "has a name that is no text")
            _whole(name, path)
            _look(member, f"{path}/{name.replace('~', '~0').replace('/', '~1')}", depth + 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _look(item, f"{path}/{index}", depth + 1)
    else:
        refuse(path, f"is a {type(value).__name__}, which is no JSON")


def _whole(text: str, path: str) -> None:
    if any("\ud800" <= c <= "\udfff" for c in text):
        refuse(path, "has half of a surrogate pair, which is no text")

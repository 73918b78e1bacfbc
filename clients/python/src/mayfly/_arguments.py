"""Arguments of a tool call in canonical form (RFC 8785), and their digest.

Two different calls must never have the same digest, or an approval of one would be valid for the other. Anything that
another JSON reader would change is therefore refused: a number that a double cannot hold, a duplicate name, a lone
surrogate.
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

# The largest integer up to which a double holds every integer: 2^53 - 1 (RFC 7493, section 2.2).
EXACT = 2**53 - 1
# RFC 8785 writes smaller numbers without an exponent, so a whole number below it looks like an integer to a reader.
AS_INTEGER = 1e21
# Deepest nesting of arguments that the server accepts.
DEPTH = 64

Json = Mapping[str, Any]


def canonical(arguments: Json) -> bytes:
    """The RFC 8785 form of a tool call's arguments.

    Raises:
        InvalidRequest: they are not a JSON object, or contain a value that JSON cannot carry exactly.
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
    """SHA-256 of the RFC 8785 form, which a credential for these arguments names.

    Raises:
        InvalidRequest: as `canonical`.
    """
    return hashlib.sha256(canonical(arguments)).digest()


def arguments_sha256_of_json(text: str | bytes) -> bytes:
    """The same for arguments as JSON text, as received. This also refuses what parsing would hide: a duplicate name in
    an object, and a number with more digits than a double holds.

    Raises:
        InvalidRequest: the text is not a JSON object, or two readers could read it differently.
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
        # The parser's message may quote its input.
        refuse("", "is no JSON text")
    return arguments_sha256(read)


def refuse(path: str, what: str) -> NoReturn:
    """Refuses arguments because of the value at a path (RFC 6901). No value is quoted."""
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
        # The shortest digits that distinguish this double from all others.
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

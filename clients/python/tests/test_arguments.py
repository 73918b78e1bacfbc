"""Two tool calls never have one digest: the cases that every language reads, and what Python's own values add."""

from __future__ import annotations

import enum
import hashlib
import json
import math
from types import SimpleNamespace

import pytest
from world import PROJECT

import mayfly as m
from mayfly import arguments_sha256, arguments_sha256_of_json
from mayfly.verify import Refused, Verified

CASES = json.loads((PROJECT / "tests/vectors/arguments/cases.json").read_text())


def test_the_cases_of_every_language():
    seen = set()
    for case in CASES["accepted"]:
        digest = hashlib.sha256(case["canonical"].encode()).digest()
        for text in case["json"]:
            assert arguments_sha256_of_json(text) == arguments_sha256_of_json(text.encode()) == digest, text
            # Read by anybody who reads JSON, it is the same.
            assert arguments_sha256(json.loads(text)) == digest, text
        assert digest not in seen
        seen.add(digest)
    for text in CASES["refused"]:
        with pytest.raises(m.InvalidRequest):
            arguments_sha256_of_json(text)


class Number(enum.IntEnum):
    LARGE = 2**60


@pytest.mark.parametrize(
    "value",
    [
        2**53, -(2**53), 1234567890123456789, 10**30, True + 2**53, Number.LARGE, float(2**53), 1e20, -1e20,
        math.nan, math.inf, -math.inf,
        "\ud800", "x\udc00", {"\ud800": 1}, {1: 2}, b"x", {1, 2}, object(), 1j,
    ],
)  # fmt: skip
def test_values_that_json_does_not_carry_are_refused_wherever_they_stand(value):
    for arguments in ({"id": value}, {"a": [1, {"b": value}]}, {"a": {"b": [[value]]}}):
        with pytest.raises(m.InvalidRequest) as no:
            arguments_sha256(arguments)
        assert "1234567890123456789" not in str(no.value), "no argument is quoted"
    with pytest.raises(m.InvalidRequest):
        arguments_sha256([value])


def test_values_that_json_carries_are_taken():
    deep: dict = {}
    for _ in range(63):
        deep = {"a": deep}
    for good in (2**53 - 1, 1 - 2**53, 0.1, 1e21, 1e300, 5e-324, True, None, "\U0001f600", deep):
        arguments_sha256({"a": good} if good is not deep else deep)
    with pytest.raises(m.InvalidRequest, match="64"):
        arguments_sha256({"a": deep})


async def test_they_are_refused_before_anything_is_asked(mayfly):
    with pytest.raises(m.InvalidRequest, match="/id"):
        async with mayfly.credential("echo", scope="echo:read", purpose="p", arguments={"id": 1234567890123456789}):
            pass
    assert mayfly._leases.exchanges == 0


def test_a_credential_for_arguments_was_issued_for_others():
    claims = SimpleNamespace(scopes=[], tool="", arguments=arguments_sha256({"id": 1}))
    with pytest.raises(Refused) as no:
        Verified(claims, "k").require(arguments={"id": 1234567890123456789})
    assert no.value.reason == "arguments"

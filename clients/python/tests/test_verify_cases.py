"""The cases that the verifiers of every language share."""

from __future__ import annotations

import json
import pathlib
from datetime import UTC, datetime

import pytest
from google.protobuf import json_format
from mayfly.v1 import feed_pb2

from mayfly._verify.follower import BadFeed, Bounds, Moment
from mayfly._verify.jws import Keys
from mayfly.verify import REASONS, Checker, Refused

FILE = pathlib.Path(__file__).resolve().parents[3] / "tests/vectors/verify/cases.json"
SHARED = json.loads(FILE.read_text())


def checker() -> Checker:
    s = SHARED["settings"]
    made = Checker(s["issuer"], s["audience"], Bounds(s["max_ttl_ms"], s["skew_ms"], s["feed_max_age_ms"]))
    made.set_keys(Keys(json.dumps(SHARED["jwks"])))
    return made


def told(what, step, now):
    if "feed" in step:
        message = json_format.ParseDict(step["feed"], feed_pb2.WatchRevocationsResponse(), ignore_unknown_fields=True)
        try:
            return what.follower.take(message, now)
        except BadFeed:
            return "malformed"
    need = step["check"]
    try:
        good = what.check(need["token"], now, bytes.fromhex(need["certificate_sha256"]))
        digest = bytes.fromhex(need["arguments_sha256"]) or None
        good.require(scope=need["scope"], tool=need["tool"], arguments_digest=digest)
    except Refused as refused:
        return refused.reason
    return "accepted"


@pytest.mark.parametrize("case", SHARED["cases"], ids=[c["name"] for c in SHARED["cases"]])
def test_shared(case):
    what = checker()
    for number, step in enumerate(case["steps"]):
        now = Moment(step["wall"], step["steady"])
        if "jwks" in step:
            what.set_keys(Keys(json.dumps(step["jwks"])))
        else:
            # The token is checked twice: the second check, which uses the cache of verified tokens, must give the same answer.
            for _ in range(2 if "check" in step else 1):
                assert told(what, step, now) == step["expect"], f"step {number}: {case['why']}"


REACH = json.loads((FILE.parent / "reach.json").read_text())


@pytest.mark.parametrize("case", REACH["cases"], ids=[c["name"] for c in REACH["cases"]])
def test_a_revocation_reaches_what_it_reached_at_the_server(case):
    """The tokens are of a whole server, which agreed with the table in docs/invariants.md about each of these revocations."""
    s = SHARED["settings"]
    what = Checker(case["issuer"], case["audience"], Bounds(s["max_ttl_ms"], s["skew_ms"], s["feed_max_age_ms"]))
    what.set_keys(Keys(json.dumps({"keys": REACH["keys"]})))
    now, seen, seq = Moment(case["wall"], 7_000_000), case["seen"], case["seq"]
    fresh_at = datetime.fromtimestamp(case["wall"] / 1000, UTC).isoformat().replace("+00:00", "Z")

    def take(**message):
        return told(what, {"feed": message}, now)

    def answers():
        # The token is checked twice: the second check, which uses the cache of verified tokens, must give the same answer.
        check = {"token": case["token"], "scope": "", "tool": "", "arguments_sha256": "", "certificate_sha256": ""}
        return [told(what, {"check": check}, now) for _ in range(2)]

    heartbeat = {"freshAt": fresh_at, "maxAge": "30s", "timeGeneration": 1}
    assert take(seq=seen, snapshot={"rules": [], "holds": [], "last": True}) == "taken"
    assert take(seq=seen, previousSeq=seen, heartbeat=heartbeat) == "taken"
    assert answers() == ["accepted"] * 2
    assert take(seq=seq, previousSeq=seen, rule={"seq": seq, "targets": [case["target"]]}) == "taken"
    assert answers() == [case["expect"]] * 2


def test_every_reason_has_a_case():
    seen = {step.get("expect") for case in SHARED["cases"] for step in case["steps"]}
    assert set(REASONS) <= seen, set(REASONS) - seen


def test_strangers_fill_no_memory_with_headers():
    from mayfly._verify import jws

    what, now = checker(), Moment(1_800_000_000_500, 7_000_000)
    before = jws._header.cache_info().currsize
    for n in range(50):
        header = jws.json.dumps({"alg": "ES256", "typ": "at+jwt", "kid": f"{n}" * 1000}).encode()
        token = (
            jws.binascii.b2a_base64(header, newline=False).rstrip(b"=").translate(bytes.maketrans(b"+/", b"-_")).decode()
            + ".e30.AA"
        )
        with pytest.raises(Refused, match="unknown_key"):
            what.check(token, now)
    assert jws._header.cache_info().currsize == before and not what._good

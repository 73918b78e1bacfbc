"""What one check costs, without its signature: 1,000,000 live credentials, 10,000 rules of every sort, all of them
newer than what every credential was decided with.

    python benches/check.py [credentials] [rules]
"""

from __future__ import annotations

import base64
import gc
import hashlib
import json
import random
import statistics
import sys
import time

from mayfly.v1 import feed_pb2, revocation_pb2, types_pb2

from mayfly._verify.claims import OWN, Claims, fits
from mayfly._verify.follower import Bounds, Follower, Moment
from mayfly._verify.jws import Parts, payload
from mayfly.verify import VERIFIED, Checker

CREDENTIALS, RULES = (int(a) for a in (*sys.argv[1:], *("1000000", "10000")[len(sys.argv) - 1 :]))
SAMPLE = 20_000
NOW = 1_800_000_000
BASE = 1 << 45
ISSUER, AUDIENCE = "https://mayfly.example/prod", "https://github.example"
ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def name(kind: str, number: int) -> str:
    digest = hashlib.sha256(f"{kind}{number}".encode()).digest()[:16]
    return f"{kind}_" + base64.b32encode(digest).decode().rstrip("=").lower()


def url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(number: int) -> str:
    """One of an agent that acts for a person, two tasks deep, with an ancestor."""
    agent = f"spiffe://prod.example/team/{number % 5000}/agent/{number}"
    claims = {
        "iss": ISSUER,
        "sub": f"user-{number % 20_000}",
        "aud": AUDIENCE,
        "exp": NOW + 300,
        "iat": NOW,
        "nbf": NOW,
        "client_id": agent,
        "scope": "repo:read issues:write",
        "act": {"sub": agent, "iss": "prod.example"},
        OWN: {
            "v": 1,
            "r": BASE + number,
            "environment": "prod",
            "policy_version": 7,
            "upstream": "github",
            "binding": "build",
            "tool": "create_issue",
            "trust_domain": "prod.example",
            "tasks": [
                {"id": name("task", number % 100_000), "owner": {"iss": "https://idp.example", "sub": f"user-{number % 20_000}"}},
                {"id": name("task", 1_000_000 + number), "owner": {"iss": "prod.example", "sub": agent}},
            ],
            "sub_iss": "https://idp.example",
            "ancestors": [{"id": name("cred", 2_000_000 + number), "caller": f"spiffe://prod.example/gateway/{number % 10}"}],
            "svid": {"trust_anchor": "ab" * 32, "issuing_key": "cd" * 32, "serial": f"{number:032x}"},
        },
        "jti": name("cred", number),
    }
    return f'{url(b"""{"alg":"ES256","typ":"at+jwt","kid":"ou3dompxtasdtxr4"}""")}.{url(json.dumps(claims).encode())}.{"A" * 86}'


def target(number: int) -> revocation_pb2.Target:
    """Targets of every sort that hit none of the credentials."""
    t, kind = revocation_pb2.Target, number % 14
    digest = hashlib.sha256(str(number).encode()).digest()
    return [
        lambda: t(credential_id=name("cred", 10_000_000 + number)),
        lambda: t(task_id=name("task", 10_000_000 + number)),
        lambda: t(caller=f"spiffe://prod.example/gone/{number}"),
        lambda: t(spiffe_id_prefix=f"spiffe://prod.example/left/{number}"),
        lambda: t(trust_domain=f"domain-{number}.example"),
        lambda: t(trust_anchor=revocation_pb2.TrustAnchorTarget(sha256=digest)),
        lambda: t(subject=types_pb2.Subject(issuer="https://idp.example", sub=f"gone-{number}")),
        lambda: t(upstream=f"upstream-{number}"),
        lambda: t(upstream_scope=revocation_pb2.UpstreamScopeTarget(upstream="github", scope=f"scope:{number}")),
        lambda: t(binding=f"binding-{number}"),
        lambda: t(tool=f"tool-{number}"),
        lambda: t(signing_key=f"key-{number}"),
        lambda: t(svid=revocation_pb2.SvidTarget(trust_domain="prod.example", issuing_key_sha256=digest, serial=digest[:16])),
        lambda: t(subject_token=revocation_pb2.SubjectTokenTarget(issuer="https://idp.example", id=f"t-{number}")),
    ][kind]()


def follower() -> tuple[Follower, Moment]:
    made, now = Follower(Bounds()), Moment(NOW * 1000 + 500, 7_000_000)
    rules = [feed_pb2.RuleEvent(seq=BASE + CREDENTIALS, targets=[target(number)]) for number in range(RULES)]
    snapshot = feed_pb2.WatchRevocationsResponse(seq=BASE + CREDENTIALS, snapshot=feed_pb2.SnapshotPart(rules=rules, last=True))
    assert made.take(snapshot, now) == "taken"
    beat = feed_pb2.WatchRevocationsResponse(seq=BASE + CREDENTIALS, previous_seq=BASE + CREDENTIALS)
    beat.heartbeat.fresh_at.FromMilliseconds(now.wall)
    beat.heartbeat.max_age.seconds = 30
    beat.heartbeat.time_generation = 1
    assert made.take(beat, now) == "taken" and len(made.rules) == RULES
    return made, now


def median_of(rounds: list[float]) -> str:
    return f"{statistics.median(rounds) * 1e6:5.2f} us (of 7 rounds {min(rounds) * 1e6:.2f} to {max(rounds) * 1e6:.2f})"


def main() -> None:
    known, now = follower()
    # The million is what the tokens are drawn from: a verifier keeps nothing of a credential that it was not shown.
    drawn = random.Random(2).sample(range(CREDENTIALS), min(SAMPLE, CREDENTIALS))
    tokens = [token(number) for number in drawn]
    read = [Claims(payload(Parts(t))) for t in tokens]
    kid = Parts(tokens[0]).kid
    bounds = known.bounds

    def resolved() -> None:
        for claims in read:
            fits(claims, ISSUER, AUDIENCE, known.time(now), bounds.max_ttl, bounds.skew, b"")
            known.check(claims, kid, now)

    def something_happened() -> None:
        known._known = object()
        resolved()

    checker = Checker(ISSUER, AUDIENCE)
    checker.follower = known
    for text, claims in zip(tokens[:VERIFIED], read, strict=False):
        checker._good[hashlib.sha256(text.encode()).digest()] = (claims, kid)

    def again() -> None:
        for text in tokens[:VERIFIED]:
            checker.check(text, now)

    def again_after_something() -> None:
        known._known = object()
        again()

    def whole() -> None:
        for text in tokens:
            parts = Parts(text)
            known.rules.revokes_key(parts.kid)
            claims = Claims(payload(parts))
            fits(claims, ISSUER, AUDIENCE, known.time(now), bounds.max_ttl, bounds.skew, b"")
            known.check(claims, parts.kid, now)

    def timed(work, count: int = len(tokens)) -> str:
        work()
        rounds = []
        for _ in range(7):
            began = time.process_time()
            work()
            rounds.append((time.process_time() - began) / count)
        return median_of(rounds)

    gc.freeze()
    print(f"{CREDENTIALS:,} credentials, {RULES:,} rules, {len(tokens[0])} bytes of token; all accepted")
    print("issuer, audience, life, freshness and rules, without the signature, of a token that was")
    print(f"  seen before, and nothing happened since        {timed(resolved)}")
    print(f"  seen before, and something happened since      {timed(something_happened)}")
    known_ones = min(VERIFIED, len(tokens))
    print("and from its text: the SHA-256 of it, and what was remembered under that")
    print(f"  nothing happened since                         {timed(again, known_ones)}")
    print(f"  something happened since                       {timed(again_after_something, known_ones)}")
    print(f"a new token, but for its signature: its claims   {timed(whole)}")


if __name__ == "__main__":
    main()

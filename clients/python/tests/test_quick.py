"""The quick way (nothing came since nothing spoke against it) and the plain way (by name) say the same, whatever happened."""

from __future__ import annotations

import json
import random

from mayfly.v1 import feed_pb2, revocation_pb2, types_pb2

from mayfly._verify.claims import OWN, Claims
from mayfly._verify.follower import Bounds, Follower, Moment
from mayfly._verify.reason import Refused

WALL = 1_800_000_000_000
# Few names, so that rules and tokens meet.
NAMES = ["a", "b", "c", "spiffe://a", "spiffe://a/b", "spiffe://a/b/c", "spiffe://a/bc"]
KEYS = ["k1", "k2", "k3"]


def name_of(kind: str, number: int) -> str:
    return f"{kind}_" + "abcdefg"[number] * 25 + "a"


class World:
    """A follower, what happens to it, and tokens that were shown to it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.follower = Follower(Bounds())
        self.seq, self.wall = 0, WALL
        self.known: list[tuple[Claims, str]] = []
        self.begin(0)

    def name(self) -> str:
        return self.random.choice(NAMES)

    def some(self, kind: str) -> str:
        return name_of(kind, self.random.randrange(7))

    def few(self, make) -> list:
        return [make() for _ in range(self.random.randrange(3))]

    @property
    def now(self) -> Moment:
        return Moment(self.wall, self.wall)

    def take(self, message: feed_pb2.WatchRevocationsResponse) -> None:
        assert self.follower.take(message, self.now) == "taken"

    def beat(self, ms: int) -> None:
        self.wall += ms
        beat = feed_pb2.WatchRevocationsResponse(seq=self.seq, previous_seq=self.seq)
        beat.heartbeat.fresh_at.FromMilliseconds(self.wall)
        beat.heartbeat.max_age.seconds = 30
        beat.heartbeat.time_generation = 1
        self.take(beat)

    def begin(self, rules: int) -> None:
        self.seq += 1
        part = feed_pb2.SnapshotPart(last=True)
        for _ in range(rules):
            part.rules.append(feed_pb2.RuleEvent(seq=self.random.randrange(60), targets=[self.target()]))
        for _ in range(self.random.randrange(2)):
            part.holds.append(feed_pb2.HoldEvent(task_id=self.some("task")))
        self.take(feed_pb2.WatchRevocationsResponse(seq=self.seq, snapshot=part))
        self.beat(1)

    def target(self) -> revocation_pb2.Target:
        t = revocation_pb2.Target
        digest = bytes([self.random.randrange(7)]) * 32
        sort = self.random.choice(t.DESCRIPTOR.oneofs_by_name["target"].fields).name
        made = {
            "credential_id": lambda: t(credential_id=self.some("cred")),
            "task_id": lambda: t(task_id=self.some("task")),
            "trust_anchor": lambda: t(trust_anchor=revocation_pb2.TrustAnchorTarget(sha256=digest)),
            "subject": lambda: t(subject=types_pb2.Subject(issuer=self.name(), sub=self.name())),
            "upstream_scope": lambda: t(
                upstream_scope=revocation_pb2.UpstreamScopeTarget(upstream=self.name(), scope=self.name())
            ),
            "policy_below": lambda: t(
                policy_below=revocation_pb2.PolicyBelowTarget(environment=self.name(), version=self.random.randrange(8))
            ),
            "signing_key": lambda: t(signing_key=self.random.choice([*KEYS, "another", "others", "more"])),
            "svid": lambda: t(
                svid=revocation_pb2.SvidTarget(trust_domain=self.name(), issuing_key_sha256=digest, serial=b"\x05")
            ),
            "subject_token": lambda: t(subject_token=revocation_pb2.SubjectTokenTarget(issuer=self.name(), id=self.name())),
            "everything": lambda: t(everything=revocation_pb2.EverythingTarget()),
        }
        return made.get(sort, lambda: t(**{sort: self.name()}))()

    def event(self) -> None:
        self.seq += 1
        message = feed_pb2.WatchRevocationsResponse(seq=self.seq, previous_seq=self.seq - 1)
        match self.random.randrange(5):
            case 0:
                message.hold.task_id = self.some("task")
            case 1:
                message.resume.task_id = self.some("task")
            case _:
                message.rule.seq = self.seq
                message.rule.targets.extend(self.target() for _ in range(1 + self.random.randrange(3)))
                if self.random.randrange(2):
                    message.rule.drop_after.FromMilliseconds(WALL + self.random.randrange(100_000))
        self.take(message)

    def claims(self) -> Claims:
        who = lambda: {"iss": self.name(), "sub": self.name()}  # noqa: E731
        digest = lambda: bytes([self.random.randrange(7)]).hex() * 32  # noqa: E731
        own = {
            "v": 1,
            "r": (1 << 53) - 1 if self.random.randrange(10) == 0 else self.random.randrange(60),
            "environment": self.name(),
            "policy_version": self.random.randrange(8),
            "upstream": self.name(),
            "binding": self.name(),
            "tool": self.name(),
            "trust_domain": self.name(),
            "tasks": self.few(lambda: {"id": self.some("task"), "owner": who()}),
            "ancestors": self.few(lambda: {"id": self.some("cred"), "caller": self.name()}),
            "svid": {"trust_anchor": digest(), "issuing_key": digest(), "serial": "05"},
            "subject_token": {"iss": self.name(), "id": self.name()},
        }
        claims = {
            "iss": "i",
            "aud": "a",
            "exp": 1_800_000_300,
            "iat": 1_800_000_000,
            "nbf": 1_800_000_000,
            "jti": self.some("cred"),
        }
        claims |= {"client_id": self.name(), "scope": " ".join(self.few(self.name)), **{"sub": self.name()}, OWN: own}
        return Claims(json.dumps(claims).encode())

    def step(self) -> None:
        match self.random.randrange(12):
            case 0:
                self.begin(self.random.randrange(6))
            case 1:
                self.beat(self.random.randrange(30_000))
            case n if n < 7:
                self.event()
            case _:
                self.known.append((self.claims(), self.random.choice(KEYS)))


def answer(check, *of) -> str:
    try:
        check(*of)
    except Refused as refused:
        return str(refused)
    return "accepted"


def test_the_quick_way_and_the_plain_way_agree_whatever_happened():
    seen: dict[str, int] = {}
    for seed in range(200):
        world = World(seed)
        for step in range(40):
            world.step()
            for claims, kid in world.known:
                plain = answer(world.follower.check_by_name, claims, kid, world.now)
                # The order of a set's members is not said: one of the targets that cover it is named.
                quick = [answer(world.follower.check, claims, kid, world.now) for _ in range(2)]
                assert quick == [plain, plain], f"seed {seed}, step {step}"
                kind = plain if plain == "accepted" else "refused"
                seen[kind] = seen.get(kind, 0) + 1
    assert min(seen.values()) > 1_000 and len(seen) == 2, seen


def test_silence_is_noticed_whatever_is_remembered():
    world = World(1)
    claims, kid = world.claims(), "k"
    world.follower.rules.__init__()
    for _ in range(2):
        world.follower.check(claims, kid, world.now)
    late = Moment(world.wall + 31_000, world.wall + 31_000)
    assert answer(world.follower.check, claims, kid, late).startswith("stale")
    world.follower.needs_snapshot()
    assert answer(world.follower.check, claims, kid, world.now).startswith("not_whole")

"""One who checks credentials and follows revocations.

It accepts only while it knows that it knows everything: snapshot complete, no gap, proof of freshness younger than the
feed's maximum age. A head below one that it has seen in the same generation, or another history up to it, ends its trust
until the server begins a new generation: such a server runs on an older copy of its ledger, and what was revoked since that
copy is unknown to it. Time is the later of its own clock and what the feed proves, so a clock that is set back revives
nothing; rules are dropped by
the feed's time alone, so a clock that is set forward drops nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from google.protobuf import timestamp_pb2

from ..v1 import feed_pb2, revocation_pb2
from .claims import CREDENTIAL_ID, SCHEME, SEQ_END, TASK_ID, Claims, named
from .reason import Refused
from .rules import Rules

# Ended rules dropped per heartbeat.
DROP_PER_HEARTBEAT = 4_096
# Most chains of commits of which a heartbeat carries the end: one per replica that ever wrote (mayfly's limit).
CHAIN_HEADS = 64
GENERATION_BITS = 45
NUL = "\0"

Taken = Literal["taken", "gap", "old", "no_snapshot"]


class BadFeed(Exception):
    """The feed sent what is none of its messages."""


class Moment(NamedTuple):
    """A moment by a clock that may step and by one that never does, milliseconds."""

    wall: int
    steady: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """What holds for every credential, milliseconds (mayfly's limits)."""

    max_ttl: int = 3_600_000
    skew: int = 30_000
    feed_max_age: int = 30_000


def generation(seq: int) -> int:
    """The generation that a seq belongs to."""
    return seq >> GENERATION_BITS


class Building:
    """A snapshot of which parts may be missing yet. What the follower decides by stays as it is until the snapshot is whole."""

    def __init__(self) -> None:
        self.rules = Rules()
        self.held: set[str] = set()

    def add(self, part: feed_pb2.SnapshotPart) -> None:
        """Takes one part.

        Raises:
            BadFeed: what it says is not known.
        """
        for rule in part.rules:
            if rule.seq >= SEQ_END:
                raise BadFeed("a seq above 2^53")
            for target in rule.targets:
                aim(target)(self.rules, rule.seq, _drop_after(rule))
        for hold in part.holds:
            self.held.add(_task_id(hold.task_id))


class Follower:
    """What one follower knows. Knows nothing at first, and refuses everything."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.applied = 0
        self.whole = False
        self.rules = Rules()
        self._held: set[str] = set()
        # Another one whenever something came that can speak against a credential. What ends makes none: it speaks against
        # fewer.
        self._known = object()
        # The newest proof: when it was made, how long it is good for, and the steady moment that it came.
        self._proof: tuple[int, int, int] | None = None
        # The proof that puts time furthest ahead: its time, the steady moment, and its generation.
        self._ahead: tuple[int, int, int] | None = None
        self._building = Building()
        self._must_begin = False
        # The newest head that was seen, and the ends of the chains of commits that came with it, by writer: the number of
        # the commit and the hash of its header.
        self._seen: tuple[int, dict[str, tuple[int, bytes]]] | None = None
        self.rolled_back: str | None = None
        """Why the server is not believed any more in this generation; `None` while it is."""

    def needs_snapshot(self) -> None:
        """What is known is not all there is: it refuses everything until a snapshot came. One that knows less than was applied
        is refused: what was seen once is not unseen."""
        self.whole = False

    def resync(self) -> None:
        """The server no longer keeps what was missed: the next stream begins with a snapshot. Until that is whole the
        follower decides by what it knows, for as long as its last proof of freshness is young enough: no restart of a
        server shows where credentials are checked."""
        self._must_begin = True

    def begin_stream(self) -> int | None:
        """A stream of the feed begins. Where it may go on; `None`: with a snapshot."""
        self._building = Building()
        return self.applied if self.whole and not self._must_begin else None

    def seen(self) -> feed_pb2.SeenHead | None:
        """What was seen of the ledger, which the server compares with its own where a stream begins."""
        if self._seen is None:
            return None
        head, chains = self._seen
        heads = [feed_pb2.ChainHead(writer=w, commit=c, header_sha256=h) for w, (c, h) in chains.items()]
        return feed_pb2.SeenHead(seq=head, heads=heads)

    def distrust(self, why: str) -> None:
        """The server went back behind what was seen: nothing is accepted until it begins a new generation."""
        self.rolled_back = self.rolled_back or why

    def _old(self, found: int) -> Taken:
        # What stands before what was applied is not taken. In the same generation it says that the server went back.
        if generation(found) == generation(self.applied) and found < self.applied:
            self.distrust(f"the head of its feed is {found}, and {self.applied} was seen before")
        return "old"

    def _trusts(self, found: int) -> bool:
        return self.rolled_back is None or generation(found) > generation(self.applied)

    def take(self, message: feed_pb2.WatchRevocationsResponse, now: Moment) -> Taken:
        """Takes one message of the feed.

        Raises:
            BadFeed: it is none.
        """
        seq, previous = message.seq, message.previous_seq
        if seq >= SEQ_END or previous >= SEQ_END:
            raise BadFeed("a seq above 2^53")
        match message.WhichOneof("event"):
            case "snapshot":
                # Each part as it comes: the event loop is never held up by all of them.
                self._building.add(message.snapshot)
                return self._begin(seq) if message.snapshot.last else "taken"
            case "heartbeat":
                return self._heartbeat(seq, previous, message.heartbeat, now)
            case None:
                raise BadFeed("an event of a sort that is not known")
            case event:
                return self._apply(seq, previous, event, message)

    def _begin(self, seq: int) -> Taken:
        whole, self._building = self._building, Building()
        # The next stream says what was seen before, so that the server judges it.
        self._must_begin = False
        if seq < self.applied:
            return self._old(seq)
        if not self._trusts(seq):
            return "old"
        self._turn_to(seq)
        self.rules, self._held, self.applied, self.whole = whole.rules, whole.held, seq, True
        self._known = object()
        return "taken"

    def _apply(self, seq: int, previous: int, event: str, message: feed_pb2.WatchRevocationsResponse) -> Taken:
        aims: list[Callable[[Rules, int, int | None], None]] = []
        name = ""
        if event == "rule":
            aims = [aim(t) for t in message.rule.targets]
        elif event in ("hold", "resume"):
            name = _task_id(getattr(message, event).task_id)
        missed = self._follows(previous)
        if missed is not None:
            return missed
        if seq <= self.applied or not self._trusts(seq):
            return "old"
        self._turn_to(seq)
        if event == "rule":
            until = _drop_after(message.rule)
            for put in aims:
                put(self.rules, seq, until)
        elif event == "hold":
            self._held.add(name)
        elif event == "resume":
            self._held.discard(name)
        # A lock keeps from new grants, and who grants asks the server.
        if event in ("rule", "hold"):
            self._known = object()
        self.applied = seq
        return "taken"

    def _heartbeat(self, head: int, previous: int, beat: feed_pb2.HeartbeatEvent, now: Moment) -> Taken:
        if not beat.HasField("fresh_at"):
            raise BadFeed("a heartbeat without its time")
        fresh_at = _millis(beat.fresh_at)
        max_age = max(0, beat.max_age.seconds * 1000 + beat.max_age.nanos // 1_000_000)
        # One that does not say: nothing of an older generation is taken for certain.
        of_time = beat.time_generation if 0 < beat.time_generation < 256 else generation(head)
        chains = _chains(beat)
        self._compare(head, chains)
        missed = self._follows(previous)
        if missed is not None:
            return missed
        if head < self.applied:
            return self._old(head)
        if not self._trusts(head):
            return "old"
        self.applied = head
        if chains:
            self._seen = head, chains
        if self._ahead is not None and self._ahead[2] < of_time:
            self._ahead = None
        if self._proof is None or fresh_at > self._proof[0]:
            self._proof = (fresh_at, max_age, now.steady)
        if self._ahead is None or fresh_at > self.time_ahead(now):
            self._ahead = (fresh_at, now.steady, generation(head))
        self.rules.expire(fresh_at, DROP_PER_HEARTBEAT)
        return "taken"

    def _compare(self, head: int, chains: dict[str, tuple[int, bytes]]) -> None:
        # A chain that ends before its end of then, or otherwise at the same commit, is another history.
        if self._seen is None or generation(self._seen[0]) != generation(head):
            return
        for writer, (commit, header) in self._seen[1].items():
            now = chains.get(writer)
            if now is not None and (now[0] < commit or (now[0] == commit and now[1] != header)):
                self.distrust(f"commit {commit} of writer {writer} is not the one that was seen before")

    def _turn_to(self, seq: int) -> None:
        # Only a new generation's own proof makes it fresh. It began by revoking whatever was issued before it, so it may be
        # believed where the one before was not.
        if generation(seq) > generation(self.applied):
            self._proof = self._seen = self.rolled_back = None

    def _follows(self, previous: int) -> Taken | None:
        if not self.whole:
            return "no_snapshot"
        if previous > self.applied:
            self.whole = False
            return "gap"
        return None

    def time(self, now: Moment) -> int:
        """Now: the wall clock, but never earlier than what the feed proves."""
        return now.wall if self._ahead is None else max(now.wall, self.time_ahead(now))

    def time_ahead(self, now: Moment) -> int:
        """What the feed proves of time: the proof that is furthest ahead, and the steady clock since. 0: nothing."""
        if self._ahead is None:
            return 0
        return self._ahead[0] + max(0, now.steady - self._ahead[1])

    def fresh(self, now: Moment) -> Refused | None:
        """Why it does not know whether it knows everything; `None` where it does."""
        if self.rolled_back is not None:
            what = f"the server runs on an older copy of its ledger ({self.rolled_back})"
            return Refused("rolled_back", f"{what}; nothing is accepted until it begins a new generation (mayfly server recover)")
        if not self.whole:
            return Refused("not_whole", "the revocations are not known: begin with a snapshot")
        if self._proof is None:
            return Refused("stale", "the revocations are not proven to be known")
        fresh_at, max_age, came = self._proof
        # By both clocks: neither keeps it fresh alone.
        age = max(now.wall - fresh_at, now.steady - came)
        # A proof that came late, to one whose clock is behind: earlier proofs tell by how much, up to the skew of who made them.
        if self._ahead is not None:
            age = max(age, self.time_ahead(now) - fresh_at - self.bounds.skew)
        if age > max_age or age > self.bounds.feed_max_age:
            return Refused("stale", f"the revocations are known up to {age} ms ago only")
        return None

    def check(self, c: Claims, kid: str, now: Moment) -> None:
        """Whether anything that happened speaks against a credential with these claims, which came by the key `kid`. Its
        signature, life, audience and possession were looked at before, by the time that `time` gives.

        Raises:
            Refused: what does.
        """
        # Nothing came since nothing spoke against it: what is left to ask is whether that is known.
        known = self._known
        if c.untouched is known:
            if (stale := self.fresh(now)) is not None:
                raise stale
            return
        self.check_by_name(c, kid, now)
        c.untouched = known

    def check_by_name(self, c: Claims, kid: str, now: Moment) -> None:
        """The same, of everything that is in force.

        Raises:
            Refused: what speaks against it.
        """
        rules = self.rules
        if rules.revokes_key(kid):
            raise Refused("key_revoked", "its signing key was revoked")
        if (stale := self.fresh(now)) is not None:
            raise stale
        for key in c.keys:
            # Whatever the revision says: a credential that came of what a stolen key may have signed is good for nothing.
            if rules.revokes_key(key):
                raise Refused("revoked", f"signing-key {key}, which signed a credential that this rests on, was revoked")
        hit = rules.covers(c.known_names or c.names, c.policies, c.revision)
        if hit is not None:
            raise Refused("revoked", f"{hit.replace(NUL, ' ')} was revoked")
        if self._held:
            for task in c.tasks:
                if task in self._held:
                    raise Refused("held", f"{task} is held")


def _chains(beat: feed_pb2.HeartbeatEvent) -> dict[str, tuple[int, bytes]]:
    if len(beat.heads) > CHAIN_HEADS or any(len(head.header_sha256) != 32 for head in beat.heads):
        raise BadFeed("heads that are none")
    return {head.writer: (head.commit, head.header_sha256) for head in beat.heads}


def _millis(at: timestamp_pb2.Timestamp) -> int:
    if at.seconds < 0:
        raise BadFeed("a time before 1970")
    return at.seconds * 1000 + at.nanos // 1_000_000


def _drop_after(rule: feed_pb2.RuleEvent) -> int | None:
    return _millis(rule.drop_after) if rule.HasField("drop_after") else None


def _task_id(text: str) -> str:
    if not TASK_ID.match(text):
        raise BadFeed(f"{text!r}, which is no task id")
    return text


# The targets that are one text, and the word that stands before it in their names.
_PLAIN = {
    "caller": "caller",
    "spiffe_id_prefix": "prefix",
    "trust_domain": "trust-domain",
    "upstream": "upstream",
    "binding": "binding",
    "tool": "tool",
    "environment": "environment",
}


def aim(t: revocation_pb2.Target) -> Callable[[Rules, int, int | None], None]:
    """Puts a rule of this target into force, by its seq and until when.

    Raises:
        BadFeed: it is of a sort that is not known here, so what it revokes is not known.
    """
    match t.WhichOneof("target"):
        case "signing_key":
            return lambda rules, seq, until: rules.add_key(t.signing_key)
        case "policy_below":
            below = t.policy_below
            return lambda rules, seq, until: rules.add_policy(below.environment, below.version, seq, until)
        case None:
            raise BadFeed("a target of a sort that is not known")
        case sort:
            name = _name(sort, t)
            return lambda rules, seq, until: rules.add(name, seq, until)


def _name(sort: str, t: revocation_pb2.Target) -> str:
    match sort:
        case "credential_id":
            if not CREDENTIAL_ID.match(t.credential_id):
                raise BadFeed(f"{t.credential_id!r}, which is no credential id")
            return f"credential:{t.credential_id}"
        case "task_id":
            return f"task:{_task_id(t.task_id)}"
        case "trust_anchor":
            return f"trust-anchor:{t.trust_anchor.sha256.hex()}"
        case "subject":
            # A workload's issuer is written as its trust domain's name or that one's SPIFFE ID.
            issuer, sub = t.subject.issuer, t.subject.sub
            return named("subject", issuer.removeprefix(SCHEME) if sub.startswith(SCHEME) else issuer, sub)
        case "upstream_scope":
            return named("upstream-scope", t.upstream_scope.upstream, t.upstream_scope.scope)
        case "svid":
            return named("svid", t.svid.trust_domain, t.svid.issuing_key_sha256.hex(), t.svid.serial.hex())
        case "subject_token":
            return named("subject-token", t.subject_token.issuer, t.subject_token.id)
        case "everything":
            return "everything"
        case _:
            return f"{_PLAIN[sort]}:{getattr(t, sort)}"

"""A follower of the revocation feed that checks credentials.

The follower accepts credentials only while its knowledge is complete: it has a whole snapshot, no gap, and a proof of
freshness younger than the feed's maximum age. If the feed's head is below one seen in the same generation, or belongs
to another history, the follower stops trusting the server until a new generation begins: such a server runs on an older
copy of its ledger and has lost later revocations. The follower's time is the later of its own clock and the time that
the feed proves, so setting the clock back revives nothing. Rules are dropped by the feed's time alone, so setting the
clock forward drops nothing.
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

# Maximum number of ended rules dropped per heartbeat.
DROP_PER_HEARTBEAT = 4_096
# Most commit chains whose end a heartbeat carries: one per replica that ever wrote (mayfly's limit).
CHAIN_HEADS = 64
GENERATION_BITS = 45
NUL = "\0"

Taken = Literal["taken", "gap", "old", "no_snapshot"]


class BadFeed(Exception):
    """The feed sent an invalid message."""


class Moment(NamedTuple):
    """A time by a clock that may step and by one that never does, milliseconds."""

    wall: int
    steady: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds for every credential, milliseconds (mayfly's limits)."""

    max_ttl: int = 3_600_000
    skew: int = 30_000
    feed_max_age: int = 30_000


def generation(seq: int) -> int:
    """The generation of a sequence number."""
    return seq >> GENERATION_BITS


class Building:
    """A snapshot whose parts may still be arriving. The follower keeps deciding with its present state until the
    snapshot is whole."""

    def __init__(self) -> None:
        self.rules = Rules()
        self.held: set[str] = set()

    def add(self, part: feed_pb2.SnapshotPart) -> None:
        """Adds one part.

        Raises:
            BadFeed: the part is not understood.
        """
        for rule in part.rules:
            if rule.seq >= SEQ_END:
                raise BadFeed("a seq above 2^53")
            for target in rule.targets:
                aim(target)(self.rules, rule.seq, _drop_after(rule))
        for hold in part.holds:
            self.held.add(_task_id(hold.task_id))


class Follower:
    """The state of one follower. Initially it has no knowledge and refuses everything."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.applied = 0
        self.whole = False
        self.rules = Rules()
        self._held: set[str] = set()
        # Replaced whenever an event arrives that may apply to a credential. Events that end a rule or a hold do not
        # replace it, since they only reduce what applies.
        self._known = object()
        # The newest proof: its time, its validity, and the steady time of its arrival.
        self._proof: tuple[int, int, int] | None = None
        # The proof that puts time furthest ahead: its time, the steady time of its arrival, and its generation.
        self._ahead: tuple[int, int, int] | None = None
        self._building = Building()
        self._must_begin = False
        # The newest head seen, and the ends of the commit chains that came with it, by writer: the number of the commit
        # and the hash of its header.
        self._seen: tuple[int, dict[str, tuple[int, bytes]]] | None = None
        self.rolled_back: str | None = None
        """Why the server is no longer trusted in this generation; `None` while it is trusted."""

    def needs_snapshot(self) -> None:
        """Refuses everything until a snapshot arrives. A snapshot older than the applied state is refused."""
        self.whole = False

    def resync(self) -> None:
        """The server no longer has the missed events, so the next stream begins with a snapshot. Until that is whole,
        the follower decides with its present state as long as its newest proof of freshness is valid. A restart of a
        server therefore does not show at relying services."""
        self._must_begin = True

    def begin_stream(self) -> int | None:
        """Begins a stream of the feed. Returns the sequence number after which it may resume; `None`: it must begin
        with a snapshot."""
        self._building = Building()
        return self.applied if self.whole and not self._must_begin else None

    def seen(self) -> feed_pb2.SeenHead | None:
        """The state of the ledger that was seen, which the server compares with its own when a stream begins."""
        if self._seen is None:
            return None
        head, chains = self._seen
        heads = [feed_pb2.ChainHead(writer=w, commit=c, header_sha256=h) for w, (c, h) in chains.items()]
        return feed_pb2.SeenHead(seq=head, heads=heads)

    def distrust(self, why: str) -> None:
        """The server's ledger is behind what was seen: nothing is accepted until it begins a new generation."""
        self.rolled_back = self.rolled_back or why

    def _old(self, found: int) -> Taken:
        # A message older than the applied state is not applied. In the same generation it shows that the server's
        # ledger was rolled back.
        if generation(found) == generation(self.applied) and found < self.applied:
            self.distrust(f"the head of its feed is {found}, and {self.applied} was seen before")
        return "old"

    def _trusts(self, found: int) -> bool:
        return self.rolled_back is None or generation(found) > generation(self.applied)

    def take(self, message: feed_pb2.WatchRevocationsResponse, now: Moment) -> Taken:
        """Applies one message of the feed.

        Raises:
            BadFeed: the message is invalid.
        """
        seq, previous = message.seq, message.previous_seq
        if seq >= SEQ_END or previous >= SEQ_END:
            raise BadFeed("a seq above 2^53")
        match message.WhichOneof("event"):
            case "snapshot":
                # Each part is added as it arrives, so that the event loop is never blocked by the whole snapshot.
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
        # The next stream tells the server what was seen, so that the server can judge it.
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
        # A lock only blocks new grants, which the server decides.
        if event in ("rule", "hold"):
            self._known = object()
        self.applied = seq
        return "taken"

    def _heartbeat(self, head: int, previous: int, beat: feed_pb2.HeartbeatEvent, now: Moment) -> Taken:
        if not beat.HasField("fresh_at"):
            raise BadFeed("a heartbeat without its time")
        fresh_at = _millis(beat.fresh_at)
        max_age = max(0, beat.max_age.seconds * 1000 + beat.max_age.nanos // 1_000_000)
        # Without this field, nothing of an older generation is considered certain.
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
        # A chain that ends before the end seen earlier, or has a different header at the same commit, is another history.
        if self._seen is None or generation(self._seen[0]) != generation(head):
            return
        for writer, (commit, header) in self._seen[1].items():
            now = chains.get(writer)
            if now is not None and (now[0] < commit or (now[0] == commit and now[1] != header)):
                self.distrust(f"commit {commit} of writer {writer} is not the one that was seen before")

    def _turn_to(self, seq: int) -> None:
        # A new generation needs its own proof of freshness. It begins by revoking everything issued before it, so it is
        # trusted again where the previous one was not.
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
        """The present time: the wall clock, but never earlier than the feed proves."""
        return now.wall if self._ahead is None else max(now.wall, self.time_ahead(now))

    def time_ahead(self, now: Moment) -> int:
        """The time that the feed proves: the proof that is furthest ahead, plus the steady time since its arrival. 0:
        none."""
        if self._ahead is None:
            return 0
        return self._ahead[0] + max(0, now.steady - self._ahead[1])

    def fresh(self, now: Moment) -> Refused | None:
        """Why the follower's knowledge is not complete and fresh; `None` where it is."""
        if self.rolled_back is not None:
            what = f"the server runs on an older copy of its ledger ({self.rolled_back})"
            return Refused("rolled_back", f"{what}; nothing is accepted until it begins a new generation (mayfly server recover)")
        if not self.whole:
            return Refused("not_whole", "the revocations are not known: begin with a snapshot")
        if self._proof is None:
            return Refused("stale", "the revocations are not proven to be known")
        fresh_at, max_age, came = self._proof
        # By both clocks, so that neither alone keeps it fresh.
        age = max(now.wall - fresh_at, now.steady - came)
        # Detects a proof that arrived late at a follower whose wall clock is behind: earlier proofs show the delay, up
        # to the clock skew of the replicas.
        if self._ahead is not None:
            age = max(age, self.time_ahead(now) - fresh_at - self.bounds.skew)
        if age > max_age or age > self.bounds.feed_max_age:
            return Refused("stale", f"the revocations are known up to {age} ms ago only")
        return None

    def check(self, c: Claims, kid: str, now: Moment) -> None:
        """Checks whether anything in force applies to a credential with these claims, signed by the key `kid`.
        Signature, lifetime, audience and possession were checked before, with the time from `time`.

        Raises:
            Refused: says what applies.
        """
        # Nothing has arrived since nothing applied, so only freshness is checked.
        known = self._known
        if c.untouched is known:
            if (stale := self.fresh(now)) is not None:
                raise stale
            return
        self.check_by_name(c, kid, now)
        c.untouched = known

    def check_by_name(self, c: Claims, kid: str, now: Moment) -> None:
        """The same, against everything in force.

        Raises:
            Refused: says what applies.
        """
        rules = self.rules
        if rules.revokes_key(kid):
            raise Refused("key_revoked", "its signing key was revoked")
        if (stale := self.fresh(now)) is not None:
            raise stale
        for key in c.keys:
            # Regardless of the revision: a credential that depends on something a stolen key may have signed is not acceptable.
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


# Targets that are one text, with the word before it in their names.
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
    """Returns a function that adds a rule for this target, given its sequence number and end.

    Raises:
        BadFeed: the sort of target is unknown, so it is unknown what was revoked.
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
            # The issuer of a workload is written as its trust domain's name or as that domain's SPIFFE ID.
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

//! One who checks credentials and follows revocations. No IO and no clock: messages and moments come in as values.
//!
//! It accepts only while it knows that it knows everything: snapshot complete, no gap, proof of freshness younger than the feed's maximum
//! age. A head below one that it has seen in the same generation, or another history up to it, ends its trust until the server begins a new
//! generation: such a server runs on an older copy of its ledger, and what was revoked since that copy is unknown to it. Time is the later of its own clock and what the feed proves, so a clock that is set back revives nothing; rules are dropped by the
//! feed's time alone, so a clock that is set forward drops nothing.

use std::collections::BTreeSet;

use super::event::{FeedEvent, FeedSnapshot};
use super::facts::{Facts, Probe};
use super::marks::{Asked, Marks};
use super::rules::{Hit, Rules};
use super::sort::Sort;
use crate::limits;
use crate::seq::{Millis, Seq, TaskId};

/// Ended rules dropped per heartbeat.
const DROP_PER_HEARTBEAT: usize = 4_096;

/// A moment by a clock that may step and by one that never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Moment {
    /// The wall clock.
    pub wall: Millis,
    /// Milliseconds of a clock that never steps.
    pub steady: u64,
}

/// A credential's life, as its claims say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// `iat`.
    pub issued_at: Millis,
    /// `exp`.
    pub expires_at: Millis,
}

/// A sign that the feed is whole and fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The durable head of the replica that sent it.
    pub head: Seq,
    /// The seq of the newest event before it.
    pub previous: Seq,
    /// When that replica's view was proven fresh: its clock then, but never earlier than the newest commit that it had folded.
    pub fresh_at: Millis,
    /// How long that is good for, milliseconds. Never more than `limits::FEED_MAX_AGE_MS`.
    pub max_age: u64,
    /// The newest generation that began at an earlier time: what was proven of time before it is void.
    pub time_generation: u8,
}

/// The end of one writer's chain of commits, as heartbeats carry it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainHead {
    /// The writer's name.
    pub writer: Box<str>,
    /// The number of its last commit.
    pub commit: u64,
    /// SHA-256 of that commit's header.
    pub header_sha256: [u8; 32],
}

/// Why a follower's trust ended: the server went back behind what the follower has seen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RolledBack {
    /// The head of the feed is older than one that was seen.
    #[error("the head of its feed is {found}, and {seen} was seen before")]
    Head {
        /// The newest head that was seen.
        seen: Seq,
        /// The head of the feed.
        found: Seq,
    },
    /// The chain of commits is not the one that was seen.
    #[error("commit {commit} of writer {writer} is not the one that was seen before")]
    Chain {
        /// The writer.
        writer: Box<str>,
        /// The number of the commit that was seen.
        commit: u64,
    },
    /// The server itself found it.
    #[error("the server says: {0}")]
    Told(String),
}

/// Why a credential is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FollowerRefusal {
    /// The key that signed it was revoked, whatever revision it claims.
    #[error("its signing key was revoked at seq {0}")]
    Key(Seq),
    /// No snapshot yet, or events are missing: whatever is not known may be revoked.
    #[error("the revocations are not known: begin with a snapshot")]
    NotWhole,
    /// The server's ledger was rolled back: what was revoked since that copy is unknown to it.
    #[error(
        "the server runs on an older copy of its ledger ({0}); nothing is accepted until it begins a new generation (mayfly server recover)"
    )]
    RolledBack(Box<RolledBack>),
    /// The last proof of freshness is too old.
    #[error("the revocations are known up to {0} only")]
    Stale(Millis),
    /// It claims a life that mayfly never gives.
    #[error("a life of {0} ms is above the maximum TTL")]
    LifeTooLong(u64),
    /// It was issued later than now.
    #[error("it is not valid before {0}")]
    NotYet(Millis),
    /// It has ended.
    #[error("it ended at {0}")]
    Expired(Millis),
    /// A rule covers it.
    #[error("{} was revoked at seq {}", .0.target, .0.seq)]
    Revoked(Hit),
    /// A task on its path is held.
    #[error("{0} is held")]
    Held(TaskId),
}

/// Why a message was not taken. But for [`Missed::Old`], the follower refuses everything until a snapshot came. After [`Missed::Old`]
/// [`Follower::rolled_back`] says whether its trust has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missed {
    /// Events between what was applied and this one are missing.
    #[error("events after {applied} up to {previous} are missing")]
    Gap {
        /// What was applied.
        applied: Seq,
        /// What the message comes after.
        previous: Seq,
    },
    /// It stands before what was applied. Nothing of it was taken.
    #[error("it is of {found}, and {applied} was applied")]
    Old {
        /// What was applied.
        applied: Seq,
        /// What the message stands at.
        found: Seq,
    },
    /// No snapshot came before it.
    #[error("no snapshot came before it")]
    NoSnapshot,
}

/// What one follower knows.
#[derive(Clone, Default)]
pub struct Follower {
    rules: Rules,
    held: BTreeSet<TaskId>,
    /// Of the rules and holds.
    marks: Marks,
    applied: Seq,
    whole: bool,
    /// The next stream begins with a snapshot: the feed no longer has what was missed.
    must_begin: bool,
    /// The newest head that was seen, and the ends of the chains of commits that came with it.
    seen: Option<(Seq, Vec<ChainHead>)>,
    /// Why the server is not believed any more, in this generation.
    rolled_back: Option<Box<RolledBack>>,
    /// The newest proof, and the moment that it came.
    proof: Option<(Heartbeat, Moment)>,
    /// The proof that puts time furthest ahead, one that came without delay, and its generation.
    ahead: Option<(Millis, u64, u8)>,
}

/// A snapshot of which parts may be missing yet. What the follower decides by stays as it is until the snapshot is whole.
#[derive(Clone, Default)]
pub struct Building {
    seq: Seq,
    rules: Rules,
    held: BTreeSet<TaskId>,
    marks: Marks,
}

impl Building {
    /// Takes one part, or all of it.
    pub fn add(&mut self, part: &FeedSnapshot) {
        self.seq = part.seq;
        for (target, revoked, until) in &part.rules {
            self.rules.add(target, Some(*revoked), None, until.unwrap_or(Millis(u64::MAX)));
            self.marks.revoked(target, *revoked);
        }
        for task in &part.holds {
            self.held.insert(*task);
            self.marks.held(*task);
        }
    }
}

impl Follower {
    /// One that knows nothing and refuses everything.
    pub fn new() -> Follower {
        Follower::default()
    }

    /// Everything up to here was applied, or is known not to be there.
    pub fn applied(&self) -> Seq {
        self.applied
    }

    /// It has a snapshot and missed nothing since.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// It refuses everything until a snapshot came that knows no less than was applied: what was seen once is not unseen.
    pub fn needs_snapshot(&mut self) {
        self.whole = false;
    }

    /// The feed no longer has what was missed: the next stream begins with a snapshot. Until that is whole the follower decides by what it
    /// knows, for as long as its last proof of freshness is young enough: no restart of a server shows where credentials are checked.
    pub fn resync(&mut self) {
        self.must_begin = true;
    }

    /// Where a stream may go on; `None` where it has to begin with a snapshot.
    pub fn resumes_after(&self) -> Option<Seq> {
        (self.whole && !self.must_begin).then_some(self.applied)
    }

    /// The newest head that was seen, and the ends of the chains of commits that came with it: the server compares them with its own.
    pub fn seen(&self) -> Option<(Seq, &[ChainHead])> {
        self.seen.as_ref().map(|(head, chains)| (*head, chains.as_slice()))
    }

    /// Why the server is not believed any more, where it went back behind what was seen. Only a new generation ends that.
    pub fn rolled_back(&self) -> Option<&RolledBack> {
        self.rolled_back.as_deref()
    }

    /// The server is not believed any more: it said itself that it went back.
    pub fn told_rolled_back(&mut self, what: &str) {
        self.distrust(RolledBack::Told(what.to_owned()));
    }

    fn distrust(&mut self, why: RolledBack) {
        self.rolled_back.get_or_insert_with(|| Box::new(why));
    }

    /// What stands before what was applied is not taken. In the same generation it says that the server went back.
    fn old(&mut self, found: Seq) -> Missed {
        if found.generation() == self.applied.generation() && found < self.applied {
            self.distrust(RolledBack::Head { seen: self.applied, found });
        }
        Missed::Old { applied: self.applied, found }
    }

    /// Nothing of this generation is taken where trust has ended in it.
    fn trusts(&self, found: Seq) -> Result<(), Missed> {
        match self.rolled_back.is_some() && found.generation() <= self.applied.generation() {
            true => Err(Missed::Old { applied: self.applied, found }),
            false => Ok(()),
        }
    }

    /// How many targets it knows to be revoked.
    pub fn rules(&self) -> usize {
        self.rules.len()
    }

    /// Begins with a snapshot, all parts of it. One that knows less than was applied is refused, and ends the trust in this generation.
    pub fn begin(&mut self, snapshot: &FeedSnapshot) -> Result<(), Missed> {
        let mut whole = Building::default();
        whole.add(snapshot);
        self.begin_with(whole)
    }

    /// The same with a snapshot whose parts came one by one.
    pub fn begin_with(&mut self, snapshot: Building) -> Result<(), Missed> {
        let Building { seq, rules, held, marks } = snapshot;
        // The next stream says what was seen before, so that the server judges it.
        self.must_begin = false;
        if seq < self.applied {
            return Err(self.old(seq));
        }
        self.trusts(seq)?;
        self.turn_to(seq);
        (self.rules, self.held, self.marks) = (rules, held, marks);
        (self.applied, self.whole) = (seq, true);
        Ok(())
    }

    /// Takes the next event. `previous` is the seq of the event before it: one that was not applied is a gap.
    pub fn apply(&mut self, previous: Seq, event: &FeedEvent) -> Result<(), Missed> {
        self.follows(previous)?;
        if event.seq() <= self.applied {
            return Err(Missed::Old { applied: self.applied, found: event.seq() });
        }
        self.trusts(event.seq())?;
        self.turn_to(event.seq());
        match event {
            FeedEvent::Rule { seq, targets, drop_after, .. } => {
                for target in targets {
                    self.rules.add(target, Some(*seq), None, drop_after.unwrap_or(Millis(u64::MAX)));
                    self.marks.revoked(target, *seq);
                }
            }
            FeedEvent::Hold { task, .. } => {
                self.held.insert(*task);
                self.marks.held(*task);
            }
            FeedEvent::Resume { task, .. } => {
                self.held.remove(task);
                self.ended(1);
            }
            // A lock keeps from new grants, and who grants asks the server.
            FeedEvent::Lock { .. } | FeedEvent::Lift { .. } => {}
        }
        self.applied = event.seq();
        Ok(())
    }

    /// Takes a heartbeat: nothing is missing up to its head, and that was so at `fresh_at`.
    pub fn heartbeat(&mut self, beat: Heartbeat, now: Moment) -> Result<(), Missed> {
        self.follows(beat.previous)?;
        if beat.head < self.applied {
            return Err(self.old(beat.head));
        }
        self.trusts(beat.head)?;
        self.applied = beat.head;
        if self.ahead.is_some_and(|(.., generation)| generation < beat.time_generation) {
            self.ahead = None;
        }
        if self.proof.is_none_or(|(newest, _)| beat.fresh_at > newest.fresh_at) {
            self.proof = Some((beat, now));
        }
        if self.proven(now).is_none_or(|proven| beat.fresh_at > proven) {
            self.ahead = Some((beat.fresh_at, now.steady, beat.head.generation()));
        }
        let before = self.rules.len();
        self.rules.expire(beat.fresh_at, DROP_PER_HEARTBEAT);
        self.ended(before - self.rules.len());
        Ok(())
    }

    /// The same for one that carries the ends of the chains of commits: a chain that ends before its end of then, or ends otherwise at the same
    /// commit, ends the trust in this generation.
    pub fn heartbeat_with_heads(&mut self, beat: Heartbeat, chains: Vec<ChainHead>, now: Moment) -> Result<(), Missed> {
        let seen = self.seen.iter().filter(|(head, _)| head.generation() == beat.head.generation());
        let differs = |old: &&ChainHead| {
            chains.iter().any(|new| {
                let (same, other) = (new.writer == old.writer, new.header_sha256 != old.header_sha256);
                same && (new.commit < old.commit || (new.commit == old.commit && other))
            })
        };
        if let Some(old) = seen.flat_map(|(_, chains)| chains).find(differs) {
            let why = RolledBack::Chain { writer: old.writer.clone(), commit: old.commit };
            self.distrust(why);
        }
        self.heartbeat(beat, now)?;
        self.seen = Some((beat.head, chains));
        Ok(())
    }

    /// So many rules or holds are no longer in force. Their marks stay until they are too many: what is marked is asked about by name.
    fn ended(&mut self, count: usize) {
        if self.marks.ended(count) {
            self.mark_anew();
        }
    }

    fn mark_anew(&mut self) {
        self.marks = Marks::default();
        self.rules.entries().iter().for_each(|(target, entry)| self.marks.revoked(target, entry.revoked));
        self.held.iter().for_each(|task| self.marks.held(*task));
    }

    /// Only a new generation's own proof makes it fresh. That says, too, whether what the one before proved of time still holds. It began by
    /// revoking whatever was issued before it, so it may be believed where the one before was not.
    fn turn_to(&mut self, seq: Seq) {
        if seq.generation() > self.applied.generation() {
            (self.proof, self.seen, self.rolled_back) = (None, None, None);
        }
    }

    fn follows(&mut self, previous: Seq) -> Result<(), Missed> {
        if !self.whole {
            return Err(Missed::NoSnapshot);
        }
        if previous > self.applied {
            self.whole = false;
            return Err(Missed::Gap { applied: self.applied, previous });
        }
        Ok(())
    }

    /// Now: the wall clock, but never earlier than what the feed proves.
    pub fn time(&self, now: Moment) -> Millis {
        now.wall.max(self.proven(now).unwrap_or_default())
    }

    fn proven(&self, now: Moment) -> Option<Millis> {
        self.ahead.map(|(fresh_at, steady, _)| fresh_at.plus(now.steady.saturating_sub(steady)))
    }

    /// It is whole, and its last proof of freshness is young enough.
    pub fn is_fresh(&self, now: Moment) -> bool {
        self.fresh(now).is_ok()
    }

    fn fresh(&self, now: Moment) -> Result<(), FollowerRefusal> {
        if let Some(why) = &self.rolled_back {
            return Err(FollowerRefusal::RolledBack(why.clone()));
        }
        if !self.whole {
            return Err(FollowerRefusal::NotWhole);
        }
        let Some((beat, came)) = self.proof else { return Err(FollowerRefusal::Stale(Millis(0))) };
        let age = now.wall.since(beat.fresh_at).max(now.steady.saturating_sub(came.steady));
        // A proof that came late, to one whose clock is behind: earlier proofs tell by how much, up to the skew of who made them.
        let late = self.proven(now).map_or(0, |proven| proven.since(beat.fresh_at)).saturating_sub(limits::CLOCK_SKEW_MS);
        if age.max(late) > beat.max_age.min(limits::FEED_MAX_AGE_MS) {
            Err(FollowerRefusal::Stale(beat.fresh_at))
        } else {
            Ok(())
        }
    }

    /// Whether a credential with these claims may be accepted now. Signature, audience and possession are checked elsewhere.
    ///
    /// The revision in the facts is the token's own word: it counts only because the signing key's rules come first.
    pub fn check(&self, facts: &Facts<'_>, life: Life, now: Moment) -> Result<(), FollowerRefusal> {
        if let Some(seq) = self.key_revoked(facts.key) {
            return Err(FollowerRefusal::Key(seq));
        }
        self.lives(life, now)?;
        if let Some(hit) = self.rules.covers(facts) {
            return Err(FollowerRefusal::Revoked(hit));
        }
        match facts.tasks.iter().find(|t| self.held.contains(*t)) {
            Some(task) => Err(FollowerRefusal::Held(*task)),
            None => Ok(()),
        }
    }

    /// What [`check`](Follower::check) comes to for a credential that nothing [`touches`](Follower::touches): it knows everything, and the
    /// credential lives.
    pub fn lives(&self, life: Life, now: Moment) -> Result<(), FollowerRefusal> {
        self.fresh(now)?;
        let ttl = life.expires_at.since(life.issued_at);
        if ttl > limits::CREDENTIAL_TTL_MS {
            return Err(FollowerRefusal::LifeTooLong(ttl));
        }
        let time = self.time(now);
        if life.issued_at > time.plus(limits::CLOCK_SKEW_MS) {
            return Err(FollowerRefusal::NotYet(life.issued_at));
        }
        if life.expires_at <= time {
            return Err(FollowerRefusal::Expired(life.expires_at));
        }
        Ok(())
    }

    /// Whether a rule or hold may speak against a credential, its key's rules among them. `false` is certain, and costs a few nanoseconds
    /// for each question; where it is `true`, [`check`](Follower::check) says what and whether.
    pub fn touches(&self, asked: &Asked) -> bool {
        self.marks.touch(asked)
    }

    /// Whether a signing key of ours was revoked: asked before anything that it signed is believed.
    pub fn revokes_key(&self, kid: &str) -> bool {
        self.key_revoked(kid).is_some()
    }

    fn key_revoked(&self, kid: &str) -> Option<Seq> {
        self.rules.found(&Probe::Name(Sort::SigningKey, kid)).map(|entry| entry.revoked)
    }
}

#[cfg(test)]
#[path = "follower_tests.rs"]
mod tests;

//! A follower of the revocation feed that checks credentials. No IO and no clock: messages and times come in as values.
//!
//! The follower accepts credentials only while its knowledge is complete: it has a whole snapshot, no gap, and a proof of freshness younger
//! than the feed's maximum age. If the feed's head is below one seen in the same generation, or belongs to another history, the follower
//! stops trusting the server until a new generation begins: such a server runs on an older copy of its ledger and has lost later
//! revocations. The follower's time is the later of its own clock and the time that the feed proves, so setting the clock back revives
//! nothing. Rules are dropped by the feed's time alone, so setting the clock forward drops nothing.

use std::collections::BTreeSet;

use super::bloom_filter::{ProbeHashes, RevocationFilter};
use super::event::{FeedEvent, FeedSnapshot};
use super::facts::{Facts, Probe};
use super::rules::{Hit, Rules};
use super::target_kind::TargetKind;
use crate::limits;
use crate::seq::{Millis, Seq, TaskId};

/// Maximum number of ended rules dropped per heartbeat.
const DROP_PER_HEARTBEAT: usize = 4_096;

/// A time by a wall clock, which may step, and by a clock that never steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Moment {
    /// The wall clock.
    pub wall: Millis,
    /// Milliseconds of a clock that never steps.
    pub steady: u64,
}

/// A credential's lifetime according to its claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// `iat`.
    pub issued_at: Millis,
    /// `exp`.
    pub expires_at: Millis,
}

/// A proof that the feed is complete and fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The durable head of the replica that sent the heartbeat.
    pub head: Seq,
    /// The sequence number of the newest event before the heartbeat.
    pub previous: Seq,
    /// When that replica's view was proven fresh: its clock at that time, but not earlier than the newest commit that it had folded.
    pub fresh_at: Millis,
    /// How long the proof is valid, in milliseconds; at most `limits::FEED_MAX_AGE_MS`.
    pub max_age: u64,
    /// The newest generation that began at an earlier time. Time proven before it is void.
    pub time_generation: u8,
}

/// The end of one writer's chain of commits, as heartbeats carry it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainHead {
    /// The writer's name.
    pub writer: Box<str>,
    /// The number of the last commit.
    pub commit: u64,
    /// SHA-256 of that commit's header.
    pub header_sha256: [u8; 32],
}

/// Why the follower no longer trusts the server: its ledger is behind what the follower has seen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RolledBack {
    /// The head of the feed is older than one seen before.
    #[error("the head of its feed is {found}, and {seen} was seen before")]
    Head {
        /// The newest head seen.
        seen: Seq,
        /// The head of the feed.
        found: Seq,
    },
    /// The chain of commits differs from the one seen before.
    #[error("commit {commit} of writer {writer} is not the one that was seen before")]
    Chain {
        /// The writer.
        writer: Box<str>,
        /// The number of the commit seen before.
        commit: u64,
    },
    /// The server itself reported it.
    #[error("the server says: {0}")]
    Told(String),
}

/// Why a credential is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FollowerRefusal {
    /// The signing key was revoked; the claimed revision does not matter.
    #[error("its signing key was revoked at seq {0}")]
    Key(Seq),
    /// There is no snapshot yet, or events are missing, so any credential may be revoked.
    #[error("the revocations are not known: begin with a snapshot")]
    NotWhole,
    /// The server's ledger was rolled back and has lost later revocations.
    #[error(
        "the server runs on an older copy of its ledger ({0}); nothing is accepted until it begins a new generation (mayfly server recover)"
    )]
    RolledBack(Box<RolledBack>),
    /// The newest proof of freshness is too old.
    #[error("the revocations are known up to {0} only")]
    Stale(Millis),
    /// The claimed lifetime is longer than mayfly ever grants.
    #[error("a life of {0} ms is above the maximum TTL")]
    LifeTooLong(u64),
    /// The credential was issued in the future.
    #[error("it is not valid before {0}")]
    NotYet(Millis),
    /// The credential has expired.
    #[error("it ended at {0}")]
    Expired(Millis),
    /// A revocation rule covers the credential.
    #[error("{} was revoked at seq {}", .0.target, .0.seq)]
    Revoked(Hit),
    /// A task on the credential's path is held.
    #[error("{0} is held")]
    Held(TaskId),
}

/// Why a message was not applied. Except after [`Missed::Old`], the follower refuses every credential until it gets a snapshot. After
/// [`Missed::Old`], [`Follower::rolled_back`] says whether the server is still trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missed {
    /// Events between the applied state and this message are missing.
    #[error("events after {applied} up to {previous} are missing")]
    Gap {
        /// The applied sequence number.
        applied: Seq,
        /// The sequence number that the message follows.
        previous: Seq,
    },
    /// The message is older than the applied state. Nothing of it was applied.
    #[error("it is of {found}, and {applied} was applied")]
    Old {
        /// The applied sequence number.
        applied: Seq,
        /// The sequence number of the message.
        found: Seq,
    },
    /// No snapshot was received before the message.
    #[error("no snapshot came before it")]
    NoSnapshot,
}

/// The state of one follower.
#[derive(Clone, Default)]
pub struct Follower {
    rules: Rules,
    held: BTreeSet<TaskId>,
    /// The marks of the rules and holds.
    marks: RevocationFilter,
    applied: Seq,
    whole: bool,
    /// The next stream begins with a snapshot, because the feed no longer has the missed events.
    must_begin: bool,
    /// The newest head seen, and the ends of the commit chains that came with it.
    seen: Option<(Seq, Vec<ChainHead>)>,
    /// Why the server is no longer trusted in this generation.
    rolled_back: Option<Box<RolledBack>>,
    /// The newest proof of freshness, and the time of its arrival.
    proof: Option<(Heartbeat, Moment)>,
    /// The proof that puts time furthest ahead, that is the one with the least delay: its time, the steady time of its arrival, and its
    /// generation.
    ahead: Option<(Millis, u64, u8)>,
}

/// A snapshot whose parts may still be arriving. The follower keeps deciding with its present state until the snapshot is whole.
#[derive(Clone, Default)]
pub struct PartialSnapshot {
    seq: Seq,
    rules: Rules,
    held: BTreeSet<TaskId>,
    marks: RevocationFilter,
}

impl PartialSnapshot {
    /// Adds one part, or the whole snapshot.
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
    /// A follower without any knowledge, which refuses everything.
    pub fn new() -> Follower {
        Follower::default()
    }

    /// The sequence number up to which everything was applied or is known not to exist.
    pub fn applied(&self) -> Seq {
        self.applied
    }

    /// Whether the follower has a snapshot and missed nothing since.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Refuses everything until a snapshot arrives that is not older than the applied state.
    pub fn needs_snapshot(&mut self) {
        self.whole = false;
    }

    /// The feed no longer has the missed events, so the next stream begins with a snapshot. Until that is whole, the follower decides with
    /// its present state as long as its newest proof of freshness is valid. A restart of a server therefore does not show at relying
    /// services.
    pub fn resync(&mut self) {
        self.must_begin = true;
    }

    /// The sequence number after which a stream may resume; `None` where it must begin with a snapshot.
    pub fn resumes_after(&self) -> Option<Seq> {
        (self.whole && !self.must_begin).then_some(self.applied)
    }

    /// The newest head seen, and the ends of the commit chains that came with it. The server compares them with its own.
    pub fn seen(&self) -> Option<(Seq, &[ChainHead])> {
        self.seen.as_ref().map(|(head, chains)| (*head, chains.as_slice()))
    }

    /// Why the server is no longer trusted, if its ledger is behind what was seen. Only a new generation restores trust.
    pub fn rolled_back(&self) -> Option<&RolledBack> {
        self.rolled_back.as_deref()
    }

    /// Stops trusting the server, because it reported that its ledger was rolled back.
    pub fn told_rolled_back(&mut self, what: &str) {
        self.distrust(RolledBack::Told(what.to_owned()));
    }

    fn distrust(&mut self, why: RolledBack) {
        self.rolled_back.get_or_insert_with(|| Box::new(why));
    }

    /// The error for a message older than the applied state. In the same generation such a message also ends the trust.
    fn old(&mut self, found: Seq) -> Missed {
        if found.generation() == self.applied.generation() && found < self.applied {
            self.distrust(RolledBack::Head { seen: self.applied, found });
        }
        Missed::Old { applied: self.applied, found }
    }

    /// Refuses messages of a generation in which the server is no longer trusted.
    fn trusts(&self, found: Seq) -> Result<(), Missed> {
        match self.rolled_back.is_some() && found.generation() <= self.applied.generation() {
            true => Err(Missed::Old { applied: self.applied, found }),
            false => Ok(()),
        }
    }

    /// The number of revoked targets.
    pub fn rules(&self) -> usize {
        self.rules.len()
    }

    /// Begins with a whole snapshot. A snapshot older than the applied state is refused and ends the trust in this generation.
    pub fn begin(&mut self, snapshot: &FeedSnapshot) -> Result<(), Missed> {
        let mut whole = PartialSnapshot::default();
        whole.add(snapshot);
        self.begin_with(whole)
    }

    /// The same with a snapshot whose parts arrived one by one.
    pub fn begin_with(&mut self, snapshot: PartialSnapshot) -> Result<(), Missed> {
        let PartialSnapshot { seq, rules, held, marks } = snapshot;
        // The next stream tells the server what was seen, so that the server can judge it.
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

    /// Applies the next event. `previous` is the sequence number of the event before it; if that event was not applied, there is a gap.
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
            // A lock only blocks new grants, which the server decides.
            FeedEvent::Lock { .. } | FeedEvent::Lift { .. } => {}
        }
        self.applied = event.seq();
        Ok(())
    }

    /// Applies a heartbeat, which proves that nothing up to its head is missing, as of `fresh_at`.
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

    /// The same for a heartbeat with the ends of the commit chains. A chain that ends before the end seen earlier, or has a different
    /// header at the same commit, ends the trust in this generation.
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

    /// Records that rules or holds have ended. Their marks stay until there are too many; a marked token is checked by name.
    fn ended(&mut self, count: usize) {
        if self.marks.ended(count) {
            self.mark_anew();
        }
    }

    fn mark_anew(&mut self) {
        self.marks = RevocationFilter::default();
        self.rules.entries().iter().for_each(|(target, entry)| self.marks.revoked(target, entry.revoked));
        self.held.iter().for_each(|task| self.marks.held(*task));
    }

    /// A new generation needs its own proof of freshness, which also says whether time proven in the previous generation still holds. A new
    /// generation begins by revoking everything issued before it, so it is trusted again where the previous one was not.
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

    /// The present time: the wall clock, but never earlier than the feed proves.
    pub fn time(&self, now: Moment) -> Millis {
        now.wall.max(self.proven(now).unwrap_or_default())
    }

    fn proven(&self, now: Moment) -> Option<Millis> {
        self.ahead.map(|(fresh_at, steady, _)| fresh_at.plus(now.steady.saturating_sub(steady)))
    }

    /// Whether the follower is complete and its newest proof of freshness is valid.
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
        // Detects a proof that arrived late at a follower whose wall clock is behind: earlier proofs show the delay, up to the clock skew
        // of the replicas.
        let late = self.proven(now).map_or(0, |proven| proven.since(beat.fresh_at)).saturating_sub(limits::CLOCK_SKEW_MS);
        if age.max(late) > beat.max_age.min(limits::FEED_MAX_AGE_MS) {
            Err(FollowerRefusal::Stale(beat.fresh_at))
        } else {
            Ok(())
        }
    }

    /// Whether a credential with these claims may be accepted now. Signature, audience and possession are checked elsewhere.
    ///
    /// The revision in the facts is claimed by the token itself. It may be relied on only because the rule of the signing key is checked
    /// first.
    pub fn check(&self, facts: &Facts<'_>, life: Lifetime, now: Moment) -> Result<(), FollowerRefusal> {
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

    /// The result of [`check`](Follower::check) for a credential that nothing [`touches`](Follower::touches): the follower's knowledge is
    /// complete and the credential has not expired.
    pub fn lives(&self, life: Lifetime, now: Moment) -> Result<(), FollowerRefusal> {
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

    /// Whether a rule or hold may apply to a credential, including the rule of its signing key. `false` is certain and costs a few
    /// nanoseconds per question; after `true`, [`check`](Follower::check) gives the answer.
    pub fn touches(&self, asked: &ProbeHashes) -> bool {
        self.marks.touch(asked)
    }

    /// Whether a signing key of mayfly was revoked. To be asked before anything that the key signed is believed.
    pub fn revokes_key(&self, kid: &str) -> bool {
        self.key_revoked(kid).is_some()
    }

    fn key_revoked(&self, kid: &str) -> Option<Seq> {
        self.rules.found(&Probe::Name(TargetKind::SigningKey, kid)).map(|entry| entry.revoked)
    }
}

#[cfg(test)]
#[path = "follower_tests.rs"]
mod tests;

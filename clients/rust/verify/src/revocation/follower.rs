//! One who checks credentials and follows revocations. No IO and no clock: messages and moments come in as values.
//!
//! It accepts only while it knows that it knows everything: snapshot complete, no gap, proof of freshness younger than the feed's maximum
//! age. Time is the later of its own clock and what the feed proves, so a clock that is set back revives nothing; rules are dropped by the
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

/// Why a credential is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FollowerRefusal {
    /// The key that signed it was revoked, whatever revision it claims.
    #[error("its signing key was revoked at seq {0}")]
    Key(Seq),
    /// No snapshot yet, or events are missing: whatever is not known may be revoked.
    #[error("the revocations are not known: begin with a snapshot")]
    NotWhole,
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

/// Why a message was not taken. But for [`Missed::Old`], the follower refuses everything until a snapshot came.
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
    /// It comes from a replica that knows less than the follower does. Ignored.
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
    /// The newest proof, and the moment that it came.
    proof: Option<(Heartbeat, Moment)>,
    /// The proof that puts time furthest ahead, one that came without delay, and its generation.
    ahead: Option<(Millis, u64, u8)>,
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

    /// How many targets it knows to be revoked.
    pub fn rules(&self) -> usize {
        self.rules.len()
    }

    /// Begins with a snapshot, all parts of it. One that knows less than was applied is refused.
    pub fn begin(&mut self, snapshot: &FeedSnapshot) -> Result<(), Missed> {
        if snapshot.seq < self.applied {
            return Err(Missed::Old { applied: self.applied, found: snapshot.seq });
        }
        self.turn_to(snapshot.seq);
        let mut rules = Rules::default();
        for (target, revoked, until) in &snapshot.rules {
            rules.add(target, Some(*revoked), None, until.unwrap_or(Millis(u64::MAX)));
        }
        self.rules = rules;
        self.held = snapshot.holds.iter().copied().collect();
        self.mark_anew();
        self.applied = snapshot.seq;
        self.whole = true;
        Ok(())
    }

    /// Takes the next event. `previous` is the seq of the event before it: one that was not applied is a gap.
    pub fn apply(&mut self, previous: Seq, event: &FeedEvent) -> Result<(), Missed> {
        self.follows(previous)?;
        if event.seq() <= self.applied {
            return Err(Missed::Old { applied: self.applied, found: event.seq() });
        }
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
            // A replica that has not seen what this follower has proves nothing to it.
            return Err(Missed::Old { applied: self.applied, found: beat.head });
        }
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

    /// Only a new generation's own proof makes it fresh. That says, too, whether what the one before proved of time still holds.
    fn turn_to(&mut self, seq: Seq) {
        if seq.generation() > self.applied.generation() {
            self.proof = None;
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

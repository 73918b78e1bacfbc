//! Revocation rules, and the check of one credential against them, which takes a few hash look-ups regardless of the number of rules.
//!
//! A revocation at sequence number `v` covers everything decided at `r < v`. There are three exceptions: the rule of a signing key ignores
//! `r`, because whoever stole the key chooses `r`; revoked evidence blocks every new grant that depends on it; a lock blocks every new
//! grant until it is lifted.

use super::facts::{Facts, Probe};
use super::rule_storage::{InPlace, RuleSchedule, RuleStorage};
pub use super::rule_table::RevocationEntry;
use super::rule_table::RuleTable;
use super::target::Target;
use super::target_kind::{SORTS, TargetKind, TargetKinds};
use crate::limits;
use crate::seq::{Millis, Seq};

/// The rule that covers a credential or blocks a grant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hit {
    /// The rule's target.
    pub target: Target,
    /// The sequence number of the revocation or the lock.
    pub seq: Seq,
    /// The rule is a lock: new grants are refused until it is lifted.
    pub lock: bool,
}

/// The rules in force, as a follower keeps them.
pub type Rules = RuleSet<InPlace>;

/// All rules in force.
#[derive(Clone, Default)]
pub struct RuleSet<S: RuleStorage> {
    table: RuleTable<S>,
    /// The newest revocation of each sort. A decision that has seen it needs no look-up for this sort.
    newest: [Seq; SORTS],
    locks: [usize; SORTS],
    ends: S::Schedule,
    /// The newest revocation among the dropped rules.
    dropped: Seq,
}

impl<S: RuleStorage> RuleSet<S> {
    /// Adds a revocation or a lock. `until` bounds the revocation; the rule of a signing key is kept for ever.
    pub fn add(&mut self, target: &Target, revoked: Option<Seq>, lock: Option<Seq>, until: Millis) {
        let sort = target.sort();
        let until = if sort == TargetKind::SigningKey { Millis(u64::MAX) } else { until };
        let entry = self.table.slot(target);
        let was_locked = entry.lock.is_some();
        entry.revoked = entry.revoked.max(revoked.unwrap_or(Seq::ZERO));
        entry.lock = lock.or(entry.lock);
        entry.until = entry.until.max(until);
        self.locks[sort as usize] += usize::from(lock.is_some() && !was_locked);
        self.newest[sort as usize] = self.newest[sort as usize].max(revoked.unwrap_or(Seq::ZERO));
        if until < Millis(u64::MAX) {
            self.ends.after(until, target.clone());
        }
    }

    /// Lifts a lock; a revocation stays in force. `false` where there was no lock.
    pub fn lift(&mut self, target: &Target) -> bool {
        let sort = target.sort();
        let Some(mut entry) = self.get(target) else { return false };
        if entry.lock.take().is_none() {
            return false;
        }
        *self.table.slot(target) = entry;
        self.locks[sort as usize] -= 1;
        if entry.revoked == Seq::ZERO {
            self.table.remove(target);
        } else if entry.until < Millis(u64::MAX) {
            // The rule's end may have passed while the lock kept it.
            self.ends.after(entry.until, target.clone());
        }
        true
    }

    /// The entry for exactly this target.
    pub fn get(&self, target: &Target) -> Option<RevocationEntry> {
        self.table.get(target)
    }

    /// The entry that matches a question, regardless of the revision.
    pub(super) fn found(&self, probe: &Probe<'_>) -> Option<RevocationEntry> {
        self.table.probe(probe, Seq::ZERO)
    }

    /// The rule that covers a credential or grant with these facts, if there is one.
    pub fn covers(&self, facts: &Facts<'_>) -> Option<Hit> {
        self.covered(facts, |_| true)
    }

    /// The same, for revocations before `before`.
    pub fn covers_before(&self, facts: &Facts<'_>, before: Seq) -> Option<Hit> {
        self.covered(facts, |seq| seq < before)
    }

    fn covered(&self, facts: &Facts<'_>, fits: impl Fn(Seq) -> bool) -> Option<Hit> {
        let mut hit = None;
        let asked: TargetKinds = self.newer(facts.revision).collect();
        facts.each(asked.with(TargetKind::SigningKey), &mut |probe| {
            let sort = probe.sort();
            if let Some(entry) = self.table.probe(&probe, facts.revision) {
                let covered = sort == TargetKind::SigningKey || facts.revision < entry.revoked;
                if covered && entry.revoked > Seq::ZERO && fits(entry.revoked) {
                    hit = Some(Hit { target: self.table.target_of(&probe, facts.revision), seq: entry.revoked, lock: false });
                    return true;
                }
            }
            false
        });
        hit
    }

    /// The sorts of rules that can block a grant of this revision. Facts that only other sorts match need not be collected.
    pub fn may_block(&self, revision: Seq) -> TargetKinds {
        let bites = |sort: &TargetKind| self.locks[*sort as usize] > 0 || self.newest[*sort as usize] > revision;
        TargetKind::ALL.into_iter().filter(bites).fold(self.table.evidence(), TargetKinds::with)
    }

    /// The rule that blocks a new grant with these facts, if there is one: it is covered, depends on revoked evidence, or is locked.
    pub fn blocks(&self, facts: &Facts<'_>) -> Option<Hit> {
        self.blocked(facts, self.may_block(facts.revision))
    }

    /// The rule that shuts out an operator, if there is one. A rule over everything or over an environment blocks grants, but not the
    /// operators who resolve the incident.
    pub fn shuts_out(&self, facts: &Facts<'_>) -> Option<Hit> {
        self.blocked(facts, self.may_block(facts.revision).without(TargetKind::Everything).without(TargetKind::Environment))
    }

    fn blocked(&self, facts: &Facts<'_>, asked: TargetKinds) -> Option<Hit> {
        let mut hit = None;
        facts.each(asked, &mut |probe| {
            let Some(entry) = self.table.probe(&probe, facts.revision) else { return false };
            let evidence = probe.sort().is_evidence();
            let revoked = entry.revoked > Seq::ZERO && (evidence || facts.revision < entry.revoked);
            if let Some(seq) = entry.lock.or(revoked.then_some(entry.revoked)) {
                hit = Some(Hit { target: self.table.target_of(&probe, facts.revision), seq, lock: entry.lock.is_some() });
                return true;
            }
            false
        });
        hit
    }

    /// Drops up to `most` rules that can no longer match anything that is live. Locks stay.
    pub fn expire(&mut self, now: Millis, most: usize) -> usize {
        let mut dropped = 0;
        while dropped < most {
            let Some(target) = self.ends.due(now) else { break };
            dropped += 1;
            if let Some(entry) = self.get(&target).filter(|e| e.until < now && e.lock.is_none()) {
                // The fold itself knows that a task or a credential is over and grants nothing on it, with or without the rule.
                if !matches!(target.sort(), TargetKind::Task | TargetKind::Credential) {
                    self.dropped = self.dropped.max(entry.revoked);
                }
                self.table.remove(&target);
            }
        }
        dropped
    }

    /// The sorts with a revocation after a view.
    pub fn newer(&self, revision: Seq) -> impl Iterator<Item = TargetKind> {
        TargetKind::ALL.into_iter().filter(move |sort| self.newest[*sort as usize] > revision)
    }

    /// The number of locks.
    pub fn locks(&self) -> usize {
        self.locks.iter().sum()
    }

    /// The number of targets with an entry.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether nothing is in force.
    pub fn is_empty(&self) -> bool {
        self.table.len() == 0
    }

    /// All entries, ordered by target: the same log gives the same order on every replica.
    pub fn entries(&self) -> Vec<(Target, RevocationEntry)> {
        self.table.entries()
    }

    /// When to check which rules can be dropped. Part of the state, because the order decides which rules a commit drops.
    pub fn ends(&self) -> &S::Schedule {
        &self.ends
    }

    /// The newest revocation that was dropped. A grant decided on an earlier view cannot be judged.
    pub fn dropped(&self) -> Seq {
        self.dropped
    }

    /// The least time to keep a rule that covers something which ends at `end`: until that has ended for every verifier, whatever a writer
    /// with a wrong clock wrote.
    pub fn outlasting(end: Millis) -> Millis {
        end.plus(limits::VIEW_MAX_AGE_MS + 2 * limits::CLOCK_SKEW_MS)
    }

    /// How long the rule of a revocation is kept: until the latest possible end of anything decided before it.
    pub fn keep_until(now: Millis) -> Millis {
        now.plus(limits::TASK_TTL_MS + limits::CREDENTIAL_TTL_MS + limits::VIEW_MAX_AGE_MS + 2 * limits::CLOCK_SKEW_MS)
    }

    /// Rules from [`entries`](RuleSet::entries), [`ends`](RuleSet::ends) and [`dropped`](RuleSet::dropped).
    pub fn from_parts(entries: Vec<(Target, RevocationEntry)>, ends: S::Schedule, dropped: Seq) -> RuleSet<S> {
        let mut rules = RuleSet::<S>::default();
        for (target, e) in entries {
            rules.add(&target, (e.revoked > Seq::ZERO).then_some(e.revoked), e.lock, e.until);
        }
        RuleSet { ends, dropped, ..rules }
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;

//! The rules that revocations make, and the check of one credential against them: a few hash probes, however many rules there are.
//!
//! A revocation at seq `v` covers what was decided at `r < v`. Three sorts are otherwise: a signing key's rule ignores `r`, because whoever
//! stole the key chooses it; evidence that was revoked blocks every new grant from it; a lock blocks every new grant until lifted.

use super::facts::{Facts, Probe};
use super::sort::{SORTS, Sort, Sorts};
pub use super::table::Entry;
use super::table::Table;
use super::target::Target;
use crate::limits;
use crate::persistent::Calendar;
use crate::seq::{Millis, Seq};

/// The rule that a credential or grant ran into.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hit {
    /// What the rule aims at.
    pub target: Target,
    /// The seq of the revocation or lock.
    pub seq: Seq,
    /// It is a lock: new grants are refused until it is lifted.
    pub lock: bool,
}

/// All rules in force.
#[derive(Clone, Default)]
pub struct Rules {
    table: Table,
    /// The newest revocation of each sort: a decision that saw it needs no probe.
    newest: [Seq; SORTS],
    locks: [usize; SORTS],
    ends: Calendar<Target>,
    /// The newest revocation among the rules that were dropped.
    dropped: Seq,
}

impl Rules {
    /// Puts a revocation or lock into force. `until` bounds the revocation; a signing key's is kept for ever.
    pub fn add(&mut self, target: &Target, revoked: Option<Seq>, lock: Option<Seq>, until: Millis) {
        let sort = target.sort();
        let until = if sort == Sort::SigningKey { Millis(u64::MAX) } else { until };
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

    /// Lifts a lock; what was revoked stays revoked. `false` when there was none.
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
            // Its end may have come while the lock kept it.
            self.ends.after(entry.until, target.clone());
        }
        true
    }

    /// What is in force for exactly this target.
    pub fn get(&self, target: &Target) -> Option<Entry> {
        self.table.get(target)
    }

    /// What is in force for what answers a question, whatever the revision.
    pub(super) fn found(&self, probe: &Probe<'_>) -> Option<Entry> {
        self.table.probe(probe, Seq::ZERO)
    }

    /// The rule by which a credential or grant with these facts is revoked, if one does.
    pub fn covers(&self, facts: &Facts<'_>) -> Option<Hit> {
        self.covered(facts, |_| true)
    }

    /// The same, of revocations before `before`.
    pub fn covers_before(&self, facts: &Facts<'_>, before: Seq) -> Option<Hit> {
        self.covered(facts, |seq| seq < before)
    }

    fn covered(&self, facts: &Facts<'_>, fits: impl Fn(Seq) -> bool) -> Option<Hit> {
        let mut hit = None;
        let asked: Sorts = self.newer(facts.revision).collect();
        facts.each(asked.with(Sort::SigningKey), &mut |probe| {
            let sort = probe.sort();
            if let Some(entry) = self.table.probe(&probe, facts.revision) {
                let covered = sort == Sort::SigningKey || facts.revision < entry.revoked;
                if covered && entry.revoked > Seq::ZERO && fits(entry.revoked) {
                    hit = Some(Hit { target: self.table.target_of(&probe, facts.revision), seq: entry.revoked, lock: false });
                    return true;
                }
            }
            false
        });
        hit
    }

    /// The sorts of which a rule can block a grant of this revision. What answers none of them need not be gathered.
    pub fn may_block(&self, revision: Seq) -> Sorts {
        let bites = |sort: &Sort| self.locks[*sort as usize] > 0 || self.newest[*sort as usize] > revision;
        Sort::ALL.into_iter().filter(bites).fold(self.table.evidence(), Sorts::with)
    }

    /// The rule by which a new grant with these facts is refused, if one does: it is covered, rests on revoked evidence, or is locked out.
    pub fn blocks(&self, facts: &Facts<'_>) -> Option<Hit> {
        self.blocked(facts, self.may_block(facts.revision))
    }

    /// The rule by which an operator is kept out, if one does. A rule over everything or an environment stops grants, not those who mend it.
    pub fn shuts_out(&self, facts: &Facts<'_>) -> Option<Hit> {
        self.blocked(facts, self.may_block(facts.revision).without(Sort::Everything).without(Sort::Environment))
    }

    fn blocked(&self, facts: &Facts<'_>, asked: Sorts) -> Option<Hit> {
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

    /// Drops up to `most` rules that nothing alive can still run into. Locks stay.
    pub fn expire(&mut self, now: Millis, most: usize) -> usize {
        let mut dropped = 0;
        while dropped < most {
            let Some(target) = self.ends.due(now) else { break };
            dropped += 1;
            if let Some(entry) = self.get(&target).filter(|e| e.until < now && e.lock.is_none()) {
                // Of a task and of a credential the fold knows by itself that it is over: nothing is granted on it, with the rule or without.
                if !matches!(target.sort(), Sort::Task | Sort::Credential) {
                    self.dropped = self.dropped.max(entry.revoked);
                }
                self.table.remove(&target);
            }
        }
        dropped
    }

    /// The sorts of which something was revoked after a view.
    pub fn newer(&self, revision: Seq) -> impl Iterator<Item = Sort> {
        Sort::ALL.into_iter().filter(move |sort| self.newest[*sort as usize] > revision)
    }

    /// How many of them are locked.
    pub fn locks(&self) -> usize {
        self.locks.iter().sum()
    }

    /// How many targets have something in force.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Nothing is in force.
    pub fn is_empty(&self) -> bool {
        self.table.len() == 0
    }

    /// Everything in force, in the order of the targets: the same for the same log, on every replica.
    pub fn entries(&self) -> Vec<(Target, Entry)> {
        self.table.entries()
    }

    /// When to look which rules can be dropped. Part of the state: what is looked at first decides what is dropped in which commit.
    pub fn ends(&self) -> &Calendar<Target> {
        &self.ends
    }

    /// The newest revocation that is no longer known here. A grant decided on a view from before it cannot be judged.
    pub fn dropped(&self) -> Seq {
        self.dropped
    }

    /// How long a rule is kept at least that covers what ends then: until it has ended for every verifier, whatever a writer with a wrong
    /// clock wrote.
    pub fn outlasting(end: Millis) -> Millis {
        end.plus(limits::VIEW_MAX_AGE_MS + 2 * limits::CLOCK_SKEW_MS)
    }

    /// How long a revocation's rule is kept: until the latest end that anything decided before it can reach.
    pub fn keep_until(now: Millis) -> Millis {
        now.plus(limits::TASK_TTL_MS + limits::CREDENTIAL_TTL_MS + limits::VIEW_MAX_AGE_MS + 2 * limits::CLOCK_SKEW_MS)
    }

    /// Rules from [`entries`](Rules::entries), [`ends`](Rules::ends) and [`dropped`](Rules::dropped).
    pub fn from_parts(entries: Vec<(Target, Entry)>, ends: Calendar<Target>, dropped: Seq) -> Rules {
        let mut rules = Rules::default();
        for (target, e) in entries {
            rules.add(&target, (e.revoked > Seq::ZERO).then_some(e.revoked), e.lock, e.until);
        }
        Rules { ends, dropped, ..rules }
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;

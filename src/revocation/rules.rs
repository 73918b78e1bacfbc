//! The rules that revocations make, and the check of one credential against them: a few hash probes, however many rules there are.
//!
//! A revocation at seq `v` covers what was decided at `r < v`. Three sorts are otherwise: a signing key's rule ignores `r`, because whoever
//! stole the key chooses it; evidence that was revoked blocks every new grant from it; a lock blocks every new grant until lifted.

use std::collections::BTreeMap;
use std::hash::Hash;

use hashbrown::{Equivalent, HashMap};

use super::facts::{Facts, Probe};
use super::target::{SORTS, Sort, Target};
use crate::seq::{CredentialId, Millis, Seq, TaskId};

/// What is in force for one target.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Entry {
    /// The newest revocation: covers all that was decided before it. 0 for a mere lock.
    pub revoked: Seq,
    /// The lock, if there is one: blocks new grants.
    pub lock: Option<Seq>,
    /// Kept until then. A lock stays until lifted.
    pub until: Millis,
}

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

#[derive(Clone, PartialEq, Eq, Hash)]
struct Pair(Box<str>, Box<str>);

#[derive(Hash)]
struct PairRef<'a>(&'a str, &'a str);

impl Equivalent<Pair> for PairRef<'_> {
    fn equivalent(&self, key: &Pair) -> bool {
        self.0 == &*key.0 && self.1 == &*key.1
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct SvidKey(Box<str>, [u8; 32], Box<[u8]>);

#[derive(Hash)]
struct SvidRef<'a>(&'a str, [u8; 32], &'a [u8]);

impl Equivalent<SvidKey> for SvidRef<'_> {
    fn equivalent(&self, key: &SvidKey) -> bool {
        self.0 == &*key.0 && self.1 == key.1 && self.2 == &*key.2
    }
}

type Names = HashMap<Box<str>, Entry>;

/// All rules in force.
#[derive(Clone, Default)]
pub struct Rules {
    credential: HashMap<CredentialId, Entry>,
    task: HashMap<TaskId, Entry>,
    /// Tables of one name each, by `Sort`; empty for sorts with another key.
    names: [Names; SORTS],
    pairs: [HashMap<Pair, Entry>; 3],
    anchor: HashMap<[u8; 32], Entry>,
    svid: HashMap<SvidKey, Entry>,
    /// By environment, then version: few, for each names a change of policy.
    policy: BTreeMap<Box<str>, BTreeMap<u64, Entry>>,
    everything: Option<Entry>,
    /// The newest revocation of each sort: a decision that saw it needs no probe.
    newest: [Seq; SORTS],
    locks: [usize; SORTS],
    len: usize,
    ends: BTreeMap<Millis, Vec<Target>>,
    /// The newest revocation among the rules that were dropped.
    dropped: Seq,
}

const fn pair_table(sort: Sort) -> usize {
    match sort {
        Sort::Subject => 0,
        Sort::UpstreamScope => 1,
        _ => 2,
    }
}

impl Rules {
    /// Puts a revocation or lock into force. `until` bounds the revocation; a signing key's is kept for ever.
    pub fn add(&mut self, target: &Target, revoked: Option<Seq>, lock: Option<Seq>, until: Millis) {
        let sort = target.sort();
        let until = if sort == Sort::SigningKey { Millis(u64::MAX) } else { until };
        let (fresh, was_locked) = {
            let (fresh, entry) = self.slot(target);
            let was_locked = entry.lock.is_some();
            entry.revoked = entry.revoked.max(revoked.unwrap_or(Seq::ZERO));
            entry.lock = lock.or(entry.lock);
            entry.until = entry.until.max(until);
            (fresh, was_locked)
        };
        self.len += usize::from(fresh);
        self.locks[sort as usize] += usize::from(lock.is_some() && !was_locked);
        self.newest[sort as usize] = self.newest[sort as usize].max(revoked.unwrap_or(Seq::ZERO));
        if until < Millis(u64::MAX) {
            self.ends.entry(until).or_default().push(target.clone());
        }
    }

    /// Lifts a lock; what was revoked stays revoked. `false` when there was none.
    pub fn lift(&mut self, target: &Target) -> bool {
        let sort = target.sort();
        let Some(mut entry) = self.get(target) else { return false };
        if entry.lock.take().is_none() {
            return false;
        }
        *self.slot(target).1 = entry;
        self.locks[sort as usize] -= 1;
        if entry.revoked == Seq::ZERO {
            self.remove(target);
        } else if entry.until < Millis(u64::MAX) {
            // Its end may have come while the lock kept it.
            self.ends.entry(entry.until).or_default().push(target.clone());
        }
        true
    }

    /// What is in force for exactly this target.
    pub fn get(&self, target: &Target) -> Option<Entry> {
        match target {
            Target::Credential(id) => self.credential.get(id).copied(),
            Target::Task(id) => self.task.get(id).copied(),
            Target::TrustAnchor(h) => self.anchor.get(h).copied(),
            Target::Subject(a, b) | Target::UpstreamScope(a, b) | Target::SubjectToken(a, b) => {
                self.pairs[pair_table(target.sort())].get(&PairRef(a, b)).copied()
            }
            Target::PolicyBelow(e, v) => self.policy.get(e)?.get(v).copied(),
            Target::Svid(td, key, serial) => self.svid.get(&SvidRef(td, *key, serial)).copied(),
            Target::Everything => self.everything,
            Target::Caller(n)
            | Target::Prefix(n)
            | Target::TrustDomain(n)
            | Target::Upstream(n)
            | Target::Binding(n)
            | Target::Tool(n)
            | Target::Environment(n)
            | Target::SigningKey(n) => self.names[target.sort() as usize].get(&**n).copied(),
        }
    }

    /// The rule by which a credential or grant with these facts is revoked, if one does.
    pub fn covers(&self, facts: &Facts<'_>) -> Option<Hit> {
        self.covers_but(facts, Seq::ZERO)
    }

    /// The same, the revocation at `but` aside.
    pub fn covers_but(&self, facts: &Facts<'_>, but: Seq) -> Option<Hit> {
        let mut hit = None;
        facts.each(&mut |probe| {
            let sort = sort_of(&probe);
            if self.newest[sort as usize] <= facts.revision && sort != Sort::SigningKey {
                return false;
            }
            if let Some(entry) = self.probe(&probe, facts.revision) {
                let covered = sort == Sort::SigningKey || facts.revision < entry.revoked;
                if covered && entry.revoked > Seq::ZERO && entry.revoked != but {
                    hit = Some(Hit { target: self.target_of(&probe, facts.revision), seq: entry.revoked, lock: false });
                    return true;
                }
            }
            false
        });
        hit
    }

    /// Whether any rule at all can block a grant of this revision. Where none can, its facts need not be gathered.
    pub fn may_block(&self, revision: Seq) -> bool {
        let evidence = [
            self.credential.len(),
            self.task.len(),
            self.svid.len(),
            self.pairs[pair_table(Sort::SubjectToken)].len(),
            self.names[Sort::SigningKey as usize].len(),
        ];
        evidence.iter().any(|rules| *rules > 0)
            || self.locks.iter().any(|locks| *locks > 0)
            || self.newest.iter().any(|newest| *newest > revision)
    }

    /// The rule by which a new grant with these facts is refused, if one does: it is covered, rests on revoked evidence, or is locked out.
    pub fn blocks(&self, facts: &Facts<'_>) -> Option<Hit> {
        self.blocked(facts, &[])
    }

    /// The rule by which an operator is kept out, if one does. A rule over everything or an environment stops grants, not those who mend it.
    pub fn shuts_out(&self, facts: &Facts<'_>) -> Option<Hit> {
        self.blocked(facts, &[Sort::Everything, Sort::Environment])
    }

    fn blocked(&self, facts: &Facts<'_>, passing: &[Sort]) -> Option<Hit> {
        let mut hit = None;
        facts.each(&mut |probe| {
            let sort = sort_of(&probe);
            if passing.contains(&sort) {
                return false;
            }
            let evidence = sort.is_evidence();
            if self.newest[sort as usize] <= facts.revision && self.locks[sort as usize] == 0 && !evidence {
                return false;
            }
            let Some(entry) = self.probe(&probe, facts.revision) else { return false };
            let revoked = entry.revoked > Seq::ZERO && (evidence || facts.revision < entry.revoked);
            if let Some(seq) = entry.lock.or(revoked.then_some(entry.revoked)) {
                hit = Some(Hit { target: self.target_of(&probe, facts.revision), seq, lock: entry.lock.is_some() });
                return true;
            }
            false
        });
        hit
    }

    fn probe(&self, probe: &Probe<'_>, revision: Seq) -> Option<Entry> {
        match *probe {
            Probe::Credential(id) => self.credential.get(&id).copied(),
            Probe::Task(id) => self.task.get(&id).copied(),
            Probe::TrustAnchor(h) => self.anchor.get(h).copied(),
            Probe::Subject(a, b) | Probe::UpstreamScope(a, b) | Probe::SubjectToken(a, b) => {
                self.pairs[pair_table(sort_of(probe))].get(&PairRef(a, b)).copied()
            }
            Probe::Policy(env, version) => self.policy_above(env, version, revision).map(|(_, e)| e),
            Probe::Svid(td, key, serial) => self.svid.get(&SvidRef(td, key.try_into().ok()?, serial)).copied(),
            Probe::Everything => self.everything,
            Probe::Caller(n)
            | Probe::Prefix(n)
            | Probe::TrustDomain(n)
            | Probe::Upstream(n)
            | Probe::Binding(n)
            | Probe::Tool(n)
            | Probe::Environment(n)
            | Probe::SigningKey(n) => self.names[sort_of(probe) as usize].get(n).copied(),
        }
    }

    /// The target that a probe found, for the message of a refusal.
    fn target_of(&self, probe: &Probe<'_>, revision: Seq) -> Target {
        match *probe {
            Probe::Credential(id) => Target::Credential(id),
            Probe::Task(id) => Target::Task(id),
            Probe::Caller(n) => Target::Caller(n.into()),
            Probe::Prefix(n) => Target::Prefix(n.into()),
            Probe::TrustDomain(n) => Target::TrustDomain(n.into()),
            // Only 32 bytes find an entry, so nothing is lost where it falls back.
            Probe::TrustAnchor(h) => Target::TrustAnchor(h.try_into().unwrap_or_default()),
            Probe::Subject(a, b) => Target::Subject(a.into(), b.into()),
            Probe::Upstream(n) => Target::Upstream(n.into()),
            Probe::UpstreamScope(a, b) => Target::UpstreamScope(a.into(), b.into()),
            Probe::Binding(n) => Target::Binding(n.into()),
            Probe::Tool(n) => Target::Tool(n.into()),
            Probe::Environment(n) => Target::Environment(n.into()),
            Probe::Policy(n, v) => {
                let newest = self.policy_above(n, v, revision).map_or(v.saturating_add(1), |(version, _)| version);
                Target::PolicyBelow(n.into(), newest)
            }
            Probe::SigningKey(n) => Target::SigningKey(n.into()),
            Probe::Svid(td, key, serial) => Target::Svid(td.into(), key.try_into().unwrap_or_default(), serial.into()),
            Probe::SubjectToken(a, b) => Target::SubjectToken(a.into(), b.into()),
            Probe::Everything => Target::Everything,
        }
    }

    /// Any rule for a version above this one covers it; the newest of them decides.
    fn policy_above(&self, environment: &str, version: u64, revision: Seq) -> Option<(u64, Entry)> {
        let above = self.policy.get(environment)?.range(version.checked_add(1)?..);
        above.map(|(v, e)| (*v, *e)).filter(|(_, e)| revision < e.revoked).max_by_key(|(_, e)| e.revoked)
    }

    fn slot(&mut self, target: &Target) -> (bool, &mut Entry) {
        const NONE: Entry = Entry { revoked: Seq::ZERO, lock: None, until: Millis(0) };
        let before = self.get(target).is_none();
        let entry = match target {
            Target::Credential(id) => self.credential.entry(*id).or_insert(NONE),
            Target::Task(id) => self.task.entry(*id).or_insert(NONE),
            Target::TrustAnchor(h) => self.anchor.entry(*h).or_insert(NONE),
            Target::Subject(a, b) | Target::UpstreamScope(a, b) | Target::SubjectToken(a, b) => {
                self.pairs[pair_table(target.sort())].entry(Pair(a.clone(), b.clone())).or_insert(NONE)
            }
            Target::PolicyBelow(e, v) => self.policy.entry(e.clone()).or_default().entry(*v).or_insert(NONE),
            Target::Svid(td, key, serial) => self.svid.entry(SvidKey(td.clone(), *key, serial.clone())).or_insert(NONE),
            Target::Everything => self.everything.get_or_insert(NONE),
            Target::Caller(n)
            | Target::Prefix(n)
            | Target::TrustDomain(n)
            | Target::Upstream(n)
            | Target::Binding(n)
            | Target::Tool(n)
            | Target::Environment(n)
            | Target::SigningKey(n) => self.names[target.sort() as usize].entry(n.clone()).or_insert(NONE),
        };
        (before, entry)
    }

    fn remove(&mut self, target: &Target) {
        let gone = match target {
            Target::Credential(id) => self.credential.remove(id).is_some(),
            Target::Task(id) => self.task.remove(id).is_some(),
            Target::TrustAnchor(h) => self.anchor.remove(h).is_some(),
            Target::Subject(a, b) | Target::UpstreamScope(a, b) | Target::SubjectToken(a, b) => {
                self.pairs[pair_table(target.sort())].remove(&PairRef(a, b)).is_some()
            }
            Target::PolicyBelow(e, v) => self.policy.get_mut(e).is_some_and(|t| t.remove(v).is_some()),
            Target::Svid(td, key, serial) => self.svid.remove(&SvidRef(td, *key, serial)).is_some(),
            Target::Everything => self.everything.take().is_some(),
            Target::Caller(n)
            | Target::Prefix(n)
            | Target::TrustDomain(n)
            | Target::Upstream(n)
            | Target::Binding(n)
            | Target::Tool(n)
            | Target::Environment(n)
            | Target::SigningKey(n) => self.names[target.sort() as usize].remove(&**n).is_some(),
        };
        self.len -= usize::from(gone);
    }

    /// Drops up to `most` rules that nothing alive can still run into. Locks stay.
    pub fn expire(&mut self, now: Millis, most: usize) -> usize {
        let mut dropped = 0;
        while dropped < most {
            let Some(mut end) = self.ends.first_entry() else { break };
            if *end.key() >= now {
                break;
            }
            let Some(target) = end.get_mut().pop() else {
                end.remove();
                continue;
            };
            dropped += 1;
            if let Some(entry) = self.get(&target).filter(|e| e.until < now && e.lock.is_none()) {
                self.dropped = self.dropped.max(entry.revoked);
                self.remove(&target);
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
        self.len
    }

    /// Nothing is in force.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Everything in force, in the order of the targets: the same for the same log, on every replica.
    pub fn entries(&self) -> Vec<(Target, Entry)> {
        let mut all: Vec<(Target, Entry)> = Vec::with_capacity(self.len);
        all.extend(self.credential.iter().map(|(k, e)| (Target::Credential(*k), *e)));
        all.extend(self.task.iter().map(|(k, e)| (Target::Task(*k), *e)));
        all.extend(self.anchor.iter().map(|(k, e)| (Target::TrustAnchor(*k), *e)));
        all.extend(self.svid.iter().map(|(k, e)| (Target::Svid(k.0.clone(), k.1, k.2.clone()), *e)));
        all.extend(self.pairs[0].iter().map(|(k, e)| (Target::Subject(k.0.clone(), k.1.clone()), *e)));
        all.extend(self.pairs[1].iter().map(|(k, e)| (Target::UpstreamScope(k.0.clone(), k.1.clone()), *e)));
        all.extend(self.pairs[2].iter().map(|(k, e)| (Target::SubjectToken(k.0.clone(), k.1.clone()), *e)));
        for (env, versions) in &self.policy {
            all.extend(versions.iter().map(|(v, e)| (Target::PolicyBelow(env.clone(), *v), *e)));
        }
        all.extend(self.everything.iter().map(|e| (Target::Everything, *e)));
        for (sort, make) in NAMED {
            all.extend(self.names[sort as usize].iter().map(|(k, e)| (make(k.clone()), *e)));
        }
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// When to look which rules can be dropped. Part of the state: what is looked at first decides what is dropped in which commit.
    pub fn ends(&self) -> &BTreeMap<Millis, Vec<Target>> {
        &self.ends
    }

    /// The newest revocation that is no longer known here. A grant decided on a view from before it cannot be judged.
    pub fn dropped(&self) -> Seq {
        self.dropped
    }

    /// Rules from [`entries`](Rules::entries), [`ends`](Rules::ends) and [`dropped`](Rules::dropped).
    pub fn from_parts(entries: Vec<(Target, Entry)>, ends: BTreeMap<Millis, Vec<Target>>, dropped: Seq) -> Rules {
        let mut rules = Rules::default();
        for (target, e) in entries {
            rules.add(&target, (e.revoked > Seq::ZERO).then_some(e.revoked), e.lock, e.until);
        }
        Rules { ends, dropped, ..rules }
    }
}

type Make = fn(Box<str>) -> Target;
const NAMED: [(Sort, Make); 8] = [
    (Sort::Caller, Target::Caller),
    (Sort::Prefix, Target::Prefix),
    (Sort::TrustDomain, Target::TrustDomain),
    (Sort::Upstream, Target::Upstream),
    (Sort::Binding, Target::Binding),
    (Sort::Tool, Target::Tool),
    (Sort::Environment, Target::Environment),
    (Sort::SigningKey, Target::SigningKey),
];

const fn sort_of(probe: &Probe<'_>) -> Sort {
    match probe {
        Probe::Credential(_) => Sort::Credential,
        Probe::Task(_) => Sort::Task,
        Probe::Caller(_) => Sort::Caller,
        Probe::Prefix(_) => Sort::Prefix,
        Probe::TrustDomain(_) => Sort::TrustDomain,
        Probe::TrustAnchor(_) => Sort::TrustAnchor,
        Probe::Subject(..) => Sort::Subject,
        Probe::Upstream(_) => Sort::Upstream,
        Probe::UpstreamScope(..) => Sort::UpstreamScope,
        Probe::Binding(_) => Sort::Binding,
        Probe::Tool(_) => Sort::Tool,
        Probe::Environment(_) => Sort::Environment,
        Probe::Policy(..) => Sort::PolicyBelow,
        Probe::SigningKey(_) => Sort::SigningKey,
        Probe::Svid(..) => Sort::Svid,
        Probe::SubjectToken(..) => Sort::SubjectToken,
        Probe::Everything => Sort::Everything,
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;

//! Where what is in force lies: one entry per target, found from a target or from a question by a hash probe.

use std::collections::BTreeMap;
use std::hash::Hash;

use hashbrown::Equivalent;

use super::facts::Probe;
use super::sort::{SORTS, Sort, Sorts};
use super::target::Target;
use crate::persistent::Map;
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

type Names = Map<Box<str>, Entry>;

/// All entries, each under its target.
#[derive(Clone, Default)]
pub(super) struct Table {
    credential: Map<CredentialId, Entry>,
    task: Map<TaskId, Entry>,
    /// Tables of one name each, by `Sort`; empty for sorts with another key.
    names: [Names; SORTS],
    pairs: [Map<Pair, Entry>; 3],
    anchor: Map<[u8; 32], Entry>,
    svid: Map<SvidKey, Entry>,
    /// By environment, then version: few, for each names a change of policy.
    policy: BTreeMap<Box<str>, BTreeMap<u64, Entry>>,
    everything: Option<Entry>,
    len: usize,
}

const fn pair_table(sort: Sort) -> usize {
    match sort {
        Sort::Subject => 0,
        Sort::UpstreamScope => 1,
        _ => 2,
    }
}

impl Table {
    /// How many targets have an entry.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The sorts with an entry that bites whatever the revision ([`Sorts::OF_EVIDENCE`]).
    pub fn evidence(&self) -> Sorts {
        let names = &self.names[Sort::SigningKey as usize];
        let pairs = &self.pairs[pair_table(Sort::SubjectToken)];
        let all = [
            (Sort::Credential, self.credential.is_empty()),
            (Sort::Task, self.task.is_empty()),
            (Sort::Svid, self.svid.is_empty()),
            (Sort::SubjectToken, pairs.is_empty()),
            (Sort::SigningKey, names.is_empty()),
        ];
        all.into_iter().filter(|(_, none)| !none).map(|(sort, _)| sort).collect()
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

    /// The entry that answers a question, for a decision at `revision`.
    pub fn probe(&self, probe: &Probe<'_>, revision: Seq) -> Option<Entry> {
        match *probe {
            Probe::Credential(id) => self.credential.get(&id).copied(),
            Probe::Task(id) => self.task.get(&id).copied(),
            Probe::TrustAnchor(h) => self.anchor.get(h).copied(),
            Probe::Subject(a, b) | Probe::UpstreamScope(a, b) | Probe::SubjectToken(a, b) => {
                self.pairs[pair_table(probe.sort())].get(&PairRef(a, b)).copied()
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
            | Probe::SigningKey(n) => self.names[probe.sort() as usize].get(n).copied(),
        }
    }

    /// The target that a probe found, for the message of a refusal.
    pub fn target_of(&self, probe: &Probe<'_>, revision: Seq) -> Target {
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

    /// A target's entry, made where there is none.
    pub fn slot(&mut self, target: &Target) -> &mut Entry {
        const NONE: Entry = Entry { revoked: Seq::ZERO, lock: None, until: Millis(0) };
        self.len += usize::from(self.get(target).is_none());
        match target {
            Target::Credential(id) => self.credential.or_insert(*id, NONE),
            Target::Task(id) => self.task.or_insert(*id, NONE),
            Target::TrustAnchor(h) => self.anchor.or_insert(*h, NONE),
            Target::Subject(a, b) | Target::UpstreamScope(a, b) | Target::SubjectToken(a, b) => {
                self.pairs[pair_table(target.sort())].or_insert(Pair(a.clone(), b.clone()), NONE)
            }
            Target::PolicyBelow(e, v) => self.policy.entry(e.clone()).or_default().entry(*v).or_insert(NONE),
            Target::Svid(td, key, serial) => self.svid.or_insert(SvidKey(td.clone(), *key, serial.clone()), NONE),
            Target::Everything => self.everything.get_or_insert(NONE),
            Target::Caller(n)
            | Target::Prefix(n)
            | Target::TrustDomain(n)
            | Target::Upstream(n)
            | Target::Binding(n)
            | Target::Tool(n)
            | Target::Environment(n)
            | Target::SigningKey(n) => self.names[target.sort() as usize].or_insert(n.clone(), NONE),
        }
    }

    /// Takes a target's entry out.
    pub fn remove(&mut self, target: &Target) {
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

    /// Everything, in the order of the targets.
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

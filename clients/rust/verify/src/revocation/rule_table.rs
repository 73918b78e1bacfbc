//! The table of entries in force: one entry per target, found from a target or from a question by hash.

use std::collections::BTreeMap;
use std::hash::Hash;

use hashbrown::Equivalent;

use super::facts::Probe;
use super::rule_storage::{RuleMap, RuleStorage};
use super::target::Target;
use super::target_kind::{SORTS, TargetKind, TargetKinds};
use crate::seq::{CredentialId, Millis, Seq, TaskId};

/// The rules in force for one target.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct RevocationEntry {
    /// The newest revocation, which covers everything decided before it. 0 where there is only a lock.
    pub revoked: Seq,
    /// The lock, if there is one, which blocks new grants.
    pub lock: Option<Seq>,
    /// The entry is kept until then. A lock stays until it is lifted.
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

/// All entries by target.
#[derive(Clone, Default)]
pub(super) struct RuleTable<S: RuleStorage> {
    credential: S::Map<CredentialId>,
    task: S::Map<TaskId>,
    /// Tables for sorts with one name, by `TargetKind`; empty for the other sorts.
    names: [S::Map<Box<str>>; SORTS],
    pairs: [S::Map<Pair>; 3],
    anchor: S::Map<[u8; 32]>,
    svid: S::Map<SvidKey>,
    /// By environment, then version. There are few, since each names a change of policy.
    policy: BTreeMap<Box<str>, BTreeMap<u64, RevocationEntry>>,
    everything: Option<RevocationEntry>,
    len: usize,
}

const fn pair_table(sort: TargetKind) -> usize {
    match sort {
        TargetKind::Subject => 0,
        TargetKind::UpstreamScope => 1,
        _ => 2,
    }
}

/// A target's digest, which is always 32 bytes.
fn hash(bytes: &[u8]) -> [u8; 32] {
    bytes.try_into().unwrap_or_default()
}

impl<S: RuleStorage> RuleTable<S> {
    /// The number of targets with an entry.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The sorts with an entry that apply regardless of the revision ([`TargetKinds::OF_EVIDENCE`]).
    pub fn evidence(&self) -> TargetKinds {
        let names = &self.names[TargetKind::SigningKey as usize];
        let pairs = &self.pairs[pair_table(TargetKind::SubjectToken)];
        let all = [
            (TargetKind::Credential, self.credential.is_empty()),
            (TargetKind::Task, self.task.is_empty()),
            (TargetKind::Svid, self.svid.is_empty()),
            (TargetKind::SubjectToken, pairs.is_empty()),
            (TargetKind::SigningKey, names.is_empty()),
        ];
        all.into_iter().filter(|(_, none)| !none).map(|(sort, _)| sort).collect()
    }

    /// The entry for exactly this target.
    pub fn get(&self, target: &Target) -> Option<RevocationEntry> {
        match target {
            Target::PolicyBelow(e, v) => self.policy.get(e)?.get(v).copied(),
            other => self.probe(&other.probe(), Seq::ZERO),
        }
    }

    /// The entry that matches a question, for a decision at `revision`.
    pub fn probe(&self, probe: &Probe<'_>, revision: Seq) -> Option<RevocationEntry> {
        match *probe {
            Probe::Credential(id) => self.credential.get(&id).copied(),
            Probe::Task(id) => self.task.get(&id).copied(),
            Probe::Name(sort, n) => self.names[sort as usize].get(n).copied(),
            Probe::Pair(sort, a, b) => self.pairs[pair_table(sort)].get(&PairRef(a, b)).copied(),
            Probe::TrustAnchor(h) => self.anchor.get(h).copied(),
            Probe::Policy(env, version) => self.policy_above(env, version, revision).map(|(_, e)| e),
            Probe::Svid(td, key, serial) => self.svid.get(&SvidRef(td, key.try_into().ok()?, serial)).copied(),
            Probe::Everything => self.everything,
        }
    }

    /// The target that a probe found, for the text of a refusal.
    pub fn target_of(&self, probe: &Probe<'_>, revision: Seq) -> Target {
        match *probe {
            Probe::Credential(id) => Target::Credential(id),
            Probe::Task(id) => Target::Task(id),
            Probe::Name(sort, n) => {
                NAMED.into_iter().find(|(s, _)| *s == sort).map_or(Target::Everything, |(_, make)| make(n.into()))
            }
            Probe::Pair(TargetKind::Subject, a, b) => Target::Subject(a.into(), b.into()),
            Probe::Pair(TargetKind::UpstreamScope, a, b) => Target::UpstreamScope(a.into(), b.into()),
            Probe::Pair(_, a, b) => Target::SubjectToken(a.into(), b.into()),
            // Only 32 bytes can find an entry, so the fallback is never used.
            Probe::TrustAnchor(h) => Target::TrustAnchor(h.try_into().unwrap_or_default()),
            Probe::Policy(n, v) => {
                let newest = self.policy_above(n, v, revision).map_or(v.saturating_add(1), |(version, _)| version);
                Target::PolicyBelow(n.into(), newest)
            }
            Probe::Svid(td, key, serial) => Target::Svid(td.into(), key.try_into().unwrap_or_default(), serial.into()),
            Probe::Everything => Target::Everything,
        }
    }

    /// A rule for any version above this one covers it. Of several, the newest revocation decides.
    fn policy_above(&self, environment: &str, version: u64, revision: Seq) -> Option<(u64, RevocationEntry)> {
        let above = self.policy.get(environment)?.range(version.checked_add(1)?..);
        above.map(|(v, e)| (*v, *e)).filter(|(_, e)| revision < e.revoked).max_by_key(|(_, e)| e.revoked)
    }

    /// A target's entry, added if there is none.
    pub fn slot(&mut self, target: &Target) -> &mut RevocationEntry {
        const NONE: RevocationEntry = RevocationEntry { revoked: Seq::ZERO, lock: None, until: Millis(0) };
        self.len += usize::from(self.get(target).is_none());
        match target.probe() {
            Probe::Credential(id) => self.credential.or_insert(id, NONE),
            Probe::Task(id) => self.task.or_insert(id, NONE),
            Probe::Name(sort, n) => self.names[sort as usize].or_insert(n.into(), NONE),
            Probe::Pair(sort, a, b) => self.pairs[pair_table(sort)].or_insert(Pair(a.into(), b.into()), NONE),
            Probe::TrustAnchor(h) => self.anchor.or_insert(hash(h), NONE),
            Probe::Policy(e, v) => self.policy.entry(e.into()).or_default().entry(v).or_insert(NONE),
            Probe::Svid(td, key, serial) => self.svid.or_insert(SvidKey(td.into(), hash(key), serial.into()), NONE),
            Probe::Everything => self.everything.get_or_insert(NONE),
        }
    }

    /// Removes a target's entry.
    pub fn remove(&mut self, target: &Target) {
        let gone = match target.probe() {
            Probe::Credential(id) => self.credential.remove(&id).is_some(),
            Probe::Task(id) => self.task.remove(&id).is_some(),
            Probe::Name(sort, n) => self.names[sort as usize].remove(n).is_some(),
            Probe::Pair(sort, a, b) => self.pairs[pair_table(sort)].remove(&PairRef(a, b)).is_some(),
            Probe::TrustAnchor(h) => self.anchor.remove(h).is_some(),
            Probe::Policy(e, v) => self.policy.get_mut(e).is_some_and(|t| t.remove(&v).is_some()),
            Probe::Svid(td, key, serial) => self.svid.remove(&SvidRef(td, hash(key), serial)).is_some(),
            Probe::Everything => self.everything.take().is_some(),
        };
        self.len -= usize::from(gone);
    }

    /// All entries, ordered by target.
    pub fn entries(&self) -> Vec<(Target, RevocationEntry)> {
        let mut all: Vec<(Target, RevocationEntry)> = Vec::with_capacity(self.len);
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
const NAMED: [(TargetKind, Make); 8] = [
    (TargetKind::Caller, Target::Caller),
    (TargetKind::Prefix, Target::Prefix),
    (TargetKind::TrustDomain, Target::TrustDomain),
    (TargetKind::Upstream, Target::Upstream),
    (TargetKind::Binding, Target::Binding),
    (TargetKind::Tool, Target::Tool),
    (TargetKind::Environment, Target::Environment),
    (TargetKind::SigningKey, Target::SigningKey),
];

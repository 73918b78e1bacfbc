//! What many credentials share, each in memory once: callers, tools, and all else that a credential is issued with.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hashbrown::Equivalent;
use serde::{Deserialize, Serialize};

use super::super::Issuance;
use super::super::intern::{Interner, Slot};
use super::Live;
use crate::ledger::record::{Ancestor, Identity, Issued, Record, SvidEvidence, TokenEvidence};

/// What only derived credentials have.
#[derive(Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Lineage {
    /// Credentials that it rests on.
    pub ancestors: Vec<Ancestor>,
    /// On whose behalf.
    pub subject: Option<Identity>,
    /// Through whom.
    pub actors: Vec<Identity>,
    /// The token that says so.
    pub subject_token: Option<TokenEvidence>,
}

/// Everything of a credential that most of its neighbours have in common. Of a long record one place is kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Profile {
    pub upstream: Box<str>,
    pub scopes: Box<[Box<str>]>,
    pub environment: Box<str>,
    pub binding: Box<str>,
    pub key: Box<str>,
    pub evidence: Option<SvidEvidence>,
    pub lineage: Lineage,
    pub policy: u64,
}

/// The same in a record, so that looking it up copies nothing.
pub(super) struct ProfileOf<'a>(pub &'a Issued);

impl Hash for Profile {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // What tells most of them apart. Equality looks at all.
        (&*self.upstream, &*self.environment, &*self.key, self.policy).hash(state);
        self.scopes.iter().for_each(|scope| scope.hash(state));
        self.evidence.as_ref().map(|e| &e.serial[..]).hash(state);
        self.lineage.ancestors.iter().for_each(|a| a.credential.hash(state));
    }
}

impl Hash for ProfileOf<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let e = self.0;
        (e.upstream.as_str(), e.environment.as_str(), e.key.as_str(), e.policy_version).hash(state);
        e.scopes.iter().for_each(|scope| scope.hash(state));
        e.svid.as_ref().map(|e| &e.serial[..]).hash(state);
        e.ancestors.iter().for_each(|a| a.credential.hash(state));
    }
}

impl Equivalent<Profile> for ProfileOf<'_> {
    fn equivalent(&self, other: &Profile) -> bool {
        let (e, lineage) = (self.0, &other.lineage);
        // The SVID first: it tells callers apart.
        e.svid == other.evidence
            && e.upstream == *other.upstream
            && e.environment == *other.environment
            && e.binding == *other.binding
            && e.key == *other.key
            && e.policy_version == other.policy
            && e.scopes.len() == other.scopes.len()
            && e.scopes.iter().zip(&other.scopes).all(|(a, b)| *a == **b)
            && e.ancestors == lineage.ancestors
            && e.subject == lineage.subject
            && e.actors == lineage.actors
            && e.subject_token == lineage.subject_token
    }
}

impl From<&ProfileOf<'_>> for Profile {
    fn from(of: &ProfileOf<'_>) -> Profile {
        let e = of.0;
        Profile {
            upstream: e.upstream.as_str().into(),
            scopes: e.scopes.iter().map(|s| s.as_str().into()).collect(),
            environment: e.environment.as_str().into(),
            binding: e.binding.as_str().into(),
            key: e.key.as_str().into(),
            evidence: e.svid.clone(),
            lineage: Lineage {
                ancestors: e.ancestors.clone(),
                subject: e.subject.clone(),
                actors: e.actors.clone(),
                subject_token: e.subject_token.clone(),
            },
            policy: e.policy_version,
        }
    }
}

type Names = Interner<Box<str>>;

#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct NameTables {
    pub callers: Names,
    pub tools: Names,
    pub profiles: Interner<Profile>,
    /// Molds that issuances came of lately, with the places of their caller and profile: not even compared. It changes nothing but time.
    #[serde(skip)]
    molds: Vec<(Arc<Record>, Slot, Slot)>,
}

/// Molds remembered: one for each connection that is busy at once.
const MOLDS: usize = 8;

impl NameTables {
    /// The places of an issuance's caller and profile.
    pub fn acquire(&mut self, issuance: Issuance<'_>) -> (Slot, Slot) {
        let known = issuance.mold.and_then(|mold| self.molds.iter().find(|(known, ..)| Arc::ptr_eq(known, mold)));
        if let Some(&(_, caller, profile)) = known
            && self.callers.value(caller).is_some()
            && self.profiles.again(profile)
        {
            self.callers.again(caller);
            return (caller, profile);
        }
        let issued = issuance.shared;
        let (caller, profile) = (self.callers.acquire(issued.caller.as_str()), self.profiles.acquire(&ProfileOf(issued)));
        if let Some(mold) = issuance.mold {
            if self.molds.len() >= MOLDS {
                self.molds.remove(0);
            }
            self.molds.push((mold.clone(), caller, profile));
        }
        (caller, profile)
    }

    /// A credential no longer needs its names.
    pub fn release(&mut self, live: &Live) {
        let forgotten = self.callers.release(live.caller) | self.profiles.release(live.profile);
        self.tools.release(live.tool);
        if forgotten {
            // The place may be another's soon.
            self.molds.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;
    use hashbrown::DefaultHashBuilder;

    fn issued() -> Issued {
        let identity = || Identity { issuer: "a".into(), sub: "b".into() };
        Issued {
            upstream: "github".into(),
            scopes: vec!["a".into(), "b".into()],
            environment: "dev".into(),
            binding: "bound".into(),
            key: "k1".into(),
            svid: Some(SvidEvidence { anchor: vec![1; 32], issuing_key: vec![2; 32], serial: vec![3; 16], not_after: 4 }),
            ancestors: vec![Ancestor { credential: vec![5; 16], caller: "c".into() }],
            subject: Some(identity()),
            actors: vec![identity()],
            subject_token: Some(TokenEvidence { issuer: "i".into(), id: "t".into(), expires_at: 6 }),
            policy_version: 7,
            ..Issued::default()
        }
    }

    #[test]
    fn a_record_finds_its_profile_and_no_other() {
        let (hasher, own) = (DefaultHashBuilder::default(), issued());
        let profile = Profile::from(&ProfileOf(&own));
        assert_eq!(hasher.hash_one(ProfileOf(&own)), hasher.hash_one(&profile));
        assert!(ProfileOf(&own).equivalent(&profile));
        let other: [fn(&mut Issued); 14] = [
            |e| e.upstream.push('x'),
            |e| e.scopes[1].push('x'),
            |e| drop(e.scopes.pop()),
            |e| e.environment.push('x'),
            |e| e.binding.push('x'),
            |e| e.key.push('x'),
            |e| e.policy_version += 1,
            |e| e.svid = None,
            |e| e.svid.as_mut().unwrap().anchor[0] += 1,
            |e| e.svid.as_mut().unwrap().not_after += 1,
            |e| e.ancestors[0].caller.push('x'),
            |e| e.subject = None,
            |e| e.actors.clear(),
            |e| e.subject_token.as_mut().unwrap().id.push('x'),
        ];
        for (n, change) in other.iter().enumerate() {
            let mut e = issued();
            change(&mut e);
            assert!(!ProfileOf(&e).equivalent(&profile), "change {n}");
        }
    }
}

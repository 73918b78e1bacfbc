//! Values shared by many credentials, each in memory once: callers, and everything else that a credential is issued with except its tool.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hashbrown::Equivalent;
use serde::{Deserialize, Serialize};

use super::super::Issuance;
use super::super::intern::{Interner, Slot};
use crate::record::{Ancestor, CredentialIssued, Principal, Record, SvidEvidence, TokenEvidence};
use mayfly_verify::seq::Millis;

/// The fields that only derived credentials have.
#[derive(Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Lineage {
    /// Credentials that this one is based on.
    pub ancestors: Vec<Ancestor>,
    /// The subject on whose behalf the caller acts.
    pub subject: Option<Principal>,
    /// The actors.
    pub actors: Vec<Principal>,
    /// The subject token.
    pub subject_token: Option<TokenEvidence>,
    /// The credential renews another one: the first of its ancestors is the first of the renewal chain.
    pub renewal: bool,
}

/// The fields of a credential that it shares with most of its neighbours. Of a long record, only its place is kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CredentialProfile {
    pub caller: Slot,
    /// The credential kind, by its persisted number.
    pub kind: u8,
    pub upstream: Box<str>,
    pub scopes: Box<[Box<str>]>,
    pub environment: Box<str>,
    pub binding: Box<str>,
    pub key: Box<str>,
    pub evidence: Option<SvidEvidence>,
    pub lineage: Lineage,
    pub policy: u64,
}

/// A profile borrowed from a record, so that looking it up copies nothing.
pub(super) struct BorrowedProfile<'a>(pub &'a CredentialIssued, pub Slot);

fn kind(e: &CredentialIssued) -> u8 {
    u8::try_from(e.kind).unwrap_or(u8::MAX)
}

impl Hash for CredentialProfile {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Hash only fields that tell most profiles apart. Equality compares all fields.
        (self.caller, &*self.upstream, &*self.environment, &*self.key, self.policy).hash(state);
        self.scopes.iter().for_each(|scope| scope.hash(state));
        self.evidence.as_ref().map(|e| &e.serial[..]).hash(state);
        self.lineage.ancestors.iter().for_each(|a| a.credential.hash(state));
    }
}

impl Hash for BorrowedProfile<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let e = self.0;
        (self.1, e.upstream.as_str(), e.environment.as_str(), e.key.as_str(), e.policy_version).hash(state);
        e.scopes.iter().for_each(|scope| scope.hash(state));
        e.svid.as_ref().map(|e| &e.serial[..]).hash(state);
        e.ancestors.iter().for_each(|a| a.credential.hash(state));
    }
}

impl Equivalent<CredentialProfile> for BorrowedProfile<'_> {
    fn equivalent(&self, other: &CredentialProfile) -> bool {
        let (e, lineage) = (self.0, &other.lineage);
        self.1 == other.caller
            && kind(e) == other.kind
            && e.svid == other.evidence
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
            && e.renews.is_empty() != lineage.renewal
    }
}

impl From<&BorrowedProfile<'_>> for CredentialProfile {
    fn from(of: &BorrowedProfile<'_>) -> CredentialProfile {
        let e = of.0;
        CredentialProfile {
            caller: of.1,
            kind: kind(e),
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
                renewal: !e.renews.is_empty(),
            },
            policy: e.policy_version,
        }
    }
}

type Names = Interner<Box<str>>;

#[derive(Default, Serialize, Deserialize)]
pub(super) struct SharedValues {
    /// Each counted as often as credentials in memory were issued to it.
    pub callers: Names,
    /// Each counted as often as request ids of it are remembered.
    pub requesters: Names,
    pub profiles: Interner<CredentialProfile>,
    /// For an upstream without credentials now: when the last of its credentials was forgotten, that is, until when it was in use.
    pub used: BTreeMap<Box<str>, Millis>,
    /// Recently used record templates with their profile's slot, so that profiles need not even be compared. A cache only.
    #[serde(skip)]
    templates: Vec<(Arc<Record>, Slot)>,
}

/// Number of cached templates: one for each connection that is busy at once.
const TEMPLATES: usize = 8;

impl SharedValues {
    /// A copy for writing a snapshot.
    pub fn frozen(&self) -> SharedValues {
        SharedValues {
            callers: self.callers.frozen(),
            requesters: self.requesters.frozen(),
            profiles: self.profiles.frozen(),
            used: self.used.clone(),
            templates: Vec::new(),
        }
    }

    /// Rebuilds the lookup tables.
    pub fn index(&mut self) {
        self.callers.index();
        self.requesters.index();
        self.profiles.index();
    }

    /// The slot of an issuance's profile.
    pub fn acquire(&mut self, issuance: Issuance<'_>) -> Slot {
        let known = issuance.template.and_then(|template| self.templates.iter().find(|(known, ..)| Arc::ptr_eq(known, template)));
        if let Some(&(_, profile)) = known
            && let Some(caller) = self.profiles.again(profile).map(|p| p.caller)
        {
            self.callers.again(caller);
            return profile;
        }
        let caller = self.callers.acquire(issuance.shared.caller.as_str());
        let profile = self.profiles.acquire(&BorrowedProfile(issuance.shared, caller));
        if let Some(template) = issuance.template {
            if self.templates.len() >= TEMPLATES {
                self.templates.remove(0);
            }
            self.templates.push((template.clone(), profile));
        }
        profile
    }

    /// Releases the names of a credential.
    pub fn release(&mut self, profile: Slot, now: Millis) {
        if let Some(caller) = self.profiles.value(profile).map(|p| p.caller) {
            self.callers.release(caller);
        }
        if let Some(gone) = self.profiles.release(profile) {
            // The slot may be reused soon.
            self.templates.clear();
            match self.used.get_mut(&gone.upstream) {
                Some(at) => *at = now,
                None => drop(self.used.insert(gone.upstream.clone(), now)),
            }
        }
    }

    /// The slot of a credential's caller among the callers whose request ids are remembered.
    pub fn requester_of(&self, profile: Slot) -> Option<Slot> {
        let caller = self.profiles.value(profile).and_then(|p| self.callers.value(p.caller))?;
        self.requesters.slot_of(&**caller)
    }

    /// A request id of a credential's caller is forgotten.
    pub fn forget_request(&mut self, profile: Option<Slot>) {
        let caller = profile.and_then(|p| self.profiles.value(p)).and_then(|p| self.callers.value(p.caller));
        if let Some(caller) = caller {
            self.requesters.release_value(&**caller);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;
    use hashbrown::DefaultHashBuilder;

    fn issued() -> CredentialIssued {
        let identity = || Principal { issuer: "a".into(), sub: "b".into() };
        CredentialIssued {
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
            ..CredentialIssued::default()
        }
    }

    #[test]
    fn a_record_finds_its_profile_and_no_other() {
        let (hasher, own) = (DefaultHashBuilder::default(), issued());
        let profile = CredentialProfile::from(&BorrowedProfile(&own, 3));
        assert_eq!(hasher.hash_one(BorrowedProfile(&own, 3)), hasher.hash_one(&profile));
        assert!(BorrowedProfile(&own, 3).equivalent(&profile) && !BorrowedProfile(&own, 4).equivalent(&profile));
        let other: [fn(&mut CredentialIssued); 15] = [
            |e| e.kind += 1,
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
            assert!(!BorrowedProfile(&e, 3).equivalent(&profile), "change {n}");
        }
    }
}

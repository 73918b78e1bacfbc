//! The facts of a credential, for revocation rules and for listings.

use std::collections::BTreeSet;

use super::super::Issuance;
use super::super::tasks::Task;
use super::{Credentials, Lineage, LiveCredential};
use crate::record::{Ancestor, CredentialIssued, Principal, SvidEvidence, TokenEvidence};
use crate::revocation::{Facts, SvidFacts, TargetKind, TargetKinds};
use mayfly_base::limits;
use mayfly_verify::seq::{CredentialId, Seq, TaskId};

impl Credentials {
    /// Whether any credential in memory has one of these credentials as an ancestor. `None`: there are too many different profiles to visit
    /// at once.
    pub fn any_rests_on(&self, ids: &BTreeSet<CredentialId>) -> Option<bool> {
        let profiles = &self.names.profiles;
        let names = |a: &Ancestor| CredentialId::from_slice(&a.credential).is_none_or(|id| ids.contains(&id));
        let rests = || profiles.values().any(|p| p.lineage.ancestors.iter().any(names));
        (profiles.len() <= limits::LIST_WALK).then(rests)
    }

    /// Whether any credential in memory is based on an SVID under this root.
    pub fn any_vouched_by(&self, anchor: &[u8]) -> bool {
        self.names.profiles.values().any(|p| p.evidence.as_ref().is_some_and(|svid| svid.anchor == anchor))
    }

    /// Whether any credential in memory has this scope of an upstream.
    pub fn any_with_scope(&self, upstream: &str, scope: &str) -> bool {
        self.names.profiles.values().any(|p| *p.upstream == *upstream && p.scopes.iter().any(|s| **s == *scope))
    }

    /// The trust domains of all callers that hold a credential in memory. A trust domain may come more than once.
    pub fn trust_domains(&self) -> impl Iterator<Item = &str> {
        self.names.callers.values().map(|caller| trust_domain_of(caller))
    }
}

impl<'a> LiveCredential<'a> {
    /// The facts of the credential itself that rules match on. [`State::facts`](super::super::State::facts) adds those of the grants it is
    /// based on.
    pub(in crate::state) fn own_facts(&self, task: &'a Task) -> Facts<'a> {
        let caller = self.caller();
        let mut facts = Facts {
            revision: self.revision(),
            credentials: vec![self.id()],
            tasks: task.terms.path.clone(),
            identities: Vec::with_capacity(1 + task.terms.owners.len()),
            upstream: self.upstream(),
            scopes: self.scopes(),
            binding: self.binding(),
            tool: self.tool(),
            environment: self.environment(),
            policy: self.policy(),
            key: self.key(),
            svid: None,
            subject_token: None,
            rests_on: Vec::new(),
        };
        let domain = trust_domain_of(caller);
        facts.identities.push((domain, caller));
        facts.identities.extend(task.terms.owners.iter().map(|o| (o.issuer.as_str(), o.sub.as_str())));
        facts.svid = self.evidence().map(|e| svid_facts(domain, e));
        if let Some(lineage) = self.lineage() {
            add_lineage(
                &mut facts,
                &lineage.ancestors,
                lineage.subject.as_ref(),
                &lineage.actors,
                lineage.subject_token.as_ref(),
            );
        }
        facts
    }

    /// The credential kind, by its persisted number.
    pub fn kind(&self) -> u8 {
        self.profile().map_or(u8::MAX, |p| p.kind)
    }

    /// The credential's upstream.
    pub fn upstream(&self) -> &'a str {
        self.profile().map_or("", |p| &p.upstream)
    }

    /// The key that signed or derived the credential.
    pub fn key(&self) -> &'a str {
        self.profile().map_or("", |p| &p.key)
    }

    /// The credential's environment.
    pub fn environment(&self) -> &'a str {
        self.profile().map_or("", |p| &p.environment)
    }

    /// The version of the environment's policy set that the grant was decided with.
    pub fn policy(&self) -> u64 {
        self.profile().map_or(0, |p| p.policy)
    }

    /// The credential's scopes.
    pub fn scopes(&self) -> Vec<&'a str> {
        self.profile().map_or_else(Vec::new, |p| p.scopes.iter().map(|v| &**v).collect())
    }

    /// The credential's ancestors, the oldest first.
    pub fn ancestors(&self) -> &'a [Ancestor] {
        self.lineage().map_or(&[], |l| &l.ancestors)
    }

    /// The binding that permitted it.
    pub fn binding(&self) -> &'a str {
        self.profile().map_or("", |p| &p.binding)
    }

    /// The fields that only derived credentials have.
    pub fn lineage(&self) -> Option<&'a Lineage> {
        self.profile().map(|p| &p.lineage)
    }

    /// The SVID that the grant is based on.
    pub fn evidence(&self) -> Option<&'a SvidEvidence> {
        self.profile().and_then(|p| p.evidence.as_ref())
    }
}

/// The facts of a credential itself, from its record. `path`: the task path, root first, as far as it is known.
pub fn facts_of_record<'a>(issued: &'a CredentialIssued, revision: Seq, path: &[TaskId]) -> Facts<'a> {
    facts_of(Issuance::whole(issued), revision, path, TargetKinds::ALL)
}

/// The facts of a credential that is about to be issued, as far as rules of the sorts `asked` match on them.
pub(in crate::state) fn facts_of<'a>(issuance: Issuance<'a>, revision: Seq, path: &[TaskId], asked: TargetKinds) -> Facts<'a> {
    let issued = issuance.shared;
    let domain = trust_domain_of(&issued.caller);
    let mut facts = Facts {
        revision,
        credentials: CredentialId::from_slice(issuance.credential).into_iter().collect(),
        upstream: &issued.upstream,
        binding: &issued.binding,
        tool: issuance.tool,
        environment: &issued.environment,
        policy: issued.policy_version,
        key: &issued.key,
        svid: issued.svid.as_ref().map(|e| svid_facts(domain, e)),
        ..Facts::default()
    };
    if asked.has(TargetKind::Task) {
        facts.tasks = path.to_vec();
        facts.tasks.extend(TaskId::from_slice(&issued.task).filter(|t| !path.contains(t)));
    }
    if asked.has(TargetKind::UpstreamScope) {
        facts.scopes = issued.scopes.iter().map(String::as_str).collect();
    }
    if asked.any_of(TargetKinds::OF_IDENTITIES) {
        facts.identities.push((domain, &issued.caller));
    }
    let (subject, token) = (issued.subject.as_ref(), issued.subject_token.as_ref());
    add_lineage(&mut facts, &issued.ancestors, subject, &issued.actors, token);
    facts
}

pub use mayfly_identity::spiffe_id::trust_domain_of;

/// The facts of SVID evidence.
pub fn svid_facts<'a>(trust_domain: &'a str, e: &'a SvidEvidence) -> SvidFacts<'a> {
    SvidFacts { trust_domain, anchor: &e.anchor, issuing_key: &e.issuing_key, serial: &e.serial }
}

/// Adds the facts that only derived grants have.
pub fn add_lineage<'a>(
    facts: &mut Facts<'a>,
    ancestors: &'a [Ancestor],
    subject: Option<&'a Principal>,
    actors: &'a [Principal],
    token: Option<&'a TokenEvidence>,
) {
    for a in ancestors {
        facts.credentials.extend(CredentialId::from_slice(&a.credential));
        facts.identities.push((trust_domain_of(&a.caller), a.caller.as_str()));
    }
    facts.identities.extend(subject.into_iter().chain(actors).map(|i| (i.issuer.as_str(), i.sub.as_str())));
    facts.subject_token = token.map(|t| (t.issuer.as_str(), t.id.as_str()));
    // A credential presented as subject token: a grant that is based on it only through the task does not list it as an ancestor.
    facts.credentials.extend(token.and_then(|t| t.id.parse::<CredentialId>().ok()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revocation::answers;

    /// Leaving out facts that rules of the asked sorts never match does not change the result for those rules.
    #[test]
    fn what_is_gathered_for_some_sorts_answers_them_as_all_does() {
        let identity = |sub: &str| Principal { issuer: "https://idp.example".into(), sub: sub.into() };
        let issued = CredentialIssued {
            credential: vec![1; 16],
            task: vec![2; 16],
            caller: "spiffe://a.example/ci/x".into(),
            upstream: "github".into(),
            scopes: vec!["read".into(), "write".into()],
            binding: "b".into(),
            tool: "create_issue".into(),
            environment: "prod".into(),
            policy_version: 7,
            key: "k".into(),
            svid: Some(SvidEvidence { anchor: vec![3; 32], issuing_key: vec![4; 32], serial: vec![5], ..Default::default() }),
            subject: Some(identity("ada")),
            actors: vec![identity("bob")],
            ancestors: vec![Ancestor { credential: vec![6; 16], caller: "spiffe://c.example/d".into() }],
            subject_token: Some(TokenEvidence { issuer: "https://idp.example".into(), id: "t".into(), ..Default::default() }),
            ..CredentialIssued::default()
        };
        let path = [TaskId::from_bytes([8; 16])];
        let gathered = |of| facts_of(Issuance::whole(&issued), Seq::ZERO, &path, of);
        let whole = gathered(TargetKinds::ALL);
        assert!(answers(&whole, TargetKinds::NONE).is_empty());
        for one in TargetKind::ALL {
            assert!(!answers(&whole, TargetKinds::NONE.with(one)).is_empty(), "{one:?} asks nothing, and shows nothing");
            for other in TargetKind::ALL {
                for of in [TargetKinds::NONE.with(one).with(other), TargetKinds::ALL.without(one).without(other)] {
                    assert_eq!(answers(&gathered(of), of), answers(&whole, of), "{one:?} {other:?}");
                }
            }
        }
    }
}

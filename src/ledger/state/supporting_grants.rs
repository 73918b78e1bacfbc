//! The other grants that a grant is based on: the openings of the tasks on its path, and its ancestors. Whatever revokes one of them
//! revokes the grant.
//!
//! The facts of an ancestor are kept as long as anything descends from it, which may be longer than the ancestor lives. Tokens list the
//! facts that their own claims do not contain (`rests_on`), so that a verifier decides as the fold does.

use serde::{Deserialize, Serialize};

use super::intern::{Interner, Slot};
use super::tasks::{Task, TaskSpec};
use super::{State, add_lineage, facts_of_record, svid_facts, trust_domain_of};
use crate::persistent::PersistentMap;
use crate::record::{CredentialIssued, Principal};
use crate::revocation::{Facts, SvidFacts};
use mayfly_verify::seq::{CredentialId, Seq, TaskId};

/// The SVID of another grant.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct SupportingSvid {
    /// The SVID's trust domain.
    pub trust_domain: Box<str>,
    /// SHA-256 of the trust anchor's certificate.
    pub anchor: Box<[u8]>,
    /// SHA-256 of the key that signed the SVID.
    pub issuing_key: Box<[u8]>,
    /// The SVID's serial number.
    pub serial: Box<[u8]>,
}

/// Everything by which another grant can be revoked: its [`Facts`], owned. Missing facts are empty.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct SupportingGrant {
    /// The grant's own credential id, and its ancestors'.
    pub credentials: Vec<CredentialId>,
    /// The task path.
    pub tasks: Vec<TaskId>,
    /// The caller, subject, actors and owners.
    pub parties: Vec<Principal>,
    /// The upstream.
    pub upstream: Box<str>,
    /// The scopes.
    pub scopes: Vec<Box<str>>,
    /// The binding.
    pub binding: Box<str>,
    /// The tool.
    pub tool: Box<str>,
    /// The environment.
    pub environment: Box<str>,
    /// The version of that environment's policy set.
    pub policy: u64,
    /// The signing key.
    pub key: Box<str>,
    /// The SVID.
    pub svid: Option<SupportingSvid>,
    /// The subject token: issuer and id.
    pub subject_token: Option<(Box<str>, Box<str>)>,
}

impl From<&SupportingGrant> for SupportingGrant {
    fn from(ground: &SupportingGrant) -> SupportingGrant {
        ground.clone()
    }
}

impl SupportingGrant {
    /// The facts of one grant, without those of the grants that it is based on.
    pub fn of(facts: &Facts<'_>) -> SupportingGrant {
        // Each field is destructured by name, so that a new field cannot be forgotten here.
        let Facts {
            revision: _,
            credentials,
            tasks,
            identities,
            upstream,
            scopes,
            binding,
            tool,
            environment,
            policy,
            key,
            svid,
            subject_token,
            rests_on: _,
        } = facts;
        SupportingGrant {
            credentials: credentials.clone(),
            tasks: tasks.clone(),
            parties: identities.iter().map(|(issuer, sub)| Principal { issuer: (*issuer).into(), sub: (*sub).into() }).collect(),
            upstream: (*upstream).into(),
            scopes: scopes.iter().map(|scope| (*scope).into()).collect(),
            binding: (*binding).into(),
            tool: (*tool).into(),
            environment: (*environment).into(),
            policy: *policy,
            key: (*key).into(),
            svid: svid.map(|svid| SupportingSvid {
                trust_domain: svid.trust_domain.into(),
                anchor: svid.anchor.into(),
                issuing_key: svid.issuing_key.into(),
                serial: svid.serial.into(),
            }),
            subject_token: subject_token.map(|(issuer, id)| (issuer.into(), id.into())),
        }
    }

    /// The facts that rules match on.
    pub fn facts(&self, revision: Seq) -> Facts<'_> {
        Facts {
            revision,
            credentials: self.credentials.clone(),
            tasks: self.tasks.clone(),
            identities: self.parties.iter().map(|p| (p.issuer.as_str(), p.sub.as_str())).collect(),
            upstream: &self.upstream,
            scopes: self.scopes.iter().map(|scope| &**scope).collect(),
            binding: &self.binding,
            tool: &self.tool,
            environment: &self.environment,
            policy: self.policy,
            key: &self.key,
            svid: self.svid.as_ref().map(|svid| SvidFacts {
                trust_domain: &svid.trust_domain,
                anchor: &svid.anchor,
                issuing_key: &svid.issuing_key,
                serial: &svid.serial,
            }),
            subject_token: self.subject_token.as_ref().map(|(issuer, id)| (&**issuer, &**id)),
            rests_on: Vec::new(),
        }
    }

    /// The facts without those that `known` contains already. `None` if nothing is left.
    fn beyond(mut self, known: &[&Facts<'_>]) -> Option<SupportingGrant> {
        self.credentials.retain(|id| !known.iter().any(|f| f.credentials.contains(id)));
        self.tasks.retain(|id| !known.iter().any(|f| f.tasks.contains(id)));
        self.parties.retain(|p| !known.iter().any(|f| f.identities.contains(&(p.issuer.as_str(), p.sub.as_str()))));
        if known.iter().any(|f| f.upstream == &*self.upstream) {
            let upstream = &self.upstream;
            self.scopes.retain(|scope| !known.iter().any(|f| f.upstream == &**upstream && f.scopes.contains(&&**scope)));
            if self.scopes.is_empty() {
                self.upstream = "".into();
            }
        }
        if known.iter().any(|f| f.binding == &*self.binding) {
            self.binding = "".into();
        }
        if known.iter().any(|f| f.tool == &*self.tool) {
            self.tool = "".into();
        }
        // A rule on an older policy covers every version below a limit: the lowest known version covers all above it.
        if known.iter().any(|f| f.environment == &*self.environment && f.policy <= self.policy) {
            (self.environment, self.policy) = ("".into(), 0);
        }
        if known.iter().any(|f| f.key == &*self.key) {
            self.key = "".into();
        }
        let same = |f: &&Facts<'_>, own: &SupportingSvid| {
            f.svid.is_some_and(|s| {
                s.trust_domain == &*own.trust_domain
                    && (s.anchor, s.issuing_key, s.serial) == (&*own.anchor, &*own.issuing_key, &*own.serial)
            })
        };
        self.svid = self.svid.filter(|own| !known.iter().any(|f| same(f, own)));
        self.subject_token =
            self.subject_token.filter(|(issuer, id)| !known.iter().any(|f| f.subject_token == Some((&**issuer, &**id))));
        (self != SupportingGrant::default()).then_some(self)
    }

    /// The facts that the grants `all` add to the grant's own, without duplicates.
    pub fn beyond_own(own: &Facts<'_>, all: &[SupportingGrant]) -> Vec<SupportingGrant> {
        let mut out: Vec<SupportingGrant> = Vec::new();
        for ground in all {
            let more = {
                let before: Vec<Facts<'_>> = out.iter().map(|g| g.facts(Seq::ZERO)).collect();
                let known: Vec<&Facts<'_>> = std::iter::once(own).chain(&before).collect();
                ground.clone().beyond(&known)
            };
            out.extend(more);
        }
        out
    }
}

/// The facts of ancestors, kept as long as anything descends from them. Most ancestors share the same facts.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct SupportingGrants {
    of: PersistentMap<CredentialId, Slot>,
    values: GroundValues,
}

#[derive(Default, Serialize, Deserialize)]
struct GroundValues(Interner<SupportingGrant>);

impl Clone for GroundValues {
    fn clone(&self) -> GroundValues {
        let mut copy = self.0.frozen();
        copy.index();
        GroundValues(copy)
    }
}

impl SupportingGrants {
    /// A copy for writing a snapshot.
    pub(super) fn frozen(&self) -> SupportingGrants {
        SupportingGrants { of: self.of.clone(), values: GroundValues(self.values.0.frozen()) }
    }

    /// The facts of an ancestor.
    fn get(&self, id: &CredentialId) -> Option<&SupportingGrant> {
        self.values.0.value(*self.of.get(id)?)
    }

    fn keep(&mut self, id: CredentialId, ground: &SupportingGrant) {
        let slot = self.values.0.acquire(ground);
        self.of.insert(id, slot);
    }

    /// Nothing descends from the ancestor any more.
    pub(super) fn forget(&mut self, id: &CredentialId) {
        if let Some(slot) = self.of.remove(id) {
            self.values.0.release(slot);
        }
    }
}

impl State {
    /// Something descends from a credential from now on: its facts are kept.
    pub(super) fn keep_ground(&mut self, id: CredentialId) {
        if self.grounds.get(&id).is_none()
            && let Some(ground) = self.ancestor_facts(&id).map(|facts| SupportingGrant::of(&facts))
        {
            self.grounds.keep(id, &ground);
        }
    }

    /// The facts of an ancestor without those that it is based on: its descendants name its ancestors, too. `None` if the ancestor is not
    /// known.
    fn ancestor_facts(&self, id: &CredentialId) -> Option<Facts<'_>> {
        if let Some(ground) = self.grounds.get(id) {
            return Some(ground.facts(Seq::ZERO));
        }
        if let Some(login) = self.logins.get(id) {
            return Some(login.facts());
        }
        let live = self.credentials.get(id)?;
        Some(live.own_facts(self.tasks.at(live.task())?))
    }

    /// The facts of these ancestors, without duplicates.
    fn ancestors_facts<'a>(&'a self, all: &mut Vec<Facts<'a>>, ids: impl Iterator<Item = CredentialId>) {
        let mut seen: Vec<CredentialId> = Vec::new();
        for id in ids {
            if !seen.contains(&id) {
                seen.push(id);
                all.extend(self.ancestor_facts(&id));
            }
        }
    }

    /// The other grants that a grant with these facts is based on: the openings of its task and of the tasks above, and its ancestors.
    /// Openings whose facts are all among the grant's own are left out.
    fn grounds_of<'a>(&'a self, own: &Facts<'a>, task: Option<&'a Task>, ancestors: &[CredentialId]) -> Vec<Facts<'a>> {
        let mut all = Vec::new();
        for task in task.into_iter().flat_map(|task| self.tasks.upwards(task)) {
            if !opened_alike(own, &task.terms) {
                all.push(opening_facts(&task.terms));
            }
            all.extend(self.joining_facts(task));
        }
        let of_openings: Vec<CredentialId> = all.iter().flat_map(|facts| &facts.credentials).copied().collect();
        if !ancestors.is_empty() || !of_openings.is_empty() {
            self.ancestors_facts(&mut all, ancestors.iter().copied().chain(of_openings));
        }
        all
    }

    /// All facts of a credential that rules match on: its own, and those of everything it is based on.
    pub fn facts<'a>(&'a self, live: &super::LiveCredential<'a>, task: &'a Task) -> Facts<'a> {
        let mut facts = live.own_facts(task);
        facts.rests_on = self.grounds_of(&facts, Some(task), facts.credentials.get(1..).unwrap_or_default());
        facts
    }

    /// The same facts for a credential known by its record, as far as the grants it is based on are still in memory. `path`: its task path,
    /// root first.
    pub fn facts_of_record<'a>(&'a self, issued: &'a CredentialIssued, revision: Seq, path: &[TaskId]) -> Facts<'a> {
        let mut facts = facts_of_record(issued, revision, path);
        let task = TaskId::from_slice(&issued.task).and_then(|id| self.tasks.get(&id));
        let owners = task.map_or(&[][..], |t| &t.terms.owners);
        facts.identities.extend(owners.iter().map(|o| (o.issuer.as_str(), o.sub.as_str())));
        let own = usize::from(!issued.credential.is_empty());
        facts.rests_on = self.grounds_of(&facts, task, facts.credentials.get(own..).unwrap_or_default());
        facts
    }

    /// The grants that a credential which is about to be issued, or issued again, is based on. `task`: the lowest open task on its path.
    pub fn grounds_for(&self, issued: &CredentialIssued, task: Option<&TaskId>) -> Vec<SupportingGrant> {
        let task = task.and_then(|id| self.tasks.get(id));
        let facts = facts_of_record(issued, Seq::ZERO, &[]);
        let own = usize::from(!issued.credential.is_empty());
        let all = self.grounds_of(&facts, task, facts.credentials.get(own..).unwrap_or_default());
        all.iter().map(SupportingGrant::of).collect()
    }

    /// The facts of a task's opening, which is a grant, and of the grants that the opening is based on.
    pub(super) fn opening<'a>(&'a self, terms: &'a TaskSpec) -> Facts<'a> {
        let mut facts = opening_facts(terms);
        self.ancestors_facts(&mut facts.rests_on, facts.credentials.iter().copied());
        facts
    }

    /// The same facts for the joining of a break-glass task; `None` if the task is not break-glass, or nobody joined.
    pub(super) fn joining<'a>(&'a self, task: &'a Task) -> Option<Facts<'a>> {
        let mut facts = self.joining_facts(task)?;
        self.ancestors_facts(&mut facts.rests_on, facts.credentials.iter().copied());
        Some(facts)
    }

    /// The grants that made a task and the tasks above it: their openings, and for break-glass the joining.
    pub fn openings<'a>(&'a self, task: &'a Task) -> Vec<Facts<'a>> {
        let of = |task: &'a Task| std::iter::once(self.opening(&task.terms)).chain(self.joining(task));
        self.tasks.upwards(task).flat_map(of).collect()
    }

    fn joining_facts<'a>(&'a self, task: &'a Task) -> Option<Facts<'a>> {
        if !task.terms.break_glass || task.terms.path.len() != 1 {
            return None;
        }
        let second = self.break_glass_tasks.get(&task.terms.id)?.people.get(1)?;
        let domain = trust_domain_of(&second.caller);
        Some(Facts {
            revision: second.revision,
            credentials: second.ancestor.into_iter().collect(),
            identities: vec![(domain, &second.caller), (&second.who.issuer, &second.who.sub)],
            environment: &task.terms.environment,
            policy: task.terms.policy,
            svid: second.svid.as_ref().map(|s| svid_facts(domain, s)),
            ..Facts::default()
        })
    }
}

/// As [`opened_alike`], for a credential that is about to be issued and has no ancestors.
pub fn opened_by_holder(draft: &CredentialIssued, terms: &TaskSpec) -> bool {
    let svid = match (&draft.svid, &terms.svid) {
        (Some(own), Some(opener)) => {
            (&own.anchor, &own.issuing_key, &own.serial) == (&opener.anchor, &opener.issuing_key, &opener.serial)
        }
        (_, None) => true,
        (None, Some(_)) => false,
    };
    svid && terms.behalf.is_none()
        && terms.policy >= draft.policy_version
        && terms.ancestor.is_none()
        && *terms.opener == *draft.caller
}

/// Whether a task was opened by the holder of this grant, with the same SVID, under no older policy, and on nobody's behalf. The grant's
/// own facts then cover the opening. This is the usual case, and no facts of the opening need to be gathered.
pub fn opened_alike(own: &Facts<'_>, terms: &TaskSpec) -> bool {
    let svid = |a: SvidFacts<'_>, b: SvidFacts<'_>| (a.anchor, a.issuing_key, a.serial) == (b.anchor, b.issuing_key, b.serial);
    let alike = match (own.svid, &terms.svid) {
        (Some(own), Some(other)) => svid(own, svid_facts(own.trust_domain, other)),
        (_, None) => true,
        (None, Some(_)) => false,
    };
    alike
        && terms.behalf.is_none()
        && terms.policy >= own.policy
        && terms.ancestor.is_none_or(|id| own.credentials.contains(&id))
        && own.identities.first().is_some_and(|(_, caller)| *caller == &*terms.opener)
}

/// The facts of a task's opening by itself.
pub(super) fn opening_facts(terms: &TaskSpec) -> Facts<'_> {
    let domain = trust_domain_of(&terms.opener);
    let mut facts = Facts {
        revision: terms.revision,
        tasks: terms.path.clone(),
        identities: vec![(domain, &terms.opener)],
        environment: &terms.environment,
        policy: terms.policy,
        svid: terms.svid.as_ref().map(|s| svid_facts(domain, s)),
        ..Facts::default()
    };
    facts.credentials.extend(terms.ancestor);
    if let Some(behalf) = terms.behalf.as_deref() {
        add_lineage(&mut facts, &behalf.lineage, None, &behalf.actors, behalf.token.as_ref());
    }
    facts.identities.extend(terms.owners.iter().map(|o| (o.issuer.as_str(), o.sub.as_str())));
    facts
}

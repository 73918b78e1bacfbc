//! Live credentials: a slab of small entries whose names are interned.
//!
//! An entry stays until its credential has ended and its request id may be forgotten. What has ended is refused by its time, not by
//! its absence.

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use serde::{Deserialize, Serialize};

use super::intern::{Interner, Slot};
use super::slab::Slab;
use super::tasks::{Task, Tasks};
use crate::ledger::record::{Ancestor, Identity, Issued, SvidEvidence, TokenEvidence};
use crate::limits;
use crate::revocation::{Facts, SvidFacts};
use crate::seq::{CredentialId, Millis, Seq, TaskId};
use crate::store::Position;

/// Names a request of a caller: the first 16 bytes of SHA-256 over both.
pub type RequestKey = [u8; 16];

/// One credential in memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Live {
    /// Its id.
    pub id: CredentialId,
    /// The request that it answered, zeros for none.
    pub request: RequestKey,
    /// The place of its commit.
    pub at: Position,
    /// The seq of its record.
    pub seq: Seq,
    /// Its decision revision.
    pub revision: Seq,
    /// Its end.
    pub expires_at: Millis,
    /// It is remembered until then.
    pub kept_until: Millis,
    /// Its task's place.
    pub task: Slot,
    caller: Slot,
    upstream: Slot,
    scopes: Slot,
    tool: Slot,
    environment: Slot,
    binding: Slot,
    key: Slot,
    evidence: Slot,
    lineage: Slot,
    /// Version of the policy set.
    pub policy: u32,
    /// The credential kind, by its persisted number.
    pub kind: u8,
    /// It was given back.
    pub released: bool,
    /// Its end has passed and it is no longer counted as live.
    ended: bool,
}

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

impl From<&Lineage> for Lineage {
    fn from(l: &Lineage) -> Lineage {
        l.clone()
    }
}

/// The SVID under a credential, to be shared by all that it was shown for.
#[derive(Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Evidence(pub Option<SvidEvidence>);

impl From<&Evidence> for Evidence {
    fn from(e: &Evidence) -> Evidence {
        e.clone()
    }
}

/// A set of scopes, sorted.
#[derive(Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct ScopeSet(pub Vec<Box<str>>);

impl From<&ScopeSet> for ScopeSet {
    fn from(s: &ScopeSet) -> ScopeSet {
        s.clone()
    }
}

type Names = Interner<Box<str>>;

/// All credentials in memory.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Credentials {
    slab: Slab<Option<Live>>,
    free: Vec<Slot>,
    by_id: HashTable<Slot>,
    by_request: HashTable<Slot>,
    hasher: DefaultHashBuilder,
    names: NameTables,
    /// When to look at an entry, second by second.
    checks: BTreeMap<u64, Vec<Slot>>,
    live: usize,
    remembered: BTreeMap<Box<str>, u32>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct NameTables {
    callers: Names,
    upstreams: Names,
    scopes: Interner<ScopeSet>,
    tools: Names,
    environments: Names,
    bindings: Names,
    keys: Names,
    evidence: Interner<Evidence>,
    lineage: Interner<Lineage>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    slab: Slab<Option<Live>>,
    free: Vec<Slot>,
    names: NameTables,
    checks: BTreeMap<u64, Vec<Slot>>,
    live: usize,
    remembered: BTreeMap<Box<str>, u32>,
}

impl From<Stored> for Credentials {
    fn from(s: Stored) -> Credentials {
        let mut out = Credentials {
            slab: s.slab,
            free: s.free,
            names: s.names,
            checks: s.checks,
            live: s.live,
            remembered: s.remembered,
            ..Credentials::default()
        };
        for slot in 0..out.slab.len() as Slot {
            out.index(slot);
        }
        out
    }
}

impl From<Credentials> for Stored {
    fn from(c: Credentials) -> Stored {
        Stored { slab: c.slab, free: c.free, names: c.names, checks: c.checks, live: c.live, remembered: c.remembered }
    }
}

impl Credentials {
    /// The credential of that id, if it is in memory.
    pub fn get(&self, id: &CredentialId) -> Option<&Live> {
        let found = self.by_id.find(self.hasher.hash_one(id), |s| self.slab[*s as usize].as_ref().is_some_and(|l| l.id == *id));
        found.and_then(|s| self.at(*s))
    }

    /// The credential that answered this request, if it is in memory.
    pub fn of_request(&self, key: &RequestKey) -> Option<&Live> {
        let found = self
            .by_request
            .find(self.hasher.hash_one(key), |s| self.slab[*s as usize].as_ref().is_some_and(|l| l.request == *key));
        found.and_then(|s| self.at(*s))
    }

    /// The credential at a place.
    pub fn at(&self, slot: Slot) -> Option<&Live> {
        self.slab.get(slot as usize).and_then(Option::as_ref)
    }

    /// How many places there are, to go through them in pieces.
    pub fn places(&self) -> Slot {
        self.slab.len() as Slot
    }

    /// How many have not ended.
    pub fn live(&self) -> usize {
        self.live
    }

    /// How many are in memory.
    pub fn len(&self) -> usize {
        self.slab.len() - self.free.len()
    }

    /// None are in memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many in memory were issued to this caller.
    pub fn live_of(&self, caller: &str) -> u32 {
        self.names.callers.count(caller)
    }

    /// How many callers have credentials in memory.
    pub fn callers(&self) -> usize {
        self.names.callers.len()
    }

    /// How many request ids are remembered, of all callers.
    pub fn all_remembered(&self) -> u64 {
        self.remembered.values().map(|n| u64::from(*n)).sum()
    }

    /// How many request ids of this caller are remembered.
    pub fn remembered(&self, caller: &str) -> u32 {
        self.remembered.get(caller).copied().unwrap_or(0)
    }

    /// Counts a request id of this caller, whatever it made.
    pub(super) fn remember(&mut self, caller: &str) {
        match self.remembered.get_mut(caller) {
            Some(n) => *n += 1,
            None => drop(self.remembered.insert(caller.into(), 1)),
        }
    }

    /// A request id of this caller is forgotten.
    pub(super) fn forget_request(&mut self, caller: &str) {
        if let Some(n) = self.remembered.get_mut(caller) {
            *n -= 1;
            if *n == 0 {
                self.remembered.remove(caller);
            }
        }
    }

    pub(super) fn add(
        &mut self,
        issued: &Issued,
        id: CredentialId,
        request: RequestKey,
        place: (Position, Seq, Seq),
        task: Slot,
    ) {
        let expires_at = Millis(issued.expires_at);
        let kept_until = if request == [0; 16] {
            expires_at
        } else {
            self.remember(&issued.caller);
            expires_at.max(Millis(issued.issued_at).plus(limits::REQUEST_ID_KEPT_MS))
        };
        let lineage = Lineage {
            ancestors: issued.ancestors.clone(),
            subject: issued.subject.clone(),
            actors: issued.actors.clone(),
            subject_token: issued.subject_token.clone(),
        };
        let n = &mut self.names;
        let live = Live {
            id,
            request,
            at: place.0,
            seq: place.1,
            revision: place.2,
            expires_at,
            kept_until,
            task,
            caller: n.callers.acquire(issued.caller.as_str()),
            upstream: n.upstreams.acquire(issued.upstream.as_str()),
            scopes: n.scopes.acquire(&ScopeSet(issued.scopes.iter().map(|s| s.as_str().into()).collect())),
            tool: n.tools.acquire(issued.tool.as_str()),
            environment: n.environments.acquire(issued.environment.as_str()),
            binding: n.bindings.acquire(issued.binding.as_str()),
            key: n.keys.acquire(issued.key.as_str()),
            evidence: n.evidence.acquire(&Evidence(issued.svid.clone())),
            lineage: n.lineage.acquire(&lineage),
            policy: u32::try_from(issued.policy_version).unwrap_or(u32::MAX),
            kind: u8::try_from(issued.kind).unwrap_or(u8::MAX),
            released: false,
            ended: false,
        };
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slab.push(None);
                (self.slab.len() - 1) as Slot
            }
        };
        self.slab[slot as usize] = Some(live);
        self.live += 1;
        self.index(slot);
        self.check_at(slot, expires_at);
    }

    fn index(&mut self, slot: Slot) {
        let Some(live) = self.slab[slot as usize].as_ref() else { return };
        let (hasher, slab) = (&self.hasher, &self.slab);
        let by_id = |s: &Slot| slab[*s as usize].as_ref().map_or(0, |l| hasher.hash_one(l.id));
        self.by_id.insert_unique(hasher.hash_one(live.id), slot, by_id);
        if live.request != [0; 16] {
            let by_request = |s: &Slot| slab[*s as usize].as_ref().map_or(0, |l| hasher.hash_one(l.request));
            self.by_request.insert_unique(hasher.hash_one(live.request), slot, by_request);
        }
    }

    fn check_at(&mut self, slot: Slot, when: Millis) {
        self.checks.entry(when.seconds() + 1).or_default().push(slot);
    }

    /// Notes that it was given back; answers with its end.
    pub(super) fn release(&mut self, id: &CredentialId) -> Option<Millis> {
        let hash = self.hasher.hash_one(id);
        let slab = &mut self.slab;
        let found = self.by_id.find(hash, |s| slab[*s as usize].as_ref().is_some_and(|l| l.id == *id)).copied();
        let live = found.and_then(|s| slab[s as usize].as_mut())?;
        live.released = true;
        Some(live.expires_at)
    }

    /// Takes its request away from it: another credential answers that from now on.
    pub(super) fn unbind(&mut self, id: &CredentialId) {
        let slab = &self.slab;
        let found =
            self.by_id.find(self.hasher.hash_one(id), |s| slab[*s as usize].as_ref().is_some_and(|l| l.id == *id)).copied();
        let Some((slot, live)) = found.and_then(|s| Some((s, self.slab[s as usize].as_mut()?))) else { return };
        let request = std::mem::take(&mut live.request);
        if request == [0; 16] {
            return;
        }
        if let Ok(found) = self.by_request.find_entry(self.hasher.hash_one(request), |s| *s == slot) {
            found.remove();
        }
        if let Some(caller) = self.names.callers.value(live.caller).cloned() {
            self.forget_request(&caller);
        }
    }

    /// Goes through up to `most` entries whose time has come: what ended is no longer counted, what may be forgotten is.
    pub(super) fn expire(&mut self, now: Millis, most: usize, tasks: &mut Tasks) -> usize {
        let mut looked = 0;
        while looked < most {
            let Some(mut due) = self.checks.first_entry() else { break };
            if *due.key() > now.seconds() {
                break;
            }
            let Some(slot) = due.get_mut().pop() else {
                due.remove();
                continue;
            };
            looked += 1;
            let Some(live) = self.slab[slot as usize].as_mut() else { continue };
            if !live.ended {
                live.ended = true;
                self.live -= 1;
            }
            if live.kept_until < now {
                self.forget(slot, tasks);
            } else {
                let when = live.kept_until;
                self.check_at(slot, when);
            }
        }
        looked
    }

    fn forget(&mut self, slot: Slot, tasks: &mut Tasks) {
        let Some(live) = self.slab[slot as usize].clone() else { return };
        if let Ok(found) = self.by_id.find_entry(self.hasher.hash_one(live.id), |s| *s == slot) {
            found.remove();
        }
        if live.request != [0; 16] {
            if let Ok(found) = self.by_request.find_entry(self.hasher.hash_one(live.request), |s| *s == slot) {
                found.remove();
            }
            if let Some(caller) = self.names.callers.value(live.caller).cloned() {
                self.forget_request(&caller);
            }
        }
        let n = &mut self.names;
        n.callers.release(live.caller);
        n.upstreams.release(live.upstream);
        n.scopes.release(live.scopes);
        n.tools.release(live.tool);
        n.environments.release(live.environment);
        n.bindings.release(live.binding);
        n.keys.release(live.key);
        n.evidence.release(live.evidence);
        n.lineage.release(live.lineage);
        if let Some(task) = tasks.at_mut(live.task) {
            task.credentials -= 1;
        }
        self.slab[slot as usize] = None;
        self.free.push(slot);
    }

    /// Everything that the rules can ask of a credential.
    pub fn facts<'a>(&'a self, live: &'a Live, task: &'a Task) -> Facts<'a> {
        let n = &self.names;
        let caller = self.caller(live);
        let evidence = n.evidence.value(live.evidence).and_then(|e| e.0.as_ref());
        let mut facts = Facts {
            revision: live.revision,
            credentials: vec![live.id],
            tasks: task.terms.path.clone(),
            identities: Vec::with_capacity(1 + task.terms.owners.len()),
            upstream: self.upstream(live),
            scopes: self.scopes(live),
            binding: n.bindings.value(live.binding).map_or("", |v| v),
            tool: self.tool(live),
            environment: n.environments.value(live.environment).map_or("", |v| v),
            policy: live.policy.into(),
            key: n.keys.value(live.key).map_or("", |v| v),
            svid: None,
            subject_token: None,
        };
        let domain = trust_domain_of(caller);
        facts.identities.push((domain, caller));
        facts.identities.extend(task.terms.owners.iter().map(|o| (o.issuer.as_str(), o.sub.as_str())));
        if let Some(e) = evidence {
            facts.svid = Some(svid_facts(domain, e));
        }
        if let Some(lineage) = n.lineage.value(live.lineage) {
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

    /// Whom it was issued to.
    pub fn caller(&self, live: &Live) -> &str {
        self.names.callers.value(live.caller).map_or("", |v| v)
    }

    /// The upstream that it is for.
    pub fn upstream(&self, live: &Live) -> &str {
        self.names.upstreams.value(live.upstream).map_or("", |v| v)
    }

    /// The tool that it serves for.
    pub fn tool(&self, live: &Live) -> &str {
        self.names.tools.value(live.tool).map_or("", |v| v)
    }

    /// The key that signed or derived it.
    pub fn key(&self, live: &Live) -> &str {
        self.names.keys.value(live.key).map_or("", |v| v)
    }

    /// The environment that it belongs to.
    pub fn environment(&self, live: &Live) -> &str {
        self.names.environments.value(live.environment).map_or("", |v| v)
    }

    /// The scopes that it carries.
    pub fn scopes(&self, live: &Live) -> Vec<&str> {
        self.names.scopes.value(live.scopes).map_or_else(Vec::new, |s| s.0.iter().map(|v| &**v).collect())
    }

    /// The credentials that it rests on, the first of its line first.
    pub fn ancestors(&self, live: &Live) -> &[Ancestor] {
        self.names.lineage.value(live.lineage).map_or(&[], |l| &l.ancestors)
    }

    /// The binding that permitted it.
    pub fn binding(&self, live: &Live) -> &str {
        self.names.bindings.value(live.binding).map_or("", |v| v)
    }

    /// What only derived credentials have.
    pub fn lineage(&self, live: &Live) -> Option<&Lineage> {
        self.names.lineage.value(live.lineage)
    }

    /// The SVID that it rests on.
    pub fn evidence(&self, live: &Live) -> Option<&SvidEvidence> {
        self.names.evidence.value(live.evidence).and_then(|e| e.0.as_ref())
    }
}

/// Everything that the rules can ask of a credential, from its record. `path`: the task path, root first, as far as it is known.
pub fn facts_of_record<'a>(issued: &'a Issued, revision: Seq, path: &[TaskId]) -> Facts<'a> {
    let domain = trust_domain_of(&issued.caller);
    let mut facts = Facts {
        revision,
        credentials: CredentialId::from_slice(&issued.credential).into_iter().collect(),
        tasks: path.to_vec(),
        identities: vec![(domain, &issued.caller)],
        upstream: &issued.upstream,
        scopes: issued.scopes.iter().map(String::as_str).collect(),
        binding: &issued.binding,
        tool: &issued.tool,
        environment: &issued.environment,
        policy: issued.policy_version,
        key: &issued.key,
        svid: issued.svid.as_ref().map(|e| svid_facts(domain, e)),
        ..Facts::default()
    };
    facts.tasks.extend(TaskId::from_slice(&issued.task).filter(|t| !path.contains(t)));
    let (subject, token) = (issued.subject.as_ref(), issued.subject_token.as_ref());
    add_lineage(&mut facts, &issued.ancestors, subject, &issued.actors, token);
    facts
}

/// The trust domain of a SPIFFE ID, which is the issuer of a workload's identity.
pub fn trust_domain_of(id: &str) -> &str {
    let rest = id.strip_prefix("spiffe://").unwrap_or_default();
    rest.split('/').next().unwrap_or_default()
}

/// The facts of an SVID's evidence.
pub fn svid_facts<'a>(trust_domain: &'a str, e: &'a SvidEvidence) -> SvidFacts<'a> {
    SvidFacts { trust_domain, anchor: &e.anchor, issuing_key: &e.issuing_key, serial: &e.serial }
}

/// Adds what only derived grants have.
pub fn add_lineage<'a>(
    facts: &mut Facts<'a>,
    ancestors: &'a [Ancestor],
    subject: Option<&'a Identity>,
    actors: &'a [Identity],
    token: Option<&'a TokenEvidence>,
) {
    for a in ancestors {
        facts.credentials.extend(CredentialId::from_slice(&a.credential));
        facts.identities.push((trust_domain_of(&a.caller), a.caller.as_str()));
    }
    facts.identities.extend(subject.into_iter().chain(actors).map(|i| (i.issuer.as_str(), i.sub.as_str())));
    facts.subject_token = token.map(|t| (t.issuer.as_str(), t.id.as_str()));
}

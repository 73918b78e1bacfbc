//! The state: a fold over the records. The same log gives the same state, bit for bit, on every replica.
//!
//! [`State::verdict`] decides whether a group of records takes effect at this place in the order; [`State::apply`] applies it. Neither
//! reads a clock: time is in the commits.

mod apply;
#[cfg(test)]
mod attacks;
pub mod break_glass;
pub mod credentials;
mod expiring_entries;
mod fold_input;
mod heartbeats;
pub mod intern;
mod lease_terms;
mod logins;
mod parts;
mod quotas;
mod secrets;
pub mod supporting_grants;
mod task_approval;
mod task_hold;
mod task_spec;
pub mod tasks;
#[cfg(test)]
mod tests;
mod uses;
mod verdict;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use break_glass::{BreakGlassPerson, BreakGlassTask, BreakGlassTasks};
use credentials::facts_of;
pub use credentials::{
    AnsweredRequest, Credentials, LiveCredential, RequestKey, add_lineage, facts_of_record, id_for, svid_facts, trust_domain_of,
};
pub use fold_input::{FoldInput, Issuance};
pub use lease_terms::LeaseTerms;
pub use logins::{Login, login_of_serial, serial_of_login};
pub use parts::{
    Approval, ApprovalResult, BundleState, DocumentVersion, Lease, ManagedKey, RegistrationFields, RememberedRequest,
    RemovedHistory, SnapshotRef,
};
pub use quotas::Quotas;
pub use secrets::{ManagedSecret, RotationRequest, SecretState, SecretVersion};
pub use supporting_grants::{SupportingGrant, SupportingGrants};
pub use tasks::{Task, TaskApproval, TaskClosure, TaskHold, TaskPhase, TaskSpec, Tasks};
pub use verdict::refused_by;
pub use verdict::{digest_of_task, expired, id_token_used, policy_in_force};

use super::commit::{BadCommit, Commit, WriterHead};
use super::record::{DocumentTable, Event, KeyPurpose, KeyState, NarrowedKind, Record};
use crate::persistent::{Calendar, PersistentMap};
use crate::revocation::{RevocationEntry, SharedRules, Target};
use mayfly_base::limits;
use mayfly_base::refusal::Refusal;
use mayfly_store::Position;
use mayfly_verify::seq::{ApprovalId, CredentialId, LeaseId, Millis, Seq};

/// All state in memory.
#[derive(Default, Serialize, Deserialize)]
pub struct State {
    /// The time of the newest commit.
    pub time: Millis,
    /// The seq of the newest record.
    pub head: Seq,
    /// The position of the newest commit.
    pub position: Position,
    /// The newest generation that began at an earlier time, or else the first generation.
    pub time_generation: u8,
    /// The store's id.
    pub store: [u8; 16],
    /// The head of each writer's chain.
    pub writers: BTreeMap<u32, WriterHead>,
    /// Tasks.
    pub tasks: Tasks,
    /// Credentials.
    pub credentials: Credentials,
    /// Revocation rules and locks.
    #[serde(with = "rules_as_entries")]
    pub rules: SharedRules,
    /// The policy set in effect, by environment.
    pub policies: BTreeMap<Box<str>, Arc<DocumentVersion>>,
    /// The shadow policy set, by environment.
    pub audit_policies: BTreeMap<Box<str>, Arc<DocumentVersion>>,
    /// The registration in effect, by upstream.
    pub upstreams: BTreeMap<Box<str>, Arc<DocumentVersion>>,
    /// Owners who have left, and since when.
    pub owners_left: BTreeMap<Box<str>, Millis>,
    /// The binding in effect, by name.
    pub bindings: BTreeMap<Box<str>, Arc<DocumentVersion>>,
    /// Bundles, by trust domain.
    pub bundles: BTreeMap<Box<str>, BundleState>,
    /// Keys, by id.
    pub keys: BTreeMap<Box<str>, ManagedKey>,
    /// Open leases.
    pub leases: BTreeMap<LeaseId, Arc<Lease>>,
    /// Approvals.
    pub approvals: BTreeMap<ApprovalId, Approval>,
    /// Break-glass tasks: open ones, those not reviewed yet, and the newest reviewed ones.
    pub break_glass_tasks: BreakGlassTasks,
    /// Single-use ids that were used, and until when they are remembered.
    pub used_once: PersistentMap<[u8; 32], Millis>,
    /// Remembered requests whose result is not a credential.
    pub requests: PersistentMap<RequestKey, RememberedRequest>,
    /// For credentials with descendants (by a renewal, a derivation or a task), which may outlive them: when the last descendant ends.
    pub descent: PersistentMap<CredentialId, Millis>,
    /// Number of revocation rules in effect that each caller's own acts made.
    pub rules_by_caller: PersistentMap<Box<str>, u32>,
    /// Number of refusals recorded or counted so far.
    pub refusals: u64,
    /// Number of credentials ever issued.
    pub issued: u64,
    /// The newest snapshot.
    pub snapshot: Option<SnapshotRef>,
    /// The snapshot before the newest one: the commits after it are kept, so that a start is possible without the newest.
    pub snapshot_before: Option<SnapshotRef>,
    /// Bytes of all commits so far, including removed ones.
    pub bytes: u64,
    /// The part of the log that retention removed from the store, or is about to remove.
    pub removed: RemovedHistory,
    /// People and jobs that signed in, until their certificates expire.
    pub logins: PersistentMap<CredentialId, Arc<Login>>,
    /// Number of logins of each SPIFFE ID.
    pub logins_by_caller: PersistentMap<Box<str>, u32>,
    /// Small entries that expire, by their end.
    ends: Calendar<ExpiringEntry>,
    /// The facts of ancestors.
    grounds: SupportingGrants,
    /// The terms under which open leases are undone. Fields from here on stand last in the order in which versions added them, so that older
    /// snapshots can be read: `snapshot::read` adds empty values.
    pub lease_terms: LeaseTerms,
    /// Static secrets, by upstream.
    pub secrets: BTreeMap<Box<str>, Arc<ManagedSecret>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum ExpiringEntry {
    Request(RequestKey),
    UsedOnce([u8; 32]),
    Approval(ApprovalId),
    CallerRule(Box<str>),
    Descent(CredentialId),
    Login(CredentialId),
}

mod rules_as_entries {
    use super::{Calendar, RevocationEntry, Seq, SharedRules, Target};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(rules: &SharedRules, s: S) -> Result<S::Ok, S::Error> {
        (rules.entries(), rules.ends(), rules.dropped()).serialize(s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<SharedRules, D::Error> {
        let (entries, ends, dropped) = <(Vec<(Target, RevocationEntry)>, Calendar<Target>, Seq)>::deserialize(d)?;
        Ok(SharedRules::from_parts(entries, ends, dropped))
    }
}

/// The fold's verdict on a group of records at its place. A void group has no effect.
pub type Verdict = Result<(), Refusal>;

/// The effect of a commit on the state.
#[derive(Debug)]
pub struct FoldedCommit {
    /// One verdict per record, in order; the records of a group have the same verdict.
    pub verdicts: Vec<Verdict>,
    /// The seq of the commit's first record.
    pub first: Seq,
}

impl Clone for State {
    fn clone(&self) -> State {
        State { credentials: self.credentials.copy(), grounds: self.grounds.clone(), ..self.frozen() }
    }
}

impl State {
    /// A copy for writing a snapshot, taken in constant time. It finds no credential by id or request.
    pub fn frozen(&self) -> State {
        State {
            time: self.time,
            head: self.head,
            position: self.position,
            time_generation: self.time_generation,
            store: self.store,
            writers: self.writers.clone(),
            tasks: self.tasks.clone(),
            credentials: self.credentials.frozen(),
            rules: self.rules.clone(),
            policies: self.policies.clone(),
            audit_policies: self.audit_policies.clone(),
            upstreams: self.upstreams.clone(),
            owners_left: self.owners_left.clone(),
            bindings: self.bindings.clone(),
            bundles: self.bundles.clone(),
            keys: self.keys.clone(),
            leases: self.leases.clone(),
            approvals: self.approvals.clone(),
            break_glass_tasks: self.break_glass_tasks.clone(),
            used_once: self.used_once.clone(),
            requests: self.requests.clone(),
            descent: self.descent.clone(),
            rules_by_caller: self.rules_by_caller.clone(),
            refusals: self.refusals,
            issued: self.issued,
            snapshot: self.snapshot,
            snapshot_before: self.snapshot_before,
            bytes: self.bytes,
            removed: self.removed.clone(),
            logins: self.logins.clone(),
            logins_by_caller: self.logins_by_caller.clone(),
            ends: self.ends.clone(),
            grounds: self.grounds.frozen(),
            lease_terms: self.lease_terms.clone(),
            secrets: self.secrets.clone(),
        }
    }

    /// Folds the next commit of the store: checks its place in its writer's chain and its time, then judges and applies each group.
    pub fn fold(&mut self, at: Position, commit: &Commit) -> Result<FoldedCommit, BadCommit> {
        let writer = commit.header.writer;
        let chain = self.writers.get(&writer).copied().unwrap_or(WriterHead::START);
        let head = commit.continues(chain)?;
        let written = Millis(commit.header.time);
        let time = match written < self.time {
            true if self.begins_time(&commit.records, written) => written,
            true if written < chain.time => return Err(BadCommit::TimeBack { from: chain.time, to: written }),
            // A commit of another writer with a later time came first in the order. Time stands still for this commit.
            _ => written.max(self.time),
        };
        self.appended(writer, head, commit.size);
        self.begin_commit(at, time);
        let mut verdicts = Vec::with_capacity(commit.records.len());
        let mut first = None;
        for group in groups(&commit.records) {
            let verdict = self.verdict(group, time);
            for record in group {
                let seq = if verdict.is_ok() { self.take_seq(record) } else { self.next_seq() };
                first.get_or_insert(seq);
                if verdict.is_ok() {
                    self.apply(record);
                }
                verdicts.push(verdict.clone());
            }
        }
        self.end_commit();
        Ok(FoldedCommit { verdicts, first: first.unwrap_or(self.head) })
    }

    /// A commit was packed: sets its writer's chain head, and counts the commit's size.
    pub fn appended(&mut self, writer: u32, head: WriterHead, bytes: usize) {
        self.writers.insert(writer, head);
        self.bytes += bytes as u64;
    }

    /// Begins a commit: sets the position and the time.
    pub fn begin_commit(&mut self, at: Position, time: Millis) {
        self.position = at;
        self.time = time;
    }

    /// Ends a commit: forgets entries that expired, within a bound.
    pub fn end_commit(&mut self) {
        let (now, most) = (self.time, limits::EXPIRE_PER_COMMIT);
        self.credentials.expire(now, most, &mut self.tasks);
        let few = limits::EXPIRE_ALONE_PER_COMMIT;
        self.tasks.expire(now, self.tasks.checks().share(now, few, most));
        self.rules.expire(now, self.rules.ends().share(now, few, most));
        self.expire_small(self.ends.share(now, few, most));
    }

    /// Assigns the next seq to a record that was found valid.
    pub fn take_seq(&mut self, judged: &impl FoldInput) -> Seq {
        self.head = seq_after(self.head, judged.record());
        self.head
    }

    /// The next seq. A void record has a seq too but begins no generation: if a void record could jump to a new generation, seqs would be
    /// assigned twice.
    fn next_seq(&mut self) -> Seq {
        self.head = self.head.next().unwrap_or(self.head);
        self.head
    }

    /// Only the first record of a generation may set an earlier time, and only if it takes effect.
    fn begins_time(&self, records: &[Record], time: Millis) -> bool {
        let resets = matches!(records.first().and_then(|r| r.event.as_ref()), Some(Event::GenerationBegun(g)) if g.reset_time);
        resets && groups(records).next().is_some_and(|first| self.verdict(first, time).is_ok())
    }

    /// SHA-256 over the whole state: equal on every replica that folded the same log.
    pub fn digest(&self) -> Result<[u8; 32], postcard::Error> {
        Ok(super::commit::sha256(&postcard::to_stdvec(self)?))
    }

    /// Whether a request with this key is remembered, whatever its result.
    pub fn knows_request(&self, key: &RequestKey) -> bool {
        self.credentials.asked(key).is_some() || self.requests.contains_key(key)
    }

    /// The snapshots whose digest is in the log and whose files are kept, newest first.
    pub fn vouched(&self) -> impl Iterator<Item = &SnapshotRef> {
        self.snapshot.iter().chain(&self.snapshot_before)
    }

    /// The documents of a table, by name.
    pub fn documents(&self, table: DocumentTable) -> &BTreeMap<Box<str>, Arc<DocumentVersion>> {
        match table {
            DocumentTable::Policies => &self.policies,
            DocumentTable::ShadowPolicies => &self.audit_policies,
            DocumentTable::Upstreams => &self.upstreams,
            DocumentTable::Bindings => &self.bindings,
        }
    }

    fn documents_mut(&mut self, table: DocumentTable) -> &mut BTreeMap<Box<str>, Arc<DocumentVersion>> {
        match table {
            DocumentTable::Policies => &mut self.policies,
            DocumentTable::ShadowPolicies => &mut self.audit_policies,
            DocumentTable::Upstreams => &mut self.upstreams,
            DocumentTable::Bindings => &mut self.bindings,
        }
    }

    /// Versions that may be narrower than the one before, for which no record says yet that everything they would refuse is revoked.
    pub fn narrowing(&self) -> Vec<(NarrowedKind, Box<str>, Arc<DocumentVersion>)> {
        let open = |(kind, table): (NarrowedKind, DocumentTable)| {
            let open = self.documents(table).iter().filter(|(_, v)| v.narrows.is_some());
            open.map(move |(name, v)| (kind, name.clone(), v.clone()))
        };
        DocumentTable::NARROWABLE.into_iter().flat_map(open).collect()
    }

    /// The active key for a purpose in an environment.
    pub fn active_key(&self, purpose: KeyPurpose, environment: &str) -> Option<(&str, &ManagedKey)> {
        let mut of = self.keys.iter().filter(|(_, k)| k.purpose == purpose && *k.environment == *environment);
        of.find(|(_, k)| k.state == KeyState::Active).map(|(id, k)| (&**id, k))
    }
}

fn hash_of(bytes: &[u8]) -> [u8; 32] {
    bytes.try_into().unwrap_or_default()
}

/// The seq of a valid record that follows `seq`. The first record of a generation has that generation's first seq.
pub(crate) fn seq_after(seq: Seq, record: &Record) -> Seq {
    let from = match &record.event {
        Some(Event::GenerationBegun(g)) => Seq::start_of(u8::try_from(g.generation).unwrap_or(u8::MAX)),
        _ => seq,
    };
    from.next().unwrap_or(from)
}

/// The groups of a commit's records, in order: consecutive records with the same number above 0 form a group.
pub fn groups(records: &[Record]) -> impl Iterator<Item = &[Record]> {
    records.chunk_by(|a, b| a.group > 0 && a.group == b.group)
}

/// The key of a record's request.
pub(crate) fn key_of(record: &Record) -> Option<RequestKey> {
    record.request.as_ref().map(|r| request_key(record.requester().unwrap_or_default(), &r.id))
}

/// The key of a caller's request. The inputs are length-prefixed, so that no two pairs have the same input bytes.
pub fn request_key(caller: &str, id: &str) -> RequestKey {
    let mut bytes = Vec::with_capacity(8 + caller.len() + id.len());
    bytes.extend_from_slice(&(caller.len() as u64).to_be_bytes());
    bytes.extend_from_slice(caller.as_bytes());
    bytes.extend_from_slice(id.as_bytes());
    let mut key = [0; 16];
    key.copy_from_slice(&super::commit::sha256(&bytes)[..16]);
    key
}

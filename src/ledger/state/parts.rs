//! The smaller parts of the state, besides tasks, credentials and rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::commit::WriterHead;
use crate::reader::log_reader::LogCursor;
use crate::record::{
    ApprovalRequested, Author, DocumentFields, HistoryRemoved, KeyPurpose, KeyState, SnapshotTaken, WriterHeadRecord,
};
use crate::upstream::registry::Upstream;
use mayfly_store::Position;
use mayfly_verify::seq::{CredentialId, Millis, Seq, TaskId};

/// One version of a policy set, registration or binding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentVersion {
    /// The version number; 1 is the first.
    pub version: u64,
    /// SHA-256 of the text.
    pub digest: [u8; 32],
    /// The canonical form.
    pub text: Box<str>,
    /// The version is in effect: not disabled, retired or pending.
    pub active: bool,
    /// The object is retired and will never be in effect again.
    pub retired: bool,
    /// The seq of the version's record.
    pub seq: Seq,
    /// The time of that record.
    pub at: Millis,
    /// The author of that record.
    pub by: Option<Box<Author>>,
    /// For a registration: the fields that the fold compares.
    pub claims: Option<RegistrationFields>,
    /// The owner has left: nothing is issued until another owner takes over.
    pub owner_left: bool,
    /// The coming expiry was recorded already.
    pub due_told: bool,
    /// Credentials issued after this seq that this version would refuse are still to be searched for and revoked.
    pub narrows: Option<Seq>,
}

impl DocumentVersion {
    /// The version that a record puts in effect, or would put in effect with `Seq::ZERO`.
    pub fn of(document: &DocumentFields<'_>, (seq, at): (Seq, Millis), by: Option<Box<Author>>) -> DocumentVersion {
        DocumentVersion {
            version: document.version,
            digest: super::hash_of(document.digest),
            text: document.text.into(),
            active: document.active,
            retired: document.retired,
            seq,
            at,
            by,
            claims: None,
            owner_left: false,
            due_told: false,
            narrows: None,
        }
    }

    /// Whether grants may be made with this version.
    pub fn in_force(&self) -> bool {
        self.active && !self.owner_left
    }
}

/// The fields of a registration that the fold compares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationFields {
    /// The environment, which is the same in all versions.
    pub environment: Box<str>,
    /// The audience, which no other upstream may have.
    pub audience: Box<str>,
    /// The target, which no other upstream may have.
    pub target: Box<str>,
    /// The owner.
    pub owner: Box<str>,
}

impl RegistrationFields {
    /// The fields of a registration's text. `None` if this version of mayfly cannot read the text; nothing is issued for the upstream then.
    pub(super) fn of(text: &str) -> Option<RegistrationFields> {
        let upstream = Upstream::from_text(text).ok()?;
        Some(RegistrationFields {
            environment: upstream.environment.into(),
            audience: upstream.audience.into(),
            target: upstream.target.into(),
            owner: upstream.owner.into(),
        })
    }
}

/// A trust domain's bundle, as far as the fold needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleState {
    /// `spiffe_sequence`: never decreases and, once present, must stay present.
    pub sequence: Option<u64>,
    /// SHA-256 of each anchor's certificate.
    pub anchors: Vec<[u8; 32]>,
    /// SHA-256 of the document.
    pub digest: [u8; 32],
    /// The document, if no file or endpoint can provide it again.
    pub document: Arc<[u8]>,
    /// The source of the bundle.
    pub source: Box<str>,
    /// The trust domain is no longer trusted. The entry is kept for its sequence.
    pub removed: bool,
    /// Roots that an operator removed: no source can bring them back.
    pub kept_out: Vec<[u8; 32]>,
    /// Roots that an operator added: no source can remove them.
    pub kept_in: Vec<[u8; 32]>,
    /// The seq of the newest record about the bundle.
    pub seq: Seq,
    /// The time of that record.
    pub changed_at: Millis,
}

/// A key of mayfly. Its private part is sealed in the store's named values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagedKey {
    /// The key's purpose.
    pub purpose: KeyPurpose,
    /// The JOSE name of the algorithm.
    pub algorithm: Box<str>,
    /// The public key.
    pub public: Box<[u8]>,
    /// The environment that the key serves; for keys of one upstream its path, as of
    /// [`upstream_path`](crate::record::upstream_path).
    pub environment: Box<str>,
    /// The key's state.
    pub state: KeyState,
    /// The time of the record that put the key in this state.
    pub since: Millis,
    /// How long the key is published before it is used, milliseconds; 0 for the default of the purpose.
    pub publish_ahead: u64,
    /// When the key was added.
    pub created_at: Millis,
    /// When the key's use began; 0 if it was never used.
    pub active_from: Millis,
    /// The seq of the record that put the key in this state.
    pub seq: Seq,
}

/// An open lease: something exists at the upstream, or may exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The credential that the lease is for.
    pub credential: CredentialId,
    /// The task.
    pub task: TaskId,
    /// The upstream.
    pub upstream: Box<str>,
    /// The credential kind, by its persisted number.
    pub kind: u32,
    /// Data needed to undo the lease.
    pub handle: Box<str>,
    /// When the created object ends by itself; 0 if it never does.
    pub ends_at: Millis,
    /// When the lease was opened.
    pub opened_at: Millis,
    /// The credential was issued to the caller. If false, the lease must be undone.
    pub issued: bool,
}

/// An approval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Approval {
    /// The approval request.
    pub asked: Arc<ApprovalRequested>,
    /// When the approval was asked for.
    pub asked_at: Millis,
    /// The seq of the newest record about the approval.
    pub seq: Seq,
    /// The decision; `None` while the approval waits.
    pub decided: Option<ApprovalResult>,
    /// Whether the approval was used up.
    pub used: bool,
    /// Whether it is already recorded that nobody decided in time.
    pub due_told: bool,
}

/// The decision about an approval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApprovalResult {
    /// True: given; false: refused.
    pub given: bool,
    /// The author of the decision.
    pub by: Option<Box<Author>>,
    /// The reason.
    pub reason: Box<str>,
    /// The time of the decision.
    pub at: Millis,
    /// The decision revision: giving an approval is a grant too.
    pub revision: Seq,
}

impl Approval {
    /// When the approval expires.
    pub fn expires_at(&self) -> Millis {
        Millis(self.asked.expires_at)
    }

    /// The decision revision of the approval, if it was given and may still be used at that time.
    pub fn usable(&self, time: Millis) -> Option<Seq> {
        let given = self.decided.as_ref().filter(|d| d.given)?;
        (!self.used && self.expires_at() > time).then_some(given.revision)
    }
}

/// A remembered request whose result is not a credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedRequest {
    /// The sender.
    pub caller: Box<str>,
    /// The first 16 bytes of the digest over all fields of the request.
    pub digest: [u8; 16],
    /// The seq of the request's first record.
    pub seq: Seq,
    /// The position of its commit.
    pub at: Position,
    /// The task that the request opened, zeros for none.
    pub task: [u8; 16],
    /// The request is forgotten after this.
    pub until: Millis,
}

/// A snapshot whose digest is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRef {
    /// The last seq in the snapshot.
    pub seq: Seq,
    /// The position of the last commit in the snapshot.
    pub position: Position,
    /// SHA-256 of the file.
    pub digest: [u8; 32],
}

impl SnapshotRef {
    pub(super) fn of(e: &SnapshotTaken) -> Option<SnapshotRef> {
        Some(SnapshotRef { seq: Seq::from_u64(e.seq)?, position: e.position, digest: super::hash_of(&e.digest) })
    }

    /// The record that announces the snapshot.
    pub fn to_record(&self) -> SnapshotTaken {
        SnapshotTaken { seq: self.seq.as_u64(), position: self.position, digest: self.digest.to_vec() }
    }
}

/// The part of the log's beginning that is removed or may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedHistory {
    /// The position of the oldest commit that stays; 0 as long as none was removed.
    pub before: Position,
    /// The seq of the last record before that position.
    pub seq: Seq,
    /// Bytes of all commits before that position.
    pub bytes: u64,
    /// The time of the newest commit before that position.
    pub time: Millis,
    /// Each writer's chain head before that position.
    pub chains: BTreeMap<u32, WriterHead>,
}

impl RemovedHistory {
    /// The place of the oldest commit that stays.
    pub fn oldest(&self) -> LogCursor {
        LogCursor { position: self.before.max(1), seq: self.seq }
    }

    pub(super) fn of(e: &HistoryRemoved) -> RemovedHistory {
        let time = Millis(e.time);
        let head = |c: &WriterHeadRecord| (c.writer, WriterHead { number: c.number, hash: super::hash_of(&c.header), time });
        let seq = Seq::from_u64(e.seq).unwrap_or(Seq::ZERO);
        RemovedHistory { before: e.before, seq, bytes: e.bytes, time, chains: e.chains.iter().map(head).collect() }
    }

    /// The record that announces the removal.
    pub fn to_record(&self) -> HistoryRemoved {
        let end = |(w, c): (&u32, &WriterHead)| WriterHeadRecord { writer: *w, number: c.number, header: c.hash.to_vec() };
        let chains = self.chains.iter().map(end).collect();
        HistoryRemoved { before: self.before, seq: self.seq.as_u64(), bytes: self.bytes, time: self.time.0, chains }
    }
}

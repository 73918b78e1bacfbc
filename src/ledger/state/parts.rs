//! What the state holds beside tasks, credentials and rules: small things, each as the fold knows it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ledger::commit::ChainHead;
use crate::ledger::forward::Place;
use crate::ledger::record::{ApprovalAsked, ChainEnd, HistoryRemoved, KeyPurpose, KeyState, SnapshotTaken, Who};
use crate::seq::{CredentialId, Millis, Seq, TaskId};
use crate::store::Position;
use crate::upstream::registry::Upstream;

/// One version of a policy set, registration or binding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Its number; 1 is the first.
    pub version: u64,
    /// SHA-256 of the text.
    pub digest: [u8; 32],
    /// Its canonical form.
    pub text: Box<str>,
    /// It is in force: not disabled, retired or pending.
    pub active: bool,
    /// It will never be in force again.
    pub retired: bool,
    /// The seq of its record.
    pub seq: Seq,
    /// The time of its record.
    pub at: Millis,
    /// The author of its record.
    pub by: Option<Box<Who>>,
    /// What a registration has for itself.
    pub claims: Option<Claims>,
    /// Its owner has left: nothing is issued until somebody takes over.
    pub owner_left: bool,
    /// It was told that it ends soon.
    pub due_told: bool,
    /// What was issued after this seq, and it would refuse, has yet to be looked for and revoked.
    pub narrows: Option<Seq>,
}

impl Version {
    /// Something may be granted by it.
    pub fn in_force(&self) -> bool {
        self.active && !self.owner_left
    }
}

/// What of a registration the order itself looks at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Its environment: no version has another.
    pub environment: Box<str>,
    /// Its audience: no other upstream's.
    pub audience: Box<str>,
    /// Its target: no other upstream's.
    pub target: Box<str>,
    /// Who answers for it.
    pub owner: Box<str>,
}

impl Claims {
    /// Those of a registration's text. `None` where this version cannot read it; then nothing is issued for it, either.
    pub(super) fn of(text: &str) -> Option<Claims> {
        let upstream = Upstream::from_text(text).ok()?;
        Some(Claims {
            environment: upstream.environment.into(),
            audience: upstream.audience.into(),
            target: upstream.target.into(),
            owner: upstream.owner.into(),
        })
    }
}

/// A trust domain's bundle, as far as the order needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleState {
    /// `spiffe_sequence`: never goes down and, once seen, never goes missing.
    pub sequence: Option<u64>,
    /// SHA-256 of each anchor's certificate.
    pub anchors: Vec<[u8; 32]>,
    /// SHA-256 of the document.
    pub digest: [u8; 32],
    /// The document, where no file or endpoint gives it again.
    pub document: Arc<[u8]>,
    /// Where it came from.
    pub source: Box<str>,
    /// No longer trusted. Kept, so that its sequence stays known.
    pub removed: bool,
    /// Roots that an operator removed: no source brings them back.
    pub kept_out: Vec<[u8; 32]>,
    /// Roots that an operator added: no source takes them out.
    pub kept_in: Vec<[u8; 32]>,
    /// The seq of its newest record.
    pub seq: Seq,
    /// The time of that record.
    pub changed_at: Millis,
}

/// A key of ours. Its private part lies sealed in the store's named values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// What it is for.
    pub purpose: KeyPurpose,
    /// Its algorithm by its JOSE name.
    pub algorithm: Box<str>,
    /// Its public part.
    pub public: Box<[u8]>,
    /// The environment that it serves.
    pub environment: Box<str>,
    /// Its state.
    pub state: KeyState,
    /// The time of the record that put it in this state.
    pub since: Millis,
    /// How long it is published before it is used, milliseconds; 0 for what its purpose has.
    pub publish_ahead: u64,
    /// When it was added.
    pub created_at: Millis,
    /// When it began to be used; 0 where it never was.
    pub active_from: Millis,
    /// The seq of the record that put it in this state.
    pub seq: Seq,
}

/// A lease: something stands upstream, or may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The credential that it is for.
    pub credential: CredentialId,
    /// The task.
    pub task: TaskId,
    /// The upstream.
    pub upstream: Box<str>,
    /// The credential kind, by its persisted number.
    pub kind: u32,
    /// What undoing needs.
    pub handle: Box<str>,
    /// When what was made ends by itself; 0 where it never does.
    pub ends_at: Millis,
    /// When it was opened.
    pub opened_at: Millis,
    /// The credential was issued: it is somebody's. Without this it has to be undone.
    pub issued: bool,
}

/// An approval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Approval {
    /// What it binds, as it was asked for.
    pub asked: Arc<ApprovalAsked>,
    /// When.
    pub asked_at: Millis,
    /// The seq of the newest record about it.
    pub seq: Seq,
    /// What was decided; `None` while it waits.
    pub decided: Option<Decided>,
    /// Used up.
    pub used: bool,
    /// It was told that nobody decided in time.
    pub due_told: bool,
}

/// What somebody decided about an approval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decided {
    /// Given, or refused.
    pub given: bool,
    /// Who.
    pub by: Option<Box<Who>>,
    /// Why.
    pub reason: Box<str>,
    /// When.
    pub at: Millis,
    /// The decision revision: giving is a grant too.
    pub revision: Seq,
}

impl Approval {
    /// The end of its use.
    pub fn expires_at(&self) -> Millis {
        Millis(self.asked.expires_at)
    }

    /// The decision revision of the giving, where it was given, and may still be used at that time.
    pub fn usable(&self, time: Millis) -> Option<Seq> {
        let given = self.decided.as_ref().filter(|d| d.given)?;
        (!self.used && self.expires_at() > time).then_some(given.revision)
    }
}

/// What a request id stands for, where that is not a credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Who sent it.
    pub caller: Box<str>,
    /// The first 16 bytes of the digest over everything asked.
    pub digest: [u8; 16],
    /// The seq of its first record.
    pub seq: Seq,
    /// The place of its commit.
    pub at: Position,
    /// The task that it opened, zeros for none.
    pub task: [u8; 16],
    /// Forgotten after this.
    pub until: Millis,
}

/// A snapshot that the log vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The last seq in it.
    pub seq: Seq,
    /// The place of the last commit in it.
    pub position: Position,
    /// SHA-256 of the file.
    pub digest: [u8; 32],
}

impl Taken {
    pub(super) fn of(e: &SnapshotTaken) -> Option<Taken> {
        Some(Taken { seq: Seq::from_u64(e.seq)?, position: e.position, digest: super::hash_of(&e.digest) })
    }

    /// The record that says it.
    pub fn to_record(&self) -> SnapshotTaken {
        SnapshotTaken { seq: self.seq.as_u64(), position: self.position, digest: self.digest.to_vec() }
    }
}

/// The beginning of the log that need not be there any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The place of the oldest commit that stays; 0 as long as all do.
    pub before: Position,
    /// The seq of the last record before it.
    pub seq: Seq,
    /// Bytes of all commits before it.
    pub bytes: u64,
    /// The time of the newest of them.
    pub time: Millis,
    /// Where each writer's chain stands before it.
    pub chains: BTreeMap<u32, ChainHead>,
}

impl Removed {
    /// The oldest place that stays, and what is before it.
    pub fn oldest(&self) -> Place {
        Place { position: self.before.max(1), seq: self.seq }
    }

    pub(super) fn of(e: &HistoryRemoved) -> Removed {
        let time = Millis(e.time);
        let head = |c: &ChainEnd| (c.writer, ChainHead { number: c.number, hash: super::hash_of(&c.header), time });
        let seq = Seq::from_u64(e.seq).unwrap_or(Seq::ZERO);
        Removed { before: e.before, seq, bytes: e.bytes, time, chains: e.chains.iter().map(head).collect() }
    }

    /// The record that says it.
    pub fn to_record(&self) -> HistoryRemoved {
        let end = |(w, c): (&u32, &ChainHead)| ChainEnd { writer: *w, number: c.number, header: c.hash.to_vec() };
        let chains = self.chains.iter().map(end).collect();
        HistoryRemoved { before: self.before, seq: self.seq.as_u64(), bytes: self.bytes, time: self.time.0, chains }
    }
}

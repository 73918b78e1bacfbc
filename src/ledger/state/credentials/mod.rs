//! Live credentials: a slab of small entries whose names are shared.
//!
//! An entry stays until its credential has expired. An expired credential is refused by its time, not by its absence. The request that it
//! answered is remembered longer, in less memory (`expired_requests`).

mod entry;
mod expired_requests;
mod expiry;
mod expiry_pages;
mod facts;
mod page;
mod shared_values;

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use entry::{CredentialEntry, LiveCredential, id_for, is_for};
pub(super) use facts::facts_of;
pub use facts::{add_lineage, facts_of_record, svid_facts, trust_domain_of};
pub use shared_values::Lineage;

use super::Issuance;
use super::intern::Slot;
use crate::persistent::SlotIndex;
use entry::{EntryFields, id_prefix};
use expired_requests::ExpiredRequest;
use expiry_pages::{ExpiryPage as _, ExpiryPages};
use mayfly_base::limits;
use mayfly_store::Position;
use mayfly_verify::seq::{CredentialId, Millis, Seq};
use page::CredentialPage;
use shared_values::{CredentialProfile, SharedValues};

/// The key of a caller's request: the first 16 bytes of SHA-256 over caller and request id.
pub type RequestKey = [u8; 16];

/// All credentials in memory.
#[derive(Default)]
pub struct Credentials {
    slab: ExpiryPages<CredentialPage>,
    /// By the first bytes of the id.
    by_stem: SlotIndex,
    hasher: DefaultHashBuilder,
    names: SharedValues,
    ended: ExpiryPages<Vec<ExpiredRequest>>,
}

/// Marks the slot of an expired credential's request.
const ENDED: Slot = 1 << 31;

// No slot of a live entry reaches this bit, even if every entry were on a page of its own.
const _: () = assert!(limits::CREDENTIALS * CredentialPage::MOST < ENDED as usize);
// The slots of requests fit as well: each second has at most one page that is not full.
const _: () = assert!(limits::REQUEST_IDS + entry::KEPT_AT_MOST_S * Vec::<ExpiredRequest>::MOST < ENDED as usize);

/// The result of a request.
#[derive(Clone, Copy)]
pub enum AnsweredRequest<'a> {
    /// A credential in memory.
    Live(LiveCredential<'a>),
    /// A credential that has expired, with the position of its commit.
    Ended(CredentialId, Position),
}

impl AnsweredRequest<'_> {
    /// The credential's id.
    pub fn id(&self) -> CredentialId {
        match self {
            AnsweredRequest::Live(live) => live.id(),
            AnsweredRequest::Ended(id, _) => *id,
        }
    }
}

impl Serialize for Credentials {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        (&self.slab, &self.names, &self.ended).serialize(s)
    }
}

impl<'de> Deserialize<'de> for Credentials {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let (slab, names, ended) = Deserialize::deserialize(d)?;
        let mut out = Credentials { slab, names, ended, ..Credentials::default() };
        out.index_all();
        Ok(out)
    }
}

impl Credentials {
    /// A copy for writing a snapshot: it finds nothing by id or request.
    pub(super) fn frozen(&self) -> Credentials {
        Credentials { slab: self.slab.clone(), names: self.names.frozen(), ended: self.ended.clone(), ..Credentials::default() }
    }

    /// Rebuilds the lookup table.
    fn index_all(&mut self) {
        let live = self.slab.iter().map(|(slot, entry)| (slot, entry.id()));
        let ended = self.ended.iter().map(|(slot, past)| (slot | ENDED, past.id()));
        let mut by_stem = SlotIndex::default();
        live.chain(ended).for_each(|(slot, id)| by_stem.insert(self.hash_of(id.as_bytes()), slot));
        self.by_stem = by_stem;
    }

    /// The lookup hash of an id or a request's key.
    fn hash_of(&self, like: &[u8; 16]) -> u64 {
        self.hasher.hash_one(id_prefix(like))
    }

    /// The credential with this id, if it is in memory.
    pub fn get(&self, id: &CredentialId) -> Option<LiveCredential<'_>> {
        self.at(self.slot_of(id)?)
    }

    fn slot_of(&self, id: &CredentialId) -> Option<Slot> {
        let fits = |slot| self.slab.get(slot).is_some_and(|(_, entry)| entry.id() == *id);
        // The slab has no slot of an expired credential, so those are not found.
        self.by_stem.find(self.hash_of(id.as_bytes()), fits)
    }

    /// The credential that answered this request, if it is in memory.
    pub fn of_request(&self, key: &RequestKey) -> Option<LiveCredential<'_>> {
        match self.asked(key)? {
            AnsweredRequest::Live(live) => Some(live),
            AnsweredRequest::Ended(..) => None,
        }
    }

    /// The result of this request, if it is remembered.
    pub fn asked(&self, key: &RequestKey) -> Option<AnsweredRequest<'_>> {
        let fits = |slot| match slot & ENDED {
            0 => self.slab.get(slot).is_some_and(|(_, entry)| entry.answers() && is_for(&entry.id(), key)),
            _ => self.ended.get(slot & !ENDED).is_some_and(|(_, past)| is_for(&past.id(), key)),
        };
        let slot = self.by_stem.find(self.hash_of(key), fits)?;
        match slot & ENDED {
            0 => self.at(slot).map(AnsweredRequest::Live),
            _ => self.ended.get(slot & !ENDED).map(|(_, past)| AnsweredRequest::Ended(past.id(), past.at())),
        }
    }

    /// Prefetches the lookups and insertions that are about to follow for these requests.
    pub fn warm(&self, requests: impl Iterator<Item = RequestKey>) {
        let read = |all, key: RequestKey| all ^ self.by_stem.warm(self.hash_of(&key));
        std::hint::black_box(requests.fold(0, read));
    }

    /// Prefetches lookups by id.
    fn warm_for(&self, ids: impl Iterator<Item = CredentialId>) {
        self.warm(ids.map(|id| *id.as_bytes()));
    }

    /// The credential at a slot.
    pub fn at(&self, slot: Slot) -> Option<LiveCredential<'_>> {
        let (page, entry) = self.slab.get(slot)?;
        Some(LiveCredential::new(self, page, entry))
    }

    /// All slots are below this; used to walk them in pieces. Many may be empty.
    pub fn places(&self) -> Slot {
        self.slab.places()
    }

    /// The cost of walking all slots: empty ones cost next to nothing.
    pub fn to_walk(&self) -> usize {
        self.len() + self.places() as usize / CredentialPage::MOST
    }

    /// Number of credentials in memory that have not expired.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Number of expired credentials whose requests are remembered.
    pub fn ended(&self) -> usize {
        self.ended.len()
    }

    /// The expired ones: the requester, the credential's id, and the position of its commit.
    pub fn past(&self) -> impl Iterator<Item = (&str, CredentialId, Position)> {
        let of = |past: &ExpiredRequest| Some((&**self.names.requesters.value(past.requester)?, past.id(), past.at()));
        self.ended.iter().filter_map(move |(_, past)| of(past))
    }

    /// Whether no credential is in memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of credentials in memory that were issued to this caller.
    pub fn live_of(&self, caller: &str) -> u32 {
        self.names.callers.count(caller)
    }

    /// Number of an upstream's credentials in memory; if there is none, until when there were some.
    pub fn of_upstream(&self, upstream: &str) -> (u64, Option<Millis>) {
        let of = self.names.profiles.counted().filter(|(p, _)| *p.upstream == *upstream);
        (of.map(|(_, count)| u64::from(count)).sum(), self.names.used.get(upstream).copied())
    }

    /// The same numbers for all upstreams that ever had a credential.
    pub fn by_upstream(&self) -> BTreeMap<&str, (u64, Option<Millis>)> {
        let mut all: BTreeMap<&str, (u64, Option<Millis>)> = BTreeMap::new();
        for (profile, count) in self.names.profiles.counted() {
            all.entry(&profile.upstream).or_default().0 += u64::from(count);
        }
        for (upstream, at) in &self.names.used {
            all.entry(upstream).or_default().1 = Some(*at);
        }
        all
    }

    /// Number of callers with credentials in memory.
    pub fn callers(&self) -> usize {
        self.names.callers.len()
    }

    /// Number of remembered request ids of all callers.
    pub fn all_remembered(&self) -> u64 {
        self.names.requesters.held()
    }

    /// Number of remembered request ids of this caller.
    pub fn remembered(&self, caller: &str) -> u32 {
        self.names.requesters.count(caller)
    }

    /// Counts a request id of this caller, whatever its result.
    pub(super) fn remember(&mut self, caller: &str) {
        self.names.requesters.acquire(caller);
    }

    /// A request id of this caller is forgotten.
    pub(super) fn forget_request(&mut self, caller: &str) {
        self.names.requesters.release_value(caller);
    }

    pub(super) fn add(
        &mut self,
        issuance: Issuance<'_>,
        id: CredentialId,
        answers: bool,
        place: (Position, Seq, Seq),
        task: Slot,
    ) {
        let issued = issuance.shared;
        let expires_at = Millis(issued.expires_at);
        let kept_until = if answers {
            self.names.requesters.acquire(issued.caller.as_str());
            expires_at.max(Millis(issued.issued_at).plus(limits::REQUEST_ID_KEPT_MS))
        } else {
            expires_at
        };
        let profile = self.names.acquire(issuance);
        let (at, seq, revision) = place;
        let entry = CredentialEntry::new(&EntryFields { id, answers, at, seq, revision, expires_at, kept_until, task, profile });
        let slot = self.slab.add(expires_at, |page| page.push(entry, issuance.tool));
        self.by_stem.insert(self.hash_of(id.as_bytes()), slot);
    }

    /// A copy with its own lookup tables.
    pub(super) fn copy(&self) -> Credentials {
        let mut copy = self.frozen();
        copy.names.index();
        copy.index_all();
        copy
    }

    /// Marks a credential as given back; returns its expiry.
    pub(super) fn release(&mut self, id: &CredentialId) -> Option<Millis> {
        let slot = self.slot_of(id)?;
        let entry = self.slab.get_mut(slot)?;
        entry.release();
        Some(entry.expires_at())
    }

    /// Detaches the request from a credential, because another credential answers it from now on.
    pub(super) fn unbind(&mut self, id: &CredentialId) {
        let Some(slot) = self.slot_of(id) else { return };
        let answered = self.slab.get_mut(slot).and_then(|entry| entry.unbind().then(|| entry.profile()));
        if answered.is_some() {
            self.names.forget_request(answered);
        }
    }
}

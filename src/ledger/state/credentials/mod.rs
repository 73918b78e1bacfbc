//! Live credentials: a slab of small entries whose names are shared.
//!
//! An entry stays until its credential has ended and its request id may be forgotten. What has ended is refused by its time, not by
//! its absence.

mod entry;
mod expiry;
mod facts;
mod names;
mod slab;

use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use entry::{Entry, Live, id_for, is_for};
pub(super) use facts::facts_of;
pub use facts::{add_lineage, facts_of_record, svid_facts, trust_domain_of};
pub use names::Lineage;

use super::Issuance;
use super::intern::Slot;
use crate::limits;
use crate::persistent::{Calendar, Places};
use crate::seq::{CredentialId, Millis, Seq};
use crate::store::Position;
use entry::{Made, stem};
use names::{NameTables, Profile};
use slab::Slab;

/// Names a request of a caller: the first 16 bytes of SHA-256 over both.
pub type RequestKey = [u8; 16];

/// All credentials in memory.
#[derive(Default)]
pub struct Credentials {
    slab: Slab,
    free: Vec<Slot>,
    /// By what an id begins with.
    by_stem: Places,
    hasher: DefaultHashBuilder,
    names: NameTables,
    /// When to look at the entries of a page.
    checks: Calendar<Slot>,
    live: usize,
}

impl Serialize for Credentials {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        (&self.slab, &self.free, &self.names, &self.checks, self.live).serialize(s)
    }
}

impl<'de> Deserialize<'de> for Credentials {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let (slab, free, names, checks, live) = Deserialize::deserialize(d)?;
        let mut out = Credentials { slab, free, names, checks, live, ..Credentials::default() };
        out.index_all();
        Ok(out)
    }
}

impl Credentials {
    /// A copy that is only to be written: it finds nothing by its id or request.
    pub(super) fn frozen(&self) -> Credentials {
        Credentials {
            slab: self.slab.clone(),
            free: self.free.clone(),
            names: self.names.frozen(),
            checks: self.checks.clone(),
            live: self.live,
            ..Credentials::default()
        }
    }

    /// Finds everything again.
    fn index_all(&mut self) {
        for slot in 0..self.places() {
            self.index(slot);
        }
    }

    /// The credential of that id, if it is in memory.
    pub fn get(&self, id: &CredentialId) -> Option<Live<'_>> {
        self.at(self.slot_of(id)?)
    }

    fn slot_of(&self, id: &CredentialId) -> Option<Slot> {
        self.find(id.as_bytes(), |entry| entry.id() == *id)
    }

    /// The place of an id, or of a request's name, that begins like this.
    fn find(&self, like: &[u8; 16], fits: impl Fn(&Entry) -> bool) -> Option<Slot> {
        self.by_stem.find(self.hasher.hash_one(stem(like)), |slot| self.slab.get(slot).is_some_and(|(_, entry)| fits(entry)))
    }

    /// The credential that answered this request, if it is in memory.
    pub fn of_request(&self, key: &RequestKey) -> Option<Live<'_>> {
        self.at(self.find(key, |entry| entry.answers() && is_for(&entry.id(), key))?)
    }

    /// Looking for each of these requests, and adding what answers it, is about to follow.
    pub fn warm(&self, requests: impl Iterator<Item = RequestKey>) {
        let read = |all, key: RequestKey| all ^ self.by_stem.warm(self.hasher.hash_one(stem(&key)));
        std::hint::black_box(requests.fold(0, read));
    }

    /// The credential at a place.
    pub fn at(&self, slot: Slot) -> Option<Live<'_>> {
        let (page, entry) = self.slab.get(slot)?;
        Some(Live::new(self, page, entry))
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
        self.names.requesters.held()
    }

    /// How many request ids of this caller are remembered.
    pub fn remembered(&self, caller: &str) -> u32 {
        self.names.requesters.count(caller)
    }

    /// Counts a request id of this caller, whatever it made.
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
        let entry = Entry::new(&Made { id, answers, at, seq, revision, expires_at, kept_until, task, profile });
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => self.slab.push(),
        };
        self.slab.put(slot, entry, issuance.tool);
        self.live += 1;
        self.index(slot);
        self.check_after(slot, expires_at);
    }

    /// A copy that everything is found in.
    pub(super) fn copy(&self) -> Credentials {
        let mut copy = self.frozen();
        copy.names.index();
        copy.index_all();
        copy
    }

    fn index(&mut self, slot: Slot) {
        let Some((_, entry)) = self.slab.get(slot) else { return };
        self.by_stem.insert(self.hasher.hash_one(stem(entry.id().as_bytes())), slot);
    }

    /// Notes that it was given back; answers with its end.
    pub(super) fn release(&mut self, id: &CredentialId) -> Option<Millis> {
        let slot = self.slot_of(id)?;
        let entry = self.slab.get_mut(slot)?;
        entry.release();
        Some(entry.expires_at())
    }

    /// Takes its request away from it: another credential answers that from now on.
    pub(super) fn unbind(&mut self, id: &CredentialId) {
        let Some(slot) = self.slot_of(id) else { return };
        let answered = self.slab.get_mut(slot).and_then(|entry| entry.unbind().then(|| entry.profile()));
        if answered.is_some() {
            self.names.forget_request(answered);
        }
    }
}

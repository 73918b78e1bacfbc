//! Live credentials: a slab of small entries whose names are shared.
//!
//! An entry stays until its credential has ended. What has ended is refused by its time, not by its absence. The request that it answered is
//! remembered longer, in less room (`ended`).

mod ended;
mod entry;
mod expiry;
mod facts;
mod names;
mod page;
mod seconds;

use std::collections::BTreeMap;
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
use crate::persistent::Places;
use crate::seq::{CredentialId, Millis, Seq};
use crate::store::Position;
use ended::Past;
use entry::{Made, stem};
use names::{NameTables, Profile};
use page::Page;
use seconds::{Page as _, Seconds};

/// Names a request of a caller: the first 16 bytes of SHA-256 over both.
pub type RequestKey = [u8; 16];

/// All credentials in memory.
#[derive(Default)]
pub struct Credentials {
    slab: Seconds<Page>,
    /// By what an id begins with.
    by_stem: Places,
    hasher: DefaultHashBuilder,
    names: NameTables,
    ended: Seconds<Vec<Past>>,
}

/// The place of an ended one, among places.
const ENDED: Slot = 1 << 31;

// No entry's place is taken for one, if each were on a page of its own.
const _: () = assert!(limits::CREDENTIALS * Page::MOST < ENDED as usize);
// Nor is there one for which no place is left: each second has one page at the most that is not full.
const _: () = assert!(limits::REQUEST_IDS + entry::KEPT_AT_MOST_S * Vec::<Past>::MOST < ENDED as usize);

/// What a request made.
#[derive(Clone, Copy)]
pub enum Asked<'a> {
    /// A credential that is in memory.
    Live(Live<'a>),
    /// One that has ended, and where its commit is.
    Ended(CredentialId, Position),
}

impl Asked<'_> {
    /// The credential.
    pub fn id(&self) -> CredentialId {
        match self {
            Asked::Live(live) => live.id(),
            Asked::Ended(id, _) => *id,
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
    /// A copy that is only to be written: it finds nothing by its id or request.
    pub(super) fn frozen(&self) -> Credentials {
        Credentials { slab: self.slab.clone(), names: self.names.frozen(), ended: self.ended.clone(), ..Credentials::default() }
    }

    /// Finds everything again.
    fn index_all(&mut self) {
        let live = self.slab.iter().map(|(slot, entry)| (slot, entry.id()));
        let ended = self.ended.iter().map(|(slot, past)| (slot | ENDED, past.id()));
        let mut by_stem = Places::default();
        live.chain(ended).for_each(|(slot, id)| by_stem.insert(self.hash_of(id.as_bytes()), slot));
        self.by_stem = by_stem;
    }

    /// The hash that an id, or a request's name, is found by.
    fn hash_of(&self, like: &[u8; 16]) -> u64 {
        self.hasher.hash_one(stem(like))
    }

    /// The credential of that id, if it is in memory.
    pub fn get(&self, id: &CredentialId) -> Option<Live<'_>> {
        self.at(self.slot_of(id)?)
    }

    fn slot_of(&self, id: &CredentialId) -> Option<Slot> {
        let fits = |slot| self.slab.get(slot).is_some_and(|(_, entry)| entry.id() == *id);
        // Beyond the slab there is nothing: an ended one has no place in it.
        self.by_stem.find(self.hash_of(id.as_bytes()), fits)
    }

    /// The credential that answered this request, if it is in memory.
    pub fn of_request(&self, key: &RequestKey) -> Option<Live<'_>> {
        match self.asked(key)? {
            Asked::Live(live) => Some(live),
            Asked::Ended(..) => None,
        }
    }

    /// What this request made, if that is remembered.
    pub fn asked(&self, key: &RequestKey) -> Option<Asked<'_>> {
        let fits = |slot| match slot & ENDED {
            0 => self.slab.get(slot).is_some_and(|(_, entry)| entry.answers() && is_for(&entry.id(), key)),
            _ => self.ended.get(slot & !ENDED).is_some_and(|(_, past)| is_for(&past.id(), key)),
        };
        let slot = self.by_stem.find(self.hash_of(key), fits)?;
        match slot & ENDED {
            0 => self.at(slot).map(Asked::Live),
            _ => self.ended.get(slot & !ENDED).map(|(_, past)| Asked::Ended(past.id(), past.at())),
        }
    }

    /// Looking for each of these requests, and adding what answers it, is about to follow.
    pub fn warm(&self, requests: impl Iterator<Item = RequestKey>) {
        let read = |all, key: RequestKey| all ^ self.by_stem.warm(self.hash_of(&key));
        std::hint::black_box(requests.fold(0, read));
    }

    /// The same for what is found by its id.
    fn warm_for(&self, ids: impl Iterator<Item = CredentialId>) {
        self.warm(ids.map(|id| *id.as_bytes()));
    }

    /// The credential at a place.
    pub fn at(&self, slot: Slot) -> Option<Live<'_>> {
        let (page, entry) = self.slab.get(slot)?;
        Some(Live::new(self, page, entry))
    }

    /// All places are below this, to go through them in pieces. Many may be empty.
    pub fn places(&self) -> Slot {
        self.slab.places()
    }

    /// What going through all places takes: to look at an empty one takes next to nothing.
    pub fn to_walk(&self) -> usize {
        self.len() + self.places() as usize / Page::MOST
    }

    /// How many are in memory: those that have not ended.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// How many have ended, and their requests are remembered.
    pub fn ended(&self) -> usize {
        self.ended.len()
    }

    /// Those that have ended: who asked, what that made, and where its commit is.
    pub fn past(&self) -> impl Iterator<Item = (&str, CredentialId, Position)> {
        let of = |past: &Past| Some((&**self.names.requesters.value(past.requester)?, past.id(), past.at()));
        self.ended.iter().filter_map(move |(_, past)| of(past))
    }

    /// None are in memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many in memory were issued to this caller.
    pub fn live_of(&self, caller: &str) -> u32 {
        self.names.callers.count(caller)
    }

    /// How many of an upstream are in memory, and until when there were some at the least, where there is none.
    pub fn of_upstream(&self, upstream: &str) -> (u64, Option<Millis>) {
        let of = self.names.profiles.counted().filter(|(p, _)| *p.upstream == *upstream);
        (of.map(|(_, count)| u64::from(count)).sum(), self.names.used.get(upstream).copied())
    }

    /// The same of all upstreams that ever had one.
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
        let slot = self.slab.add(expires_at, |page| page.push(entry, issuance.tool));
        self.by_stem.insert(self.hash_of(id.as_bytes()), slot);
    }

    /// A copy that everything is found in.
    pub(super) fn copy(&self) -> Credentials {
        let mut copy = self.frozen();
        copy.names.index();
        copy.index_all();
        copy
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

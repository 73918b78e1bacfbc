//! Live credentials: a slab of small entries whose names are interned.
//!
//! An entry stays until its credential has ended and its request id may be forgotten. What has ended is refused by its time, not by
//! its absence.

mod expiry;
mod facts;
mod names;

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use serde::{Deserialize, Serialize};

pub(super) use facts::facts_of;
pub use facts::{add_lineage, facts_of_record, svid_facts, trust_domain_of};
pub use names::Lineage;

use super::Issuance;
use super::intern::Slot;
use super::slab::Slab;
use crate::limits;
use crate::seq::{CredentialId, Millis, Seq};
use crate::store::Position;
use names::NameTables;

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
    tool: Slot,
    profile: Slot,
    /// The credential kind, by its persisted number.
    pub kind: u8,
    /// It was given back.
    pub released: bool,
    /// Its end has passed and it is no longer counted as live.
    ended: bool,
}

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
        issuance: Issuance<'_>,
        id: CredentialId,
        request: RequestKey,
        place: (Position, Seq, Seq),
        task: Slot,
    ) {
        let issued = issuance.shared;
        let expires_at = Millis(issued.expires_at);
        let kept_until = if request == [0; 16] {
            expires_at
        } else {
            self.remember(&issued.caller);
            expires_at.max(Millis(issued.issued_at).plus(limits::REQUEST_ID_KEPT_MS))
        };
        let (caller, profile) = self.names.acquire(issuance);
        let live = Live {
            id,
            request,
            at: place.0,
            seq: place.1,
            revision: place.2,
            expires_at,
            kept_until,
            task,
            caller,
            tool: self.names.tools.acquire(issuance.tool),
            profile,
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
}

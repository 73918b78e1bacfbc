//! Values that many entries share, kept once and counted: the count says how many live entries name the value.

use std::hash::{BuildHasher, Hash};

use hashbrown::{DefaultHashBuilder, HashTable};
use serde::{Deserialize, Serialize};

use super::slab::Slab;

/// A place in an [`Interner`]. The same for the same log, on every replica.
pub type Slot = u32;

/// Values with a count each. A value whose count falls to 0 is forgotten and its place used again.
#[derive(Clone, Serialize, Deserialize)]
#[serde(
    from = "Stored<K>",
    into = "Stored<K>",
    bound(serialize = "K: Serialize + Hash + Eq + Clone", deserialize = "K: Deserialize<'de> + Hash + Eq + Clone")
)]
pub struct Interner<K: Hash + Eq + Clone> {
    slots: Slab<Option<(K, u32)>>,
    free: Vec<Slot>,
    index: HashTable<Slot>,
    hasher: DefaultHashBuilder,
    /// Places that were found lately. Most of what is issued names the same few things, and comparing costs a third of hashing.
    recent: [Slot; RECENT],
    /// Which of them is given up next.
    oldest: usize,
}

const RECENT: usize = 4;

#[derive(Serialize, Deserialize)]
#[serde(bound(serialize = "K: Serialize + Clone", deserialize = "K: Deserialize<'de>"))]
struct Stored<K> {
    slots: Slab<Option<(K, u32)>>,
    free: Vec<Slot>,
}

impl<K: Hash + Eq + Clone> From<Stored<K>> for Interner<K> {
    fn from(stored: Stored<K>) -> Self {
        let mut out = Interner { slots: stored.slots, free: stored.free, ..Interner::default() };
        for slot in 0..out.slots.len() {
            if let Some((key, _)) = &out.slots[slot] {
                let (hasher, slots) = (&out.hasher, &out.slots);
                out.index.insert_unique(hasher.hash_one(key), slot as Slot, |s| rehash(hasher, slots, *s));
            }
        }
        out
    }
}

impl<K: Hash + Eq + Clone> From<Interner<K>> for Stored<K> {
    fn from(from: Interner<K>) -> Self {
        Stored { slots: from.slots, free: from.free }
    }
}

impl<K: Hash + Eq + Clone> Default for Interner<K> {
    fn default() -> Self {
        Interner {
            slots: Slab::default(),
            free: Vec::new(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            recent: [0; RECENT],
            oldest: 0,
        }
    }
}

fn rehash<K: Hash>(hasher: &DefaultHashBuilder, slots: &Slab<Option<(K, u32)>>, slot: Slot) -> u64 {
    slots.get(slot as usize).and_then(Option::as_ref).map_or(0, |(k, _)| hasher.hash_one(k))
}

impl<K: Hash + Eq + Clone> Interner<K> {
    /// Counts one more holder of the value.
    pub fn acquire<Q>(&mut self, key: &Q) -> Slot
    where
        Q: Hash + hashbrown::Equivalent<K> + ?Sized,
        K: for<'a> From<&'a Q>,
    {
        for slot in self.recent {
            if (slot as usize) < self.slots.len()
                && let Some((known, count)) = &mut self.slots[slot as usize]
                && key.equivalent(known)
            {
                *count += 1;
                return slot;
            }
        }
        let hash = self.hasher.hash_one(key);
        let slots = &mut self.slots;
        if let Some(slot) = self.index.find(hash, |s| slots[*s as usize].as_ref().is_some_and(|(k, _)| key.equivalent(k))) {
            if let Some(entry) = &mut slots[*slot as usize] {
                entry.1 += 1;
            }
            let slot = *slot;
            self.found(slot);
            return slot;
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                slots.push(None);
                (slots.len() - 1) as Slot
            }
        };
        slots[slot as usize] = Some((K::from(key), 1));
        let (hasher, slots) = (&self.hasher, &self.slots);
        self.index.insert_unique(hash, slot, |s| rehash(hasher, slots, *s));
        self.found(slot);
        slot
    }

    /// Each value once.
    pub fn values(&self) -> impl Iterator<Item = &K> {
        (0..self.slots.len()).filter_map(|slot| self.slots[slot].as_ref().map(|(value, _)| value))
    }

    fn found(&mut self, slot: Slot) {
        self.recent[self.oldest] = slot;
        self.oldest = (self.oldest + 1) % RECENT;
    }

    /// Counts one more holder of the value at a place. False where there is none.
    pub fn again(&mut self, slot: Slot) -> bool {
        if slot as usize >= self.slots.len() {
            return false;
        }
        let Some((_, count)) = &mut self.slots[slot as usize] else { return false };
        *count += 1;
        true
    }

    /// Counts one holder less. Whether the value is forgotten.
    pub fn release(&mut self, slot: Slot) -> bool {
        if slot as usize >= self.slots.len() {
            return false;
        }
        let entry = &mut self.slots[slot as usize];
        let Some((key, count)) = entry else { return false };
        *count -= 1;
        if *count == 0 {
            let hash = self.hasher.hash_one(&*key);
            if let Ok(found) = self.index.find_entry(hash, |s| *s == slot) {
                found.remove();
            }
            *entry = None;
            self.free.push(slot);
            return true;
        }
        false
    }

    /// The value at a place.
    pub fn value(&self, slot: Slot) -> Option<&K> {
        self.slots.get(slot as usize).and_then(Option::as_ref).map(|(k, _)| k)
    }

    /// How many hold the value.
    pub fn count<Q: Hash + hashbrown::Equivalent<K> + ?Sized>(&self, key: &Q) -> u32 {
        let found = self
            .index
            .find(self.hasher.hash_one(key), |s| self.slots[*s as usize].as_ref().is_some_and(|(k, _)| key.equivalent(k)));
        found.and_then(|s| self.slots[*s as usize].as_ref()).map_or(0, |(_, n)| *n)
    }

    /// How many different values there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// There is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_holders_and_forgets_at_none() {
        let mut names: Interner<Box<str>> = Interner::default();
        let a = names.acquire("a");
        assert_eq!(names.acquire("a"), a);
        let b = names.acquire("b");
        assert_eq!((names.count("a"), names.count("b"), names.count("c")), (2, 1, 0));
        names.release(a);
        names.release(a);
        assert_eq!((names.count("a"), names.len()), (0, 1));
        assert_eq!(names.acquire("c"), a, "its place is used again");
        let copy: Interner<Box<str>> = postcard::from_bytes(&postcard::to_stdvec(&names).unwrap()).unwrap();
        assert_eq!((copy.count("b"), copy.count("c"), copy.value(b).map(|v| &**v)), (1, 1, Some("b")));
    }
}

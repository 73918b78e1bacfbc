//! Interned values: each value is stored once with a count of the live entries that name it.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, Equivalent};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use crate::persistent::Slot;
use crate::persistent::{PagedVec, SlotIndex};

/// Values per page: counts change all the time, and after a snapshot each changed page is copied once.
const PAGE: usize = 64;

type Values<K> = PagedVec<Option<(Arc<K>, u32)>, PAGE>;

/// Interned values with their counts. A value whose count falls to 0 is forgotten, and its slot is reused.
pub struct Interner<K> {
    slots: Values<K>,
    free: Vec<Slot>,
    index: SlotIndex,
    hasher: DefaultHashBuilder,
    /// The sum of all counts.
    held: u64,
    /// Slots of recently found values. Most issuances name the same few values, and comparing costs a third of hashing.
    recent: [Slot; RECENT],
    /// The recent slot that is replaced next.
    oldest: usize,
}

const RECENT: usize = 4;

impl<K> Default for Interner<K> {
    fn default() -> Self {
        Interner {
            slots: PagedVec::default(),
            free: Vec::new(),
            index: SlotIndex::default(),
            hasher: DefaultHashBuilder::default(),
            held: 0,
            recent: [0; RECENT],
            oldest: 0,
        }
    }
}

impl<K> Interner<K> {
    /// A copy for writing a snapshot: it finds no value.
    pub fn frozen(&self) -> Interner<K> {
        Interner { slots: self.slots.clone(), free: self.free.clone(), held: self.held, ..Interner::default() }
    }
}

impl<K: Hash> Interner<K> {
    /// Rebuilds the lookup table.
    pub fn index(&mut self) {
        for (slot, value) in self.slots.iter().enumerate() {
            if let Some((key, _)) = value {
                self.index.insert(self.hasher.hash_one(&**key), slot as Slot);
            }
        }
    }
}

impl<K: Serialize> Serialize for Interner<K> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        struct Value<'a, K>(&'a (Arc<K>, u32));

        impl<K: Serialize> Serialize for Value<'_, K> {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                (&*self.0.0, self.0.1).serialize(s)
            }
        }

        let values: Vec<_> = self.slots.iter().map(|value| value.as_ref().map(Value)).collect();
        (values, &self.free).serialize(s)
    }
}

impl<'de, K: Deserialize<'de> + Hash + Eq> Deserialize<'de> for Interner<K> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let (values, free) = <(Vec<Option<(K, u32)>>, Vec<Slot>)>::deserialize(d)?;
        let mut out = Interner { free, ..Interner::default() };
        for value in values {
            out.held += value.as_ref().map_or(0, |(_, count)| u64::from(*count));
            out.slots.push(value.map(|(key, count)| (Arc::new(key), count)));
        }
        out.index();
        Ok(out)
    }
}

impl<K: Hash + Eq> Interner<K> {
    /// Counts one more holder of the value.
    pub fn acquire<Q>(&mut self, key: &Q) -> Slot
    where
        Q: Hash + Equivalent<K> + ?Sized,
        K: for<'a> From<&'a Q>,
    {
        let recent = self.recent.into_iter().find(|slot| self.value(*slot).is_some_and(|known| key.equivalent(known)));
        if let Some(slot) = recent {
            self.again(slot);
            return slot;
        }
        let hash = self.hasher.hash_one(key);
        let known = self.index.find(hash, |slot| self.value(slot).is_some_and(|known| key.equivalent(known)));
        if let Some(slot) = known {
            self.again(slot);
            self.found(slot);
            return slot;
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                (self.slots.len() - 1) as Slot
            }
        };
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = Some((Arc::new(K::from(key)), 1));
        }
        self.held += 1;
        self.index.insert(hash, slot);
        self.found(slot);
        slot
    }

    /// Each value once, with its count.
    pub fn counted(&self) -> impl Iterator<Item = (&K, u32)> {
        self.slots.iter().filter_map(|value| value.as_ref().map(|(value, count)| (&**value, *count)))
    }

    /// Each value once.
    pub fn values(&self) -> impl Iterator<Item = &K> {
        self.slots.iter().filter_map(|value| value.as_ref().map(|(value, _)| &**value))
    }

    fn found(&mut self, slot: Slot) {
        self.recent[self.oldest] = slot;
        self.oldest = (self.oldest + 1) % RECENT;
    }

    /// Counts one more holder of the value at a slot. `None` if the slot is empty.
    pub fn again(&mut self, slot: Slot) -> Option<&K> {
        let (value, count) = self.slots.get_mut(slot as usize)?.as_mut()?;
        *count += 1;
        self.held += 1;
        Some(value)
    }

    /// Counts one holder less. Returns the value if that was the last.
    pub fn release(&mut self, slot: Slot) -> Option<Arc<K>> {
        let place = self.slots.get_mut(slot as usize)?;
        let (_, count) = place.as_mut()?;
        *count -= 1;
        self.held -= 1;
        if *count > 0 {
            return None;
        }
        let (gone, _) = place.take()?;
        self.index.remove(self.hasher.hash_one(&*gone), slot);
        self.free.push(slot);
        Some(gone)
    }

    /// As [`Interner::release`], by value.
    pub fn release_value<Q: Hash + Equivalent<K> + ?Sized>(&mut self, key: &Q) -> Option<Arc<K>> {
        self.release(self.slot_of(key)?)
    }

    /// The value at a slot.
    pub fn value(&self, slot: Slot) -> Option<&K> {
        self.slots.get(slot as usize).and_then(Option::as_ref).map(|(k, _)| &**k)
    }

    /// The slot of a value.
    pub fn slot_of<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> Option<Slot> {
        self.index.find(self.hasher.hash_one(key), |slot| self.value(slot).is_some_and(|known| key.equivalent(known)))
    }

    /// Number of holders of the value.
    pub fn count<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> u32 {
        let found = self.slot_of(key).and_then(|slot| self.slots.get(slot as usize));
        found.and_then(Option::as_ref).map_or(0, |(_, n)| *n)
    }

    /// Sum of the holders of all values.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Number of different values.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is no value.
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
        assert_eq!((names.count("a"), names.count("b"), names.count("c"), names.held()), (2, 1, 0, 3));
        names.release(a);
        let mut before = names.frozen();
        names.release_value("a");
        assert_eq!((names.count("a"), names.len()), (0, 1));
        assert_eq!(names.acquire("c"), a, "its place is used again");
        let copy: Interner<Box<str>> = postcard::from_bytes(&postcard::to_stdvec(&names).unwrap()).unwrap();
        assert_eq!((copy.count("b"), copy.count("c"), copy.value(b).map(|v| &**v), copy.held()), (1, 1, Some("b"), 2));
        before.index();
        assert_eq!((before.count("a"), before.count("c")), (1, 0), "a copy stays as it was");
    }
}

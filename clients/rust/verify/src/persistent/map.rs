//! A hash map in shards.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, Equivalent, HashTable};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::pages::Counted;

/// Shards: of a million and a half entries, 6,000 are copied or moved at once.
const SHARDS: usize = 256;

/// A hash map that is copied, and grows, shard by shard.
pub struct Map<K, V> {
    /// None as long as there is no entry.
    shards: Vec<Arc<HashTable<(K, V)>>>,
    hasher: DefaultHashBuilder,
    len: usize,
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Map { shards: Vec::new(), hasher: DefaultHashBuilder::default(), len: 0 }
    }
}

impl<K, V> Clone for Map<K, V> {
    fn clone(&self) -> Self {
        Map { shards: self.shards.clone(), hasher: self.hasher.clone(), len: self.len }
    }
}

/// Not by the bits that a table goes by: within a shard, these are to differ.
fn shard(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}

impl<K, V> Map<K, V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// There is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter().map(|(k, v)| (k, v)))
    }

    /// All values, in no order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, v)| v)
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        (self.shards, self.len) = (Vec::new(), 0);
    }
}

impl<K: Hash + Eq, V> Map<K, V> {
    /// The value of a key.
    pub fn get<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> Option<&V> {
        if self.len == 0 {
            return None;
        }
        let hash = self.hasher.hash_one(key);
        self.shards.get(shard(hash))?.find(hash, |(k, _)| key.equivalent(k)).map(|(_, v)| v)
    }

    /// Whether there is a value of a key.
    pub fn contains_key<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> bool {
        self.get(key).is_some()
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Map<K, V> {
    /// The value of a key, to be changed.
    pub fn value_mut<Q: Hash + Equivalent<K> + ?Sized>(&mut self, key: &Q) -> Option<&mut V> {
        let hash = self.hasher.hash_one(key);
        self.own(hash, key)?.find_mut(hash, |(k, _)| key.equivalent(k)).map(|(_, v)| v)
    }

    /// The shard that a key lies in, to be changed. Looking for what is not there copies none.
    fn own<Q: Equivalent<K> + ?Sized>(&mut self, hash: u64, key: &Q) -> Option<&mut HashTable<(K, V)>> {
        let table = self.shards.get_mut(shard(hash))?;
        table.find(hash, |(k, _)| key.equivalent(k))?;
        Some(Arc::make_mut(table))
    }

    /// Where a key's value stands, or is to stand.
    fn entry(&mut self, key: &K) -> Entry<'_, (K, V)> {
        if self.shards.is_empty() {
            self.shards = vec![Arc::default(); SHARDS];
        }
        let (hash, hasher) = (self.hasher.hash_one(key), &self.hasher);
        let table = Arc::make_mut(&mut self.shards[shard(hash)]);
        let entry = table.entry(hash, |(k, _)| k == key, |(k, _)| hasher.hash_one(k));
        self.len += usize::from(matches!(entry, Entry::Vacant(_)));
        entry
    }

    /// The value of a key, made where there is none.
    pub fn or_insert(&mut self, key: K, value: V) -> &mut V {
        &mut self.entry(&key).or_insert((key, value)).into_mut().1
    }

    /// Sets the value of a key; gives back the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.entry(&key) {
            Entry::Occupied(mut there) => Some(std::mem::replace(&mut there.get_mut().1, value)),
            Entry::Vacant(place) => {
                place.insert((key, value));
                None
            }
        }
    }

    /// Takes a key's value out.
    pub fn remove<Q: Hash + Equivalent<K> + ?Sized>(&mut self, key: &Q) -> Option<V> {
        let hash = self.hasher.hash_one(key);
        let ((_, value), _) = self.own(hash, key)?.find_entry(hash, |(k, _)| key.equivalent(k)).ok()?.remove();
        self.len -= 1;
        let (table, hasher) = (Arc::make_mut(self.shards.get_mut(shard(hash))?), &self.hasher);
        // What there was of once need not be paid for ever.
        if table.capacity() > 16 && table.len() < table.capacity() / 8 {
            table.shrink_to(table.len() * 2, |(k, _)| hasher.hash_one(k));
        }
        Some(value)
    }
}

/// In the order of the keys: the same entries are written the same everywhere.
impl<K: Serialize + Ord, V: Serialize> Serialize for Map<K, V> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut all: Vec<(&K, &V)> = self.iter().collect();
        all.sort_unstable_by(|a, b| a.0.cmp(b.0));
        s.collect_seq(Counted(all.len(), all.into_iter()))
    }
}

impl<'de, K: Deserialize<'de> + Hash + Eq + Clone, V: Deserialize<'de> + Clone> Deserialize<'de> for Map<K, V> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(Vec::<(K, V)>::deserialize(d)?.into_iter().collect())
    }
}

impl<K: Hash + Eq + Clone, V: Clone> FromIterator<(K, V)> for Map<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Map::default();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_a_map_and_its_copies_stay_as_they_were(
            ops in prop::collection::vec((0u8..5, 0u16..600, any::<u32>()), 0..2_000)
        ) {
            let (mut map, mut model) = (Map::default(), BTreeMap::new());
            let mut copies = Vec::new();
            for (op, key, value) in ops {
                match op {
                    0 => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    1 => prop_assert_eq!(*map.or_insert(key, value), *model.entry(key).or_insert(value)),
                    2 => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                    3 => prop_assert_eq!(map.value_mut(&key).map(|v| std::mem::replace(v, value)), model.get_mut(&key).map(|v| std::mem::replace(v, value))),
                    _ if value < u32::MAX / 16 => copies.push((map.clone(), model.clone())),
                    _ => prop_assert_eq!(map.get(&key), model.get(&key)),
                }
                prop_assert_eq!(map.len(), model.len());
            }
            copies.push((map, model));
            for (map, model) in copies {
                let bytes = postcard::to_stdvec(&map).unwrap();
                prop_assert_eq!(&bytes, &postcard::to_stdvec(&model.into_iter().collect::<Vec<_>>()).unwrap());
                let back: Map<u16, u32> = postcard::from_bytes(&bytes).unwrap();
                prop_assert_eq!(postcard::to_stdvec(&back).unwrap(), bytes);
            }
        }
    }
}

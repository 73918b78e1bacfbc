//! A hash map in small leaves.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, Equivalent, HashTable};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::paged_vec::CountedIter;

/// Number of shards. A clone copies one pointer per shard; the first change of a shard afterwards copies the pointers to its leaves.
const SHARDS: usize = 256;

/// Average number of entries of a leaf; at most twice as many. A change copies this many entries. When many entries become due together,
/// half of a table's entries, far apart from each other, may change in one second.
const LEAF: usize = 24;

/// A hash map that is copied, grown and shrunk leaf by leaf, so that no change takes long, however large the map is.
pub struct PersistentMap<K, V> {
    /// Empty as long as there is no entry.
    shards: Vec<Arc<Shard<K, V>>>,
    hasher: DefaultHashBuilder,
    len: usize,
}

impl<K, V> Default for PersistentMap<K, V> {
    fn default() -> Self {
        PersistentMap { shards: Vec::new(), hasher: DefaultHashBuilder::default(), len: 0 }
    }
}

impl<K, V> Clone for PersistentMap<K, V> {
    fn clone(&self) -> Self {
        PersistentMap { shards: self.shards.clone(), hasher: self.hasher.clone(), len: self.len }
    }
}

/// Uses bits that hash tables do not use; those use the lowest and the highest bits, which must differ within a leaf.
fn shard(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}

/// Linear hashing: leaves are split in turn. An entry of a leaf that does not exist yet is in the leaf that it will be split from.
fn leaf(hash: u64, leaves: usize) -> usize {
    let all = leaves.next_power_of_two();
    let at = (hash >> 40) as usize % all;
    if at < leaves { at } else { at - all / 2 }
}

/// Maximum number of leaves per shard. More leaves would use the bits that hash tables need.
const LEAVES: usize = 1 << 16;

type Leaf<K, V> = HashTable<(K, V)>;

/// There is always at least one leaf.
struct Shard<K, V> {
    leaves: Vec<Arc<Leaf<K, V>>>,
    len: usize,
}

impl<K, V> Clone for Shard<K, V> {
    fn clone(&self) -> Self {
        Shard { leaves: self.leaves.clone(), len: self.len }
    }
}

impl<K, V> Default for Shard<K, V> {
    fn default() -> Self {
        Shard { leaves: vec![Arc::default()], len: 0 }
    }
}

impl<K, V> Shard<K, V> {
    fn leaf(&self, hash: u64) -> Option<&Arc<Leaf<K, V>>> {
        self.leaves.get(leaf(hash, self.leaves.len()))
    }
}

impl<K: Hash + Clone, V: Clone> Shard<K, V> {
    fn leaf_mut(&mut self, hash: u64) -> &mut Leaf<K, V> {
        let at = leaf(hash, self.leaves.len());
        Arc::make_mut(&mut self.leaves[at])
    }

    /// Splits one leaf if the leaves are full on average.
    fn grow(&mut self, hasher: &DefaultHashBuilder) {
        let leaves = self.leaves.len();
        if self.len < LEAF * leaves || leaves == LEAVES {
            return;
        }
        let half = leaves - (leaves + 1).next_power_of_two() / 2;
        self.leaves.push(Arc::default());
        let whole = std::mem::take(&mut self.leaves[half]);
        let hash = |entry: &(K, V)| hasher.hash_one(&entry.0);
        let mut put = |entry: (K, V)| {
            let of_it = hash(&entry);
            self.leaf_mut(of_it).insert_unique(of_it, entry, hash);
        };
        match Arc::try_unwrap(whole) {
            Ok(own) => own.into_iter().for_each(&mut put),
            Err(shared) => shared.iter().cloned().for_each(&mut put),
        }
    }

    /// Merges the last leaf into the one that it was split from if there are far too many leaves.
    fn shrink(&mut self, hasher: &DefaultHashBuilder) {
        if self.leaves.len() == 1 || self.len >= LEAF / 4 * self.leaves.len() {
            return;
        }
        let Some(last) = self.leaves.pop() else { return };
        let hash = |entry: &(K, V)| hasher.hash_one(&entry.0);
        for entry in last.iter().cloned() {
            let of_it = hash(&entry);
            self.leaf_mut(of_it).insert_unique(of_it, entry, hash);
        }
    }
}

impl<K, V> PersistentMap<K, V> {
    /// The number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let leaves = self.shards.iter().flat_map(|shard| &shard.leaves);
        leaves.flat_map(|leaf| leaf.iter().map(|(k, v)| (k, v)))
    }

    /// All values, in no particular order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, v)| v)
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        (self.shards, self.len) = (Vec::new(), 0);
    }
}

impl<K: Hash + Eq, V> PersistentMap<K, V> {
    /// The value of a key.
    pub fn get<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> Option<&V> {
        if self.len == 0 {
            return None;
        }
        let hash = self.hasher.hash_one(key);
        self.shards.get(shard(hash))?.leaf(hash)?.find(hash, |(k, _)| key.equivalent(k)).map(|(_, v)| v)
    }

    /// Whether the key has a value.
    pub fn contains_key<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> bool {
        self.get(key).is_some()
    }
}

/// The shard of an existing key, for a change. Looking up a missing key copies nothing.
fn own<'a, K, V, Q: Equivalent<K> + ?Sized>(
    shards: &'a mut [Arc<Shard<K, V>>],
    hash: u64,
    key: &Q,
) -> Option<&'a mut Shard<K, V>> {
    let shard = shards.get_mut(shard(hash))?;
    shard.leaf(hash)?.find(hash, |(k, _)| key.equivalent(k))?;
    Some(Arc::make_mut(shard))
}

impl<K: Hash + Eq + Clone, V: Clone> PersistentMap<K, V> {
    /// The mutable value of a key.
    pub fn value_mut<Q: Hash + Equivalent<K> + ?Sized>(&mut self, key: &Q) -> Option<&mut V> {
        let hash = self.hasher.hash_one(key);
        own(&mut self.shards, hash, key)?.leaf_mut(hash).find_mut(hash, |(k, _)| key.equivalent(k)).map(|(_, v)| v)
    }

    /// The entry of a key, existing or vacant.
    fn entry(&mut self, key: &K) -> Entry<'_, (K, V)> {
        if self.shards.is_empty() {
            self.shards = vec![Arc::default(); SHARDS];
        }
        let (hash, hasher) = (self.hasher.hash_one(key), &self.hasher);
        let Shard { leaves, len } = {
            let shard = Arc::make_mut(&mut self.shards[shard(hash)]);
            shard.grow(hasher);
            shard
        };
        let at = leaf(hash, leaves.len());
        let entry = Arc::make_mut(&mut leaves[at]).entry(hash, |(k, _)| k == key, |(k, _)| hasher.hash_one(k));
        let new = usize::from(matches!(entry, Entry::Vacant(_)));
        (self.len, *len) = (self.len + new, *len + new);
        entry
    }

    /// The mutable value of a key; inserts `value` where there is none.
    pub fn or_insert(&mut self, key: K, value: V) -> &mut V {
        &mut self.entry(&key).or_insert((key, value)).into_mut().1
    }

    /// Sets the value of a key and returns the previous one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.entry(&key) {
            Entry::Occupied(mut there) => Some(std::mem::replace(&mut there.get_mut().1, value)),
            Entry::Vacant(place) => {
                place.insert((key, value));
                None
            }
        }
    }

    /// Removes a key and returns its value.
    pub fn remove<Q: Hash + Equivalent<K> + ?Sized>(&mut self, key: &Q) -> Option<V> {
        let hash = self.hasher.hash_one(key);
        let (shard, hasher) = (own(&mut self.shards, hash, key)?, &self.hasher);
        let ((_, value), _) = shard.leaf_mut(hash).find_entry(hash, |(k, _)| key.equivalent(k)).ok()?.remove();
        (self.len, shard.len) = (self.len - 1, shard.len - 1);
        // Releases memory that is no longer needed.
        shard.shrink(hasher);
        let leaf = shard.leaf_mut(hash);
        if leaf.capacity() > 16 && leaf.len() < leaf.capacity() / 8 {
            leaf.shrink_to(leaf.len() * 2, |(k, _)| hasher.hash_one(k));
        }
        Some(value)
    }
}

/// Serialized in the order of the keys, so that equal content gives equal bytes.
impl<K: Serialize + Ord, V: Serialize> Serialize for PersistentMap<K, V> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut all: Vec<(&K, &V)> = self.iter().collect();
        all.sort_unstable_by(|a, b| a.0.cmp(b.0));
        s.collect_seq(CountedIter(all.len(), all.into_iter()))
    }
}

impl<'de, K: Deserialize<'de> + Hash + Eq + Clone, V: Deserialize<'de> + Clone> Deserialize<'de> for PersistentMap<K, V> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(Vec::<(K, V)>::deserialize(d)?.into_iter().collect())
    }
}

impl<K: Hash + Eq + Clone, V: Clone> FromIterator<(K, V)> for PersistentMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = PersistentMap::default();
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
            let (mut map, mut model) = (PersistentMap::default(), BTreeMap::new());
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
                let back: PersistentMap<u16, u32> = postcard::from_bytes(&bytes).unwrap();
                prop_assert_eq!(postcard::to_stdvec(&back).unwrap(), bytes);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Enough entries for leaves to be split and merged.
        #[test]
        fn it_is_a_map_while_many_come_and_go(
            ops in prop::collection::vec((0u8..4, 0u32..20_000, 0u32..12_000), 1..10)
        ) {
            let (mut map, mut model) = (PersistentMap::default(), BTreeMap::new());
            let mut copies = Vec::new();
            for (op, from, many) in ops {
                for key in from..from + many {
                    match op {
                        0 | 1 => prop_assert_eq!(map.insert(key, from), model.insert(key, from)),
                        2 => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                        _ => prop_assert_eq!(map.value_mut(&key).map(|v| std::mem::replace(v, many)), model.get_mut(&key).map(|v| std::mem::replace(v, many))),
                    }
                }
                copies.push((map.clone(), model.clone()));
            }
            for (map, model) in copies {
                prop_assert_eq!(map.len(), model.len());
                prop_assert_eq!(map.iter().count(), model.len());
                prop_assert!(model.iter().all(|(key, value)| map.get(key) == Some(value)));
                let of_shards = map.shards.iter().map(|s| s.len).sum::<usize>();
                prop_assert_eq!(of_shards, model.len());
            }
        }
    }

    /// The number of leaves of the first map that the second one does not share, and the number of their entries.
    fn apart(one: &PersistentMap<u32, u32>, other: &PersistentMap<u32, u32>) -> (usize, usize) {
        let leaves = |map: &PersistentMap<u32, u32>| map.shards.iter().flat_map(|s| s.leaves.clone()).collect::<Vec<_>>();
        let others: std::collections::HashSet<_> = leaves(other).iter().map(Arc::as_ptr).collect();
        let own: Vec<_> = leaves(one).into_iter().filter(|leaf| !others.contains(&Arc::as_ptr(leaf))).collect();
        (own.len(), own.iter().map(|leaf| leaf.len()).sum())
    }

    #[test]
    fn a_change_copies_a_leaf_however_much_there_is() {
        let mut map: PersistentMap<u32, u32> = (0..300_000).map(|n| (n, n)).collect();
        for n in (0..300_000).step_by(2_500) {
            let copy = map.clone();
            map.remove(&n);
            let (leaves, entries) = apart(&map, &copy);
            // Merging two leaves changes both.
            assert!(leaves <= 2 && entries < 6 * LEAF, "{leaves} leaves with {entries} entries for one that went");
            map.insert(n, n + 1);
            let (leaves, entries) = apart(&map, &copy);
            assert!(leaves <= 4 && entries < 9 * LEAF, "{leaves} leaves with {entries} entries for one that came back");
        }
    }

    #[test]
    fn leaves_are_neither_full_nor_empty_and_go_with_what_was_in_them() {
        let mut map = PersistentMap::default();
        let leaves = |map: &PersistentMap<u32, u32>| map.shards.iter().map(|s| s.leaves.len()).sum::<usize>();
        for n in 0..100_000u32 {
            map.insert(n, n);
            if n > 50_000 && n % 1_000 == 0 {
                let each = n as usize / leaves(&map);
                assert!((LEAF / 2..=LEAF).contains(&each), "{each} entries for each leaf of {n}");
                let most = map.shards.iter().flat_map(|s| &s.leaves).map(|leaf| leaf.len()).max().unwrap();
                assert!(most < 4 * LEAF, "{most} in one leaf");
            }
        }
        (0..99_000).for_each(|n| assert_eq!(map.remove(&n), Some(n)));
        assert!(leaves(&map) < 1_000, "{} leaves for a thousand entries", leaves(&map));
        assert!(map.iter().all(|(k, v)| k == v && *k >= 99_000) && map.iter().count() == 1_000);
        (0..100_000).for_each(|n| assert_eq!(map.get(&n).copied(), (n >= 99_000).then_some(n)));
    }
}

//! A hash map in small leaves.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, Equivalent, HashTable};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::pages::Counted;

/// Shards: a copy takes a pointer for each, and who changes one afterwards copies the pointers to its leaves.
const SHARDS: usize = 256;

/// Entries of a leaf, on the whole, and twice as many at the most: that many are copied for one that changes. In one second half of a table's
/// entries may change that are far from each other, as when all of it comes due.
const LEAF: usize = 24;

/// A hash map that is copied, grows and shrinks leaf by leaf: no change to it takes long, however large it is.
pub struct Map<K, V> {
    /// None as long as there is no entry.
    shards: Vec<Arc<Shard<K, V>>>,
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

/// Not by the bits that a table goes by, which are the lowest and the highest: within a leaf, these are to differ.
fn shard(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}

/// Linear hashing: leaves are divided in turn, and what belongs to one that is not there yet is in the one that it will be divided from.
fn leaf(hash: u64, leaves: usize) -> usize {
    let all = leaves.next_power_of_two();
    let at = (hash >> 40) as usize % all;
    if at < leaves { at } else { at - all / 2 }
}

/// Leaves of a shard at the most: beyond, their bits would be those that a table goes by.
const LEAVES: usize = 1 << 16;

type Leaf<K, V> = HashTable<(K, V)>;

/// One leaf at least.
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

    /// Divides one leaf where they are full on the whole.
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

    /// Puts the last leaf back to its half where there are far too many.
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
        let leaves = self.shards.iter().flat_map(|shard| &shard.leaves);
        leaves.flat_map(|leaf| leaf.iter().map(|(k, v)| (k, v)))
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
        self.shards.get(shard(hash))?.leaf(hash)?.find(hash, |(k, _)| key.equivalent(k)).map(|(_, v)| v)
    }

    /// Whether there is a value of a key.
    pub fn contains_key<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> bool {
        self.get(key).is_some()
    }
}

/// The shard that a key lies in, to be changed. Looking for what is not there copies nothing.
fn own<'a, K, V, Q: Equivalent<K> + ?Sized>(
    shards: &'a mut [Arc<Shard<K, V>>],
    hash: u64,
    key: &Q,
) -> Option<&'a mut Shard<K, V>> {
    let shard = shards.get_mut(shard(hash))?;
    shard.leaf(hash)?.find(hash, |(k, _)| key.equivalent(k))?;
    Some(Arc::make_mut(shard))
}

impl<K: Hash + Eq + Clone, V: Clone> Map<K, V> {
    /// The value of a key, to be changed.
    pub fn value_mut<Q: Hash + Equivalent<K> + ?Sized>(&mut self, key: &Q) -> Option<&mut V> {
        let hash = self.hasher.hash_one(key);
        own(&mut self.shards, hash, key)?.leaf_mut(hash).find_mut(hash, |(k, _)| key.equivalent(k)).map(|(_, v)| v)
    }

    /// Where a key's value stands, or is to stand.
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
        let (shard, hasher) = (own(&mut self.shards, hash, key)?, &self.hasher);
        let ((_, value), _) = shard.leaf_mut(hash).find_entry(hash, |(k, _)| key.equivalent(k)).ok()?.remove();
        (self.len, shard.len) = (self.len - 1, shard.len - 1);
        // What there was of once need not be paid for ever.
        shard.shrink(hasher);
        let leaf = shard.leaf_mut(hash);
        if leaf.capacity() > 16 && leaf.len() < leaf.capacity() / 8 {
            leaf.shrink_to(leaf.len() * 2, |(k, _)| hasher.hash_one(k));
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// As many as leaves are divided for, and put together again.
        #[test]
        fn it_is_a_map_while_many_come_and_go(
            ops in prop::collection::vec((0u8..4, 0u32..20_000, 0u32..12_000), 1..10)
        ) {
            let (mut map, mut model) = (Map::default(), BTreeMap::new());
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

    /// Leaves that two maps do not share, and the entries of those of the first.
    fn apart(one: &Map<u32, u32>, other: &Map<u32, u32>) -> (usize, usize) {
        let leaves = |map: &Map<u32, u32>| map.shards.iter().flat_map(|s| s.leaves.clone()).collect::<Vec<_>>();
        let others: std::collections::HashSet<_> = leaves(other).iter().map(Arc::as_ptr).collect();
        let own: Vec<_> = leaves(one).into_iter().filter(|leaf| !others.contains(&Arc::as_ptr(leaf))).collect();
        (own.len(), own.iter().map(|leaf| leaf.len()).sum())
    }

    #[test]
    fn a_change_copies_a_leaf_however_much_there_is() {
        let mut map: Map<u32, u32> = (0..300_000).map(|n| (n, n)).collect();
        for n in (0..300_000).step_by(2_500) {
            let copy = map.clone();
            map.remove(&n);
            let (leaves, entries) = apart(&map, &copy);
            // Where two leaves become one, both change.
            assert!(leaves <= 2 && entries < 6 * LEAF, "{leaves} leaves with {entries} entries for one that went");
            map.insert(n, n + 1);
            let (leaves, entries) = apart(&map, &copy);
            assert!(leaves <= 4 && entries < 9 * LEAF, "{leaves} leaves with {entries} entries for one that came back");
        }
    }

    #[test]
    fn leaves_are_neither_full_nor_empty_and_go_with_what_was_in_them() {
        let mut map = Map::default();
        let leaves = |map: &Map<u32, u32>| map.shards.iter().map(|s| s.leaves.len()).sum::<usize>();
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

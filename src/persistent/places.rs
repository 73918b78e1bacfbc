//! Places found by what stands there.

use std::sync::LazyLock;

use hashbrown::HashTable;

/// A place in a table. The same for the same log, on every replica.
pub type Slot = u32;

/// Shards: of a million places 4,000 are moved at once.
const SHARDS: usize = 256;

/// Bits of the hash that pick a shard.
const BITS: u32 = 12;

/// A table doubles when it is full. Were all shards as large as each other, all would double at about the same time, and be half empty from
/// then on; so the largest is given twice as much as the smallest, and at any time some are about to.
static SPREAD: LazyLock<Box<[u8]>> = LazyLock::new(|| {
    let cells = 1usize << BITS;
    (0..cells).map(|cell| ((1.0 + cell as f64 / cells as f64).log2() * SHARDS as f64) as u8).collect()
});

/// An index: 5 bytes for each place at best, 12 at worst, 8 on the whole. The caller hashes and compares what stands at a place.
///
/// It can be made again from what stands there, so no copy is taken of it: random places would have all of it copied within a second.
#[derive(Default)]
pub struct Places {
    /// None as long as there is no place.
    shards: Vec<HashTable<Slot>>,
}

/// Not by the bits that a table goes by: within a shard, these are to differ.
fn shard(hash: u64) -> usize {
    let cell = (hash >> 32) as usize % (1 << BITS);
    SPREAD.get(cell).copied().unwrap_or_default().into()
}

impl Places {
    /// The place with that hash that fits.
    pub fn find(&self, hash: u64, mut fits: impl FnMut(Slot) -> bool) -> Option<Slot> {
        self.shards.get(shard(hash))?.find(hash, |slot| fits(*slot)).copied()
    }

    /// Adds a place that is not there yet. `hash_of` is that of what stands at a place.
    pub fn insert(&mut self, hash: u64, slot: Slot, hash_of: impl Fn(Slot) -> u64) {
        if self.shards.is_empty() {
            self.shards.resize_with(SHARDS, HashTable::new);
        }
        self.shards[shard(hash)].insert_unique(hash, slot, |slot| hash_of(*slot));
    }

    /// Takes a place out. Whether it was there.
    pub fn remove(&mut self, hash: u64, slot: Slot, hash_of: impl Fn(Slot) -> u64) -> bool {
        let Some(table) = self.shards.get_mut(shard(hash)) else { return false };
        let Ok(found) = table.find_entry(hash, |s| *s == slot) else { return false };
        found.remove();
        // What there was of once need not be paid for ever.
        if table.capacity() > 64 && table.len() < table.capacity() / 8 {
            table.shrink_to(table.len() * 2, |slot| hash_of(*slot));
        }
        true
    }

    /// Bytes that it takes.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.allocation_size()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A good hash of a place, for want of something that stands there.
    fn hash(slot: Slot) -> u64 {
        (u64::from(slot) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29).wrapping_mul(0xBF58_476D_1CE4_E5B9)
    }

    #[test]
    fn a_place_is_found_until_it_is_taken_out() {
        let mut places = Places::default();
        (0..50_000).for_each(|slot| places.insert(hash(slot), slot, hash));
        let full = places.bytes();
        (0..50_000).filter(|slot| slot % 16 > 0).for_each(|slot| assert!(places.remove(hash(slot), slot, hash)));
        for slot in 0..50_000 {
            assert_eq!(places.find(hash(slot), |s| s == slot), (slot % 16 == 0).then_some(slot));
        }
        assert!(!places.remove(hash(1), 1, hash));
        assert!(places.bytes() < full / 3, "what is gone takes no room");
    }

    #[test]
    fn it_is_never_half_empty_as_a_whole() {
        let mut places = Places::default();
        for slot in 0..600_000 {
            places.insert(hash(slot), slot, hash);
            if slot > 100_000 && slot % 10_000 == 0 {
                let each = places.bytes() as f64 / f64::from(slot);
                assert!(each < 10.0, "{each} bytes for each of {slot}");
            }
        }
    }
}

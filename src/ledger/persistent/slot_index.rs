//! A hash index of slots, which holds no keys.

use std::sync::LazyLock;

/// A slot in a table. The same log gives the same slots on every replica.
pub type Slot = u32;

/// Number of shards. Growing moves one shard: 4,000 of a million entries.
const SHARDS: usize = 256;

/// Bits of the hash that select a shard.
const BITS: u32 = 12;

/// A shard is resized when it is full. If all shards had the same size, all would be full at about the same time. The largest shard
/// therefore gets twice as many entries as the smallest, which spreads resizing over time.
static SPREAD: LazyLock<Box<[u8]>> = LazyLock::new(|| {
    let cells = 1usize << BITS;
    (0..cells).map(|cell| ((1.0 + cell as f64 / cells as f64).log2() * SHARDS as f64) as u8).collect()
});

fn shard(hash: u64) -> usize {
    let cell = (hash >> 32) as usize % (1 << BITS);
    SPREAD.get(cell).copied().unwrap_or_default().into()
}

/// An index of slots, 8 bytes per entry. The caller hashes and compares the keys in its table.
///
/// The index can be rebuilt from the table, so it is not copied with snapshots: random updates would copy all of it within a second.
#[derive(Default)]
pub struct SlotIndex {
    /// Empty as long as there is no entry.
    shards: Vec<Shard>,
}

impl SlotIndex {
    /// The slot with this hash for which `fits` returns true.
    pub fn find(&self, hash: u64, fits: impl FnMut(Slot) -> bool) -> Option<Slot> {
        let shard = self.shards.get(shard(hash))?;
        shard.at(mark(hash), fits).map(|at| shard.slots[at])
    }

    /// Prefetches the memory that a look-up or an insertion of this hash reads first. A large table does not fit into the cache;
    /// prefetching for several hashes lets their cache misses overlap. The returned value is meaningless and only keeps the read from being
    /// optimized away.
    pub fn warm(&self, hash: u64) -> u64 {
        let Some(shard) = self.shards.get(shard(hash)) else { return 0 };
        let from = shard.home(mark(hash));
        let (mark, slot) = (shard.marks.get(from), shard.slots.get(from));
        u64::from(mark.copied().unwrap_or_default()) ^ u64::from(slot.copied().unwrap_or_default())
    }

    /// Adds a slot that is not in the index yet.
    pub fn insert(&mut self, hash: u64, slot: Slot) {
        if self.shards.is_empty() {
            self.shards.resize_with(SHARDS, Shard::default);
        }
        self.shards[shard(hash)].insert(mark(hash), slot);
    }

    /// Replaces a slot by another one. Returns whether it was in the index.
    pub fn replace(&mut self, hash: u64, slot: Slot, by: Slot) -> bool {
        self.shards.get_mut(shard(hash)).is_some_and(|shard| shard.replace(mark(hash), slot, by))
    }

    /// Removes a slot. Returns whether it was in the index.
    pub fn remove(&mut self, hash: u64, slot: Slot) -> bool {
        self.shards.get_mut(shard(hash)).is_some_and(|shard| shard.remove(mark(hash), slot))
    }
}

/// The part of a hash that a shard stores: bits that did not select the shard. Entries are ordered by their marks.
fn mark(hash: u64) -> u16 {
    (hash as u16).min(EMPTY - 1)
}

/// The mark of an empty position. It is greater than all others, so that an unsuccessful look-up reads marks only.
const EMPTY: u16 = u16::MAX;

/// Entries ordered by mark, each at or closely behind its home position. A look-up therefore reads a few neighbouring positions, and
/// resizing reads the old table sequentially.
#[derive(Default)]
struct Shard {
    /// `EMPTY` where there is no entry.
    marks: Vec<u16>,
    slots: Vec<Slot>,
    /// The number of home positions. Further positions at the end hold displaced entries.
    homes: usize,
    len: usize,
}

impl Shard {
    fn home(&self, mark: u16) -> usize {
        (usize::from(mark) * self.homes) >> 16
    }

    /// The position of the entry with this mark for which `fits` returns true.
    fn at(&self, mark: u16, mut fits: impl FnMut(Slot) -> bool) -> Option<usize> {
        let from = self.home(mark);
        let near = self.marks.get(from..)?.iter().enumerate().skip_while(|(_, there)| **there < mark);
        let mut same = near.take_while(|(_, there)| **there == mark).map(|(n, _)| from + n);
        same.find(|at| self.slots.get(*at).is_some_and(|slot| fits(*slot)))
    }

    fn insert(&mut self, mark: u16, slot: Slot) {
        // At a load of 7/8 an entry is on average four positions behind its home.
        if self.len + 1 > self.homes / 8 * 7 {
            self.resize((self.len + self.len / 4).max(8));
        }
        while !self.put(mark, slot) {
            self.resize(self.homes + self.homes / 8);
        }
        self.len += 1;
    }

    /// Inserts an entry; false where there is no room at the end.
    fn put(&mut self, mark: u16, slot: Slot) -> bool {
        let mut at = self.home(mark);
        while self.marks.get(at).is_some_and(|there| *there <= mark) {
            at += 1;
        }
        let Some(room) = self.marks.get(at..).and_then(|rest| rest.iter().position(|there| *there == EMPTY)) else {
            return false;
        };
        self.marks.copy_within(at..at + room, at + 1);
        self.slots.copy_within(at..at + room, at + 1);
        (self.marks[at], self.slots[at]) = (mark, slot);
        true
    }

    fn replace(&mut self, mark: u16, slot: Slot, by: Slot) -> bool {
        let place = self.at(mark, |there| there == slot).and_then(|at| self.slots.get_mut(at));
        place.map(|place| *place = by).is_some()
    }

    fn remove(&mut self, mark: u16, slot: Slot) -> bool {
        let Some(at) = self.at(mark, |there| there == slot) else { return false };
        // Moves displaced entries behind the removed one a position closer to their homes.
        let mut end = at + 1;
        while self.marks.get(end).is_some_and(|there| *there != EMPTY && self.home(*there) < end) {
            end += 1;
        }
        self.marks.copy_within(at + 1..end, at);
        self.slots.copy_within(at + 1..end, at);
        self.marks[end - 1] = EMPTY;
        self.len -= 1;
        // Releases memory that is no longer needed.
        if self.homes > 64 && self.len < self.homes / 4 {
            self.resize(self.len + self.len / 4);
        }
        true
    }

    /// Moves the entries to a table for `most` entries.
    fn resize(&mut self, most: usize) {
        let homes = most / 7 * 8 + 8;
        // At a load of 7/8 the longest run grows with the logarithm of the table's size.
        let room = homes + 32 + homes / 64;
        let old = std::mem::replace(self, Shard { marks: vec![EMPTY; room], slots: vec![0; room], homes, len: self.len });
        // Inserted in order, so that each entry goes to the end of a run.
        let mut next = 0;
        for (mark, slot) in old.marks.into_iter().zip(old.slots).filter(|(mark, _)| *mark != EMPTY) {
            let at = next.max(self.home(mark));
            if at >= self.slots.len() {
                self.marks.push(EMPTY);
                self.slots.push(0);
            }
            (self.marks[at], self.slots[at]) = (mark, slot);
            next = at + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    /// A good hash of a slot, in place of a key.
    fn hash(slot: Slot) -> u64 {
        let n = (u64::from(slot) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (n ^ n >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9).rotate_left(31).wrapping_mul(0x94D0_49BB_1331_11EB)
    }

    fn bytes(places: &SlotIndex) -> usize {
        places.shards.iter().map(|shard| shard.marks.capacity() * 2 + shard.slots.capacity() * 4).sum()
    }

    proptest! {
        #[test]
        fn it_is_a_map_whatever_marks_its_entries_share(
            // Few different marks, so that runs collide.
            ops in prop::collection::vec((any::<bool>(), 0u16..40, 0u32..60), 0..1_500), step in 1u16..1_600,
        ) {
            let (mut shard, mut model) = (Shard::default(), BTreeMap::<Slot, u16>::new());
            for (add, mark, slot) in ops {
                let mark = super::mark(mark.wrapping_mul(step).wrapping_add(65_000).into());
                match model.get(&slot).copied() {
                    None if add => {
                        shard.insert(mark, slot);
                        model.insert(slot, mark);
                    }
                    Some(of_it) if !add => {
                        prop_assert!(shard.remove(of_it, slot));
                        model.remove(&slot);
                    }
                    Some(of_it) if of_it != mark => prop_assert!(!shard.remove(mark, slot)),
                    None => prop_assert!(!shard.remove(mark, slot)),
                    Some(_) => {}
                }
                prop_assert_eq!(shard.len, model.len());
                for (slot, mark) in &model {
                    let found = shard.at(*mark, |there| there == *slot).map(|at| shard.slots[at]);
                    prop_assert_eq!(found, Some(*slot));
                }
                let there: Vec<u16> =
                    shard.marks.iter().copied().filter(|mark| *mark != EMPTY).collect();
                prop_assert!(there.is_sorted() && there.len() == model.len());
            }
        }
    }

    #[test]
    fn a_place_is_found_until_it_is_taken_out() {
        let mut places = SlotIndex::default();
        (0..50_000).for_each(|slot| places.insert(hash(slot), slot));
        let full = bytes(&places);
        (0..50_000).filter(|slot| slot % 16 > 0).for_each(|slot| assert!(places.remove(hash(slot), slot)));
        for slot in 0..50_000 {
            assert_eq!(places.find(hash(slot), |s| s == slot), (slot % 16 == 0).then_some(slot));
        }
        assert!(!places.remove(hash(1), 1) && !places.replace(hash(1), 1, 7));
        assert!(places.replace(hash(16), 16, 70_000) && !places.replace(hash(16), 16, 70_000));
        assert_eq!((places.find(hash(16), |s| s == 16), places.find(hash(16), |s| s == 70_000)), (None, Some(70_000)));
        assert!(bytes(&places) < full / 3, "what is gone takes no room");
    }

    #[test]
    fn it_is_never_half_empty_and_compares_little() {
        let mut places = SlotIndex::default();
        for slot in 0..600_000 {
            places.insert(hash(slot), slot);
            if slot > 100_000 && slot % 10_000 == 0 {
                let each = bytes(&places) as f64 / f64::from(slot);
                assert!(each < 8.5, "{each} bytes for each of {slot}");
            }
        }
        let mut compared = 0;
        for slot in 600_000..700_000 {
            let none = places.find(hash(slot), |_| {
                compared += 1;
                false
            });
            assert_eq!(none, None);
        }
        // An expected collision rate of 1 in 65,536 marks for each of a few thousand neighbours.
        assert!(compared < 12_000, "{compared} of 100,000 that are not there");
    }
}

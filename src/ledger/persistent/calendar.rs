//! A schedule of items by the second in which they become due.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::paged_vec::CountedIter;
use mayfly_verify::seq::Millis;

/// Entries per chunk: 4 KB of slots.
const PIECE: usize = 1_024;

/// Items with a due time, grouped by second.
#[derive(Clone)]
pub struct Calendar<T> {
    seconds: BTreeMap<u64, Vec<Arc<Vec<T>>>>,
}

impl<T> Default for Calendar<T> {
    fn default() -> Self {
        Calendar { seconds: BTreeMap::new() }
    }
}

impl<T: Clone> Calendar<T> {
    /// Schedules an item for the second after `moment`.
    pub fn after(&mut self, moment: Millis, thing: T) {
        self.push(moment.seconds().saturating_add(1), thing);
    }

    fn push(&mut self, second: u64, thing: T) {
        let pieces = self.seconds.entry(second).or_default();
        match pieces.last_mut() {
            Some(last) if last.len() < PIECE => Arc::make_mut(last).push(thing),
            _ => pieces.push(Arc::new(vec![thing])),
        }
    }

    /// All scheduled items.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.seconds.values().flatten().flat_map(|piece| piece.iter())
    }

    /// Whether no item is scheduled.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Removes and returns an item that is due. Within a second the items added last come first.
    pub fn due(&mut self, now: Millis) -> Option<T> {
        loop {
            let mut first = self.seconds.first_entry().filter(|first| *first.key() <= now.seconds())?;
            match first.get_mut().last_mut() {
                None => drop(first.remove()),
                Some(piece) => match Arc::make_mut(piece).pop() {
                    Some(thing) => return Some(thing),
                    None => drop(first.get_mut().pop()),
                },
            }
        }
    }

    /// How many due items to remove at once: `few` while all due items became due in the current second, else `most`. Items that become due
    /// together are thus spread over their second.
    pub fn share(&self, now: Millis, few: usize, most: usize) -> usize {
        let first = self.seconds.iter().find(|(_, pieces)| pieces.iter().any(|piece| !piece.is_empty()));
        if first.is_some_and(|(second, _)| *second < now.seconds()) { most } else { few.min(most) }
    }

    /// Keeps only the items for which `wanted` returns true.
    pub fn retain(&mut self, wanted: impl Fn(&T) -> bool) {
        for pieces in self.seconds.values_mut() {
            pieces.iter_mut().for_each(|piece| Arc::make_mut(piece).retain(&wanted));
            pieces.retain(|piece| !piece.is_empty());
        }
        self.seconds.retain(|_, pieces| !pieces.is_empty());
    }
}

impl<T: Serialize> Serialize for Calendar<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        struct Second<'a, T>(&'a [Arc<Vec<T>>]);

        impl<T: Serialize> Serialize for Second<'_, T> {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                let len = self.0.iter().map(|piece| piece.len()).sum();
                s.collect_seq(CountedIter(len, self.0.iter().flat_map(|piece| piece.iter())))
            }
        }

        // A second without items may remain until the next look-up. It is not serialized.
        let some = || self.seconds.iter().filter(|(_, pieces)| pieces.iter().any(|piece| !piece.is_empty()));
        s.collect_map(CountedIter(some().count(), some().map(|(second, pieces)| (second, Second(pieces)))))
    }
}

impl<'de, T: Deserialize<'de> + Clone> Deserialize<'de> for Calendar<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut calendar = Calendar::default();
        for (second, things) in BTreeMap::<u64, Vec<T>>::deserialize(d)? {
            things.into_iter().for_each(|thing| calendar.push(second, thing));
        }
        Ok(calendar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(calendar: &mut Calendar<u32>, now: u64) -> Vec<u32> {
        std::iter::from_fn(|| calendar.due(Millis(now))).collect()
    }

    #[test]
    fn nothing_comes_before_its_moment_has_passed() {
        let mut calendar = Calendar::<u32>::default();
        for (thing, moment) in [(1, 4_000), (2, 4_999), (3, 2_500), (4, 5_000)] {
            calendar.after(Millis(moment), thing);
        }
        assert_eq!(all(&mut calendar, 2_999), [0u32; 0]);
        assert_eq!(all(&mut calendar, 5_000), [3, 2, 1]);
        assert_eq!(all(&mut calendar, 5_999), [0u32; 0]);
        assert_eq!(all(&mut calendar, u64::MAX), [4]);
        assert!(calendar.is_empty());
    }

    #[test]
    fn a_copy_keeps_what_the_original_gave_away() {
        let mut calendar = Calendar::default();
        (0..3 * PIECE as u32).for_each(|thing| calendar.after(Millis(0), thing));
        let mut copy = calendar.clone();
        let bytes = postcard::to_stdvec(&calendar).unwrap();
        assert_eq!(all(&mut calendar, 1_000).len(), 3 * PIECE);
        calendar.after(Millis(0), 7);
        assert_eq!(postcard::to_stdvec(&copy).unwrap(), bytes);
        let mut back: Calendar<u32> = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(all(&mut back, 1_000), all(&mut copy, 1_000), "in the same order, too");
    }

    #[test]
    fn what_comes_due_together_goes_one_after_the_other_within_its_second() {
        let mut calendar = Calendar::default();
        let goes = |calendar: &mut Calendar<u32>, now| {
            let share = calendar.share(Millis(now), 2, 5);
            (0..share).map_while(|_| calendar.due(Millis(now))).count()
        };
        (0..9).for_each(|thing| calendar.after(Millis(3_000), thing));
        (0..7).for_each(|thing| calendar.after(Millis(4_000), thing));
        assert_eq!([3_999, 4_000, 4_300, 4_999].map(|now| goes(&mut calendar, now)), [0, 2, 2, 2]);
        // Three items are overdue. Items of this second are removed together with them.
        assert_eq!([5_000, 5_001, 5_002, 6_000, 6_001].map(|now| goes(&mut calendar, now)), [5, 2, 2, 1, 0]);
        assert!(calendar.is_empty());
    }

    #[test]
    fn only_what_is_wanted_stays() {
        let mut calendar = Calendar::default();
        (0..10u32).for_each(|thing| calendar.after(Millis(u64::from(thing % 2) * 1_000), thing));
        calendar.retain(|thing| thing % 2 == 0);
        assert_eq!(all(&mut calendar, 9_000), [8, 6, 4, 2, 0]);
    }
}

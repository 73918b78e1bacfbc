//! The collections that revocation rules are kept in.
//!
//! A follower changes its rules one by one, behind a lock, and never copies them: hash maps that are changed in place are enough. A server
//! copies its rules for a snapshot between two commits; it brings collections whose copies share everything that has not changed since.

use std::collections::BTreeMap;
use std::hash::Hash;

use hashbrown::{Equivalent, HashMap};

use super::rule_table::RevocationEntry;
use super::target::Target;
use crate::seq::Millis;

/// The collections of a set of rules.
pub trait RuleStorage: Clone + Default {
    /// The entries by a part of their target.
    type Map<K: Clone + Eq + Hash>: RuleMap<K>;
    /// When to check which rules can be dropped.
    type Schedule: RuleSchedule;
}

/// Entries by a part of their target.
pub trait RuleMap<K>: Clone + Default {
    /// Whether there is no entry.
    fn is_empty(&self) -> bool;
    /// The entry of a key.
    fn get<Q: Equivalent<K> + Hash + ?Sized>(&self, key: &Q) -> Option<&RevocationEntry>;
    /// The entry of a key; inserts `entry` where there is none.
    fn or_insert(&mut self, key: K, entry: RevocationEntry) -> &mut RevocationEntry;
    /// Removes the entry of a key.
    fn remove<Q: Equivalent<K> + Hash + ?Sized>(&mut self, key: &Q) -> Option<RevocationEntry>;
    /// Iterates over the entries, in no particular order.
    fn iter<'a>(&'a self) -> impl Iterator<Item = (&'a K, &'a RevocationEntry)>
    where
        K: 'a;
}

/// Targets by the second in which their rules may be dropped.
pub trait RuleSchedule: Clone + Default {
    /// Schedules a target for the second after `moment`.
    fn after(&mut self, moment: Millis, target: Target);
    /// Removes and returns a target that is due. Within a second the targets added last come first.
    fn due(&mut self, now: Millis) -> Option<Target>;
}

/// Collections that are changed in place.
#[derive(Clone, Copy, Default, Debug)]
pub struct InPlace;

impl RuleStorage for InPlace {
    type Map<K: Clone + Eq + Hash> = HashMap<K, RevocationEntry>;
    type Schedule = BTreeMap<u64, Vec<Target>>;
}

impl<K: Clone + Eq + Hash> RuleMap<K> for HashMap<K, RevocationEntry> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn get<Q: Equivalent<K> + Hash + ?Sized>(&self, key: &Q) -> Option<&RevocationEntry> {
        self.get(key)
    }

    fn or_insert(&mut self, key: K, entry: RevocationEntry) -> &mut RevocationEntry {
        self.entry(key).or_insert(entry)
    }

    fn remove<Q: Equivalent<K> + Hash + ?Sized>(&mut self, key: &Q) -> Option<RevocationEntry> {
        let gone = self.remove(key)?;
        // Most rules of an incident end together: the room that they took is given back.
        if self.capacity() > 1_024 && self.len() < self.capacity() / 8 {
            self.shrink_to(self.len() * 2);
        }
        Some(gone)
    }

    fn iter<'a>(&'a self) -> impl Iterator<Item = (&'a K, &'a RevocationEntry)>
    where
        K: 'a,
    {
        self.iter()
    }
}

impl RuleSchedule for BTreeMap<u64, Vec<Target>> {
    fn after(&mut self, moment: Millis, target: Target) {
        self.entry(moment.seconds().saturating_add(1)).or_default().push(target);
    }

    fn due(&mut self, now: Millis) -> Option<Target> {
        let mut first = self.first_entry().filter(|first| *first.key() <= now.seconds())?;
        let target = first.get_mut().pop();
        if first.get().is_empty() {
            first.remove();
        }
        target
    }
}

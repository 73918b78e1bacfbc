//! Rules whose copies share everything that has not changed since the copy was taken: a snapshot of the state is such a copy.

use std::hash::Hash;

use hashbrown::Equivalent;

use super::rule_storage::{RuleMap, RuleSchedule, RuleStorage};
use super::{RevocationEntry, RuleSet, Target};
use crate::persistent::{Calendar, PersistentMap};
use mayfly_verify::seq::Millis;

/// The rules in force, as the state keeps them.
pub type SharedRules = RuleSet<SharedStorage>;

/// Collections whose copies share their parts.
#[derive(Clone, Copy, Default, Debug)]
pub struct SharedStorage;

impl RuleStorage for SharedStorage {
    type Map<K: Clone + Eq + Hash> = PersistentMap<K, RevocationEntry>;
    type Schedule = Calendar<Target>;
}

impl<K: Clone + Eq + Hash> RuleMap<K> for PersistentMap<K, RevocationEntry> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn get<Q: Equivalent<K> + Hash + ?Sized>(&self, key: &Q) -> Option<&RevocationEntry> {
        self.get(key)
    }

    fn or_insert(&mut self, key: K, entry: RevocationEntry) -> &mut RevocationEntry {
        self.or_insert(key, entry)
    }

    fn remove<Q: Equivalent<K> + Hash + ?Sized>(&mut self, key: &Q) -> Option<RevocationEntry> {
        self.remove(key)
    }

    fn iter<'a>(&'a self) -> impl Iterator<Item = (&'a K, &'a RevocationEntry)>
    where
        K: 'a,
    {
        self.iter()
    }
}

impl RuleSchedule for Calendar<Target> {
    fn after(&mut self, moment: Millis, target: Target) {
        self.after(moment, target);
    }

    fn due(&mut self, now: Millis) -> Option<Target> {
        self.due(now)
    }
}

//! When credentials are looked at, and forgotten.

use std::hash::BuildHasher;

use super::super::intern::Slot;
use super::super::tasks::Tasks;
use super::entry::stem;
use super::{Credentials, Entry};
use crate::seq::Millis;

impl Credentials {
    /// Goes through up to `most` entries whose time has come: what ended is no longer counted, what may be forgotten is.
    pub(in super::super) fn expire(&mut self, now: Millis, most: usize, tasks: &mut Tasks) -> usize {
        let mut looked = 0;
        while looked < most {
            let Some(page) = self.checks.due(now) else { break };
            for slot in self.slab.due(page, now.seconds()) {
                looked += usize::from(self.look(slot, now, tasks));
            }
        }
        looked
    }

    /// Looks at a place. Whether anything there had come to its time.
    fn look(&mut self, slot: Slot, now: Millis, tasks: &mut Tasks) -> bool {
        let Some((_, entry)) = self.slab.get(slot) else { return false };
        let (kept_until, next) = (entry.kept_until(), if entry.ended() { entry.kept_until() } else { entry.expires_at() });
        if next.seconds() >= now.seconds() {
            self.check_after(slot, next);
            return false;
        }
        if kept_until.seconds() < now.seconds() {
            self.remove(slot, tasks);
        } else {
            let ended = self.slab.get_mut(slot).is_some_and(Entry::end);
            self.live -= usize::from(ended);
            self.check_after(slot, kept_until);
        }
        true
    }

    /// Has a place looked at once a moment has passed, with the next second.
    pub(super) fn check_after(&mut self, slot: Slot, moment: Millis) {
        if let Some(page) = self.slab.look(slot, moment.seconds().saturating_add(1)) {
            self.checks.after(moment, page);
        }
    }

    fn remove(&mut self, slot: Slot, tasks: &mut Tasks) {
        let Some((_, entry)) = self.slab.get(slot) else { return };
        self.by_stem.remove(self.hasher.hash_one(stem(entry.id().as_bytes())), slot);
        let Some(mut entry) = self.slab.take(slot) else { return };
        if entry.answers() {
            self.names.forget_request(Some(entry.profile()));
        }
        self.live -= usize::from(entry.end());
        self.names.release(entry.profile());
        if let Some(task) = tasks.at_mut(entry.task()) {
            task.credentials -= 1;
        }
        self.free.push(slot);
    }
}

//! When credentials are looked at, and forgotten.

use std::hash::BuildHasher;

use super::super::intern::Slot;
use super::super::tasks::Tasks;
use super::{Credentials, Entry, NO_REQUEST};
use crate::seq::Millis;

impl Credentials {
    /// Goes through up to `most` entries whose time has come: what ended is no longer counted, what may be forgotten is.
    pub(in super::super) fn expire(&mut self, now: Millis, most: usize, tasks: &mut Tasks) -> usize {
        let mut looked = 0;
        while looked < most {
            let Some(slot) = self.checks.due(now) else { break };
            looked += 1;
            let Some((_, entry)) = self.slab.get(slot) else { continue };
            let kept_until = entry.kept_until();
            if kept_until < now {
                self.remove(slot, tasks);
            } else {
                let ended = self.slab.get_mut(slot).is_some_and(Entry::end);
                self.live -= usize::from(ended);
                self.checks.after(kept_until, slot);
            }
        }
        looked
    }

    fn remove(&mut self, slot: Slot, tasks: &mut Tasks) {
        let Some((_, entry)) = self.slab.get(slot) else { return };
        let request = entry.request();
        self.by_id.remove(self.hasher.hash_one(entry.id()), slot);
        if request != NO_REQUEST {
            self.forget(request, slot);
        }
        let Some(mut entry) = self.slab.take(slot) else { return };
        if request != NO_REQUEST {
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

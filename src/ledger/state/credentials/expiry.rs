//! When credentials are looked at, and forgotten.

use std::hash::BuildHasher;

use super::super::intern::Slot;
use super::super::tasks::Tasks;
use super::Credentials;
use crate::seq::Millis;

impl Credentials {
    /// Has an entry looked at after a moment.
    pub(super) fn check_at(&mut self, slot: Slot, when: Millis) {
        self.checks.entry(when.seconds() + 1).or_default().push(slot);
    }

    /// Goes through up to `most` entries whose time has come: what ended is no longer counted, what may be forgotten is.
    pub(in super::super) fn expire(&mut self, now: Millis, most: usize, tasks: &mut Tasks) -> usize {
        let mut looked = 0;
        while looked < most {
            let Some(mut due) = self.checks.first_entry() else { break };
            if *due.key() > now.seconds() {
                break;
            }
            let Some(slot) = due.get_mut().pop() else {
                due.remove();
                continue;
            };
            looked += 1;
            let Some(live) = self.slab[slot as usize].as_mut() else { continue };
            if !live.ended {
                live.ended = true;
                self.live -= 1;
            }
            if live.kept_until < now {
                self.forget(slot, tasks);
            } else {
                let when = live.kept_until;
                self.check_at(slot, when);
            }
        }
        looked
    }

    fn forget(&mut self, slot: Slot, tasks: &mut Tasks) {
        let Some(live) = self.slab[slot as usize].clone() else { return };
        if let Ok(found) = self.by_id.find_entry(self.hasher.hash_one(live.id), |s| *s == slot) {
            found.remove();
        }
        if live.request != [0; 16] {
            if let Ok(found) = self.by_request.find_entry(self.hasher.hash_one(live.request), |s| *s == slot) {
                found.remove();
            }
            if let Some(caller) = self.names.callers.value(live.caller).cloned() {
                self.forget_request(&caller);
            }
        }
        self.names.release(&live);
        if let Some(task) = tasks.at_mut(live.task) {
            task.credentials -= 1;
        }
        self.slab[slot as usize] = None;
        self.free.push(slot);
    }
}

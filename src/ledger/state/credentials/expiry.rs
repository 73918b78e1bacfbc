//! When credentials are looked at, and forgotten.

use super::super::intern::Slot;
use super::super::tasks::Tasks;
use super::{Credentials, ENDED, Past};
use crate::seq::Millis;

/// What a page costs as many entries as: all of it is read, and copied where a snapshot has it. With time pages hold entries that end in many
/// different seconds, and few of them in each.
const LOOKS_AT_A_PAGE: usize = 8;

impl Credentials {
    /// Goes through up to `most` entries whose time has come: of what ended only the request is remembered, and forgotten when it may be. Half of
    /// it is for the one and half for the other: neither keeps the other from its turn.
    pub(in super::super) fn expire(&mut self, now: Millis, most: usize, tasks: &mut Tasks) {
        let mut looked = 0;
        while looked < most / 2 {
            let Some(page) = self.checks.due(now) else { break };
            looked += LOOKS_AT_A_PAGE;
            for slot in self.slab.due(page, now.seconds()) {
                looked += usize::from(self.look(slot, now, tasks));
            }
        }
        for _ in 0..most / 2 {
            let Some((slot, past)) = self.ended.due(now) else { break };
            self.by_stem.remove(self.hash_of(past.id().as_bytes()), slot | ENDED);
            self.names.requesters.release(past.requester);
        }
    }

    /// Looks at a place. Whether anything there had come to its time.
    fn look(&mut self, slot: Slot, now: Millis, tasks: &mut Tasks) -> bool {
        let Some((_, entry)) = self.slab.get(slot) else { return false };
        let end = entry.expires_at();
        if end.seconds() >= now.seconds() {
            self.check_after(slot, end);
            return false;
        }
        self.remove(slot, now, tasks);
        true
    }

    /// Has a place looked at once a moment has passed, with the next second.
    pub(super) fn check_after(&mut self, slot: Slot, moment: Millis) {
        if let Some(page) = self.slab.look(slot, moment.seconds().saturating_add(1)) {
            self.checks.after(moment, page);
        }
    }

    /// Its credential has ended: what is left is the request that it answered, as long as that is remembered.
    fn remove(&mut self, slot: Slot, now: Millis, tasks: &mut Tasks) {
        let Some((_, entry)) = self.slab.get(slot) else { return };
        let hash = self.hash_of(entry.id().as_bytes());
        self.by_stem.remove(hash, slot);
        let Some(entry) = self.slab.take(slot) else { return };
        if entry.answers() {
            let requester = self.names.requester_of(entry.profile());
            match requester.filter(|_| entry.kept_until().seconds() >= now.seconds()) {
                Some(requester) => {
                    let past = self.ended.add(Past::new(entry.id(), entry.at(), requester), entry.kept_until());
                    self.by_stem.insert(hash, past | ENDED);
                }
                None => self.names.forget_request(Some(entry.profile())),
            }
        }
        self.names.release(entry.profile(), now);
        if let Some(task) = tasks.at_mut(entry.task()) {
            task.credentials -= 1;
        }
        self.free.push(slot);
    }
}

//! Removes expired credentials, and later their requests.

use super::super::intern::Slot;
use super::super::tasks::Tasks;
use super::expiry_pages::{ExpiryPage, make_room};
use super::{CredentialEntry, Credentials, ENDED, ExpiredRequest};
use mayfly_verify::seq::Millis;

impl Credentials {
    /// Processes up to `most` due entries, and the rest of the last page. Of an expired credential only the request is remembered, until
    /// that is due as well. Half of `most` is for credentials and half for requests, so that neither delays the other.
    pub(in super::super) fn expire(&mut self, now: Millis, most: usize, tasks: &mut Tasks) {
        let mut gone = 0;
        while gone < most / 2 {
            let Some((first, page)) = self.slab.due(now) else { break };
            self.warm_for(page.entries().iter().map(|entry| entry.id()));
            for (slot, entry) in (first..).zip(page.entries()) {
                self.remove(slot, entry, now, tasks);
            }
            // Each page has a cost of its own.
            gone += 1 + page.entries().len();
        }
        let mut forgotten = 0;
        while forgotten < most / 2 {
            let Some((first, page)) = self.ended.due(now) else { break };
            self.warm_for(page.iter().map(ExpiredRequest::id));
            for (slot, past) in (first..).zip(&*page) {
                self.by_stem.remove(self.hash_of(past.id().as_bytes()), slot | ENDED);
                self.names.requesters.release(past.requester);
            }
            forgotten += 1 + page.len();
        }
    }

    /// Removes an expired credential; its request stays as long as it must be remembered.
    fn remove(&mut self, slot: Slot, entry: &CredentialEntry, now: Millis, tasks: &mut Tasks) {
        let hash = self.hash_of(entry.id().as_bytes());
        let requester = if entry.answers() { self.names.requester_of(entry.profile()) } else { None };
        match requester.filter(|_| entry.kept_until().seconds() >= now.seconds()) {
            Some(requester) => {
                let past = self.ended.add(entry.kept_until(), |page| {
                    make_room(page, Vec::<ExpiredRequest>::MOST);
                    page.push(ExpiredRequest::new(entry.id(), entry.at(), requester));
                });
                self.by_stem.replace(hash, slot, past | ENDED);
            }
            None => {
                self.by_stem.remove(hash, slot);
                if entry.answers() {
                    self.names.forget_request(Some(entry.profile()));
                }
            }
        }
        self.names.release(entry.profile(), now);
        if let Some(task) = tasks.at_mut(entry.task()) {
            task.credentials -= 1;
        }
    }
}

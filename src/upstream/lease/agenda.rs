//! When each open lease is looked at next, so that a look costs what is due and not what is there.
//!
//! Time alone ends a lease at a moment that is known: its credential's end, its task's deadline, a missed heartbeat. Records that end
//! things name whom they concern, by credential or task; what names neither (a lock on a caller, a key) has every lease looked at once,
//! in pieces. Nothing here decides: a look reads the state.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::limits;
use crate::seq::{CredentialId, LeaseId, Millis, TaskId};

/// What is to become of a lease.
#[derive(Clone, PartialEq, Eq, Debug)]
enum At {
    /// Looked at, when it is this late.
    Look(Millis),
    /// It is nobody's: undone at its upstream, when the steady clock is there and there is place.
    Undo(Box<str>, u64),
    /// Somebody has it in hand.
    InHand,
}

/// Which records concern a lease: those about its credential or one that it rests on, its task or one above it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Names {
    pub credentials: Vec<CredentialId>,
    pub tasks: Vec<TaskId>,
}

struct Item {
    at: At,
    names: Names,
}

/// The order of work.
#[derive(Default)]
pub(super) struct Agenda {
    items: BTreeMap<LeaseId, Item>,
    looks: BTreeSet<(Millis, LeaseId)>,
    undoing: BTreeMap<Box<str>, BTreeSet<(u64, LeaseId)>>,
    of_credential: BTreeMap<CredentialId, BTreeSet<LeaseId>>,
    of_task: BTreeMap<TaskId, BTreeSet<LeaseId>>,
    /// Every lease is looked at: how far that has come.
    pass: Option<Bound<LeaseId>>,
}

impl Agenda {
    /// A lease that is new here is looked at now.
    pub fn learn(&mut self, id: LeaseId) {
        if let Entry::Vacant(new) = self.items.entry(id) {
            new.insert(Item { at: At::Look(Millis(0)), names: Names::default() });
            self.looks.insert((Millis(0), id));
        }
    }

    /// It is closed.
    pub fn forget(&mut self, id: LeaseId) {
        self.place(id, At::InHand);
        self.name(id, Names::default());
        self.items.remove(&id);
    }

    /// Something happened to it: it is looked at now, unless it is nobody's already.
    pub fn touch(&mut self, id: LeaseId) {
        if self.items.get(&id).is_some_and(|item| matches!(item.at, At::Look(_))) {
            self.place(id, At::Look(Millis(0)));
        }
    }

    /// The same for all that rest on a credential.
    pub fn touch_credential(&mut self, credential: CredentialId) {
        let all = self.of_credential.get(&credential).cloned();
        all.into_iter().flatten().for_each(|id| self.touch(id));
    }

    /// The same for all in a task and under it.
    pub fn touch_task(&mut self, task: TaskId) {
        let all = self.of_task.get(&task).cloned();
        all.into_iter().flatten().for_each(|id| self.touch(id));
    }

    /// The same for all, in pieces.
    pub fn touch_all(&mut self) {
        self.pass = Some(Bound::Unbounded);
    }

    /// Takes up to `most` that are to be looked at or undone by now. `room`: how many places an upstream has.
    pub fn take(&mut self, now: Millis, steady: u64, most: usize, room: impl Fn(&str) -> usize) -> Vec<LeaseId> {
        let mut taken: Vec<LeaseId> = Vec::new();
        for (upstream, queue) in &self.undoing {
            let ready = queue.iter().take_while(|(at, _)| *at <= steady).take(room(upstream));
            taken.extend(ready.take(most.saturating_sub(taken.len())).map(|(_, id)| *id));
        }
        let due = self.looks.iter().take_while(|(at, _)| *at <= now);
        taken.extend(due.take(most.saturating_sub(taken.len())).map(|(_, id)| *id));
        self.go_on(most, &mut taken);
        taken.iter().for_each(|id| self.place(*id, At::InHand));
        taken
    }

    /// Goes on with looking at all.
    fn go_on(&mut self, most: usize, taken: &mut Vec<LeaseId>) {
        let Some(from) = self.pass else { return };
        let mut last = None;
        for (id, item) in self.items.range((from, Bound::Unbounded)).take(most.saturating_sub(taken.len())) {
            last = Some(*id);
            if matches!(item.at, At::Look(_)) && !taken.contains(id) {
                taken.push(*id);
            }
        }
        match last {
            Some(id) => self.pass = Some(Bound::Excluded(id)),
            None if taken.len() < most => self.pass = None,
            None => {}
        }
    }

    /// It is somebody's, or may become so: looked at again at `when`, or when a record concerns it. At the latest after
    /// `limits::LEASE_LOOK_AGAIN_MS`, so that what is due depends on no record alone.
    pub fn later(&mut self, id: LeaseId, when: Millis, now: Millis, names: Option<Names>) {
        if let Some(names) = names {
            self.name(id, names);
        }
        self.place(id, At::Look(when.min(now.plus(limits::LEASE_LOOK_AGAIN_MS))));
    }

    /// It is nobody's: undone when the steady clock is at `at`.
    pub fn undo(&mut self, id: LeaseId, upstream: &str, at: u64) {
        self.place(id, At::Undo(upstream.into(), at));
    }

    /// It is undone now, if it is waiting for that.
    pub fn hurry(&mut self, id: LeaseId) {
        if let Some(Item { at: At::Undo(upstream, _), .. }) = self.items.get(&id) {
            let upstream = upstream.clone();
            self.place(id, At::Undo(upstream, 0));
        }
    }

    /// No lease is open, as far as is known.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How long nothing is due, milliseconds, where not forever; and whether something is that finds no place.
    pub fn next(&self, now: Millis, steady: u64, room: impl Fn(&str) -> usize) -> (Option<u64>, bool) {
        let look = self.looks.first().map(|(at, _)| at.since(now));
        let (mut undo, mut full) = (None, false);
        for (upstream, queue) in &self.undoing {
            let Some((at, _)) = queue.first() else { continue };
            if room(upstream) > 0 {
                undo = Some(undo.map_or(*at, |other: u64| other.min(*at)));
            } else {
                full |= *at <= steady;
            }
        }
        let waits = [look, undo.map(|at| at.saturating_sub(steady)), self.pass.map(|_| 0)];
        (waits.into_iter().flatten().min(), full)
    }

    fn place(&mut self, id: LeaseId, at: At) {
        let Some(item) = self.items.get_mut(&id) else { return };
        match std::mem::replace(&mut item.at, at.clone()) {
            At::Look(when) => {
                self.looks.remove(&(when, id));
            }
            At::Undo(upstream, when) => {
                if let Some(queue) = self.undoing.get_mut(&upstream) {
                    queue.remove(&(when, id));
                    if queue.is_empty() {
                        self.undoing.remove(&upstream);
                    }
                }
            }
            At::InHand => {}
        }
        match at {
            At::Look(when) => {
                self.looks.insert((when, id));
            }
            At::Undo(upstream, when) => {
                self.undoing.entry(upstream).or_default().insert((when, id));
            }
            At::InHand => {}
        }
    }

    fn name(&mut self, id: LeaseId, names: Names) {
        let Some(item) = self.items.get_mut(&id) else { return };
        if item.names == names {
            return;
        }
        let before = std::mem::replace(&mut item.names, names.clone());
        before.credentials.iter().for_each(|c| remove(&mut self.of_credential, c, id));
        before.tasks.iter().for_each(|t| remove(&mut self.of_task, t, id));
        for credential in names.credentials {
            self.of_credential.entry(credential).or_default().insert(id);
        }
        for task in names.tasks {
            self.of_task.entry(task).or_default().insert(id);
        }
    }
}

fn remove<K: Ord>(of: &mut BTreeMap<K, BTreeSet<LeaseId>>, key: &K, id: LeaseId) {
    if let Some(all) = of.get_mut(key) {
        all.remove(&id);
        if all.is_empty() {
            of.remove(key);
        }
    }
}

#[cfg(test)]
#[path = "agenda_tests.rs"]
mod tests;

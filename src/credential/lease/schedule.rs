//! The schedule of open leases: when each is checked next. A pass therefore costs as much as the leases that are due, not as all open
//! leases.
//!
//! Without any record, a lease ends only at a known time: its credential's expiry, its task's deadline, a missed heartbeat. Records that
//! end something usually name a credential or a task. For a record that names neither (a lock on a caller, a key change) all leases are
//! checked at once, in pieces. Nothing here decides whether a lease ends: the check reads the state.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use mayfly_base::limits;
use mayfly_verify::seq::{CredentialId, LeaseId, Millis, TaskId};

/// The next step for a lease.
#[derive(Clone, PartialEq, Eq, Debug)]
enum ScheduledStep {
    /// Check the lease at this time.
    Look(Millis),
    /// Undo the lease at this upstream, once the steady clock reaches the value and a place is free.
    Undo(Box<str>, u64),
    /// The lease is being checked or undone now.
    InHand,
}

/// The records that concern a lease: records about its credential or one of that credential's ancestors, and about its task or a task above
/// it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct LeaseDependencies {
    pub credentials: Vec<CredentialId>,
    pub tasks: Vec<TaskId>,
}

struct Item {
    at: ScheduledStep,
    names: LeaseDependencies,
}

/// The schedule.
#[derive(Default)]
pub(super) struct LeaseSchedule {
    items: BTreeMap<LeaseId, Item>,
    looks: BTreeSet<(Millis, LeaseId)>,
    undoing: BTreeMap<Box<str>, BTreeSet<(u64, LeaseId)>>,
    of_credential: BTreeMap<CredentialId, BTreeSet<LeaseId>>,
    of_task: BTreeMap<TaskId, BTreeSet<LeaseId>>,
    /// Set while all leases are being checked: the position reached.
    pass: Option<Bound<LeaseId>>,
}

impl LeaseSchedule {
    /// Adds a lease and schedules a check now, if the lease is not known yet.
    pub fn learn(&mut self, id: LeaseId) {
        if let Entry::Vacant(new) = self.items.entry(id) {
            new.insert(Item { at: ScheduledStep::Look(Millis(0)), names: LeaseDependencies::default() });
            self.looks.insert((Millis(0), id));
        }
    }

    /// Removes a closed lease.
    pub fn forget(&mut self, id: LeaseId) {
        self.place(id, ScheduledStep::InHand);
        self.name(id, LeaseDependencies::default());
        self.items.remove(&id);
    }

    /// Schedules a check now, after a record about the lease. A lease that is already to be undone stays so.
    pub fn touch(&mut self, id: LeaseId) {
        if self.items.get(&id).is_some_and(|item| matches!(item.at, ScheduledStep::Look(_))) {
            self.place(id, ScheduledStep::Look(Millis(0)));
        }
    }

    /// The same for all leases that depend on a credential.
    pub fn touch_credential(&mut self, credential: CredentialId) {
        let all = self.of_credential.get(&credential).cloned();
        all.into_iter().flatten().for_each(|id| self.touch(id));
    }

    /// The same for all leases in a task and below it.
    pub fn touch_task(&mut self, task: TaskId) {
        let all = self.of_task.get(&task).cloned();
        all.into_iter().flatten().for_each(|id| self.touch(id));
    }

    /// The same for all leases, in pieces.
    pub fn touch_all(&mut self) {
        self.pass = Some(Bound::Unbounded);
    }

    /// Takes up to `most` leases that are due to be checked or undone. `room`: the number of free places of an upstream.
    pub fn take(&mut self, now: Millis, steady: u64, most: usize, room: impl Fn(&str) -> usize) -> Vec<LeaseId> {
        let mut taken: Vec<LeaseId> = Vec::new();
        for (upstream, queue) in &self.undoing {
            let ready = queue.iter().take_while(|(at, _)| *at <= steady).take(room(upstream));
            taken.extend(ready.take(most.saturating_sub(taken.len())).map(|(_, id)| *id));
        }
        let due = self.looks.iter().take_while(|(at, _)| *at <= now);
        taken.extend(due.take(most.saturating_sub(taken.len())).map(|(_, id)| *id));
        self.go_on(most, &mut taken);
        taken.iter().for_each(|id| self.place(*id, ScheduledStep::InHand));
        taken
    }

    /// Continues the check of all leases.
    fn go_on(&mut self, most: usize, taken: &mut Vec<LeaseId>) {
        let Some(from) = self.pass else { return };
        let mut last = None;
        for (id, item) in self.items.range((from, Bound::Unbounded)).take(most.saturating_sub(taken.len())) {
            last = Some(*id);
            if matches!(item.at, ScheduledStep::Look(_)) && !taken.contains(id) {
                taken.push(*id);
            }
        }
        match last {
            Some(id) => self.pass = Some(Bound::Excluded(id)),
            None if taken.len() < most => self.pass = None,
            None => {}
        }
    }

    /// Schedules the next check of a lease that is in use or being made: at `when`, or when a record concerns the lease. At the latest
    /// after `limits::LEASE_LOOK_AGAIN_MS`, so that no lease depends on a record alone.
    pub fn later(&mut self, id: LeaseId, when: Millis, now: Millis, names: Option<LeaseDependencies>) {
        if let Some(names) = names {
            self.name(id, names);
        }
        self.place(id, ScheduledStep::Look(when.min(now.plus(limits::LEASE_LOOK_AGAIN_MS))));
    }

    /// Schedules undoing at the steady time `at`.
    pub fn undo(&mut self, id: LeaseId, upstream: &str, at: u64) {
        self.place(id, ScheduledStep::Undo(upstream.into(), at));
    }

    /// Undoes a lease now, if it is waiting to be undone.
    pub fn hurry(&mut self, id: LeaseId) {
        if let Some(Item { at: ScheduledStep::Undo(upstream, _), .. }) = self.items.get(&id) {
            let upstream = upstream.clone();
            self.place(id, ScheduledStep::Undo(upstream, 0));
        }
    }

    /// Whether no open lease is known.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The time until the next lease is due, in milliseconds, if any; and whether a lease is due but has no place.
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

    fn place(&mut self, id: LeaseId, at: ScheduledStep) {
        let Some(item) = self.items.get_mut(&id) else { return };
        match std::mem::replace(&mut item.at, at.clone()) {
            ScheduledStep::Look(when) => {
                self.looks.remove(&(when, id));
            }
            ScheduledStep::Undo(upstream, when) => {
                if let Some(queue) = self.undoing.get_mut(&upstream) {
                    queue.remove(&(when, id));
                    if queue.is_empty() {
                        self.undoing.remove(&upstream);
                    }
                }
            }
            ScheduledStep::InHand => {}
        }
        match at {
            ScheduledStep::Look(when) => {
                self.looks.insert((when, id));
            }
            ScheduledStep::Undo(upstream, when) => {
                self.undoing.entry(upstream).or_default().insert((when, id));
            }
            ScheduledStep::InHand => {}
        }
    }

    fn name(&mut self, id: LeaseId, names: LeaseDependencies) {
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

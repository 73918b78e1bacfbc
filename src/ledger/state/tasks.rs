//! Tasks in the state: immutable terms behind an `Arc`, and the fields that change.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::intern::Slot;
pub use super::task_approval::TaskApproval;
pub use super::task_hold::{TaskClosure, TaskHold};
pub use super::task_spec::{TaskDelegation, TaskSpec};
use super::uses::TaskUseCounts;
use crate::persistent::{Calendar, PagedVec, PersistentMap};
use crate::record::{Principal, TaskOpened, TaskOutcome};
use mayfly_base::limits;
use mayfly_identity::caller::Caller;
use mayfly_verify::seq::{CredentialId, Millis, Seq, TaskId};

/// A task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    /// The terms that the task was opened with.
    pub terms: Arc<TaskSpec>,
    /// When the task ends.
    pub deadline: Millis,
    /// The last heartbeat.
    pub alive_at: Millis,
    /// Holds on this task itself.
    pub holds: Vec<TaskHold>,
    /// The end of the task, if it was closed.
    pub closed: Option<TaskClosure>,
    /// The task waits for an approval.
    pub pending: bool,
    /// The approval that the task waits for or was opened with.
    pub approved: Option<Arc<TaskApproval>>,
    /// The task is not known to be over, and counts towards its opener's limit.
    pub counted: bool,
    /// Number of credentials ever issued in the task.
    pub issued: u64,
    /// Number of credentials ever issued in the task or under it.
    pub issued_under: u64,
    /// The latest expiry of those credentials.
    pub ends_under: Millis,
    /// Uses and authorizations in the task.
    pub done: TaskUseCounts,
    /// Number of credentials in memory that name the task.
    pub credentials: u32,
    /// Number of tasks in memory that have this task as their parent.
    pub children: u32,
    parent: Option<Slot>,
}

/// The phase of a task, as it is shown to people and callers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TaskPhase {
    /// The task waits for an approval.
    PendingApproval,
    /// The task accepts grants.
    Active,
    /// The task or one above it is on hold.
    Held,
    /// The task or one above it ended.
    Over(TaskOutcome),
}

/// Tasks per page: even the largest page, with holds and ends, is copied in a microsecond.
const PAGE: usize = 32;

/// All tasks in memory.
#[derive(Clone, Default)]
pub struct Tasks {
    slots: PagedVec<Option<Task>, PAGE>,
    free: Vec<Slot>,
    index: PersistentMap<TaskId, Slot>,
    /// When each task is to be checked for removal from memory.
    checks: Calendar<TaskId>,
    /// Number of tasks that each caller opened and that are not known to be over.
    opened_by: PersistentMap<Arc<str>, u32>,
    /// Bytes of the terms of each caller's tasks in memory, as far as they count ([`TaskSpec::counted_bytes`]), and of all tasks. Computed
    /// from the terms, so snapshots do not contain them.
    bytes_of: PersistentMap<Arc<str>, u64>,
    bytes: u64,
    /// Terms of recently opened tasks, with which the next task shares equal parts. Affects only memory use.
    recent: Vec<Arc<TaskSpec>>,
}

/// Number of recent terms: a few callers with a few kinds of task each.
const RECENT: usize = 8;

impl Serialize for Tasks {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        (&self.slots, &self.free, &self.checks, &self.opened_by).serialize(s)
    }
}

impl<'de> Deserialize<'de> for Tasks {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let (slots, free, checks, opened_by): (PagedVec<Option<Task>, PAGE>, _, _, _) = Deserialize::deserialize(d)?;
        let index = slots.iter().enumerate().filter_map(|(i, t)| t.as_ref().map(|t| (t.terms.id, i as Slot))).collect();
        let mut tasks = Tasks { free, index, checks, opened_by, ..Tasks::default() };
        for mut task in slots.iter().cloned() {
            if let Some(task) = &mut task {
                // Terms that were decoded individually share nothing yet.
                task.terms = tasks.shared(TaskSpec::clone(&task.terms));
                let terms = task.terms.clone();
                tasks.count_bytes(&terms);
            }
            tasks.slots.push(task);
        }
        Ok(tasks)
    }
}

impl Tasks {
    /// The task with this id, if it is in memory.
    pub fn get(&self, id: &TaskId) -> Option<&Task> {
        self.slot_of(id).and_then(|s| self.at(s))
    }

    /// The slot of a task.
    pub fn slot_of(&self, id: &TaskId) -> Option<Slot> {
        self.index.get(id).copied()
    }

    /// The task at a slot.
    pub fn at(&self, slot: Slot) -> Option<&Task> {
        self.slots.get(slot as usize).and_then(Option::as_ref)
    }

    pub(super) fn at_mut(&mut self, slot: Slot) -> Option<&mut Task> {
        self.slots.get_mut(slot as usize).and_then(Option::as_mut)
    }

    pub(super) fn get_mut(&mut self, id: &TaskId) -> Option<&mut Task> {
        self.slot_of(id).and_then(|s| self.at_mut(s))
    }

    /// Number of slots, for walking them in pieces.
    pub fn places(&self) -> Slot {
        self.slots.len() as Slot
    }

    /// Number of tasks in memory.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether no task is in memory.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Number of tasks that this caller opened and that are not known to be over. A task that expires is uncounted with one of the next
    /// commits.
    pub fn opened_by(&self, caller: &str) -> u32 {
        self.opened_by.get(caller).copied().unwrap_or(0)
    }

    /// Counted bytes of the terms of this caller's tasks in memory.
    pub fn bytes_of(&self, caller: &str) -> u64 {
        self.bytes_of.get(caller).copied().unwrap_or(0)
    }

    /// Counted bytes of the terms of all tasks in memory.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn count_bytes(&mut self, terms: &TaskSpec) {
        let bytes = terms.counted_bytes();
        if bytes > 0 {
            *self.bytes_of.or_insert(terms.opener.clone(), 0) += bytes;
            self.bytes += bytes;
        }
    }

    fn uncount_bytes(&mut self, terms: &TaskSpec) {
        let bytes = terms.counted_bytes();
        if bytes == 0 {
            return;
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Some(own) = self.bytes_of.value_mut(&terms.opener) {
            *own = own.saturating_sub(bytes);
            if *own == 0 {
                self.bytes_of.remove(&terms.opener);
            }
        }
    }

    /// All tasks in memory, by slot.
    pub fn iter(&self) -> impl Iterator<Item = &Task> {
        self.slots.iter().flatten()
    }

    /// The given task and the tasks above it, up to the root.
    pub fn upwards<'a>(&'a self, task: &'a Task) -> impl Iterator<Item = &'a Task> {
        std::iter::successors(Some(task), |t| t.parent.and_then(|p| self.at(p))).take(limits::TASK_DEPTH)
    }

    /// The phase of a task at a moment, taking the tasks above it into account.
    pub fn phase(&self, task: &Task, now: Millis) -> TaskPhase {
        let (mut held, mut pending) = (false, false);
        for t in self.upwards(task) {
            if let Some(closed) = &t.closed {
                return TaskPhase::Over(closed.outcome);
            }
            if now >= t.deadline || t.silent(now) || t.lapsed(now) {
                return TaskPhase::Over(TaskOutcome::Expired);
            }
            pending |= t.pending;
            held |= !t.holds.is_empty();
        }
        // If a task above is over, this task is over, whatever it waits for.
        match (pending, held) {
            (true, _) => TaskPhase::PendingApproval,
            (false, true) => TaskPhase::Held,
            (false, false) => TaskPhase::Active,
        }
    }

    pub(super) fn open(&mut self, opened: &TaskOpened, id: TaskId, seq: Seq, revision: Seq, now: Millis) {
        let parent = TaskId::from_slice(&opened.parent).and_then(|p| self.slot_of(&p));
        let (mut path, mut owners) = match parent.and_then(|p| self.at(p)) {
            Some(p) => (p.terms.path.clone(), p.terms.owners.to_vec()),
            None => (Vec::new(), Vec::new()),
        };
        path.push(id);
        owners.push(opened.owner.clone().unwrap_or_default());
        let terms = TaskSpec {
            id,
            path,
            owners: owners.into(),
            opener: opened.opener.as_str().into(),
            callers: opened.callers.iter().map(|c| c.as_str().into()).collect(),
            environment: opened.environment.as_str().into(),
            purpose: opened.purpose.as_str().into(),
            allowance: Arc::new(opened.allowance.clone().unwrap_or_default()),
            opened_at: Millis(opened.opened_at),
            max_deadline: Millis(opened.max_deadline),
            heartbeat: opened.heartbeat,
            policy: opened.policy_version,
            svid: opened.svid.clone().map(Arc::new),
            behalf: TaskDelegation::of(opened),
            ancestor: CredentialId::from_slice(&opened.ancestor),
            break_glass: opened.break_glass,
            seq,
            revision,
        };
        *self.opened_by.or_insert(terms.opener.clone(), 0) += 1;
        self.count_bytes(&terms);
        if let Some(p) = parent.and_then(|p| self.at_mut(p)) {
            p.children += 1;
        }
        let deadline = Millis(opened.deadline);
        self.check_at(id, deadline, now);
        let task = Task {
            terms: self.shared(terms),
            deadline,
            alive_at: now,
            holds: Vec::new(),
            closed: None,
            // A break-glass task waits for its second person. A task below one is opened by a person who may act already.
            pending: !opened.approval.is_empty() || (opened.break_glass && parent.is_none()),
            approved: None,
            counted: true,
            issued: 0,
            issued_under: 0,
            done: TaskUseCounts::default(),
            ends_under: Millis(0),
            credentials: 0,
            children: 0,
            parent,
        };
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                (self.slots.len() - 1) as Slot
            }
        };
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = Some(task);
        }
        self.index.insert(id, slot);
    }

    fn shared(&mut self, mut terms: TaskSpec) -> Arc<TaskSpec> {
        let of_opener = |known: &&Arc<TaskSpec>| known.opener == terms.opener;
        let alike = self.recent.iter().filter(of_opener).position(|known| known.is_like(&terms));
        let known = self.recent.iter().enumerate().filter(|(_, known)| of_opener(known)).nth(alike.unwrap_or(0));
        if let Some((at, known)) = known.map(|(at, known)| (at, known.clone())) {
            terms.share(&known);
            if alike.is_some() {
                self.recent.remove(at);
            }
        }
        let terms = Arc::new(terms);
        self.recent.truncate(RECENT - 1);
        self.recent.insert(0, terms.clone());
        terms
    }

    /// Counts an issuance in the task at a slot and in all tasks above it. `end`: when the issued credential expires.
    pub(super) fn count_issued(&mut self, slot: Slot, end: Millis) {
        if let Some(task) = self.at_mut(slot) {
            task.issued += 1;
            task.credentials += 1;
        }
        let mut at = Some(slot);
        for _ in 0..limits::TASK_DEPTH {
            let Some(task) = at.and_then(|s| self.at_mut(s)) else { break };
            task.issued_under += 1;
            task.ends_under = task.ends_under.max(end);
            at = task.parent;
        }
    }

    /// A task was closed; schedules the check when its name may be forgotten.
    pub(super) fn closed(&mut self, id: TaskId, now: Millis) {
        if let Some(slot) = self.slot_of(&id) {
            self.over(slot);
        }
        self.check_at(id, now.plus(limits::REQUEST_ID_KEPT_MS), now);
    }

    /// Schedules a check of the task at `when`, or earlier if that is far away: most tasks are closed long before their deadline, and until
    /// the check their memory is held for nothing.
    fn check_at(&mut self, id: TaskId, when: Millis, now: Millis) {
        self.checks.after(when.min(now.plus(limits::REQUEST_ID_KEPT_MS)), id);
    }

    /// The scheduled checks.
    pub(super) fn checks(&self) -> &Calendar<TaskId> {
        &self.checks
    }

    /// Forgets up to `most` tasks that are over and that nothing in memory names.
    pub(super) fn expire(&mut self, now: Millis, most: usize) -> usize {
        let mut looked = 0;
        while looked < most {
            let Some(id) = self.checks.due(now) else { break };
            looked += 1;
            let Some(slot) = self.slot_of(&id) else { continue };
            let Some(task) = self.at(slot) else { continue };
            // By the task's own end: a task that is over because its parent is keeps its own time, so that its opener can still ask what
            // became of it.
            let end = task.closed.as_ref().map_or(task.deadline, |c| c.at.min(task.deadline));
            if end >= now {
                self.check_at(id, end, now);
                continue;
            }
            // The end of a break-glass task must be recorded first, even if no server ran when it ended.
            let unsaid = task.terms.break_glass && task.parent.is_none() && task.closed.is_none();
            let idle = task.credentials == 0 && task.children == 0 && !unsaid;
            let kept = end.plus(limits::REQUEST_ID_KEPT_MS);
            self.over(slot);
            if kept >= now {
                self.check_at(id, kept, now);
            } else if !idle {
                self.check_at(id, now.plus(60_000), now);
            } else {
                self.forget(slot);
            }
        }
        looked
    }

    fn forget(&mut self, slot: Slot) {
        let Some(task) = self.slots.get_mut(slot as usize).and_then(Option::take) else { return };
        self.index.remove(&task.terms.id);
        self.free.push(slot);
        if let Some(parent) = task.parent.and_then(|p| self.at_mut(p)) {
            parent.children -= 1;
        }
        if task.counted {
            self.uncount(&task.terms);
        }
        self.uncount_bytes(&task.terms);
    }

    /// The task at a slot is over: it no longer counts towards its opener's limit.
    fn over(&mut self, slot: Slot) {
        if !self.at(slot).is_some_and(|task| task.counted) {
            return;
        }
        let Some(task) = self.at_mut(slot) else { return };
        task.counted = false;
        let terms = task.terms.clone();
        self.uncount(&terms);
    }

    fn uncount(&mut self, terms: &TaskSpec) {
        if let Some(n) = self.opened_by.value_mut(&terms.opener) {
            *n -= 1;
            if *n == 0 {
                self.opened_by.remove(&terms.opener);
            }
        }
    }
}

impl Task {
    /// Whether the task missed its heartbeat. A task that waits for an approval needs no heartbeat.
    pub fn silent(&self, now: Millis) -> bool {
        !self.pending && self.terms.heartbeat > 0 && now > self.alive_at.plus(self.terms.heartbeat)
    }

    /// Whether the approval that the task waits for was not decided in time.
    pub fn lapsed(&self, now: Millis) -> bool {
        self.pending && self.approved.as_ref().is_some_and(|a| now >= a.until)
    }

    /// When the task ends by time alone: by its deadline, by a missed heartbeat, or by an approval that is not decided.
    pub fn ends(&self) -> Millis {
        let by_other = match (self.pending, self.terms.heartbeat) {
            (true, _) => self.approved.as_ref().map_or(self.deadline, |a| a.until),
            (false, 0) => self.deadline,
            (false, heartbeat) => self.alive_at.plus(heartbeat + 1),
        };
        by_other.min(self.deadline)
    }

    /// Whether the caller opened or owns the task: a person by issuer and subject, a workload by its SPIFFE ID.
    pub fn is_whose(&self, caller: &Caller) -> bool {
        let owner = self.terms.owners.last();
        *self.terms.opener == *caller.id().as_str()
            || owner.is_some_and(|owner| *owner == Principal::of(caller) || *owner == Principal::workload(caller.id()))
    }

    /// Whether this workload may act in the task.
    pub fn admits(&self, caller: &str) -> bool {
        *self.terms.opener == *caller || self.terms.callers.iter().any(|c| **c == *caller)
    }
}

#[cfg(test)]
#[path = "tasks_tests.rs"]
mod tests;

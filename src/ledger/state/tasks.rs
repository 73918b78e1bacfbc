//! Tasks as the fold knows them: immutable terms behind an `Arc`, and what changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::intern::Slot;
use crate::ledger::record::{Allowance, HoldRank, Identity, Outcome, SvidEvidence, TaskOpened, Who};
use crate::limits;
use crate::seq::{CredentialId, Millis, Seq, TaskId};

/// What a task was opened with. Only its deadline changes later.
#[derive(Debug, Serialize, Deserialize)]
pub struct Terms {
    /// Its id.
    pub id: TaskId,
    /// The task path: root first, this task last.
    pub path: Vec<TaskId>,
    /// The owner of each task on the path.
    pub owners: Vec<Identity>,
    /// The workload that opened it.
    pub opener: Box<str>,
    /// Workloads that may act in it besides the opener.
    pub callers: Vec<Box<str>>,
    /// Its environment.
    pub environment: Box<str>,
    /// What it is for, in the opener's words.
    pub purpose: Box<str>,
    /// What it may reach.
    pub allowance: Allowance,
    /// When it was decided.
    pub opened_at: Millis,
    /// Beyond this no extension goes.
    pub max_deadline: Millis,
    /// Milliseconds between heartbeats, 0 for none.
    pub heartbeat: u64,
    /// The policy version that it was decided with.
    pub policy: u64,
    /// The SVID that it was opened with.
    pub svid: Option<SvidEvidence>,
    /// The credential that its opener was identified by, where mayfly issued its SVID.
    pub ancestor: Option<CredentialId>,
    /// The seq of its record.
    pub seq: Seq,
    /// Its decision revision.
    pub revision: Seq,
}

/// Why a task is held, one per rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Who holds it.
    pub rank: HoldRank,
    /// Why.
    pub reason: Box<str>,
    /// The seq of its record.
    pub seq: Seq,
    /// Its author.
    pub by: Option<Box<Who>>,
    /// Since when.
    pub since: Millis,
}

impl Hold {
    /// Whether a resumption by this rank, decided on a view up to `revision`, ends it: never one that it did not see.
    pub fn lifted_by(&self, rank: HoldRank, revision: Seq) -> bool {
        self.rank <= rank && self.seq <= revision
    }
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// How.
    pub outcome: Outcome,
    /// Why.
    pub reason: Box<str>,
    /// When.
    pub at: Millis,
    /// The seq of its record.
    pub seq: Seq,
    /// Who ended it.
    pub by: Option<Box<Who>>,
}

/// A task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    /// What it was opened with.
    pub terms: Arc<Terms>,
    /// When it ends.
    pub deadline: Millis,
    /// When it last showed life.
    pub alive_at: Millis,
    /// Holds on this task itself.
    pub holds: Vec<Hold>,
    /// How it ended, if it did.
    pub closed: Option<Closed>,
    /// It waits for an approval.
    pub pending: bool,
    /// Credentials ever issued in it.
    pub issued: u64,
    /// Credentials ever issued in it or under it.
    pub issued_under: u64,
    /// Credentials in memory that name it.
    pub credentials: u32,
    /// Tasks in memory that have it as parent.
    pub children: u32,
    parent: Option<Slot>,
}

/// The state that a task is in, as people and callers see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// It waits for an approval.
    PendingApproval,
    /// It can be worked in.
    Active,
    /// It or a task above it is held.
    Held,
    /// It ended, or a task above it did.
    Over(Outcome),
}

/// All tasks in memory.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Tasks {
    slots: Vec<Option<Task>>,
    free: Vec<Slot>,
    index: HashMap<TaskId, Slot>,
    /// When to look whether a task can be forgotten, and which.
    checks: BTreeMap<Millis, Vec<TaskId>>,
    /// How many tasks each caller opened that are in memory.
    opened_by: BTreeMap<Box<str>, u32>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    slots: Vec<Option<Task>>,
    free: Vec<Slot>,
    checks: BTreeMap<Millis, Vec<TaskId>>,
    opened_by: BTreeMap<Box<str>, u32>,
}

impl From<Stored> for Tasks {
    fn from(s: Stored) -> Tasks {
        let index = s.slots.iter().enumerate().filter_map(|(i, t)| t.as_ref().map(|t| (t.terms.id, i as Slot))).collect();
        Tasks { slots: s.slots, free: s.free, index, checks: s.checks, opened_by: s.opened_by }
    }
}

impl From<Tasks> for Stored {
    fn from(t: Tasks) -> Stored {
        Stored { slots: t.slots, free: t.free, checks: t.checks, opened_by: t.opened_by }
    }
}

impl Tasks {
    /// The task of that id, if it is in memory.
    pub fn get(&self, id: &TaskId) -> Option<&Task> {
        self.slot_of(id).and_then(|s| self.at(s))
    }

    /// The place of a task.
    pub fn slot_of(&self, id: &TaskId) -> Option<Slot> {
        self.index.get(id).copied()
    }

    /// The task at a place.
    pub fn at(&self, slot: Slot) -> Option<&Task> {
        self.slots.get(slot as usize).and_then(Option::as_ref)
    }

    pub(super) fn at_mut(&mut self, slot: Slot) -> Option<&mut Task> {
        self.slots.get_mut(slot as usize).and_then(Option::as_mut)
    }

    pub(super) fn get_mut(&mut self, id: &TaskId) -> Option<&mut Task> {
        self.slot_of(id).and_then(|s| self.at_mut(s))
    }

    /// How many places there are, to go through them in pieces.
    pub fn places(&self) -> Slot {
        self.slots.len() as Slot
    }

    /// How many are in memory.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// None are in memory.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// How many in memory this caller opened.
    pub fn opened_by(&self, caller: &str) -> u32 {
        self.opened_by.get(caller).copied().unwrap_or(0)
    }

    /// Every task in memory, in the order of its place.
    pub fn iter(&self) -> impl Iterator<Item = &Task> {
        self.slots.iter().flatten()
    }

    /// The tasks from this one up to its root.
    pub fn upwards<'a>(&'a self, task: &'a Task) -> impl Iterator<Item = &'a Task> {
        std::iter::successors(Some(task), |t| t.parent.and_then(|p| self.at(p))).take(limits::TASK_DEPTH)
    }

    /// The state of a task at a moment, with those above it.
    pub fn phase(&self, task: &Task, now: Millis) -> Phase {
        let (mut held, mut pending) = (false, false);
        for t in self.upwards(task) {
            if let Some(closed) = &t.closed {
                return Phase::Over(closed.outcome);
            }
            if now >= t.deadline || t.silent(now) {
                return Phase::Over(Outcome::Expired);
            }
            pending |= t.pending;
            held |= !t.holds.is_empty();
        }
        // What is over above ends it, whatever it waits for.
        match (pending, held) {
            (true, _) => Phase::PendingApproval,
            (false, true) => Phase::Held,
            (false, false) => Phase::Active,
        }
    }

    pub(super) fn open(&mut self, opened: &TaskOpened, id: TaskId, seq: Seq, revision: Seq, now: Millis) {
        let parent = TaskId::from_slice(&opened.parent).and_then(|p| self.slot_of(&p));
        let (mut path, mut owners) = match parent.and_then(|p| self.at(p)) {
            Some(p) => (p.terms.path.clone(), p.terms.owners.clone()),
            None => (Vec::new(), Vec::new()),
        };
        path.push(id);
        owners.push(opened.owner.clone().unwrap_or_default());
        let terms = Terms {
            id,
            path,
            owners,
            opener: opened.opener.as_str().into(),
            callers: opened.callers.iter().map(|c| c.as_str().into()).collect(),
            environment: opened.environment.as_str().into(),
            purpose: opened.purpose.as_str().into(),
            allowance: opened.allowance.clone().unwrap_or_default(),
            opened_at: Millis(opened.opened_at),
            max_deadline: Millis(opened.max_deadline),
            heartbeat: opened.heartbeat,
            policy: opened.policy_version,
            svid: opened.svid.clone(),
            ancestor: CredentialId::from_slice(&opened.ancestor),
            seq,
            revision,
        };
        *self.opened_by.entry(terms.opener.clone()).or_default() += 1;
        if let Some(p) = parent.and_then(|p| self.at_mut(p)) {
            p.children += 1;
        }
        let deadline = Millis(opened.deadline);
        self.checks.entry(deadline.plus(limits::REQUEST_ID_KEPT_MS)).or_default().push(id);
        let task = Task {
            terms: Arc::new(terms),
            deadline,
            alive_at: now,
            holds: Vec::new(),
            closed: None,
            pending: !opened.approval.is_empty(),
            issued: 0,
            issued_under: 0,
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
        self.slots[slot as usize] = Some(task);
        self.index.insert(id, slot);
    }

    /// Counts an issuance in the task at a place and in all above it.
    pub(super) fn count_issued(&mut self, slot: Slot) {
        if let Some(task) = self.at_mut(slot) {
            task.issued += 1;
            task.credentials += 1;
        }
        let mut at = Some(slot);
        for _ in 0..limits::TASK_DEPTH {
            let Some(task) = at.and_then(|s| self.at_mut(s)) else { break };
            task.issued_under += 1;
            at = task.parent;
        }
    }

    pub(super) fn check_at(&mut self, id: TaskId, when: Millis) {
        self.checks.entry(when).or_default().push(id);
    }

    /// Forgets up to `most` tasks that are over and that nothing in memory names.
    pub(super) fn expire(&mut self, now: Millis, most: usize) -> usize {
        let mut looked = 0;
        while looked < most {
            let Some(mut due) = self.checks.first_entry() else { break };
            if *due.key() >= now {
                break;
            }
            let Some(id) = due.get_mut().pop() else {
                due.remove();
                continue;
            };
            looked += 1;
            let Some(slot) = self.slot_of(&id) else { continue };
            let Some(task) = self.at(slot) else { continue };
            // By its own end: one that is over because its parent is keeps its time, so that whoever asks is told what became of it.
            let end = task.closed.as_ref().map_or(task.deadline, |c| c.at.min(task.deadline));
            let kept = end.plus(limits::REQUEST_ID_KEPT_MS);
            if kept >= now {
                self.check_at(id, kept);
            } else if task.credentials > 0 || task.children > 0 {
                self.check_at(id, now.plus(60_000));
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
        if let Some(n) = self.opened_by.get_mut(&task.terms.opener) {
            *n -= 1;
            if *n == 0 {
                self.opened_by.remove(&task.terms.opener);
            }
        }
    }
}

impl Task {
    /// Whether it missed its heartbeat.
    pub fn silent(&self, now: Millis) -> bool {
        self.terms.heartbeat > 0 && now > self.alive_at.plus(self.terms.heartbeat)
    }

    /// When it is over by time alone: by its deadline, or without a sign of life until then.
    pub fn ends(&self) -> Millis {
        let silent = if self.terms.heartbeat > 0 { self.alive_at.plus(self.terms.heartbeat + 1) } else { self.deadline };
        silent.min(self.deadline)
    }

    /// Whether this workload may act in it.
    pub fn admits(&self, caller: &str) -> bool {
        *self.terms.opener == *caller || self.terms.callers.iter().any(|c| **c == *caller)
    }
}

impl Tasks {
    /// The server was away: every task that was alive when it left gets one full interval.
    pub(super) fn all_alive(&mut self, away_since: Millis, now: Millis) {
        for task in self.slots.iter_mut().flatten().filter(|t| !t.silent(away_since)) {
            task.alive_at = task.alive_at.max(now);
        }
    }
}

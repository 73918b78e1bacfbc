//! Break-glass tasks in the state: the person who opened one, the person who joined, when it ended, and whether a third person has reviewed
//! it.
//!
//! The entry outlives its task: until it is reviewed, neither of its people can open or join another one.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{State, Tasks};
use crate::record::{BreakGlassStep, BreakGlassStepTaken, Principal, Record, SvidEvidence, TaskOpened};
use mayfly_base::limits;
use mayfly_verify::seq::{CredentialId, Millis, Seq, TaskId};

/// A person of a break-glass task, which has two.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BreakGlassPerson {
    /// The person.
    pub who: Principal,
    /// The SPIFFE ID by which the person acts.
    pub caller: Box<str>,
    /// The reason, in the person's words.
    pub reason: Box<str>,
    /// The time at which the person opened, joined or reviewed the task.
    pub at: Millis,
    /// The decision revision: opening and joining are grants.
    pub revision: Seq,
    /// The SVID that the person called with.
    pub svid: Option<SvidEvidence>,
    /// The person's login credential, if mayfly issued the SVID.
    pub ancestor: Option<CredentialId>,
}

/// The review by a third person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakGlassReview {
    /// The reviewer.
    pub by: Principal,
    /// The text of the review.
    pub text: Box<str>,
    /// The time of the review.
    pub at: Millis,
}

/// A break-glass task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BreakGlassTask {
    /// The name of the rights in policy.
    pub rights: Box<str>,
    /// The environment.
    pub environment: Box<str>,
    /// The people: one until the second joined.
    pub people: Vec<BreakGlassPerson>,
    /// When the task was opened.
    pub opened_at: Millis,
    /// Nobody can join after this.
    pub join_by: Millis,
    /// The latest end of the task.
    pub deadline: Millis,
    /// When the task was ended by a record, and that record's seq.
    pub ended: Option<(Millis, Seq)>,
    /// The review by a third person.
    pub review: Option<BreakGlassReview>,
    /// The seq of the record that opened the task.
    pub seq: Seq,
    /// The seq of the newest record about the task.
    pub changed: Seq,
}

impl BreakGlassTask {
    /// The second person joined, so something may have been done in the task.
    pub fn joined(&self) -> bool {
        self.people.len() == 2
    }

    /// Whether the task is over at that time.
    pub fn over(&self, now: Millis) -> bool {
        self.ended.is_some() || now >= if self.joined() { self.deadline } else { self.join_by }
    }

    /// Whether the task is over and was joined but not reviewed.
    pub fn unreviewed(&self, now: Millis) -> bool {
        self.joined() && self.review.is_none() && self.over(now)
    }

    /// Whether a person is one of the two, by identity or by the SPIFFE ID that they act by.
    pub fn is_of(&self, who: &Principal, caller: &str) -> bool {
        self.people.iter().any(|p| p.who == *who || *p.caller == *caller)
    }
}

/// All remembered break-glass tasks, by task id.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BreakGlassTasks {
    by_task: BTreeMap<TaskId, BreakGlassTask>,
    /// Number of break-glass tasks ever opened.
    pub opened: u64,
    /// Number of credentials issued and actions authorized in break-glass tasks.
    pub uses: u64,
}

impl BreakGlassTasks {
    /// The break-glass task with this id.
    pub fn get(&self, task: &TaskId) -> Option<&BreakGlassTask> {
        self.by_task.get(task)
    }

    /// All of them, by task id.
    pub fn iter(&self) -> impl Iterator<Item = (&TaskId, &BreakGlassTask)> {
        self.by_task.iter()
    }

    /// Number of remembered break-glass tasks.
    pub fn len(&self) -> usize {
        self.by_task.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_task.is_empty()
    }

    /// The break-glass task that keeps a person from opening or joining another: one that they act in, or acted in without a review since.
    pub fn blocks(&self, who: &Principal, caller: &str) -> Option<(&TaskId, &BreakGlassTask)> {
        self.by_task.iter().find(|(_, g)| g.joined() && g.review.is_none() && g.is_of(who, caller))
    }

    /// The break-glass task that a person acts in at that time.
    pub fn acts(&self, who: &Principal, caller: &str, now: Millis) -> Option<TaskId> {
        self.by_task.iter().find(|(_, g)| g.joined() && !g.over(now) && g.is_of(who, caller)).map(|(task, _)| *task)
    }

    /// The break-glass task that a person opened and that a second person may still join.
    pub fn waiting(&self, who: &Principal, caller: &str, now: Millis) -> Option<(&TaskId, &BreakGlassTask)> {
        self.by_task.iter().find(|(_, g)| !g.joined() && !g.over(now) && g.is_of(who, caller))
    }

    /// Number of break-glass tasks that are neither reviewed nor lapsed.
    pub fn open(&self, now: Millis) -> usize {
        self.by_task.values().filter(|g| g.review.is_none() && (g.joined() || !g.over(now))).count()
    }

    pub(super) fn ended(&mut self, task: &TaskId, at: Millis, seq: Seq) {
        if let Some(break_glass) = self.by_task.get_mut(task).filter(|g| g.ended.is_none()) {
            // The break-glass task may have ended earlier by its time.
            break_glass.ended =
                Some((at.min(if break_glass.joined() { break_glass.deadline } else { break_glass.join_by }), seq));
            break_glass.changed = seq;
        }
    }

    /// A new generation ends all open break-glass tasks. Those that were joined still need a review.
    pub(super) fn void(&mut self, now: Millis, seq: Seq) {
        self.by_task.retain(|_, g| g.joined());
        for break_glass in self.by_task.values_mut().filter(|g| g.ended.is_none()) {
            break_glass.ended = Some((now.min(break_glass.deadline), seq));
            break_glass.changed = seq;
        }
    }

    /// Of those that need no review any more, only the newest are kept.
    fn forget(&mut self, now: Millis) {
        while self.by_task.len() > limits::BREAK_GLASS_KEPT {
            let done = self.by_task.iter().filter(|(_, g)| g.over(now) && (g.review.is_some() || !g.joined()));
            let Some(oldest) = done.min_by_key(|(_, g)| g.seq).map(|(task, _)| *task) else { return };
            self.by_task.remove(&oldest);
        }
    }
}

impl Tasks {
    /// The second person of a break-glass task may act in it from now on, and the task ends at `deadline`.
    fn joined(&mut self, id: &TaskId, caller: &str, deadline: Millis) {
        if let Some(task) = self.get_mut(id) {
            Arc::make_mut(&mut task.terms).callers = [Box::from(caller)].into();
            (task.pending, task.deadline) = (false, deadline);
        }
    }
}

impl State {
    /// A break-glass task was opened and waits for its second person.
    pub(super) fn open_break_glass(&mut self, e: &TaskOpened, record: &Record) {
        let Some(task) = TaskId::from_slice(&e.task).filter(|_| e.break_glass && e.parent.is_empty()) else { return };
        self.break_glass_tasks.forget(self.time);
        let first = BreakGlassPerson {
            who: e.owner.clone().unwrap_or_default(),
            caller: e.opener.as_str().into(),
            reason: e.purpose.as_str().into(),
            at: Millis(e.opened_at),
            revision: record.revision(),
            svid: e.svid.clone(),
            ancestor: CredentialId::from_slice(&e.ancestor),
        };
        let break_glass = BreakGlassTask {
            rights: Box::default(),
            environment: e.environment.as_str().into(),
            people: vec![first],
            opened_at: Millis(e.opened_at),
            join_by: Millis(e.deadline),
            deadline: Millis(e.max_deadline),
            ended: None,
            review: None,
            seq: self.head,
            changed: self.head,
        };
        self.break_glass_tasks.by_task.insert(task, break_glass);
        self.break_glass_tasks.opened += 1;
    }

    /// Applies the next step of a break-glass task.
    pub(super) fn break_glass_step(&mut self, e: &BreakGlassStepTaken, record: &Record) {
        let (now, seq) = (self.time, self.head);
        let Some(id) = TaskId::from_slice(&e.task) else { return };
        let Some(break_glass) = self.break_glass_tasks.by_task.get_mut(&id) else { return };
        break_glass.changed = seq;
        match BreakGlassStep::try_from(e.step) {
            Ok(BreakGlassStep::Opened) => break_glass.rights = e.rights.as_str().into(),
            Ok(BreakGlassStep::Joined) => {
                let Some(who) = e.people.get(1).cloned() else { return };
                let deadline = break_glass.deadline;
                break_glass.people.push(BreakGlassPerson {
                    who,
                    caller: e.caller.as_str().into(),
                    reason: e.text.as_str().into(),
                    at: Millis(e.decided_at),
                    revision: record.revision(),
                    svid: e.svid.clone(),
                    ancestor: CredentialId::from_slice(&e.ancestor),
                });
                self.tasks.joined(&id, &e.caller, deadline);
                self.descends(&e.ancestor, deadline);
            }
            Ok(BreakGlassStep::Reviewed) => {
                let by = e.reviewer.clone().unwrap_or_default();
                break_glass.review = Some(BreakGlassReview { by, text: e.text.as_str().into(), at: now });
            }
            Ok(BreakGlassStep::Unspecified) | Err(_) => {}
        }
    }
}

//! Break-glass as the fold knows it: who opened it, who joined, when it ended, and whether a third person looked at it since.
//!
//! It outlives its task: as long as nobody reviewed it, neither of its people opens or joins another.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{State, Tasks};
use crate::ledger::record::{BreakGlass, GlassStep, Identity, Record, SvidEvidence, TaskOpened};
use crate::limits;
use crate::seq::{CredentialId, Millis, Seq, TaskId};

/// One of the two.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Party {
    /// Who.
    pub who: Identity,
    /// The SPIFFE ID by which they act.
    pub caller: Box<str>,
    /// Why, in their words.
    pub reason: Box<str>,
    /// When.
    pub at: Millis,
    /// The decision revision: opening and joining are grants.
    pub revision: Seq,
    /// The SVID that they called with.
    pub svid: Option<SvidEvidence>,
    /// The credential that they were identified by, where mayfly issued their SVID.
    pub ancestor: Option<CredentialId>,
}

/// What a third person said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// Who.
    pub by: Identity,
    /// What they said.
    pub text: Box<str>,
    /// When.
    pub at: Millis,
}

/// A break-glass task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Glass {
    /// The rights by their name in policy.
    pub rights: Box<str>,
    /// The environment.
    pub environment: Box<str>,
    /// Its people: one until the second joined.
    pub people: Vec<Party>,
    /// When it was opened.
    pub opened_at: Millis,
    /// Nobody joins after this.
    pub join_by: Millis,
    /// It ends by then.
    pub deadline: Millis,
    /// When it ended by a record, and that record's seq.
    pub ended: Option<(Millis, Seq)>,
    /// What a third person said.
    pub review: Option<Review>,
    /// The seq of the record that opened it.
    pub seq: Seq,
    /// The seq of the newest record about it.
    pub changed: Seq,
}

impl Glass {
    /// Two people opened it: something may have been done in it.
    pub fn joined(&self) -> bool {
        self.people.len() == 2
    }

    /// It is over at that time.
    pub fn over(&self, now: Millis) -> bool {
        self.ended.is_some() || now >= if self.joined() { self.deadline } else { self.join_by }
    }

    /// It is over, and nobody looked at what was done in it.
    pub fn unreviewed(&self, now: Millis) -> bool {
        self.joined() && self.review.is_none() && self.over(now)
    }

    /// Whether somebody is one of its people, by name or by what they act as.
    pub fn is_of(&self, who: &Identity, caller: &str) -> bool {
        self.people.iter().any(|p| p.who == *who || *p.caller == *caller)
    }
}

/// All that are remembered, by their tasks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Glasses {
    by_task: BTreeMap<TaskId, Glass>,
    /// How many were ever opened.
    pub opened: u64,
    /// How many credentials were ever issued, and actions authorized, in one.
    pub uses: u64,
}

impl Glasses {
    /// One by its task.
    pub fn get(&self, task: &TaskId) -> Option<&Glass> {
        self.by_task.get(task)
    }

    /// All of them, by their tasks.
    pub fn iter(&self) -> impl Iterator<Item = (&TaskId, &Glass)> {
        self.by_task.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_task.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.by_task.is_empty()
    }

    /// The one that keeps somebody from another: that they act in, or acted in and nobody reviewed.
    pub fn blocks(&self, who: &Identity, caller: &str) -> Option<(&TaskId, &Glass)> {
        self.by_task.iter().find(|(_, g)| g.joined() && g.review.is_none() && g.is_of(who, caller))
    }

    /// The one that somebody acts in at that time.
    pub fn acts(&self, who: &Identity, caller: &str, now: Millis) -> Option<TaskId> {
        self.by_task.iter().find(|(_, g)| g.joined() && !g.over(now) && g.is_of(who, caller)).map(|(task, _)| *task)
    }

    /// The one that somebody opened and that a second person may still join.
    pub fn waiting(&self, who: &Identity, caller: &str, now: Millis) -> Option<(&TaskId, &Glass)> {
        self.by_task.iter().find(|(_, g)| !g.joined() && !g.over(now) && g.is_of(who, caller))
    }

    /// How many neither are reviewed nor have lapsed.
    pub fn open(&self, now: Millis) -> usize {
        self.by_task.values().filter(|g| g.review.is_none() && (g.joined() || !g.over(now))).count()
    }

    pub(super) fn ended(&mut self, task: &TaskId, at: Millis, seq: Seq) {
        if let Some(glass) = self.by_task.get_mut(task).filter(|g| g.ended.is_none()) {
            // By its time it may have been over before.
            glass.ended = Some((at.min(if glass.joined() { glass.deadline } else { glass.join_by }), seq));
            glass.changed = seq;
        }
    }

    /// A new generation ends all that are open. What was done in them is still to be looked at.
    pub(super) fn void(&mut self, now: Millis, seq: Seq) {
        self.by_task.retain(|_, g| g.joined());
        for glass in self.by_task.values_mut().filter(|g| g.ended.is_none()) {
            glass.ended = Some((now.min(glass.deadline), seq));
            glass.changed = seq;
        }
    }

    /// Of what needs no review any more only the newest stay.
    fn forget(&mut self, now: Millis) {
        while self.by_task.len() > limits::BREAK_GLASS_KEPT {
            let done = self.by_task.iter().filter(|(_, g)| g.over(now) && (g.review.is_some() || !g.joined()));
            let Some(oldest) = done.min_by_key(|(_, g)| g.seq).map(|(task, _)| *task) else { return };
            self.by_task.remove(&oldest);
        }
    }
}

impl Tasks {
    /// A break-glass task has its second person, who may act in it, and ends by then.
    fn joined(&mut self, id: &TaskId, caller: &str, deadline: Millis) {
        if let Some(task) = self.get_mut(id) {
            Arc::make_mut(&mut task.terms).callers = [Box::from(caller)].into();
            (task.pending, task.deadline) = (false, deadline);
        }
    }
}

impl State {
    /// A break-glass task was opened: it waits for its second person.
    pub(super) fn open_glass(&mut self, e: &TaskOpened, record: &Record) {
        let Some(task) = TaskId::from_slice(&e.task).filter(|_| e.break_glass && e.parent.is_empty()) else { return };
        self.glasses.forget(self.time);
        let first = Party {
            who: e.owner.clone().unwrap_or_default(),
            caller: e.opener.as_str().into(),
            reason: e.purpose.as_str().into(),
            at: Millis(e.opened_at),
            revision: record.revision(),
            svid: e.svid.clone(),
            ancestor: CredentialId::from_slice(&e.ancestor),
        };
        let glass = Glass {
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
        self.glasses.by_task.insert(task, glass);
        self.glasses.opened += 1;
    }

    /// The next step of one.
    pub(super) fn glass_step(&mut self, e: &BreakGlass, record: &Record) {
        let (now, seq) = (self.time, self.head);
        let Some(id) = TaskId::from_slice(&e.task) else { return };
        let Some(glass) = self.glasses.by_task.get_mut(&id) else { return };
        glass.changed = seq;
        match GlassStep::try_from(e.step) {
            Ok(GlassStep::Opened) => glass.rights = e.rights.as_str().into(),
            Ok(GlassStep::Joined) => {
                let Some(who) = e.people.get(1).cloned() else { return };
                let deadline = glass.deadline;
                glass.people.push(Party {
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
            Ok(GlassStep::Reviewed) => {
                let by = e.reviewer.clone().unwrap_or_default();
                glass.review = Some(Review { by, text: e.text.as_str().into(), at: now });
            }
            Ok(GlassStep::Unspecified) | Err(_) => {}
        }
    }
}

//! What becomes of what waited for somebody.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::apply::author;
use super::tasks::Closed;
use super::{Decided, State};
use crate::ledger::record::{
    ApprovalAsked, ApprovalDecided, ApprovalOf, Change, Event, Issued, Outcome, Record, TaskExtended, Who,
};
use crate::seq::{ApprovalId, Millis, TaskId};

/// The approval that a task waits for or was opened with. More time takes another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approved {
    /// It.
    pub id: ApprovalId,
    /// The upstreams for which somebody had to approve.
    pub upstreams: Box<[Box<str>]>,
    /// When it ends undecided.
    pub until: Millis,
}

impl Approved {
    fn of(id: ApprovalId, asked: &ApprovalAsked) -> Arc<Approved> {
        let names = asked.terms.iter().flat_map(|t| &t.registrations).map(|r| r.upstream.as_str().into());
        Arc::new(Approved { id, upstreams: names.collect(), until: Millis(asked.expires_at) })
    }
}

impl State {
    /// A task that was opened by a record before it in its group waits for this.
    pub(super) fn waits_for(&mut self, id: ApprovalId, asked: &ApprovalAsked) {
        if asked.of() == ApprovalOf::Task
            && let Some(task) = TaskId::from_slice(&asked.task).and_then(|id| self.tasks.get_mut(&id))
        {
            task.approved = Some(Approved::of(id, asked));
        }
    }

    /// An approval was used for an issuance; where it was needed to open its task, for that too.
    pub(super) fn used_to_issue(&mut self, e: &Issued) {
        let Some(id) = ApprovalId::from_slice(&e.approval) else { return };
        let Some(approval) = self.approvals.get_mut(&id) else { return };
        approval.used = true;
        let asked = approval.asked.clone();
        if asked.opens
            && asked.terms.as_ref().is_some_and(|terms| !terms.registrations.is_empty())
            && let Some(task) = TaskId::from_slice(&e.task).and_then(|id| self.tasks.get_mut(&id))
        {
            task.approved = Some(Approved::of(id, &asked));
        }
    }

    /// A task has more time.
    pub(super) fn extend(&mut self, e: &TaskExtended) {
        if let Some(task) = TaskId::from_slice(&e.task).and_then(|id| self.tasks.get_mut(&id)) {
            task.deadline = Millis(e.deadline);
        }
        if let Some(approval) = ApprovalId::from_slice(&e.approval).and_then(|id| self.approvals.get_mut(&id)) {
            approval.used = true;
        }
    }

    /// What somebody decided takes effect: a task that waited opens or is over, a change is in force.
    pub(super) fn decide(&mut self, e: &ApprovalDecided, record: &Record) {
        let (now, seq, by) = (self.time, self.head, author(record));
        let Some(id) = ApprovalId::from_slice(&e.approval) else { return };
        let Some(approval) = self.approvals.get_mut(&id) else { return };
        let reason: Box<str> = e.reason.as_str().into();
        let revision = record.revision();
        approval.decided = Some(Decided { given: e.given, by: by.clone(), reason: reason.clone(), at: now, revision });
        approval.seq = seq;
        let asked = approval.asked.clone();
        // It may be a whole policy set, which nobody needs from here.
        if asked.change.is_some() {
            Arc::make_mut(&mut approval.asked).change = None;
        }
        // What takes effect with it is used up with it.
        approval.used = e.given && matches!(asked.of(), ApprovalOf::Task | ApprovalOf::Change);
        match (asked.of(), e.given) {
            (ApprovalOf::Task, given) => {
                let Some(id) = TaskId::from_slice(&asked.task) else { return };
                let Some(task) = self.tasks.get_mut(&id).filter(|t| t.pending && t.closed.is_none()) else { return };
                if given {
                    // Whoever opened it has one full interval from here.
                    (task.pending, task.alive_at) = (false, now);
                } else {
                    task.closed = Some(Closed { outcome: Outcome::Cancelled, reason, at: now, seq, by });
                    self.tasks.closed(id, now);
                }
            }
            (ApprovalOf::Change, true) => {
                // A bundle comes into force by a record of its own in the same group, which all that follows bundles looks for.
                let change = asked.change.as_ref().and_then(Change::event);
                if let Some(event) = change.filter(|event| !matches!(event, Event::BundleSet(_))) {
                    self.apply_registry(&event, record, Some(Box::new(Who::named(&asked.caller))));
                }
            }
            _ => {}
        }
    }
}

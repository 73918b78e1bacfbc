//! The effect of decisions on tasks and changes that wait for an approval.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::apply::author;
use super::tasks::TaskClosure;
use super::{ApprovalResult, State};
use crate::record::{
    ApprovalDecided, ApprovalKind, ApprovalRequested, Author, CredentialIssued, Event, ProposedChangeRecord, Record,
    TaskExtended, TaskOutcome,
};
use mayfly_verify::seq::{ApprovalId, Millis, TaskId};

/// The approval that a task waits for or was opened with. More time for the task needs another approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskApproval {
    /// The approval's id.
    pub id: ApprovalId,
    /// The upstreams that required the approval.
    pub upstreams: Box<[Box<str>]>,
    /// When the approval expires undecided.
    pub until: Millis,
}

impl TaskApproval {
    fn of(id: ApprovalId, asked: &ApprovalRequested) -> Arc<TaskApproval> {
        let names = asked.terms.iter().flat_map(|t| &t.registrations).map(|r| r.upstream.as_str().into());
        Arc::new(TaskApproval { id, upstreams: names.collect(), until: Millis(asked.expires_at) })
    }
}

impl State {
    /// A task opened by an earlier record of the same group waits for this approval.
    pub(super) fn waits_for(&mut self, id: ApprovalId, asked: &ApprovalRequested) {
        if asked.of() == ApprovalKind::Task
            && let Some(task) = TaskId::from_slice(&asked.task).and_then(|id| self.tasks.get_mut(&id))
        {
            task.approved = Some(TaskApproval::of(id, asked));
        }
    }

    /// An approval was used for an issuance, and also for opening the task if that needed it.
    pub(super) fn used_to_issue(&mut self, e: &CredentialIssued) {
        let Some(id) = ApprovalId::from_slice(&e.approval) else { return };
        let Some(approval) = self.approvals.get_mut(&id) else { return };
        approval.used = true;
        let asked = approval.asked.clone();
        if asked.opens
            && asked.terms.as_ref().is_some_and(|terms| !terms.registrations.is_empty())
            && let Some(task) = TaskId::from_slice(&e.task).and_then(|id| self.tasks.get_mut(&id))
        {
            task.approved = Some(TaskApproval::of(id, &asked));
        }
    }

    /// Extends a task's deadline.
    pub(super) fn extend(&mut self, e: &TaskExtended) {
        if let Some(task) = TaskId::from_slice(&e.task).and_then(|id| self.tasks.get_mut(&id)) {
            task.deadline = Millis(e.deadline);
        }
        if let Some(approval) = ApprovalId::from_slice(&e.approval).and_then(|id| self.approvals.get_mut(&id)) {
            approval.used = true;
        }
    }

    /// Applies a decision: a waiting task becomes active or is over; a change takes effect.
    pub(super) fn decide(&mut self, e: &ApprovalDecided, record: &Record) {
        let (now, seq, by) = (self.time, self.head, author(record));
        let Some(id) = ApprovalId::from_slice(&e.approval) else { return };
        let Some(approval) = self.approvals.get_mut(&id) else { return };
        let reason: Box<str> = e.reason.as_str().into();
        let revision = record.revision();
        approval.decided = Some(ApprovalResult { given: e.given, by: by.clone(), reason: reason.clone(), at: now, revision });
        approval.seq = seq;
        let asked = approval.asked.clone();
        // The change may be a whole policy set, which is not needed any more.
        if asked.change.is_some() {
            Arc::make_mut(&mut approval.asked).change = None;
        }
        // An approval whose task or change takes effect with it is used up by that.
        approval.used = e.given && matches!(asked.of(), ApprovalKind::Task | ApprovalKind::Change);
        match (asked.of(), e.given) {
            (ApprovalKind::Task, given) => {
                let Some(id) = TaskId::from_slice(&asked.task) else { return };
                let Some(task) = self.tasks.get_mut(&id).filter(|t| t.pending && t.closed.is_none()) else { return };
                if given {
                    // The opener has one full heartbeat interval from now.
                    (task.pending, task.alive_at) = (false, now);
                } else {
                    task.closed = Some(TaskClosure { outcome: TaskOutcome::Cancelled, reason, at: now, seq, by });
                    self.tasks.closed(id, now);
                }
            }
            (ApprovalKind::Change, true) => {
                // A bundle takes effect by a record of its own in the same group, which is the record that followers of bundles look for.
                let change = asked.change.as_ref().and_then(ProposedChangeRecord::event);
                if let Some(event) = change.filter(|event| !matches!(event, Event::BundleSet(_))) {
                    self.apply_registry(&event, record, Some(Box::new(Author::named(&asked.caller))));
                }
            }
            _ => {}
        }
    }
}

//! What becomes of what waited for somebody.

use std::sync::Arc;

use super::apply::author;
use super::tasks::Closed;
use super::{Decided, State};
use crate::ledger::record::{ApprovalDecided, ApprovalOf, Change, Outcome, Record, Who};
use crate::seq::{ApprovalId, TaskId};

impl State {
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
                task.pending = false;
                if !given {
                    task.closed = Some(Closed { outcome: Outcome::Cancelled, reason, at: now, seq, by });
                    self.tasks.closed(id, now);
                }
            }
            (ApprovalOf::Change, true) => {
                if let Some(event) = asked.change.as_ref().and_then(Change::event) {
                    self.apply_registry(&event, record, Some(Box::new(Who::named(&asked.caller))));
                }
            }
            _ => {}
        }
    }
}

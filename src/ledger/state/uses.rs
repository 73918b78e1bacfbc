//! Counts, per task, the actions authorized and the uses reported.

use serde::{Deserialize, Serialize};

use super::State;
use crate::record::{ActionAuthorized, UsesReported};
use mayfly_verify::seq::{ApprovalId, TaskId};

/// Uses and authorizations in a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskUseCounts {
    /// Reported uses of the task's credentials.
    pub uses: u64,
    /// Reported uses that were refused.
    pub refused: u64,
    /// Actions authorized in the task.
    pub authorized: u64,
}

impl State {
    pub(super) fn authorized(&mut self, e: &ActionAuthorized) {
        let Some(decided) = &e.decided else { return };
        self.break_glass_tasks.uses += u64::from(decided.break_glass);
        if let Some(task) = TaskId::from_slice(&decided.task).and_then(|id| self.tasks.get_mut(&id)) {
            task.done.authorized = task.done.authorized.saturating_add(1);
        }
        if let Some(approval) = ApprovalId::from_slice(&decided.approval).and_then(|id| self.approvals.get_mut(&id)) {
            approval.used = true;
        }
    }

    pub(super) fn used(&mut self, e: &UsesReported) {
        // Nothing depends on the counters of a task that is no longer remembered.
        if let Some(task) = TaskId::from_slice(&e.task).and_then(|id| self.tasks.get_mut(&id)) {
            task.done.uses = task.done.uses.saturating_add(e.count);
            if e.outcome == "refused" {
                task.done.refused = task.done.refused.saturating_add(e.count);
            }
        }
    }
}

//! Why a task accepts no grants: holds, and the end of the task.

use serde::{Deserialize, Serialize};

use crate::record::{Author, HoldRank, TaskOutcome};
use mayfly_verify::seq::{Millis, Seq};

/// A hold on a task, one per rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskHold {
    /// The rank of the hold.
    pub rank: HoldRank,
    /// The reason.
    pub reason: Box<str>,
    /// The seq of the hold's record.
    pub seq: Seq,
    /// The author of that record.
    pub by: Option<Box<Author>>,
    /// The time of the hold.
    pub since: Millis,
}

impl TaskHold {
    /// Whether a resumption by this rank, decided on a view up to `revision`, ends the hold: never a hold that the view did not contain.
    pub fn lifted_by(&self, rank: HoldRank, revision: Seq) -> bool {
        self.rank <= rank && self.seq <= revision
    }
}

/// The end of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskClosure {
    /// The outcome.
    pub outcome: TaskOutcome,
    /// The reason.
    pub reason: Box<str>,
    /// The time of the end.
    pub at: Millis,
    /// The seq of the closing record.
    pub seq: Seq,
    /// The author of that record.
    pub by: Option<Box<Author>>,
}

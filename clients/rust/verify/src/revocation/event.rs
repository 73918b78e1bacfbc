//! What a follower is told, as the feed of `proto/mayfly/v1/feed.proto` says it.

use super::target::Target;
use crate::seq::{Millis, Seq, TaskId};

/// One event of the feed. Its seq is its record's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FeedEvent {
    /// Something was revoked, or a task ended.
    Rule {
        /// Covers what was decided with an earlier view, and for a signing key everything.
        seq: Seq,
        /// What it is aimed at.
        targets: Vec<Target>,
        /// A follower may drop it when the feed's time has passed this; `None` for never.
        drop_after: Option<Millis>,
        /// Those of its targets that can be locked are locked too.
        locks: bool,
    },
    /// Something was locked and not revoked.
    Lock {
        /// The record's seq.
        seq: Seq,
        /// What is locked, in the order of the record's targets.
        targets: Vec<Target>,
    },
    /// Locks were lifted.
    Lift {
        /// The record's seq.
        seq: Seq,
        /// What is no longer locked.
        targets: Vec<Target>,
    },
    /// A task is held, with all under it.
    Hold {
        /// The record's seq.
        seq: Seq,
        /// The task.
        task: TaskId,
    },
    /// A task's own holds are all lifted.
    Resume {
        /// The record's seq.
        seq: Seq,
        /// The task.
        task: TaskId,
    },
}

impl FeedEvent {
    /// The seq of its record.
    pub fn seq(&self) -> Seq {
        match self {
            FeedEvent::Rule { seq, .. }
            | FeedEvent::Lock { seq, .. }
            | FeedEvent::Lift { seq, .. }
            | FeedEvent::Hold { seq, .. }
            | FeedEvent::Resume { seq, .. } => *seq,
        }
    }
}

/// The state that a feed begins with: rules and holds in force at its seq. Verifiers need no locks; who lists them asks the server.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FeedSnapshot {
    /// Everything up to here is in it.
    pub seq: Seq,
    /// A target, the newest revocation of it, and until when a follower keeps it; `None` for ever.
    pub rules: Vec<(Target, Seq, Option<Millis>)>,
    /// Tasks that are held.
    pub holds: Vec<TaskId>,
}

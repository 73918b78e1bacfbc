//! Events and snapshots of the feed, as in `proto/mayfly/v1/feed.proto`.

use super::target::Target;
use crate::seq::{Millis, Seq, TaskId};

/// One event of the feed. Its sequence number is that of its record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FeedEvent {
    /// A target was revoked, or a task ended.
    Rule {
        /// The rule covers everything that was decided on an earlier view, and for a signing key everything.
        seq: Seq,
        /// The revoked targets.
        targets: Vec<Target>,
        /// A follower may drop the rule when the feed's time has passed this; `None`: never.
        drop_after: Option<Millis>,
        /// Targets that can be locked are locked too.
        locks: bool,
    },
    /// Targets were locked without being revoked.
    Lock {
        /// The record's sequence number.
        seq: Seq,
        /// The locked targets, in the order of the record's targets.
        targets: Vec<Target>,
    },
    /// Locks were lifted.
    Lift {
        /// The record's sequence number.
        seq: Seq,
        /// The targets that are no longer locked.
        targets: Vec<Target>,
    },
    /// A task is held, with all tasks below it.
    Hold {
        /// The record's sequence number.
        seq: Seq,
        /// The task.
        task: TaskId,
    },
    /// All holds of a task itself were lifted.
    Resume {
        /// The record's sequence number.
        seq: Seq,
        /// The task.
        task: TaskId,
    },
}

impl FeedEvent {
    /// The sequence number of the event's record.
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

/// The state at the beginning of a feed: the rules and holds in force at its sequence number. It contains no locks, which verifiers do not
/// need.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FeedSnapshot {
    /// The sequence number up to which the snapshot is complete.
    pub seq: Seq,
    /// Each target with its newest revocation and the time until which a follower keeps the rule; `None`: for ever.
    pub rules: Vec<(Target, Seq, Option<Millis>)>,
    /// The held tasks.
    pub holds: Vec<TaskId>,
}

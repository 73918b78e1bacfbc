//! What followers are told: one event for a record that revokes, locks, holds, or ends one of these. Derived from valid records only.
//!
//! The shapes are those of `proto/mayfly/v1/feed.proto`; what each stream adds (the seq before, heartbeats) is the feed's.

use super::rules::Rules;
use super::sort::Sort;
use super::target::Target;
use crate::ledger::State;
use crate::ledger::record::{Event, KeyState, Record};
use crate::limits;
use crate::seq::{CredentialId, Millis, Seq, TaskId};

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

impl FeedSnapshot {
    /// Of the state at its head. What leaves the process must be durable: the caller waits for it.
    pub fn of(state: &State) -> FeedSnapshot {
        let revoked = state.rules.entries().into_iter().filter(|(_, e)| e.revoked > Seq::ZERO);
        FeedSnapshot {
            seq: state.head,
            rules: revoked.map(|(target, e)| (target, e.revoked, (e.until < Millis(u64::MAX)).then_some(e.until))).collect(),
            holds: state.tasks.iter().filter(|t| !t.holds.is_empty()).map(|t| t.terms.id).collect(),
        }
    }
}

/// When a follower may drop a rule made at `time`: whatever it covers was committed before, so it was decided at most the skew later
/// and lives for the longest TTL.
pub fn drop_after(time: Millis) -> Millis {
    time.plus(limits::CREDENTIAL_TTL_MS + 2 * limits::CLOCK_SKEW_MS)
}

/// What followers are told of a valid record at `seq` in a commit of `time`; `state` has folded that commit. `None` for what is no
/// concern of theirs.
pub fn event_of(record: &Record, seq: Seq, time: Millis, state: &State) -> Option<FeedEvent> {
    let rule = |targets: Vec<Target>, locks: bool| {
        let forever = targets.iter().any(|t| t.sort() == Sort::SigningKey);
        FeedEvent::Rule { seq, targets, drop_after: (!forever).then(|| drop_after(time)), locks }
    };
    let all = |records: &[crate::ledger::record::TargetRecord]| -> Vec<Target> {
        records.iter().filter_map(|t| Target::from_record(t).ok()).collect()
    };
    match record.event.as_ref()? {
        Event::Revoked(e) if e.lock_only => Some(FeedEvent::Lock { seq, targets: all(&e.targets) }),
        Event::Revoked(e) => {
            let targets = all(&e.targets);
            let locks = !e.issued_only && targets.iter().any(|t| t.sort().locks());
            Some(rule(targets, locks))
        }
        Event::LockLifted(e) => Some(FeedEvent::Lift { seq, targets: all(&e.targets) }),
        Event::Released(e) => Some(rule(vec![Target::Credential(CredentialId::from_slice(&e.credential)?)], false)),
        Event::TaskClosed(e) => {
            // A task that never issued makes no rule: nobody has anything to refuse.
            let target = Target::Task(TaskId::from_slice(&e.task)?);
            made_a_rule(&state.rules, &target, seq).then(|| rule(vec![target], false))
        }
        Event::KeyChanged(e) if e.state == KeyState::Compromised as i32 => {
            Some(rule(vec![Target::SigningKey(e.key.as_str().into())], false))
        }
        // Where time began earlier, what it covers may end at any time.
        Event::GenerationBegun(e) if e.generation > 1 => {
            Some(FeedEvent::Rule { seq, targets: vec![Target::Everything], drop_after: None, locks: false })
        }
        Event::TaskHeld(e) => Some(FeedEvent::Hold { seq, task: TaskId::from_slice(&e.task)? }),
        Event::TaskResumed(e) => {
            let task = TaskId::from_slice(&e.task)?;
            let held = state.tasks.get(&task).is_some_and(|t| !t.holds.is_empty());
            (!held).then_some(FeedEvent::Resume { seq, task })
        }
        _ => None,
    }
}

fn made_a_rule(rules: &Rules, target: &Target, seq: Seq) -> bool {
    rules.get(target).is_some_and(|e| e.revoked >= seq)
}

//! The events that followers receive: one per record that revokes, locks, holds, or ends one of these. Derived from valid records only.
//!
//! The messages are those of `proto/mayfly/v1/feed.proto`; the fields that each stream adds (the previous seq, heartbeats) are set by the
//! feed.

use super::{SharedRules, Target, TargetKind};
use crate::State;
use crate::record::{Event, KeyState, Record};
use mayfly_base::limits;
use mayfly_verify::seq::{CredentialId, Millis, Seq, TaskId};

pub use mayfly_verify::revocation::event::{FeedEvent, FeedSnapshot};

/// The snapshot for followers, of the state at its head. The caller must wait until that head is durable before it sends the snapshot.
pub fn snapshot_of(state: &State) -> FeedSnapshot {
    let revoked = state.rules.entries().into_iter().filter(|(_, e)| e.revoked > Seq::ZERO);
    FeedSnapshot {
        seq: state.head,
        rules: revoked.map(|(target, e)| (target, e.revoked, (e.until < Millis(u64::MAX)).then_some(e.until))).collect(),
        holds: state.tasks.iter().filter(|t| !t.holds.is_empty()).map(|t| t.terms.id).collect(),
    }
}

/// When a follower may drop a rule made at `time`: everything that the rule covers was committed before, so it was decided at most the skew
/// later and expires within the longest TTL.
pub fn drop_after(time: Millis) -> Millis {
    time.plus(limits::CREDENTIAL_TTL_MS + 2 * limits::CLOCK_SKEW_MS)
}

/// The event for a valid record at `seq` in a commit of `time`; `state` has folded that commit. `None` for records that do not concern
/// followers.
pub fn event_of(record: &Record, seq: Seq, time: Millis, state: &State) -> Option<FeedEvent> {
    let rule = |targets: Vec<Target>, locks: bool| {
        let forever = targets.iter().any(|t| t.sort() == TargetKind::SigningKey);
        FeedEvent::Rule { seq, targets, drop_after: (!forever).then(|| drop_after(time)), locks }
    };
    let all = |records: &[crate::record::TargetRecord]| -> Vec<Target> {
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
            // The end of a task that never issued makes no rule: there is nothing to refuse.
            let target = Target::Task(TaskId::from_slice(&e.task)?);
            made_a_rule(&state.rules, &target, seq).then(|| rule(vec![target], false))
        }
        Event::KeyChanged(e) if e.state == KeyState::Compromised as i32 => {
            Some(rule(vec![Target::SigningKey(e.key.as_str().into())], false))
        }
        // If time began earlier, covered credentials may expire at any time.
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

fn made_a_rule(rules: &SharedRules, target: &Target, seq: Seq) -> bool {
    rules.get(target).is_some_and(|e| e.revoked >= seq)
}

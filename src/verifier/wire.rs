//! Messages of the feed, read. What is not understood is an error: a rule that is passed over would be a revocation that is not known.

use crate::pb::mayfly::v1 as pb;
use crate::pb::mayfly::v1::watch_revocations_response::Event;
use crate::revocation::Target;
use crate::revocation::event::{FeedEvent, FeedSnapshot};
use crate::revocation::follower::Heartbeat;
use crate::seq::{Seq, TaskId};
use crate::serve::wire;

/// Why a message cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the feed sent {0}")]
pub struct NotRead(pub String);

fn bad(what: impl Into<String>) -> NotRead {
    NotRead(what.into())
}

/// One message.
pub enum Message {
    /// A part of a snapshot.
    Part {
        /// What is in it.
        part: FeedSnapshot,
        /// No part comes after it.
        last: bool,
    },
    /// A sign that the feed is whole and fresh.
    Heartbeat(Heartbeat),
    /// Something happened.
    Event {
        /// The seq of the event before it.
        previous: Seq,
        /// What happened.
        event: FeedEvent,
    },
}

/// Reads a message.
pub fn read(message: &pb::WatchRevocationsResponse) -> Result<Message, NotRead> {
    let seq = seq(message.seq)?;
    let previous = self::seq(message.previous_seq)?;
    Ok(match message.event.as_ref().ok_or_else(|| bad("an event of a sort that is not known"))? {
        Event::Snapshot(part) => Message::Part { part: snapshot(seq, part)?, last: part.last },
        Event::Heartbeat(beat) => Message::Heartbeat(heartbeat(seq, previous, beat)?),
        Event::Rule(e) => {
            let event = FeedEvent::Rule { seq, targets: targets(&e.targets)?, drop_after: until(e)?, locks: e.locks };
            Message::Event { previous, event }
        }
        Event::Hold(e) => Message::Event { previous, event: FeedEvent::Hold { seq, task: task(&e.task_id)? } },
        Event::Resume(e) => Message::Event { previous, event: FeedEvent::Resume { seq, task: task(&e.task_id)? } },
        // Locks keep from new grants only. One whose target is not known keeps nobody here from anything.
        Event::Lock(_) => Message::Event { previous, event: FeedEvent::Lock { seq, targets: Vec::new() } },
        Event::Lift(_) => Message::Event { previous, event: FeedEvent::Lift { seq, targets: Vec::new() } },
    })
}

fn heartbeat(head: Seq, previous: Seq, beat: &pb::HeartbeatEvent) -> Result<Heartbeat, NotRead> {
    let fresh_at = beat.fresh_at.as_ref().and_then(wire::millis).ok_or_else(|| bad("a heartbeat without its time"))?;
    // One that does not say how long it is good for, or says less than nothing, is good for no time.
    let max_age = beat.max_age.as_ref().map_or(0, |d| {
        let nanos = u64::try_from(d.nanos).unwrap_or_default();
        u64::try_from(d.seconds).unwrap_or_default().saturating_mul(1000).saturating_add(nanos / 1_000_000)
    });
    // One that does not say: nothing of an older generation is taken for certain.
    let time_generation = u8::try_from(beat.time_generation).ok().filter(|g| *g > 0).unwrap_or(head.generation());
    Ok(Heartbeat { head, previous, fresh_at, max_age, time_generation })
}

fn snapshot(seq: Seq, part: &pb::SnapshotPart) -> Result<FeedSnapshot, NotRead> {
    let mut out = FeedSnapshot { seq, ..FeedSnapshot::default() };
    for rule in &part.rules {
        let (seq, until) = (self::seq(rule.seq)?, until(rule)?);
        out.rules.extend(targets(&rule.targets)?.into_iter().map(|target| (target, seq, until)));
    }
    for hold in &part.holds {
        out.holds.push(task(&hold.task_id)?);
    }
    Ok(out)
}

fn seq(n: u64) -> Result<Seq, NotRead> {
    Seq::from_u64(n).ok_or_else(|| bad("a seq above 2^53"))
}

/// When a rule may be dropped; `None` for never.
fn until(rule: &pb::RuleEvent) -> Result<Option<crate::seq::Millis>, NotRead> {
    let read = |at| wire::millis(at).ok_or_else(|| bad("a rule that ends at no time"));
    rule.drop_after.as_ref().map(read).transpose()
}

fn targets(all: &[pb::Target]) -> Result<Vec<Target>, NotRead> {
    all.iter().map(|t| wire::target_from_pb("targets", t).map_err(|e| bad(format!("a target: {e}")))).collect()
}

fn task(id: &str) -> Result<TaskId, NotRead> {
    id.parse().map_err(|e| bad(format!("a task id: {e}")))
}

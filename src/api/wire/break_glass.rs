//! Break-glass tasks on the wire.

use super::{identity_to_pb, task_to_pb, timestamp};
use mayfly_ledger::State;
use mayfly_ledger::state::BreakGlassTask;
use mayfly_proto::mayfly::v1 as pb;
use mayfly_verify::seq::{Millis, TaskId};

/// A break-glass task at a moment. If the task itself is no longer in memory, the remembered break-glass data is used.
pub fn break_glass_to_pb(state: &State, id: TaskId, break_glass: &BreakGlassTask, now: Millis) -> pb::BreakGlass {
    let by_time = if break_glass.joined() { break_glass.deadline } else { break_glass.join_by };
    let ended = break_glass.ended.map(|(at, _)| at).or_else(|| break_glass.over(now).then_some(by_time));
    let review = break_glass.review.as_ref();
    pb::BreakGlass {
        task: Some(state.tasks.get(&id).map_or_else(|| removed_task(id, break_glass), |task| task_to_pb(state, task, now))),
        rights: break_glass.rights.to_string(),
        people: break_glass.people.iter().map(|p| identity_to_pb(&p.who)).collect(),
        reviewer: review.map(|r| identity_to_pb(&r.by)),
        reviewed_at: review.map(|r| timestamp(r.at)),
        review: review.map_or_else(String::new, |r| r.text.to_string()),
        reasons: break_glass.people.iter().map(|p| p.reason.to_string()).collect(),
        join_by: Some(timestamp(break_glass.join_by)),
        deadline: Some(timestamp(break_glass.deadline)),
        ended_at: ended.map(timestamp),
        unreviewed: break_glass.unreviewed(now),
    }
}

fn removed_task(id: TaskId, break_glass: &BreakGlassTask) -> pb::Task {
    let purpose = break_glass.people.first().map_or_else(String::new, |p| p.reason.to_string());
    pb::Task {
        task_id: id.to_string(),
        state: if break_glass.joined() { pb::TaskState::Completed } else { pb::TaskState::Expired }.into(),
        terms: Some(pb::TaskTerms { purpose, ..pb::TaskTerms::default() }),
        path: vec![id.to_string()],
        owner: break_glass.people.first().map(|p| identity_to_pb(&p.who)),
        environment: break_glass.environment.to_string(),
        opened_at: Some(timestamp(break_glass.opened_at)),
        deadline: Some(timestamp(break_glass.deadline)),
        max_deadline: Some(timestamp(break_glass.deadline)),
        seq: break_glass.seq.as_u64(),
        ..pb::Task::default()
    }
}

//! Tasks on the wire.

use super::{duration, identity_of_who, identity_to_pb, timestamp};
use mayfly_ledger::State;
use mayfly_ledger::record::{Author, HoldRank, TaskOutcome};
use mayfly_ledger::state::{Task, TaskPhase};
use mayfly_proto::mayfly::v1 as pb;
use mayfly_verify::seq::{Millis, Seq};

/// The state of a task.
pub const fn phase_to_pb(phase: TaskPhase) -> pb::TaskState {
    match phase {
        TaskPhase::PendingApproval => pb::TaskState::PendingApproval,
        TaskPhase::Active => pb::TaskState::Active,
        TaskPhase::Held => pb::TaskState::Held,
        TaskPhase::Over(TaskOutcome::Completed) => pb::TaskState::Completed,
        TaskPhase::Over(TaskOutcome::Cancelled) => pb::TaskState::Cancelled,
        TaskPhase::Over(TaskOutcome::Expired) => pb::TaskState::Expired,
        TaskPhase::Over(TaskOutcome::Revoked | TaskOutcome::Unspecified) => pb::TaskState::Revoked,
    }
}

/// A task at `now`.
pub fn task_to_pb(state: &State, task: &Task, now: Millis) -> pb::Task {
    let terms = &task.terms;
    let phase = state.tasks.phase(task, now);
    let over = matches!(phase, TaskPhase::Over(_));
    pb::Task {
        task_id: terms.id.to_string(),
        state: phase_to_pb(phase).into(),
        terms: Some(terms_to_pb(task)),
        path: terms.path.iter().map(ToString::to_string).collect(),
        owner: terms.owners.last().map(identity_to_pb),
        opener: Some(identity_of_who(&Author::SpiffeId(terms.opener.to_string()))),
        environment: terms.environment.to_string(),
        depth: u32::try_from(terms.path.len().saturating_sub(1)).unwrap_or(u32::MAX),
        opened_at: Some(timestamp(terms.opened_at)),
        deadline: Some(timestamp(task.deadline)),
        max_deadline: Some(timestamp(terms.max_deadline)),
        heartbeat_due: (terms.heartbeat > 0 && !over && !task.pending).then(|| timestamp(task.alive_at.plus(terms.heartbeat))),
        holds: if over { Vec::new() } else { holds(state, task) },
        // A task that has ended has no live credentials and no open children.
        live_credentials: if over { 0 } else { task.credentials.into() },
        issued_credentials: task.issued,
        open_children: if over { 0 } else { task.children.into() },
        seq: terms.seq.as_u64(),
        decision_revision: terms.revision.as_u64(),
        end: over.then(|| end(state, task, now)).flatten(),
        approval_id: task.approved.as_ref().map_or_else(String::new, |a| a.id.to_string()),
    }
}

fn terms_to_pb(task: &Task) -> pb::TaskTerms {
    let terms = &task.terms;
    let allowance = &terms.allowance;
    let upstreams = allowance.upstreams.iter();
    let parent = terms.path.iter().rev().nth(1);
    pb::TaskTerms {
        purpose: terms.purpose.to_string(),
        upstreams: upstreams.map(|u| pb::Allowance { upstream: u.name.clone(), scopes: u.scopes.clone() }).collect(),
        tools: allowance.tools.clone(),
        any_tool: allowance.any_tool,
        kinds: allowance.kinds.iter().filter_map(|k| i32::try_from(*k).ok()).collect(),
        callers: terms.callers.iter().map(ToString::to_string).collect(),
        key_bound: allowance.key_bound,
        ttl: Some(duration(task.deadline.since(terms.opened_at))),
        max_ttl: Some(duration(terms.max_deadline.since(terms.opened_at))),
        heartbeat_interval: (terms.heartbeat > 0).then(|| duration(terms.heartbeat)),
        parent_task_id: parent.map_or_else(String::new, ToString::to_string),
    }
}

fn holds(state: &State, task: &Task) -> Vec<pb::Hold> {
    let of = |t: &Task| {
        let task_id = t.terms.id.to_string();
        let each = t.holds.iter().map(move |h| pb::Hold {
            task_id: task_id.clone(),
            seq: h.seq.as_u64(),
            author: h.by.as_deref().map(identity_of_who),
            reason: h.reason.to_string(),
            since: Some(timestamp(h.since)),
            operator_only: h.rank > HoldRank::Caller,
        });
        each.collect::<Vec<_>>()
    };
    state.tasks.upwards(task).flat_map(of).collect()
}

/// How the task ended: by its own record, by that of a task above it, or by time.
fn end(state: &State, task: &Task, now: Millis) -> Option<pb::TaskEnd> {
    state.tasks.upwards(task).find_map(|t| {
        if let Some(closed) = &t.closed {
            return Some(pb::TaskEnd {
                seq: closed.seq.as_u64(),
                author: closed.by.as_deref().map(identity_of_who),
                reason: closed.reason.to_string(),
                at: Some(timestamp(closed.at)),
            });
        }
        let by_time = |cause: &str, at: Millis| pb::TaskEnd {
            seq: Seq::ZERO.as_u64(),
            author: Some(identity_of_who(&Author::Mayfly(cause.to_owned()))),
            reason: cause.to_owned(),
            at: Some(timestamp(at)),
        };
        let silent_at = t.alive_at.plus(t.terms.heartbeat);
        if let Some(until) = t.approved.as_ref().map(|a| a.until).filter(|_| t.lapsed(now)) {
            return Some(by_time("approval not given", until));
        }
        if t.silent(now) && silent_at < t.deadline {
            return Some(by_time("heartbeat missed", silent_at));
        }
        (now >= t.deadline).then(|| by_time("deadline passed", t.deadline))
    })
}

//! Sentences of approvals.

use super::task::allowances;
use super::{author, ms, time};
use crate::args::duration_text;
use mayfly_proto::mayfly::v1::{self as pb, ApprovalOf};

/// The request, as one line for people.
pub fn sentence(approval: &pb::Approval) -> String {
    let caller = author(&approval.caller);
    // The end of a sentence: the reason that the caller gave, or that the caller gave none.
    let reason = match approval.asked_because.as_str() {
        "" => "; no reason was given".to_owned(),
        reason => format!(": {reason}"),
    };
    let (purpose, environment) = (&approval.purpose, &approval.environment);
    match (approval.of(), approval.task.as_ref()) {
        (ApprovalOf::Call, _) => format!("{caller} asks to call {}: {purpose}", approval.tool),
        (ApprovalOf::Change, _) if environment.is_empty() => format!("{caller} asks to change the trust bundles{reason}"),
        (of, _) if of == ApprovalOf::Change || !approval.asked_because.is_empty() => {
            let what = match approval.governs.as_slice() {
                [] => "the policy, an upstream or a binding".to_owned(),
                parts => parts.join(", "),
            };
            format!("{caller} asks to change {what} in {environment}{reason}")
        }
        (ApprovalOf::Task | ApprovalOf::Extension, Some(task)) => {
            let what = if task.deadline.is_some() { "more time for a task" } else { "a task" };
            let purpose = task.terms.as_ref().map_or("", |terms| &terms.purpose);
            format!("{caller} asks for {what} in {environment}: {purpose}")
        }
        _ => {
            let tool = if approval.tool.is_empty() { String::new() } else { format!(" for tool {}", approval.tool) };
            let scopes = approval.scopes.join(", ");
            format!("{caller} asks for {scopes} of {} in {environment}{tool}: {purpose}", approval.upstream)
        }
    }
}

/// The task that the approval opens or extends, as one line for people: everything that giving the approval permits.
pub fn task_sentence(task: &pb::ApprovalTask) -> String {
    let none = pb::TaskTerms::default();
    let terms = task.terms.as_ref().unwrap_or(&none);
    let tools = match (terms.any_tool, terms.tools.as_slice()) {
        (true, _) => "any tool".to_owned(),
        (false, []) => "no tool".to_owned(),
        (false, tools) => format!("tools {}", tools.join(", ")),
    };
    let life = |ttl| {
        let ms = ms(ttl).and_then(|ms| u64::try_from(ms).ok()).unwrap_or_default();
        duration_text(std::time::Duration::from_millis(ms))
    };
    let mut text = format!("task of {}: {}; {tools}", author(&task.owner), allowances(&terms.upstreams));
    if !terms.callers.is_empty() {
        text.push_str(&format!("; also for {}", terms.callers.join(", ")));
    }
    if !terms.parent_task_id.is_empty() {
        text.push_str(&format!("; under {}", terms.parent_task_id));
    }
    match time(task.deadline) {
        Some(deadline) => text.push_str(&format!("; until {deadline}")),
        None => text.push_str(&format!("; for {}, at most {}", life(terms.ttl), life(terms.max_ttl))),
    }
    text
}

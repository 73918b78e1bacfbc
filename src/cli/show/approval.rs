//! JSON and table forms of approvals.

use serde::Serialize;

use super::task::AllowanceView;
use super::{AuthorView, SubjectView, hex, ms, or_dash, shown_word, time};
use crate::out::{Printable, Row};
use mayfly_proto::mayfly::v1 as pb;

/// An approval, as `approval show` and `approval list` print it.
#[derive(Serialize, Debug)]
pub struct ApprovalView {
    pub approval_id: String,
    pub state: String,
    pub of: String,
    pub caller: Option<AuthorView>,
    pub subject: Option<SubjectView>,
    pub upstream: String,
    pub environment: String,
    pub scopes: Vec<String>,
    pub kind: String,
    pub tool: String,
    pub purpose: String,
    pub arguments_json: String,
    pub arguments_sha256: String,
    pub ttl_ms: Option<i64>,
    pub task_path: Vec<String>,
    pub opens_task: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskTerms>,
    pub approvers: Vec<String>,
    pub asked_at: Option<String>,
    pub expires_at: Option<String>,
    pub decided_by: Option<AuthorView>,
    pub decided_at: Option<String>,
    pub reason: String,
    pub governs: Vec<String>,
    pub asked_because: String,
    pub request_sha256: String,
    pub seq: u64,
}

/// The terms of a task that the approval opens or extends, in clear text.
#[derive(Serialize, Debug)]
pub struct TaskTerms {
    pub purpose: String,
    pub owner: Option<AuthorView>,
    pub upstreams: Vec<AllowanceView>,
    pub tools: Vec<String>,
    pub any_tool: bool,
    pub kinds: Vec<String>,
    pub callers: Vec<String>,
    pub key_bound: bool,
    pub parent_task_id: String,
    pub ttl_ms: Option<i64>,
    pub max_ttl_ms: Option<i64>,
    pub heartbeat_interval_ms: Option<i64>,
    /// The new deadline of an extension.
    pub deadline: Option<String>,
    /// The upstreams for which policy requires an approval.
    pub asked_for: Vec<String>,
}

impl From<pb::ApprovalTask> for TaskTerms {
    fn from(t: pb::ApprovalTask) -> TaskTerms {
        let terms = t.terms.unwrap_or_default();
        TaskTerms {
            purpose: terms.purpose,
            owner: AuthorView::of(t.owner),
            upstreams: terms.upstreams.into_iter().map(|a| AllowanceView { upstream: a.upstream, scopes: a.scopes }).collect(),
            tools: terms.tools,
            any_tool: terms.any_tool,
            kinds: terms.kinds.into_iter().map(super::credential::kind).collect(),
            callers: terms.callers,
            key_bound: terms.key_bound,
            parent_task_id: terms.parent_task_id,
            ttl_ms: ms(terms.ttl),
            max_ttl_ms: ms(terms.max_ttl),
            heartbeat_interval_ms: ms(terms.heartbeat_interval),
            deadline: time(t.deadline),
            asked_for: t.upstreams,
        }
    }
}

impl TaskTerms {
    /// One line for people: everything that giving the approval permits.
    pub fn sentence(&self) -> String {
        let each = self.upstreams.iter().map(|a| format!("{}={}", a.upstream, a.scopes.join(",")));
        let tools = match (self.any_tool, self.tools.as_slice()) {
            (true, _) => "any tool".to_owned(),
            (false, []) => "no tool".to_owned(),
            (false, tools) => format!("tools {}", tools.join(", ")),
        };
        let life = |ms: Option<i64>| {
            let ms = ms.and_then(|ms| u64::try_from(ms).ok()).unwrap_or_default();
            crate::args::duration_text(std::time::Duration::from_millis(ms))
        };
        let mut text =
            format!("task of {}: {}; {tools}", AuthorView::text(self.owner.as_ref()), each.collect::<Vec<_>>().join(" "));
        if !self.callers.is_empty() {
            text.push_str(&format!("; also for {}", self.callers.join(", ")));
        }
        if !self.parent_task_id.is_empty() {
            text.push_str(&format!("; under {}", self.parent_task_id));
        }
        match &self.deadline {
            Some(deadline) => text.push_str(&format!("; until {deadline}")),
            None => text.push_str(&format!("; for {}, at most {}", life(self.ttl_ms), life(self.max_ttl_ms))),
        }
        text
    }
}

impl From<pb::Approval> for ApprovalView {
    fn from(a: pb::Approval) -> ApprovalView {
        ApprovalView {
            approval_id: a.approval_id,
            state: shown_word!(pb::ApprovalState, "APPROVAL_STATE_", a.state),
            of: shown_word!(pb::ApprovalOf, "APPROVAL_OF_", a.of),
            caller: AuthorView::of(a.caller),
            subject: a.subject.map(SubjectView::from),
            upstream: a.upstream,
            environment: a.environment,
            scopes: a.scopes,
            kind: super::credential::kind(a.kind),
            tool: a.tool,
            purpose: a.purpose,
            arguments_json: a.arguments_json,
            arguments_sha256: hex(&a.arguments_sha256),
            ttl_ms: ms(a.ttl),
            task_path: a.task_path,
            opens_task: a.opens_task,
            task: a.task.map(TaskTerms::from),
            approvers: a.approvers.into_iter().map(super::upstream::approver).collect(),
            asked_at: time(a.asked_at),
            expires_at: time(a.expires_at),
            decided_by: AuthorView::of(a.decided_by),
            decided_at: time(a.decided_at),
            reason: a.reason,
            governs: a.governs,
            asked_because: a.asked_because,
            request_sha256: hex(&a.request_sha256),
            seq: a.seq,
        }
    }
}

impl ApprovalView {
    /// The request, as one line for people.
    pub fn sentence(&self) -> String {
        if self.of == "call" {
            return format!("{} asks to call {}: {}", AuthorView::text(self.caller.as_ref()), self.tool, self.purpose);
        }
        if self.of == "change" && self.environment.is_empty() {
            let caller = AuthorView::text(self.caller.as_ref());
            return format!("{caller} asks to change the trust bundles{}", self.reason_given());
        }
        if self.of == "change" || !self.asked_because.is_empty() {
            let caller = AuthorView::text(self.caller.as_ref());
            let what = match self.governs.as_slice() {
                [] => "the policy, an upstream or a binding".to_owned(),
                parts => parts.join(", "),
            };
            return format!("{caller} asks to change {what} in {}{}", self.environment, self.reason_given());
        }
        let tool = if self.tool.is_empty() { String::new() } else { format!(" for tool {}", self.tool) };
        let caller = AuthorView::text(self.caller.as_ref());
        if let (Some(task), "task" | "extension") = (&self.task, &*self.of) {
            let what = if task.deadline.is_some() { "more time for a task" } else { "a task" };
            return format!("{caller} asks for {what} in {}: {}", self.environment, task.purpose);
        }
        let scopes = self.scopes.join(", ");
        format!("{caller} asks for {scopes} of {} in {}{tool}: {}", self.upstream, self.environment, self.purpose)
    }

    /// The end of a sentence: the reason that the caller gave, or that the caller gave none.
    fn reason_given(&self) -> String {
        match self.asked_because.as_str() {
            "" => "; no reason was given".to_owned(),
            reason => format!(": {reason}"),
        }
    }
}

impl Printable for ApprovalView {
    fn name(&self) -> String {
        self.approval_id.clone()
    }
}

impl Row for ApprovalView {
    const COLUMNS: &'static [&'static str] = &["APPROVAL", "STATE", "CALLER", "UPSTREAM", "SCOPES", "TOOL", "PURPOSE", "EXPIRES"];
    const WIDE: &'static [&'static str] = &["ENVIRONMENT", "ASKED", "DECIDED BY", "REASON", "OF"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.approval_id.clone(),
            self.state.clone(),
            AuthorView::text(self.caller.as_ref()),
            self.upstream.clone(),
            self.scopes.join(","),
            or_dash(Some(&self.tool)),
            self.purpose.clone(),
            or_dash(self.expires_at.as_deref()),
            self.environment.clone(),
            or_dash(self.asked_at.as_deref()),
            AuthorView::text(self.decided_by.as_ref()),
            or_dash(Some(&self.reason)),
            self.of.clone(),
        ]
    }
}

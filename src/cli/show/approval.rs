//! Approvals.

use serde::Serialize;

use super::{Subject, Who, hex, ms, or_dash, shown_word, time};
use crate::cli::out::{Noun, Row};
use crate::pb::mayfly::v1 as pb;

/// An approval as `approval show` and `approval list` show it.
#[derive(Serialize, Debug)]
pub struct Approval {
    pub approval_id: String,
    pub state: String,
    pub of: String,
    pub caller: Option<Who>,
    pub subject: Option<Subject>,
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
    pub approvers: Vec<String>,
    pub asked_at: Option<String>,
    pub expires_at: Option<String>,
    pub decided_by: Option<Who>,
    pub decided_at: Option<String>,
    pub reason: String,
    pub governs: Vec<String>,
    pub asked_because: String,
    pub request_sha256: String,
    pub seq: u64,
}

impl From<pb::Approval> for Approval {
    fn from(a: pb::Approval) -> Approval {
        Approval {
            approval_id: a.approval_id,
            state: shown_word!(pb::ApprovalState, "APPROVAL_STATE_", a.state),
            of: shown_word!(pb::ApprovalOf, "APPROVAL_OF_", a.of),
            caller: Who::of(a.caller),
            subject: a.subject.map(Subject::from),
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
            approvers: a.approvers.into_iter().map(super::upstream::approver).collect(),
            asked_at: time(a.asked_at),
            expires_at: time(a.expires_at),
            decided_by: Who::of(a.decided_by),
            decided_at: time(a.decided_at),
            reason: a.reason,
            governs: a.governs,
            asked_because: a.asked_because,
            request_sha256: hex(&a.request_sha256),
            seq: a.seq,
        }
    }
}

impl Approval {
    /// What is asked for, for people.
    pub fn sentence(&self) -> String {
        if !self.asked_because.is_empty() {
            let caller = Who::text(self.caller.as_ref());
            return format!("{caller} asks to change what decides in {}: {}", self.environment, self.asked_because);
        }
        let tool = if self.tool.is_empty() { String::new() } else { format!(" for tool {}", self.tool) };
        let caller = Who::text(self.caller.as_ref());
        let scopes = self.scopes.join(", ");
        format!("{caller} asks for {scopes} of {} in {}{tool}: {}", self.upstream, self.environment, self.purpose)
    }
}

impl Noun for Approval {
    fn name(&self) -> String {
        self.approval_id.clone()
    }
}

impl Row for Approval {
    const COLUMNS: &'static [&'static str] = &["APPROVAL", "STATE", "CALLER", "UPSTREAM", "SCOPES", "TOOL", "PURPOSE", "EXPIRES"];
    const WIDE: &'static [&'static str] = &["ENVIRONMENT", "ASKED", "DECIDED BY", "REASON"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.approval_id.clone(),
            self.state.clone(),
            Who::text(self.caller.as_ref()),
            self.upstream.clone(),
            self.scopes.join(","),
            or_dash(Some(&self.tool)),
            self.purpose.clone(),
            or_dash(self.expires_at.as_deref()),
            self.environment.clone(),
            or_dash(self.asked_at.as_deref()),
            Who::text(self.decided_by.as_ref()),
            or_dash(Some(&self.reason)),
        ]
    }
}

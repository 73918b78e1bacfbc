//! JSON and table forms of tasks.

use std::collections::BTreeMap;

use serde::Serialize;

use super::revocation::PropagationView;
use super::{AuthorView, HitsView, ms, or_dash, shown_word, time};
use crate::out::{Printable, Row};
use mayfly_proto::mayfly::v1 as pb;

/// A task, as `task show` and `task list` print it.
#[derive(Serialize, Debug)]
pub struct TaskView {
    pub task_id: String,
    pub state: String,
    pub purpose: String,
    pub environment: String,
    pub owner: Option<AuthorView>,
    pub opener: Option<AuthorView>,
    pub upstreams: Vec<AllowanceView>,
    pub tools: Vec<String>,
    pub any_tool: bool,
    pub kinds: Vec<String>,
    pub callers: Vec<String>,
    pub key_bound: bool,
    pub path: Vec<String>,
    pub depth: u32,
    pub opened_at: Option<String>,
    pub deadline: Option<String>,
    pub max_deadline: Option<String>,
    pub heartbeat_interval_ms: Option<i64>,
    pub heartbeat_due: Option<String>,
    pub holds: Vec<HoldView>,
    pub live_credentials: u64,
    pub issued_credentials: u64,
    pub open_children: u64,
    pub seq: u64,
    pub decision_revision: u64,
    pub approval_id: String,
    pub end: Option<TaskEndView>,
}

/// An upstream and scopes that the task may get credentials for.
#[derive(Serialize, Debug)]
pub struct AllowanceView {
    pub upstream: String,
    pub scopes: Vec<String>,
}

/// Why a task is held.
#[derive(Serialize, Debug)]
pub struct HoldView {
    pub task_id: String,
    pub seq: u64,
    pub author: Option<AuthorView>,
    pub reason: String,
    pub since: Option<String>,
    pub operator_only: bool,
}

/// How a task ended.
#[derive(Serialize, Debug)]
pub struct TaskEndView {
    pub seq: u64,
    pub author: Option<AuthorView>,
    pub reason: String,
    pub at: Option<String>,
}

/// The word for a state.
pub fn state(number: i32) -> String {
    shown_word!(pb::TaskState, "TASK_STATE_", number)
}

impl From<pb::Task> for TaskView {
    fn from(t: pb::Task) -> TaskView {
        let terms = t.terms.unwrap_or_default();
        TaskView {
            task_id: t.task_id,
            state: state(t.state),
            purpose: terms.purpose,
            environment: t.environment,
            owner: AuthorView::of(t.owner),
            opener: AuthorView::of(t.opener),
            upstreams: terms.upstreams.into_iter().map(|a| AllowanceView { upstream: a.upstream, scopes: a.scopes }).collect(),
            tools: terms.tools,
            any_tool: terms.any_tool,
            kinds: terms.kinds.into_iter().map(super::credential::kind).collect(),
            callers: terms.callers,
            key_bound: terms.key_bound,
            path: t.path,
            depth: t.depth,
            opened_at: time(t.opened_at),
            deadline: time(t.deadline),
            max_deadline: time(t.max_deadline),
            heartbeat_interval_ms: ms(terms.heartbeat_interval),
            heartbeat_due: time(t.heartbeat_due),
            holds: t.holds.into_iter().map(HoldView::from).collect(),
            live_credentials: t.live_credentials,
            issued_credentials: t.issued_credentials,
            open_children: t.open_children,
            seq: t.seq,
            decision_revision: t.decision_revision,
            approval_id: t.approval_id,
            end: t.end.map(|e| TaskEndView { seq: e.seq, author: AuthorView::of(e.author), reason: e.reason, at: time(e.at) }),
        }
    }
}

impl From<pb::Hold> for HoldView {
    fn from(h: pb::Hold) -> HoldView {
        let (author, since) = (AuthorView::of(h.author), time(h.since));
        HoldView { task_id: h.task_id, seq: h.seq, author, reason: h.reason, since, operator_only: h.operator_only }
    }
}

impl Printable for TaskView {
    fn name(&self) -> String {
        self.task_id.clone()
    }
}

impl Row for TaskView {
    const COLUMNS: &'static [&'static str] = &["TASK", "STATE", "UNEXPIRED", "DEADLINE", "OWNER", "PURPOSE"];
    const WIDE: &'static [&'static str] = &["UPSTREAMS", "ENVIRONMENT", "PARENT", "HEARTBEAT DUE", "SEQ"];

    fn cells(&self) -> Vec<String> {
        let allowances = self.upstreams.iter().map(|a| format!("{}={}", a.upstream, a.scopes.join(","))).collect::<Vec<_>>();
        let parent = self.path.len().checked_sub(2).and_then(|at| self.path.get(at));
        vec![
            self.task_id.clone(),
            self.state.clone(),
            self.live_credentials.to_string(),
            or_dash(self.deadline.as_deref()),
            AuthorView::text(self.owner.as_ref()),
            self.purpose.clone(),
            allowances.join(" "),
            self.environment.clone(),
            or_dash(parent.map(String::as_str)),
            or_dash(self.heartbeat_due.as_deref()),
            self.seq.to_string(),
        ]
    }
}

/// A task in a tree of tasks.
#[derive(Serialize, Debug)]
pub struct Branch {
    #[serde(flatten)]
    task: TaskView,
    /// The depth below the first task.
    #[serde(skip)]
    below: usize,
}

impl Branch {
    /// Sorts each task below its parent, and siblings by age, oldest first.
    pub fn sorted(mut tasks: Vec<TaskView>) -> Vec<Branch> {
        let seqs: BTreeMap<String, u64> = tasks.iter().map(|t| (t.task_id.clone(), t.seq)).collect();
        // The place of a parent that is not listed is unknown; its children are still kept next to each other.
        let place = |t: &TaskView| -> Vec<(u64, String)> {
            t.path.iter().map(|id| (seqs.get(id).copied().unwrap_or(0), id.clone())).collect()
        };
        tasks.sort_by_cached_key(place);
        let top = tasks.iter().map(|t| t.path.len()).min().unwrap_or(0);
        tasks.into_iter().map(|task| Branch { below: task.path.len().saturating_sub(top), task }).collect()
    }
}

impl Printable for Branch {
    fn name(&self) -> String {
        self.task.name()
    }
}

impl Row for Branch {
    const COLUMNS: &'static [&'static str] = TaskView::COLUMNS;
    const WIDE: &'static [&'static str] = TaskView::WIDE;

    fn cells(&self) -> Vec<String> {
        let mut cells = self.task.cells();
        if let Some(first) = cells.first_mut().filter(|_| self.below > 0) {
            *first = format!("{}└ {first}", "  ".repeat(self.below - 1));
        }
        cells
    }
}

/// The answer to a heartbeat.
#[derive(Serialize, Debug)]
pub struct HeartbeatView {
    pub task_id: String,
    pub state: String,
    pub heartbeat_due: Option<String>,
}

impl Printable for HeartbeatView {
    fn name(&self) -> String {
        self.task_id.clone()
    }
}

/// The result of changing a task.
#[derive(Serialize, Debug)]
pub struct TaskChangeView {
    pub seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hits: Option<HitsView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub followers: Option<PropagationView>,
    pub task: Option<TaskView>,
}

impl Printable for TaskChangeView {
    fn name(&self) -> String {
        self.task.as_ref().map_or_else(|| self.seq.to_string(), Printable::name)
    }
}

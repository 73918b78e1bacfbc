//! The terms that tasks were opened with, and the parts that tasks share.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::record::{Allowance, Ancestor, Principal, SvidEvidence, TaskOpened, TokenEvidence};
use mayfly_base::limits;
use mayfly_verify::seq::{CredentialId, Millis, Seq, TaskId};

/// The terms of a task. Only the deadline changes later.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskSpec {
    /// The task's id.
    pub id: TaskId,
    /// The task path: root first, this task last.
    pub path: Vec<TaskId>,
    /// The owner of each task on the path.
    pub owners: Arc<[Principal]>,
    /// The workload that opened the task.
    pub opener: Arc<str>,
    /// Workloads that may act in the task besides the opener.
    pub callers: Arc<[Box<str>]>,
    /// The environment.
    pub environment: Arc<str>,
    /// The purpose, in the opener's words.
    pub purpose: Box<str>,
    /// The upstreams, scopes, tools and credential kinds that the task may use.
    pub allowance: Arc<Allowance>,
    /// When the opening was decided.
    pub opened_at: Millis,
    /// The latest time to which extensions can move the deadline.
    pub max_deadline: Millis,
    /// Milliseconds between heartbeats, 0 for none.
    pub heartbeat: u64,
    /// The policy version that the opening was decided with.
    pub policy: u64,
    /// The SVID that the task was opened with.
    pub svid: Option<Arc<SvidEvidence>>,
    /// On whose behalf the task, or the one above it, was opened.
    pub behalf: Option<Arc<TaskDelegation>>,
    /// The credential that identified the opener, if mayfly issued its SVID, or that the opener presented as a subject token.
    pub ancestor: Option<CredentialId>,
    /// The task is a break-glass task, or below one.
    pub break_glass: bool,
    /// The seq of the opening record.
    pub seq: Seq,
    /// The decision revision of the opening.
    pub revision: Seq,
}

/// The evidence by which a task is opened on somebody's behalf: a token, a presented credential of mayfly, or both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskDelegation {
    /// The subject token that the task was opened with, or that the parent task is based on.
    pub token: Option<TokenEvidence>,
    /// The actors, outermost first, if the task itself was opened with a subject token.
    pub actors: Vec<Principal>,
    /// If a credential of mayfly was presented: the credentials that it is based on, the oldest first, and then the credential.
    pub lineage: Vec<Ancestor>,
}

impl TaskDelegation {
    /// The evidence of a task that is being opened.
    pub(super) fn of(opened: &TaskOpened) -> Option<Arc<TaskDelegation>> {
        let behalf = TaskDelegation {
            token: opened.subject_token.clone(),
            actors: opened.actors.clone(),
            lineage: opened.ancestors.clone(),
        };
        let some = behalf.token.is_some() || !behalf.actors.is_empty() || !behalf.lineage.is_empty();
        some.then(|| Arc::new(behalf))
    }
}

/// Bytes of a task's terms that count towards its opener's limit: the size of its lists above `limits::TASK_BYTES_FREE`.
pub(super) fn counted_bytes(opened: &TaskOpened) -> u64 {
    let callers = opened.callers.iter().map(String::len);
    bytes_above(callers, opened.allowance.as_ref(), opened.purpose.len())
}

/// Each name costs its text and its place in a list.
fn bytes_above(callers: impl Iterator<Item = usize>, allowance: Option<&Allowance>, purpose: usize) -> u64 {
    let text = |length: usize| length + std::mem::size_of::<String>();
    let (tools, upstreams) = allowance.map_or((&[][..], &[][..]), |a| (&a.tools[..], &a.upstreams[..]));
    let scopes = |scopes: &[String]| scopes.iter().map(|scope| text(scope.len())).sum::<usize>();
    let all = callers.map(text).sum::<usize>()
        + tools.iter().map(|tool| text(tool.len())).sum::<usize>()
        + upstreams.iter().map(|u| text(u.name.len()) + scopes(&u.scopes)).sum::<usize>()
        + purpose;
    (all as u64).saturating_sub(limits::TASK_BYTES_FREE)
}

impl TaskSpec {
    /// Whether the parts that take the most memory are equal.
    pub(super) fn is_like(&self, other: &TaskSpec) -> bool {
        self.callers == other.callers && self.allowance == other.allowance
    }

    /// The result that [`counted_bytes`] gave for the opening record.
    pub(super) fn counted_bytes(&self) -> u64 {
        bytes_above(self.callers.iter().map(|c| c.len()), Some(self.allowance.as_ref()), self.purpose.len())
    }

    /// Shares the parts that are equal to those of `other`. Most tasks of a caller have equal terms, which are in memory once then.
    pub(super) fn share(&mut self, other: &TaskSpec) {
        fn one<T: PartialEq + ?Sized>(own: &mut Arc<T>, other: &Arc<T>) {
            if **own == **other {
                *own = other.clone();
            }
        }
        one(&mut self.opener, &other.opener);
        one(&mut self.environment, &other.environment);
        one(&mut self.owners, &other.owners);
        one(&mut self.callers, &other.callers);
        one(&mut self.allowance, &other.allowance);
        if let (Some(own), Some(other)) = (&mut self.svid, &other.svid) {
            one(own, other);
        }
        if let (Some(own), Some(other)) = (&mut self.behalf, &other.behalf) {
            one(own, other);
        }
    }
}

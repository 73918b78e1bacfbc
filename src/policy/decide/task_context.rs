//! The task of a decision: an open task, or one that is about to be opened.

use std::borrow::Cow;
use std::sync::Arc;

use super::approval_requirement::ApprovalRequirement;
use super::{denied, seconds};
use crate::exchange_request::ExchangeRequest;
use crate::grant::TaskPath;
use crate::question::{TaskFacts, UsageCounts};
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_identity::caller::Caller;
use mayfly_ledger::View;
use mayfly_ledger::record::{
    Allowance, Ancestor, CredentialIssued, HoldRank, Principal, RequestedTask, TaskOpened, TokenEvidence,
};
use mayfly_ledger::revocation::TargetKinds;
use mayfly_ledger::state::supporting_grants::opened_by_holder;
use mayfly_ledger::state::{self, State, SupportingGrant, Task, TaskApproval, TaskPhase};
use mayfly_ledger::upstream::registry::Kind;
use mayfly_verify::seq::{Millis, TaskId};

/// The task that a decision belongs to.
pub(super) struct TaskContext {
    pub id: TaskId,
    about: TaskOrigin,
    pub ttl_ms: u64,
    pub heartbeat: bool,
    pub deadline: Millis,
    pub max_deadline: Millis,
    pub counts: UsageCounts,
    behind: Vec<Ancestor>,
    /// Set for a break-glass task and for the tasks below one.
    pub break_glass: Option<Box<BreakGlassContext>>,
    /// The approval that opening the task needs.
    pub asks: Option<Box<ApprovalRequirement>>,
    /// The approval that the task was opened with.
    pub approved: Option<Arc<TaskApproval>>,
}

/// The break-glass task that a decision belongs to.
#[derive(Clone)]
pub(super) struct BreakGlassContext {
    /// The name of its rights in policy.
    pub rights: Box<str>,
    /// The caller as one of the task's people, with the SPIFFE ID that this person acts by. `None` where the caller is none of them.
    pub who: Option<(Principal, Box<str>)>,
}

impl BreakGlassContext {
    fn of(state: &State, terms: &state::TaskSpec, caller: &str) -> BreakGlassContext {
        let break_glass = terms.path.first().and_then(|root| state.break_glass_tasks.get(root));
        let who =
            break_glass.and_then(|g| g.people.iter().find(|p| *p.caller == *caller)).map(|p| (p.who.clone(), p.caller.clone()));
        BreakGlassContext { rights: break_glass.map(|g| g.rights.clone()).unwrap_or_default(), who }
    }
}

/// The terms that the task was, or will be, opened with.
enum TaskOrigin {
    /// An open task. The terms are shared with the state, so deciding does not copy them.
    Open(Arc<state::TaskSpec>),
    /// A new task: the record that opens it, and its allowance separately.
    New { opened: Box<TaskOpened>, allowance: Allowance, path: TaskPath },
}

impl TaskContext {
    /// A task that the record `opened` opens.
    pub fn new(id: TaskId, opened: TaskOpened, allowance: Allowance, path: TaskPath, live_of_caller: i64) -> TaskContext {
        TaskContext {
            id,
            ttl_ms: opened.deadline.saturating_sub(opened.opened_at),
            heartbeat: opened.heartbeat > 0,
            deadline: Millis(opened.deadline),
            max_deadline: Millis(opened.max_deadline),
            behind: behind_opening(&opened),
            counts: UsageCounts { live_of_caller, ..UsageCounts::default() },
            break_glass: None,
            asks: None,
            approved: None,
            about: TaskOrigin::New { opened: Box::new(opened), allowance, path },
        }
    }

    /// An open task in its present state, for this caller.
    pub fn open(state: &State, task: &Task, caller: &str) -> TaskContext {
        let terms = &task.terms;
        TaskContext {
            id: terms.id,
            about: TaskOrigin::Open(terms.clone()),
            ttl_ms: task.deadline.since(terms.opened_at),
            heartbeat: terms.heartbeat > 0,
            deadline: ends(state, task),
            max_deadline: terms.max_deadline,
            behind: state.tasks.upwards(task).flat_map(behind).collect(),
            counts: UsageCounts {
                issued_in_task: count(task.issued),
                live_in_task: count(task.credentials),
                live_of_caller: live_of(state, caller),
                uses_in_task: count(task.done.uses),
                refused_uses_in_task: count(task.done.refused),
                authorized_in_task: count(task.done.authorized),
            },
            break_glass: terms.break_glass.then(|| BreakGlassContext::of(state, terms, caller).into()),
            asks: None,
            approved: task.approved.clone(),
        }
    }

    /// Makes this task a child of `parent`: it also depends on every credential that its parent depends on.
    pub fn below(mut self, parent: Option<&TaskContext>) -> TaskContext {
        self.behind.extend(parent.into_iter().flat_map(|parent| &parent.behind).cloned());
        self
    }

    /// Sets the break-glass task that this task belongs to.
    pub fn in_break_glass(self, break_glass: Option<Box<BreakGlassContext>>) -> TaskContext {
        TaskContext { break_glass, ..self }
    }

    /// The terms of a new task, in the form of an approval request. `None` for an open task.
    pub fn asked(&self) -> Option<RequestedTask> {
        let TaskOrigin::New { opened, allowance, .. } = &self.about else { return None };
        let registrations = self.asks.as_ref().map(|d| d.registrations.clone()).unwrap_or_default();
        Some(RequestedTask { registrations, ..RequestedTask::opening(opened, allowance) })
    }

    /// Sets the approval that opening the task needs.
    pub fn asking(self, asks: Option<ApprovalRequirement>) -> TaskContext {
        TaskContext { asks: asks.map(Box::new), ..self }
    }

    /// The credentials that the tasks of the path were opened with, newest first.
    pub fn behind(&self) -> &[Ancestor] {
        &self.behind
    }

    /// Whether an open task is still active for this caller, with the same terms and the same deadline.
    #[cfg(feature = "fast")]
    pub fn unchanged(&self, state: &State, now: Millis, caller: &str) -> bool {
        let TaskOrigin::Open(terms) = &self.about else { return false };
        state.tasks.get(&self.id).is_some_and(|task| {
            Arc::ptr_eq(&task.terms, terms)
                && task.admits(caller)
                && matches!(state.tasks.phase(task, now), TaskPhase::Active)
                && ends(state, task) == self.deadline
        })
    }

    pub fn is_new(&self) -> bool {
        matches!(self.about, TaskOrigin::New { .. })
    }

    pub fn allowance(&self) -> &Allowance {
        match &self.about {
            TaskOrigin::Open(terms) => &terms.allowance,
            TaskOrigin::New { allowance, .. } => allowance,
        }
    }

    pub fn purpose(&self) -> &str {
        match &self.about {
            TaskOrigin::Open(terms) => &terms.purpose,
            TaskOrigin::New { opened, .. } => &opened.purpose,
        }
    }

    /// The purpose of an exchange in this task: its own, else the task's.
    pub fn purpose_of<'b>(&'b self, want: &'b ExchangeRequest) -> &'b str {
        if want.purpose.is_empty() { self.purpose() } else { &want.purpose }
    }

    pub fn environment(&self) -> &str {
        match &self.about {
            TaskOrigin::Open(terms) => &terms.environment,
            TaskOrigin::New { opened, .. } => &opened.environment,
        }
    }

    pub fn opened_at(&self) -> Millis {
        match &self.about {
            TaskOrigin::Open(terms) => terms.opened_at,
            TaskOrigin::New { opened, .. } => Millis(opened.opened_at),
        }
    }

    /// Heartbeat interval in milliseconds; 0 for none.
    pub fn heartbeat_ms(&self) -> u64 {
        match &self.about {
            TaskOrigin::Open(terms) => terms.heartbeat,
            TaskOrigin::New { opened, .. } => opened.heartbeat,
        }
    }

    pub fn callers(&self) -> Vec<&str> {
        match &self.about {
            TaskOrigin::Open(terms) => terms.callers.iter().map(|c| &**c).collect(),
            TaskOrigin::New { opened, .. } => opened.callers.iter().map(String::as_str).collect(),
        }
    }

    pub fn tasks(&self) -> &[TaskId] {
        match &self.about {
            TaskOrigin::Open(terms) => &terms.path,
            TaskOrigin::New { path, .. } => path.tasks(),
        }
    }

    pub fn owners(&self) -> &[Principal] {
        match &self.about {
            TaskOrigin::Open(terms) => &terms.owners,
            TaskOrigin::New { path, .. } => path.owners(),
        }
    }

    /// The subject token that the task was opened with. Credentials issued in the task depend on it too.
    pub fn token(&self) -> Option<&TokenEvidence> {
        match &self.about {
            TaskOrigin::Open(terms) => terms.behalf.as_deref().and_then(|behalf| behalf.token.as_ref()),
            TaskOrigin::New { opened, .. } => opened.subject_token.as_ref(),
        }
    }

    /// The other grants that a credential issued in this task depends on: the openings of the tasks and the credential's ancestors. Empty
    /// where all of them are known to add nothing beyond the credential's own record.
    pub fn grounds(&self, view: &View, draft: &CredentialIssued) -> Vec<SupportingGrant> {
        let open = match &self.about {
            TaskOrigin::Open(terms) => Some(&**terms),
            TaskOrigin::New { .. } => None,
        };
        let alone = self.tasks().len() == 1 && self.break_glass.is_none();
        if alone && draft.ancestors.is_empty() && open.is_none_or(|terms| opened_by_holder(draft, terms)) {
            return Vec::new();
        }
        // A new task is opened by its holder in the same commit, so its own opening is not needed.
        let newest = if open.is_some() { self.tasks().last() } else { self.tasks().iter().rev().nth(1) };
        view.read(|state| state.grounds_for(draft, newest))
    }

    pub fn depth(&self) -> usize {
        self.tasks().len().saturating_sub(1)
    }

    /// The task path.
    #[cfg(feature = "fast")]
    pub fn path(&self) -> TaskPath {
        match &self.about {
            TaskOrigin::Open(terms) => TaskPath::Open(terms.clone()),
            TaskOrigin::New { path, .. } => path.clone(),
        }
    }

    /// The task path and, for a new task, the record that opens it.
    pub fn settle(self) -> (TaskPath, Option<Box<TaskOpened>>) {
        match self.about {
            TaskOrigin::Open(terms) => (TaskPath::Open(terms), None),
            TaskOrigin::New { mut opened, allowance, path } => {
                opened.allowance = Some(allowance);
                (path, Some(opened))
            }
        }
    }
}

/// The credentials that a task depends on where its opener presented a mayfly credential: that credential and its ancestors.
fn behind(task: &Task) -> Vec<Ancestor> {
    let terms = &task.terms;
    let lineage = terms.behalf.as_deref().map_or(&[][..], |behalf| &behalf.lineage);
    lineage_or(lineage, terms.ancestor.as_ref().map_or(&[][..], |id| id.as_bytes()), &terms.opener)
}

fn behind_opening(opened: &TaskOpened) -> Vec<Ancestor> {
    lineage_or(&opened.ancestors, &opened.ancestor, &opened.opener)
}

fn lineage_or(lineage: &[Ancestor], ancestor: &[u8], opener: &str) -> Vec<Ancestor> {
    match (lineage, ancestor) {
        ([], []) => Vec::new(),
        // The opener's own SVID is a mayfly credential.
        ([], own) => vec![Ancestor { credential: own.to_vec(), caller: opener.to_owned() }],
        (lineage, _) => lineage.to_vec(),
    }
}

/// The lists of a task in the form that policy reads.
pub(super) struct TaskLists<'a> {
    owner: Cow<'a, str>,
    upstreams: Vec<&'a str>,
    tools: Vec<&'a str>,
    callers: Vec<&'a str>,
}

impl<'a> TaskLists<'a> {
    pub fn of(place: &'a TaskContext) -> TaskLists<'a> {
        let allowance = place.allowance();
        TaskLists {
            owner: place.owners().last().map_or("".into(), Principal::name_in_place),
            upstreams: allowance.upstreams.iter().map(|u| u.name.as_str()).collect(),
            tools: allowance.tools.iter().map(String::as_str).collect(),
            callers: place.callers(),
        }
    }

    pub fn facts<'b>(&'b self, place: &'b TaskContext, environment: &'b str, id: Option<&'b str>) -> TaskFacts<'b> {
        TaskFacts {
            id,
            purpose: place.purpose(),
            owner: &self.owner,
            environment,
            depth: i64::try_from(place.depth()).unwrap_or(i64::MAX),
            ttl_seconds: seconds(place.ttl_ms),
            heartbeat: place.heartbeat,
            upstreams: &self.upstreams,
            tools: &self.tools,
            callers: &self.callers,
        }
    }
}

/// The effective deadline of a task: no task outlives the tasks above it.
fn ends(state: &State, task: &Task) -> Millis {
    state.tasks.upwards(task).map(|t| t.deadline).min().unwrap_or(task.deadline)
}

fn count<N: TryInto<i64>>(n: N) -> i64 {
    n.try_into().unwrap_or(i64::MAX)
}

/// The number of live credentials of a caller. Expired credentials count until they are removed, so the number is never too low.
pub(super) fn live_of(state: &State, caller: &str) -> i64 {
    count(state.credentials.live_of(caller))
}

/// An open task in which this caller may act. To other callers the task does not exist.
pub(super) fn named(view: &View, caller: &Caller, id: TaskId) -> Result<TaskContext, Error> {
    view.read(|state| named_in(state, view.now(), caller, id))
}

/// The same, with the sorts of revocation rules that may block the decision, from one read of the state.
pub(super) fn named_and_blocked(view: &View, caller: &Caller, id: TaskId) -> (Result<TaskContext, Error>, TargetKinds) {
    view.read(|state| (named_in(state, view.now(), caller, id), state.rules.may_block(view.revision())))
}

fn named_in(state: &State, now: Millis, caller: &Caller, id: TaskId) -> Result<TaskContext, Error> {
    let task = state.tasks.get(&id).filter(|t| t.admits(caller.id().as_str()));
    let task: &Task = task.ok_or_else(|| {
        Error::Refusal(
            Refusal::new(Reason::NotFound, format!("there is no task {id} in which {} may act", caller.id()))
                .way_out("the task's opener names its callers; mayfly task list shows your tasks"),
        )
    })?;
    match state.tasks.phase(task, now) {
        TaskPhase::Active => {}
        TaskPhase::Held => return Err(held(state, task)),
        TaskPhase::PendingApproval => return Err(denied(Reason::TaskNotActive, format!("task {id} waits for an approval"))),
        TaskPhase::Over(how) => return Err(denied(Reason::TaskNotActive, format!("task {id} is over ({how:?})"))),
    }
    Ok(TaskContext::open(state, task, caller.id().as_str()))
}

/// A refusal that tells the caller who holds the task and why.
fn held(state: &State, task: &Task) -> Error {
    let id = task.terms.id;
    let hold = state.tasks.upwards(task).flat_map(|t| &t.holds).max_by_key(|hold| hold.rank);
    let Some(hold) = hold else { return denied(Reason::TaskNotActive, format!("task {id} is held")) };
    let (by, way_out) = match hold.rank {
        HoldRank::Policy => ("policy", format!("an operator looks at it: mayfly task resume {id} --reason TEXT")),
        HoldRank::Operator => ("an operator", format!("an operator looks at it: mayfly task resume {id} --reason TEXT")),
        _ => ("whose it is", format!("whoever holds it: mayfly task resume {id} --reason TEXT")),
    };
    let no = Refusal::new(Reason::TaskNotActive, format!("task {id} is held by {by}: {}", hold.reason));
    Error::Refusal(no.way_out(way_out))
}

fn outside(place: &TaskContext, what: impl std::fmt::Display) -> Error {
    denied(Reason::OutsideTask, format!("task {} does not include {what}", place.id))
}

/// The part of the task check that can differ between the exchanges of one batch: the tool.
pub(super) fn tool_within(place: &TaskContext, want: &ExchangeRequest) -> Result<(), Error> {
    let allowance = place.allowance();
    if !want.tool.is_empty() && !allowance.any_tool && !allowance.tools.iter().any(|tool| *tool == want.tool) {
        return Err(outside(place, format_args!("tool {}", want.tool)));
    }
    Ok(())
}

pub(super) fn within_task(place: &TaskContext, want: &ExchangeRequest, scopes: &[String], kind: Kind) -> Result<(), Error> {
    let outside = |what: String| Err(outside(place, what));
    let allowance = place.allowance();
    let Some(allowed) = allowance.upstreams.iter().find(|u| *u.name == *want.upstream) else {
        return outside(format!("upstream {}", want.upstream));
    };
    if let Some(scope) = scopes.iter().find(|s| !allowed.scopes.contains(s)) {
        return outside(format!("scope {scope} of {}", want.upstream));
    }
    tool_within(place, want)?;
    if !allowance.kinds.is_empty() && !allowance.kinds.contains(&u32::from(kind.tag())) {
        return outside(format!("kind {kind}"));
    }
    Ok(())
}

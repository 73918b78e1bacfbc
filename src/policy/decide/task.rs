//! Decides opening a task, for its opener or for another caller.

use std::sync::atomic::Ordering::Relaxed;

use super::approval_requirement::TaskQuestion;
use super::task_context::{TaskContext, live_of, named};
use super::{Decider, break_glass, caller_facts, credential_draft::scopes_of, denied, subject, svid_of};
use crate::action::WorkloadAction;
use crate::catalog::{CompiledCatalog, EnvironmentPolicy};
use crate::exchange_request::TaskRequest;
use crate::grant::TaskPath;
use crate::subject::VerifiedSubject;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_identity::caller::Caller;
use mayfly_identity::spiffe_id::SpiffeId;
use mayfly_ledger::View;
use mayfly_ledger::record::{self, Allowance, ApprovalRequested, Principal, TaskOpened};
use mayfly_ledger::revocation::Facts;
use mayfly_ledger::upstream::registry::RegisteredScope;
use mayfly_verify::seq::{ApprovalId, Millis, TaskId};

/// How a separately opened task (not an inline task) is opened.
#[derive(Clone, Copy, Default)]
pub struct TaskOpenMode<'a> {
    /// The task is opened for another caller.
    pub delegate: bool,
    /// The subject, where the opener acts on behalf of one.
    pub subject: Option<&'a VerifiedSubject>,
}

/// The decision to open a task.
#[derive(Debug)]
pub struct TaskOpenDecision {
    /// The record that opens the task.
    pub opened: Box<TaskOpened>,
    /// The approval that is asked for. The task waits for it.
    pub asked: Option<Box<ApprovalRequested>>,
}

impl Decider {
    /// Decides opening a task, or a child task for another caller.
    pub fn open_task(
        &self,
        view: &View,
        compiled: &CompiledCatalog,
        caller: &Caller,
        terms: &TaskRequest,
        (id, approval): (TaskId, ApprovalId),
        opens: TaskOpenMode<'_>,
    ) -> Result<TaskOpenDecision, Error> {
        let Some((first, _)) = terms.upstreams.first() else {
            return Err(Error::Refusal(Refusal::field("upstreams", "is empty: name at least one upstream with its scopes")));
        };
        let environment = self.registered(compiled, first)?.upstream.environment.clone();
        let policy = self.inside_wall(compiled, caller, &environment)?;
        let mut facts = caller_facts(caller, view);
        subject::add_facts(&mut facts, opens.subject);
        if let Some(hit) = view.read(|s| s.rules.blocks(&facts)) {
            return Err(Error::Refusal(mayfly_ledger::state::refused_by(&hit, "opening a task")));
        }
        let work = if opens.delegate { WorkloadAction::DelegateTask } else { WorkloadAction::OpenTask };
        let mut terms = terms.clone();
        if let Some(subject) = opens.subject {
            subject::in_environment(subject, policy, &environment)?;
            subject::bounded(subject, caller)?;
            terms.parent = terms.parent.or(subject.shown().map(|shown| shown.task));
        }
        let place = self.opening(view, compiled, policy, caller, &terms, id, (work, opens.subject))?;
        opens.subject.map_or(Ok(()), |subject| subject::within_lineage(subject, &place))?;
        let asked =
            place.asks.as_ref().map(|demand| self.opening_asked(caller, &place, demand, (approval, view.now()), opens.subject));
        let mut opened = place.settle().1.ok_or_else(|| Error::Fault(Fault::new("a task that is opened has no record")))?;
        if asked.is_some() {
            opened.approval = approval.as_bytes().to_vec();
        }
        Ok(TaskOpenDecision { opened, asked: asked.map(Box::new) })
    }

    /// A task that is about to be opened, with its record.
    #[allow(clippy::too_many_arguments, reason = "the same arguments for a task of its own, inline and for another caller")]
    pub(super) fn opening(
        &self,
        view: &View,
        compiled: &CompiledCatalog,
        policy: &EnvironmentPolicy,
        caller: &Caller,
        terms: &TaskRequest,
        id: TaskId,
        (work, subject): (WorkloadAction, Option<&VerifiedSubject>),
    ) -> Result<TaskContext, Error> {
        let now = view.now();
        let (allowance, environment) = self.allowance(compiled, terms, subject)?;
        let parent = terms.parent.map(|p| named(view, caller, p)).transpose()?;
        let longest = self.longest_task_ms.load(Relaxed);
        let ttl = terms.ttl_ms.unwrap_or(limits::TASK_TTL_DEFAULT_MS.min(longest));
        let max = terms.max_ttl_ms.unwrap_or(ttl);
        for (field, ms) in [("ttl", ttl), ("max_ttl", max)] {
            if ms > longest {
                return Err(Error::Refusal(Refusal::field(
                    field,
                    format!("{} s, a task lives at most {} s", ms / 1000, longest / 1000),
                )));
            }
        }
        if max < ttl {
            return Err(Error::Refusal(Refusal::field("max_ttl", "is shorter than ttl")));
        }
        let mut deadline = now.plus(ttl);
        let mut max_deadline = now.plus(max);
        let (mut tasks, mut owners) = (Vec::new(), Vec::new());
        if let Some(p) = &parent {
            if let Some(what) = allowance.wider_than(p.allowance()) {
                return Err(denied(
                    Reason::WiderThanParent,
                    format!("a child task would be wider than its parent {}: {what}", p.id),
                ));
            }
            deadline = deadline.min(p.deadline);
            max_deadline = max_deadline.min(p.max_deadline);
            (tasks, owners) = (p.tasks().to_vec(), p.owners().to_vec());
        }
        if let Some(subject) = subject {
            // The subject's rights are checked only here, so the task ends no later than the token that states them.
            let ends = Millis(subject.token().expires_at);
            (deadline, max_deadline) = (deadline.min(ends), max_deadline.min(ends));
        }
        if tasks.len() >= limits::TASK_DEPTH {
            return Err(Error::Refusal(Refusal::limit("task_depth", limits::TASK_DEPTH as u64, std::time::Duration::ZERO)));
        }
        callers_belong(view, policy, caller, &environment, &terms.callers)?;
        let break_glass = parent.as_ref().and_then(|p| p.break_glass.clone());
        if let (Some(_), Some(parent)) = (&break_glass, terms.parent) {
            break_glass::check_participants(view, parent, caller, &terms.callers)?;
        }
        let owner = subject.map_or_else(|| owner_of(caller, terms, work), |subject| Ok(subject.identity().clone()))?;
        tasks.push(id);
        owners.push(owner.clone());
        let mut opened = TaskOpened {
            task: id.as_bytes().to_vec(),
            parent: terms.parent.map_or_else(Vec::new, |p| p.as_bytes().to_vec()),
            owner: Some(owner),
            opener: caller.id().as_str().to_owned(),
            callers: terms.callers.clone(),
            environment,
            purpose: terms.purpose.clone(),
            opened_at: now.0,
            deadline: deadline.0,
            max_deadline: max_deadline.max(deadline).0,
            heartbeat: terms.heartbeat_ms,
            policy_version: policy.version,
            svid: Some(svid_of(caller)),
            ancestor: caller.ancestor().map_or_else(Vec::new, |a| a.as_bytes().to_vec()),
            break_glass: break_glass.is_some(),
            ..TaskOpened::default()
        };
        match subject {
            Some(subject) => subject::write_opened(&mut opened, caller, subject),
            // A child task depends on everything that its parent depends on.
            None => opened.subject_token = parent.as_ref().and_then(TaskContext::token).cloned(),
        }
        let live = view.read(|s| live_of(s, caller.id().as_str()));
        let place = TaskContext::new(id, opened, allowance, TaskPath::New { tasks, owners }, live)
            .below(parent.as_ref())
            .in_break_glass(break_glass);
        let delegate = (work == WorkloadAction::DelegateTask).then(|| terms.callers.first().map(String::as_str)).flatten();
        let of =
            TaskQuestion { caller, place: &place, work, purpose: &terms.purpose, subject, delegate, ttl_ms: place.ttl_ms, now };
        let asks = self.task_permitted(compiled, policy, &of, &[])?;
        Ok(place.asking(asks))
    }

    /// Asks policy once for each upstream of the task. A task that needs an approval is refused here.
    pub(super) fn may_open(
        &self,
        compiled: &CompiledCatalog,
        policy: &EnvironmentPolicy,
        of: &TaskQuestion<'_>,
    ) -> Result<(), Error> {
        match self.task_permitted(compiled, policy, of, &[])? {
            Some(demand) => Err(Error::Refusal(demand.needed())),
            None => Ok(()),
        }
    }

    /// The upstreams and scopes of a task. All upstreams must belong to one environment.
    pub(super) fn allowance(
        &self,
        compiled: &CompiledCatalog,
        terms: &TaskRequest,
        subject: Option<&VerifiedSubject>,
    ) -> Result<(Allowance, String), Error> {
        let mut environment: Option<String> = None;
        let mut upstreams = Vec::with_capacity(terms.upstreams.len());
        for (name, scopes) in &terms.upstreams {
            let upstream = &self.registered(compiled, name)?.upstream;
            let own = &upstream.environment;
            if environment.get_or_insert_with(|| own.clone()) != own {
                return Err(denied(
                    Reason::EnvironmentWall,
                    format!("a task's upstreams belong to one environment; {name} belongs to {own}"),
                ));
            }
            let may = |scope: &&RegisteredScope| subject.is_none_or(|subject| subject.may(&upstream.name, &scope.name));
            let scopes = if scopes.is_empty() {
                upstream.scopes.iter().filter(|s| !s.sensitive).filter(may).map(|s| s.name.clone()).collect()
            } else {
                scopes_of(upstream, scopes)?
            };
            subject.map_or(Ok(()), |subject| subject::within_rights(subject, upstream, &scopes))?;
            upstreams.push(record::AllowedUpstream { name: name.clone(), scopes });
        }
        let allowance = Allowance {
            upstreams,
            tools: terms.tools.clone(),
            kinds: terms.kinds.iter().map(|k| u32::from(k.tag())).collect(),
            key_bound: terms.key_bound,
            any_tool: terms.any_tool,
        };
        Ok((allowance, environment.unwrap_or_default()))
    }
}

/// The callers that a task names must belong to its environment. A caller that a revocation rule shuts out is refused too.
fn callers_belong(
    view: &View,
    policy: &EnvironmentPolicy,
    opener: &Caller,
    environment: &str,
    named: &[String],
) -> Result<(), Error> {
    for name in named.iter().filter(|name| **name != *opener.id().as_str()) {
        let id = SpiffeId::parse(name).map_err(|e| Refusal::field("callers", format!("{name}: {e}")))?;
        let wall = |what: String| {
            let no = Refusal::new(Reason::EnvironmentWall, what).by(format!("environment {environment}"));
            Err(Error::Refusal(no.way_out("name callers that the roles file puts into the environment of the task")))
        };
        match policy.set.environment_of(&id) {
            Some(own) if own != environment => return wall(format!("caller {id} belongs to {own}, the task to {environment}")),
            None => return wall(format!("caller {id} belongs to no environment, the task to {environment}")),
            Some(_) => {}
        }
        let facts = Facts { revision: view.revision(), identities: vec![(id.trust_domain(), id.as_str())], ..Facts::default() };
        if let Some(hit) = view.read(|s| s.rules.shuts_out(&facts)) {
            return Err(Error::Refusal(mayfly_ledger::state::refused_by(&hit, &format!("caller {id}"))));
        }
    }
    Ok(())
}

/// The owner of a task is its opener. A task opened for another caller belongs to that caller, so that revoking the caller or listing its
/// tasks includes it.
fn owner_of(caller: &Caller, terms: &TaskRequest, work: WorkloadAction) -> Result<Principal, Error> {
    if work != WorkloadAction::DelegateTask {
        return Ok(Principal::of(caller));
    }
    let missing = || Error::Refusal(Refusal::field("caller", "is missing: the SPIFFE ID that the task is opened for"));
    let id = SpiffeId::parse(terms.callers.first().ok_or_else(missing)?);
    let id = id.map_err(|e| Error::Refusal(Refusal::field("caller", e)))?;
    Ok(Principal::workload(&id))
}

impl TaskRequest {
    /// Adds to the terms of an inline task what its exchange asks for.
    pub(super) fn with_default(&self, upstream: &str, scopes: &[String], tool: &str, purpose: &str) -> TaskRequest {
        let mut terms = self.clone();
        if terms.upstreams.is_empty() {
            terms.upstreams.push((upstream.to_owned(), scopes.to_vec()));
        }
        if terms.tools.is_empty() && !terms.any_tool && !tool.is_empty() {
            terms.tools.push(tool.to_owned());
        }
        if terms.purpose.is_empty() {
            terms.purpose = purpose.to_owned();
        }
        terms
    }
}

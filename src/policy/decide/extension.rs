//! Extending a task's deadline, and the approval requests about a task: for its opening or for a later deadline.

use super::approval::{ApprovalProgress, known, refused};
use super::approval_requirement::{ApprovalRequirement, TaskQuestion};
use super::task_context::{TaskContext, named};
use super::{Decider, denied};
use crate::action::WorkloadAction;
use crate::catalog::{CompiledCatalog, EnvironmentPolicy};
use crate::subject::VerifiedSubject;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_identity::caller::Caller;
use mayfly_ledger::View;
use mayfly_ledger::record::{ApprovalKind, ApprovalRequested, Principal, RequestedTask};
use mayfly_ledger::state::digest_of_task;
use mayfly_ledger::upstream::registry::Approver;
use mayfly_verify::seq::{ApprovalId, Millis, TaskId};

/// The decision to extend a task.
#[derive(Clone, Copy, Debug)]
pub struct ExtensionDecision {
    /// The version of the policy set that permits the extension.
    pub policy_version: u64,
    /// The approval that the extension uses up.
    pub approval: Option<ApprovalId>,
}

/// The part of an extension that is settled before any approval.
struct PendingExtension<'a> {
    place: TaskContext,
    policy: &'a EnvironmentPolicy,
    demand: Option<ApprovalRequirement>,
}

impl PendingExtension<'_> {
    fn ask<'b>(&'b self, caller: &'b Caller, deadline: Millis, now: Millis) -> TaskQuestion<'b> {
        extension(caller, &self.place, deadline, now)
    }
}

fn extension<'a>(caller: &'a Caller, place: &'a TaskContext, deadline: Millis, now: Millis) -> TaskQuestion<'a> {
    let (work, purpose, ttl_ms) = (WorkloadAction::ExtendTask, place.purpose(), deadline.since(now));
    TaskQuestion { caller, place, work, purpose, subject: None, delegate: None, ttl_ms, now }
}

impl Decider {
    /// Decides a later deadline for a task by the same rules as opening it. `None`: the task already has this deadline.
    pub fn extend(
        &self,
        view: &View,
        compiled: &CompiledCatalog,
        caller: &Caller,
        id: TaskId,
        deadline: Millis,
    ) -> Result<Option<ExtensionDecision>, Error> {
        let Some(extending) = self.extending(view, compiled, caller, id, deadline)? else { return Ok(None) };
        let policy_version = extending.policy.version;
        let Some(demand) = &extending.demand else { return Ok(Some(ExtensionDecision { policy_version, approval: None })) };
        let asked = extension_asked(caller, &extending.place, demand, deadline);
        let digest = digest_of_task(&asked);
        match known(view, caller, &digest) {
            ApprovalProgress::Given(given, person) => {
                let of = extending.ask(caller, deadline, view.now());
                self.task_permitted_with(compiled, extending.policy, &of, demand, &person)?;
                Ok(Some(ExtensionDecision { policy_version, approval: Some(given.id) }))
            }
            ApprovalProgress::Refused(id, person, reason) => Err(refused(id, &person, &reason)),
            ApprovalProgress::Waits(id) => Err(Error::Refusal(demand.needed().approval(id.to_string()))),
            ApprovalProgress::Nothing => Err(Error::Refusal(demand.needed())),
        }
    }

    /// The record that asks for an approval, where a later deadline needs one.
    pub fn extension_approval(
        &self,
        view: &View,
        compiled: &CompiledCatalog,
        caller: &Caller,
        (id, deadline): (TaskId, Millis),
        approval: ApprovalId,
    ) -> Result<ApprovalRequested, Error> {
        let extending = self.extending(view, compiled, caller, id, deadline)?;
        let none = || Error::Refusal(Refusal::new(Reason::DecidedOnOldState, "the extension no longer needs an approval"));
        let extending = extending.ok_or_else(none)?;
        let asked = extension_asked(caller, &extending.place, extending.demand.as_ref().ok_or_else(none)?, deadline);
        let expires_at = view.now().plus(limits::APPROVAL_TTL_DEFAULT_MS).min(extending.place.deadline).0;
        Ok(ApprovalRequested {
            approval: approval.as_bytes().to_vec(),
            digest: digest_of_task(&asked).to_vec(),
            expires_at,
            ..asked
        })
    }

    fn extending<'a>(
        &self,
        view: &View,
        compiled: &'a CompiledCatalog,
        caller: &Caller,
        id: TaskId,
        deadline: Millis,
    ) -> Result<Option<PendingExtension<'a>>, Error> {
        let place = named(view, caller, id)?;
        if place.break_glass.is_some() && deadline > place.deadline {
            let no = Refusal::new(Reason::NoLifeLeft, format!("task {id} is a break-glass task, which cannot be extended"));
            return Err(Error::Refusal(no.way_out("close the task, have it reviewed, and open another one")));
        }
        if deadline == place.deadline {
            return Ok(None);
        }
        if deadline < place.deadline {
            let what = format!("{deadline} is before the deadline {} of the task; an extension moves it later", place.deadline);
            let no = Refusal::field("deadline", what);
            return Err(Error::Refusal(no.way_out(format!("to end the task before its deadline: mayfly task complete {id}"))));
        }
        if deadline > place.max_deadline {
            let what = format!("no extension goes beyond {}, fixed when it was opened", place.max_deadline);
            return Err(Error::Refusal(Refusal::new(Reason::NoLifeLeft, what).way_out("open another task")));
        }
        let Some(first) = place.allowance().upstreams.first() else {
            return Err(Error::Fault(Fault::new("a task without an upstream")));
        };
        let environment = self.registered(compiled, &first.name)?.upstream.environment.clone();
        let policy = self.inside_wall(compiled, caller, &environment)?;
        let again = place.approved.as_ref().map(|a| a.upstreams.clone()).unwrap_or_default();
        let demand = self.task_permitted(compiled, policy, &extension(caller, &place, deadline, view.now()), &again)?;
        if let (None, Some(first)) = (&demand, &place.approved) {
            // The fold does not extend a task that was opened with an approval unless the extension has one too.
            let what = format!("task {id} was opened with approval {}, and nobody is named who could give another one", first.id);
            return Err(denied(Reason::DeniedByPolicy, what));
        }
        Ok(Some(PendingExtension { place, policy, demand }))
    }

    /// The record that asks for the approval of opening a task.
    pub(super) fn opening_asked(
        &self,
        caller: &Caller,
        place: &TaskContext,
        demand: &ApprovalRequirement,
        (approval, now): (ApprovalId, Millis),
        subject: Option<&VerifiedSubject>,
    ) -> ApprovalRequested {
        let asked = ApprovalRequested {
            of: ApprovalKind::Task as i32,
            subject: subject.filter(|s| !s.is(caller.id())).map(|s| s.identity().clone()),
            actors: subject.map_or_else(Vec::new, |s| s.actors(caller.id())),
            ..of_task(caller, place, demand, place.asked().unwrap_or_default())
        };
        ApprovalRequested {
            approval: approval.as_bytes().to_vec(),
            digest: digest_of_task(&asked).to_vec(),
            expires_at: now.plus(limits::APPROVAL_TTL_DEFAULT_MS).min(place.deadline).0,
            ..asked
        }
    }
}

/// The request for an approval of a later deadline, without an approval id and an expiry.
fn extension_asked(caller: &Caller, place: &TaskContext, demand: &ApprovalRequirement, deadline: Millis) -> ApprovalRequested {
    let parent = place.tasks().len().checked_sub(2).and_then(|at| place.tasks().get(at));
    let opened_at = place.opened_at();
    let terms = RequestedTask {
        owner: place.owners().last().cloned(),
        parent: parent.map_or_else(Vec::new, |p| p.as_bytes().to_vec()),
        callers: place.callers().into_iter().map(str::to_owned).collect(),
        allowance: Some(place.allowance().clone()),
        purpose: place.purpose().to_owned(),
        ttl: deadline.since(opened_at),
        max_ttl: place.max_deadline.since(opened_at),
        heartbeat: place.heartbeat_ms(),
        registrations: demand.registrations.clone(),
        deadline: deadline.0,
    };
    ApprovalRequested { of: ApprovalKind::Extension as i32, ..of_task(caller, place, demand, terms) }
}

fn of_task(caller: &Caller, place: &TaskContext, demand: &ApprovalRequirement, terms: RequestedTask) -> ApprovalRequested {
    let first = demand.registrations.first().cloned().unwrap_or_default();
    let allowed = place.allowance().upstreams.iter().find(|u| u.name == first.upstream);
    let approvers: Vec<Principal> = demand.approvers.iter().map(Approver::identity).collect();
    ApprovalRequested {
        caller: caller.id().as_str().to_owned(),
        task: place.id.as_bytes().to_vec(),
        environment: place.environment().to_owned(),
        scopes: allowed.map_or_else(Vec::new, |u| u.scopes.clone()),
        upstream: first.upstream,
        upstream_version: first.version,
        ttl: terms.max_ttl,
        purpose: terms.purpose.clone(),
        approvers,
        terms: Some(Box::new(terms)),
        ..ApprovalRequested::default()
    }
}

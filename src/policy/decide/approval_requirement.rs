//! Opening or extending a task: asks policy about each upstream of the task and, where an approval is needed, determines the approvers.

use super::subject::SubjectAttributes;
use super::task_context::{TaskContext, TaskLists};
use super::{Decider, seconds};
use crate::action::{Action, WorkloadAction};
use crate::catalog::{CompiledCatalog, EnvironmentPolicy, RegisteredUpstream};
use crate::person;
use crate::question::{self, ApprovalFacts, Question};
use crate::subject::VerifiedSubject;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_identity::caller::Caller;
use mayfly_ledger::record::{AllowedUpstream, RequestedRegistration};
use mayfly_ledger::upstream::registry::Approver;
use mayfly_verify::seq::{Millis, TaskId};

/// A question to policy about a task, without the upstream.
pub(super) struct TaskQuestion<'a> {
    pub caller: &'a Caller,
    pub place: &'a TaskContext,
    pub work: WorkloadAction,
    /// The purpose: the task's, or that of the person who joins a break-glass task.
    pub purpose: &'a str,
    pub subject: Option<&'a VerifiedSubject>,
    /// The caller for which a child task is opened.
    pub delegate: Option<&'a str>,
    /// The lifetime, or the time from now to the new deadline, in milliseconds.
    pub ttl_ms: u64,
    pub now: Millis,
}

/// An approval that a task needs.
#[derive(Clone, Debug)]
pub(super) struct ApprovalRequirement {
    /// The upstreams for which policy demands the approval, with the versions of their registrations.
    pub registrations: Vec<RequestedRegistration>,
    /// The approvers that all of these registrations name and with whose approval policy permits the task.
    pub approvers: Vec<Approver>,
    /// The policy that demands the approval.
    pub rule: String,
}

impl ApprovalRequirement {
    /// The refusal of a caller that has no approval yet.
    pub fn needed(&self) -> Refusal {
        Refusal::new(Reason::ApprovalNeeded, "the request needs an approval first").by(self.rule.clone())
    }
}

/// An upstream that needs an approval, and the refusal without one. No refusal where the approval is needed only because opening the task
/// took one.
type UnapprovedUpstream<'a> = (&'a RegisteredUpstream, &'a AllowedUpstream, Option<Refusal>);

impl Decider {
    fn ask_task<T>(
        &self,
        registered: &RegisteredUpstream,
        allowed: &AllowedUpstream,
        of: &TaskQuestion<'_>,
        approvals: ApprovalFacts<'_>,
        ask_it: impl FnOnce(&Question<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let access = self.access_in_task(&registered.upstream, &of.place.allowance().kinds, &allowed.scopes)?;
        let (place, upstream) = (of.place, &registered.upstream);
        let (lists, behind) = (TaskLists::of(place), SubjectAttributes::of(of.subject, of.caller));
        let (chain, groups) = behind.texts();
        let person = person::CallerPerson::of(of.caller);
        let scopes: Vec<&str> = allowed.scopes.iter().map(String::as_str).collect();
        let mut id = [0; TaskId::TEXT];
        // A task that is being opened has no id yet.
        let id = (of.work == WorkloadAction::ExtendTask).then(|| place.id.write(&mut id));
        let ask = question::WorkloadContext {
            environment: &upstream.environment,
            act_chain: &chain,
            subject: behind.facts(&groups),
            intent: question::DeclaredIntent {
                purpose: of.purpose,
                scopes: &scopes,
                access: access.as_ref(),
                ..Default::default()
            },
            ttl_seconds: seconds(of.ttl_ms),
            delegate: of.delegate,
            break_glass: place.break_glass.is_some(),
            counts: place.counts,
            person: person.facts(),
            task: lists.facts(place, &upstream.environment, id),
            approvals,
            now: of.now,
            ..question::WorkloadContext::default()
        };
        ask_it(&Question::work(of.caller.id(), of.work, upstream, &ask))
    }

    /// Asks policy once for each upstream of the task. `None`: permitted; a demand: an approval is needed first. `again`: the upstreams for
    /// which opening the task took an approval.
    pub(super) fn task_permitted(
        &self,
        compiled: &CompiledCatalog,
        policy: &EnvironmentPolicy,
        of: &TaskQuestion<'_>,
        again: &[Box<str>],
    ) -> Result<Option<ApprovalRequirement>, Error> {
        // A break-glass task gives the rights that it was opened with; no approval widens them.
        let helps = of.place.break_glass.is_none() && policy.set.reads(Action::Work(of.work)).reads_approvals();
        let mut wants: Vec<UnapprovedUpstream<'_>> = Vec::new();
        for allowed in &of.place.allowance().upstreams {
            let registered = self.registered(compiled, &allowed.name)?;
            let asked = self.ask_task(registered, allowed, of, ApprovalFacts::default(), |q| self.ask_once(policy, q));
            match asked {
                Ok(_) if again.iter().any(|name| **name == *allowed.name) => wants.push((registered, allowed, None)),
                Ok(_) => {}
                Err(Error::Refusal(no)) if helps => wants.push((registered, allowed, Some(no))),
                Err(no) => return Err(no),
            }
        }
        if wants.is_empty() { Ok(None) } else { self.demand(policy, of, &wants).map(Some) }
    }

    fn demand(
        &self,
        policy: &EnvironmentPolicy,
        of: &TaskQuestion<'_>,
        wants: &[UnapprovedUpstream<'_>],
    ) -> Result<ApprovalRequirement, Error> {
        let named = |approver: &&Approver| wants.iter().all(|(r, ..)| r.upstream.approvers.contains(approver));
        let first = wants.first().map(|(r, ..)| r.upstream.approvers.as_slice()).unwrap_or_default();
        let all: Vec<&Approver> = first.iter().filter(named).collect();
        let permits = |approver: &&&Approver| {
            let name = approver.name();
            let approvals = ApprovalFacts { count: 1, people: &[&name] };
            let asked = |(r, allowed, _): &UnapprovedUpstream<'_>| {
                self.ask_task(r, allowed, of, approvals, |q| self.ask(policy, q)).is_ok()
            };
            wants.iter().all(asked)
        };
        let approvers: Vec<Approver> = all.iter().filter(permits).map(|a| (*a).clone()).collect();
        let without = wants.iter().find_map(|(.., no)| no.clone());
        if approvers.is_empty() {
            let names = || wants.iter().map(|(r, ..)| r.upstream.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(Error::Refusal(match without {
                // No approval would change the verdict.
                Some(no) if wants.len() == 1 || !all.is_empty() => no,
                _ => {
                    let what = format!("the request needs an approval, and nobody is named as approver by all of {}", names());
                    Refusal::new(Reason::DeniedByPolicy, what).way_out("open one task for each")
                }
            }));
        }
        let registrations =
            wants.iter().map(|(r, ..)| RequestedRegistration { upstream: r.upstream.name.clone(), version: r.version });
        let rule = without.and_then(|no| no.rule).unwrap_or_else(|| "opening it took an approval".to_owned());
        Ok(ApprovalRequirement { registrations: registrations.collect(), approvers, rule })
    }

    /// Whether policy permits the task with this person's approval.
    pub(super) fn task_permitted_with(
        &self,
        compiled: &CompiledCatalog,
        policy: &EnvironmentPolicy,
        of: &TaskQuestion<'_>,
        demand: &ApprovalRequirement,
        person: &str,
    ) -> Result<(), Error> {
        let approvals = ApprovalFacts { count: 1, people: &[person] };
        let wanted = |u: &&AllowedUpstream| demand.registrations.iter().any(|r| r.upstream == u.name);
        for allowed in of.place.allowance().upstreams.iter().filter(wanted) {
            let registered = self.registered(compiled, &allowed.name)?;
            self.ask_task(registered, allowed, of, approvals, |q| self.ask(policy, q))?;
        }
        Ok(())
    }
}

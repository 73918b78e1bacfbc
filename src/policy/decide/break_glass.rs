//! Decides about break-glass tasks: who may open, join and review them, and that they stay within the rights that policy names.

use std::sync::atomic::Ordering::Relaxed;

use super::approval_requirement::TaskQuestion;
use super::task_context::{BreakGlassContext, TaskContext, live_of};
use super::{Decider, caller_facts, denied, svid_of};
use crate::action::WorkloadAction;
use crate::break_glass_rights::BreakGlassRights;
use crate::catalog::{CompiledCatalog, EnvironmentPolicy};
use crate::exchange_request::TaskRequest;
use crate::grant::TaskPath;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_identity::caller::Caller;
use mayfly_ledger::View;
use mayfly_ledger::record::{BreakGlassStep, BreakGlassStepTaken, Principal, TaskOpened};
use mayfly_ledger::state::{BreakGlassTask, refused_by, trust_domain_of};
use mayfly_ledger::upstream::registry::Upstream;
use mayfly_verify::seq::{Millis, TaskId};

/// A request to open a break-glass task.
#[derive(Clone, Debug)]
pub struct BreakGlassRequest {
    /// The name of the rights in policy.
    pub rights: String,
    /// The environment, where several environments have rights of that name.
    pub environment: Option<String>,
    /// The reason for opening.
    pub reason: String,
    /// The requested duration, in milliseconds.
    pub ttl_ms: Option<u64>,
}

impl BreakGlassRights {
    fn terms(&self, reason: &str) -> TaskRequest {
        TaskRequest {
            purpose: reason.to_owned(),
            upstreams: self.upstreams.clone(),
            tools: self.tools.clone(),
            any_tool: self.any_tool,
            kinds: self.kinds.clone(),
            callers: Vec::new(),
            key_bound: false,
            ttl_ms: None,
            max_ttl_ms: None,
            heartbeat_ms: 0,
            parent: None,
        }
    }
}

/// Whether a list names somebody. As with approvers, an entry is either the person's issuer and subject, or the SPIFFE ID of the person's
/// logins.
fn names(list: &[Principal], who: &Principal, caller: &str) -> bool {
    list.contains(who) || list.iter().any(|one| one.sub == *caller && one.issuer == *trust_domain_of(caller))
}

fn not_named(name: &str) -> Error {
    let what = format!("there is no break-glass {name} that you may open");
    Error::Refusal(
        Refusal::new(Reason::NotFound, what)
            .way_out("the owner of the policy set defines the rights and who may open them under [break_glass]"),
    )
}

/// The rights of this name that the caller may open. Exactly one environment must have them.
fn opened_by<'a>(
    compiled: &'a CompiledCatalog,
    (caller, who): (&Caller, &Principal),
    name: &str,
    environment: Option<&str>,
) -> Result<(&'a EnvironmentPolicy, &'a BreakGlassRights), Error> {
    let all = compiled.environments().filter(|(of, _)| environment.is_none_or(|asked| asked == *of));
    let named = all.flat_map(|(of, policy)| policy.set.rights(of).map(move |(name, rights)| (name, policy, rights)));
    let mut found = named.filter(|(of, _, rights)| *of == name && names(&rights.open, who, caller.id().as_str()));
    match (found.next(), found.next()) {
        (Some((_, policy, rights)), None) => Ok((policy, rights)),
        (Some((_, _, one)), Some((_, _, other))) => {
            let what = format!("is missing: {} and {} both have break-glass {name}", one.environment, other.environment);
            Err(Error::Refusal(Refusal::field("environment", what)))
        }
        (None, _) => Err(not_named(name)),
    }
}

/// The current version of the rights that a break-glass task was opened with.
fn now<'a>(
    compiled: &'a CompiledCatalog,
    break_glass: &'a BreakGlassTask,
) -> Result<(&'a EnvironmentPolicy, &'a BreakGlassRights), Error> {
    let policy = compiled.policy(&break_glass.environment);
    let found =
        policy.and_then(|p| Some((p, p.set.rights(&break_glass.environment).find(|(name, _)| **name == *break_glass.rights)?.1)));
    found.ok_or_else(|| {
        let what = format!("policy no longer names break-glass {} in {}", break_glass.rights, break_glass.environment);
        let no = Refusal::new(Reason::DeniedByPolicy, what).by(format!("break_glass.{}", break_glass.rights));
        Error::Refusal(
            no.way_out("the owner of the policy set has to restore the rights and their reviewers under [break_glass]"),
        )
    })
}

/// Checks that an action in a break-glass task is within the rights that policy names at this time, for one of the people that they name.
pub(super) fn check_rights(
    policy: &EnvironmentPolicy,
    place: &TaskContext,
    upstream: &Upstream,
    scopes: &[String],
) -> Result<(), Error> {
    let Some(BreakGlassContext { rights: name, who }) = place.break_glass.as_deref() else { return Ok(()) };
    let no = |what: String| {
        let no = Refusal::new(Reason::DeniedByPolicy, what).by(format!("break_glass.{name}"));
        Err(Error::Refusal(no.way_out("the owner of the policy set defines the rights of break-glass and who gets them")))
    };
    let mut all = policy.set.rights(&upstream.environment);
    let Some((_, rights)) = all.find(|(of, _)| **of == **name) else {
        return no(format!("policy no longer names break-glass {name}"));
    };
    if !who.as_ref().is_some_and(|(who, caller)| names(&rights.open, who, caller)) {
        return no(format!("policy no longer lets you open break-glass {name}"));
    }
    let of = rights.upstreams.iter().find(|(of, _)| *of == upstream.name).map(|(_, scopes)| scopes);
    match scopes.iter().find(|scope| !of.is_some_and(|of| of.contains(scope))) {
        Some(scope) => no(format!("break-glass {name} does not give {scope} of {}", upstream.name)),
        None => Ok(()),
    }
}

/// Only the two people of a break-glass task may act in it and in its child tasks.
pub(super) fn check_participants(view: &View, parent: TaskId, caller: &Caller, callers: &[String]) -> Result<(), Error> {
    let other = view.read(|s| {
        let parent = s.tasks.get(&parent)?;
        std::iter::once(caller.id().as_str())
            .chain(callers.iter().map(String::as_str))
            .find(|c| !parent.admits(c))
            .map(str::to_owned)
    });
    match other {
        Some(other) => Err(denied(Reason::NotYours, format!("{other} is not one of the two people of the break-glass task"))),
        None => Ok(()),
    }
}

/// The question to policy about opening or joining a break-glass task.
fn opening<'a>(caller: &'a Caller, place: &'a TaskContext, purpose: &'a str, now: Millis) -> TaskQuestion<'a> {
    TaskQuestion {
        caller,
        place,
        work: WorkloadAction::OpenTask,
        purpose,
        subject: None,
        delegate: None,
        ttl_ms: place.ttl_ms,
        now,
    }
}

fn not_blocked(view: &View, caller: &Caller, what: &str) -> Result<(), Error> {
    match view.read(|s| s.rules.blocks(&caller_facts(caller, view))) {
        Some(hit) => Err(Error::Refusal(refused_by(&hit, what))),
        None => Ok(()),
    }
}

impl Decider {
    /// Decides opening a break-glass task. Returns the task's record and the break-glass record.
    pub fn open_break_glass(
        &self,
        view: &View,
        compiled: &CompiledCatalog,
        (caller, who): (&Caller, &Principal),
        ask: &BreakGlassRequest,
        id: TaskId,
    ) -> Result<(Box<TaskOpened>, BreakGlassStepTaken), Error> {
        let (policy, rights) = opened_by(compiled, (caller, who), &ask.rights, ask.environment.as_deref())?;
        self.inside_wall(compiled, caller, &rights.environment)?;
        not_blocked(view, caller, "opening break-glass")?;
        let longest = rights.ttl_ms.min(self.longest_task_ms.load(Relaxed));
        let ttl = ask.ttl_ms.unwrap_or(longest);
        if ttl > longest {
            let what = format!("{} s, break-glass {} takes at most {} s", ttl / 1000, ask.rights, longest / 1000);
            return Err(Error::Refusal(Refusal::field("ttl", what)));
        }
        let terms = rights.terms(&ask.reason);
        let (allowance, environment) = self.allowance(compiled, &terms, None)?;
        if environment != rights.environment {
            let what = format!("break-glass {} names upstreams of {environment}", ask.rights);
            return Err(denied(Reason::EnvironmentWall, what));
        }
        let now = view.now();
        let opened = TaskOpened {
            task: id.as_bytes().to_vec(),
            owner: Some(who.clone()),
            opener: caller.id().as_str().to_owned(),
            environment,
            purpose: ask.reason.clone(),
            opened_at: now.0,
            // The deadline until a second person joins.
            deadline: now.plus(ttl.min(limits::BREAK_GLASS_JOIN_MS)).0,
            max_deadline: now.plus(ttl).0,
            policy_version: policy.version,
            svid: Some(svid_of(caller)),
            ancestor: caller.ancestor().map_or_else(Vec::new, |a| a.as_bytes().to_vec()),
            break_glass: true,
            ..TaskOpened::default()
        };
        let path = TaskPath::New { tasks: vec![id], owners: vec![who.clone()] };
        let live = view.read(|s| live_of(s, caller.id().as_str()));
        let break_glass =
            BreakGlassContext { rights: ask.rights.as_str().into(), who: Some((who.clone(), caller.id().as_str().into())) };
        let place = TaskContext::new(id, opened, allowance, path, live).in_break_glass(Some(break_glass.into()));
        self.may_open(compiled, policy, &opening(caller, &place, &terms.purpose, now))?;
        let step = BreakGlassStepTaken {
            people: vec![who.clone()],
            text: ask.reason.clone(),
            rights: ask.rights.clone(),
            step: BreakGlassStep::Opened as i32,
            environment: rights.environment.clone(),
            ..self.break_glass_step(view, policy, caller, id)
        };
        let opened = place.settle().1.ok_or_else(|| Fault::new("a task that is opened has no record"))?;
        Ok((opened, step))
    }

    /// Decides joining a break-glass task as the second person.
    pub fn join_glass(
        &self,
        view: &View,
        compiled: &CompiledCatalog,
        (caller, who): (&Caller, &Principal),
        (id, break_glass): (TaskId, &BreakGlassTask),
        reason: &str,
    ) -> Result<BreakGlassStepTaken, Error> {
        let (policy, rights) = now(compiled, break_glass)?;
        if !names(&rights.open, who, caller.id().as_str()) {
            return Err(not_named(&break_glass.rights));
        }
        self.inside_wall(compiled, caller, &break_glass.environment)?;
        not_blocked(view, caller, "joining break-glass")?;
        let first = break_glass.people.first();
        let terms = rights.terms(reason);
        let (allowance, _) = self.allowance(compiled, &terms, None)?;
        let place = view.read(|s| s.tasks.get(&id).map(|task| TaskContext::open(s, task, caller.id().as_str())));
        let Some(place) = place else { return Err(denied(Reason::NotFound, format!("there is no break-glass task {id}"))) };
        if *place.allowance() != allowance || !first.is_some_and(|first| names(&rights.open, &first.who, &first.caller)) {
            let what = format!("what break-glass {} gives, or to whom, changed since task {id} was opened", break_glass.rights);
            return Err(Error::Refusal(
                Refusal::new(Reason::DeniedByPolicy, what).way_out("close the task, and open another one"),
            ));
        }
        self.may_open(compiled, policy, &opening(caller, &place, &terms.purpose, view.now()))?;
        Ok(BreakGlassStepTaken {
            people: first.map(|first| &first.who).into_iter().chain([who]).cloned().collect(),
            text: reason.to_owned(),
            rights: break_glass.rights.to_string(),
            step: BreakGlassStep::Joined as i32,
            environment: break_glass.environment.to_string(),
            ..self.break_glass_step(view, policy, caller, id)
        })
    }

    /// Decides reviewing a break-glass task as a third person.
    pub fn review_glass(
        &self,
        view: &View,
        compiled: &CompiledCatalog,
        (caller, who): (&Caller, &Principal),
        (id, break_glass): (TaskId, &BreakGlassTask),
        text: &str,
    ) -> Result<BreakGlassStepTaken, Error> {
        let (policy, rights) = now(compiled, break_glass)?;
        if !names(&rights.review, who, caller.id().as_str()) {
            let what = format!("there is no break-glass task {id} that you may review");
            let no = Refusal::new(Reason::NotFound, what);
            return Err(Error::Refusal(no.way_out("the owner of the policy set names reviewers under [break_glass]")));
        }
        not_blocked(view, caller, "reviewing break-glass")?;
        Ok(BreakGlassStepTaken {
            people: break_glass.people.iter().map(|p| p.who.clone()).collect(),
            reviewer: Some(who.clone()),
            text: text.to_owned(),
            rights: break_glass.rights.to_string(),
            step: BreakGlassStep::Reviewed as i32,
            environment: break_glass.environment.to_string(),
            ..self.break_glass_step(view, policy, caller, id)
        })
    }

    /// Whether policy names somebody as an opener or a reviewer of the task's rights.
    pub fn named_for_glass(
        &self,
        compiled: &CompiledCatalog,
        (caller, who): (&Caller, &Principal),
        break_glass: &BreakGlassTask,
    ) -> bool {
        let named = |list: &[Principal]| names(list, who, caller.id().as_str());
        now(compiled, break_glass).is_ok_and(|(_, rights)| named(&rights.review) || named(&rights.open))
    }

    fn break_glass_step(&self, view: &View, policy: &EnvironmentPolicy, caller: &Caller, id: TaskId) -> BreakGlassStepTaken {
        BreakGlassStepTaken {
            task: id.as_bytes().to_vec(),
            caller: caller.id().as_str().to_owned(),
            policy_version: policy.version,
            decided_at: view.now().0,
            svid: Some(svid_of(caller)),
            ancestor: caller.ancestor().map_or_else(Vec::new, |a| a.as_bytes().to_vec()),
            ..BreakGlassStepTaken::default()
        }
    }
}

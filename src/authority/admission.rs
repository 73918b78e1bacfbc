//! Admission, checked on every call: the SVID of the connection is still valid, and an operator is permitted the action by the admin
//! policy.

pub mod admission_queue;
mod admitted;
pub mod operator_calls;
pub mod operators;
pub mod peers;
pub mod rate_limits;
pub mod refusals;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use admitted::Admitted;

use crate::admission::operator_calls::{ApprovalMode, OperatorCall};
use crate::admission::operators::{NamedTarget, OperatorScope};
use crate::authority::Authority;
use mayfly_base::document::nearest;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_identity::caller::{Caller, Operator};
use mayfly_ledger::record::Author;
use mayfly_ledger::revocation::Hit;
use mayfly_ledger::state::refused_by;
use mayfly_policy::catalog::EnvironmentPolicy;
use mayfly_policy::decide::caller_facts;
use mayfly_policy::person::{CallerPerson, sign_in_hint};
use mayfly_policy::question::ApprovalFacts;
use mayfly_policy::{Action, OperatorAction, OperatorActionType, OperatorContext, Question, admin};
use mayfly_verify::seq::TaskId;

impl Authority {
    /// Checks that the SVID of a connection is still valid: it has not expired, and its root is still trusted. Called on every call and
    /// every message of a stream.
    pub fn still_stands(&self, caller: &Caller) -> Result<(), Error> {
        let evidence = caller.evidence();
        let no = |what: String| {
            Err(Error::Refusal(Refusal::new(Reason::SvidNoLongerValid, what).way_out("connect again with a fresh SVID")))
        };
        if evidence.not_after <= self.system.wall() {
            return no(format!("the SVID of this connection ended at {}", evidence.not_after));
        }
        if !self.bundles.load().still_vouch_for(evidence) {
            return no("the trust anchor of this connection's SVID was removed".to_owned());
        }
        self.login_stands(caller)
    }

    /// Checks that a caller is admitted at all: its SVID is still valid, and no revocation rule targets the caller. Called on every call, so
    /// that a revoked caller is refused on a connection that is open already. A rule over everything or an environment only stops grants,
    /// whose decisions check it themselves; a caller in the middle of its work can still read and end what it began. `what` names the caller
    /// in the refusal.
    pub fn let_in(&self, caller: &Caller, what: &str) -> Result<(), Error> {
        self.still_stands(caller)?;
        match self.shut_out(caller) {
            Some(hit) => Err(Error::Refusal(refused_by(&hit, what))),
            None => Ok(()),
        }
    }

    /// The revocation rule that targets a caller, if there is one.
    pub fn shut_out(&self, caller: &Caller) -> Option<Hit> {
        let view = self.ledger.view();
        view.read(|state| state.rules.shuts_out(&caller_facts(caller, &view)))
    }

    /// Admits an operator to an action in an environment; an action without an environment must be permitted by the policy of every
    /// environment.
    pub fn admit<A: OperatorActionType>(&self, operator: &Operator, environment: Option<&str>) -> Result<Admitted<A>, Error> {
        self.admit_to(operator, &OperatorContext { environment, now: self.system.wall(), ..OperatorContext::default() })
    }

    /// Like [`Authority::admit`], with the details of the action.
    pub(crate) fn admit_to<A: OperatorActionType>(
        &self,
        operator: &Operator,
        act: &OperatorContext<'_>,
    ) -> Result<Admitted<A>, Error> {
        match operator {
            Operator::LocalUid(uid) => {
                let admitted = self.admit_uid(*uid)?;
                self.one_is_enough(A::ACTION, act)?;
                Ok(admitted)
            }
            Operator::Svid(caller) => self.admit_svid(caller, act),
        }
    }

    fn admit_uid<A: OperatorActionType>(&self, uid: u32) -> Result<Admitted<A>, Error> {
        if uid == limits::OVERFLOW_UID {
            let what = format!(
                "local uid {uid} stands for every user whom the server's user namespace does not map, so it identifies nobody, \
                 whatever admin.uids says"
            );
            let way_out = "run the server without PrivateUsers=yes, or use the admin listener with an SVID";
            return Err(Error::Refusal(Refusal::new(Reason::DeniedByPolicy, what).by("overflow uid").way_out(way_out)));
        }
        match self.admin_uids.contains(&uid) {
            true => Ok(Admitted::new(Author::LocalUid(uid))),
            false => Err(Error::Refusal(
                Refusal::new(Reason::DeniedByPolicy, format!("local uid {uid} is not among admin.uids"))
                    .by("admin.uids")
                    .way_out("the owner of the configuration can add it to admin.uids"),
            )),
        }
    }

    /// Refuses an action of the local socket for which policy requires two people, since the socket never counts as a person, unless the
    /// server is configured for a single operator.
    fn one_is_enough(&self, action: OperatorAction, act: &OperatorContext<'_>) -> Result<(), Error> {
        let Some(call) = OperatorCall::current().filter(|call| !call.goes_on()) else { return Ok(()) };
        if self.single_operator || act.approvals.count > 0 || call.approved_by().is_some() {
            return Ok(());
        }
        let compiled = self.catalog.now();
        let mut concerned = compiled.environments().filter(|(name, _)| act.environment.is_none_or(|e| e == *name));
        match concerned.find(|(_, policy)| policy.set.forbids_alone(action)) {
            Some((name, _)) => Err(not_over_the_socket(&format!("policy of {name} wants two operators for it"))),
            None => Ok(()),
        }
    }

    /// Admits an operator to an action that always needs a second operator, whatever policy says. `why` is the reason in words.
    pub fn admit_two<A: OperatorActionType>(
        &self,
        operator: &Operator,
        environment: Option<&str>,
        why: &str,
    ) -> Result<Admitted<A>, Error> {
        let admitted = self.admit(operator, environment)?;
        match (operator, OperatorCall::current()) {
            (Operator::LocalUid(_), _) if self.single_operator => Ok(admitted),
            (Operator::LocalUid(_), _) => Err(not_over_the_socket(why)),
            (Operator::Svid(_), Some(call)) if call.approved_by().is_some() || call.goes_on() => Ok(admitted),
            (Operator::Svid(_), Some(call)) => Err(call.asks_for(A::ACTION, environment, why.to_owned())),
            (Operator::Svid(_), None) => Err(Error::Refusal(Refusal::new(Reason::ApprovalNeeded, why).by("two people"))),
        }
    }

    fn admit_svid<A: OperatorActionType>(&self, caller: &Caller, act: &OperatorContext<'_>) -> Result<Admitted<A>, Error> {
        self.may_act_at_all(A::ACTION, caller)?;
        let compiled = self.catalog.now();
        let mut concerned = compiled.environments().filter(|(name, _)| act.environment.is_none_or(|e| e == *name)).peekable();
        if concerned.peek().is_none() && act.environment.is_none() {
            return Err(Error::Refusal(no_policy_set()));
        }
        if concerned.peek().is_none() {
            return Err(Error::Refusal(self.not_permitted(A::ACTION, caller, act, Vec::new())));
        }
        let mut waits = None;
        for environment in concerned {
            match self.permitted(A::ACTION, caller, act, environment) {
                Ok(why) => waits = waits.or(why),
                Err(denied) => return Err(Error::Refusal(self.not_permitted(A::ACTION, caller, act, vec![denied]))),
            }
        }
        match (waits, OperatorCall::current()) {
            (Some(why), Some(call)) => Err(call.asks_for(A::ACTION, act.environment, why)),
            _ => Ok(Admitted::new(Author::of(caller))),
        }
    }

    /// The environments in which an operator is permitted an action. Refused if there are none.
    pub fn scope<A: OperatorActionType>(&self, operator: &Operator) -> Result<OperatorScope<A>, Error> {
        self.scope_about(operator, None)
    }

    /// Like [`Authority::scope`], for an action on a target that policy may read.
    pub(crate) fn scope_about<A: OperatorActionType>(
        &self,
        operator: &Operator,
        about: Option<&NamedTarget>,
    ) -> Result<OperatorScope<A>, Error> {
        let who = match operator {
            Operator::LocalUid(uid) => self.admit_uid::<A>(*uid)?.who(),
            Operator::Svid(caller) => {
                self.may_act_at_all(A::ACTION, caller)?;
                Author::of(caller)
            }
        };
        let (compiled, now) = (self.catalog.now(), self.system.wall());
        let (mut environments, mut waits) = (BTreeSet::new(), None);
        let (mut refused, mut denials) = (None, Vec::new());
        for (name, policy) in compiled.environments() {
            let act = NamedTarget::within(about, OperatorContext { environment: Some(name), now, ..OperatorContext::default() });
            let asked = match operator {
                Operator::LocalUid(_) => self.one_is_enough(A::ACTION, &act).map(|()| None).map_err(|no| refused = Some(no)),
                Operator::Svid(caller) => {
                    self.permitted(A::ACTION, caller, &act, (name, policy)).map_err(|denied| denials.push(denied))
                }
            };
            match asked {
                Ok(None) => drop(environments.insert(name.to_owned())),
                Ok(Some(why)) => waits = waits.or(Some((name, why))),
                Err(()) => {}
            }
        }
        if let (Operator::Svid(caller), true, None, false) = (operator, environments.is_empty(), &waits, denials.is_empty()) {
            let act = NamedTarget::within(about, OperatorContext { now, ..OperatorContext::default() });
            return Err(Error::Refusal(self.not_permitted(A::ACTION, caller, &act, denials)));
        }
        match (environments.is_empty(), waits, refused) {
            (false, None, None) if denials.is_empty() => Ok(OperatorScope::new(who, None)),
            (false, ..) => Ok(OperatorScope::new(who, Some(environments))),
            // The call needs an approval, like any other call that needs a second person.
            (true, Some((name, why)), _) => match OperatorCall::current() {
                Some(call) => Err(call.asks_for(A::ACTION, Some(name), why)),
                None => Err(Error::Refusal(Refusal::new(Reason::ApprovalNeeded, why).by("two people"))),
            },
            (true, None, Some(no)) => Err(no),
            // The local socket can also read the state of a server that has no policy set.
            (true, None, None) if matches!(operator, Operator::LocalUid(_)) => Ok(OperatorScope::new(who, None)),
            (true, None, None) => Err(Error::Refusal(no_policy_set())),
        }
    }

    /// The refusal of an action that policy does not permit, or whose environment has no policy set. An operator without any right gets the
    /// same text whether the environment exists or not; other operators get the environments in which they have rights, so that a mistyped
    /// name is noticed. `denials`: the environments that refused the action.
    fn not_permitted(
        &self,
        action: OperatorAction,
        caller: &Caller,
        act: &OperatorContext<'_>,
        denials: Vec<PolicyDenial>,
    ) -> Refusal {
        let compiled = self.catalog.now();
        let own = self.environments_with_a_right(caller, act);
        if own.is_empty() {
            // A hint is looked for in every environment, so that it does not tell which of them was named.
            let hint = compiled.environments().find_map(|(name, policy)| {
                let act = OperatorContext { environment: Some(name), ..*act };
                self.permitted(action, caller, &act, (name, policy)).err()?.sign_in
            });
            let action = Action::Admin(action).name();
            let what = format!("{} may not {action}: the policy set of no environment permits it", caller.id());
            let way_out = "mayfly whoami shows who you are; the owner of a policy set can add operators to its roles file";
            return Refusal::new(Reason::DeniedByPolicy, what).by("policy").way_out(hint.unwrap_or_else(|| way_out.to_owned()));
        }
        let known = |denied: &PolicyDenial| own.contains(&denied.environment);
        let at = denials.iter().position(known);
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        let Some(denied) = denials.into_iter().nth(at.unwrap_or(0)) else {
            return no_environment(act.environment.unwrap_or_default(), &own);
        };
        let PolicyDenial { environment, version, sign_in } = denied;
        let action = Action::Admin(action).name();
        if at.is_none() && act.environment.is_none() {
            let what = format!("{} may not {action} in every environment, and this concerns each", caller.id());
            let way_out = format!("your rights are in: {}", own.join(", "));
            return Refusal::new(Reason::DeniedByPolicy, what).by("policy").way_out(way_out);
        }
        let what = format!("{} may not {action} in {environment} (policy version {version})", caller.id());
        let owner = "the owner of the policy set can add operators to the roles file";
        let way_out = sign_in.unwrap_or_else(|| match at {
            Some(_) => owner.to_owned(),
            None => format!("your rights are in: {}; {owner}", own.join(", ")),
        });
        Refusal::new(Reason::DeniedByPolicy, what).by(format!("policy set {version} of {environment}")).way_out(way_out)
    }

    /// The environments whose policy permits this operator anything.
    fn environments_with_a_right(&self, caller: &Caller, act: &OperatorContext<'_>) -> BTreeSet<String> {
        let compiled = self.catalog.now();
        let has_a_right = |(name, policy): &(&str, &EnvironmentPolicy)| {
            let act = OperatorContext { environment: Some(name), ..*act };
            OperatorAction::all().any(|action| self.permitted(action, caller, &act, (name, policy)).is_ok())
        };
        compiled.environments().filter(has_a_right).map(|(name, _)| name.to_owned()).collect()
    }

    /// The actions that policy permits an operator in one environment.
    pub(crate) fn permitted_in(&self, operator: &Operator, (name, policy): (&str, &EnvironmentPolicy)) -> Vec<&'static str> {
        let act = OperatorContext { environment: Some(name), now: self.system.wall(), ..OperatorContext::default() };
        let permitted = |action: &OperatorAction| match operator {
            Operator::LocalUid(uid) => {
                self.admit_uid::<admin::Observe>(*uid).is_ok() && self.one_is_enough(*action, &act).is_ok()
            }
            Operator::Svid(caller) => {
                self.may_act_at_all(*action, caller).is_ok() && self.permitted(*action, caller, &act, (name, policy)).is_ok()
            }
        };
        OperatorAction::all().filter(permitted).map(|action| Action::Admin(action).name()).collect()
    }

    /// The checks that apply whatever policy says: the operator is admitted, and an operator in break-glass stays within its bounds.
    fn may_act_at_all(&self, action: OperatorAction, caller: &Caller) -> Result<(), Error> {
        self.let_in(caller, "this operator")?;
        match self.acts_in_break_glass(caller).filter(|_| !allowed_in_break_glass(action)) {
            Some(task) => Err(in_break_glass(
                caller,
                task,
                "break-glass changes neither policy, registry, bindings, keys, trust, locks nor approvals",
            )),
            None => Ok(()),
        }
    }

    /// Evaluates the policy of one environment. Returns why a second person is needed, if one is.
    fn permitted(
        &self,
        action: OperatorAction,
        caller: &Caller,
        act: &OperatorContext<'_>,
        (name, policy): (&str, &EnvironmentPolicy),
    ) -> Result<Option<String>, PolicyDenial> {
        let behind = CallerPerson::of(caller);
        let break_glass = self.acts_in_break_glass(caller).is_some();
        let call = OperatorCall::current();
        let approver = call.as_ref().and_then(|call| call.approved_by());
        let people: &[&str] = &approver.into_iter().collect::<Vec<_>>();
        let approvals = if people.is_empty() { act.approvals } else { ApprovalFacts { count: 1, people } };
        let act = OperatorContext { break_glass, person: behind.facts(), approvals, ..*act };
        let question = Question::admin(caller.id(), action, &act);
        let verdict = self.decider.verdicts.verdict(&policy.set, &question);
        if verdict.permits() {
            return Ok(None);
        }
        // A call that an incident needs never waits for an approval, and a dry run changes nothing.
        let call = call.as_ref().filter(|c| c.waits() != ApprovalMode::WithItsChange || c.goes_on());
        if let Some(call) = call.filter(|_| act.approvals.count == 0 && self.approval_helps(policy, caller, action, &act)) {
            return Ok((!call.goes_on()).then(|| format!("policy of {name} wants that for {}", question.action().name())));
        }
        let permits = |behind: &CallerPerson<'_>| {
            let act = OperatorContext { person: behind.facts(), ..act };
            let verdict = self.decider.verdicts.verdict(&policy.set, &Question::admin(caller.id(), action, &act));
            verdict.permits().then(|| verdict.by().to_vec())
        };
        let sign_in = sign_in_hint((&policy.set, question.action()), &behind, act.now, verdict.by(), permits);
        Err(PolicyDenial { environment: name.to_owned(), version: policy.version, sign_in })
    }
}

/// An environment whose policy does not permit an operator's action.
struct PolicyDenial {
    environment: String,
    version: u64,
    /// A hint, if a sign-in would help.
    sign_in: Option<String>,
}

impl Authority {
    /// Whether an approval would make policy permit what it refuses without one.
    pub(crate) fn approval_helps(
        &self,
        policy: &EnvironmentPolicy,
        caller: &Caller,
        action: OperatorAction,
        act: &OperatorContext<'_>,
    ) -> bool {
        let set = &policy.set;
        let with = |people: &[&str]| {
            let act = OperatorContext { approvals: ApprovalFacts { count: 1, people }, ..*act };
            self.decider.verdicts.verdict(set, &Question::admin(caller.id(), action, &act)).permits()
        };
        set.reads(Action::Admin(action)).reads_approvals()
            && (with(&[]) || set.people_named().iter().any(|name| with(&[name.as_str()])))
    }
}

/// The refusal for a name that no environment with a policy set has. `known` are the names that the caller may see.
pub(crate) fn no_environment(asked: &str, known: &[&str]) -> Refusal {
    let near = nearest(asked, known.iter().copied()).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    let way_out = match known {
        [] => "mayfly status shows the environments of this server".to_owned(),
        known => format!("name one of: {}", known.join(", ")),
    };
    Refusal::new(Reason::NotFound, format!("there is no environment {asked} with a policy set{near}")).way_out(way_out)
}

fn no_policy_set() -> Refusal {
    Refusal::new(Reason::DeniedByPolicy, "no environment has a policy set that names operators").by("policy")
}

/// Waits for one of a few permits for work that holds a core; after `wait_ms` it is refused by this limit.
pub(crate) async fn permit_within(
    permits: &Arc<Semaphore>,
    wait_ms: u64,
    (limit, bound): (&'static str, usize),
) -> Result<OwnedSemaphorePermit, Error> {
    match tokio::time::timeout(Duration::from_millis(wait_ms), permits.clone().acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(_)) | Err(_) => Err(Refusal::limit(limit, bound as u64, Duration::from_secs(1)).into()),
    }
}

/// The refusal of an action that needs two operators and was requested over the local socket.
pub(crate) fn not_over_the_socket(why: &str) -> Error {
    Error::Refusal(
        Refusal::new(
            Reason::NotYours,
            format!("this change needs two operators, each with an SVID; a caller of the local socket counts as neither: {why}"),
        )
        .by("two people")
        .way_out("call the admin listener, or, if there is only one operator, set admin.single_operator"),
    )
}

/// The refusal of a lasting change by an operator in break-glass.
pub(crate) fn in_break_glass(caller: &Caller, task: TaskId, what: &str) -> Error {
    let no = Refusal::new(Reason::NotYours, format!("{} acts in break-glass task {task}: {what}", caller.id()));
    Error::Refusal(
        no.by("break-glass")
            .way_out(format!("ask another operator, or end the break-glass task first: mayfly break-glass close {task}")),
    )
}

/// Whether an action is permitted to an operator in break-glass: reading and revoking, but nothing that changes later grants.
fn allowed_in_break_glass(action: OperatorAction) -> bool {
    match action {
        OperatorAction::Revoke | OperatorAction::ManageTasks | OperatorAction::ReadAudit | OperatorAction::Observe => true,
        OperatorAction::Lock
        | OperatorAction::ManageKeys
        | OperatorAction::ManageTrust
        | OperatorAction::ManagePolicy
        | OperatorAction::ManageUpstreams
        | OperatorAction::ApproveChange => false,
    }
}

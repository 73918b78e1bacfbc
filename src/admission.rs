//! Who gets in, on every call: the SVID of the connection still stands, and operators are those whom the admin policy names.

use std::collections::BTreeSet;
use std::marker::PhantomData;

use crate::authority::Authority;
use crate::calls::{Call, Waits};
use crate::identity::caller::{Caller, Operator};
use crate::ledger::record::Who;
use crate::ledger::state::refused_by;
use crate::limits;
use crate::operators::Scope;
use crate::policy::catalog::Policy;
use crate::policy::decide::caller_facts;
use crate::policy::person::{Behind, way_out_by_signing_in};
use crate::policy::request::ApprovalFacts;
use crate::policy::{Act, Action, Admin, AdminAction, Question};
use crate::refusal::{No, Reason, Refusal};
use crate::revocation::Hit;
use crate::seq::TaskId;

/// The proof that an operator was admitted to the action `A`. Made by [`Authority::admit`] only; what an action does takes the proof of that
/// action, so that one who was admitted to look cannot be passed to what revokes.
#[derive(Debug, Clone)]
pub struct Admitted<A: AdminAction> {
    who: Who,
    action: PhantomData<A>,
}

impl<A: AdminAction> Admitted<A> {
    fn new(who: Who) -> Admitted<A> {
        Admitted { who, action: PhantomData }
    }

    /// As records name them.
    pub fn who(&self) -> Who {
        self.who.clone()
    }
}

impl Authority {
    /// Whether the SVID of a connection still stands: it has not ended, its root is still trusted. Checked on every call and message.
    pub fn still_stands(&self, caller: &Caller) -> Result<(), No> {
        let evidence = caller.evidence();
        let no = |what: String| {
            Err(No::Refusal(Refusal::new(Reason::SvidNoLongerValid, what).way_out("connect again with a fresh SVID")))
        };
        if evidence.not_after <= self.system.wall() {
            return no(format!("the SVID of this connection ended at {}", evidence.not_after));
        }
        if !self.bundles.load().still_vouch_for(evidence) {
            return no("the trust anchor of this connection's SVID was removed".to_owned());
        }
        self.login_stands(caller)
    }

    /// Whether a caller is let in at all: its SVID still stands, and no rule is aimed at it (design, section 4: rules are checked on every
    /// call). A rule over everything or an environment stops grants, which are decided against it by themselves; a caller that it finds in
    /// the middle of its work can still look, and end what it began. `what` names the caller in the refusal.
    pub fn let_in(&self, caller: &Caller, what: &str) -> Result<(), No> {
        self.still_stands(caller)?;
        match self.shut_out(caller) {
            Some(hit) => Err(No::Refusal(refused_by(&hit, what))),
            None => Ok(()),
        }
    }

    /// The rule that is aimed at a caller, if one is.
    pub fn shut_out(&self, caller: &Caller) -> Option<Hit> {
        let view = self.ledger.view();
        view.read(|state| state.rules.shuts_out(&caller_facts(caller, &view)))
    }

    /// Admits an operator to an action, in an environment where it concerns one; otherwise every environment's policy must permit it.
    pub fn admit<A: AdminAction>(&self, operator: &Operator, environment: Option<&str>) -> Result<Admitted<A>, No> {
        self.admit_to(operator, &Act { environment, now: self.system.wall(), ..Act::default() })
    }

    /// The same, for what is to be done in particular.
    pub(crate) fn admit_to<A: AdminAction>(&self, operator: &Operator, act: &Act<'_>) -> Result<Admitted<A>, No> {
        match operator {
            Operator::LocalUid(uid) => {
                let admitted = self.admit_uid(*uid)?;
                self.one_is_enough(A::ACTION, act)?;
                Ok(admitted)
            }
            Operator::Svid(caller) => self.admit_svid(caller, act),
        }
    }

    fn admit_uid<A: AdminAction>(&self, uid: u32) -> Result<Admitted<A>, No> {
        if uid == limits::OVERFLOW_UID {
            let what = format!(
                "local uid {uid} stands for every user whom the server's user namespace does not map, so it identifies nobody, \
                 whatever admin.uids says"
            );
            let way_out = "run the server without PrivateUsers=yes, or use the admin listener with an SVID";
            return Err(No::Refusal(Refusal::new(Reason::DeniedByPolicy, what).by("overflow uid").way_out(way_out)));
        }
        match self.admin_uids.contains(&uid) {
            true => Ok(Admitted::new(Who::LocalUid(uid))),
            false => Err(No::Refusal(
                Refusal::new(Reason::DeniedByPolicy, format!("local uid {uid} is not among admin.uids"))
                    .by("admin.uids")
                    .way_out("whoever owns the configuration adds it there"),
            )),
        }
    }

    /// The local socket is nobody's second person: what policy wants two people for is not done over it, unless there is one operator only.
    fn one_is_enough(&self, action: Admin, act: &Act<'_>) -> Result<(), No> {
        let Some(call) = Call::current().filter(|call| !call.goes_on()) else { return Ok(()) };
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

    /// Admits an operator to what takes a second one, whatever policy says: `why` in words.
    pub(crate) fn admit_two<A: AdminAction>(
        &self,
        operator: &Operator,
        environment: Option<&str>,
        why: &str,
    ) -> Result<Admitted<A>, No> {
        let admitted = self.admit(operator, environment)?;
        match (operator, Call::current()) {
            (Operator::LocalUid(_), _) if self.single_operator => Ok(admitted),
            (Operator::LocalUid(_), _) => Err(not_over_the_socket(why)),
            (Operator::Svid(_), Some(call)) if call.approved_by().is_some() || call.goes_on() => Ok(admitted),
            (Operator::Svid(_), Some(call)) => Err(call.asks_for(A::ACTION, environment, why.to_owned())),
            (Operator::Svid(_), None) => Err(No::Refusal(Refusal::new(Reason::ApprovalNeeded, why).by("two people"))),
        }
    }

    fn admit_svid<A: AdminAction>(&self, caller: &Caller, act: &Act<'_>) -> Result<Admitted<A>, No> {
        self.may_act_at_all::<A>(caller)?;
        let compiled = self.catalog.now();
        let mut concerned = compiled.environments().filter(|(name, _)| act.environment.is_none_or(|e| e == *name)).peekable();
        if concerned.peek().is_none() {
            let what = act.environment.map_or_else(
                || "no environment has a policy set that names operators".to_owned(),
                |name| format!("there is no environment {name} with a policy set that names operators"),
            );
            return Err(No::Refusal(Refusal::new(Reason::DeniedByPolicy, what).by("policy")));
        }
        let mut waits = None;
        for environment in concerned {
            waits = waits.or(self.permitted::<A>(caller, act, environment)?);
        }
        match (waits, Call::current()) {
            (Some(why), Some(call)) => Err(call.asks_for(A::ACTION, act.environment, why)),
            _ => Ok(Admitted::new(Who::of(caller))),
        }
    }

    /// The environments in which an operator is permitted an action. Refused where there is none.
    pub fn scope<A: AdminAction>(&self, operator: &Operator) -> Result<Scope<A>, No> {
        let who = match operator {
            Operator::LocalUid(uid) => self.admit_uid::<A>(*uid)?.who,
            Operator::Svid(caller) => {
                self.may_act_at_all::<A>(caller)?;
                Who::of(caller)
            }
        };
        let (compiled, now) = (self.catalog.now(), self.system.wall());
        let (mut environments, mut waits, mut refused) = (BTreeSet::new(), None, None);
        for (name, policy) in compiled.environments() {
            let act = Act { environment: Some(name), now, ..Act::default() };
            let asked = match operator {
                Operator::LocalUid(_) => self.one_is_enough(A::ACTION, &act).map(|()| None),
                Operator::Svid(caller) => self.permitted::<A>(caller, &act, (name, policy)),
            };
            match asked {
                Ok(None) => drop(environments.insert(name.to_owned())),
                Ok(Some(why)) => waits = waits.or(Some((name, why))),
                Err(no) => refused = refused.or(Some(no)),
            }
        }
        match (environments.is_empty(), waits, refused) {
            (false, None, None) => Ok(Scope::new(who, None)),
            (false, ..) => Ok(Scope::new(who, Some(environments))),
            // It is asked for, like any other call that takes a second person.
            (true, Some((name, why)), _) => match Call::current() {
                Some(call) => Err(call.asks_for(A::ACTION, Some(name), why)),
                None => Err(No::Refusal(Refusal::new(Reason::ApprovalNeeded, why).by("two people"))),
            },
            (true, None, Some(no)) => Err(no),
            // Over the local socket a server without a policy set is looked at, too.
            (true, None, None) if matches!(operator, Operator::LocalUid(_)) => Ok(Scope::new(who, None)),
            (true, None, None) => {
                let what = "no environment has a policy set that names operators";
                Err(No::Refusal(Refusal::new(Reason::DeniedByPolicy, what).by("policy")))
            }
        }
    }

    /// What stands whatever policy says: the operator is let in, and acts in break-glass within its bounds.
    fn may_act_at_all<A: AdminAction>(&self, caller: &Caller) -> Result<(), No> {
        self.let_in(caller, "this operator")?;
        match self.acts_in_glass(caller).filter(|_| !leaves_as_it_is(A::ACTION)) {
            Some(task) => Err(in_break_glass(
                caller,
                task,
                "break-glass changes neither policy, registry, bindings, keys, trust, locks nor approvals",
            )),
            None => Ok(()),
        }
    }

    /// Asks the policy of one environment. Answers with why a second person is waited for, where one is.
    fn permitted<A: AdminAction>(
        &self,
        caller: &Caller,
        act: &Act<'_>,
        (name, policy): (&str, &Policy),
    ) -> Result<Option<String>, No> {
        let behind = Behind::of(caller);
        let break_glass = self.acts_in_glass(caller).is_some();
        let call = Call::current();
        let approver = call.as_ref().and_then(|call| call.approved_by());
        let people: &[&str] = &approver.into_iter().collect::<Vec<_>>();
        let approvals = if people.is_empty() { act.approvals } else { ApprovalFacts { count: 1, people } };
        let act = Act { break_glass, person: behind.facts(), approvals, ..*act };
        let question = Question::admin(caller.id(), A::ACTION, &act);
        let verdict = self.decider.verdicts.verdict(&policy.set, &question);
        if verdict.permits() {
            return Ok(None);
        }
        let action = question.action().name();
        // What an incident takes waits for nobody, and a dry run does nothing.
        let call = call.as_ref().filter(|c| c.waits() != Waits::WithItsChange || c.goes_on());
        if let Some(call) = call.filter(|_| act.approvals.count == 0 && self.approval_helps(policy, caller, A::ACTION, &act)) {
            return Ok((!call.goes_on()).then(|| format!("policy of {name} wants that for {action}")));
        }
        let permits = |behind: &Behind<'_>| {
            let act = Act { person: behind.facts(), ..act };
            let verdict = self.decider.verdicts.verdict(&policy.set, &Question::admin(caller.id(), A::ACTION, &act));
            verdict.permits().then(|| verdict.by().to_vec())
        };
        let way_out = way_out_by_signing_in((&policy.set, question.action()), &behind, act.now, verdict.by(), permits);
        let what = format!("{} may not {action} in {name} (policy version {})", caller.id(), policy.version);
        Err(No::Refusal(
            Refusal::new(Reason::DeniedByPolicy, what)
                .by(format!("policy set {} of {name}", policy.version))
                .way_out(way_out.unwrap_or_else(|| "whoever owns the policy set names its operators there".to_owned())),
        ))
    }
}

impl Authority {
    /// Whether an approval by somebody would permit what policy refuses without.
    pub(crate) fn approval_helps(&self, policy: &Policy, caller: &Caller, action: Admin, act: &Act<'_>) -> bool {
        let set = &policy.set;
        let with = |people: &[&str]| {
            let act = Act { approvals: ApprovalFacts { count: 1, people }, ..*act };
            self.decider.verdicts.verdict(set, &Question::admin(caller.id(), action, &act)).permits()
        };
        set.reads(Action::Admin(action)).reads_approvals()
            && (with(&[]) || set.people_named().iter().any(|name| with(&[name.as_str()])))
    }
}

/// What takes two operators, asked for over the socket.
pub(crate) fn not_over_the_socket(why: &str) -> No {
    No::Refusal(
        Refusal::new(
            Reason::NotYours,
            format!("this takes two operators, each with an SVID; the local socket counts as neither: {why}"),
        )
        .by("two people")
        .way_out("ask over the admin listener, or, where there is one operator only, set admin.single_operator"),
    )
}

/// Somebody with wide rights changes nothing that lasts.
pub(crate) fn in_break_glass(caller: &Caller, task: TaskId, what: &str) -> No {
    let no = Refusal::new(Reason::NotYours, format!("{} acts in break-glass task {task}: {what}", caller.id()));
    No::Refusal(no.by("break-glass").way_out(format!("another operator does it, or you after: mayfly break-glass close {task}")))
}

/// What somebody in break-glass may do as an operator: look, and take away. Nothing of it changes what is granted next.
fn leaves_as_it_is(action: Admin) -> bool {
    match action {
        Admin::Revoke | Admin::ManageTasks | Admin::ReadAudit | Admin::Observe => true,
        Admin::Lock
        | Admin::ManageKeys
        | Admin::ManageTrust
        | Admin::ManagePolicy
        | Admin::ManageUpstreams
        | Admin::ApproveChange => false,
    }
}

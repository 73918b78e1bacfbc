//! Who gets in, on every call: the SVID of the connection still stands, and operators are those whom the admin policy names.

use crate::authority::Authority;
use crate::calls::{Call, Waits};
use crate::identity::caller::{Caller, Operator};
use crate::ledger::record::Who;
use crate::ledger::state::refused_by;
use crate::policy::catalog::Policy;
use crate::policy::decide::caller_facts;
use crate::policy::person::Behind;
use crate::policy::request::ApprovalFacts;
use crate::policy::{Act, Action, Admin, Question};
use crate::refusal::{No, Reason, Refusal};
use crate::revocation::Hit;
use crate::seq::TaskId;

/// An operator who was admitted to one action. Made by [`Authority::admit`] only.
#[derive(Debug, Clone)]
pub struct Admitted {
    who: Who,
}

impl Admitted {
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
    pub fn admit(&self, operator: &Operator, action: Admin, environment: Option<&str>) -> Result<Admitted, No> {
        self.admit_to(operator, action, &Act { environment, now: self.system.wall(), ..Act::default() })
    }

    /// The same, for what is to be done in particular.
    pub(crate) fn admit_to(&self, operator: &Operator, action: Admin, act: &Act<'_>) -> Result<Admitted, No> {
        match operator {
            Operator::LocalUid(uid) if self.admin_uids.contains(uid) => {
                self.one_is_enough(action, act)?;
                Ok(Admitted { who: Who::LocalUid(*uid) })
            }
            Operator::LocalUid(uid) => Err(No::Refusal(
                Refusal::new(Reason::DeniedByPolicy, format!("local uid {uid} is not among admin.uids"))
                    .by("admin.uids")
                    .way_out("whoever owns the configuration adds it there"),
            )),
            Operator::Svid(caller) => self.admit_svid(caller, action, act),
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
    pub(crate) fn admit_two(
        &self,
        operator: &Operator,
        action: Admin,
        environment: Option<&str>,
        why: &str,
    ) -> Result<Admitted, No> {
        let admitted = self.admit(operator, action, environment)?;
        match (operator, Call::current()) {
            (Operator::LocalUid(_), _) if self.single_operator => Ok(admitted),
            (Operator::LocalUid(_), _) => Err(not_over_the_socket(why)),
            (Operator::Svid(_), Some(call)) if call.approved_by().is_some() || call.goes_on() => Ok(admitted),
            (Operator::Svid(_), Some(call)) => Err(call.asks_for(action, environment, why.to_owned())),
            (Operator::Svid(_), None) => Err(No::Refusal(Refusal::new(Reason::ApprovalNeeded, why).by("two people"))),
        }
    }

    fn admit_svid(&self, caller: &Caller, action: Admin, act: &Act<'_>) -> Result<Admitted, No> {
        self.let_in(caller, "this operator")?;
        let (compiled, environment) = (self.catalog.now(), act.environment);
        let behind = Behind::of(caller);
        let glass = self.acts_in_glass(caller);
        let act = Act { break_glass: glass.is_some(), person: behind.facts(), ..*act };
        if let Some(task) = glass.filter(|_| !leaves_as_it_is(action)) {
            return Err(in_break_glass(
                caller,
                task,
                "break-glass changes neither policy, registry, bindings, keys, trust, locks nor approvals",
            ));
        }
        let call = Call::current();
        let approver = call.as_ref().and_then(|call| call.approved_by());
        let people: &[&str] = &approver.into_iter().collect::<Vec<_>>();
        let approvals = if people.is_empty() { act.approvals } else { ApprovalFacts { count: 1, people } };
        let act = Act { approvals, ..act };
        let question = Question::admin(caller.id(), action, &act);
        let mut waits = None;
        let mut asked = 0;
        for (name, policy) in compiled.environments().filter(|(name, _)| environment.is_none_or(|e| e == *name)) {
            asked += 1;
            if !self.decider.verdicts.verdict(&policy.set, &question).permits() {
                // What an incident takes waits for nobody, and a dry run does nothing.
                let call = call.as_ref().filter(|c| c.waits() != Waits::WithItsChange || c.goes_on());
                if let Some(call) = call.filter(|_| act.approvals.count == 0 && self.approval_helps(policy, caller, action, &act))
                {
                    if !call.goes_on() {
                        waits.get_or_insert_with(|| format!("policy of {name} wants that for {}", question.action().name()));
                    }
                    continue;
                }
                return Err(No::Refusal(
                    Refusal::new(
                        Reason::DeniedByPolicy,
                        format!(
                            "{} may not {} in {name} (policy version {})",
                            caller.id(),
                            question.action().name(),
                            policy.version
                        ),
                    )
                    .by(format!("policy set {} of {name}", policy.version))
                    .way_out("whoever owns the policy set names its operators there"),
                ));
            }
        }
        if asked == 0 {
            return Err(No::Refusal(Refusal::new(Reason::DeniedByPolicy, "no policy set names operators")));
        }
        if let (Some(why), Some(call)) = (waits, &call) {
            return Err(call.asks_for(action, environment, why));
        }
        Ok(Admitted { who: Who::of(caller) })
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

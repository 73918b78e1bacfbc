//! Changes of what decisions are made with, where one operator is not enough: asked for by one, let through by another.
//!
//! Policy may want that for any change (`context.approvals`), and changes of what governs always take it. The local socket counts as nobody
//! here, unless `admin.single_operator` says that one operator is all there is.

use prost::Message;

use crate::approvals::{Decision, login_of};
use crate::authority::Authority;
use crate::identity::caller::{Caller, Operator};
use crate::ledger::Lane;
use crate::ledger::commit::sha256;
use crate::ledger::record::{ApprovalAsked, ApprovalDecided, ApprovalOf, Change as Recorded, Changes, Event, Record, Who};
use crate::ledger::state::State;
use crate::limits;
use crate::narrow::{Change, Terms, Took};
use crate::policy::action::Action;
use crate::policy::person::Behind;
use crate::policy::request::ApprovalFacts;
use crate::policy::{Act, Admin, Question};
use crate::refusal::{Fault, No, Reason, Refusal};
use crate::seq::{ApprovalId, Seq};

/// Whether somebody may make a change without another one.
#[derive(Clone, Debug)]
pub(crate) enum Alone {
    /// Alone.
    Yes(Who),
    /// With another one who lets it through.
    With(Who),
}

impl Alone {
    pub fn who(&self) -> &Who {
        match self {
            Alone::Yes(who) | Alone::With(who) => who,
        }
    }
}

/// What another operator is asked.
pub(crate) struct Asking<'a> {
    /// The environment.
    pub environment: &'a str,
    /// Why, in the words of who asks.
    pub reason: &'a str,
    /// What of the change takes a second person.
    pub why: Vec<String>,
}

/// What a change is about, as policies and people read it: its sort, its name, and what may be done by whoever makes it.
fn about(change: &Recorded) -> Option<(&'static str, &str, Admin)> {
    match change.to.as_ref()? {
        Changes::Policy(set) => Some(("policy", &set.environment, Admin::ManagePolicy)),
        Changes::Binding(set) => Some(("binding", &set.name, Admin::ManageUpstreams)),
    }
}

impl Authority {
    /// Whether an operator may make a change, alone or with another one. Refused where nobody's approval would help.
    pub(crate) fn may_change_alone(
        &self,
        operator: &Operator,
        action: Admin,
        (kind, name): (&str, &str),
        environment: &str,
    ) -> Result<Alone, No> {
        let ask = |count: i64| {
            let approvals = ApprovalFacts { count, people: &[] };
            let now = self.system.wall();
            let (environment, target_kind, target) = (Some(environment), Some(kind), Some(name));
            self.admit_to(operator, action, &Act { environment, target_kind, target, approvals, now, ..Act::default() })
        };
        match ask(0) {
            Ok(admitted) => Ok(Alone::Yes(admitted.who())),
            Err(no) => {
                let compiled = self.catalog.now();
                let reads = |set: &crate::policy::PolicySet| set.reads(Action::Admin(action)).reads_approvals();
                match compiled.policy(environment) {
                    Some(policy) if reads(&policy.set) => ask(1).map(|admitted| Alone::With(admitted.who())).map_err(|_| no),
                    _ => Err(no),
                }
            }
        }
    }

    /// The same change with another operator. The local socket is a way in for one who is alone, where the configuration says so.
    pub(crate) fn with_another(&self, operator: &Operator, who: Who) -> Result<Alone, No> {
        match operator {
            Operator::Svid(_) => Ok(Alone::With(who)),
            Operator::LocalUid(_) if self.single_operator => Ok(Alone::Yes(who)),
            Operator::LocalUid(_) => Err(No::Refusal(
                Refusal::new(Reason::NotYours, "this takes two operators, each with an SVID; the local socket counts as neither")
                    .by("two people")
                    .way_out("ask over the admin listener, or, where there is one operator only, set admin.single_operator"),
            )),
        }
    }

    /// Asks another operator to let a change through: once for the same change. The refusal that says so.
    pub(crate) async fn ask_another(&self, change: Change<'_>, asked: Recorded, asking: Asking<'_>, terms: &Terms) -> No {
        match self.asked_another(change, asked, &asking, terms).await {
            Ok(id) => {
                let what = match asking.why.as_slice() {
                    [] => "another operator has to approve this change first".to_owned(),
                    why => format!("another operator has to approve this change first: it changes {}", why.join(", ")),
                };
                let way_out = format!("another operator whom policy lets (ApproveChange): mayfly approval give {id}");
                let no = Refusal::new(Reason::ApprovalNeeded, what).by("two people");
                No::Refusal(no.approval(id.to_string()).way_out(way_out))
            }
            Err(no) => no,
        }
    }

    async fn asked_another(
        &self,
        change: Change<'_>,
        asked: Recorded,
        asking: &Asking<'_>,
        terms: &Terms,
    ) -> Result<ApprovalId, No> {
        let (who, caller) = (change.who.clone(), change.who.name());
        // What it hits is confirmed as if it were done now.
        let took = self.put_in_force(change, &Terms { dry_run: true, ..terms.clone() }).await?;
        if !terms.confirm.allows(took.hits.credentials) {
            return Err(crate::revoke::confirm_needed(&took.hits, terms.confirm));
        }
        let digest = digest_of(&caller, &asked);
        let now = self.system.wall();
        let known = |s: &State| {
            let mut open = s.approvals.iter().filter(|(_, a)| a.decided.is_none() && a.expires_at() > now);
            open.find(|(_, a)| a.asked.caller == caller && a.asked.digest == digest).map(|(id, _)| *id)
        };
        if let Some(known) = self.ledger.settled(known).await? {
            return Ok(known);
        }
        let (id, view) = (ApprovalId::from_bytes(self.system.id16()), self.ledger.view());
        let record = ApprovalAsked {
            approval: id.as_bytes().to_vec(),
            digest: digest.to_vec(),
            caller: caller.clone(),
            expires_at: now.plus(limits::APPROVAL_TTL_DEFAULT_MS).0,
            of: ApprovalOf::Change as i32,
            environment: asking.environment.to_owned(),
            policies: asking.why.clone(),
            change: Some(looked_at(asked, view.revision())),
            reason: asking.reason.to_owned(),
            ..ApprovalAsked::default()
        };
        let record = Record::new(who, Event::ApprovalAsked(record.into())).decided_at(view.revision());
        self.ledger.commit(Lane::Change, vec![record]).await?;
        Ok(id)
    }

    /// Lets another operator's change through, or only says what it would revoke.
    pub(crate) async fn let_change_through(
        &self,
        caller: &Caller,
        asked: &ApprovalAsked,
        decision: &Decision,
        terms: &Terms,
    ) -> Result<Took, No> {
        let change = undecided(asked, decision)?;
        let (kind, name, action) = about(change).ok_or_else(|| Fault::new("a change of nothing known"))?;
        let environment = Some(asked.environment.as_str());
        let act = Act { environment, target_kind: Some(kind), target: Some(name), now: self.system.wall(), ..Act::default() };
        let who = self.may_approve_change(caller, asked, (kind, name))?;
        self.author_still_may(asked, action, &Act { approvals: ApprovalFacts { count: 1, people: &[&who.name()] }, ..act })?;
        let _one = self.changing.lock().await;
        let (version, takes, coarse) = match &change.to {
            Some(Changes::Policy(set)) => self.asked_policy_takes(set).await?,
            Some(Changes::Binding(set)) => self.asked_binding_takes(set).await?,
            None => return Err(No::Fault(Fault::new("a change of nothing known"))),
        };
        let decided = ApprovalDecided {
            approval: decision.id.as_bytes().to_vec(),
            given: true,
            reason: decision.reason.clone(),
            digest: decision.digest.to_vec(),
            login: login_of(Some(caller)),
        };
        let event = |_: Seq| Event::ApprovalDecided(decided.clone());
        let reason = "a change that was approved narrows";
        self.put_in_force(Change { who: &who, event: &event, version, takes, coarse, reason }, terms).await
    }

    /// Whoever may let a change through may refuse it; whoever asked for it may think better of it.
    pub(crate) fn may_refuse_change(&self, caller: &Caller, asked: &ApprovalAsked, decision: &Decision) -> Result<Who, No> {
        let (kind, name, _) = about(undecided(asked, decision)?).ok_or_else(|| Fault::new("a change of nothing known"))?;
        if asked.caller == Who::of(caller).name() {
            self.let_in(caller, "this operator")?;
            return Ok(Who::of(caller));
        }
        self.may_approve_change(caller, asked, (kind, name))
    }

    fn may_approve_change(&self, caller: &Caller, asked: &ApprovalAsked, (kind, name): (&str, &str)) -> Result<Who, No> {
        let act = Act {
            environment: Some(&asked.environment),
            target_kind: Some(kind),
            target: Some(name),
            caller: Some(&asked.caller),
            now: self.system.wall(),
            ..Act::default()
        };
        Ok(self.admit_to(&Operator::Svid(caller.clone()), Admin::ApproveChange, &act)?.who())
    }

    /// Whoever asked may make the change with this approval: policy may have changed since.
    fn author_still_may(&self, asked: &ApprovalAsked, action: Admin, act: &Act<'_>) -> Result<(), No> {
        let gone = |what: String| {
            let no = Refusal::new(Reason::DeniedByPolicy, what);
            No::Refusal(no.way_out("whoever owns the policy set names its operators there"))
        };
        // Over the local socket nobody asks for another one.
        let nobody = || {
            gone(format!(
                "{} is no operator with an SVID, or is a person whose login has ended: they sign in again",
                asked.caller
            ))
        };
        let (author, person) = self.who_is(&asked.caller).ok_or_else(nobody)?;
        let behind = Behind::person(person.as_ref());
        let act = &Act { person: behind.facts(), ..*act };
        let compiled = self.catalog.now();
        let policy =
            compiled.policy(&asked.environment).ok_or_else(|| gone(format!("{} has no policy set", asked.environment)))?;
        let verdict = self.decider.verdicts.verdict(&policy.set, &Question::admin(&author, action, act));
        match verdict.permits() {
            true => Ok(()),
            false => {
                Err(gone(format!("{author}, who asked for it, may not make this change, not even with this approval: {verdict}")))
            }
        }
    }
}

/// The change of an approval that nobody decided yet: it is dropped with the decision.
fn undecided<'a>(asked: &'a ApprovalAsked, decision: &Decision) -> Result<&'a Recorded, No> {
    let decided = || Refusal::new(Reason::AlreadyExists, format!("approval {} was decided already", decision.id));
    Ok(asked.change.as_ref().filter(|c| c.to.is_some()).ok_or_else(decided)?)
}

/// Everything that is let through, and who asked for it.
fn digest_of(caller: &str, change: &Recorded) -> [u8; 32] {
    let mut bytes = format!("mayfly change 1\n{}\n{caller}\n", caller.len()).into_bytes();
    bytes.extend_from_slice(&change.encode_to_vec());
    sha256(&bytes)
}

/// From where on it is looked for what a change refuses, should a stop come between its taking effect and the end of the look.
fn looked_at(mut change: Recorded, at: Seq) -> Recorded {
    match &mut change.to {
        Some(Changes::Policy(set)) if !set.audit_only => set.looked = at.as_u64(),
        Some(Changes::Binding(set)) => set.looked = at.as_u64(),
        _ => {}
    }
    change
}

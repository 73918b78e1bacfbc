//! Changes of policy, bindings, registrations and trust that need two operators: one operator requests the change, and another approves it.
//!
//! Policy can require that for any change (`context.approvals`), and changes of what governs always need it. The local socket counts as
//! nobody, unless `admin.single_operator` declares that there is only one operator.

use prost::Message;

use crate::admission::not_over_the_socket;
use crate::authority::Authority;
use crate::people::approvals::{ApproverDecision, login_of, place_of};
use crate::revocation::revoke_excess::{ChangeEffect, ChangeOptions, NarrowingChange};
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_identity::caller::{Caller, Operator};
use mayfly_ledger::ProposalKind;
use mayfly_ledger::commit::sha256;
use mayfly_ledger::record::{
    ApprovalDecided, ApprovalKind, ApprovalRequested, Author, Event, ProposedChange, ProposedChangeRecord as Recorded, Record,
};
use mayfly_ledger::state::State;
use mayfly_policy::action::Action;
use mayfly_policy::person::CallerPerson;
use mayfly_policy::question::ApprovalFacts;
use mayfly_policy::{OperatorAction, OperatorActionType, OperatorContext, Question, admin};
use mayfly_verify::seq::{ApprovalId, Seq};

/// Whether an operator may make a change without an approval.
#[derive(Clone, Debug)]
pub(crate) enum ChangePermission {
    /// The operator may make the change alone.
    Yes(Author),
    /// The change needs another operator's approval.
    With(Author),
}

impl ChangePermission {
    pub fn who(&self) -> &Author {
        match self {
            ChangePermission::Yes(who) | ChangePermission::With(who) => who,
        }
    }
}

/// The request for another operator's approval.
pub(crate) struct ApprovalRequest<'a> {
    /// The environment.
    pub environment: &'a str,
    /// The reason given by the author.
    pub reason: &'a str,
    /// The parts of the change that need a second person.
    pub why: Vec<String>,
}

/// The subject of a change, as policies and people read it: its kind, its name, and the action that its author must be permitted.
fn about(change: &Recorded) -> Option<(&'static str, &str, OperatorAction)> {
    match change.to.as_ref()? {
        ProposedChange::Policy(set) => Some(("policy", &set.environment, OperatorAction::ManagePolicy)),
        ProposedChange::Binding(set) => Some(("binding", &set.name, OperatorAction::ManageUpstreams)),
        ProposedChange::Upstream(set) => Some(("upstream", &set.name, OperatorAction::ManageUpstreams)),
        ProposedChange::Bundle(set) => Some(("trust_domain", &set.trust_domain, OperatorAction::ManageTrust)),
    }
}

impl Authority {
    /// Whether an operator may make a change, alone or with an approval. Refused if no approval would help.
    pub(crate) fn may_change_alone<A: OperatorActionType>(
        &self,
        operator: &Operator,
        (kind, name): (&str, &str),
        environment: Option<&str>,
    ) -> Result<ChangePermission, Error> {
        let ask = |approvals: ApprovalFacts<'_>| {
            let (now, target_kind, target) = (self.system.wall(), Some(kind), Some(name));
            self.admit_to::<A>(
                operator,
                &OperatorContext { environment, target_kind, target, approvals, now, ..OperatorContext::default() },
            )
        };
        let no = match ask(ApprovalFacts::default()) {
            Ok(admitted) => return Ok(ChangePermission::Yes(admitted.who())),
            Err(no) => no,
        };
        let compiled = self.catalog.now();
        let concerned = || compiled.environments().filter(|(name, _)| environment.is_none_or(|e| e == *name));
        if !concerned().any(|(_, policy)| policy.set.reads(Action::Admin(A::ACTION)).reads_approvals()) {
            return Err(no);
        }
        let with = |people: &[&str]| ask(ApprovalFacts { count: 1, people }).ok();
        let named = || concerned().flat_map(|(_, policy)| policy.set.people_named()).find_map(|name| with(&[name.as_str()]));
        with(&[]).or_else(named).map(|admitted| ChangePermission::With(admitted.who())).ok_or(no)
    }

    /// The change needs another operator. The local socket may proceed alone if the configuration declares a single operator.
    pub(crate) fn with_another(&self, operator: &Operator, who: Author) -> Result<ChangePermission, Error> {
        match operator {
            Operator::Svid(_) => Ok(ChangePermission::With(who)),
            Operator::LocalUid(_) if self.single_operator => Ok(ChangePermission::Yes(who)),
            Operator::LocalUid(_) => Err(not_over_the_socket("it changes what governs, or policy wants it")),
        }
    }

    /// Requests another operator's approval for a change; the same change shares one approval. Returns the refusal that says so.
    pub(crate) async fn ask_another(
        &self,
        change: NarrowingChange<'_>,
        asked: Recorded,
        asking: ApprovalRequest<'_>,
        terms: &ChangeOptions,
    ) -> Error {
        match self.asked_another(change, asked, &asking, terms).await {
            Ok(id) => {
                let what = match asking.why.as_slice() {
                    [] => "another operator has to approve this change first".to_owned(),
                    why => format!("another operator has to approve this change first: it changes {}", why.join(", ")),
                };
                let way_out =
                    format!("another operator whom policy lets (ApproveChange): mayfly approval give {id} --reason TEXT");
                let no = Refusal::new(Reason::ApprovalNeeded, what).by("two people");
                Error::Refusal(no.approval(id.to_string()).way_out(way_out))
            }
            Err(no) => no,
        }
    }

    async fn asked_another(
        &self,
        change: NarrowingChange<'_>,
        asked: Recorded,
        asking: &ApprovalRequest<'_>,
        terms: &ChangeOptions,
    ) -> Result<ApprovalId, Error> {
        let (who, caller) = (change.who.clone(), change.who.name());
        // The operator confirms what the change would revoke if it took effect now.
        let took = self.put_in_force(change, &ChangeOptions { dry_run: true, ..terms.clone() }).await?;
        if !terms.confirm.allows(took.hits.credentials) {
            return Err(crate::revocation::revoke::confirm_needed(&took.hits, terms.confirm));
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
        let record = ApprovalRequested {
            approval: id.as_bytes().to_vec(),
            digest: digest.to_vec(),
            caller: caller.clone(),
            expires_at: now.plus(limits::APPROVAL_TTL_DEFAULT_MS).0,
            of: ApprovalKind::Change as i32,
            environment: asking.environment.to_owned(),
            policies: asking.why.clone(),
            change: Some(looked_at(asked, view.revision())),
            reason: asking.reason.to_owned(),
            ..ApprovalRequested::default()
        };
        let record = Record::new(who, Event::ApprovalAsked(record.into())).decided_at(view.revision());
        self.ledger.commit(ProposalKind::Change, vec![record]).await?;
        Ok(id)
    }

    /// Approves another operator's change and puts it in effect, or for a dry run tells what it would revoke.
    pub(crate) async fn let_change_through(
        &self,
        caller: &Caller,
        asked: &ApprovalRequested,
        decision: &ApproverDecision,
        terms: &ChangeOptions,
    ) -> Result<ChangeEffect, Error> {
        let change = undecided(asked, decision)?;
        let (kind, name, action) = about(change).ok_or_else(|| Fault::new("a change of an unknown kind"))?;
        let act = OperatorContext {
            environment: place_of(asked),
            target_kind: Some(kind),
            target: Some(name),
            now: self.system.wall(),
            ..OperatorContext::default()
        };
        let who = self.may_approve_change(caller, asked, (kind, name))?;
        self.author_still_may(
            asked,
            action,
            &OperatorContext { approvals: ApprovalFacts { count: 1, people: &[&who.name()] }, ..act },
        )?;
        let _one = self.changing.lock().await;
        let (version, takes, coarse) = match &change.to {
            Some(ProposedChange::Policy(set)) => self.requested(set).await?,
            Some(ProposedChange::Binding(set)) => self.requested(set).await?,
            Some(ProposedChange::Upstream(set)) => self.requested(set).await?,
            Some(ProposedChange::Bundle(set)) => return self.let_bundle_through(&who, (asked, set), (decision, caller)).await,
            None => return Err(Error::Fault(Fault::new("a change of an unknown kind"))),
        };
        let decided = given(decision, caller);
        let event = |_: Seq| Event::ApprovalDecided(decided.clone());
        let reason = "a change that was approved narrows";
        self.put_in_force(NarrowingChange { who: &who, event: &event, version, takes, coarse, reason }, terms).await
    }

    /// Whether an operator may refuse a change: one who may approve it, or its author, who withdraws it.
    pub(crate) fn may_refuse_change(
        &self,
        caller: &Caller,
        asked: &ApprovalRequested,
        decision: &ApproverDecision,
    ) -> Result<Author, Error> {
        let (kind, name) = match asked.of() {
            ApprovalKind::Call => ("call", asked.tool.as_str()),
            _ => {
                let (kind, name, _) =
                    about(undecided(asked, decision)?).ok_or_else(|| Fault::new("a change of an unknown kind"))?;
                (kind, name)
            }
        };
        if asked.caller == Author::of(caller).name() {
            self.let_in(caller, "this operator")?;
            return Ok(Author::of(caller));
        }
        self.may_approve_change(caller, asked, (kind, name))
    }

    pub(crate) fn may_approve_change(
        &self,
        caller: &Caller,
        asked: &ApprovalRequested,
        (kind, name): (&str, &str),
    ) -> Result<Author, Error> {
        let act = OperatorContext {
            environment: place_of(asked),
            target_kind: Some(kind),
            target: Some(name),
            caller: Some(&asked.caller),
            now: self.system.wall(),
            ..OperatorContext::default()
        };
        Ok(self.admit_to::<admin::ApproveChange>(&Operator::Svid(caller.clone()), &act)?.who())
    }

    /// Checks that policy still permits the change to its author with this approval, since policy may have changed in the meantime.
    pub(crate) fn author_still_may(
        &self,
        asked: &ApprovalRequested,
        action: OperatorAction,
        act: &OperatorContext<'_>,
    ) -> Result<(), Error> {
        let gone = |what: String| {
            let no = Refusal::new(Reason::DeniedByPolicy, what);
            Error::Refusal(no.way_out("the owner of the policy set can add operators to the roles file"))
        };
        // A request over the local socket never leads to an approval.
        let nobody = || {
            gone(format!(
                "{} is no operator with an SVID, or is a person whose login has ended: they sign in again",
                asked.caller
            ))
        };
        let (author, person) = self.who_is(&asked.caller).ok_or_else(nobody)?;
        let behind = CallerPerson::person(person.as_ref());
        let act = &OperatorContext { person: behind.facts(), ..*act };
        let compiled = self.catalog.now();
        let mut concerned = 0;
        for (_, policy) in compiled.environments().filter(|(name, _)| place_of(asked).is_none_or(|e| e == *name)) {
            concerned += 1;
            let verdict = self.decider.verdicts.verdict(&policy.set, &Question::admin(&author, action, act));
            if !verdict.permits() {
                let what = "who asked for it, may not make this change, not even with this approval";
                return Err(gone(format!("{author}, {what}: {verdict}")));
            }
        }
        match concerned {
            0 => Err(gone(format!("{} has no policy set", asked.environment))),
            _ => Ok(()),
        }
    }
}

/// The event that records the approval.
pub(crate) fn given(decision: &ApproverDecision, by: &Caller) -> ApprovalDecided {
    ApprovalDecided {
        approval: decision.id.as_bytes().to_vec(),
        given: true,
        reason: decision.reason.clone(),
        digest: decision.digest.to_vec(),
        login: login_of(Some(by)),
    }
}

/// The requested change of an approval that is undecided; it is dropped once decided.
fn undecided<'a>(asked: &'a ApprovalRequested, decision: &ApproverDecision) -> Result<&'a Recorded, Error> {
    let decided = || {
        let no = Refusal::new(Reason::AlreadyExists, format!("approval {} was decided already", decision.id));
        no.by("an approval is decided once").way_out(format!("mayfly approval show {} says by whom", decision.id))
    };
    Ok(asked.change.as_ref().filter(|c| c.to.is_some()).ok_or_else(decided)?)
}

/// The digest of the change and its author.
fn digest_of(caller: &str, change: &Recorded) -> [u8; 32] {
    let mut bytes = format!("mayfly change 1\n{}\n{caller}\n", caller.len()).into_bytes();
    bytes.extend_from_slice(&change.encode_to_vec());
    sha256(&bytes)
}

/// Sets the sequence number from which credentials are searched for what the change refuses, in case a stop interrupts the search.
fn looked_at(mut change: Recorded, at: Seq) -> Recorded {
    match &mut change.to {
        Some(ProposedChange::Policy(set)) if !set.audit_only => set.looked = at.as_u64(),
        Some(ProposedChange::Binding(set)) => set.looked = at.as_u64(),
        Some(ProposedChange::Upstream(set)) if !set.disabled && !set.retired => set.looked = at.as_u64(),
        _ => {}
    }
    change
}

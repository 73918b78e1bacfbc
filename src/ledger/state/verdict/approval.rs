//! Verdicts on approvals: whether one may be asked for and given, and whether it may be used, which is once and only for exactly what it
//! was given for.

use super::super::tasks::TaskPhase;
use super::super::{Approval, ApprovalResult, Issuance, Login, State, Verdict, trust_domain_of};
use super::task_approval::opens_the_same;
use super::{GroupEffects, malformed, over, policy_in_force, refused_by, stale};
use crate::record::{ApprovalDecided, ApprovalKind, ApprovalRequested, Author, Principal, Record, TaskOpened};
use crate::revocation::Facts;
use mayfly_base::limits;
use mayfly_base::refusal::{Reason, Refusal};
use mayfly_verify::seq::{ApprovalId, CredentialId, Millis, Seq, TaskId};

/// The refusal of a second decision about an approval: names the first decision, and what the requester does next.
fn decided_before(id: &ApprovalId, approval: &Approval, decided: &ApprovalResult) -> Refusal {
    let who = decided.by.as_deref().map_or_else(|| "somebody".to_owned(), Author::name);
    let what = if decided.given { "given" } else { "refused" };
    let way_out = match (decided.given, approval.used) {
        (true, true) => "it was used: whoever needs another one sends another request".to_owned(),
        (true, false) => {
            "nothing is left to do for approvers: whoever asked sends the same request again, which uses it".to_owned()
        }
        (false, _) => "whoever asked for it sends the request again, which asks anew".to_owned(),
    };
    let no =
        Refusal::new(Reason::AlreadyExists, format!("approval {id} was decided already: {who} has {what} it at {}", decided.at));
    no.by("an approval is decided once").way_out(way_out)
}

pub(super) fn unusable(id: &ApprovalId, what: &str) -> Refusal {
    Refusal::new(Reason::ApprovalNeeded, format!("approval {id} {what}"))
}

/// Whether policy names the approvers instead of a registration, as for actions of operators.
fn by_policy(asked: &ApprovalRequested) -> bool {
    matches!(asked.of(), ApprovalKind::Change | ApprovalKind::Call)
}

impl State {
    pub(super) fn may_ask<'a>(&self, e: &'a ApprovalRequested, time: Millis, pending: &mut GroupEffects<'a>) -> Verdict {
        let id = ApprovalId::from_slice(&e.approval).ok_or_else(|| malformed("an approval id that is not 16 bytes"))?;
        if self.approvals.contains_key(&id) {
            // An approval asked for again under the same id would be usable a second time.
            return Err(stale(format!("approval {id} exists already")));
        }
        if e.of() == ApprovalKind::Unspecified || e.digest.len() != 32 {
            return Err(malformed("an approval of nothing known, or without the digest of what it binds"));
        }
        let change = e.change.as_ref().and_then(|c| c.event());
        // The change must be the next version: an approval must not undo a change made in the meantime.
        change.as_ref().map_or(Ok(()), |change| self.may_take_effect(change))?;
        if (e.of() == ApprovalKind::Change) != e.change.as_ref().is_some_and(|c| c.to.is_some()) {
            return Err(malformed("an approval of a change that names none, or of something else that names one"));
        }
        self.may_ask_for_task(e, time, pending)?;
        if Millis(e.expires_at) > time.plus(limits::APPROVAL_TTL_MS + limits::CLOCK_SKEW_MS) {
            return Err(Refusal::new(Reason::NoLifeLeft, format!("approval {id} would be usable for too long")));
        }
        let most = limits::APPROVERS;
        if e.approvers.len() > most || e.scopes.len() > limits::TASK_LIST {
            return Err(Refusal::limit("approvers", most as u64, std::time::Duration::ZERO));
        }
        let wait = std::time::Duration::from_secs(60);
        if self.approvals.len() >= limits::APPROVALS {
            return Err(Refusal::limit("approvals", limits::APPROVALS as u64, wait));
        }
        if e.of() == ApprovalKind::Change {
            let waiting = self.approvals.values().filter(|a| a.asked.change.is_some() && a.expires_at() > time).count();
            if waiting >= limits::CHANGES_WAITING {
                return Err(Refusal::limit("changes_waiting", limits::CHANGES_WAITING as u64, wait));
            }
        }
        // Used or refused approvals make room: no list shows them.
        let open = |a: &&Approval| !a.used && a.expires_at() > time && a.decided.as_ref().is_none_or(|d| d.given);
        let own = self.approvals.values().filter(|a| a.asked.caller == e.caller).filter(open).count();
        if own >= limits::APPROVALS_PER_CALLER {
            return Err(Refusal::limit("approvals_per_caller", limits::APPROVALS_PER_CALLER as u64, wait));
        }
        Ok(())
    }

    /// Giving an approval is a grant. The approver must be named for it and have no part in the request: "two people" is enforced here.
    pub(super) fn may_decide(&self, e: &ApprovalDecided, record: &Record, time: Millis) -> Verdict {
        let id = ApprovalId::from_slice(&e.approval).ok_or_else(|| malformed("an approval id that is not 16 bytes"))?;
        let Some(approval) = self.approvals.get(&id) else {
            return Err(Refusal::new(Reason::NotFound, format!("there is no approval {id}")));
        };
        if let Some(decided) = &approval.decided {
            return Err(decided_before(&id, approval, decided));
        }
        if approval.expires_at() <= time {
            return Err(unusable(&id, "was not decided in time"));
        }
        if e.digest != approval.asked.digest {
            return Err(stale(format!("approval {id} is about another request than the one that was shown")));
        }
        if !e.given {
            return Ok(());
        }
        let asked = &approval.asked;
        let who = match record.author.as_ref().and_then(|a| a.who.as_ref()) {
            Some(Author::SpiffeId(sub)) => Principal { issuer: trust_domain_of(sub).to_owned(), sub: sub.clone() },
            Some(Author::Person(p)) => p.clone(),
            // A peer of the local socket on the server's host does not count as a second person.
            _ => {
                let no = Refusal::new(Reason::NotYours, "approving needs a caller with an identity: a person or an SVID");
                return Err(no
                    .by("two people")
                    .way_out("sign in as a person: mayfly login; or call a listener over mTLS, with an SVID"));
            }
        };
        let login = self.login_behind(e, &who, time)?;
        // A registration can also name a person by the SPIFFE ID of their login certificate.
        let own = login.map(|l| Principal { issuer: trust_domain_of(&l.caller).to_owned(), sub: l.caller.to_string() });
        let mut names = own.iter().chain([&who]);
        let named = by_policy(asked) || names.clone().any(|name| asked.approvers.contains(name));
        if !named {
            let no = Refusal::new(Reason::NotYours, format!("{} is not among those who may give approval {id}", who.sub));
            let way_out =
                format!("the approvers that the registration names can; see them with mayfly upstream show {}", asked.upstream);
            return Err(no.by("approvers of the registration").way_out(way_out));
        }
        if let Some(part) = names.find_map(|name| self.part_in(asked, name)) {
            let no = Refusal::new(Reason::NotYours, format!("{} {part}: another person has to give approval {id}", who.sub));
            let others = match asked.of() {
                ApprovalKind::Change => "another operator whom policy permits ApproveChange",
                _ => "another approver of the upstream",
            };
            let way_out = format!(
                "{others} gives it: mayfly approval give {id} --reason TEXT; you can withdraw it: mayfly approval refuse {id} --reason TEXT"
            );
            return Err(no.by("two people").way_out(way_out));
        }
        self.decided_on_now(asked)?;
        self.may_approve(asked, &who, login, record.revision(), time)?;
        self.may_open_with(asked)?;
        match asked.change.as_ref().and_then(|c| c.event()) {
            Some(change) => self.may_take_effect(&change),
            None => Ok(()),
        }
    }

    /// The login that a person decides with, which must be valid and that person's. A person without a login is not known to mayfly.
    fn login_behind(&self, e: &ApprovalDecided, who: &Principal, time: Millis) -> Result<Option<&Login>, Refusal> {
        if e.login.is_empty() {
            return Ok(None);
        }
        let id = CredentialId::from_slice(&e.login).ok_or_else(|| malformed("a credential id that is not 16 bytes"))?;
        let login = self.login_alive(&id, time)?;
        if login.job.is_some() {
            return Err(Refusal::new(Reason::NotYours, format!("{} is a CI job: only a person may approve", login.caller)));
        }
        match login.person == *who {
            true => Ok(Some(login)),
            false => Err(Refusal::new(Reason::NotYours, format!("login {id} belongs to another person"))),
        }
    }

    /// The person's part in the request, if any.
    fn part_in(&self, asked: &ApprovalRequested, who: &Principal) -> Option<&'static str> {
        if asked.caller == who.sub || asked.caller == who.name() {
            return Some("asked for it");
        }
        if asked.subject.as_ref() == Some(who) || asked.actors.contains(who) {
            return Some("is one of those it is done for");
        }
        if asked.terms.as_ref().is_some_and(|terms| terms.callers.contains(&who.sub)) {
            return Some("may act in the task");
        }
        let task = TaskId::from_slice(&asked.task).and_then(|id| self.tasks.get(&id))?;
        let opened = self.tasks.upwards(task).any(|t| *t.terms.opener == *who.sub);
        (opened || task.terms.owners.contains(who)).then_some("owns or opened the task")
    }

    /// The approvers must be those that the registration in effect names, and the bound versions must be those in effect.
    fn decided_on_now(&self, asked: &ApprovalRequested) -> Verdict {
        if by_policy(asked) || asked.upstream.is_empty() {
            return Ok(());
        }
        self.registration_stands(&asked.upstream, asked.upstream_version)?;
        self.registrations_stand(asked)?;
        let binding = self.bindings.get(asked.binding.as_str()).filter(|v| v.active).map_or(0, |v| v.version);
        if !asked.binding.is_empty() && binding != asked.binding_version {
            return Err(stale(format!("binding {} changed since it was asked for", asked.binding)));
        }
        Ok(())
    }

    /// Neither the approver nor the requester may be revoked since its view, or locked.
    fn may_approve(
        &self,
        asked: &ApprovalRequested,
        who: &Principal,
        login: Option<&Login>,
        revision: Seq,
        time: Millis,
    ) -> Verdict {
        self.of_this_order(revision)?;
        let mut facts = Facts { revision, upstream: &asked.upstream, tool: &asked.tool, ..Facts::default() };
        if let Some(login) = login {
            facts.credentials.push(login.id);
            facts.identities.push((trust_domain_of(&login.caller), &login.caller));
        }
        facts.environment = &asked.environment;
        facts.policy = policy_in_force(self, facts.environment);
        facts.identities.push((trust_domain_of(&asked.caller), &asked.caller));
        facts.identities.push((&who.issuer, &who.sub));
        facts.scopes = asked.scopes.iter().map(String::as_str).collect();
        if let Some(task) = TaskId::from_slice(&asked.task).and_then(|id| self.tasks.get(&id)) {
            if let phase @ TaskPhase::Over(_) = self.tasks.phase(task, time) {
                return Err(over(&task.terms.id, phase));
            }
            facts.tasks.extend(&task.terms.path);
            facts.identities.extend(task.terms.owners.iter().map(|o| (o.issuer.as_str(), o.sub.as_str())));
        } else if !asked.task.is_empty() {
            return Err(Refusal::new(Reason::NotFound, "the task in which the approval was requested no longer exists"));
        }
        match self.rules.blocks(&facts) {
            Some(hit) => Err(refused_by(&hit, "approving")),
            None => Ok(()),
        }
    }

    /// The decision revision of the approval that an issuance uses up. The approval is a grant too, so a revocation since it was given
    /// covers the issuance. The issuance must match the approved request in every field.
    pub(super) fn approval_usable<'a>(
        &'a self,
        issuance: Issuance<'a>,
        revision: Seq,
        time: Millis,
        pending: &mut GroupEffects<'a>,
    ) -> Result<Option<Seq>, Refusal> {
        // Several issuances from one template would be several uses.
        if issuance.template.is_some() && !issuance.shared.approval.is_empty() {
            return Err(malformed("an approval that several issuances share"));
        }
        self.approved(issuance, ApprovalKind::Exchange, revision, time, pending)
    }

    /// Whether an operator's call may use up its approval. Only the author of the call can, so that nobody else can waste it.
    pub(super) fn may_use_for_call(&self, approval: &[u8], record: &Record, time: Millis) -> Verdict {
        let id = ApprovalId::from_slice(approval).ok_or_else(|| malformed("an approval id that is not 16 bytes"))?;
        let known = self.approvals.get(&id).filter(|a| a.asked.of() == ApprovalKind::Call);
        let author = record.author.as_ref().and_then(|a| a.who.as_ref()).map(Author::name);
        let own = known.filter(|a| author.as_ref() == Some(&a.asked.caller));
        match own.and_then(|a| a.usable(time)) {
            Some(given) if given <= record.revision() => Ok(()),
            _ => Err(unusable(&id, "is not, or no longer, usable for this call")),
        }
    }

    /// The same check for anything that is decided like an issuance.
    pub(super) fn approved<'a>(
        &'a self,
        issuance: Issuance<'a>,
        of: ApprovalKind,
        revision: Seq,
        time: Millis,
        pending: &mut GroupEffects<'a>,
    ) -> Result<Option<Seq>, Refusal> {
        let e = issuance.shared;
        if e.approval.is_empty() {
            return Ok(None);
        }
        let id = ApprovalId::from_slice(&e.approval).ok_or_else(|| malformed("an approval id that is not 16 bytes"))?;
        let approval = self.approvals.get(&id);
        let Some(given) = approval.and_then(|a| a.usable(time)).filter(|given| *given <= revision) else {
            return Err(unusable(&id, "is not, or no longer, usable"));
        };
        if pending.approvals.contains(&&e.approval[..]) {
            return Err(unusable(&id, "is used once, not twice"));
        }
        if let Some(other) = approval.and_then(|a| differs(a, issuance, of, pending)) {
            return Err(unusable(&id, &format!("was given for another {other}")));
        }
        approval.map_or(Ok(()), |a| self.registrations_stand(&a.asked))?;
        pending.approvals.push(&e.approval);
        Ok(Some(given))
    }
}

/// The first field of an issuance that its approval was not given for.
fn differs(approval: &Approval, issuance: Issuance<'_>, of: ApprovalKind, pending: &GroupEffects<'_>) -> Option<&'static str> {
    let (a, e) = (&approval.asked, issuance.shared);
    if a.of() != of {
        return Some("kind of thing");
    }
    let opened = pending.tasks.iter().find(|t: &&&TaskOpened| t.task == e.task);
    let task = match (a.opens, opened) {
        (true, Some(opened)) => opened.parent == a.task,
        (false, None) => e.task == a.task,
        _ => false,
    };
    let terms = opened.is_none_or(|opened| opens_the_same(a, opened));
    let same = [
        ("task", task),
        ("set of task terms", terms),
        ("caller", e.caller == a.caller),
        ("subject", e.subject == a.subject && e.actors == a.actors),
        ("upstream", e.upstream == a.upstream),
        ("version of the registration", e.upstream_version == a.upstream_version),
        ("binding", e.binding == a.binding && e.binding_version == a.binding_version),
        ("scope", e.scopes == a.scopes && e.details == a.details),
        ("kind of credential", e.kind == a.kind),
        ("tool", issuance.tool == a.tool),
        ("set of arguments", e.arguments == a.arguments),
        ("life", e.expires_at.saturating_sub(e.issued_at) <= a.ttl),
    ];
    same.into_iter().find(|(_, same)| !same).map(|(what, _)| what)
}

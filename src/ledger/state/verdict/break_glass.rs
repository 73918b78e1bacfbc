//! Verdicts on break-glass: opened and joined by two people, once each, and reviewed by a third person afterwards.

use super::super::{BreakGlassTask, State, Verdict, svid_facts, trust_domain_of};
use super::{GroupEffects, malformed, refused_by};
use crate::record::{Author, BreakGlassStep, BreakGlassStepTaken, Event, Principal, Record, SecretStep, TaskOpened};
use crate::revocation::Facts;
use mayfly_base::limits;
use mayfly_base::refusal::{Reason, Refusal};
use mayfly_verify::seq::{CredentialId, Millis, Seq, TaskId};

impl GroupEffects<'_> {
    /// A break-glass task must be opened by a person, named by the next record of the group.
    pub(super) fn break_glass_is_requested(&self) -> Verdict {
        let opens = self.tasks.iter().any(|t| t.break_glass && t.parent.is_empty());
        if opens && !self.break_glass { Err(malformed("a break-glass task that nobody asked for")) } else { Ok(()) }
    }
}

/// The person or workload that takes a step. A peer of the local socket on the server's host has no identity here.
fn somebody(record: &Record) -> Result<Principal, Refusal> {
    match record.author.as_ref().and_then(|a| a.who.as_ref()) {
        Some(Author::SpiffeId(sub)) => Ok(Principal { issuer: trust_domain_of(sub).to_owned(), sub: sub.clone() }),
        Some(Author::Person(person)) => Ok(person.clone()),
        _ => Err(Refusal::new(Reason::NotYours, "break-glass needs a caller with an identity: a person or an SVID")),
    }
}

fn none(id: &TaskId) -> Refusal {
    Refusal::new(Reason::NotFound, format!("there is no break-glass task {id}"))
}

/// The refusal of a person who is in another break-glass task.
pub(crate) fn blocked_by(who: &Principal, id: &TaskId, break_glass: &BreakGlassTask, now: Millis) -> Refusal {
    let (what, way_out) = match break_glass.over(now) {
        true => ("nobody reviewed", format!("a third person looks at it: mayfly break-glass review {id} --text TEXT")),
        false => ("is open", format!("end it: mayfly break-glass close {id}")),
    };
    Refusal::new(Reason::ApprovalNeeded, format!("break-glass task {id} of {} {what}", who.name()))
        .by("break-glass review")
        .way_out(way_out)
}

/// Whether an event grants something or outlasts the incident: people with break-glass rights must not cause such events. Events that only
/// revoke are allowed.
fn lasts(event: &Event) -> bool {
    match event {
        Event::PolicySet(_)
        | Event::UpstreamSet(_)
        | Event::BindingSet(_)
        | Event::Narrowed(_)
        | Event::OwnerLeft(_)
        | Event::BundleSet(_)
        | Event::KeyAdded(_)
        | Event::KeyChanged(_)
        | Event::SecretStored(_)
        | Event::LockLifted(_) => true,
        Event::SecretChanged(e) => e.step == SecretStep::Removed as i32,
        Event::Revoked(e) => e.lock_only,
        Event::ApprovalDecided(e) => e.given,
        _ => false,
    }
}

impl State {
    /// People who act in break-glass cannot make lasting changes, even if their server did not know yet that they act in it.
    pub(super) fn outside_break_glass(&self, event: &Event, record: &Record, time: Millis) -> Verdict {
        if self.break_glass_tasks.is_empty() || !lasts(event) {
            return Ok(());
        }
        let Ok(who) = somebody(record) else { return Ok(()) };
        match self.break_glass_tasks.acts(&who, &who.sub, time) {
            Some(task) => {
                let what = format!("{} acts in break-glass task {task}, which changes nothing that lasts", who.name());
                Err(Refusal::new(Reason::NotYours, what).by("break-glass"))
            }
            None => Ok(()),
        }
    }

    /// A break-glass task, or a task below one, must stay within the bounds of break-glass.
    pub(super) fn within_break_glass(&self, e: &TaskOpened, pending: &GroupEffects<'_>) -> Verdict {
        if e.parent.is_empty() {
            let longest = Millis(e.opened_at).plus(limits::BREAK_GLASS_MS);
            let plain = e.callers.is_empty() && e.approval.is_empty() && e.heartbeat == 0 && pending.tasks.is_empty();
            return match e.break_glass {
                true if !plain => Err(malformed("break-glass with callers, an approval or a heartbeat of its own")),
                true if Millis(e.max_deadline) > longest => {
                    Err(Refusal::new(Reason::NoLifeLeft, "a break-glass task lasts an hour at most"))
                }
                true if Millis(e.deadline) > Millis(e.opened_at).plus(limits::BREAK_GLASS_JOIN_MS) => {
                    Err(Refusal::new(Reason::NoLifeLeft, "the break-glass task would wait too long for its second person"))
                }
                _ => Ok(()),
            };
        }
        let parent = TaskId::from_slice(&e.parent).and_then(|p| self.tasks.get(&p));
        let break_glass = parent.filter(|p| p.terms.break_glass);
        if break_glass.is_some() != e.break_glass {
            return Err(malformed("a child task that does not say whether it is below break-glass"));
        }
        let Some(parent) = break_glass else { return Ok(()) };
        match std::iter::once(&e.opener).chain(&e.callers).find(|c| !parent.admits(c)) {
            Some(other) => {
                Err(Refusal::new(Reason::NotYours, format!("{other} is not one of the two people of the break-glass task")))
            }
            None => Ok(()),
        }
    }

    pub(super) fn may_break_glass<'a>(
        &'a self,
        e: &'a BreakGlassStepTaken,
        record: &Record,
        time: Millis,
        pending: &mut GroupEffects<'a>,
    ) -> Verdict {
        let id = TaskId::from_slice(&e.task).ok_or_else(|| malformed("a task id that is not 16 bytes"))?;
        let who = somebody(record)?;
        self.as_themselves(e, record, &who, time)?;
        self.timely(e.decided_at, record.revision(), time)?;
        self.version_in_force(&e.environment, e.policy_version)?;
        match BreakGlassStep::try_from(e.step) {
            Ok(BreakGlassStep::Opened) => self.may_ask_for_glass(e, &who, time, pending),
            Ok(step @ (BreakGlassStep::Joined | BreakGlassStep::Reviewed)) => {
                let break_glass = self.break_glass_tasks.get(&id).filter(|_| pending.alone).ok_or_else(|| none(&id))?;
                if *break_glass.environment != *e.environment || *break_glass.rights != *e.rights {
                    return Err(malformed("other rights than those that were opened"));
                }
                let named = e.people.len() == 2 && e.people.first() == break_glass.people.first().map(|p| &p.who);
                match step {
                    BreakGlassStep::Joined if named => self.may_join(&id, break_glass, (e, &who), record.revision(), time),
                    BreakGlassStep::Reviewed if named => self.may_review(&id, break_glass, (e, &who), record.revision(), time),
                    _ => Err(malformed("other people than those who opened it")),
                }
            }
            Ok(BreakGlassStep::Unspecified) | Err(_) => Err(malformed("an unknown step of break-glass")),
        }
    }

    /// A workload takes a step under its own SPIFFE ID; a login's certificate stands for its person and nobody else.
    fn as_themselves(&self, e: &BreakGlassStepTaken, record: &Record, who: &Principal, time: Millis) -> Verdict {
        if record.author_id().is_some_and(|own| own != e.caller) {
            return Err(malformed("a step of break-glass under another one's SPIFFE ID"));
        }
        let Some(id) = CredentialId::from_slice(&e.ancestor).filter(|id| self.logins.contains_key(id)) else { return Ok(()) };
        let login = self.login_alive(&id, time)?;
        match login.person == *who && *login.caller == *e.caller {
            true => Ok(()),
            false => Err(Refusal::new(Reason::NotYours, format!("login {id} belongs to another person"))),
        }
    }

    fn may_ask_for_glass<'a>(
        &'a self,
        e: &BreakGlassStepTaken,
        who: &Principal,
        time: Millis,
        pending: &mut GroupEffects<'a>,
    ) -> Verdict {
        let opened = match pending.tasks.as_slice() {
            [task] if task.task == e.task && task.break_glass && task.parent.is_empty() && !pending.break_glass => task,
            _ => return Err(malformed("break-glass without the task that it opens before it in its group")),
        };
        let first = e.people.as_slice() == std::slice::from_ref(who) && opened.owner.as_ref() == Some(who);
        if !first || opened.opener != e.caller || opened.environment != e.environment || e.rights.is_empty() {
            return Err(malformed("break-glass that somebody else asked for than opens its task"));
        }
        self.free_for_glass(who, &e.caller, time)?;
        if let Some((other, _)) = self.break_glass_tasks.waiting(who, &e.caller, time) {
            let no = Refusal::new(
                Reason::AlreadyExists,
                format!("break-glass task {other} of {} waits for a second person", who.name()),
            );
            return Err(no.way_out(format!("end it: mayfly break-glass close {other}")));
        }
        if self.break_glass_tasks.open(time) >= limits::BREAK_GLASS {
            return Err(Refusal::limit("break_glass", limits::BREAK_GLASS as u64, std::time::Duration::from_secs(60)));
        }
        pending.break_glass = true;
        Ok(())
    }

    /// A person in another break-glass task, or in one that was not reviewed, can neither open nor join one.
    fn free_for_glass(&self, who: &Principal, caller: &str, time: Millis) -> Verdict {
        match self.break_glass_tasks.blocks(who, caller) {
            Some((other, break_glass)) => Err(blocked_by(who, other, break_glass, time)),
            None => Ok(()),
        }
    }

    fn may_join(
        &self,
        id: &TaskId,
        break_glass: &BreakGlassTask,
        (e, who): (&BreakGlassStepTaken, &Principal),
        revision: Seq,
        time: Millis,
    ) -> Verdict {
        let Some(first) = break_glass.people.first() else { return Err(none(id)) };
        if break_glass.joined() {
            return Err(Refusal::new(Reason::AlreadyExists, format!("break-glass task {id} already has its two people")));
        }
        if break_glass.over(time) || self.tasks.get(id).is_none_or(|t| t.closed.is_some()) {
            return Err(Refusal::new(Reason::TaskNotActive, format!("break-glass task {id} is over: nobody joined in time")));
        }
        if e.people.get(1) != Some(who) || e.caller.is_empty() {
            return Err(malformed("somebody who joins in another one's name"));
        }
        if break_glass.is_of(who, &e.caller) {
            let no = Refusal::new(
                Reason::NotYours,
                format!("{} opened break-glass task {id}: another person has to join", who.name()),
            );
            return Err(no.by("two people"));
        }
        for (who, caller) in [(&first.who, &*first.caller), (who, &*e.caller)] {
            self.free_for_glass(who, caller, time)?;
        }
        if let Some(ancestor) = CredentialId::from_slice(&e.ancestor) {
            self.evidence_alive(&ancestor, time)?;
        }
        if let Some((_, hit)) = self.tasks.get(id).and_then(|task| self.revoked_by(task)) {
            return Err(refused_by(&hit, &format!("task {id}")));
        }
        let domain = trust_domain_of(&e.caller);
        let mut facts = Facts {
            revision,
            tasks: vec![*id],
            identities: vec![(domain, &e.caller), (&who.issuer, &who.sub)],
            environment: &e.environment,
            policy: e.policy_version,
            svid: e.svid.as_ref().map(|s| svid_facts(domain, s)),
            ..Facts::default()
        };
        facts.credentials.extend(CredentialId::from_slice(&e.ancestor));
        match self.rules.blocks(&facts) {
            Some(hit) => Err(refused_by(&hit, "joining break-glass")),
            None => Ok(()),
        }
    }

    fn may_review(
        &self,
        id: &TaskId,
        break_glass: &BreakGlassTask,
        (e, who): (&BreakGlassStepTaken, &Principal),
        revision: Seq,
        time: Millis,
    ) -> Verdict {
        if !break_glass.joined() {
            let what = format!("break-glass task {id} never had its two people: there is nothing to review");
            return Err(Refusal::new(Reason::TaskNotActive, what));
        }
        if !break_glass.over(time) {
            return Err(Refusal::new(
                Reason::TaskNotActive,
                format!("break-glass task {id} has not ended yet: it can be reviewed only afterwards"),
            ));
        }
        if break_glass.review.is_some() {
            return Err(Refusal::new(Reason::AlreadyExists, format!("break-glass task {id} was reviewed already")));
        }
        if e.reviewer.as_ref() != Some(who) || e.text.is_empty() || e.people.get(1) != break_glass.people.get(1).map(|p| &p.who) {
            return Err(malformed("a review in another one's name, of other people, or without a word"));
        }
        if break_glass.is_of(who, &e.caller) {
            let what = format!("{} acted in break-glass task {id}: a third person reviews it", who.name());
            return Err(Refusal::new(Reason::NotYours, what).by("a third person"));
        }
        let mut facts = Facts { revision, environment: &e.environment, policy: e.policy_version, ..Facts::default() };
        facts.identities = vec![(trust_domain_of(&e.caller), &e.caller), (&who.issuer, &who.sub)];
        match self.rules.blocks(&facts) {
            Some(hit) => Err(refused_by(&hit, "reviewing break-glass")),
            None => Ok(()),
        }
    }
}

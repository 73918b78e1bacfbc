//! Verdicts on authorizations of actions, and on reports of uses.

use super::super::{Issuance, LiveCredential, State, Verdict, facts_of};
use super::issue::in_break_glass;
use super::{GroupEffects, malformed, refused_by};
use crate::record::{ActionAuthorized, ApprovalKind, CredentialIssued, USE_OUTCOMES, UsesReported};
use crate::revocation::{Facts, TargetKinds};
use mayfly_base::limits;
use mayfly_base::refusal::{Reason, Refusal};
use mayfly_verify::seq::{CredentialId, Millis, Seq};

impl State {
    /// The verdict on an authorization: that of an issuance, with nothing issued.
    pub(super) fn may_authorize<'a>(
        &'a self,
        e: &'a ActionAuthorized,
        revision: Seq,
        time: Millis,
        pending: &mut GroupEffects<'a>,
    ) -> Verdict {
        let decided = e.decided.as_deref().ok_or_else(|| malformed("an authorization of nothing"))?;
        if !decided.credential.is_empty() || !decided.key.is_empty() || !decided.lease.is_empty() {
            return Err(malformed("an authorization that issues something"));
        }
        if e.tool.len() > limits::NAME_BYTES || e.tool != decided.tool || e.arguments != decided.arguments {
            return Err(malformed("an authorization of another tool or other arguments than were decided"));
        }
        self.timely(decided.issued_at, revision, time)?;
        self.version_in_force(&decided.environment, decided.policy_version)?;
        self.registration_in_force(decided)?;
        let as_issued = Issuance::whole(decided);
        let approved = self.approved(as_issued, ApprovalKind::Action, revision, time, pending)?;
        let rests_on = approved.map_or(revision, |approved| approved.min(revision));
        self.rules_known_since(rests_on)?;
        self.ancestors_alive(decided, time)?;
        let task = self.active_task(&decided.task, time)?;
        if *task.terms.environment != *decided.environment {
            return Err(Refusal::new(Reason::EnvironmentWall, "task and upstream belong to different environments"));
        }
        in_break_glass(decided, task.terms.break_glass, || task.admits(&decided.caller))?;
        let end = Millis(decided.expires_at).min(task.deadline).min(time.plus(limits::AUTHORIZATION_MS));
        if e.good_until <= time.0 || Millis(e.good_until) > end.plus(limits::CLOCK_SKEW_MS) {
            return Err(Refusal::new(Reason::NoLifeLeft, "the expiry of the authorization is not within its bounds"));
        }
        let mut facts = facts_of(as_issued, rests_on, &task.terms.path, TargetKinds::ALL);
        facts.identities.extend(task.terms.owners.iter().map(|o| (o.issuer.as_str(), o.sub.as_str())));
        let mut hit = self.rules.blocks(&facts);
        if !e.credential.is_empty() {
            let live = self.shown_for(e, decided, time)?;
            // Only the presented credential itself has the facts of the caller it was issued for and of its ancestors.
            hit = hit.or_else(|| self.rules.blocks(&Facts { revision: rests_on, ..live.own_facts(task) }));
        }
        match hit {
            Some(hit) => Err(refused_by(&hit, "authorizing")),
            None => Ok(()),
        }
    }

    /// The presented credential: valid, and of the same caller, upstream and task.
    fn shown_for(&self, e: &ActionAuthorized, decided: &CredentialIssued, time: Millis) -> Result<LiveCredential<'_>, Refusal> {
        let id = CredentialId::from_slice(&e.credential).ok_or_else(|| malformed("a credential id that is not 16 bytes"))?;
        self.evidence_alive(&id, time)?;
        let task =
            |live: &LiveCredential<'_>| self.tasks.at(live.task()).is_some_and(|t| t.terms.id.as_bytes()[..] == *decided.task);
        let own = |l: &LiveCredential<'_>| l.caller() == decided.caller && l.upstream() == decided.upstream && task(l);
        let live = self.credentials.get(&id).filter(own);
        live.ok_or_else(|| malformed("an authorization with a credential of another caller, upstream or task"))
    }

    /// Whether an authorization is still valid; checked again when it is asked for once more.
    pub fn still_authorized(&self, e: &ActionAuthorized, revision: Seq, time: Millis) -> Verdict {
        let decided = e.decided.as_deref().ok_or_else(|| malformed("an authorization of nothing"))?;
        if Millis(e.good_until) <= time.max(self.time) {
            return Err(Refusal::new(Reason::NoLifeLeft, "the time by which the authorized action had to begin has passed"));
        }
        let task = self.active_task(&decided.task, time)?;
        if !e.credential.is_empty() {
            self.shown_for(e, decided, time)?;
        }
        match self.rules.covers(&self.facts_of_record(decided, revision, &task.terms.path)) {
            Some(hit) => Err(refused_by(&hit, "what was authorized")),
            None => Ok(()),
        }
    }
}

/// Whether a use report is well-formed.
pub(super) fn used(e: &UsesReported) -> Verdict {
    let known = USE_OUTCOMES.contains(&e.outcome.as_str()) && e.count > 0 && e.tool.len() <= limits::NAME_BYTES;
    match known && e.credential.len() == 16 && e.task.len() == 16 {
        true => Ok(()),
        false => Err(malformed("uses of nothing known, or none")),
    }
}

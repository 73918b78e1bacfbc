//! Checks for exchanges on behalf of a subject: the checks on the subject and its token that are independent of policy, and the attributes
//! that policy reads of them.

use std::time::Duration;

use super::task_context::TaskContext;
use super::{EnvironmentPolicy, denied as refused};
use crate::exchange_request::ExchangeRequest;
use crate::question::SubjectFacts;
use crate::subject::{FIELD, VerifiedSubject};
use mayfly_base::limits;
use mayfly_base::refusal::{DeniedSubject, Error, Reason, Refusal};
use mayfly_identity::caller::Caller;
use mayfly_identity::spiffe_id::SpiffeId;
use mayfly_ledger::record::{Ancestor, CredentialIssued, Principal, SubjectClaims, TaskOpened};
use mayfly_ledger::revocation::Facts;
use mayfly_ledger::state::trust_domain_of;
use mayfly_ledger::upstream::registry::Upstream;
use mayfly_verify::seq::CredentialId;

/// The attributes of the subject and the actors that policy reads.
pub(super) struct SubjectAttributes<'a> {
    subject: Option<&'a VerifiedSubject>,
    before: Vec<String>,
}

impl<'a> SubjectAttributes<'a> {
    /// A subject equal to the caller counts as no subject.
    pub fn of(subject: Option<&'a VerifiedSubject>, caller: &Caller) -> SubjectAttributes<'a> {
        let subject = subject.filter(|s| !s.is(caller.id()));
        SubjectAttributes { subject, before: subject.map_or_else(Vec::new, |s| s.before().iter().map(Principal::name).collect()) }
    }

    /// The actor chain and the groups.
    pub fn texts(&self) -> (Vec<&str>, Vec<&'a str>) {
        let groups = self.subject.map_or_else(Vec::new, |s| s.claims().groups.iter().map(String::as_str).collect());
        (self.before.iter().map(String::as_str).collect(), groups)
    }

    /// The subject's attributes.
    pub fn facts<'b>(&'b self, groups: &'b [&'b str]) -> Option<SubjectFacts<'b>> {
        let who = self.subject?.identity();
        Some(SubjectFacts { issuer: &who.issuer, id: &who.sub, groups })
    }
}

/// Checks the environment wall for the subject, the bounds on chains, and that a presented credential is not exceeded.
pub(super) fn check_subject(
    subject: &VerifiedSubject,
    caller: &Caller,
    want: &ExchangeRequest,
    policy: &EnvironmentPolicy,
    environment: &str,
) -> Result<(), Error> {
    in_environment(subject, policy, environment)?;
    bounded(subject, caller)?;
    let Some(shown) = subject.shown() else { return Ok(()) };
    // A credential that was presented for one upstream and one tool justifies nothing beyond them.
    let wider = |what: String| Err(refused(Reason::WiderThanParent, format!("credential {} {what}", shown.id)));
    if !shown.tool.is_empty() && shown.tool != want.tool {
        return wider(format!("is for tool {}, and this is not", shown.tool));
    }
    if shown.upstream.0 == *want.upstream
        && let Some(scope) = want.scopes.iter().find(|scope| !shown.upstream.1.contains(scope))
    {
        return wider(format!("has no scope {scope} of {}", want.upstream));
    }
    Ok(())
}

/// The environment wall for a subject.
pub(super) fn in_environment(subject: &VerifiedSubject, policy: &EnvironmentPolicy, environment: &str) -> Result<(), Error> {
    let who = subject.identity();
    let by_roles = match trust_domain_of(&who.sub) {
        // For a workload the roles file decides, as for a caller.
        domain if !domain.is_empty() => {
            SpiffeId::parse(&who.sub).is_ok_and(|id| policy.set.environment_of(&id) == Some(environment))
        }
        // For other subjects the issuer's configuration decides.
        _ => subject.acts_in(environment).is_some(),
    };
    if by_roles && subject.acts_in(environment) != Some(false) {
        return Ok(());
    }
    let what =
        format!("{FIELD}: {} does not belong to {environment}, or its token is for something in another environment", who.name());
    Err(refused(Reason::EnvironmentWall, what))
}

/// Bounds the number of actors and ancestors, since revocation rules are matched against each of them.
pub(super) fn bounded(subject: &VerifiedSubject, caller: &Caller) -> Result<(), Error> {
    let over = |name, most: usize| Err(Error::Refusal(Refusal::limit(name, most as u64, Duration::ZERO)));
    if subject.actors(caller.id()).len() > limits::ACT_CHAIN {
        return over("act_chain", limits::ACT_CHAIN);
    }
    match subject.shown() {
        Some(shown) if shown.lineage.len() > limits::ANCESTORS => over("ancestors", limits::ANCESTORS),
        // An issuance record names one presented credential, and the fold checks that one.
        Some(_) if caller.ancestor().is_some() => Err(Error::Refusal(Refusal::field(
            FIELD,
            "is a mayfly credential, and so is the caller's own SVID: only one mayfly credential can be presented in a request",
        ))),
        _ => Ok(()),
    }
}

/// Nothing is issued on behalf of a subject that the subject has no right to itself.
pub(super) fn within_rights(subject: &VerifiedSubject, upstream: &Upstream, scopes: &[String]) -> Result<(), Error> {
    let name = &upstream.name;
    let what = match scopes.iter().find(|scope| !subject.may(name, scope)) {
        Some(scope) => format!("scope {scope} of {name}"),
        None if !subject.may_any(name) => format!("anything of {name}"),
        None => return Ok(()),
    };
    let no = Refusal::new(Reason::WiderThanParent, format!("{} has no right to {what}", subject.identity().name()));
    Err(Error::Refusal(
        no.by("the subject's rights")
            .way_out("the subject's issuer grants the right; the configuration names the claim that holds it"),
    ))
}

/// A presented mayfly credential is valid only within its own task and the tasks below it.
pub(super) fn within_lineage(subject: &VerifiedSubject, place: &TaskContext) -> Result<(), Error> {
    match subject.shown() {
        Some(shown) if !place.tasks().contains(&shown.task) => {
            let what = format!("{FIELD}: credential {} is of task {}, and {} is not under that", shown.id, shown.task, place.id);
            Err(refused(Reason::OutsideTask, what))
        }
        _ => Ok(()),
    }
}

/// Adds the facts about a subject and its token that revocation rules match.
pub(super) fn add_facts<'a>(facts: &mut Facts<'a>, subject: Option<&'a VerifiedSubject>) {
    let Some(subject) = subject else { return };
    let chain = std::iter::once(subject.identity()).chain(subject.before());
    facts.identities.extend(chain.map(|i| (i.issuer.as_str(), i.sub.as_str())));
    facts.subject_token = Some((&subject.token().issuer, &subject.token().id));
    for ancestor in subject.shown().iter().flat_map(|shown| &shown.lineage) {
        facts.credentials.extend(CredentialId::from_slice(&ancestor.credential));
        facts.identities.push((trust_domain_of(&ancestor.caller), &ancestor.caller));
    }
}

fn claims(subject: &VerifiedSubject) -> Option<SubjectClaims> {
    let claims = subject.claims();
    (!claims.groups.is_empty() || !claims.scopes.is_empty()).then(|| claims.clone())
}

/// Writes the subject into an issuance record.
pub(super) fn write(draft: &mut CredentialIssued, caller: &Caller, subject: Option<&VerifiedSubject>, place: &TaskContext) {
    let Some(subject) = subject else {
        draft.subject_token = place.token().cloned();
        return;
    };
    draft.subject = (!subject.is(caller.id())).then(|| subject.identity().clone());
    draft.actors = subject.actors(caller.id());
    draft.subject_token = Some(subject.token().clone());
    draft.subject_claims = claims(subject);
    draft.renewable_until = draft.renewable_until.min(subject.token().expires_at);
    if let Some(shown) = subject.shown() {
        draft.ancestors = lineage(&draft.ancestors, &shown.lineage);
        draft.shown = shown.id.as_bytes().to_vec();
    }
}

fn lineage(own: &[Ancestor], shown: &[Ancestor]) -> Vec<Ancestor> {
    let mut all = own.to_vec();
    for one in shown {
        if !all.contains(one) {
            all.push(one.clone());
        }
    }
    all
}

/// Writes the subject into the record of a task that is opened. The subject owns the task.
pub(super) fn write_opened(opened: &mut TaskOpened, caller: &Caller, subject: &VerifiedSubject) {
    opened.actors = subject.actors(caller.id());
    opened.subject_token = Some(subject.token().clone());
    opened.subject_claims = claims(subject);
    if let Some(shown) = subject.shown() {
        opened.ancestor = shown.id.as_bytes().to_vec();
        opened.ancestors = shown.lineage.clone();
    }
}

/// The subject in the audit record of a refusal.
pub(super) fn denied(subject: &VerifiedSubject, caller: &Caller) -> DeniedSubject {
    let pair = |i: &Principal| (i.issuer.clone(), i.sub.clone());
    DeniedSubject {
        subject: pair(subject.identity()),
        actors: subject.actors(caller.id()).iter().map(pair).collect(),
        groups: subject.claims().groups.clone(),
        scopes: subject.claims().scopes.clone(),
    }
}

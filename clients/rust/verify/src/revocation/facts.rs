//! The facts about a credential or grant that revocation rules match. Every target can be matched with these facts.

use super::target_kind::{TargetKind, TargetKinds};
use crate::seq::{CredentialId, Seq, TaskId};

/// The SVID that a credential or grant depends on.
#[derive(Clone, Copy, Debug)]
pub struct SvidFacts<'a> {
    /// The SVID's trust domain.
    pub trust_domain: &'a str,
    /// SHA-256 of the trust anchor's certificate.
    pub anchor: &'a [u8],
    /// SHA-256 of the key that signed the SVID.
    pub issuing_key: &'a [u8],
    /// The SVID's serial number.
    pub serial: &'a [u8],
}

/// A credential or grant as revocation rules see it. A fact that does not apply is empty and matches nothing.
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    /// The sequence number of the view of the decision. Revocations up to it were seen by the decision.
    pub revision: Seq,
    /// The ids of the credential and of its ancestors.
    pub credentials: Vec<CredentialId>,
    /// The task path, root first.
    pub tasks: Vec<TaskId>,
    /// (issuer, sub) of caller, subject, actors, task owners and the ancestors' callers.
    pub identities: Vec<(&'a str, &'a str)>,
    /// The upstream.
    pub upstream: &'a str,
    /// The granted scopes.
    pub scopes: Vec<&'a str>,
    /// The binding.
    pub binding: &'a str,
    /// The tool.
    pub tool: &'a str,
    /// The environment.
    pub environment: &'a str,
    /// The version of the environment's policy set.
    pub policy: u64,
    /// The `kid` of the signing key.
    pub key: &'a str,
    /// The SVID that the grant depends on.
    pub svid: Option<SvidFacts<'a>>,
    /// The subject token that the grant depends on: (issuer, id).
    pub subject_token: Option<(&'a str, &'a str)>,
    /// The other grants that this one depends on: the openings of the tasks on its path, and its ancestors. A rule that covers one of them
    /// covers this grant too, at this grant's revision. That revision is never lower than theirs: a grant that depends on something revoked
    /// before its decision is not issued.
    pub rests_on: Vec<Facts<'a>>,
}

/// A question to the rules. Targets and facts are matched by equal probes, so both sides use the same form.
#[derive(Clone, Copy, Debug, Hash)]
pub enum Probe<'a> {
    Credential(CredentialId),
    Task(TaskId),
    /// A sort whose targets are one name.
    Name(TargetKind, &'a str),
    /// A sort whose targets are two names.
    Pair(TargetKind, &'a str, &'a str),
    TrustAnchor(&'a [u8]),
    /// An environment and the version of its policy set.
    Policy(&'a str, u64),
    Svid(&'a str, &'a [u8], &'a [u8]),
    Everything,
}

impl Probe<'_> {
    /// The sort of the targets that match.
    pub const fn sort(&self) -> TargetKind {
        match self {
            Probe::Credential(_) => TargetKind::Credential,
            Probe::Task(_) => TargetKind::Task,
            Probe::Name(sort, _) | Probe::Pair(sort, ..) => *sort,
            Probe::TrustAnchor(_) => TargetKind::TrustAnchor,
            Probe::Policy(..) => TargetKind::PolicyBelow,
            Probe::Svid(..) => TargetKind::Svid,
            Probe::Everything => TargetKind::Everything,
        }
    }
}

impl<'a> Facts<'a> {
    /// Asks every question of these sorts that the facts give, until `ask` returns `true`. The rule of the signing key is asked first.
    pub fn each(&self, of: TargetKinds, ask: &mut dyn FnMut(Probe<'a>) -> bool) -> bool {
        if of.is_empty() {
            return false;
        }
        let mut ask = |probe: Probe<'a>| of.has(probe.sort()) && ask(probe);
        self.own(of, &mut ask) || self.rests_on.iter().any(|ground| ground.own(of, &mut ask))
    }

    /// The questions of this grant alone, without those that it depends on.
    fn own(&self, of: TargetKinds, ask: &mut dyn FnMut(Probe<'a>) -> bool) -> bool {
        (!self.key.is_empty() && ask(Probe::Name(TargetKind::SigningKey, self.key)))
            || ask(Probe::Everything)
            || self.credentials.iter().any(|id| ask(Probe::Credential(*id)))
            || self.tasks.iter().any(|id| ask(Probe::Task(*id)))
            || (of.any_of(TargetKinds::OF_IDENTITIES) && self.different().any(|(issuer, sub)| identity(issuer, sub, ask)))
            || self.svid.is_some_and(|s| {
                ask(Probe::TrustAnchor(s.anchor))
                    || ask(Probe::Name(TargetKind::TrustDomain, s.trust_domain))
                    || ask(Probe::Svid(s.trust_domain, s.issuing_key, s.serial))
            })
            || self.subject_token.is_some_and(|(issuer, id)| ask(Probe::Pair(TargetKind::SubjectToken, issuer, id)))
            || self.resource(ask)
    }

    /// The distinct identities: the caller is often also the subject and an owner. With very many identities some may be repeated.
    fn different(&self) -> impl Iterator<Item = &(&'a str, &'a str)> {
        const LOOK: usize = 8;
        let known = |(n, id): &(usize, &(&str, &str))| self.identities.iter().take(LOOK.min(*n)).any(|other| other == *id);
        self.identities.iter().enumerate().filter(move |one| !known(one)).map(|(_, id)| id)
    }

    fn resource(&self, ask: &mut dyn FnMut(Probe<'a>) -> bool) -> bool {
        (!self.upstream.is_empty()
            && (ask(Probe::Name(TargetKind::Upstream, self.upstream))
                || self.scopes.iter().any(|s| ask(Probe::Pair(TargetKind::UpstreamScope, self.upstream, s)))))
            || (!self.binding.is_empty() && ask(Probe::Name(TargetKind::Binding, self.binding)))
            || (!self.tool.is_empty() && ask(Probe::Name(TargetKind::Tool, self.tool)))
            || (!self.environment.is_empty()
                && (ask(Probe::Name(TargetKind::Environment, self.environment))
                    || ask(Probe::Policy(self.environment, self.policy))))
    }
}

/// A SPIFFE ID also matches caller, prefix and trust domain rules. A prefix matches whole segments only.
fn identity<'a>(issuer: &'a str, sub: &'a str, ask: &mut dyn FnMut(Probe<'a>) -> bool) -> bool {
    if !issuer.is_empty() && ask(Probe::Pair(TargetKind::Subject, issuer, sub)) {
        return true;
    }
    const SCHEME: &str = "spiffe://";
    let Some(rest) = sub.strip_prefix(SCHEME) else { return false };
    let domain_end = rest.find('/').unwrap_or(rest.len());
    ask(Probe::Name(TargetKind::TrustDomain, &rest[..domain_end]))
        || ask(Probe::Name(TargetKind::Caller, sub))
        || rest.match_indices('/').any(|(at, _)| ask(Probe::Name(TargetKind::Prefix, &sub[..SCHEME.len() + at])))
        || ask(Probe::Name(TargetKind::Prefix, sub))
}

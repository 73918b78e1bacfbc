//! What is known of a credential or a grant, as far as a rule can ask. Every target is answerable from these.

use super::sort::{Sort, Sorts};
use crate::seq::{CredentialId, Seq, TaskId};

/// The SVID that something rests on.
#[derive(Clone, Copy, Debug)]
pub struct SvidFacts<'a> {
    /// Its trust domain.
    pub trust_domain: &'a str,
    /// SHA-256 of the trust anchor's certificate.
    pub anchor: &'a [u8],
    /// SHA-256 of the key that signed it.
    pub issuing_key: &'a [u8],
    /// Its serial.
    pub serial: &'a [u8],
}

/// A credential or grant, seen by the rules. What there is none of is empty and matches nothing.
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    /// Everything up to here was seen by the decision.
    pub revision: Seq,
    /// Its own id and its ancestors'.
    pub credentials: Vec<CredentialId>,
    /// The task path, root first.
    pub tasks: Vec<TaskId>,
    /// (issuer, sub) of caller, subject, actors, task owners, ancestors' callers.
    pub identities: Vec<(&'a str, &'a str)>,
    /// The upstream.
    pub upstream: &'a str,
    /// The scopes given.
    pub scopes: Vec<&'a str>,
    /// The binding.
    pub binding: &'a str,
    /// The tool.
    pub tool: &'a str,
    /// The environment.
    pub environment: &'a str,
    /// The version of the environment's policy set.
    pub policy: u64,
    /// The key that signed it, by `kid`.
    pub key: &'a str,
    /// The SVID that it rests on.
    pub svid: Option<SvidFacts<'a>>,
    /// The subject token that it rests on: (issuer, id).
    pub subject_token: Option<(&'a str, &'a str)>,
    /// The other grants that it rests on: the openings of the tasks on its path, and its ancestors. Whatever ends one of them ends this, at
    /// this revision, which is never lower than theirs: a grant that rests on what was revoked before its decision is not issued.
    pub rests_on: Vec<Facts<'a>>,
}

/// One question to the rules: what a target has to be to answer it. Written alike for both, so that they cannot fall apart.
#[derive(Clone, Copy, Debug, Hash)]
pub enum Probe<'a> {
    Credential(CredentialId),
    Task(TaskId),
    /// Of a sort whose targets are one name.
    Name(Sort, &'a str),
    /// Of a sort whose targets are two.
    Pair(Sort, &'a str, &'a str),
    TrustAnchor(&'a [u8]),
    /// An environment, and the version of its policy set.
    Policy(&'a str, u64),
    Svid(&'a str, &'a [u8], &'a [u8]),
    Everything,
}

impl Probe<'_> {
    /// The sort of the targets that answer it.
    pub const fn sort(&self) -> Sort {
        match self {
            Probe::Credential(_) => Sort::Credential,
            Probe::Task(_) => Sort::Task,
            Probe::Name(sort, _) | Probe::Pair(sort, ..) => *sort,
            Probe::TrustAnchor(_) => Sort::TrustAnchor,
            Probe::Policy(..) => Sort::PolicyBelow,
            Probe::Svid(..) => Sort::Svid,
            Probe::Everything => Sort::Everything,
        }
    }
}

impl<'a> Facts<'a> {
    /// Asks every question of these sorts that the facts answer, until `ask` says stop by `true`. Its own key rule comes first.
    pub fn each(&self, of: Sorts, ask: &mut dyn FnMut(Probe<'a>) -> bool) -> bool {
        if of.is_empty() {
            return false;
        }
        let mut ask = |probe: Probe<'a>| of.has(probe.sort()) && ask(probe);
        self.own(of, &mut ask) || self.rests_on.iter().any(|ground| ground.own(of, &mut ask))
    }

    /// The same without what it rests on.
    fn own(&self, of: Sorts, ask: &mut dyn FnMut(Probe<'a>) -> bool) -> bool {
        (!self.key.is_empty() && ask(Probe::Name(Sort::SigningKey, self.key)))
            || ask(Probe::Everything)
            || self.credentials.iter().any(|id| ask(Probe::Credential(*id)))
            || self.tasks.iter().any(|id| ask(Probe::Task(*id)))
            || (of.any_of(Sorts::OF_IDENTITIES) && self.different().any(|(issuer, sub)| identity(issuer, sub, ask)))
            || self.svid.is_some_and(|s| {
                ask(Probe::TrustAnchor(s.anchor))
                    || ask(Probe::Name(Sort::TrustDomain, s.trust_domain))
                    || ask(Probe::Svid(s.trust_domain, s.issuing_key, s.serial))
            })
            || self.subject_token.is_some_and(|(issuer, id)| ask(Probe::Pair(Sort::SubjectToken, issuer, id)))
            || self.resource(ask)
    }

    /// The identities, each once: the caller is often the subject and an owner as well. Of very many some may come again.
    fn different(&self) -> impl Iterator<Item = &(&'a str, &'a str)> {
        const LOOK: usize = 8;
        let known = |(n, id): &(usize, &(&str, &str))| self.identities.iter().take(LOOK.min(*n)).any(|other| other == *id);
        self.identities.iter().enumerate().filter(move |one| !known(one)).map(|(_, id)| id)
    }

    fn resource(&self, ask: &mut dyn FnMut(Probe<'a>) -> bool) -> bool {
        (!self.upstream.is_empty()
            && (ask(Probe::Name(Sort::Upstream, self.upstream))
                || self.scopes.iter().any(|s| ask(Probe::Pair(Sort::UpstreamScope, self.upstream, s)))))
            || (!self.binding.is_empty() && ask(Probe::Name(Sort::Binding, self.binding)))
            || (!self.tool.is_empty() && ask(Probe::Name(Sort::Tool, self.tool)))
            || (!self.environment.is_empty()
                && (ask(Probe::Name(Sort::Environment, self.environment)) || ask(Probe::Policy(self.environment, self.policy))))
    }
}

/// A SPIFFE ID answers caller, prefix and trust domain rules too; only whole segments match a prefix.
fn identity<'a>(issuer: &'a str, sub: &'a str, ask: &mut dyn FnMut(Probe<'a>) -> bool) -> bool {
    if !issuer.is_empty() && ask(Probe::Pair(Sort::Subject, issuer, sub)) {
        return true;
    }
    const SCHEME: &str = "spiffe://";
    let Some(rest) = sub.strip_prefix(SCHEME) else { return false };
    let domain_end = rest.find('/').unwrap_or(rest.len());
    ask(Probe::Name(Sort::TrustDomain, &rest[..domain_end]))
        || ask(Probe::Name(Sort::Caller, sub))
        || rest.match_indices('/').any(|(at, _)| ask(Probe::Name(Sort::Prefix, &sub[..SCHEME.len() + at])))
        || ask(Probe::Name(Sort::Prefix, sub))
}

//! The subject that a caller acts on behalf of (RFC 8693), and the bounds that the subject imposes.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::exchange_request::ExchangeRequest;
use mayfly_base::limits;
use mayfly_base::refusal::Refusal;
use mayfly_identity::oidc::Issuer;
use mayfly_identity::spiffe_id::SpiffeId;
use mayfly_ledger::record::{Ancestor, Principal, SubjectClaims, TokenEvidence};
use mayfly_proto::mayfly::v1 as pb;
use mayfly_verify::seq::{CredentialId, TaskId};

/// The request field of the subject token, for refusals.
pub const FIELD: &str = "subject_token";

/// The type of a subject token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SubjectTokenKind {
    /// A JWT-SVID.
    JwtSvid,
    /// A token of a configured OIDC issuer.
    Oidc,
    /// A credential that mayfly issued.
    Mayfly,
}

/// A subject token as received; nothing about it is verified yet.
#[derive(Clone, PartialEq, Eq)]
pub struct UnverifiedToken {
    /// The type that the sender declares.
    pub kind: SubjectTokenKind,
    /// The token.
    pub token: Zeroizing<String>,
}

impl std::fmt::Debug for UnverifiedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnverifiedToken").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl UnverifiedToken {
    /// Checks the form of the token and moves it out of the message.
    pub fn take(sent: Option<pb::SubjectToken>) -> Result<Option<UnverifiedToken>, Refusal> {
        let Some(sent) = sent else { return Ok(None) };
        let token = Zeroizing::new(sent.token);
        let kind = match pb::SubjectTokenType::try_from(sent.r#type) {
            Ok(pb::SubjectTokenType::JwtSvid) => SubjectTokenKind::JwtSvid,
            Ok(pb::SubjectTokenType::Oidc) => SubjectTokenKind::Oidc,
            Ok(pb::SubjectTokenType::Mayfly) => SubjectTokenKind::Mayfly,
            _ => return Err(Refusal::field(FIELD, "has no type that this version knows: JWT_SVID, OIDC or MAYFLY")),
        };
        let most = if kind == SubjectTokenKind::Mayfly { limits::TOKEN_BYTES } else { limits::OIDC_TOKEN_BYTES };
        match token.len() {
            0 => Err(Refusal::field(FIELD, "is empty: give the token, or leave the field out")),
            n if n > most => Err(Refusal::field(FIELD, format!("{n} bytes, at most {most}"))),
            _ => Ok(Some(UnverifiedToken { kind, token })),
        }
    }
}

/// The subject of an exchange, before or after verification.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RequestedSubject {
    /// A token that is not verified yet.
    Sent(UnverifiedToken),
    /// A verified subject.
    Known(Arc<VerifiedSubject>),
}

impl RequestedSubject {
    /// The subject, once it is verified.
    pub fn subject(&self) -> Option<&VerifiedSubject> {
        match self {
            RequestedSubject::Sent(_) => None,
            RequestedSubject::Known(subject) => Some(subject),
        }
    }
}

/// A mayfly credential that was presented as a subject token. It becomes an ancestor of the issued credential.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubjectCredential {
    /// The credential's id.
    pub id: CredentialId,
    /// The credential and its ancestors, the first credential of the renewal chain first.
    pub lineage: Vec<Ancestor>,
    /// The credential's task.
    pub task: TaskId,
    /// The credential's environment.
    pub environment: String,
    /// The upstream that the credential is for, and its scopes there.
    pub upstream: (String, Vec<String>),
    /// The tool that the credential is restricted to; empty for any.
    pub tool: String,
}

/// The content of a subject. Only the code that verifies subject tokens constructs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubjectParts {
    pub identity: Principal,
    /// The actors before the caller, the most recent first.
    pub before: Vec<Principal>,
    pub token: TokenEvidence,
    pub claims: SubjectClaims,
    /// The issuer whose configuration bounds the subject, where the token came from an OIDC issuer.
    pub issuer: Option<Arc<Issuer>>,
    /// The environment of the upstream that the token's audience names; `None` where the audience is mayfly itself.
    pub environment: Option<String>,
    pub shown: Option<SubjectCredential>,
}

/// A verified subject that a caller acts on behalf of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifiedSubject {
    parts: SubjectParts,
}

impl VerifiedSubject {
    /// The subject of a token that was verified. Only `authority::exchange::subjects`, which verifies the tokens of all kinds, calls this;
    /// a rule in `tests/tidy.rs` holds that.
    pub fn new(parts: SubjectParts) -> VerifiedSubject {
        VerifiedSubject { parts }
    }

    /// The subject's identity.
    pub fn identity(&self) -> &Principal {
        &self.parts.identity
    }

    /// The token, as records refer to it.
    pub fn token(&self) -> &TokenEvidence {
        &self.parts.token
    }

    /// The claims about the subject's rights that policy and bounds use.
    pub fn claims(&self) -> &SubjectClaims {
        &self.parts.claims
    }

    /// The mayfly credential that was presented as the token, if it was one.
    pub fn shown(&self) -> Option<&SubjectCredential> {
        self.parts.shown.as_ref()
    }

    /// Whether the subject is the caller itself.
    pub fn is(&self, caller: &SpiffeId) -> bool {
        self.parts.identity == Principal::workload(caller)
    }

    /// The actors, the caller outermost. Empty where the subject acts for itself.
    pub fn actors(&self, caller: &SpiffeId) -> Vec<Principal> {
        match self.is(caller) {
            true => Vec::new(),
            false => std::iter::once(Principal::workload(caller)).chain(self.parts.before.iter().cloned()).collect(),
        }
    }

    /// The actors before the caller.
    pub fn before(&self) -> &[Principal] {
        &self.parts.before
    }

    /// Whether the subject may act in an environment, as far as the issuer's configuration, the token's audience and the presented
    /// credential restrict it. `None`: none of them restricts it.
    pub fn acts_in(&self, environment: &str) -> Option<bool> {
        let by_audience = self.parts.environment.as_ref().map(|own| own == environment);
        let by_issuer = self.parts.issuer.as_ref().map(|issuer| issuer.acts_in(environment));
        let by_credential = self.parts.shown.as_ref().map(|shown| shown.environment == environment);
        [by_audience, by_issuer, by_credential].into_iter().flatten().reduce(|a, b| a && b)
    }

    /// Whether the subject has the right to a scope of an upstream. `true` where the issuer's configuration does not say where rights are
    /// found.
    pub fn may(&self, upstream: &str, scope: &str) -> bool {
        let claims = &self.parts.claims;
        let Some(issuer) = &self.parts.issuer else { return true };
        let by_scope = issuer.scopes_claim.is_none() || claims.scopes.iter().any(|own| own == scope);
        let given = |right: &mayfly_identity::oidc::GroupScopes| {
            right.upstream == upstream && right.scopes.iter().any(|s| s == scope) && claims.groups.contains(&right.group)
        };
        by_scope && (issuer.rights.is_empty() || issuer.rights.iter().any(given))
    }

    /// Whether the subject has a right to any scope of an upstream.
    pub fn may_any(&self, upstream: &str) -> bool {
        let Some(issuer) = &self.parts.issuer else { return true };
        let groups = &self.parts.claims.groups;
        issuer.rights.is_empty() || issuer.rights.iter().any(|r| r.upstream == upstream && groups.contains(&r.group))
    }
}

impl ExchangeRequest {
    /// The subject, once it is verified.
    pub fn subject(&self) -> Option<&VerifiedSubject> {
        self.behalf.as_ref()?.subject()
    }

    /// The subject token that is not verified yet.
    pub fn sent_token(&self) -> Option<&UnverifiedToken> {
        match self.behalf.as_deref() {
            Some(RequestedSubject::Sent(token)) => Some(token),
            _ => None,
        }
    }
}

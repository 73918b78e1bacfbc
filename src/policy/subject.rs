//! On whose behalf something is asked for, and what bounds that.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::wanted::Wanted;
use crate::identity::oidc::Issuer;
use crate::identity::spiffe_id::SpiffeId;
use crate::ledger::record::{Ancestor, Identity, SubjectClaims, TokenEvidence};
use crate::limits;
use crate::pb::mayfly::v1 as pb;
use crate::refusal::Refusal;
use crate::seq::{CredentialId, TaskId};

/// The request's field that all of this is about.
pub const FIELD: &str = "subject_token";

/// What a subject token is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenType {
    /// A JWT-SVID.
    JwtSvid,
    /// A token of a configured OIDC issuer.
    Oidc,
    /// A credential of ours.
    Mayfly,
}

/// A subject token as it was sent: nothing about it is checked yet.
#[derive(Clone, PartialEq, Eq)]
pub struct SentToken {
    /// What its sender says that it is.
    pub kind: TokenType,
    /// The token.
    pub token: Zeroizing<String>,
}

impl std::fmt::Debug for SentToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SentToken").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl SentToken {
    /// Checks the form. The token is taken out of the message.
    pub fn take(sent: Option<pb::SubjectToken>) -> Result<Option<SentToken>, Refusal> {
        let Some(sent) = sent else { return Ok(None) };
        let token = Zeroizing::new(sent.token);
        let kind = match pb::SubjectTokenType::try_from(sent.r#type) {
            Ok(pb::SubjectTokenType::JwtSvid) => TokenType::JwtSvid,
            Ok(pb::SubjectTokenType::Oidc) => TokenType::Oidc,
            Ok(pb::SubjectTokenType::Mayfly) => TokenType::Mayfly,
            _ => return Err(Refusal::field(FIELD, "has no type that this version knows: JWT_SVID, OIDC or MAYFLY")),
        };
        let most = if kind == TokenType::Mayfly { limits::TOKEN_BYTES } else { limits::OIDC_TOKEN_BYTES };
        match token.len() {
            0 => Err(Refusal::field(FIELD, "is empty: give the token, or leave the field out")),
            n if n > most => Err(Refusal::field(FIELD, format!("{n} bytes, at most {most}"))),
            _ => Ok(Some(SentToken { kind, token })),
        }
    }
}

/// On whose behalf, as an exchange has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Behalf {
    /// By a token that nobody has looked at yet.
    Sent(SentToken),
    /// By one that was found good.
    Known(Arc<Subject>),
}

impl Behalf {
    /// The subject, once it is known.
    pub fn subject(&self) -> Option<&Subject> {
        match self {
            Behalf::Sent(_) => None,
            Behalf::Known(subject) => Some(subject),
        }
    }
}

/// A credential of ours that was shown as a subject token: an ancestor of what comes of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    /// Its id.
    pub id: CredentialId,
    /// Itself, and what it rests on itself: the first of the line first.
    pub line: Vec<Ancestor>,
    /// Its task.
    pub task: TaskId,
    /// Its environment.
    pub environment: String,
    /// The upstream that it is for, and its scopes there.
    pub upstream: (String, Vec<String>),
    /// The tool that it serves for; empty for any.
    pub tool: String,
}

/// What a subject is made of: only the story that checks subject tokens puts it together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Parts {
    pub identity: Identity,
    /// Those who acted before the caller, the last of them first.
    pub before: Vec<Identity>,
    pub token: TokenEvidence,
    pub claims: SubjectClaims,
    /// The issuer whose section bounds it, where the subject is one of an OIDC issuer.
    pub issuer: Option<Arc<Issuer>>,
    /// The environment of the upstream that the token is for; `None` where it is for mayfly itself.
    pub environment: Option<String>,
    pub shown: Option<Shown>,
}

/// Somebody on whose behalf a caller asks, by a token that was found good.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subject {
    parts: Parts,
}

impl Subject {
    pub(crate) fn new(parts: Parts) -> Subject {
        Subject { parts }
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.parts.identity
    }

    /// The token, as records name it.
    pub fn token(&self) -> &TokenEvidence {
        &self.parts.token
    }

    /// What its token says of its rights, as far as anything reads it.
    pub fn claims(&self) -> &SubjectClaims {
        &self.parts.claims
    }

    /// The credential of ours that the token is, where it is one.
    pub fn shown(&self) -> Option<&Shown> {
        self.parts.shown.as_ref()
    }

    /// Whether it is the caller itself.
    pub fn is(&self, caller: &SpiffeId) -> bool {
        self.parts.identity == Identity::workload(caller)
    }

    /// The actors, the caller outermost. None where it acts for itself.
    pub fn actors(&self, caller: &SpiffeId) -> Vec<Identity> {
        match self.is(caller) {
            true => Vec::new(),
            false => std::iter::once(Identity::workload(caller)).chain(self.parts.before.iter().cloned()).collect(),
        }
    }

    /// Those who acted before the caller.
    pub fn before(&self) -> &[Identity] {
        &self.parts.before
    }

    /// Whether it may act in an environment, as far as its issuer and the audience of its token say. `None`: they say nothing.
    pub fn acts_in(&self, environment: &str) -> Option<bool> {
        let by_audience = self.parts.environment.as_ref().map(|own| own == environment);
        let by_issuer = self.parts.issuer.as_ref().map(|issuer| issuer.acts_in(environment));
        let by_credential = self.parts.shown.as_ref().map(|shown| shown.environment == environment);
        [by_audience, by_issuer, by_credential].into_iter().flatten().reduce(|a, b| a && b)
    }

    /// Whether the subject has the right to this scope of an upstream, as far as its issuer's section says where rights stand.
    pub fn may(&self, upstream: &str, scope: &str) -> bool {
        let claims = &self.parts.claims;
        let Some(issuer) = &self.parts.issuer else { return true };
        let by_scope = issuer.scopes_claim.is_none() || claims.scopes.iter().any(|own| own == scope);
        let given = |right: &crate::identity::oidc::Right| {
            right.upstream == upstream && right.scopes.iter().any(|s| s == scope) && claims.groups.contains(&right.group)
        };
        by_scope && (issuer.rights.is_empty() || issuer.rights.iter().any(given))
    }

    /// Whether the subject has a right to anything of an upstream.
    pub fn may_any(&self, upstream: &str) -> bool {
        let Some(issuer) = &self.parts.issuer else { return true };
        let groups = &self.parts.claims.groups;
        issuer.rights.is_empty() || issuer.rights.iter().any(|r| r.upstream == upstream && groups.contains(&r.group))
    }
}

impl Wanted {
    /// On whose behalf, once that is known.
    pub fn subject(&self) -> Option<&Subject> {
        self.behalf.as_ref()?.subject()
    }

    /// The subject token that nobody has looked at yet.
    pub fn sent_token(&self) -> Option<&SentToken> {
        match self.behalf.as_deref() {
            Some(Behalf::Sent(token)) => Some(token),
            _ => None,
        }
    }
}

//! Subject tokens (RFC 8693): the subject on whose behalf a caller asks, and the verification of the claim.
//!
//! A token is for this caller if its audience is an upstream that the caller serves, or if it is mayfly itself and `may_act` names the
//! caller. `may_act` is enforced wherever it is present (section 4.4). A token for mayfly without `may_act` is a client's assertion, and is
//! nobody's subject token. The decision bounds the grant by the subject's rights and by the token's lifetime; the fold checks, at the
//! record's place in the order, that the token is not revoked and that a mayfly credential is valid.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::authority::Authority;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_credential::jwt::{Jwks, authentic};
use mayfly_credential::keyring;
use mayfly_identity::caller::Caller;
use mayfly_identity::json;
use mayfly_identity::jws::CompactJws;
use mayfly_identity::jwt_svid::{self, Audiences, JwtSvidRequirements};
use mayfly_identity::oidc::IssuerUse;
use mayfly_identity::spiffe_id::TrustDomain;
use mayfly_ledger::record::{Ancestor, CredentialIssued, Event, Principal, SubjectClaims, TokenEvidence};
use mayfly_ledger::state::trust_domain_of;
use mayfly_policy::catalog::CompiledCatalog;
use mayfly_policy::exchange_request::ExchangeRequest;
use mayfly_policy::subject::{
    FIELD, RequestedSubject, SubjectCredential, SubjectParts, SubjectTokenKind, UnverifiedToken, VerifiedSubject,
};
use mayfly_verify::seq::{CredentialId, TaskId};

fn bad(what: impl std::fmt::Display) -> Error {
    Error::Refusal(Refusal::field(FIELD, what))
}

/// The audience of a token.
struct TokenAudience {
    /// `aud`.
    text: String,
    /// The upstream that `aud` names, and its environment; `None` if it is mayfly itself.
    upstream: Option<(String, String)>,
}

impl TokenAudience {
    fn environment(&self) -> Option<String> {
        self.upstream.as_ref().map(|(_, environment)| environment.clone())
    }
}

impl Authority {
    /// Adds the subject to an exchange. `None`: the exchange has no subject token.
    pub(crate) async fn on_behalf(&self, caller: &Caller, want: &ExchangeRequest) -> Result<Option<ExchangeRequest>, Error> {
        let Some(token) = want.sent_token() else { return Ok(None) };
        // A locked or revoked caller must not cause keys to be fetched.
        self.let_in(caller, "issuing")?;
        let mut part = want.traced.span("subject");
        let subject = part.of(Box::pin(self.subject(caller, token)).await)?;
        Ok(Some(ExchangeRequest { behalf: Some(Box::new(RequestedSubject::Known(subject))), ..want.clone() }))
    }

    /// The subject of a subject token, if the token is valid and for this caller.
    pub(crate) async fn subject(&self, caller: &Caller, sent: &UnverifiedToken) -> Result<Arc<VerifiedSubject>, Error> {
        let claims = unchecked(&sent.token)?;
        let aud = self.audience(&self.catalog.now(), caller, &claims)?;
        let parts = match sent.kind {
            SubjectTokenKind::JwtSvid => self.jwt_svid_subject(caller, &sent.token, aud)?,
            SubjectTokenKind::Oidc => self.oidc_subject(caller, &sent.token, aud).await?,
            SubjectTokenKind::Mayfly => self.own_subject(&sent.token, aud).await?,
        };
        Ok(Arc::new(VerifiedSubject::new(parts)))
    }

    /// The audience according to the unverified token; it is verified later with the rest of the token.
    fn audience(&self, compiled: &CompiledCatalog, caller: &Caller, claims: &Map<String, Value>) -> Result<TokenAudience, Error> {
        let text = match claims.get("aud") {
            Some(Value::String(one)) => one.clone(),
            // A single audience in an array, as in JWT-SVIDs (JWT-SVID, section 3.2); for other tokens the verification refuses it.
            Some(Value::Array(many)) => match &many[..] {
                [Value::String(one)] => one.clone(),
                _ => return Err(bad("is for several audiences, or for none: each of them could use it")),
            },
            _ => return Err(bad("has no aud")),
        };
        if text == self.decider.issuer {
            return Ok(TokenAudience { text, upstream: None });
        }
        let served = compiled.upstreams().find(|r| r.active && *r.audience == *text && r.upstream.served_by(caller.id()));
        match served {
            Some(r) => Ok(TokenAudience { text, upstream: Some((r.upstream.name.clone(), r.upstream.environment.clone())) }),
            None => Err(bad(format!(
                "is for somebody else: its aud is the audience of an upstream whose registration names {} among its servers, or {} with \
                 may_act",
                caller.id(),
                self.decider.issuer
            ))),
        }
    }

    fn jwt_svid_subject(&self, caller: &Caller, token: &str, aud: TokenAudience) -> Result<SubjectParts, Error> {
        let expect = JwtSvidRequirements {
            audiences: Audiences::Only(&aud.text),
            now: self.system.wall(),
            leeway_ms: limits::CLOCK_SKEW_MS,
            max_ttl_ms: self.bounds.load().svid_max_ttl_ms,
        };
        let svid = jwt_svid::verify(token, &self.bundles.load(), &expect).map_err(bad)?;
        let id = match svid.claims().get("jti") {
            Some(_) => svid
                .token_id()
                .filter(|id| plain(id))
                .ok_or_else(|| bad("has a jti that is no text of 1 to 256 bytes"))?
                .to_owned(),
            None => digest_id(token)?,
        };
        let issuer = svid.id().trust_domain().to_owned();
        let before = actors(svid.claims(), &issuer, true)?;
        may_act(svid.claims(), caller, &aud)?;
        Ok(SubjectParts {
            identity: Principal::workload(svid.id()),
            before,
            token: TokenEvidence { issuer, id, expires_at: svid.expires_at().0 },
            claims: SubjectClaims::default(),
            issuer: None,
            environment: aud.environment(),
            shown: None,
        })
    }

    async fn oidc_subject(&self, caller: &Caller, token: &str, aud: TokenAudience) -> Result<SubjectParts, Error> {
        let taken = self.oidc.verify(token, &[&aud.text]).await;
        let (issuer, verified) = taken.map_err(|not| match not.retry() {
            Some(wait) => {
                let no = Refusal::new(Reason::NotReady, format!("{FIELD}: {not}"))
                    .way_out("an operator has to look at the server's log");
                Error::Refusal(no.retry(wait))
            }
            None => bad(not),
        })?;
        if !issuer.serves(IssuerUse::Subject) {
            return Err(bad(format!(
                "is of issuer {}, whose tokens are not taken for subjects (oidc_issuers.uses)",
                issuer.name
            )));
        }
        may_act(verified.claims(), caller, &aud)?;
        let values = |claim: &Option<String>| claim.as_ref().map_or(Ok(Vec::new()), |claim| verified.values(claim)).map_err(bad);
        Ok(SubjectParts {
            identity: Principal { issuer: verified.issuer().to_owned(), sub: verified.sub().to_owned() },
            before: actors(verified.claims(), verified.issuer(), false)?,
            token: TokenEvidence {
                issuer: verified.issuer().to_owned(),
                id: verified.token_id().to_owned(),
                expires_at: verified.expires_at().0,
            },
            claims: SubjectClaims { groups: values(&issuer.groups_claim)?, scopes: values(&issuer.scopes_claim)? },
            issuer: Some(issuer),
            environment: aud.environment(),
            shown: None,
        })
    }

    /// The subject of a mayfly credential. Its record has more than the token itself: the rights that bounded it.
    async fn own_subject(&self, token: &str, aud: TokenAudience) -> Result<SubjectParts, Error> {
        // The holder presents a credential to a server of its upstream; none is meant for mayfly itself.
        let Some((upstream, environment)) = aud.upstream else {
            return Err(bad("is a credential of mayfly's that is for mayfly"));
        };
        let keys = self.ledger.peek(|s| s.keys.clone());
        let jwks = Jwks::parse(&keyring::jwks(&keys, &environment)).map_err(|e| Fault::new(e.to_string()))?;
        let (claims, _) = authentic(token, &jwks).map_err(|e| bad(format!("is no JWT credential that mayfly issued: {e}")))?;
        let now = self.system.wall();
        let id = claims.jti;
        let known = self.ledger.settled(|s| {
            s.evidence_alive(&id, now)?;
            let live = s.credentials.get(&id);
            live.map(|live| live.at())
                .ok_or_else(|| Refusal::new(Reason::CredentialNotActive, format!("credential {id} is not known")))
        });
        let at = known.await?.map_err(of_field)?;
        let record = self.issuance_at(at, id)?;
        let Some(Event::Issued(issued)) = &record.event else { return Err(Fault::new("an issuance without its record").into()) };
        // The record tells what the credential is for. A token made with a stolen key could claim something else.
        if (&issued.upstream, &issued.environment) != (&upstream, &environment) {
            return Err(bad(format!("is not what was issued for {upstream}")));
        }
        own_parts(self, issued, id)
    }
}

fn own_parts(authority: &Authority, issued: &CredentialIssued, id: CredentialId) -> Result<SubjectParts, Error> {
    let caller = Principal { issuer: trust_domain_of(&issued.caller).to_owned(), sub: issued.caller.clone() };
    let mut lineage = issued.ancestors.clone();
    lineage.push(Ancestor { credential: issued.credential.clone(), caller: issued.caller.clone() });
    // If the credential was issued on behalf of a subject, its holder is already an actor.
    let (identity, before) = match &issued.subject {
        Some(subject) => (subject.clone(), issued.actors.clone()),
        None => (caller, Vec::new()),
    };
    let issuer = match trust_domain_of(&identity.sub).is_empty() {
        false => None,
        true => {
            let known = authority.oidc.find(&identity.issuer).filter(|known| known.issuer.serves(IssuerUse::Subject));
            let gone = || bad(format!("speaks for {}, whose issuer is no longer trusted with that", identity.name()));
            Some(known.ok_or_else(gone)?.issuer.clone())
        }
    };
    let task = TaskId::from_slice(&issued.task).ok_or_else(|| Fault::new("an issuance without a task"))?;
    // The credential is named as an ancestor, so a revocation of what it depends on reaches this grant too.
    let token = issued.subject_token.clone().unwrap_or_else(|| TokenEvidence {
        issuer: authority.decider.issuer_of(&issued.environment),
        id: id.to_string(),
        expires_at: issued.expires_at,
    });
    Ok(SubjectParts {
        identity,
        before,
        token: TokenEvidence { expires_at: token.expires_at.min(issued.expires_at), ..token },
        claims: issued.subject_claims.clone().unwrap_or_default(),
        issuer,
        environment: Some(issued.environment.clone()),
        shown: Some(SubjectCredential {
            id,
            lineage,
            task,
            environment: issued.environment.clone(),
            upstream: (issued.upstream.clone(), issued.scopes.clone()),
            tool: issued.tool.clone(),
        }),
    })
}

/// Converts the refusal of an unsuitable credential to an invalid field, except if a revocation rule refused it, whose reason is kept.
fn of_field(no: Refusal) -> Error {
    match no.reason {
        Reason::CredentialNotActive => bad(no.message),
        _ => Error::Refusal(no),
    }
}

/// The claims of a token before any verification.
fn unchecked(token: &str) -> Result<Map<String, Value>, Error> {
    let claims = CompactJws::split(token).ok().and_then(|parts| parts.payload()).and_then(|payload| json::parse(&payload).ok());
    match claims {
        Some(Value::Object(claims)) => Ok(claims),
        _ => Err(bad("is no JWT in compact form")),
    }
}

fn digest_id(token: &str) -> Result<String, Error> {
    Ok(CompactJws::split(token).map_err(bad)?.digest_id())
}

fn plain(text: &str) -> bool {
    !text.is_empty() && text.len() <= limits::NAME_BYTES && !text.chars().any(char::is_control)
}

/// Checks that `may_act` names this caller; it is required if the token is for mayfly itself (RFC 8693, section 4.4). An unknown member
/// could restrict it to somebody else, so it is refused.
fn may_act(claims: &Map<String, Value>, caller: &Caller, aud: &TokenAudience) -> Result<(), Error> {
    let Some(named) = claims.get("may_act") else {
        return match aud.upstream {
            Some(_) => Ok(()),
            None => Err(bad(
                "is for mayfly itself and has no may_act, which would say who may act by it: an assertion is no subject token",
            )),
        };
    };
    let members = named.as_object().ok_or_else(|| bad("has a may_act that is no object"))?;
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    let domain = caller.id().trust_domain();
    let of_domain = |iss: &str| iss.strip_prefix("spiffe://").unwrap_or(iss) == domain;
    let issuer = members.get("iss").is_none_or(|iss| iss.as_str().is_some_and(of_domain));
    let others = members.keys().any(|name| name != "sub" && name != "iss");
    match text("sub") == Some(caller.id().as_str()) && issuer && !others {
        true => Ok(()),
        false => Err(bad(format!("has a may_act that does not name {} by sub (and iss, its trust domain)", caller.id()))),
    }
}

/// The actors before the caller, from the nested `act` claims, the most recent first (RFC 8693, section 4.1). `workloads`: the issuer may
/// name SPIFFE IDs of its own trust domain.
fn actors(claims: &Map<String, Value>, issuer: &str, workloads: bool) -> Result<Vec<Principal>, Error> {
    let (mut found, mut at) = (Vec::new(), claims.get("act"));
    while let Some(act) = at {
        if found.len() >= limits::ACT_CHAIN {
            return Err(bad(format!("has an act chain of more than {}", limits::ACT_CHAIN)));
        }
        let sub = act.get("sub").and_then(Value::as_str).filter(|sub| plain(sub));
        let sub = sub.ok_or_else(|| bad("has an act without a sub"))?;
        let named = match act.get("iss") {
            None => issuer,
            Some(iss) => iss.as_str().filter(|iss| plain(iss)).ok_or_else(|| bad("has an act whose iss is no text"))?,
        };
        let spiffe = sub.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("spiffe:"));
        let own = TrustDomain::parse(issuer).is_ok() && trust_domain_of(sub) == issuer;
        if spiffe && !(workloads && own) {
            return Err(bad("has an act that names a SPIFFE ID for which its issuer does not vouch"));
        }
        let named = if spiffe { issuer } else { named };
        found.push(Principal { issuer: named.to_owned(), sub: sub.to_owned() });
        at = act.get("act");
    }
    Ok(found)
}

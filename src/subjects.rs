//! Subject tokens (RFC 8693): on whose behalf a caller asks, and whether that may be believed.
//!
//! A token is for this caller: it is issued for an upstream of which the caller is a server, or for mayfly itself and names the caller in
//! `may_act`. Where `may_act` stands it is enforced (section 4.4). A token for mayfly without it is a client's assertion, which is nobody's
//! subject token. What a subject may, and that nothing outlives its token, is the decision's business; that a token is not revoked and a
//! credential of ours is valid, the fold's at its place in the order.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::authority::Authority;
use crate::credential::jwt::{Jwks, authentic};
use crate::credential::keyring;
use crate::identity::caller::Caller;
use crate::identity::json;
use crate::identity::jws::Compact;
use crate::identity::jwt_svid::{self, Audiences, Expect};
use crate::identity::oidc::Use;
use crate::identity::spiffe_id::TrustDomain;
use crate::ledger::record::{Ancestor, Event, Identity, Issued, SubjectClaims, TokenEvidence};
use crate::ledger::state::trust_domain_of;
use crate::limits;
use crate::policy::catalog::Compiled;
use crate::policy::subject::{Behalf, FIELD, Parts, SentToken, Shown, Subject, TokenType};
use crate::policy::wanted::Wanted;
use crate::refusal::{Fault, No, Reason, Refusal};
use crate::seq::{CredentialId, TaskId};

fn bad(what: impl std::fmt::Display) -> No {
    No::Refusal(Refusal::field(FIELD, what))
}

/// Whom a token is for.
struct Aud {
    /// `aud`.
    text: String,
    /// The upstream that it names, and its environment; `None` where it is mayfly itself.
    upstream: Option<(String, String)>,
}

impl Aud {
    fn environment(&self) -> Option<String> {
        self.upstream.as_ref().map(|(_, environment)| environment.clone())
    }
}

impl Authority {
    /// The exchange with its subject known. `None`: there is nothing to look at.
    pub(crate) async fn on_behalf(&self, caller: &Caller, want: &Wanted) -> Result<Option<Wanted>, No> {
        let Some(token) = want.sent_token() else { return Ok(None) };
        // Whoever is locked out gets no keys fetched for it.
        self.let_in(caller, "issuing")?;
        let mut part = want.traced.span("subject");
        let subject = part.of(Box::pin(self.subject(caller, token)).await)?;
        Ok(Some(Wanted { behalf: Some(Box::new(Behalf::Known(subject))), ..want.clone() }))
    }

    /// Whom a subject token speaks for, if it is good and for this caller.
    pub(crate) async fn subject(&self, caller: &Caller, sent: &SentToken) -> Result<Arc<Subject>, No> {
        let claims = unchecked(&sent.token)?;
        let aud = self.audience(&self.catalog.now(), caller, &claims)?;
        let parts = match sent.kind {
            TokenType::JwtSvid => self.jwt_svid_subject(caller, &sent.token, aud)?,
            TokenType::Oidc => self.oidc_subject(caller, &sent.token, aud).await?,
            TokenType::Mayfly => self.own_subject(&sent.token, aud).await?,
        };
        Ok(Arc::new(Subject::new(parts)))
    }

    /// Whom the token is for, by what it says; whether it says that truly is asked with all else of it.
    fn audience(&self, compiled: &Compiled, caller: &Caller, claims: &Map<String, Value>) -> Result<Aud, No> {
        let text = match claims.get("aud") {
            Some(Value::String(one)) => one.clone(),
            // As JWT-SVIDs have it (JWT-SVID, section 3.2); of the others the check refuses it.
            Some(Value::Array(many)) => match &many[..] {
                [Value::String(one)] => one.clone(),
                _ => return Err(bad("is for several audiences, or for none: each of them could use it")),
            },
            _ => return Err(bad("has no aud")),
        };
        if text == self.decider.issuer {
            return Ok(Aud { text, upstream: None });
        }
        let served = compiled.upstreams().find(|r| r.active && *r.audience == *text && r.upstream.served_by(caller.id()));
        match served {
            Some(r) => Ok(Aud { text, upstream: Some((r.upstream.name.clone(), r.upstream.environment.clone())) }),
            None => Err(bad(format!(
                "is for somebody else: its aud is the audience of an upstream whose registration names {} among its servers, or {} with \
                 may_act",
                caller.id(),
                self.decider.issuer
            ))),
        }
    }

    fn jwt_svid_subject(&self, caller: &Caller, token: &str, aud: Aud) -> Result<Parts, No> {
        let expect = Expect {
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
        Ok(Parts {
            identity: Identity::workload(svid.id()),
            before,
            token: TokenEvidence { issuer, id, expires_at: svid.expires_at().0 },
            claims: SubjectClaims::default(),
            issuer: None,
            environment: aud.environment(),
            shown: None,
        })
    }

    async fn oidc_subject(&self, caller: &Caller, token: &str, aud: Aud) -> Result<Parts, No> {
        let taken = self.oidc.verify(token, &[&aud.text]).await;
        let (issuer, verified) = taken.map_err(|not| match not.retry() {
            Some(wait) => {
                let no =
                    Refusal::new(Reason::NotReady, format!("{FIELD}: {not}")).way_out("an operator looks at the server's log");
                No::Refusal(no.retry(wait))
            }
            None => bad(not),
        })?;
        if !issuer.serves(Use::Subject) {
            return Err(bad(format!(
                "is of issuer {}, whose tokens are not taken for subjects (oidc_issuers.uses)",
                issuer.name
            )));
        }
        may_act(verified.claims(), caller, &aud)?;
        let values = |claim: &Option<String>| claim.as_ref().map_or(Ok(Vec::new()), |claim| verified.values(claim)).map_err(bad);
        Ok(Parts {
            identity: Identity { issuer: verified.issuer().to_owned(), sub: verified.sub().to_owned() },
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

    /// A credential of ours, which its record says more of than it says itself: whose rights it was bounded by.
    async fn own_subject(&self, token: &str, aud: Aud) -> Result<Parts, No> {
        // Its holder gave it to a server of its upstream. Nobody gives one to mayfly.
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
        // What it is for, its record says. A key of ours in other hands could say otherwise.
        if (&issued.upstream, &issued.environment) != (&upstream, &environment) {
            return Err(bad(format!("is not what was issued for {upstream}")));
        }
        own_parts(self, issued, id)
    }
}

fn own_parts(authority: &Authority, issued: &Issued, id: CredentialId) -> Result<Parts, No> {
    let caller = Identity { issuer: trust_domain_of(&issued.caller).to_owned(), sub: issued.caller.clone() };
    let mut line = issued.ancestors.clone();
    line.push(Ancestor { credential: issued.credential.clone(), caller: issued.caller.clone() });
    // Its own holder acted already, where it acted for somebody.
    let (identity, before) = match &issued.subject {
        Some(subject) => (subject.clone(), issued.actors.clone()),
        None => (caller, Vec::new()),
    };
    let issuer = match trust_domain_of(&identity.sub).is_empty() {
        false => None,
        true => {
            let known = authority.oidc.find(&identity.issuer).filter(|known| known.issuer.serves(Use::Subject));
            let gone = || bad(format!("speaks for {}, whose issuer is no longer trusted with that", identity.name()));
            Some(known.ok_or_else(gone)?.issuer.clone())
        }
    };
    let task = TaskId::from_slice(&issued.task).ok_or_else(|| Fault::new("an issuance without a task"))?;
    // What it rests on itself is revoked by that; it is named as an ancestor.
    let token = issued.subject_token.clone().unwrap_or_else(|| TokenEvidence {
        issuer: authority.decider.issuer_of(&issued.environment),
        id: id.to_string(),
        expires_at: issued.expires_at,
    });
    Ok(Parts {
        identity,
        before,
        token: TokenEvidence { expires_at: token.expires_at.min(issued.expires_at), ..token },
        claims: issued.subject_claims.clone().unwrap_or_default(),
        issuer,
        environment: Some(issued.environment.clone()),
        shown: Some(Shown {
            id,
            line,
            task,
            environment: issued.environment.clone(),
            upstream: (issued.upstream.clone(), issued.scopes.clone()),
            tool: issued.tool.clone(),
        }),
    })
}

/// A credential that is none for this is a field that is wrong, except where a rule says no: that is what its reason says.
fn of_field(no: Refusal) -> No {
    match no.reason {
        Reason::CredentialNotActive => bad(no.message),
        _ => No::Refusal(no),
    }
}

/// What a token says before anything was checked.
fn unchecked(token: &str) -> Result<Map<String, Value>, No> {
    let claims = Compact::split(token).ok().and_then(|parts| parts.payload()).and_then(|payload| json::parse(&payload).ok());
    match claims {
        Some(Value::Object(claims)) => Ok(claims),
        _ => Err(bad("is no JWT in compact form")),
    }
}

fn digest_id(token: &str) -> Result<String, No> {
    Ok(Compact::split(token).map_err(bad)?.digest_id())
}

fn plain(text: &str) -> bool {
    !text.is_empty() && text.len() <= limits::NAME_BYTES && !text.chars().any(char::is_control)
}

/// `may_act` names this caller, and is there where the token is for mayfly itself (RFC 8693, section 4.4). A member that we do not know
/// could say that it is somebody else.
fn may_act(claims: &Map<String, Value>, caller: &Caller, aud: &Aud) -> Result<(), No> {
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

/// Those who acted before the caller, as the token's `act` nests them, the last of them first (RFC 8693, section 4.1). `workloads`: its
/// issuer may name SPIFFE IDs, of its own trust domain.
fn actors(claims: &Map<String, Value>, issuer: &str, workloads: bool) -> Result<Vec<Identity>, No> {
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
        found.push(Identity { issuer: named.to_owned(), sub: sub.to_owned() });
        at = act.get("act");
    }
    Ok(found)
}

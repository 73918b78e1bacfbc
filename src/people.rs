//! People: signing in with an ID token, and signing out.
//!
//! An ID token and a key become a short SVID of our own trust domain. The token is used up by it in the same group of records, and the login
//! is durable before the certificate leaves. What comes of it is decided like any grant: by policy (`SignIn`), rules and the fold.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::authority::Authority;
use crate::credential::x509::{Ca, Csr, Leaf, Signed};
use crate::identity::anchor::TrustAnchor;
use crate::identity::caller::Caller;
use crate::identity::spiffe_id::SpiffeId;
use crate::ledger::record::{
    Event, Identity, KeyPurpose, LoggedIn, LoggedOut, Record, SvidEvidence, TokenEvidence, UsedOnce, Who,
};
use crate::ledger::state::{id_token_used, serial_of_login};
use crate::ledger::{Lane, View};
use crate::limits;
use crate::own_domain::{OwnDomain, not_configured, person_id};
use crate::policy::decide::decided_on_old_state;
use crate::policy::request::PersonFacts;
use crate::policy::{Act, Question};
use crate::refusal::{Fault, No, Reason, Refusal};
use crate::seq::{CredentialId, Millis, Seq};
use crate::trust::bundle_of;

/// A decision that ran into a change is made once more before the caller is told to try again.
const TRIES: usize = 2;

/// An ID token that its issuer's key made, for us, and that has not ended.
#[derive(Clone, Debug)]
pub struct IdToken {
    /// The provider's short name.
    pub provider: String,
    /// The environments in which its people count.
    pub environments: Vec<String>,
    /// `iss`.
    pub issuer: String,
    /// `sub`.
    pub sub: String,
    /// By which it is used once.
    pub token_id: String,
    /// `iat`.
    pub issued_at: Millis,
    /// `exp`.
    pub expires_at: Millis,
    /// Every claim.
    pub claims: Map<String, Value>,
}

/// A person who signed in, with the certificate that came of it.
pub struct SignedIn {
    /// The login.
    pub credential: CredentialId,
    /// Its record.
    pub seq: Seq,
    /// Who it is now.
    pub spiffe_id: SpiffeId,
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// Its end.
    pub expires_at: Millis,
}

/// What a token says of how somebody signed in.
struct Manner {
    amr: Vec<String>,
    acr: String,
    auth_time: Millis,
    flow: &'static str,
}

/// What was settled of a login.
struct Decided<'a> {
    own: &'a OwnDomain,
    token: &'a IdToken,
    manner: Manner,
    spiffe_id: SpiffeId,
    environment: String,
    policy_version: u64,
    policies: Vec<String>,
}

fn denied(reason: Reason, what: impl Into<String>) -> No {
    No::Refusal(Refusal::new(reason, what))
}

impl IdToken {
    /// How its person signed in, and that it is for this key. Its `nonce` says so; one without a nonce (RFC 8628 has none) is taken where the
    /// configuration lets it, while it is fresh.
    fn manner(&self, key: &Csr, own: &OwnDomain, now: Millis) -> Result<Manner, No> {
        if self.sub.len() > limits::LOGIN_SUB_BYTES {
            return Err(denied(
                Reason::NotAuthenticated,
                format!("the ID token's sub has more than {} bytes", limits::LOGIN_SUB_BYTES),
            ));
        }
        let text = |name: &str| match self.claims.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if plain(text) => Ok(Some(text.clone())),
            Some(_) => Err(denied(Reason::NotAuthenticated, format!("the ID token's {name} is no short text"))),
        };
        let flow = match text("nonce")? {
            Some(nonce) if nonce == key.nonce() => "code",
            Some(_) => {
                return Err(denied(
                    Reason::NotAuthenticated,
                    "the ID token's nonce is not that of this key: it is for another one",
                ));
            }
            None if !own.settings.device_login => {
                let no = Refusal::new(Reason::NotAuthenticated, "the ID token has no nonce, so it is bound to no key");
                return Err(No::Refusal(
                    no.by("own_domain.device_login").way_out("sign in with a browser on this machine: mayfly login"),
                ));
            }
            None if self.issued_at.plus(limits::DEVICE_TOKEN_AGE_MS) <= now => {
                return Err(denied(Reason::NotAuthenticated, "the ID token has no nonce, and is older than two minutes"));
            }
            None => "device",
        };
        // Another client's token, though we are in its audience (OpenID Connect Core, section 3.1.3.7).
        if let (Some(azp), Some(aud)) = (text("azp")?, text("aud")?)
            && azp != aud
        {
            return Err(denied(Reason::NotAuthenticated, "the ID token was made for another client: azp is not aud"));
        }
        let auth_time = match self.claims.get("auth_time") {
            // Never: policy that asks how long ago refuses it.
            None | Some(Value::Null) => Millis(0),
            Some(value) => {
                let seconds = value.as_u64().filter(|s| Millis::from_seconds(*s) <= self.issued_at.plus(limits::CLOCK_SKEW_MS));
                let wrong = || denied(Reason::NotAuthenticated, "the ID token's auth_time is no time before it was made");
                Millis::from_seconds(seconds.ok_or_else(wrong)?)
            }
        };
        Ok(Manner { amr: self.amr()?, acr: text("acr")?.unwrap_or_default(), auth_time, flow })
    }

    fn amr(&self) -> Result<Vec<String>, No> {
        let wrong = || denied(Reason::NotAuthenticated, "the ID token's amr is no short list of texts");
        let mut all = match self.claims.get("amr") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(many)) if many.len() <= limits::LOGIN_AMR => {
                let texts = many.iter().map(|v| v.as_str().filter(|t| plain(t)).map(str::to_owned));
                texts.collect::<Option<Vec<_>>>().ok_or_else(wrong)?
            }
            Some(_) => return Err(wrong()),
        };
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }
}

/// What may stand in records and on terminals.
fn plain(text: &str) -> bool {
    !text.is_empty() && text.len() <= limits::LOGIN_CLAIM_BYTES && !text.chars().any(char::is_control)
}

impl Authority {
    /// Signs a person in: a certificate for this key, for the person of this token.
    ///
    /// Refused: NOT_SERVED without a trust domain of our own, NOT_AUTHENTICATED for a token of another key, EVIDENCE_REVOKED for one that was
    /// used, DENIED_BY_POLICY, LOCKED, LIMIT_REACHED, NOT_READY before the CA has a key.
    pub async fn sign_in(&self, token: &IdToken, key: &Csr) -> Result<SignedIn, No> {
        let own = self.own_domain.as_ref().ok_or_else(not_configured)?;
        let spiffe_id = person_id(&own.settings.trust_domain, &token.provider, &token.sub)?;
        let made = self.sign_in_as(own, token, key, &spiffe_id).await;
        // Whoever has a token of the provider is somebody: what is refused then is for the audit.
        made.inspect_err(|no| {
            if let No::Refusal(no) = no {
                self.refused(spiffe_id.as_str(), no, "login", "");
            }
        })
    }

    async fn sign_in_as(&self, own: &OwnDomain, token: &IdToken, key: &Csr, id: &SpiffeId) -> Result<SignedIn, No> {
        for again in 1.. {
            let view = self.ledger.view();
            let manner = token.manner(key, own, view.now())?;
            let decided = self.decide_login(own, token, manner, id, view.now())?;
            let (login, signed) = self.make_login(&decided, key, &view)?;
            let credential = CredentialId::from_slice(&login.credential).ok_or_else(|| Fault::new("a login without an id"))?;
            let expires_at = Millis(login.expires_at);
            let person = Identity { issuer: token.issuer.clone(), sub: token.sub.clone() };
            let used = UsedOnce {
                digest: id_token_used(&token.issuer, &token.token_id).to_vec(),
                until: token.expires_at.plus(2 * limits::CLOCK_SKEW_MS).0,
            };
            let records = [Event::UsedOnce(used), Event::LoggedIn(Box::new(login))];
            let record = |event| Record::new(Who::Person(person.clone()), event).decided_at(view.revision());
            match self.ledger.commit(Lane::Grant, records.map(record).to_vec()).await {
                Ok(receipt) => {
                    let spiffe_id = decided.spiffe_id;
                    return Ok(SignedIn {
                        credential,
                        seq: receipt.seq(),
                        spiffe_id,
                        certificate: signed.der.to_vec(),
                        expires_at,
                    });
                }
                Err(no) if again < TRIES && decided_on_old_state(&no) => {}
                Err(no) => return Err(no),
            }
        }
        Err(No::Fault(Fault::new("signing in: tries ran out")))
    }

    /// Policy: the set of an environment in which the provider's people count permits it, first that of the person's own.
    fn decide_login<'a>(
        &self,
        own: &'a OwnDomain,
        token: &'a IdToken,
        manner: Manner,
        id: &SpiffeId,
        now: Millis,
    ) -> Result<Decided<'a>, No> {
        let compiled = self.catalog.now();
        let mut sets: Vec<_> = compiled.environments().filter(|(name, _)| token.environments.iter().any(|e| e == name)).collect();
        sets.sort_by_key(|(name, policy)| policy.set.environment_of(id) != Some(*name));
        let amr: Vec<&str> = manner.amr.iter().map(String::as_str).collect();
        let acr = (!manner.acr.is_empty()).then_some(&*manner.acr);
        let person = PersonFacts { issuer: &token.issuer, id: &token.sub, amr: &amr, acr, auth_time: manner.auth_time };
        let mut said = Vec::new();
        for (name, policy) in sets {
            let act = Act { environment: Some(name), person: Some(person), now, ..Act::default() };
            let verdict = self.decider.verdicts.verdict(&policy.set, &Question::sign_in(id, &act));
            if verdict.permits() {
                let (environment, policies) = (name.to_owned(), verdict.by().to_vec());
                let (policy_version, spiffe_id) = (policy.version, id.clone());
                return Ok(Decided { own, token, manner, spiffe_id, environment, policy_version, policies });
            }
            said.push(format!("{name} (version {}): {verdict}", policy.version));
        }
        let what = match said.is_empty() {
            true => format!("SignIn: no environment of provider {} has a policy set", token.provider),
            false => format!("SignIn: {}", said.join("; ")),
        };
        let no = Refusal::new(Reason::DeniedByPolicy, what).by("policy SignIn");
        Err(No::Refusal(no.way_out("whoever owns the policy set permits the action SignIn; docs/people.md has an example")))
    }

    /// Signs the certificate; told to nobody yet.
    fn make_login(&self, decided: &Decided<'_>, key: &Csr, view: &View) -> Result<(LoggedIn, Signed), No> {
        let Decided { own, token, manner, spiffe_id, .. } = decided;
        let not_ready = || Refusal::new(Reason::NotReady, "the CA of our own trust domain has no key yet");
        let ca_key = self.keyring.active(KeyPurpose::X509Ca, "").ok_or_else(not_ready)?;
        let domain = &own.settings.trust_domain;
        let bundle = self.ledger.peek(|s| s.bundles.get(domain.as_str()).filter(|b| !b.removed).cloned());
        let bundle = bundle_of(domain, &bundle.ok_or_else(not_ready)?)?;
        let anchor = crate::own_domain::anchor_of(bundle.x509_authorities(), ca_key.public().unwrap_or_default());
        let anchor: &TrustAnchor = anchor.ok_or_else(not_ready)?;
        let now = view.now();
        let end = now.plus(own.settings.login_ttl_ms).min(anchor.not_after());
        let expires_at = Millis::from_seconds(end.seconds());
        let id = CredentialId::from_bytes(self.system.random16());
        let crl_url = own.crl_url(ca_key.id());
        let leaf = Leaf { id, key, spiffe_id, crl_url: &crl_url, issued_at: now, expires_at };
        let signed = leaf.sign(&Ca::new(&ca_key, anchor)?)?;
        let login = LoggedIn {
            credential: id.as_bytes().to_vec(),
            person: Some(Identity { issuer: token.issuer.clone(), sub: token.sub.clone() }),
            caller: spiffe_id.as_str().to_owned(),
            amr: manner.amr.clone(),
            acr: manner.acr.clone(),
            auth_time: manner.auth_time.0,
            issued_at: now.0,
            expires_at: expires_at.0,
            key: ca_key.id().to_owned(),
            svid: Some(SvidEvidence {
                anchor: anchor.id().as_bytes().to_vec(),
                issuing_key: anchor.key().to_vec(),
                serial: serial_of_login(&id).to_vec(),
                not_after: expires_at.0,
            }),
            certificate: signed.sha256.to_vec(),
            token: Some(TokenEvidence {
                issuer: token.issuer.clone(),
                id: token.token_id.clone(),
                expires_at: token.expires_at.0,
            }),
            flow: manner.flow.to_owned(),
            environment: decided.environment.clone(),
            policy_version: decided.policy_version,
            policies: decided.policies.clone(),
            provider: token.provider.clone(),
        };
        Ok((login, signed))
    }

    /// A person gives a login back, with any SVID of their own. What it opened goes on: the login owns it and is no parent. A repeat gets the
    /// first one's answer.
    pub(crate) async fn sign_out(&self, caller: &Caller, id: CredentialId) -> Result<Option<Seq>, No> {
        let own = |login: &Arc<crate::ledger::state::Login>| {
            caller.person().is_some_and(|p| *p.issuer == *login.person.issuer && *p.subject == *login.person.sub)
        };
        if !self.ledger.settled(|s| s.logins.get(&id).is_some_and(own)).await? {
            return Ok(None);
        }
        let out = Event::LoggedOut(LoggedOut { credential: id.as_bytes().to_vec() });
        Ok(Some(self.ledger.commit(Lane::Revoke, vec![Record::new(Who::of(caller), out)]).await?.seq()))
    }
}

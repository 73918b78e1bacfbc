//! People: signing in with an ID token, and signing out. `logins` issues the certificate.

pub mod approvals;
pub mod attestation;
pub mod break_glass;
pub mod logins;
pub mod oidc_issuers;

use std::sync::Arc;

use serde_json::Value;

use crate::authority::Authority;
use crate::people::logins::{LoginResult, LoginToken, PendingLogin, SignInDetails};
use crate::trust::own_domain::{OwnDomain, not_configured, person_id};
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_credential::x509::Csr;
use mayfly_identity::caller::Caller;
use mayfly_ledger::ProposalKind;
use mayfly_ledger::record::{Author, Event, LoggedOut, Record};
use mayfly_verify::seq::{CredentialId, Millis, Seq};

fn denied(reason: Reason, what: impl Into<String>) -> Error {
    Error::Refusal(Refusal::new(reason, what))
}

impl LoginToken {
    /// How the person signed in, and the check that the token is for this key: its `nonce` is the key's thumbprint. A token without a nonce
    /// (RFC 8628 has none) is accepted while it is fresh, if the configuration permits it.
    fn manner(&self, key: &Csr, own: &OwnDomain, now: Millis) -> Result<SignInDetails, Error> {
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
            None if !own.settings().device_login => {
                let no = Refusal::new(Reason::NotAuthenticated, "the ID token has no nonce, so it is bound to no key");
                return Err(Error::Refusal(
                    no.by("own_domain.device_login").way_out("sign in with a browser on this machine: mayfly login"),
                ));
            }
            None if self.issued_at.plus(limits::DEVICE_TOKEN_AGE_MS) <= now => {
                return Err(denied(Reason::NotAuthenticated, "the ID token has no nonce, and is older than two minutes"));
            }
            None => "device",
        };
        // A token of another client is refused even if this server is in its audience (OpenID Connect Core, section 3.1.3.7).
        if let (Some(azp), Some(aud)) = (text("azp")?, text("aud")?)
            && azp != aud
        {
            return Err(denied(Reason::NotAuthenticated, "the ID token was made for another client: azp is not aud"));
        }
        let auth_time = match self.claims.get("auth_time") {
            // Stands for never: a policy on the age of the sign-in refuses it.
            None | Some(Value::Null) => Millis(0),
            Some(value) => {
                let seconds = value.as_u64().filter(|s| Millis::from_seconds(*s) <= self.issued_at.plus(limits::CLOCK_SKEW_MS));
                let wrong = || denied(Reason::NotAuthenticated, "the ID token's auth_time is no time before it was made");
                Millis::from_seconds(seconds.ok_or_else(wrong)?)
            }
        };
        Ok(SignInDetails { amr: self.amr()?, acr: text("acr")?.unwrap_or_default(), auth_time, flow })
    }

    fn amr(&self) -> Result<Vec<String>, Error> {
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

/// Whether a text is safe in records and on terminals.
fn plain(text: &str) -> bool {
    !text.is_empty() && text.len() <= limits::LOGIN_CLAIM_BYTES && !text.chars().any(char::is_control)
}

impl Authority {
    /// Signs a person in: issues a certificate for this key to the person of this token.
    ///
    /// Refused: NOT_SERVED without a trust domain of our own, NOT_AUTHENTICATED for a token of another key, EVIDENCE_REVOKED for one that
    /// was used, DENIED_BY_POLICY, LOCKED, LIMIT_REACHED, NOT_READY before the CA has a key.
    pub async fn sign_in(&self, token: &LoginToken, key: &Csr) -> Result<LoginResult, Error> {
        let own = self.own_domain.as_ref().ok_or_else(not_configured)?;
        let spiffe_id = person_id(&own.trust_domain, &token.provider, &token.sub)?;
        let entry = |now| {
            let (author, ttl_ms) = (Author::Person(token.subject()), own.settings().login_ttl_ms);
            Ok(PendingLogin { own, token, author, manner: token.manner(key, own, now)?, job: None, ttl_ms })
        };
        self.log_in(key, &spiffe_id, entry).await
    }

    /// Signs out: a person ends a login with any SVID of their own, a job ends the login that it calls with. Tasks opened with the login go
    /// on, since the login owns them and is not their parent. A repeat gets the answer of the first call.
    pub(crate) async fn sign_out(&self, caller: &Caller, id: CredentialId) -> Result<Option<Seq>, Error> {
        let own = |login: &Arc<mayfly_ledger::state::Login>| match caller.person() {
            Some(p) => login.job.is_none() && *p.issuer == *login.person.issuer && *p.subject == *login.person.sub,
            None => caller.ancestor() == Some(login.id),
        };
        if !self.ledger.settled(|s| s.logins.get(&id).is_some_and(own)).await? {
            return Ok(None);
        }
        let out = Event::LoggedOut(LoggedOut { credential: id.as_bytes().to_vec() });
        Ok(Some(self.ledger.commit(ProposalKind::Revoke, vec![Record::new(Author::of(caller), out)]).await?.seq()))
    }
}

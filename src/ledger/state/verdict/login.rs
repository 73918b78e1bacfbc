//! Verdicts on logins: whether one takes effect, and whether one is still valid.

use super::super::logins::facts_of_login;
use super::super::{Login, State, Verdict, serial_of_login};
use super::{GroupEffects, expired, malformed, refused_by, stale};
use crate::commit::sha256;
use crate::record::{KeyPurpose, KeyState, LoggedIn, LoggedOut};
use mayfly_base::limits;
use mayfly_base::refusal::{Reason, Refusal};
use mayfly_verify::seq::{CredentialId, Millis, Seq};

/// The single-use id of an ID token: SHA-256 over the kind, the issuer and the token's id.
pub fn id_token_used(issuer: &str, id: &str) -> [u8; 32] {
    let mut bytes = b"mayfly id token 1".to_vec();
    for part in [issuer, id] {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    sha256(&bytes)
}

impl State {
    /// A login is a grant. Its ID token must be used up by an earlier record of the same group, and by nothing else.
    pub(super) fn may_log_in<'a>(
        &'a self,
        e: &'a LoggedIn,
        revision: Seq,
        time: Millis,
        pending: &mut GroupEffects<'a>,
    ) -> Verdict {
        let id = CredentialId::from_slice(&e.credential).ok_or_else(|| malformed("a credential id that is not 16 bytes"))?;
        if self.logins.contains_key(&id)
            || self.credentials.get(&id).is_some()
            || pending.credentials.contains(&&e.credential[..])
        {
            return Err(stale(format!("credential {id} exists already")));
        }
        pending.credentials.push(&e.credential);
        let (Some(person), Some(svid), Some(token)) = (&e.person, &e.svid, &e.token) else {
            return Err(malformed("a login without person, SVID or token"));
        };
        if person.issuer.is_empty() || person.sub.is_empty() || e.certificate.len() != 32 || e.amr.len() > limits::LOGIN_AMR {
            return Err(malformed("a login of nobody, without its certificate, or with too many methods"));
        }
        if let Some(job) = &e.job {
            let whole = !job.rule.is_empty() && !job.id.is_empty() && job.claims.len() <= limits::ATTESTED_CLAIMS;
            // A job cannot have a second factor.
            if !whole || !e.amr.is_empty() || !e.acr.is_empty() || e.auth_time != 0 {
                return Err(malformed("a job without rule or id, with too many claims, or one that signed in like a person"));
            }
        }
        if svid.serial != serial_of_login(&id) || svid.not_after != e.expires_at {
            return Err(malformed("a login whose certificate is another one"));
        }
        if !pending.used_once.contains(&&id_token_used(&token.issuer, &token.id)[..]) {
            return Err(malformed("a login whose token is not used up before it in its group"));
        }
        self.timely(e.issued_at, revision, time)?;
        self.version_in_force(&e.environment, e.policy_version)?;
        match self.keys.get(e.key.as_str()) {
            Some(key) if key.state == KeyState::Active && key.purpose == KeyPurpose::X509Ca => {}
            _ => return Err(stale(format!("key {:?} is not the CA's active one", e.key))),
        }
        if e.expires_at <= time.0 || e.expires_at > e.issued_at.saturating_add(limits::LOGIN_TTL_MS) {
            return Err(Refusal::new(Reason::NoLifeLeft, format!("the end of login {id} is not within its bounds")));
        }
        let wait = std::time::Duration::from_millis(limits::LOGIN_TTL_MS);
        if self.logins.len() >= limits::LOGINS {
            return Err(Refusal::limit("logins", limits::LOGINS as u64, wait));
        }
        let (name, most) = match e.job {
            Some(_) => ("logins_per_attested", limits::LOGINS_PER_ATTESTED),
            None => ("logins_per_person", limits::LOGINS_PER_PERSON),
        };
        if self.logins_by_caller.get(e.caller.as_str()).is_some_and(|n| *n as usize >= most) {
            return Err(Refusal::limit(name, most as u64, wait));
        }
        match self.rules.blocks(&facts_of_login(e, id, person, revision)) {
            Some(hit) => Err(refused_by(&hit, "signing in")),
            None => Ok(()),
        }
    }

    pub(super) fn may_log_out(&self, e: &LoggedOut) -> Verdict {
        match CredentialId::from_slice(&e.credential).and_then(|id| self.logins.get(&id)) {
            Some(login) if login.ended_at.is_none() => Ok(()),
            Some(login) => Err(Refusal::new(Reason::AlreadyExists, format!("login {} was ended already", login.id))),
            None => Err(Refusal::new(Reason::NotFound, "there is no such login")),
        }
    }

    /// A login that is valid now. An unknown login is invalid: its certificate alone proves nothing.
    pub fn login_alive(&self, id: &CredentialId, time: Millis) -> Result<&Login, Refusal> {
        let gone = |what: &str| Err(Refusal::new(Reason::CredentialNotActive, format!("login {id} {what}")));
        let Some(login) = self.logins.get(id) else { return gone("is not known") };
        if login.ended_at.is_some() {
            return gone("was given back");
        }
        if login.expires_at <= time.max(self.time) {
            return Err(expired(id));
        }
        match self.rules.covers(&login.facts()) {
            Some(hit) => Err(refused_by(&hit, &format!("login {id}"))),
            None => Ok(login),
        }
    }
}

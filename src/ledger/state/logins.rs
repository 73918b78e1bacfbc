//! Logins of people and jobs in the state: which SVID belongs to whom, until the login ends.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ExpiringEntry, State, hash_of, svid_facts, trust_domain_of};
use crate::record::{LoggedIn, Principal, SvidEvidence, TokenEvidence};
use crate::revocation::Facts;
use mayfly_verify::seq::{CredentialId, Millis, Seq};

/// A login. Its id is also the serial number of the certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The login's id.
    pub id: CredentialId,
    /// The person or job: the provider's issuer URL and `sub` there.
    pub person: Principal,
    /// The SPIFFE ID of the certificate.
    pub caller: Box<str>,
    /// How the person signed in.
    pub amr: Vec<Box<str>>,
    /// Authentication context class, where the provider gave one.
    pub acr: Option<Box<str>>,
    /// When the person signed in at the provider.
    pub auth_time: Millis,
    /// When the login was decided.
    pub issued_at: Millis,
    /// The certificate's notAfter.
    pub expires_at: Millis,
    /// The CA key that signed the certificate.
    pub key: Box<str>,
    /// The evidence that callers present with the certificate.
    pub svid: SvidEvidence,
    /// SHA-256 of the certificate.
    pub certificate: [u8; 32],
    /// The ID token that the login is based on.
    pub token: TokenEvidence,
    /// The environment whose policy set permitted the login.
    pub environment: Box<str>,
    /// Version of the policy set.
    pub policy: u64,
    /// The provider, by its name in the configuration.
    pub provider: Box<str>,
    /// The rule that admitted the job, if a job signed in and not a person.
    pub job: Option<Box<str>>,
    /// The seq of the login's record.
    pub seq: Seq,
    /// The decision revision.
    pub revision: Seq,
    /// When the login was given back.
    pub ended_at: Option<Millis>,
}

impl Login {
    fn of(e: &LoggedIn, id: CredentialId, seq: Seq, revision: Seq) -> Login {
        Login {
            id,
            person: e.person.clone().unwrap_or_default(),
            caller: e.caller.as_str().into(),
            amr: e.amr.iter().map(|m| m.as_str().into()).collect(),
            acr: (!e.acr.is_empty()).then(|| e.acr.as_str().into()),
            auth_time: Millis(e.auth_time),
            issued_at: Millis(e.issued_at),
            expires_at: Millis(e.expires_at),
            key: e.key.as_str().into(),
            svid: e.svid.clone().unwrap_or_default(),
            certificate: hash_of(&e.certificate),
            token: e.token.clone().unwrap_or_default(),
            environment: e.environment.as_str().into(),
            policy: e.policy_version,
            provider: e.provider.as_str().into(),
            job: e.job.as_ref().map(|job| job.rule.as_str().into()),
            seq,
            revision,
            ended_at: None,
        }
    }

    /// The facts of the login that rules match on.
    pub fn facts(&self) -> Facts<'_> {
        let domain = trust_domain_of(&self.caller);
        Facts {
            revision: self.revision,
            credentials: vec![self.id],
            identities: vec![(domain, &self.caller), (&self.person.issuer, &self.person.sub)],
            environment: &self.environment,
            policy: self.policy,
            key: &self.key,
            svid: Some(svid_facts(domain, &self.svid)),
            subject_token: Some((&self.token.issuer, &self.token.id)),
            ..Facts::default()
        }
    }
}

/// The same facts for a login that is about to be recorded.
pub(super) fn facts_of_login<'a>(e: &'a LoggedIn, id: CredentialId, person: &'a Principal, revision: Seq) -> Facts<'a> {
    let domain = trust_domain_of(&e.caller);
    Facts {
        revision,
        credentials: vec![id],
        identities: vec![(domain, &e.caller), (&person.issuer, &person.sub)],
        environment: &e.environment,
        policy: e.policy_version,
        key: &e.key,
        svid: e.svid.as_ref().map(|svid| svid_facts(domain, svid)),
        subject_token: e.token.as_ref().map(|t| (t.issuer.as_str(), t.id.as_str())),
        ..Facts::default()
    }
}

/// The login whose certificate has this serial number, as evidence gives it: without leading zeros.
pub fn login_of_serial(serial: &[u8]) -> Option<CredentialId> {
    let mut id = [0; 16];
    let at = id.len().checked_sub(serial.len())?;
    id.get_mut(at..)?.copy_from_slice(serial);
    Some(CredentialId::from_bytes(id))
}

/// The serial number of a login, as evidence gives it.
pub fn serial_of_login(id: &CredentialId) -> &[u8] {
    let bytes = id.as_bytes();
    let zeros = bytes.iter().take_while(|b| **b == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

impl State {
    pub(super) fn log_in(&mut self, e: &LoggedIn, revision: Seq) {
        let Some(id) = CredentialId::from_slice(&e.credential) else { return };
        self.logins.insert(id, Arc::new(Login::of(e, id, self.head, revision)));
        *self.logins_by_caller.or_insert(e.caller.as_str().into(), 0) += 1;
        self.ends.after(Millis(e.expires_at), ExpiringEntry::Login(id));
    }

    pub(super) fn log_out(&mut self, credential: &[u8]) {
        let now = self.time;
        if let Some(login) = CredentialId::from_slice(credential).and_then(|id| self.logins.value_mut(&id)) {
            Arc::make_mut(login).ended_at = Some(now);
        }
    }

    /// Forgets a login that has ended.
    pub(super) fn forget_login(&mut self, id: &CredentialId) {
        let Some(login) = self.logins.remove(id) else { return };
        if let Some(n) = self.logins_by_caller.value_mut(&login.caller) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                self.logins_by_caller.remove(&login.caller);
            }
        }
    }

    /// A person's logins that have not expired, in no order.
    pub fn logins_of<'a>(&'a self, person: &'a Principal) -> impl Iterator<Item = &'a Arc<Login>> {
        self.logins.values().filter(move |login| login.job.is_none() && login.person == *person)
    }
}

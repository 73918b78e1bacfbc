//! Logins of people and jobs: issues an SVID of the server's own trust domain for a key, on a token of an issuer that the configuration
//! trusts.
//!
//! The token is used up in the same group of records, and the login is durable before the certificate is sent. A login is decided like any
//! grant: by policy (`SignIn`), revocation rules and the fold.

use serde_json::{Map, Value};

use crate::authority::Authority;
use crate::redecide::DecisionAttempts;
use crate::trust::bundle_of;
use crate::trust::own_domain::OwnDomain;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_credential::x509::{Ca, Csr, SignedCertificate, SvidTemplate};
use mayfly_identity::anchor::TrustAnchor;
use mayfly_identity::oidc::{Issuer, VerifiedOidc};
use mayfly_identity::spiffe_id::SpiffeId;
use mayfly_ledger::record::{
    Attestation, Author, Event, KeyPurpose, LoggedIn, Principal, Record, SvidEvidence, TokenEvidence, UsedOnce,
};
use mayfly_ledger::state::{id_token_used, serial_of_login};
use mayfly_ledger::{ProposalKind, View};
use mayfly_policy::decide::decided_on_stale_state;
use mayfly_policy::question::{AttestedFacts, PersonFacts};
use mayfly_policy::{OperatorContext, Question};
use mayfly_verify::seq::{CredentialId, Millis, Seq};

/// A verified token: signed by its issuer, intended for this server, and not expired.
#[derive(Clone, Debug)]
pub struct LoginToken {
    /// The short name of the provider.
    pub provider: String,
    /// The environments in which the provider's tokens are accepted.
    pub environments: Vec<String>,
    /// `iss`.
    pub issuer: String,
    /// `sub`.
    pub sub: String,
    /// The id by which the token is used only once.
    pub token_id: String,
    /// `iat`.
    pub issued_at: Millis,
    /// `exp`.
    pub expires_at: Millis,
    /// Every claim.
    pub claims: Map<String, Value>,
}

impl LoginToken {
    /// Converts a verified token.
    pub fn of(issuer: &Issuer, token: &VerifiedOidc) -> LoginToken {
        LoginToken {
            provider: issuer.name.clone(),
            environments: issuer.environments.clone(),
            issuer: token.issuer().to_owned(),
            sub: token.sub().to_owned(),
            token_id: token.token_id().to_owned(),
            issued_at: token.issued_at(),
            expires_at: token.expires_at(),
            claims: token.claims().clone(),
        }
    }

    /// The subject of the token.
    pub fn subject(&self) -> Principal {
        Principal { issuer: self.issuer.clone(), sub: self.sub.clone() }
    }
}

/// A login with its certificate.
#[derive(Clone, Debug)]
pub struct LoginResult {
    /// The id of the login.
    pub credential: CredentialId,
    /// The record of the login.
    pub seq: Seq,
    /// The SPIFFE ID of the certificate.
    pub spiffe_id: SpiffeId,
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// The expiry of the certificate.
    pub expires_at: Millis,
}

/// How the person signed in, according to the token.
pub(crate) struct SignInDetails {
    pub amr: Vec<String>,
    pub acr: String,
    pub auth_time: Millis,
    pub flow: &'static str,
}

/// The person or job that logs in, and the token.
pub(crate) struct PendingLogin<'a> {
    pub own: &'a OwnDomain,
    pub token: &'a LoginToken,
    /// The identity, as policies and records name it.
    pub author: Author,
    pub manner: SignInDetails,
    pub job: Option<Attestation>,
    pub ttl_ms: u64,
}

/// The terms of a permitted login.
struct LoginTerms {
    environment: String,
    policy_version: u64,
    policies: Vec<String>,
}

impl Authority {
    /// Makes the login that `entry` returns. `entry` is called again if a concurrent change made the first attempt void.
    pub(crate) async fn log_in<'a>(
        &self,
        key: &Csr,
        id: &SpiffeId,
        entry: impl FnMut(Millis) -> Result<PendingLogin<'a>, Error>,
    ) -> Result<LoginResult, Error> {
        // Everybody with a token of the provider can come here, so refusals are recorded for the audit.
        self.try_login(key, id, entry).await.inspect_err(|no| {
            if let Error::Refusal(no) = no {
                self.refused(id.as_str(), no, "login", "");
            }
        })
    }

    async fn try_login<'a>(
        &self,
        key: &Csr,
        id: &SpiffeId,
        mut entry: impl FnMut(Millis) -> Result<PendingLogin<'a>, Error>,
    ) -> Result<LoginResult, Error> {
        let mut attempts = DecisionAttempts::default();
        loop {
            let view = self.ledger.view();
            let entry = entry(view.now())?;
            let decided = self.decide_login(&entry, id, view.now())?;
            let (login, signed) = self.make_login((&entry, id), &decided, key, &view)?;
            let credential = CredentialId::from_slice(&login.credential).ok_or_else(|| Fault::new("a login without an id"))?;
            let expires_at = Millis(login.expires_at);
            let token = entry.token;
            let used = UsedOnce {
                digest: id_token_used(&token.issuer, &token.token_id).to_vec(),
                until: token.expires_at.plus(2 * limits::CLOCK_SKEW_MS).0,
                ..UsedOnce::default()
            };
            let records = [Event::UsedOnce(used), Event::LoggedIn(Box::new(login))];
            let record = |event| Record::new(entry.author.clone(), event).decided_at(view.revision());
            match self.ledger.commit(ProposalKind::Grant, records.map(record).to_vec()).await {
                Ok(receipt) => {
                    let (spiffe_id, certificate) = (id.clone(), signed.der.to_vec());
                    return Ok(LoginResult { credential, seq: receipt.seq(), spiffe_id, certificate, expires_at });
                }
                Err(no) => self.redecide(&mut attempts, no, decided_on_stale_state).await?,
            }
        }
    }

    /// Evaluates policy: an environment in which the provider's tokens are accepted must permit the login; the caller's own environment is
    /// tried first.
    fn decide_login(&self, entry: &PendingLogin<'_>, id: &SpiffeId, now: Millis) -> Result<LoginTerms, Error> {
        let PendingLogin { token, manner, job, .. } = entry;
        let compiled = self.catalog.now();
        let mut sets: Vec<_> = compiled
            .environments()
            .filter(|(name, _)| self.decider.serves(name) && token.environments.iter().any(|e| e == name))
            .collect();
        sets.sort_by_key(|(name, policy)| policy.set.environment_of(id) != Some(*name));
        let amr: Vec<&str> = manner.amr.iter().map(String::as_str).collect();
        let acr = (!manner.acr.is_empty()).then_some(&*manner.acr);
        let person = PersonFacts { issuer: &token.issuer, id: &token.sub, amr: &amr, acr, auth_time: manner.auth_time };
        let claims: Vec<&str> = job.iter().flat_map(|job| &job.claims).map(String::as_str).collect();
        let job = job.as_ref().map(|job| AttestedFacts { issuer: &token.issuer, rule: &job.rule, id: &job.id, claims: &claims });
        let person = Some(person).filter(|_| job.is_none());
        let mut said = Vec::new();
        for (name, policy) in sets {
            let act = OperatorContext { environment: Some(name), person, job, now, ..OperatorContext::default() };
            let verdict = self.decider.verdicts.verdict(&policy.set, &Question::sign_in(id, &act));
            if verdict.permits() {
                let (environment, policies) = (name.to_owned(), verdict.by().to_vec());
                return Ok(LoginTerms { environment, policy_version: policy.version, policies });
            }
            said.push(format!("{name} (version {}): {verdict}", policy.version));
        }
        let what = match said.is_empty() {
            true => format!("SignIn: no environment of provider {} has a policy set", token.provider),
            false => format!("SignIn: {}", said.join("; ")),
        };
        let no = Refusal::new(Reason::DeniedByPolicy, what).by("policy SignIn");
        Err(Error::Refusal(
            no.way_out("the owner of the policy set can permit the action SignIn; docs/people.md and docs/ci.md have examples"),
        ))
    }

    /// Signs the certificate, which is not sent before the login is durable.
    fn make_login(
        &self,
        (entry, spiffe_id): (&PendingLogin<'_>, &SpiffeId),
        decided: &LoginTerms,
        key: &Csr,
        view: &View,
    ) -> Result<(LoggedIn, SignedCertificate), Error> {
        let PendingLogin { own, token, manner, .. } = entry;
        let not_ready = || Refusal::new(Reason::NotReady, "the CA of our own trust domain has no key yet");
        let ca_key = self.keyring.active(KeyPurpose::X509Ca, "").ok_or_else(not_ready)?;
        let domain = &own.trust_domain;
        let bundle = self.ledger.peek(|s| s.bundles.get(domain.as_str()).filter(|b| !b.removed).cloned());
        let bundle = bundle_of(domain, &bundle.ok_or_else(not_ready)?)?;
        let anchor = crate::trust::own_domain::anchor_of(bundle.x509_authorities(), ca_key.public().unwrap_or_default());
        let anchor: &TrustAnchor = anchor.ok_or_else(not_ready)?;
        let now = view.now();
        let end = now.plus(entry.ttl_ms).min(anchor.not_after());
        let expires_at = Millis::from_seconds(end.seconds());
        let id = CredentialId::from_bytes(self.system.random16());
        let crl_url = own.crl_url(ca_key.id());
        let leaf = SvidTemplate { id, key, spiffe_id, crl_url: &crl_url, issued_at: now, expires_at };
        let signed = leaf.sign(&Ca::new(&ca_key, anchor)?)?;
        let login = LoggedIn {
            credential: id.as_bytes().to_vec(),
            person: Some(token.subject()),
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
            job: entry.job.clone(),
        };
        Ok((login, signed))
    }
}

//! Logins: an SVID of our own trust domain for a key, on a token of somebody whom the configuration trusts. People and jobs get theirs here.
//!
//! The token is used up by it in the same group of records, and the login is durable before the certificate leaves. What comes of it is
//! decided like any grant: by policy (`SignIn`), rules and the fold.

use serde_json::{Map, Value};

use crate::authority::Authority;
use crate::credential::x509::{Ca, Csr, Leaf, Signed};
use crate::identity::anchor::TrustAnchor;
use crate::identity::oidc::{Issuer, VerifiedOidc};
use crate::identity::spiffe_id::SpiffeId;
use crate::ledger::record::{
    Attestation, Event, Identity, KeyPurpose, LoggedIn, Record, SvidEvidence, TokenEvidence, UsedOnce, Who,
};
use crate::ledger::state::{id_token_used, serial_of_login};
use crate::ledger::{Lane, View};
use crate::limits;
use crate::own_domain::OwnDomain;
use crate::policy::decide::decided_on_old_state;
use crate::policy::request::{AttestedFacts, PersonFacts};
use crate::policy::{Act, Question};
use crate::refusal::{Fault, No, Reason, Refusal};
use crate::seq::{CredentialId, Millis, Seq};
use crate::trust::bundle_of;

/// A decision that ran into a change is made once more before the caller is told to try again.
const TRIES: usize = 2;

/// A token that its issuer's key made, for us, and that has not ended.
#[derive(Clone, Debug)]
pub struct Token {
    /// The provider's short name.
    pub provider: String,
    /// The environments in which its tokens count.
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

impl Token {
    /// What was verified.
    pub fn of(issuer: &Issuer, token: &VerifiedOidc) -> Token {
        Token {
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

    /// Whom it names.
    pub fn subject(&self) -> Identity {
        Identity { issuer: self.issuer.clone(), sub: self.sub.clone() }
    }
}

/// Who signed in, with the certificate that came of it.
#[derive(Clone, Debug)]
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
pub(crate) struct Manner {
    pub amr: Vec<String>,
    pub acr: String,
    pub auth_time: Millis,
    pub flow: &'static str,
}

/// Who is to sign in, by what.
pub(crate) struct Entry<'a> {
    pub own: &'a OwnDomain,
    pub token: &'a Token,
    /// As policies and records name who it is.
    pub author: Who,
    pub manner: Manner,
    pub job: Option<Attestation>,
    pub ttl_ms: u64,
}

/// What was settled of a login.
struct Decided {
    environment: String,
    policy_version: u64,
    policies: Vec<String>,
}

impl Authority {
    /// Makes the login that `entry` says, which is asked anew where the first try ran into a change.
    pub(crate) async fn log_in<'a>(
        &self,
        key: &Csr,
        id: &SpiffeId,
        entry: impl FnMut(Millis) -> Result<Entry<'a>, No>,
    ) -> Result<SignedIn, No> {
        // Whoever has a token of the provider is somebody: what is refused then is for the audit.
        self.try_login(key, id, entry).await.inspect_err(|no| {
            if let No::Refusal(no) = no {
                self.refused(id.as_str(), no, "login", "");
            }
        })
    }

    async fn try_login<'a>(
        &self,
        key: &Csr,
        id: &SpiffeId,
        mut entry: impl FnMut(Millis) -> Result<Entry<'a>, No>,
    ) -> Result<SignedIn, No> {
        for again in 1.. {
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
            match self.ledger.commit(Lane::Grant, records.map(record).to_vec()).await {
                Ok(receipt) => {
                    let (spiffe_id, certificate) = (id.clone(), signed.der.to_vec());
                    return Ok(SignedIn { credential, seq: receipt.seq(), spiffe_id, certificate, expires_at });
                }
                Err(no) if again < TRIES && decided_on_old_state(&no) => {}
                Err(no) => return Err(no),
            }
        }
        Err(No::Fault(Fault::new("signing in: tries ran out")))
    }

    /// Policy: the set of an environment in which the provider's tokens count permits it, first that of the caller's own.
    fn decide_login(&self, entry: &Entry<'_>, id: &SpiffeId, now: Millis) -> Result<Decided, No> {
        let Entry { token, manner, job, .. } = entry;
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
            let act = Act { environment: Some(name), person, job, now, ..Act::default() };
            let verdict = self.decider.verdicts.verdict(&policy.set, &Question::sign_in(id, &act));
            if verdict.permits() {
                let (environment, policies) = (name.to_owned(), verdict.by().to_vec());
                return Ok(Decided { environment, policy_version: policy.version, policies });
            }
            said.push(format!("{name} (version {}): {verdict}", policy.version));
        }
        let what = match said.is_empty() {
            true => format!("SignIn: no environment of provider {} has a policy set", token.provider),
            false => format!("SignIn: {}", said.join("; ")),
        };
        let no = Refusal::new(Reason::DeniedByPolicy, what).by("policy SignIn");
        Err(No::Refusal(
            no.way_out("whoever owns the policy set permits the action SignIn; docs/people.md and docs/ci.md have examples"),
        ))
    }

    /// Signs the certificate; told to nobody yet.
    fn make_login(
        &self,
        (entry, spiffe_id): (&Entry<'_>, &SpiffeId),
        decided: &Decided,
        key: &Csr,
        view: &View,
    ) -> Result<(LoggedIn, Signed), No> {
        let Entry { own, token, manner, .. } = entry;
        let not_ready = || Refusal::new(Reason::NotReady, "the CA of our own trust domain has no key yet");
        let ca_key = self.keyring.active(KeyPurpose::X509Ca, "").ok_or_else(not_ready)?;
        let domain = &own.trust_domain;
        let bundle = self.ledger.peek(|s| s.bundles.get(domain.as_str()).filter(|b| !b.removed).cloned());
        let bundle = bundle_of(domain, &bundle.ok_or_else(not_ready)?)?;
        let anchor = crate::own_domain::anchor_of(bundle.x509_authorities(), ca_key.public().unwrap_or_default());
        let anchor: &TrustAnchor = anchor.ok_or_else(not_ready)?;
        let now = view.now();
        let end = now.plus(entry.ttl_ms).min(anchor.not_after());
        let expires_at = Millis::from_seconds(end.seconds());
        let id = CredentialId::from_bytes(self.system.random16());
        let crl_url = own.crl_url(ca_key.id());
        let leaf = Leaf { id, key, spiffe_id, crl_url: &crl_url, issued_at: now, expires_at };
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

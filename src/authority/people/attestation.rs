//! Attestation of jobs and pods with a token of the platform that runs them. `logins` issues the certificate.
//!
//! Some platforms give a job only one token. So that a lost answer does not end the job, the same token with the same key gets the same
//! certificate again within `limits::ATTEST_REPEAT_MS` ([`CiLoginCache`]).

use moka::sync::Cache;

use crate::authority::Authority;
use crate::people::logins::{LoginResult, LoginToken, PendingLogin, SignInDetails};
use crate::trust::own_domain::{attested_id, not_configured};
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_credential::x509::Csr;
use mayfly_identity::oidc::{Issuer, attestation};
use mayfly_identity::sha256;
use mayfly_ledger::record::{Attestation, Author};
use mayfly_verify::seq::Millis;

/// The latest logins of jobs by token and key. They are in memory only: after a restart a used token stays used.
pub struct CiLoginCache(Cache<[u8; 32], CachedLogin>);

#[derive(Clone)]
struct CachedLogin {
    /// The time of the login by the monotonic clock, milliseconds.
    at: u64,
    signed_in: LoginResult,
}

impl Default for CiLoginCache {
    fn default() -> CiLoginCache {
        CiLoginCache(Cache::new(limits::ATTEST_REPEATS))
    }
}

/// The cache key of a token, a rule and the caller's key.
fn name(token: &LoginToken, rule: Option<&str>, key: &Csr) -> [u8; 32] {
    let parts = [token.issuer.as_bytes(), token.token_id.as_bytes(), rule.unwrap_or_default().as_bytes(), key.spki()];
    sha256(&parts.iter().flat_map(|part| sha256(part)).collect::<Vec<u8>>())
}

impl Authority {
    /// Logs a job in: issues a certificate for this key to the job of this token, by the named attestation rule or by the first one that
    /// matches.
    ///
    /// Refused: NOT_SERVED without a trust domain of our own, NOT_YOURS if no rule matches, EVIDENCE_REVOKED for a token that was used,
    /// DENIED_BY_POLICY, LOCKED, LIMIT_REACHED, NOT_READY before the CA has a key.
    pub async fn attest(&self, issuer: &Issuer, token: &LoginToken, rule: Option<&str>, key: &Csr) -> Result<LoginResult, Error> {
        let own = self.own_domain.as_ref().ok_or_else(not_configured)?;
        let name = name(token, rule, key);
        if let Some(before) = self.attested_before(&name).await? {
            return Ok(before);
        }
        let settings = own.settings();
        let let_in = attestation::attested(issuer, &settings.attest_rules, rule, &token.claims);
        let found = let_in.map_err(|why| {
            // The rules are named in the audit log only, not in the answer to anybody who has an account at the platform. These refusals
            // are counted under the issuer instead of a caller, since they can be many.
            let what = format!("no rule lets this job of {} in", issuer.name);
            let no = |rule: String| Refusal::new(Reason::NotYours, what.clone()).by(rule);
            self.refused(&issuer.issuer, &no(format!("attestation: {why}")), &format!("attest {}", token.sub), "");
            no("attestation".into()).way_out(
                "the owner of the configuration can change [[attestation]]; the audit log says which condition did not match",
            )
        })?;
        let domain = &own.trust_domain;
        let spiffe_id = attested_id(domain, &token.provider, &found.id, &found.rule.name)?;
        let job = Attestation { rule: found.rule.name.clone(), id: found.id.clone(), claims: found.claims.clone() };
        let entry = |_| {
            let manner = SignInDetails { amr: Vec::new(), acr: String::new(), auth_time: Millis(0), flow: "attested" };
            let (author, ttl_ms) = (Author::SpiffeId(spiffe_id.to_string()), found.rule.ttl_ms);
            Ok(PendingLogin { own, token, author, manner, job: Some(job.clone()), ttl_ms })
        };
        let signed_in = self.log_in(key, &spiffe_id, entry).await?;
        self.attested.0.insert(name, CachedLogin { at: self.system.steady(), signed_in: signed_in.clone() });
        Ok(signed_in)
    }

    /// The login that this token and key got within the last minute, if it is still valid: an ended or revoked login is not returned again.
    async fn attested_before(&self, name: &[u8; 32]) -> Result<Option<LoginResult>, Error> {
        let Some(made) = self.attested.0.get(name) else { return Ok(None) };
        if self.system.steady().saturating_sub(made.at) > limits::ATTEST_REPEAT_MS {
            self.attested.0.invalidate(name);
            return Ok(None);
        }
        let id = made.signed_in.credential;
        let stands = self.ledger.settled(move |state| {
            let login = state.logins.get(&id).filter(|login| login.ended_at.is_none());
            login.is_some_and(|login| state.rules.covers(&login.facts()).is_none())
        });
        Ok(stands.await?.then_some(made.signed_in))
    }
}
